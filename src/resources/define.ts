import type { Column, KindInfo, ObjectMeta, Resource } from "./kind.ts";
import { labelKey, labelName, labelValue, subdomainName } from "./names.ts";
import { messageOf } from "../lib/errors.ts";
import {
  anything,
  arrayOf,
  boolean,
  describe,
  int,
  InvalidResource,
  isObject,
  mapOf,
  object,
  opaque,
  optional,
  refine,
  Report,
  string,
  text,
  withDefault,
  type Fault,
  type Fields,
  type ObjectOf,
  type Schema,
} from "./schema.ts";

export const CALICO = "projectcalico.org";
/** The group of Calico's own CRDs, whose specs are the same: taken on input, never written. */
export const CALICO_CRD = "crd.projectcalico.org/v1";

/** Limit of the API server on all annotations of one object together, in bytes. */
const ANNOTATIONS_MAX = 256 * 1024;

const ownerReference = object({
  apiVersion: string,
  kind: string,
  name: string,
  uid: string,
  controller: optional(boolean),
  blockOwnerDeletion: optional(boolean),
});

const annotations = refine(mapOf(string, labelKey), (map, fault) => {
  let size = 0;
  for (const [key, value] of Object.entries(map)) size += key.length + value.length;
  if (size > ANNOTATIONS_MAX) fault(`all together are ${size} bytes long, more than ${ANNOTATIONS_MAX}`);
});

const metadata: Schema<ObjectMeta> = object({
  name: withDefault(string, ""),
  namespace: optional(string),
  labels: optional(mapOf(text("a string", labelValue), labelKey)),
  annotations: optional(annotations),
  resourceVersion: optional(string),
  uid: optional(string),
  generation: optional(int(0, Number.MAX_SAFE_INTEGER)),
  creationTimestamp: optional(string),
  deletionTimestamp: optional(string),
  deletionGracePeriodSeconds: optional(int(0, Number.MAX_SAFE_INTEGER)),
  generateName: optional(string),
  finalizers: optional(arrayOf(string)),
  ownerReferences: optional(arrayOf(ownerReference)),
  managedFields: optional(arrayOf(anything)),
  selfLink: optional(string),
});

/** What the file of a kind says about it. */
interface Definition<Kind extends string, F extends Fields> {
  readonly kind: Kind;
  /** Its name in the group of Calico's own CRDs, where that is another. */
  readonly crdKind?: string;
  /** Where `kind` is not unique. */
  readonly id?: string;
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  /** Without it: the kind in lower case. */
  readonly singular?: string;
  readonly shortNames?: readonly string[];
  readonly namespaced?: boolean;
  readonly status?: boolean;
  /** Throws `NameError`. Without it: an RFC 1123 subdomain. */
  readonly checkName?: (name: string) => unknown;
  /** Everything beside apiVersion, kind and metadata. */
  readonly fields: F;
  /** Labels that the system gives each object by itself, whatever is written. */
  readonly systemLabels?: (name: string) => Readonly<Record<string, string>>;
  /** Rules that span fields and metadata; run when each part by itself is right. */
  readonly check?: (item: ItemWith<Kind, F>, fault: (reason: string, path: string) => void) => void;
  /** What may not change once it has a value: path and value. */
  readonly fixed?: (item: ItemWith<Kind, F>) => Readonly<Record<string, unknown>>;
  readonly columns?: readonly Column<ItemWith<Kind, F>>[];
}

type ItemWith<Kind extends string, F extends Fields> = {
  [K in keyof (Resource & { kind: Kind } & ObjectOf<F>)]: (Resource & { kind: Kind } & ObjectOf<F>)[K];
};

/** The type of the objects of a kind. */
export type ItemOf<Info> = Info extends KindInfo<infer Item> ? { [K in keyof Item]: Item[K] } : never;

