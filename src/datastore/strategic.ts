/**
 * Strategic merge patch: a merge patch in which some lists are maps in disguise, whose elements are matched by a key
 * (Kubernetes: `patchMergeKey` and `patchStrategy` in `staging/src/k8s.io/api/core/v1/types.go`). `kubectl apply` sends it
 * for the kinds of the Kubernetes core.
 */
import { DatastoreError } from "./datastore.ts";
import { isFields, sameJson } from "./patch.ts";

type Fields = Record<string, unknown>;

/** The field by which a list's elements are matched; `undefined` stands for a set of plain values. Others are replaced. */
const MERGE_KEYS: Record<string, string | undefined> = {
  "metadata.finalizers": undefined,
  "metadata.ownerReferences": "uid",
  "spec.containers": "name",
  "spec.initContainers": "name",
  "spec.ephemeralContainers": "name",
  "spec.volumes": "name",
  "spec.imagePullSecrets": "name",
  "spec.hostAliases": "ip",
  "spec.resourceClaims": "name",
  "spec.schedulingGates": "name",
  "spec.topologySpreadConstraints": "topologyKey",
  "spec.containers.env": "name",
  "spec.containers.ports": "containerPort",
  "spec.containers.volumeMounts": "mountPath",
  "spec.containers.volumeDevices": "devicePath",
  "spec.initContainers.env": "name",
  "spec.initContainers.ports": "containerPort",
  "spec.initContainers.volumeMounts": "mountPath",
  "spec.ephemeralContainers.env": "name",
  "spec.ephemeralContainers.ports": "containerPort",
  "spec.ephemeralContainers.volumeMounts": "mountPath",
  /** Of a Service; a Node has taints and pod ranges as well. */
  "spec.ports": "port",
  "spec.taints": "key",
  "spec.podCIDRs": undefined,
  "status.conditions": "type",
  "status.addresses": "type",
  "status.podIPs": "ip",
  "status.hostIPs": "ip",
  secrets: "name",
  imagePullSecrets: "name",
};

const DELETE_FROM = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER = "$setElementOrder/";
const RETAIN_KEYS = "$retainKeys";
const DIRECTIVE = "$patch";

/** Merges `patch` into `target`, both JSON objects of a kind of the Kubernetes core. */
export function strategicMergePatch(target: unknown, patch: unknown, path = ""): unknown {
  if (!isFields(patch)) return patch;
  const { [DIRECTIVE]: directive, ...fields } = patch;
  if (directive === "replace") return fields;
  if (directive === "delete") return {};
  const merged: Fields = isFields(target) ? { ...target } : {};
  for (const [field, value] of Object.entries(fields)) {
    if (field.startsWith("$")) continue;
    const below = path === "" ? field : `${path}.${field}`;
    if (value === null) delete merged[field];
    else if (Array.isArray(value)) merged[field] = mergeList(merged[field], value, below);
    else if (isFields(value) && value[DIRECTIVE] === "delete") delete merged[field];
    else merged[field] = strategicMergePatch(merged[field], value, below);
  }
  deleteFromSets(merged, fields);
  orderElements(merged, fields, path);
  const retained = fields[RETAIN_KEYS];
  if (Array.isArray(retained)) {
    for (const field of Object.keys(merged)) if (!retained.includes(field)) delete merged[field];
  }
  return merged;
}

function mergeList(target: unknown, patch: readonly unknown[], path: string): unknown[] {
  const directive = patch.find((element) => isFields(element) && element[DIRECTIVE] === "replace");
  const plain = patch.filter((element) => element !== directive);
  if (directive !== undefined || !Object.hasOwn(MERGE_KEYS, path)) return plain;
  const present: unknown[] = Array.isArray(target) ? [...(target as unknown[])] : [];
  const key = MERGE_KEYS[path];
  if (key === undefined) return [...present, ...plain.filter((value) => !present.includes(value))];
  for (const element of plain) {
    if (!isFields(element) || element[key] === undefined) {
      throw new DatastoreError("invalid", `the patch is malformed: an element of ${path} lacks its merge key ${key}`);
    }
    const position = present.findIndex((other) => isFields(other) && sameJson(other[key], element[key]));
    if (element[DIRECTIVE] === "delete") {
      if (position >= 0) present.splice(position, 1);
    } else if (position >= 0) present[position] = strategicMergePatch(present[position], element, path);
    else present.push(strategicMergePatch({}, element, path));
  }
  return present;
}

function deleteFromSets(merged: Fields, patch: Fields): void {
  for (const [directive, values] of Object.entries(patch)) {
    if (!directive.startsWith(DELETE_FROM) || !Array.isArray(values)) continue;
    const field = directive.slice(DELETE_FROM.length);
    const present = merged[field];
    if (Array.isArray(present)) merged[field] = present.filter((value) => !values.includes(value));
  }
}

/** Elements that the order does not name keep their places relative to each other, after those that it names. */
function orderElements(merged: Fields, patch: Fields, path: string): void {
  for (const [directive, order] of Object.entries(patch)) {
    if (!directive.startsWith(ELEMENT_ORDER) || !Array.isArray(order)) continue;
    const field = directive.slice(ELEMENT_ORDER.length);
    const present = merged[field];
    if (!Array.isArray(present)) continue;
    const key = MERGE_KEYS[path === "" ? field : `${path}.${field}`];
    const identity = (element: unknown): unknown => (key !== undefined && isFields(element) ? element[key] : element);
    const named = (order as unknown[]).map(identity);
    const rank = (element: unknown): number => {
      const position = named.findIndex((value) => sameJson(value, identity(element)));
      return position < 0 ? named.length : position;
    };
    merged[field] = (present as unknown[]).toSorted((left, right) => rank(left) - rank(right));
  }
}
