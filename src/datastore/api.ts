/**
 * The REST API of Kubernetes over a `Store`: a request in, an answer out, synchronously and without sockets. Writes change
 * the log but publish nothing: the server does, once they are stored. Throws `DatastoreError`, `InvalidResource` and
 * `HttpRefusal`.
 */
import { messageOf } from "../lib/errors.ts";
import type { Resource } from "../resources/kind.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import { tableOf, wantsTable, type IncludeObject } from "./apiTable.ts";
import type { Preconditions, Selection } from "./datastore.ts";
import * as discovery from "./discovery.ts";
import { partOf } from "./listPart.ts";
import { isFields, jsonPatch, mergePatch } from "./patch.ts";
import { objectFromProtobuf, PROTOBUF } from "./protobuf.ts";
import { badRequest } from "./refusal.ts";
import type { Route } from "./route.ts";
import { matcherOf } from "./selection.ts";
import { HttpRefusal } from "./status.ts";
import type { Store } from "./store.ts";
import { strategicMergePatch } from "./strategic.ts";
import type { Entry } from "./versionedLog.ts";
import type { WatchRequest } from "./watchFeed.ts";

export interface ApiRequest {
  readonly method: string;
  readonly route: Route;
  readonly query: URLSearchParams;
  readonly accept: string | undefined;
  readonly contentType: string | undefined;
  /** Empty where there is none. UTF-8, or protobuf. */
  readonly body: Buffer;
}

export interface ApiAnswer {
  readonly status: 200 | 201;
  readonly contentType: string;
  readonly body: string;
}

const JSON_TYPE = "application/json";
const MERGE = "application/merge-patch+json";
const STRATEGIC = "application/strategic-merge-patch+json";
const JSON_PATCH = "application/json-patch+json";

const text = (body: string): ApiAnswer => ({ status: 200, contentType: "text/plain; charset=utf-8", body });
const json = (body: string, status: 200 | 201 = 200): ApiAnswer => ({ status, contentType: JSON_TYPE, body });
const document = (body: object): ApiAnswer => json(JSON.stringify(body));

/** Whether the request may change something: it must then have its turn among the writes. */
export const isWrite = ({ method }: ApiRequest): boolean => method !== "GET" && method !== "HEAD";

/** Whether the request only asks what would happen: in its query, or for a deletion in its `DeleteOptions`. */
export function isDryRun({ method, query, body }: ApiRequest): boolean {
  const options = method === "DELETE" && body.length > 0 ? parseBody(body) : undefined;
  const asked = [
    ...query.getAll("dryRun"),
    ...(isFields(options) && Array.isArray(options["dryRun"]) ? (options["dryRun"] as unknown[]) : []),
  ];
  const unknown = asked.find((value) => value !== "All" && value !== "");
  if (unknown !== undefined) throw badRequest(`invalid dryRun value ${JSON.stringify(unknown)}: the only one is "All"`);
  return asked.includes("All");
}

/** What a request to watch asks for; undefined when it asks for something else. */
export function watchRequestOf({ method, route, query, accept }: ApiRequest): WatchRequest | undefined {
  if (method !== "GET" || (route.type !== "collection" && route.type !== "object")) return undefined;
  if (!/^(1|true)$/.test(query.get("watch") ?? "")) return undefined;
  const one = route.type === "object" ? `metadata.name=${route.name}` : "";
  const selection = selectionOf(route.namespace, query);
  const fieldSelector = [one, selection.fieldSelector ?? ""].filter((part) => part !== "").join(",");
  const seconds = Number(query.get("timeoutSeconds") ?? "");
  return {
    kind: route.kind,
    matches: matcherOf(route.kind, { ...selection, fieldSelector }),
    resourceVersion: query.get("resourceVersion") || undefined,
    bookmarks: query.get("allowWatchBookmarks") === "true" || query.get("allowWatchBookmarks") === "1",
    initialEvents: query.get("sendInitialEvents") === "true",
    timeoutSeconds: Number.isFinite(seconds) && seconds > 0 ? seconds : undefined,
    table: wantsTable(accept) ? includeOf(query) : undefined,
  };
}

