/** The datastore that is an API server: of Kubernetes, or the embedded one. */
import { messageOf } from "../lib/errors.ts";
import type { KindInfo } from "../resources/kind.ts";
import { KIND, type KindId, type Kinds } from "../resources/registry.ts";
import { readAsFarAsPossible } from "../resources/unreadable.ts";
import {
  DatastoreError,
  type Datastore,
  type ListSelection,
  type ObjectList,
  type PatchOptions,
  type Preconditions,
  type Selection,
  type WatchEvent,
  type WatchOptions,
} from "./datastore.ts";
import { connectTo, type ApiServerAddress } from "./http.io.ts";
import { isFields, textIn } from "./patch.ts";
import { resourceName } from "./refusal.ts";
import { pathOf } from "./route.ts";
import { errorFromStatus } from "./status.ts";
import { objectKey } from "./versionedLog.ts";

export interface ClientOptions {
  /** Milliseconds for one request; default 10,000. Lists get three times as long. */
  readonly deadline?: number;
  /** How long a watch lasts before it is begun anew, in seconds; default 300. It ends a connection that died unnoticed. */
  readonly watchSeconds?: number;
  /**
   * Told of objects that break the rules of their kind. Who listens has what could be read of them in lists and watches
   * (policies let nothing more through); without it, and where that is nothing, they are as if they were not there. Only
   * for servers that are not ours: the embedded one holds no such object.
   */
  readonly onInvalid?: (kind: KindId, key: string, reason: string) => void;
}

export interface ApiDatastore extends Datastore {
  /** Ends what is under way. */
  close(): void;
}

/** @param address of an embedded server by its socket, or of any API server by its URL */
export function kubernetesDatastore(address: ApiServerAddress, options: ClientOptions = {}): ApiDatastore {
  const connection = connectTo(address);
  const deadline = options.deadline ?? 10_000;
  const watchSeconds = options.watchSeconds ?? 300;
  // What the embedded server hands out it has checked and filled in already.
  const checked = "socketPath" in address;

  function accept<K extends KindId>(kind: K, object: unknown): Kinds[K] {
    if (checked) return object as Kinds[K];
    const info: KindInfo = KIND[kind];
    return info.parse(withKind(kind, object), { keepUnknown: true }) as Kinds[K];
  }

  function acceptOrReport<K extends KindId>(kind: K, object: unknown): Kinds[K] | undefined {
    if (checked) return object as Kinds[K];
    const { onInvalid } = options;
    const told = (thrown: unknown): void => onInvalid?.(kind, keyOf(object), messageOf(thrown));
    try {
      return onInvalid === undefined ? accept(kind, object) : readAsFarAsPossible(kind, withKind(kind, object), told);
    } catch (thrown) {
      told(thrown);
      return undefined;
    }
  }

  async function write<K extends KindId>(
    verb: string,
    kind: K,
    {
      method,
      path,
      name,
      body,
      contentType,
    }: { method: string; path: string; name: string; body: unknown; contentType?: string },
  ): Promise<Kinds[K]> {
    const attempt = `${verb} ${resourceName(kind)} "${name}"`;
    const text = body === undefined ? undefined : JSON.stringify(body);
    return accept(kind, await connection.request({ method, path, attempt, body: text, contentType, deadline }));
  }

  function replace<K extends KindId>(verb: string, kind: K, object: Kinds[K], subresource: string): Promise<Kinds[K]> {
    const { name, namespace, resourceVersion } = object.metadata;
    if (resourceVersion === undefined) {
      const message = "must be specified for an update";
      return Promise.reject(
        new DatastoreError(
          "invalid",
          `Cannot ${verb} ${resourceName(kind)} "${name}": metadata.resourceVersion ${message}`,
          {
            causes: [{ field: "metadata.resourceVersion", message }],
          },
        ),
      );
    }
    const path = `${pathOf(kind, namespace, name)}${subresource}`;
    return write(verb, kind, { method: "PUT", path, name: objectKey(name, namespace), body: object });
  }

  return {
    async get<K extends KindId>(kind: K, name: string, namespace?: string) {
      const attempt = `get ${resourceName(kind)} "${objectKey(name, namespace)}"`;
      try {
        return accept(
          kind,
          await connection.request({ method: "GET", path: pathOf(kind, namespace, name), attempt, deadline }),
        );
      } catch (thrown) {
        if (thrown instanceof DatastoreError && thrown.code === "not-found") return undefined;
        throw thrown;
      }
    },

    async list<K extends KindId>(kind: K, selection: ListSelection = {}): Promise<ObjectList<Kinds[K]>> {
      const attempt = `list ${resourceName(kind)}`;
      const { limit, continue: token } = selection;
      const part = { limit: limit === undefined ? undefined : String(limit), continue: token };
      const path = `${pathOf(kind, selection.namespace)}${queryOf(selection, part)}`;
      const answer = await connection.request({ method: "GET", path, attempt, deadline: 3 * deadline });
      if (!isFields(answer) || !isFields(answer["metadata"])) {
        throw new DatastoreError("unavailable", `Cannot ${attempt}: the answer is not a list`);
      }
      const items = Array.isArray(answer["items"]) ? (answer["items"] as unknown[]) : [];
      const more = answer["metadata"]["continue"];
      return {
        items: items.map((item) => acceptOrReport(kind, item)).filter((item) => item !== undefined),
        resourceVersion: String(answer["metadata"]["resourceVersion"]),
        ...(typeof more === "string" && more !== "" ? { continue: more } : {}),
      };
    },

    create(kind, object) {
      const { name, namespace, generateName } = object.metadata;
      const label = objectKey(name === "" ? `${generateName ?? ""}…` : name, namespace);
      return write("create", kind, {
        method: "POST",
        path: pathOf(kind, homeOf(kind, namespace)),
        name: label,
        body: object,
      });
    },
    update: (kind, object) => replace("update", kind, object, ""),
    updateStatus: (kind, object) => replace("update the status of", kind, object, "/status"),

    patch(kind, name, namespace, patch, patchOptions: PatchOptions = {}) {
      const { status, resourceVersion, uid } = patchOptions;
      const guards = {
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
        ...(uid === undefined ? {} : { uid }),
      };
      const metadata = isFields(patch["metadata"]) ? patch["metadata"] : {};
      const guarded = Object.keys(guards).length === 0 ? patch : { ...patch, metadata: { ...metadata, ...guards } };
      const path = `${pathOf(kind, namespace, name)}${status === true ? "/status" : ""}`;
      const contentType = "application/merge-patch+json";
      return write("patch", kind, {
        method: "PATCH",
        path,
        name: objectKey(name, namespace),
        body: guarded,
        contentType,
      });
    },

    async delete<K extends KindId>(kind: K, name: string, namespace?: string, preconditions: Preconditions = {}) {
      const guarded = preconditions.uid !== undefined || preconditions.resourceVersion !== undefined;
      const body = guarded ? { kind: "DeleteOptions", apiVersion: "v1", preconditions } : undefined;
      const attempt = `delete ${resourceName(kind)} "${objectKey(name, namespace)}"`;
      const path = pathOf(kind, namespace, name);
      const text = body === undefined ? undefined : JSON.stringify(body);
      const answer = await connection.request({ method: "DELETE", path, attempt, body: text, deadline });
      return isFields(answer) && answer["kind"] === "Status" ? undefined : accept(kind, answer);
    },

    async *watch<K extends KindId>(kind: K, watchOptions: WatchOptions): AsyncGenerator<WatchEvent<Kinds[K]>, void> {
      const { resourceVersion, bookmarks, signal } = watchOptions;
      const attempt = `watch ${resourceName(kind)} from version ${resourceVersion}`;
      const query = queryOf(watchOptions, {
        watch: "1",
        resourceVersion,
        allowWatchBookmarks: bookmarks === false ? undefined : "true",
        timeoutSeconds: String(watchSeconds),
      });
      const path = `${pathOf(kind, watchOptions.namespace)}${query}`;
      const request = { method: "GET", path, attempt, deadline: (watchSeconds + 30) * 1000 };
      for await (const line of connection.lines(request, signal)) {
        if (signal?.aborted) return;
        const event = eventIn(line, attempt);
        if (event.type === "bookmark") yield event;
        else {
          const object = acceptOrReport(kind, event.object);
          const { type, resourceVersion: version } = event;
          if (object !== undefined) yield { type, object, resourceVersion: version };
          else yield { type: "bookmark", resourceVersion: version };
        }
      }
    },

    close: () => connection.close(),
  };
}

