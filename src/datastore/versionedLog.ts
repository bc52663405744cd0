/**
 * The current objects and the latest changes to them, in memory. Each change has a revision of its own, one counter for
 * all kinds as in etcd, so that one number says how far a reader has come. Old changes are forgotten from the front:
 * what is kept begins right after `compacted`.
 */
import type { Resource } from "../resources/kind.ts";
import type { KindId } from "../resources/registry.ts";

/** An object at one revision. `json` is its text as it is stored and sent; `object` is never changed. */
export interface Entry {
  readonly kind: KindId;
  /** `namespace/name`, or `name` where the kind has no namespaces. */
  readonly key: string;
  readonly revision: number;
  readonly object: Resource;
  readonly json: string;
}

export interface Change {
  readonly type: "added" | "modified" | "deleted";
  /** The object after the change; for a deletion the object as it was, at the revision of its deletion. */
  readonly entry: Entry;
  /** What the change replaced. */
  readonly previous: Entry | undefined;
  /** Milliseconds since 1970. */
  readonly time: number;
}

export const objectKey = (name: string, namespace?: string): string =>
  namespace === undefined || namespace === "" ? name : `${namespace}/${name}`;

export class VersionedLog {
  /** Of the latest change. */
  revision: number;
  /** Of the latest change that subscribers have been told of. */
  published: number;
  /** Changes up to this revision are forgotten. */
  compacted: number;
  readonly #current = new Map<KindId, Map<string, Entry>>();
  /** Without gaps: the change of revision `r` is at `r - compacted - 1`. */
  #changes: Change[] = [];
  readonly #subscribers = new Map<KindId, Set<(change: Change) => void>>();

  /** Revision 0 is never handed out: in the Kubernetes API it stands for "any version". */
  constructor(compacted = 1) {
    this.revision = compacted;
    this.published = compacted;
    this.compacted = compacted;
  }

  entries(kind: KindId): ReadonlyMap<string, Entry> {
    let entries = this.#current.get(kind);
    if (entries === undefined) this.#current.set(kind, (entries = new Map()));
    return entries;
  }

  get(kind: KindId, key: string): Entry | undefined {
    return this.#current.get(kind)?.get(key);
  }

  /** An object, or its absence, whose change is already forgotten: while a stored log is read back, in its order. */
  restore(entry: Entry, deleted: boolean): void {
    const entries = this.entries(entry.kind) as Map<string, Entry>;
    if (deleted) entries.delete(entry.key);
    else entries.set(entry.key, entry);
  }

  /** Makes the change current and remembers it. Nobody is told before `publish`. */
  append(type: Change["type"], entry: Entry, time: number): Change {
    const entries = this.entries(entry.kind) as Map<string, Entry>;
    const change: Change = { type, entry, previous: entries.get(entry.key), time };
    if (type === "deleted") entries.delete(entry.key);
    else entries.set(entry.key, entry);
    this.#changes.push(change);
    this.revision = entry.revision;
    return change;
  }

  /** Takes back the changes after `revision`, newest first. What is published stays. */
  rollBack(revision: number): void {
    while (this.revision > Math.max(revision, this.published)) {
      const change = this.#changes.pop()!;
      const entries = this.entries(change.entry.kind) as Map<string, Entry>;
      if (change.previous === undefined) entries.delete(change.entry.key);
      else entries.set(change.entry.key, change.previous);
      this.revision -= 1;
    }
  }

  unpublished(): Change[] {
    return this.#changes.slice(this.published - this.compacted);
  }

  publish(): void {
    const changes = this.unpublished();
    this.published = this.revision;
    for (const change of changes) {
      const subscribers = this.#subscribers.get(change.entry.kind);
      if (subscribers !== undefined) for (const notify of subscribers) notify(change);
    }
  }

  /** Calls `notify` for every change of the kind that is published from now on; returns what ends that. */
  subscribe(kind: KindId, notify: (change: Change) => void): () => void {
    let subscribers = this.#subscribers.get(kind);
    if (subscribers === undefined) this.#subscribers.set(kind, (subscribers = new Set()));
    subscribers.add(notify);
    return () => subscribers.delete(notify);
  }

  /** Changes of the kind after `revision`, oldest first; undefined when some of them are forgotten. */
  changesAfter(kind: KindId, revision: number): Change[] | undefined {
    if (revision < this.compacted) return undefined;
    return this.#changes.slice(revision - this.compacted).filter((change) => change.entry.kind === kind);
  }

  /**
   * Forgets the oldest changes beyond `keep` of them, and those from before the time `oldest`; returns what it forgot.
   * Everything must be published.
   */
  compact(keep: number, oldest: number): Change[] {
    let count = Math.max(0, this.#changes.length - keep);
    while ((this.#changes[count]?.time ?? Number.POSITIVE_INFINITY) < oldest) count += 1;
    if (count === 0) return [];
    const forgotten = this.#changes.splice(0, count);
    this.compacted += count;
    return forgotten;
  }
}