/** @param now milliseconds since 1970 */
export function answer(store: Store, request: ApiRequest, now: number): ApiAnswer {
  const { route, method } = request;
  if (route.type === "collection") return answerCollection(store, request, route, now);
  if (route.type === "object") return answerObject(store, request, route, now);
  if (method !== "GET" && method !== "HEAD") throw notAllowed(method);
  switch (route.type) {
    case "health":
      return text("ok");
    case "version":
      return document(discovery.VERSION);
    case "core":
      return document(discovery.coreVersions());
    case "groups":
      return document(discovery.groupList());
    case "group":
      return document(discovery.groupOf(route.group));
    case "kinds":
      return document(discovery.resourceList(route.group, route.version));
    case "openapi":
      return document(discovery.openapiIndex());
    case "openapiOf":
      return document(discovery.openapiOf(route.group, route.version));
  }
}

const notAllowed = (method: string): HttpRefusal =>
  new HttpRefusal(405, `the server does not allow the method ${method} on the requested resource`);

function answerCollection(
  store: Store,
  request: ApiRequest,
  route: Route & { type: "collection" },
  now: number,
): ApiAnswer {
  const { kind, namespace } = route;
  switch (request.method) {
    case "GET":
    case "HEAD":
      return list(store, request, kind, namespace, now);
    case "POST": {
      const created = store.create(kind, placed(kind, objectIn(request), namespace));
      return one(request, created, now, 201);
    }
    case "DELETE": {
      const matches = matcherOf(kind, selectionOf(namespace, request.query));
      const doomed = [...store.log.entries(kind).values()].filter((entry) => matches(entry.object));
      const deleted = doomed.map(({ object: { metadata } }) => store.delete(kind, metadata.name, metadata.namespace));
      return json(listJson(kind, deleted, store.log.revision));
    }
    default:
      throw notAllowed(request.method);
  }
}

function answerObject(store: Store, request: ApiRequest, route: Route & { type: "object" }, now: number): ApiAnswer {
  const { kind, namespace, name, status } = route;
  switch (request.method) {
    case "GET":
    case "HEAD":
      return one(request, store.read(kind, name, namespace), now);
    case "PUT": {
      const object = placed(kind, objectIn(request), namespace);
      const named = metadataOf(object)["name"];
      if (named !== name)
        throw badRequest(`the name of the object (${String(named)}) does not match the name on the URL (${name})`);
      return one(request, store.update(kind, object, { status }), now);
    }
    case "PATCH": {
      const change = patchIn(request, kind);
      return one(request, store.patch(kind, name, namespace, change, { status }), now);
    }
    case "DELETE":
      if (status) throw notAllowed("DELETE");
      return json(store.delete(kind, name, namespace, preconditionsIn(request)).json);
    default:
      throw notAllowed(request.method);
  }
}

function one(request: ApiRequest, entry: Entry, now: number, status: 200 | 201 = 200): ApiAnswer {
  if (!wantsTable(request.accept)) return json(entry.json, status);
  const resourceVersion = String(entry.revision);
  const table = tableOf(entry.kind, [entry], { resourceVersion, include: includeOf(request.query), now });
  return json(JSON.stringify(table), status);
}

function list(store: Store, request: ApiRequest, kind: KindId, namespace: string | undefined, now: number): ApiAnswer {
  const { query, accept } = request;
  const { entries, revision, more } = partOf(store.log, kind, query, matcherOf(kind, selectionOf(namespace, query)));
  if (!wantsTable(accept)) return json(listJson(kind, entries, revision, more));
  const resourceVersion = String(revision);
  return document(tableOf(kind, entries, { resourceVersion, continue: more, include: includeOf(query), now }));
}

function listJson(kind: KindId, entries: readonly Entry[], revision: number, more?: string): string {
  const info = KIND[kind];
  const head = {
    kind: `${info.kind}List`,
    apiVersion: discovery.apiVersionOf(info),
    metadata: { resourceVersion: String(revision), ...(more === undefined ? {} : { continue: more }) },
  };
  return `${JSON.stringify(head).slice(0, -1)},"items":[${entries.map((entry) => entry.json).join(",")}]}`;
}

function selectionOf(namespace: string | undefined, query: URLSearchParams): Selection {
  return {
    namespace,
    labelSelector: query.get("labelSelector") ?? undefined,
    fieldSelector: query.get("fieldSelector") ?? undefined,
  };
}

