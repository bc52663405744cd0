/** The objects of manifests, checked before anything is done with any of them. */
import { Failure, messageOf } from "../lib/errors.ts";
import type { KindInfo, Resource } from "../resources/kind.ts";
import { KIND, kindOf, KINDS, type KindId } from "../resources/registry.ts";
import { InvalidResource, isObject } from "../resources/schema.ts";
import { didYouMean } from "../resources/suggestion.ts";
import { parseManifest, type RawObject } from "../resources/yaml.ts";

/** One message a line, for each thing that is wrong in any of the manifests. */
export class ManifestsRefused extends Failure<"invalid"> {
  constructor(faults: readonly string[]) {
    super("invalid", faults.join("\n"));
  }
}

/** Text of a manifest, and what to call it in messages: a file name, or `standard input`. */
export interface Manifest {
  readonly source: string;
  readonly text: string;
}

export interface ManifestObject {
  readonly kind: KindId;
  readonly name: string;
  readonly namespace: string | undefined;
  /** As it stands in the manifest, with the namespace that it goes to. */
  readonly raw: Record<string, unknown>;
  /** `pods.yaml, document 2, line 14` */
  readonly where: string;
}

/** An object that its kind accepts. */
export interface CheckedObject extends ManifestObject {
  readonly object: Resource;
}

/**
 * The objects that the manifests name, whatever else is in them: enough to delete them.
 * @param namespace where objects without a namespace of their own go; those of another one are refused. Absent: `default`
 */
export function identify(manifests: readonly Manifest[], namespace: string | undefined): ManifestObject[] {
  const faults: string[] = [];
  const objects = manifests.flatMap(({ source, text }) =>
    read(source, text, faults).flatMap((item) => {
      const where = `${source}, document ${item.document}, line ${item.line}`;
      const found = identifyOne(item.object, namespace);
      if (typeof found !== "string") return [{ ...found, where }];
      faults.push(`${where}: ${found}`);
      return [];
    }),
  );
  if (faults.length > 0) throw new ManifestsRefused(faults);
  return objects;
}

/** The objects of the manifests; throws `ManifestsRefused` with every fault of all of them. */
export function check(manifests: readonly Manifest[], namespace: string | undefined): CheckedObject[] {
  const faults: string[] = [];
  const checked = identify(manifests, namespace).flatMap((item): CheckedObject[] => {
    const info: KindInfo = KIND[item.kind];
    try {
      return [{ ...item, object: info.parse(item.raw) }];
    } catch (thrown) {
      if (!(thrown instanceof InvalidResource)) throw thrown;
      const object = `${info.kind} "${item.name}"`;
      faults.push(
        ...thrown.faults.map(
          ({ path, reason }) => `${item.where}: ${object}: ${path === "" ? "" : `${path}: `}${reason}`,
        ),
      );
      return [];
    }
  });
  if (faults.length > 0) throw new ManifestsRefused(faults);
  return checked;
}

function read(source: string, text: string, faults: string[]): RawObject[] {
  try {
    return parseManifest(text, source);
  } catch (thrown) {
    faults.push(messageOf(thrown));
    return [];
  }
}

/** Returns what is wrong, as text, where it cannot tell. */
function identifyOne(
  raw: Record<string, unknown>,
  namespace: string | undefined,
): Omit<ManifestObject, "where"> | string {
  const { apiVersion, kind: kindText, metadata } = raw;
  if (typeof apiVersion !== "string") return "apiVersion: is required (a string)";
  if (typeof kindText !== "string") return "kind: is required (a string)";
  const kind = kindOf(apiVersion, kindText);
  if (kind === undefined) return unknownKind(apiVersion, kindText);
  if (!isObject(metadata)) return "metadata: is required (an object)";
  const { name, namespace: own } = metadata;
  if (typeof name !== "string" || name === "") return "metadata.name: is required (a string)";
  if (!KIND[kind].namespaced) return { kind, name, namespace: undefined, raw };
  if (own !== undefined && own !== null && typeof own !== "string") return "metadata.namespace: is not a string";
  if (own && namespace !== undefined && own !== namespace) {
    return `metadata.namespace: is "${own}", but the namespace given is "${namespace}"`;
  }
  const home = own || (namespace ?? "default");
  return { kind, name, namespace: home, raw: { ...raw, metadata: { ...metadata, namespace: home } } };
}

function unknownKind(apiVersion: string, kind: string): string {
  const others = KINDS.filter((info) => info.kind === kind).map(({ group, version }) =>
    group === "" ? version : `${group}/${version}`,
  );
  if (others.length > 0) return `apiVersion: ${kind} is not in ${apiVersion}, it is in ${others.join(" and ")}`;
  return `kind: there is no ${kind} in ${apiVersion} here${didYouMean(
    kind,
    KINDS.map((info) => info.kind),
  )}`;
}
