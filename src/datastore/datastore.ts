/**
 * The datastore: versioned objects of the kinds that Caracal knows, changed by compare-and-swap and followed by watches.
 * Drivers: `memory.ts`, `client.io.ts` (a Kubernetes API server, or the embedded one of `server.io.ts`). One suite,
 * `conformance.testing.ts`, says what each of them does.
 *
 * A `resourceVersion` is an opaque string: compared for equality, handed back, and ordered by `compareVersions` only.
 */
import { Failure } from "../lib/errors.ts";
import type { KindId, Kinds } from "../resources/registry.ts";

export type DatastoreCode =
  | "not-found"
  | "already-exists"
  /** The object is no longer at the version (or no longer has the uid) that the caller named. */
  | "conflict"
  /** The object, the patch or the query is malformed; `causes` names the fields. */
  | "invalid"
  /** The version asked for is too old to watch from: list again. */
  | "gone"
  | "forbidden"
  | "unauthorized"
  /** The datastore cannot be reached, or answers that it cannot serve. Whether a write took place is unknown. */
  | "unavailable"
  /** No answer within the deadline. Whether a write took place is unknown. */
  | "timeout";

/** One bad field: its path (`spec.cidr`) and what is wrong with it. */
export interface FieldCause {
  readonly field: string;
  readonly message: string;
}

export class DatastoreError extends Failure<DatastoreCode> {
  readonly causes: readonly FieldCause[];
  constructor(code: DatastoreCode, message: string, options: { cause?: unknown; causes?: readonly FieldCause[] } = {}) {
    super(code, message, options.cause);
    this.name = "DatastoreError";
    this.causes = options.causes ?? [];
  }
}

/** Whether `thrown` is a DatastoreError with this code. */
export function isDatastoreError(thrown: unknown, code: DatastoreCode): thrown is DatastoreError {
  return thrown instanceof DatastoreError && thrown.code === code;
}

/**
 * Orders two versions of one kind: negative when `left` is older. They are decimal numbers of any size, without leading
 * zeros (Kubernetes KEP-5504).
 */
export function compareVersions(left: string, right: string): number {
  if (left.length !== right.length) return left.length - right.length;
  return left < right ? -1 : left > right ? 1 : 0;
}

export interface Selection {
  /** Only this namespace; all of them when absent. */
  readonly namespace?: string | undefined;
  /** In query form: `app=web,tier in (a, b),!old`. */
  readonly labelSelector?: string | undefined;
  /** In query form: `metadata.name=web`, `spec.nodeName=node1,status.phase!=Running`. */
  readonly fieldSelector?: string | undefined;
}

export interface ListSelection extends Selection {
  /** At most so many objects at once. A datastore may give all of them nevertheless. */
  readonly limit?: number | undefined;
  /** `continue` of the part before. */
  readonly continue?: string | undefined;
}

export interface ObjectList<Item> {
  readonly items: Item[];
  /** The version of the whole list: a watch from here sees everything after it. Of a list in parts the first one's counts. */
  readonly resourceVersion: string;
  /** There is more: to be handed back for it. Refused with `gone` when too much time has gone by. */
  readonly continue?: string;
}

/** The delete, or the patch, takes place only if the object is at this version, and is still this object. */
export interface Preconditions {
  readonly resourceVersion?: string | undefined;
  readonly uid?: string | undefined;
}

export interface WatchOptions extends Selection {
  /** Events after this version, which a list or an earlier event gave. */
  readonly resourceVersion: string;
  readonly signal?: AbortSignal | undefined;
  /** Ask for bookmarks, which move the version on while nothing that is selected changes. Default true. */
  readonly bookmarks?: boolean | undefined;
}

export type WatchEvent<Item> =
  | { readonly type: "added" | "modified" | "deleted"; readonly object: Item; readonly resourceVersion: string }
  /** Everything up to this version has been delivered. */
  | { readonly type: "bookmark"; readonly resourceVersion: string };

/**
 * A merge patch (RFC 7386): fields given replace, `null` removes, objects merge, lists are replaced whole.
 * `{ metadata: { annotations: { "cni.projectcalico.org/podIP": "10.1.2.3/32" } } }`
 */
export type MergePatch = { readonly [field: string]: unknown };

/** Every call rejects with `DatastoreError`. What is returned is the caller's own copy, or is never changed afterwards. */
export interface Datastore {
  get<K extends KindId>(kind: K, name: string, namespace?: string): Promise<Kinds[K] | undefined>;

  list<K extends KindId>(kind: K, selection?: ListSelection): Promise<ObjectList<Kinds[K]>>;

  /** Refused with `already-exists`. `metadata.generateName` without a name makes one up. */
  create<K extends KindId>(kind: K, object: Kinds[K]): Promise<Kinds[K]>;

  /**
   * Replaces the object if it is still at `object.metadata.resourceVersion`; `conflict` if it has moved on, `invalid`
   * if the version is absent. `status` is left as it is where the kind has a status of its own.
   */
  update<K extends KindId>(kind: K, object: Kinds[K]): Promise<Kinds[K]>;

  /** Replaces only `status`, by the same compare-and-swap. */
  updateStatus<K extends KindId>(kind: K, object: Kinds[K]): Promise<Kinds[K]>;

  /** Merges `patch` into the object in one step on the server: no read before it, no conflict unless one is asked for. */
  patch<K extends KindId>(
    kind: K,
    name: string,
    namespace: string | undefined,
    patch: MergePatch,
    options?: PatchOptions,
  ): Promise<Kinds[K]>;

  /**
   * Returns the object as it was when it went, or, where finalizers hold it, as it waits (`deletionTimestamp` set);
   * undefined from an API server that only says that it is gone, as Kubernetes does for some kinds.
   */
  delete<K extends KindId>(
    kind: K,
    name: string,
    namespace?: string,
    preconditions?: Preconditions,
  ): Promise<Kinds[K] | undefined>;

  /**
   * Events in the order of their versions, each once. The iteration ends when the signal is aborted or the server closes
   * the stream (resume from the last version seen), and throws `gone` when the version is too old, `unavailable` when the
   * stream breaks. An object that leaves the selection is `deleted`, one that enters it is `added`.
   */
  watch<K extends KindId>(kind: K, options: WatchOptions): AsyncIterable<WatchEvent<Kinds[K]>>;
}

export interface PatchOptions extends Preconditions {
  /** Patches the status and nothing else. */
  readonly status?: boolean | undefined;
}
