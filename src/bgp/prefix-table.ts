import type { Family } from "../ip/address.ts";
import type { PrefixWords } from "./nlri.ts";

const NONE = -1;

/** A copy with room for `size` items; the room is `fill`. */
export function grown<Items extends Int32Array | Uint32Array | Uint16Array | Uint8Array>(
  items: Items,
  size: number,
  fill = 0,
): Items {
  const larger = new (items.constructor as new (size: number) => Items)(size);
  larger.set(items);
  if (fill !== 0) larger.fill(fill, items.length);
  return larger;
}

/** Small tables grow in larger steps, as every step does again what those before have done. */
export function nextCapacity(capacity: number): number {
  return capacity * (capacity < 16_384 ? 4 : 2);
}

/**
 * Gives each prefix of one family a small number, so that what is known of it can lie in typed arrays: some 13 bytes a
 * prefix for IPv4, where an object or a string would take a hundred. Numbers of prefixes that were removed are given
 * out again. A hash table with chains; `Map` in the tests is its naive twin.
 */
export class PrefixTable {
  readonly family: Family;
  /** Numbers given out so far are below this. */
  high = 0;
  size = 0;
  /** 32-bit words of address for each prefix: one for IPv4, four for IPv6. */
  readonly #width: 1 | 4;
  #words: Uint32Array;
  #lengths: Uint8Array;
  /** The next prefix in the same chain, or in the list of free numbers. */
  #next: Int32Array;
  #heads: Int32Array;
  #free = NONE;

  constructor(family: Family, capacity = 64) {
    this.family = family;
    this.#width = family === 4 ? 1 : 4;
    this.#words = new Uint32Array(capacity * this.#width);
    this.#lengths = new Uint8Array(capacity);
    this.#next = new Int32Array(capacity);
    this.#heads = new Int32Array(capacity).fill(NONE);
  }

  /** How many prefixes there is room for, which arrays beside this table may want to follow. */
  get capacity(): number {
    return this.#lengths.length;
  }

  /** The number of a prefix, or -1. */
  find(w0: number, w1: number, w2: number, w3: number, length: number): number {
    return this.#findIn(this.#slot(w0, w1, w2, w3, length), w0, w1, w2, w3, length);
  }

  /** The number of a prefix, a new one where it had none. */
  add(w0: number, w1: number, w2: number, w3: number, length: number): number {
    let slot = this.#slot(w0, w1, w2, w3, length);
    const known = this.#findIn(slot, w0, w1, w2, w3, length);
    if (known !== NONE) return known;
    let id = this.#free;
    if (id !== NONE) this.#free = this.#next[id]!;
    else {
      if (this.high === this.capacity) {
        this.#grow();
        slot = this.#slot(w0, w1, w2, w3, length);
      }
      id = this.high;
      this.high += 1;
    }
    const at = id * this.#width;
    this.#words[at] = w0;
    if (this.#width === 4) {
      this.#words[at + 1] = w1;
      this.#words[at + 2] = w2;
      this.#words[at + 3] = w3;
    }
    this.#lengths[id] = length;
    this.#link(id, slot);
    this.size += 1;
    return id;
  }

  /** Forgets a prefix: its number may be another's from now on. */
  remove(id: number): void {
    const slot = this.#slotOf(id);
    const next = this.#next;
    let before = NONE;
    let at = this.#heads[slot]!;
    while (at !== id) {
      before = at;
      at = next[at]!;
    }
    if (before === NONE) this.#heads[slot] = next[id]!;
    else next[before] = next[id]!;
    next[id] = this.#free;
    this.#free = id;
    this.size -= 1;
  }

  words(id: number): PrefixWords {
    const at = id * this.#width;
    const w0 = this.#words[at]!;
    const length = this.#lengths[id]!;
    if (this.#width === 1) return { w0, w1: 0, w2: 0, w3: 0, length };
    return { w0, w1: this.#words[at + 1]!, w2: this.#words[at + 2]!, w3: this.#words[at + 3]!, length };
  }

  /** Writes the prefix as NLRI at `at`, and returns where it ends: at most 17 bytes on. */
  encode(id: number, bytes: Uint8Array, at: number): number {
    const length = this.#lengths[id]!;
    bytes[at] = length;
    const octets = (length + 7) >> 3;
    const first = id * this.#width;
    let word = this.#words[first]!;
    for (let index = 0; index < octets; index += 1) {
      if (index > 0 && (index & 3) === 0) word = this.#words[first + (index >> 2)]!;
      bytes[at + 1 + index] = word >>> (24 - 8 * (index & 3));
    }
    return at + 1 + octets;
  }

  #findIn(slot: number, w0: number, w1: number, w2: number, w3: number, length: number): number {
    const words = this.#words;
    const lengths = this.#lengths;
    const next = this.#next;
    let id = this.#heads[slot]!;
    if (this.#width === 1) {
      while (id !== NONE && (words[id] !== w0 || lengths[id] !== length)) id = next[id]!;
      return id;
    }
    for (; id !== NONE; id = next[id]!) {
      const at = id * 4;
      if (words[at + 3] !== w3 || words[at + 2] !== w2 || words[at + 1] !== w1) continue;
      if (words[at] === w0 && lengths[id] === length) return id;
    }
    return NONE;
  }

  /**
   * Neighbours lie side by side, 4096 in a run, as tables mostly come in some order and memory is faster so; where a run
   * begins depends on all other bits. The number of slots is a power of two. Multipliers are those of MurmurHash3's finish.
   */
  #slot(w0: number, w1: number, w2: number, w3: number, length: number): number {
    let last = w0;
    let hash = length;
    if (this.#width === 4) {
      if (length > 32) hash = mixed(hash ^ w0);
      if (length > 64) hash = mixed(hash ^ w1);
      if (length > 96) hash = mixed(hash ^ w2);
      last = length > 96 ? w3 : length > 64 ? w2 : length > 32 ? w1 : w0;
    }
    const low = last >>> (-length & 31);
    return (low + mixed(hash ^ (low & ~RUN))) & (this.#heads.length - 1);
  }

  #slotOf(id: number): number {
    const words = this.#words;
    const at = id * this.#width;
    if (this.#width === 1) return this.#slot(words[at]!, 0, 0, 0, this.#lengths[id]!);
    return this.#slot(words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!, this.#lengths[id]!);
  }

  #link(id: number, slot: number): void {
    this.#next[id] = this.#heads[slot]!;
    this.#heads[slot] = id;
  }

  /** Only called when every number is in use, so that all of them are linked anew. */
  #grow(): void {
    const capacity = nextCapacity(this.capacity);
    this.#words = grown(this.#words, capacity * this.#width);
    this.#lengths = grown(this.#lengths, capacity);
    this.#next = new Int32Array(capacity);
    this.#heads = new Int32Array(capacity).fill(NONE);
    for (let id = 0; id < this.high; id += 1) this.#link(id, this.#slotOf(id));
  }
}

const RUN = 4095;

function mixed(word: number): number {
  let hash = Math.imul(word ^ (word >>> 15), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
