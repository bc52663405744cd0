/** A datastore in memory: for tests, and the meaning of every other one in its shortest form. */
import type { KindId, Kinds } from "../resources/registry.ts";
import type { Datastore, MergePatch, Selection, WatchEvent, WatchOptions } from "./datastore.ts";
import { eventQueue } from "./eventQueue.ts";
import { mergePatch } from "./patch.ts";
import { asDatastoreError, badRequest, gone } from "./refusal.ts";
import { changeSeen, matcherOf } from "./selection.ts";
import { Store, type Chance } from "./store.ts";
import { objectKey, VersionedLog, type Change, type Entry } from "./versionedLog.ts";

export interface MemoryOptions extends Chance {
  /** How many changes a watch can go back; default 10,000. */
  readonly history?: number;
}

/**
 * An empty datastore, but for the namespaces `default` and `kube-system`. As in a cluster, nothing can be created in a
 * namespace that does not exist.
 */
export function memoryDatastore(options: MemoryOptions): Datastore {
  const log = new VersionedLog();
  const store = new Store(log, options);
  store.createLastingNamespaces();
  log.publish();

  /** Carries out one write as a whole. The answer comes later than the call, as it would over a network. */
  async function write<K extends KindId>(work: () => Entry): Promise<Kinds[K]> {
    await Promise.resolve();
    try {
      const entry = work();
      log.publish();
      log.compact(options.history ?? 10_000, Number.NEGATIVE_INFINITY);
      return copyOf<K>(entry);
    } catch (thrown) {
      log.rollBack(log.published);
      throw asDatastoreError(thrown);
    }
  }

  return {
    async get(kind, name, namespace) {
      await Promise.resolve();
      const entry = log.get(kind, objectKey(name, namespace));
      return entry === undefined ? undefined : copyOf(entry);
    },
    async list<K extends KindId>(kind: K, selection: Selection = {}) {
      await Promise.resolve();
      const matches = matcherOf(kind, selection);
      const entries = [...log.entries(kind).values()].filter((entry) => matches(entry.object));
      return { items: entries.map((entry) => copyOf<K>(entry)), resourceVersion: String(log.revision) };
    },
    create: (kind, object) => write(() => store.create(kind, object)),
    update: (kind, object) => write(() => store.update(kind, object)),
    updateStatus: (kind, object) => write(() => store.update(kind, object, { status: true })),
    patch: (kind, name, namespace, patch: MergePatch, patchOptions) =>
      write(() => store.patch(kind, name, namespace, (object) => mergePatch(object, patch), patchOptions)),
    delete: (kind, name, namespace, preconditions) => write(() => store.delete(kind, name, namespace, preconditions)),
    watch: (kind, watchOptions) => watchLog(log, kind, watchOptions),
  };
}

async function* watchLog<K extends KindId>(
  log: VersionedLog,
  kind: K,
  options: WatchOptions,
): AsyncGenerator<WatchEvent<Kinds[K]>, void> {
  const matches = matcherOf(kind, options);
  const after = Number(options.resourceVersion);
  if (!Number.isSafeInteger(after))
    throw badRequest(`invalid resource version ${JSON.stringify(options.resourceVersion)}`);
  const past = after > log.revision ? undefined : log.changesAfter(kind, after);
  if (past === undefined) throw gone(options.resourceVersion, log.compacted);
  if (options.signal?.aborted) return;
  const unsubscribe = log.subscribe(kind, (change) => deliver(change));
  const abort = (): void => queue.end();
  options.signal?.addEventListener("abort", abort);
  const queue = eventQueue<WatchEvent<Kinds[K]>>(() => {
    unsubscribe();
    options.signal?.removeEventListener("abort", abort);
  });
  function deliver(change: Change): void {
    const type = changeSeen(change, matches);
    if (type === undefined) return;
    queue.push({ type, object: copyOf<K>(change.entry), resourceVersion: String(change.entry.revision) });
  }
  for (const change of past) deliver(change);
  yield* queue;
}

const copyOf = <K extends KindId>(entry: Entry): Kinds[K] => JSON.parse(entry.json) as Kinds[K];