function includeOf(query: URLSearchParams): IncludeObject {
  const include = query.get("includeObject") || "Metadata";
  if (include !== "Metadata" && include !== "None" && include !== "Object") {
    throw badRequest(`unrecognized includeObject value: ${JSON.stringify(include)}`);
  }
  return include;
}

function parseBody(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString("utf8")) as unknown;
  } catch (thrown) {
    throw badRequest(`the body is not JSON: ${messageOf(thrown)}`);
  }
}

const mediaType = (contentType: string | undefined): string => (contentType ?? "").split(";")[0]!.trim().toLowerCase();

function objectIn({ contentType, body }: ApiRequest): Record<string, unknown> {
  const type = mediaType(contentType);
  const object =
    type === PROTOBUF ? protobufObject(body) : type === JSON_TYPE || type === "" ? parseBody(body) : undefined;
  if (object === undefined) {
    throw new HttpRefusal(
      415,
      `the body of the request was in an unknown format - accepted media types include: ${JSON_TYPE}`,
    );
  }
  if (!isFields(object)) throw badRequest("the body is not an object");
  return object;
}

function protobufObject(body: Buffer): unknown {
  try {
    return objectFromProtobuf(body);
  } catch (thrown) {
    throw badRequest(`the body is not protobuf: ${messageOf(thrown)}`);
  }
}

function metadataOf(object: Record<string, unknown>): Record<string, unknown> {
  return isFields(object["metadata"]) ? object["metadata"] : {};
}

/** The object with the namespace of its path; throws when it names another one. */
function placed(kind: KindId, object: Record<string, unknown>, namespace: string | undefined): Record<string, unknown> {
  if (!KIND[kind].namespaced) return object;
  const metadata = metadataOf(object);
  const given = metadata["namespace"];
  if (namespace === undefined)
    throw new HttpRefusal(405, "objects of this kind are written in a namespace: it belongs in the path");
  if (given === undefined || given === "") return { ...object, metadata: { ...metadata, namespace } };
  if (given === namespace) return object;
  throw badRequest(
    `the namespace of the provided object does not match the namespace sent on the request (${namespace})`,
  );
}

function patchIn(request: ApiRequest, kind: KindId): (object: Resource) => unknown {
  const type = mediaType(request.contentType);
  const core = KIND[kind].group === "" || KIND[kind].group.endsWith(".k8s.io");
  const accepted = [JSON_PATCH, MERGE, ...(core ? [STRATEGIC] : [])];
  if (!accepted.includes(type)) {
    const known = `accepted media types include: ${accepted.join(", ")}`;
    throw new HttpRefusal(415, `the body of the request was in an unknown format - ${known}`);
  }
  const patch = parseBody(request.body);
  if (type === JSON_PATCH) return (object) => jsonPatch(object, patch);
  if (!isFields(patch)) throw badRequest("the patch is not an object");
  return type === MERGE ? (object) => mergePatch(object, patch) : (object) => strategicMergePatch(object, patch);
}

/** Those of `DeleteOptions`. */
function preconditionsIn({ body }: ApiRequest): Preconditions {
  if (body.length === 0) return {};
  const options = parseBody(body);
  const preconditions = isFields(options) ? options["preconditions"] : undefined;
  if (!isFields(preconditions)) return {};
  const { uid, resourceVersion } = preconditions;
  return {
    uid: typeof uid === "string" ? uid : undefined,
    resourceVersion: typeof resourceVersion === "string" ? resourceVersion : undefined,
  };
}

/** The object that a request is about, for the message when it fails. */
export function targetOf(route: Route, body: Buffer | undefined): { kind: KindId; name?: string } | undefined {
  if (route.type === "object") return { kind: route.kind, name: route.name };
  if (route.type !== "collection") return undefined;
  let object: unknown;
  try {
    object = body === undefined || body.length === 0 ? undefined : parseBody(body);
  } catch {
    object = undefined; // it has a name only where it can be read
  }
  const name = isFields(object) ? metadataOf(object)["name"] : undefined;
  return typeof name === "string" && name !== "" ? { kind: route.kind, name } : { kind: route.kind };
}