/** The row of a kind, with the reading of metadata, names and faults that all kinds share. */
export function defineKind<const Kind extends string, const F extends Fields>(
  definition: Definition<Kind, F>,
): KindInfo<ItemWith<Kind, F>> {
  const {
    kind,
    group,
    version,
    namespaced = false,
    checkName = subdomainName,
    systemLabels,
    check,
    fixed,
  } = definition;
  const apiVersion = group === "" ? version : `${group}/${version}`;
  const body = object({ ...opaque("apiVersion", "kind"), metadata, ...definition.fields });

  const parse: KindInfo<ItemWith<Kind, F>>["parse"] = (input, options = {}) => {
    const report = new Report(options.keepUnknown ?? false);
    const item = body.read(input, report) as unknown as ItemWith<Kind, F>;
    if (isObject(input)) {
      const crd = group === CALICO && input["apiVersion"] === CALICO_CRD;
      if (input["kind"] !== kind && !(crd && input["kind"] === definition.crdKind)) {
        report.fault(`expected ${kind}, not ${describe(input["kind"])}`, "kind");
      }
      if (input["apiVersion"] !== apiVersion && !crd) {
        report.fault(`expected ${apiVersion}, not ${describe(input["apiVersion"])}`, "apiVersion");
      }
      if (isObject(input["metadata"])) checkIdentity(item.metadata, kind, namespaced, checkName, report);
    }
    if (report.faults.length === 0) check?.(item, (reason, path) => report.fault(reason, path));
    if (report.faults.length > 0) throw new InvalidResource(titleOf(kind, input), report.faults);
    const { name, labels } = item.metadata;
    if (systemLabels !== undefined && name !== "") item.metadata.labels = { ...labels, ...systemLabels(name) };
    return Object.assign(item, { apiVersion, kind });
  };

  return {
    id: definition.id ?? kind,
    kind,
    group,
    version,
    plural: definition.plural,
    singular: definition.singular ?? kind.toLowerCase(),
    shortNames: definition.shortNames ?? [],
    namespaced,
    status: definition.status ?? false,
    parse,
    ...(fixed === undefined ? {} : { checkUpdate: fixedFields(kind, fixed) }),
    columns: [{ heading: "NAME", text: (item) => item.metadata.name }, ...(definition.columns ?? [])],
  };
}

/** Fills in the namespace and checks the name. */
function checkIdentity(
  meta: ObjectMeta,
  kind: string,
  namespaced: boolean,
  checkName: (name: string) => unknown,
  report: Report,
): void {
  const attempt = (path: string, run: () => unknown): void => {
    try {
      run();
    } catch (thrown) {
      report.fault(messageOf(thrown), path);
    }
  };
  if (meta.name === "" && (meta.generateName ?? "") === "") report.fault("is required (a string)", "metadata.name");
  if (typeof meta.name === "string" && meta.name !== "") attempt("metadata.name", () => checkName(meta.name));
  if (meta.namespace === "") delete meta.namespace;
  if (!namespaced && meta.namespace !== undefined) {
    report.fault(`must be absent: ${kind} objects are not in a namespace`, "metadata.namespace");
  } else if (namespaced) {
    meta.namespace ??= "default";
    const { namespace } = meta;
    if (typeof namespace === "string") attempt("metadata.namespace", () => labelName(namespace));
  }
}

/** `IPPool "pool-a"`, or `NetworkPolicy "shop/web"`. */
function titleOf(kind: string, input: unknown): string {
  const meta = isObject(input) && isObject(input["metadata"]) ? input["metadata"] : {};
  const { name, namespace } = meta;
  if (typeof name !== "string") return kind;
  return `${kind} "${typeof namespace === "string" && namespace !== "" ? `${namespace}/` : ""}${name}"`;
}

function fixedFields<Item extends Resource>(
  kind: string,
  fixed: (item: Item) => Readonly<Record<string, unknown>>,
): (previous: Item, next: Item) => void {
  return (previous, next) => {
    const before = fixed(previous);
    const faults: Fault[] = [];
    for (const [path, value] of Object.entries(fixed(next))) {
      if (before[path] === undefined || value === before[path]) continue;
      const is = JSON.stringify(before[path]);
      faults.push({ path, reason: `cannot be changed (it is ${is}): delete the object and create it anew` });
    }
    if (faults.length > 0) throw new InvalidResource(titleOf(kind, next), faults);
  };
}
