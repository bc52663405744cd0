/** What every object that people write has in common, and what the program knows about each kind of object. */

export interface ObjectMeta {
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

/** One row of the table of kinds: how the kind is named, stored, checked and shown. */
export interface KindInfo<Item extends Resource = Resource> {
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
   * throws `InvalidResource` that lists every fault with the path of its field.
   */
  readonly parse: (input: unknown) => Item;
  /** Columns of `get`: heading and text. `wide` ones are shown on request only. */
  readonly columns: readonly Column<Item>[];
}

export interface Column<Item extends Resource = Resource> {
  readonly heading: string;
  readonly wide?: boolean;
  readonly text: (item: Item) => string;
}
