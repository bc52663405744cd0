import { grown } from "./prefix-table.ts";

/** At the end of a chain. */
export const END = -1;
/** Below every number of a peer, and below that which stands for none. */
const NOBODY_YET = -2;

/** Prefixes by their numbers, in chains of those that go into the same messages, all in typed arrays. */
export class Chains {
  /** By number of entry. */
  prefix = new Int32Array(64);
  pathId = new Uint32Array(64);
  next = new Int32Array(64);
  #entries = 0;
  // By number of chain.
  readonly #first: number[] = [];
  readonly #last: number[] = [];
  readonly #attributes: number[] = [];
  /** Chains of one peer, in the order in which they began. */
  readonly #byPeer = new Map<number, number[]>();
  readonly #byKey = new Map<number, number>();
  // Where the last one went, as most go together.
  #peer = NOBODY_YET;
  #wanted = 0;
  #chain = END;

  /** Adds a prefix to the chain of a peer and of a number of attributes (0 where there are none). */
  add(peer: number, attributes: number, prefix: number, pathId: number): void {
    const entry = this.#entries;
    if (entry === this.next.length) this.#grow();
    this.#entries = entry + 1;
    this.prefix[entry] = prefix;
    this.pathId[entry] = pathId;
    this.next[entry] = END;
    const chain = this.#chainOf(peer, attributes);
    const last = this.#last[chain]!;
    if (last === END) this.#first[chain] = entry;
    else this.next[last] = entry;
    this.#last[chain] = entry;
  }

  /** The chains of each peer. */
  get byPeer(): ReadonlyMap<number, readonly number[]> {
    return this.#byPeer;
  }

  first(chain: number): number {
    return this.#first[chain]!;
  }

  attributes(chain: number): number {
    return this.#attributes[chain]!;
  }

  clear(): void {
    this.#entries = 0;
    this.#first.length = 0;
    this.#last.length = 0;
    this.#attributes.length = 0;
    this.#byPeer.clear();
    this.#byKey.clear();
    this.#peer = NOBODY_YET;
  }

  #chainOf(peer: number, attributes: number): number {
    if (this.#peer === peer && this.#wanted === attributes) return this.#chain;
    // Numbers of attributes are those of one turn: far less than this.
    const key = attributes * 2 ** 17 + peer + 1;
    let chain = this.#byKey.get(key);
    if (chain === undefined) {
      chain = this.#first.length;
      this.#first.push(END);
      this.#last.push(END);
      this.#attributes.push(attributes);
      this.#byKey.set(key, chain);
      const chains = this.#byPeer.get(peer);
      if (chains === undefined) this.#byPeer.set(peer, [chain]);
      else chains.push(chain);
    }
    this.#peer = peer;
    this.#wanted = attributes;
    this.#chain = chain;
    return chain;
  }

  #grow(): void {
    const size = this.next.length * 2;
    this.prefix = grown(this.prefix, size);
    this.pathId = grown(this.pathId, size);
    this.next = grown(this.next, size);
  }
}
