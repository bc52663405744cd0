/** What is followed without being kept: for kinds of which a cluster has hundreds of thousands. */
import type { KindId, Kinds } from "../resources/registry.ts";
import type { Datastore } from "./datastore.ts";
import { follow, type Following, type MirrorOptions, type Tell } from "./mirror.ts";

export interface RelayHandlers<Item> {
  /**
   * The object is there, as it is now: also when it is listed anew and nothing has changed. Returns what it is known by,
   * the same every time; undefined where it means nothing (any more), as if it were not there.
   */
  put(object: Item): string | undefined;
  /** What `put` returns of it. */
  idOf(object: Item): string;
  /** What was known by this is gone, or means nothing any more. */
  gone(id: string): void;
  /** The datastore failed, or a handler threw. */
  onError?(error: unknown, retryIn: number): void;
}

export interface Relay extends Following {
  /** How many objects there are that mean something. */
  readonly size: number;
}

/** How many objects are asked for at a time: what is read of them is let go again before it gets old. */
const PAGE = 250;

/**
 * As a mirror, but each object is handed on, and only what it is known by is kept. Lists are taken a part at a time, and
 * what is listed is handed on before `synced`.
 */
export function relay<K extends KindId>(
  datastore: Pick<Datastore, "list" | "watch">,
  kind: K,
  options: MirrorOptions,
  handlers: RelayHandlers<Kinds[K]>,
): Relay {
  const known = new Set<string>();
  /** Of the list that is being taken. */
  let present: Set<string> | undefined;

  function put(object: Kinds[K], tell: Tell): void {
    tell(() => {
      const id = handlers.put(object);
      if (id === undefined) return gone(handlers.idOf(object));
      known.add(id);
      present?.add(id);
    });
  }
  function gone(id: string): void {
    if (known.delete(id)) handlers.gone(id);
  }

  const following = follow(
    datastore,
    kind,
    { ...options, pageSize: PAGE },
    {
      begin: () => (present = new Set()),
      page(objects, tell) {
        for (const object of objects) put(object, tell);
      },
      end(_, tell) {
        for (const id of known) if (present?.has(id) !== true) tell(() => gone(id));
        present = undefined;
      },
      put,
      gone: (object, tell) => tell(() => gone(handlers.idOf(object))),
      failed: (error, retryIn) => handlers.onError?.(error, retryIn),
    },
  );
  return {
    get resourceVersion() {
      return following.resourceVersion;
    },
    get size() {
      return known.size;
    },
    synced: following.synced,
    waitFor: (resourceVersion, timeout) => following.waitFor(resourceVersion, timeout),
    stop: () => following.stop(),
  };
}
