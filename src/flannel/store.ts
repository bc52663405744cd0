/**
 * Keys with values, changed by compare-and-swap, followed by watches, some of which go when nobody renews them: what a
 * subnet manager needs of etcd. `etcd.io.ts` is the driver, `store.testing.ts` a small one in memory; one suite runs
 * against both.
 */
import { Failure } from "../lib/errors.ts";

export type StoreCode =
  /** The store cannot be reached, or does not serve. Whether a write took place is unknown. */
  | "unavailable"
  /** The revision to watch from is gone: list again. */
  | "compacted"
  /** Wrong name, password or certificate, or not allowed. */
  | "forbidden"
  | "refused";

export class StoreError extends Failure<StoreCode> {}

export interface StoredKey {
  readonly key: string;
  readonly value: string;
  /** Of its last change: a decimal number. */
  readonly revision: string;
  /** Whether it goes away by itself. */
  readonly leased: boolean;
}

export type KeyChange =
  | { readonly type: "put"; readonly item: StoredKey }
  | { readonly type: "deleted"; readonly key: string };

/** Every call rejects with `StoreError`. A time to live is in seconds; without one the key stays. */
export interface KeyStore {
  get(key: string): Promise<StoredKey | undefined>;
  /** All whose key begins so, and the revision of the whole store: a watch from there misses nothing. */
  list(prefix: string): Promise<{ readonly items: StoredKey[]; readonly revision: string }>;
  /** Returns the new revision, or undefined where the key is there already. */
  create(key: string, value: string, ttl?: number): Promise<string | undefined>;
  /** Returns the new revision, or undefined where the key is at another revision, or gone. The time to live is new. */
  replace(key: string, value: string, revision: string, ttl?: number): Promise<string | undefined>;
  /** Says whether it was there, at that revision. */
  remove(key: string, revision: string): Promise<boolean>;
  /**
   * What changes after the revision, in order. Ends when the signal is aborted; throws `compacted` where the revision
   * is too old, and `unavailable` where the stream breaks.
   */
  watch(prefix: string, revision: string, signal: AbortSignal): AsyncIterable<readonly KeyChange[]>;
}
