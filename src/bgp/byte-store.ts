import { grown } from "./prefix-table.ts";

const NONE = -1;
/** Strings of bytes lie in slabs, so that a store that grows copies nothing; none is longer than one. */
const SLAB = 1 << 18;
/** They begin at multiples of this, and take up multiples of it: room that was freed fits others of about the same length. */
const UNIT = 8;
const UNITS = SLAB / UNIT;
const SMALLEST = 64;

/**
 * Gives each distinct string of bytes a small number from 1 on: equal bytes, equal number. Bytes and all that is known of
 * them lie in typed arrays, some 20 bytes beside the string's own, where an object would take hundreds. Numbers and room
 * of what was removed are given out again. `Map` of texts in the tests is its naive twin.
 */
export class ByteStore {
  size = 0;
  /** Numbers given out so far are below this. */
  high = 1;
  #slabs: Uint8Array[] = [];
  /** Units of the last slab in use. */
  #used = UNITS;
  /** Units from the beginning of the first slab. */
  #at = new Uint32Array(SMALLEST);
  #lengths = new Uint32Array(SMALLEST);
  #hashes = new Int32Array(SMALLEST);
  /** The next in the same chain, or in the list of free numbers. */
  #next = new Int32Array(SMALLEST);
  #heads = new Int32Array(SMALLEST).fill(NONE);
  #free = NONE;
  /** Room that was freed, by its length in units. */
  readonly #room = new Map<number, number[]>();

  get capacity(): number {
    return this.#lengths.length;
  }

  /** The number of these bytes, a new one where they had none. */
  intern(bytes: Uint8Array, start: number, length: number): number {
    const hash = hashOf(bytes, start, length);
    for (let id = this.#heads[hash & (this.#heads.length - 1)]!; id !== NONE; id = this.#next[id]!) {
      if (this.#hashes[id] === hash && this.#lengths[id] === length && this.#is(id, bytes, start)) return id;
    }
    return this.#add(bytes, start, length, hash);
  }

  /** Forgets bytes: their number may be others' from now on. */
  remove(id: number): void {
    const slot = this.#hashes[id]! & (this.#heads.length - 1);
    let before = NONE;
    let at = this.#heads[slot]!;
    while (at !== id) {
      before = at;
      at = this.#next[at]!;
    }
    if (before === NONE) this.#heads[slot] = this.#next[id]!;
    else this.#next[before] = this.#next[id]!;
    this.#next[id] = this.#free;
    this.#free = id;
    this.size -= 1;
    if (this.size === 0) return this.clear();
    const units = unitsOf(this.#lengths[id]!);
    const room = this.#room.get(units);
    if (room === undefined) this.#room.set(units, [this.#at[id]!]);
    else room.push(this.#at[id]!);
  }

  /** Forgets all, and lets go of what took much memory. */
  clear(): void {
    this.size = 0;
    this.high = 1;
    this.#free = NONE;
    this.#room.clear();
    this.#slabs.length = Math.min(1, this.#slabs.length);
    this.#used = this.#slabs.length === 0 ? UNITS : 0;
    this.#heads.fill(NONE);
  }

  /** Where the bytes of a number lie: valid until it is removed. */
  slab(id: number): Uint8Array {
    return this.#slabs[Math.floor(this.#at[id]! / UNITS)]!;
  }
  start(id: number): number {
    return (this.#at[id]! % UNITS) * UNIT;
  }
  length(id: number): number {
    return this.#lengths[id]!;
  }

  #add(bytes: Uint8Array, start: number, length: number, hash: number): number {
    let id = this.#free;
    if (id !== NONE) this.#free = this.#next[id]!;
    else {
      if (this.high === this.capacity) this.#grow();
      id = this.high;
      this.high += 1;
    }
    this.#at[id] = this.#place(length);
    this.#lengths[id] = length;
    this.#hashes[id] = hash;
    const slab = this.slab(id);
    let to = this.start(id);
    for (let from = start; from < start + length; from += 1, to += 1) slab[to] = bytes[from]!;
    this.#link(id);
    this.size += 1;
    return id;
  }

  #place(length: number): number {
    const units = unitsOf(length);
    const room = this.#room.get(units)?.pop();
    if (room !== undefined) return room;
    if (units > UNITS) throw new RangeError(`${length} bytes are more than are kept in one piece`);
    if (this.#used + units > UNITS) {
      this.#slabs.push(new Uint8Array(SLAB));
      this.#used = 0;
    }
    const at = (this.#slabs.length - 1) * UNITS + this.#used;
    this.#used += units;
    return at;
  }

  #is(id: number, bytes: Uint8Array, start: number): boolean {
    const slab = this.slab(id);
    const offset = this.start(id) - start;
    const end = start + this.#lengths[id]!;
    for (let at = start; at < end; at += 1) if (slab[offset + at] !== bytes[at]) return false;
    return true;
  }

  #link(id: number): void {
    const slot = this.#hashes[id]! & (this.#heads.length - 1);
    this.#next[id] = this.#heads[slot]!;
    this.#heads[slot] = id;
  }

  /** Only called when every number is in use, so that all of them are linked anew. */
  #grow(): void {
    const capacity = this.capacity * 2;
    this.#at = grown(this.#at, capacity);
    this.#lengths = grown(this.#lengths, capacity);
    this.#hashes = grown(this.#hashes, capacity);
    this.#next = new Int32Array(capacity);
    this.#heads = new Int32Array(capacity).fill(NONE);
    for (let id = 1; id < this.high; id += 1) this.#link(id);
  }
}

const unitsOf = (length: number): number => Math.max(1, Math.ceil(length / UNIT));

/** FNV-1a over the bytes, its bits mixed as in MurmurHash3's finish. */
function hashOf(bytes: Uint8Array, start: number, length: number): number {
  let hash = 0x811c9dc5 ^ length;
  for (let at = start; at < start + length; at += 1) hash = Math.imul(hash ^ bytes[at]!, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return hash ^ (hash >>> 13);
}