/** The items of a list do not say what they are. */
function withKind(kind: KindId, object: unknown): object {
  const info: KindInfo = KIND[kind];
  const apiVersion = info.group === "" ? info.version : `${info.group}/${info.version}`;
  return { apiVersion, kind: info.kind, ...(object as object) };
}

/** An object without a namespace goes to `default`. */
const homeOf = (kind: KindId, namespace: string | undefined): string | undefined =>
  KIND[kind].namespaced ? (namespace ?? "default") : undefined;

function queryOf({ labelSelector, fieldSelector }: Selection, more: Record<string, string | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ labelSelector, fieldSelector, ...more })) {
    if (value !== undefined && value !== "") query.set(name, value);
  }
  return query.size === 0 ? "" : `?${query.toString()}`;
}

function keyOf(object: unknown): string {
  const metadata = isFields(object) && isFields(object["metadata"]) ? object["metadata"] : {};
  return objectKey(textIn(metadata, "name"), textIn(metadata, "namespace"));
}

const EVENT_TYPES = { ADDED: "added", MODIFIED: "modified", DELETED: "deleted", BOOKMARK: "bookmark" } as const;

function eventIn(line: string, attempt: string): WatchEvent<unknown> {
  let event: unknown;
  try {
    event = JSON.parse(line);
  } catch (cause) {
    throw new DatastoreError("unavailable", `Cannot ${attempt}: the server sent a line that is not JSON`, { cause });
  }
  const { type, object } = isFields(event) ? event : {};
  if (type === "ERROR") throw errorFromStatus(isFields(object) ? Number(object["code"]) : 500, object, attempt);
  const known =
    typeof type === "string" && Object.hasOwn(EVENT_TYPES, type)
      ? EVENT_TYPES[type as keyof typeof EVENT_TYPES]
      : undefined;
  const metadata = isFields(object) ? object["metadata"] : undefined;
  if (known === undefined || !isFields(metadata) || typeof metadata["resourceVersion"] !== "string") {
    throw new DatastoreError(
      "unavailable",
      `Cannot ${attempt}: the server sent an event of type ${JSON.stringify(type)} that cannot be read`,
    );
  }
  return known === "bookmark"
    ? { type: known, resourceVersion: metadata["resourceVersion"] }
    : { type: known, object, resourceVersion: metadata["resourceVersion"] };
}
