import type { Address } from "../ip/address.ts";
import { neighborAsn, pathLength } from "./as-path.ts";
import { fromCanonical, listStart, toCanonical } from "./attribute-bytes.ts";
import { ATTRIBUTES, EXTENDED_LENGTH, type PathAttributes } from "./attributes.ts";
import { ByteStore } from "./byte-store.ts";
import type { ResolvedNextHop } from "./config.ts";
import { NextHopTable, NO_HOP, type NextHop } from "./next-hops.ts";
import { grown } from "./prefix-table.ts";

/** One set of attributes, shared by all routes that came with it, with what the decision process compares: a view. */
export interface AttributeSet {
  /** From 1 on. */
  readonly id: number;
  readonly attributes: PathAttributes;
  readonly nextHop: NextHop | undefined;
  /** The number of its next hop, or `NO_HOP`. */
  readonly hop: number;
  readonly localPref: number;
  readonly pathLength: number;
  /** 0 IGP, 1 EGP, 2 incomplete. */
  readonly origin: number;
  readonly med: number;
  readonly neighborAsn: number;
  readonly clusterLength: number;
}

/** RFC 4271 section 9.1.1 leaves it to us; 100 is what everybody takes. */
export const DEFAULT_LOCAL_PREF = 100;

const ORIGIN_ORDER = { igp: 0, egp: 1, incomplete: 2 } as const;
const NEXT_HOP = ATTRIBUTES.nextHop.code;
/** Sets that were looked at last, as views: routes that come one after the other share some. */
const VIEWS = 256;

/** Works out only what somebody asks for. */
class SetView implements AttributeSet {
  readonly id: number;
  readonly attributes: PathAttributes;
  readonly hop: number;
  readonly #hops: NextHopTable;

  constructor(id: number, attributes: PathAttributes, hop: number, hops: NextHopTable) {
    this.id = id;
    this.attributes = attributes;
    this.hop = hop;
    this.#hops = hops;
  }

  get nextHop(): NextHop | undefined {
    return this.hop === NO_HOP ? undefined : this.#hops.view(this.hop);
  }
  get localPref(): number {
    return this.attributes.localPref ?? DEFAULT_LOCAL_PREF;
  }
  get pathLength(): number {
    return pathLength(this.attributes.asPath);
  }
  get origin(): number {
    return ORIGIN_ORDER[this.attributes.origin];
  }
  get med(): number {
    return this.attributes.med ?? 0;
  }
  get neighborAsn(): number {
    return neighborAsn(this.attributes.asPath);
  }
  get clusterLength(): number {
    return this.attributes.clusterList?.length ?? 0;
  }
}

/**
 * Interns attributes by their bytes: routes hold the number of a set, and nothing is decoded before somebody looks. A set
 * lives as long as something retains it.
 */
export class AttributeTable {
  readonly hops: NextHopTable;
  readonly store = new ByteStore();
  #references = new Uint32Array(64);
  #hops = new Int32Array(64);
  readonly #views: (AttributeSet | undefined)[] = Array.from({ length: VIEWS }, () => undefined);

  constructor(resolve: (address: Address) => ResolvedNextHop | undefined) {
    this.hops = new NextHopTable(resolve);
  }

  get size(): number {
    return this.store.size;
  }

  /** The number of the set with these canonical bytes. Nothing keeps a new one until the first `retain`. */
  internBytes(bytes: Uint8Array, start: number, length: number): number {
    const before = this.store.size;
    const id = this.store.intern(bytes, start, length);
    if (this.store.size === before) return id;
    if (id >= this.#references.length) {
      this.#references = grown(this.#references, this.store.capacity);
      this.#hops = grown(this.#hops, this.store.capacity);
    }
    this.#references[id] = 0;
    this.#hops[id] = this.#hopIn(bytes, start, start + length);
    return id;
  }

  intern(attributes: PathAttributes): number {
    const bytes = toCanonical(attributes);
    return this.internBytes(bytes, 0, bytes.length);
  }

  /** A set to look at. */
  get(id: number): AttributeSet {
    const slot = id % VIEWS;
    const known = this.#views[slot];
    if (known?.id === id) return known;
    if (this.store.length(id) === 0) throw new RangeError(`there is no attribute set ${id}`);
    const { store } = this;
    const attributes = fromCanonical(store.slab(id), store.start(id), store.length(id));
    const view = new SetView(id, attributes, this.#hops[id]!, this.hops);
    this.#views[slot] = view;
    return view;
  }

  /** The number of the next hop of a set, or `NO_HOP`. */
  hop(id: number): number {
    return this.#hops[id]!;
  }

  /** Whether packets would get where the routes of a set lead: its next hop can be reached, or it needs none. */
  reachable(id: number): boolean {
    const hop = this.#hops[id]!;
    return hop === NO_HOP || this.hops.resolved(hop) !== undefined;
  }

  retain(id: number): number {
    this.#references[id]! += 1;
    return id;
  }

  release(id: number): void {
    this.#references[id]! -= 1;
    this.discard(id);
  }

  /** Forgets a set that nothing retained. */
  discard(id: number): void {
    if (this.#references[id] !== 0) return;
    if (this.#hops[id] !== NO_HOP) this.hops.release(this.#hops[id]!);
    this.store.remove(id);
    const slot = id % VIEWS;
    if (this.#views[slot]?.id === id) this.#views[slot] = undefined;
  }

  #hopIn(bytes: Uint8Array, start: number, end: number): number {
    if (bytes[start] !== 0) {
      const [w0, w1, w2, w3] = [1, 5, 9, 13].map((at) => u32(bytes, start + at)) as [number, number, number, number];
      return this.hops.retain(6, w0, w1, w2, w3);
    }
    for (let at = listStart(bytes, start); at < end && bytes[at + 1]! <= NEXT_HOP;) {
      const extended = (bytes[at]! & EXTENDED_LENGTH) !== 0;
      const value = at + (extended ? 4 : 3);
      if (bytes[at + 1] === NEXT_HOP) return this.hops.retain(4, u32(bytes, value), 0, 0, 0);
      at = value + (extended ? (bytes[at + 2]! << 8) | bytes[at + 3]! : bytes[at + 2]!);
    }
    return NO_HOP;
  }
}

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
