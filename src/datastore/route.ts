/** What a path of the Kubernetes REST API stands for. */
import { KIND, type KindId } from "../resources/registry.ts";

export type Route =
  | { readonly type: "health" | "version" | "core" | "groups" }
  /** `/apis/projectcalico.org` */
  | { readonly type: "group"; readonly group: string }
  /** `/api/v1`, `/apis/projectcalico.org/v3`: the kinds there. */
  | { readonly type: "kinds"; readonly group: string; readonly version: string }
  /** `/openapi/v3`, and the document of one group and version. */
  | { readonly type: "openapi" }
  | { readonly type: "openapiOf"; readonly group: string; readonly version: string }
  | { readonly type: "collection"; readonly kind: KindId; readonly namespace?: string }
  | {
      readonly type: "object";
      readonly kind: KindId;
      readonly namespace?: string;
      readonly name: string;
      readonly status: boolean;
    };

const BY_PATH: ReadonlyMap<string, KindId> = new Map(
  Object.entries(KIND).map(([id, { group, version, plural }]) => [`${group}/${version}/${plural}`, id as KindId]),
);
const GROUP_VERSIONS: ReadonlySet<string> = new Set(
  Object.values(KIND).map(({ group, version }) => `${group}/${version}`),
);
const FIXED: Readonly<Record<string, Route>> = {
  "/healthz": { type: "health" },
  "/livez": { type: "health" },
  "/readyz": { type: "health" },
  "/version": { type: "version" },
  "/api": { type: "core" },
  "/apis": { type: "groups" },
  "/openapi/v3": { type: "openapi" },
};

/** What the path (without its query) names; undefined when there is no such thing here. */
export function routeOf(path: string): Route | undefined {
  const plain = path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path;
  if (Object.hasOwn(FIXED, plain)) return FIXED[plain];
  const segments = decode(plain);
  if (segments === undefined || segments.includes("")) return undefined;
  if (segments[0] === "openapi" && segments[1] === "v3") {
    const at = groupVersion(segments.slice(2));
    return at !== undefined && at.rest.length === 0
      ? { type: "openapiOf", group: at.group, version: at.version }
      : undefined;
  }
  if (segments[0] === "apis" && segments.length === 2) {
    const group = segments[1] ?? "";
    return Object.values(KIND).some((info) => info.group === group) ? { type: "group", group } : undefined;
  }
  const at = groupVersion(segments);
  if (at === undefined) return undefined;
  if (at.rest.length === 0) return { type: "kinds", group: at.group, version: at.version };
  return resource(`${at.group}/${at.version}`, at.rest);
}

function decode(path: string): string[] | undefined {
  if (!path.startsWith("/")) return undefined;
  try {
    return path.slice(1).split("/").map(decodeURIComponent);
  } catch {
    return undefined;
  }
}

/** `api/v1/…` is the core group, `apis/GROUP/VERSION/…` any other. */
function groupVersion(segments: string[]): { group: string; version: string; rest: string[] } | undefined {
  const core = segments[0] === "api";
  if (!core && segments[0] !== "apis") return undefined;
  const group = core ? "" : (segments[1] ?? "");
  const version = segments[core ? 1 : 2] ?? "";
  if ((group === "") !== core || !GROUP_VERSIONS.has(`${group}/${version}`)) return undefined;
  return { group, version, rest: segments.slice(core ? 2 : 3) };
}

function resource(groupVersionText: string, rest: string[]): Route | undefined {
  // A namespace's own path looks like the beginning of a path in it: `namespaces/NAME`, `namespaces/NAME/status`.
  const inNamespace = rest[0] === "namespaces" && rest.length > 2 && rest[2] !== "status";
  const namespace = inNamespace ? rest[1] : undefined;
  const [plural = "", name, subresource, ...beyond] = inNamespace ? rest.slice(2) : rest;
  const kind = BY_PATH.get(`${groupVersionText}/${plural}`);
  if (kind === undefined || beyond.length > 0) return undefined;
  const { namespaced, status } = KIND[kind];
  if (namespace !== undefined && !namespaced) return undefined;
  const where = namespace === undefined ? {} : { namespace };
  if (name === undefined) return { type: "collection", kind, ...where };
  if (namespaced && namespace === undefined) return undefined;
  if (subresource !== undefined && !(subresource === "status" && status)) return undefined;
  return { type: "object", kind, ...where, name, status: subresource === "status" };
}

/** The path of a kind's collection, or of one object in it. */
export function pathOf(kind: KindId, namespace?: string, name?: string): string {
  const { group, version, plural, namespaced } = KIND[kind];
  const root = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  const home =
    namespaced && namespace !== undefined && namespace !== "" ? `/namespaces/${encodeURIComponent(namespace)}` : "";
  return `${root}${home}/${plural}${name === undefined ? "" : `/${encodeURIComponent(name)}`}`;
}
