/**
 * A copy of the objects of one kind, kept up to date: list once, then watch for ever. It outlives the API server: while
 * that is away the copy stays as it is, and what happened meanwhile arrives as changes, each once, however long it took.
 */
import { codeOf } from "../lib/errors.ts";
import type { KindId, Kinds } from "../resources/registry.ts";
import { compareVersions, type Datastore, type Selection, type WatchEvent } from "./datastore.ts";
import { objectKey } from "./versionedLog.ts";

/** The clock, as setTimeout has it. */
export interface Timers {
  /** Milliseconds; only differences count. */
  now(): number;
  setTimeout(callback: () => void, milliseconds: number): unknown;
  clearTimeout(timer: unknown): void;
}

export type MirrorChange<Item> =
  | { readonly type: "added"; readonly key: string; readonly object: Item }
  | { readonly type: "modified"; readonly key: string; readonly object: Item; readonly previous: Item }
  /** `object` is the last that was seen of it. */
  | { readonly type: "deleted"; readonly key: string; readonly object: Item };

export interface MirrorHandlers<Item> {
  /** Once, with the first complete state; never again, and nothing before it. */
  onSync?(items: ReadonlyMap<string, Item>): void;
  /** After that: one change at a time, already in `items`. */
  onChange?(change: MirrorChange<Item>): void;
  /** The datastore failed, or a handler threw. The mirror tries again by itself, after `retryIn` milliseconds. */
  onError?(error: unknown, retryIn: number): void;
}

export interface MirrorOptions extends Selection {
  readonly timers: Timers;
  /** 0 to 1, so that the nodes of a cluster do not come back all at once. */
  readonly random: () => number;
  /** Milliseconds before the second try, doubling up to `most`; default 50 and 5,000. */
  readonly backoff?: { readonly first: number; readonly most: number };
  /** The API server need not know the kind (an optional one of Kubernetes): as long as it does not, there are none. */
  readonly mayBeMissing?: boolean;
}

/** How far a follower of one kind has come. */
export interface Following {
  /** How far the copy is; undefined before the first list. */
  readonly resourceVersion: string | undefined;
  /** Resolves after `onSync`; never, if the mirror is stopped before. */
  readonly synced: Promise<void>;
  /** Resolves with true once the copy is at this version or beyond; with false after `timeout` milliseconds, or when stopped. */
  waitFor(resourceVersion: string, timeout: number): Promise<boolean>;
  /** No handler is called any more, from now on. */
  stop(): void;
}

export interface Mirror<Item> extends Following {
  /** By `namespace/name`, or `name` for kinds without namespaces. */
  readonly items: ReadonlyMap<string, Item>;
  get(name: string, namespace?: string): Item | undefined;
}

/** A watch that lasted this long was a success, whatever ended it. */
const HEALTHY = 5000;
/** Between looks for a kind that the API server does not know. */
const MISSING = 60_000;

export function mirror<K extends KindId>(
  datastore: Pick<Datastore, "list" | "watch">,
  kind: K,
  options: MirrorOptions,
  handlers: MirrorHandlers<Kinds[K]>,
): Mirror<Kinds[K]> {
  type Item = Kinds[K];
  const items = new Map<string, Item>();
  let present = new Map<string, Item>();

  function set(key: string, object: Item, tell: Tell): void {
    // What was deleted and made anew while nobody looked is another object.
    if (items.has(key) && items.get(key)?.metadata.uid !== object.metadata.uid) remove(key, tell);
    const previous = items.get(key);
    if (previous !== undefined && previous.metadata.resourceVersion === object.metadata.resourceVersion) return;
    items.set(key, object);
    tell(() =>
      handlers.onChange?.(
        previous === undefined ? { type: "added", key, object } : { type: "modified", key, object, previous },
      ),
    );
  }
  function remove(key: string, tell: Tell, last?: Item): void {
    const object = last ?? items.get(key);
    if (!items.delete(key) || object === undefined) return;
    tell(() => handlers.onChange?.({ type: "deleted", key, object }));
  }

  const following = follow(datastore, kind, options, {
    begin: () => (present = new Map()),
    page(objects) {
      for (const object of objects) present.set(keyOf(object), object);
    },
    end(isFirst, tell) {
      if (isFirst) {
        for (const [key, item] of present) items.set(key, item);
        tell(() => handlers.onSync?.(items));
      } else {
        // New ones first: whatever holds on to the old ones may go over to them.
        for (const [key, item] of present) set(key, item, tell);
        for (const key of items.keys()) if (!present.has(key)) remove(key, tell);
      }
      present = new Map();
    },
    put: (object, tell) => set(keyOf(object), object, tell),
    gone: (object, tell) => remove(keyOf(object), tell, object),
    failed: (error, retryIn) => handlers.onError?.(error, retryIn),
  });
  return {
    items,
    get resourceVersion() {
      return following.resourceVersion;
    },
    synced: following.synced,
    get: (name, home) => items.get(objectKey(name, home)),
    waitFor: (resourceVersion, timeout) => following.waitFor(resourceVersion, timeout),
    stop: () => following.stop(),
  };
}

