import type { Family } from "../ip/address.ts";
import { ByteWriter } from "../lib/bytes.ts";
import { encodeAttributes } from "./attribute-list.ts";
import {
  EXTENDED_LENGTH,
  MP_REACH,
  MP_UNREACH,
  OPTIONAL,
  type AttributeContext,
  type PathAttributes,
} from "./attributes.ts";
import { AFI, HEADER_LENGTH, MESSAGE, SAFI_UNICAST } from "./constants.ts";
import type { ByteStore } from "./byte-store.ts";
import { END, type Chains } from "./chains.ts";
import { PACKED_HEADER } from "./export-bytes.ts";
import type { PrefixTable } from "./prefix-table.ts";
import { writeReachHead } from "./update.ts";

/** Bytes to begin with: what changes at once is mostly little. */
const FIRST_ROOM = 8192;

/** Bytes of the longest prefix: path identifier, length and 128 bits. */
const LONGEST_PREFIX = 4 + 17;
const ATTRIBUTE_HEADER = 4;

/**
 * Attributes ready to be put before any number of prefixes: two bytes of length, MP_REACH_NLRI up to its prefixes and
 * without the attribute's header (empty for IPv4 but for IPv6 next hops), and the list of all others. The clear form of
 * `export-bytes.ts`.
 */
export function encodeForPacking(family: Family, attributes: PathAttributes, context: AttributeContext): Uint8Array {
  const inReach = family === 6 || attributes.nextHop?.family === 6;
  const writer = new ByteWriter(96);
  const length = writer.reserve(PACKED_HEADER);
  if (inReach) writeReachHead(writer, family, attributes);
  writer.patchU16(length, writer.length - PACKED_HEADER);
  encodeAttributes(writer, attributes, context, !inReach);
  return writer.finish();
}

/** Whether at least one prefix fits beside packed attributes of this length in a message of `longest` bytes. */
export function fitsMessage(packedLength: number, longest: number): boolean {
  return HEADER_LENGTH + 4 + packedLength - PACKED_HEADER + ATTRIBUTE_HEADER + LONGEST_PREFIX <= longest;
}

/**
 * UPDATE messages one after the other in one buffer, each filled with as many prefixes as it holds: the fast form of
 * `encodeUpdate`, for the tables' own numbers of prefixes. Written once for a whole group of peers.
 */
export class UpdateWriter {
  readonly #table: PrefixTable;
  readonly #longest: number;
  readonly #addPath: boolean;
  #bytes: Uint8Array;
  length = 0;

  /** `addPath`: path identifiers are written before the prefixes (RFC 7911). */
  constructor(table: PrefixTable, longest: number, addPath = false) {
    this.#table = table;
    this.#longest = longest;
    this.#addPath = addPath;
    this.#bytes = new Uint8Array(Math.max(longest, FIRST_ROOM));
  }

  /** Messages with the prefixes of a chain, whose attributes lie packed in `store`. */
  announce(chains: Chains, chain: number, store: ByteStore): void {
    const attributes = chains.attributes(chain);
    const packed = store.slab(attributes);
    const reach = store.start(attributes) + PACKED_HEADER;
    const list = reach + ((packed[reach - 2]! << 8) | packed[reach - 1]!);
    const end = reach - PACKED_HEADER + store.length(attributes);
    let entry = chains.first(chain);
    while (entry !== END) {
      const start = this.#begin();
      this.#u16(0);
      const lengths = this.length;
      this.#u16(0);
      if (list === reach) {
        this.#raw(packed, list, end);
        this.#patch(lengths, this.length - lengths - 2);
        entry = this.#fill(chains, entry, start + this.#longest);
      } else {
        // RFC 7606 section 5.1: MP_REACH_NLRI first.
        const value = this.#attribute(MP_REACH);
        this.#raw(packed, reach, list);
        entry = this.#fill(chains, entry, start + this.#longest - (end - list));
        this.#patch(value - 2, this.length - value);
        this.#raw(packed, list, end);
        this.#patch(lengths, this.length - lengths - 2);
      }
      this.#patch(start + 16, this.length - start);
    }
  }

  withdraw(chains: Chains, chain: number): void {
    const v6 = this.#table.family === 6;
    let entry = chains.first(chain);
    while (entry !== END) {
      const start = this.#begin();
      if (!v6) {
        const lengths = this.length;
        this.#u16(0);
        entry = this.#fill(chains, entry, start + this.#longest - 2);
        this.#patch(lengths, this.length - lengths - 2);
        this.#u16(0);
      } else {
        this.#u16(0);
        const lengths = this.length;
        this.#u16(0);
        const value = this.#attribute(MP_UNREACH);
        this.#u16(AFI[6]);
        this.#u8(SAFI_UNICAST);
        entry = this.#fill(chains, entry, start + this.#longest);
        this.#patch(value - 2, this.length - value);
        this.#patch(lengths, this.length - lengths - 2);
      }
      this.#patch(start + 16, this.length - start);
    }
  }

  /** What was written from `start` to `end`: a view, valid for good as nothing is written over. */
  slice(start: number, end: number): Uint8Array {
    return this.#bytes.subarray(start, end);
  }

  #begin(): number {
    const start = this.length;
    const needed = start + this.#longest;
    if (needed > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
      larger.set(this.#bytes.subarray(0, start));
      this.#bytes = larger;
    }
    this.#bytes.fill(255, start, start + 16);
    this.length = start + 18;
    this.#u8(MESSAGE.update);
    return start;
  }

  /** The header of an attribute whose length is patched in later; returns where its value begins. */
  #attribute(code: number): number {
    this.#u8(OPTIONAL | EXTENDED_LENGTH);
    this.#u8(code);
    this.#u16(0);
    return this.length;
  }

  /** Writes prefixes from an entry on while they surely end before `limit`, and returns which entry is the next then. */
  #fill(chains: Chains, first: number, limit: number): number {
    const { prefix, pathId, next } = chains;
    let at = this.length;
    let entry = first;
    while (entry !== END && at + LONGEST_PREFIX <= limit) {
      if (this.#addPath) at = this.#pathId(pathId[entry]!, at);
      at = this.#table.encode(prefix[entry]!, this.#bytes, at);
      entry = next[entry]!;
    }
    this.length = at;
    return entry;
  }

  #pathId(pathId: number, at: number): number {
    this.#patch(at, pathId >>> 16);
    this.#patch(at + 2, pathId & 0xffff);
    return at + 4;
  }

  #raw(bytes: Uint8Array, start: number, end: number): void {
    let to = this.length;
    for (let at = start; at < end; at += 1, to += 1) this.#bytes[to] = bytes[at]!;
    this.length = to;
  }
  #u8(value: number): void {
    this.#bytes[this.length] = value;
    this.length += 1;
  }
  #u16(value: number): void {
    this.#patch(this.length, value);
    this.length += 2;
  }
  #patch(at: number, value: number): void {
    this.#bytes[at] = value >> 8;
    this.#bytes[at + 1] = value & 255;
  }
}
