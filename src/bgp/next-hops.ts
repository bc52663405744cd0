import type { Address } from "../ip/address.ts";
import type { ResolvedNextHop } from "./config.ts";
import { prefixOfWords } from "./nlri.ts";
import { grown, PrefixTable } from "./prefix-table.ts";

/** A next hop, and how packets reach it: looked up once, however many routes use it. */
export interface NextHop {
  readonly address: Address;
  /** Undefined while it cannot be reached. */
  readonly resolved: ResolvedNextHop | undefined;
}

/** No next hop: that of our own routes before they are told. */
export const NO_HOP = -1;

/** Gives next hops of both families small numbers, for as long as something counts on them. */
export class NextHopTable {
  readonly #resolve: (address: Address) => ResolvedNextHop | undefined;
  readonly #tables = { 4: new PrefixTable(4), 6: new PrefixTable(6) } as const;
  #references = new Uint32Array(64);
  readonly #resolved: (ResolvedNextHop | undefined)[] = [];
  /** Most next hops are reached in one of a few ways, which then share one object. */
  #last: ResolvedNextHop | undefined;

  constructor(resolve: (address: Address) => ResolvedNextHop | undefined) {
    this.#resolve = resolve;
  }

  get size(): number {
    return this.#tables[4].size + this.#tables[6].size;
  }

  /** The number of a next hop, counted once more. IPv4 addresses are in `w0`. */
  retain(family: 4 | 6, w0: number, w1: number, w2: number, w3: number): number {
    const table = this.#tables[family];
    const before = table.size;
    const hop = table.add(w0, w1, w2, w3, family === 4 ? 32 : 128) * 2 + (family === 4 ? 0 : 1);
    if (hop >= this.#references.length) this.#references = grown(this.#references, hop * 2);
    if (table.size > before) {
      this.#references[hop] = 0;
      this.#resolved[hop] = this.#lookUp(this.#addressOf(hop));
    }
    this.#references[hop]! += 1;
    return hop;
  }

  release(hop: number): void {
    this.#references[hop]! -= 1;
    if (this.#references[hop]! > 0) return;
    this.#resolved[hop] = undefined;
    this.#tables[familyOf(hop)].remove(hop >> 1);
  }

  resolved(hop: number): ResolvedNextHop | undefined {
    return this.#resolved[hop];
  }

  view(hop: number): NextHop {
    return { address: this.#addressOf(hop), resolved: this.#resolved[hop] };
  }

  /** Resolves every next hop again, and returns those that changed. */
  recheck(): ReadonlySet<number> {
    const changed = new Set<number>();
    for (let hop = 0; hop < this.#references.length; hop += 1) {
      if (this.#references[hop] === 0) continue;
      const resolved = this.#lookUp(this.#addressOf(hop));
      if (sameResolution(this.#resolved[hop], resolved)) continue;
      this.#resolved[hop] = resolved;
      changed.add(hop);
    }
    return changed;
  }

  #lookUp(address: Address): ResolvedNextHop | undefined {
    const resolved = this.#resolve(address);
    if (resolved === undefined || sameResolution(this.#last, resolved)) return resolved && this.#last;
    this.#last = resolved;
    return resolved;
  }

  #addressOf(hop: number): Address {
    const family = familyOf(hop);
    return prefixOfWords(family, this.#tables[family].words(hop >> 1)).address;
  }
}

const familyOf = (hop: number): 4 | 6 => ((hop & 1) === 0 ? 4 : 6);

function sameResolution(a: ResolvedNextHop | undefined, b: ResolvedNextHop | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return (
    a.interface === b.interface &&
    a.metric === b.metric &&
    a.gateway?.value === b.gateway?.value &&
    a.gateway?.family === b.gateway?.family
  );
}