/** Calls a handler, unless nobody listens any more. One that throws ends nothing. */
export type Tell = (call: () => void) => void;

/** What a follower does with what it hears. */
export interface Follower<Item> {
  /** A whole list begins. */
  begin(): void;
  /** A part of it. */
  page(objects: readonly Item[], tell: Tell): void;
  /** It is complete. */
  end(isFirst: boolean, tell: Tell): void;
  put(object: Item, tell: Tell): void;
  gone(object: Item, tell: Tell): void;
  failed(error: unknown, retryIn: number): void;
}

/**
 * Lists once, then watches for ever. `pageSize`: a list is taken a part at a time. Where the parts are not of one moment, what
 * happened between them comes as events after the list, so that it is complete all the same.
 */
export function follow<K extends KindId>(
  datastore: Pick<Datastore, "list" | "watch">,
  kind: K,
  options: MirrorOptions & { readonly pageSize?: number },
  follower: Follower<Kinds[K]>,
): Following {
  type Item = Kinds[K];
  const { timers, random, namespace, labelSelector, fieldSelector, pageSize: limit } = options;
  const { first, most } = options.backoff ?? { first: 50, most: 5000 };
  const selection: Selection = { namespace, labelSelector, fieldSelector };
  const controller = new AbortController();
  const { signal } = controller;
  const synced = Promise.withResolvers<void>();
  const waiters = new Set<() => void>();
  let version: string | undefined;
  let listed = false;
  let failures = 0;

  function reach(resourceVersion: string): void {
    version = resourceVersion;
    for (const check of waiters) check();
  }

  /** A handler that throws must not end the mirror. */
  function tell(call: () => void): void {
    if (signal.aborted) return;
    try {
      call();
    } catch (thrown) {
      follower.failed(thrown, 0);
    }
  }

  function end(): void {
    const isFirst = !listed;
    listed = true;
    follower.end(isFirst, tell);
    if (isFirst) synced.resolve();
  }

  async function list(): Promise<string> {
    follower.begin();
    let from: string | undefined;
    let token: string | undefined;
    do {
      const answer = await datastore.list(kind, { ...selection, limit, continue: token });
      from ??= answer.resourceVersion;
      if (signal.aborted) return from;
      follower.page(answer.items, tell);
      token = answer.continue;
    } while (token !== undefined);
    end();
    reach(from);
    return from;
  }

  function take(event: WatchEvent<Item>): void {
    if (event.type === "deleted") follower.gone(event.object, tell);
    else if (event.type !== "bookmark") follower.put(event.object, tell);
    reach(event.resourceVersion);
  }

  async function run(): Promise<void> {
    let from: string | undefined;
    while (!signal.aborted) {
      const began = timers.now();
      let failure: unknown;
      try {
        from ??= await list();
        for await (const event of datastore.watch(kind, { ...selection, resourceVersion: from, signal })) {
          if (signal.aborted) return;
          take(event);
          from = event.resourceVersion;
          failures = 0;
        }
      } catch (thrown) {
        failure = thrown;
        if (codeOf(thrown) === "gone") from = undefined;
      }
      if (signal.aborted) return;
      if (options.mayBeMissing === true && from === undefined && codeOf(failure) === "not-found") {
        follower.begin();
        end();
        await pause(MISSING);
        continue;
      }
      if (timers.now() - began >= HEALTHY) failures = 0;
      const delay =
        failures === 0 && failure === undefined ? 0 : Math.min(most, first * 2 ** failures) * (0.5 + random() / 2);
      failures += 1;
      if (failure !== undefined && !signal.aborted) follower.failed(failure, delay);
      await pause(delay);
    }
  }

  function pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = timers.setTimeout(done, milliseconds);
      signal.addEventListener("abort", done);
      function done(): void {
        timers.clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      }
    });
  }

  void run();
  return {
    get resourceVersion() {
      return version;
    },
    synced: synced.promise,
    waitFor(resourceVersion, timeout) {
      return new Promise((resolve) => {
        const timer = timers.setTimeout(() => finish(false), timeout);
        function check(): void {
          if (signal.aborted) finish(false);
          else if (version !== undefined && compareVersions(version, resourceVersion) >= 0) finish(true);
        }
        function finish(reached: boolean): void {
          timers.clearTimeout(timer);
          waiters.delete(check);
          resolve(reached);
        }
        waiters.add(check);
        check();
      });
    },
    stop() {
      controller.abort();
      for (const check of waiters) check();
    },
  };
}

const keyOf = ({ metadata }: { metadata: { name: string; namespace?: string } }): string =>
  objectKey(metadata.name, metadata.namespace);
