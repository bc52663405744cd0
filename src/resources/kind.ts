/** What every object that people write has in common, and what the program knows about each kind of object. */

export interface ObjectMeta {
  /** Empty only beside `generateName`, on an object that the datastore has yet to name. */
  name: string;
  /** Only on namespaced kinds. */
  namespace?: string;
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  /** The version that a compare-and-swap compares. Opaque; set by the datastore. */
  resourceVersion?: string;
  uid?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  generateName?: string;
  finalizers?: string[];
  ownerReferences?: OwnerReference[];
  managedFields?: unknown[];
  selfLink?: string;
}

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

/** An object of any kind, as the datastore keeps it. Kinds narrow `apiVersion`, `kind` and add their own fields. */
export interface Resource {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
}

/**
 * One row of the table of kinds: how the kind is named, stored, checked and shown. Members are methods so that a row
 * for one kind can stand in a list of rows for any kind; a row must only be given objects of its own kind.
 */
export interface KindInfo<Item extends Resource = Resource> {
  /** As `kind`, but unique: Kubernetes and Calico both have a NetworkPolicy. The key in `Kinds`. */
  readonly id: string;
  readonly kind: string;
  /** API group; empty for the Kubernetes core. */
  readonly group: string;
  readonly version: string;
  /** Lower-case plural, as in the REST path. */
  readonly plural: string;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly namespaced: boolean;
  /** Whether `status` is written through a subresource of its own. */
  readonly status: boolean;
  /**
   * Checks and normalises an object that came from outside: fills defaults, refuses unknown fields with a suggestion,
   * throws `InvalidResource` that lists every fault with the path of its field. Namespaced objects without a namespace
   * get `default`. With `keepUnknown`, unknown fields stay: for objects that a newer API server hands out.
   */
  parse(this: void, input: unknown, options?: ParseOptions): Item;
  /**
   * Whether `next` may take the place of `previous`: throws `InvalidResource` for changes to fields that are fixed once
   * the object exists. Absent where everything may change.
   */
  checkUpdate?(this: void, previous: Item, next: Item): void;
  /** Columns of `get`: heading and text. `wide` ones are shown on request only. */
  readonly columns: readonly Column<Item>[];
}

export interface ParseOptions {
  readonly keepUnknown?: boolean;
}

export interface Column<Item extends Resource = Resource> {
  readonly heading: string;
  readonly wide?: boolean;
  text(this: void, item: Item): string;
}
