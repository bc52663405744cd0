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
import type { PrefixTable } from "./prefix-table.ts";
import { writeReachHead } from "./update.ts";

/** Attributes ready to be put before any number of prefixes. */
export interface EncodedAttributes {
  /** Everything but MP_REACH_NLRI. */
  readonly list: Uint8Array;
  /** MP_REACH_NLRI up to its prefixes, without the attribute's header; empty for IPv4 but for IPv6 next hops. */
  readonly reach: Uint8Array;
  /** The bytes as text: equal for what looks equal on the wire. */
  readonly key: string;
}

/** Bytes of the longest prefix: path identifier, length and 128 bits. */
const LONGEST_PREFIX = 4 + 17;
const ATTRIBUTE_HEADER = 4;
const NO_BYTES = new Uint8Array(0);

export function encodeForPacking(
  family: Family,
  attributes: PathAttributes,
  context: AttributeContext,
): EncodedAttributes {
  const inReach = family === 6 || attributes.nextHop?.family === 6;
  const writer = new ByteWriter(64);
  encodeAttributes(writer, attributes, context, !inReach);
  const list = writer.finish();
  if (!inReach) return { list, reach: NO_BYTES, key: keyOf(list) };
  const head = new ByteWriter(40);
  writeReachHead(head, family, attributes);
  const reach = head.finish();
  return { list, reach, key: `${keyOf(reach)} ${keyOf(list)}` };
}

function keyOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** Path identifiers are numbers of paths in a table, plus one: there are never as many as this. */
const PATH_IDS = 2 ** 26;

/** A prefix and a path identifier as the one number that writers and batches take; the prefix's alone without one. */
export function routeNumber(id: number, pathId: number): number {
  return pathId * PATH_IDS + id;
}

/** Whether at least one prefix fits beside the attributes in a message of `longest` bytes. */
export function fitsMessage({ list, reach }: EncodedAttributes, longest: number): boolean {
  return HEADER_LENGTH + 4 + list.length + ATTRIBUTE_HEADER + reach.length + LONGEST_PREFIX <= longest;
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

  /** `addPath`: what is written are route numbers with path identifiers (RFC 7911), not bare prefix numbers. */
  constructor(table: PrefixTable, longest: number, addPath = false) {
    this.#table = table;
    this.#longest = longest;
    this.#addPath = addPath;
    this.#bytes = new Uint8Array(Math.max(longest, 16_384));
  }

  announce(ids: readonly number[], { list, reach }: EncodedAttributes): void {
    const inReach = reach.length > 0;
    let next = 0;
    while (next < ids.length) {
      const start = this.#begin();
      this.#u16(0);
      const lengths = this.length;
      this.#u16(0);
      if (!inReach) {
        this.#raw(list);
        this.#patch(lengths, this.length - lengths - 2);
        next = this.#fill(ids, next, start + this.#longest);
      } else {
        // RFC 7606 section 5.1: MP_REACH_NLRI first.
        const value = this.#attribute(MP_REACH);
        this.#raw(reach);
        next = this.#fill(ids, next, start + this.#longest - list.length);
        this.#patch(value - 2, this.length - value);
        this.#raw(list);
        this.#patch(lengths, this.length - lengths - 2);
      }
      this.#patch(start + 16, this.length - start);
    }
  }

  withdraw(ids: readonly number[]): void {
    const v6 = this.#table.family === 6;
    let next = 0;
    while (next < ids.length) {
      const start = this.#begin();
      if (!v6) {
        const lengths = this.length;
        this.#u16(0);
        next = this.#fill(ids, next, start + this.#longest - 2);
        this.#patch(lengths, this.length - lengths - 2);
        this.#u16(0);
      } else {
        this.#u16(0);
        const lengths = this.length;
        this.#u16(0);
        const value = this.#attribute(MP_UNREACH);
        this.#u16(AFI[6]);
        this.#u8(SAFI_UNICAST);
        next = this.#fill(ids, next, start + this.#longest);
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

  /** Writes prefixes from the `next`-th on while they surely end before `limit`, and returns which is the next then. */
  #fill(ids: readonly number[], next: number, limit: number): number {
    let at = this.length;
    let index = next;
    while (index < ids.length && at + LONGEST_PREFIX <= limit) {
      const id = ids[index]!;
      if (this.#addPath) {
        at = this.#pathId(Math.floor(id / PATH_IDS), at);
        at = this.#table.encode(id % PATH_IDS, this.#bytes, at);
      } else at = this.#table.encode(id, this.#bytes, at);
      index += 1;
    }
    this.length = at;
    return index;
  }

  #pathId(pathId: number, at: number): number {
    this.#patch(at, pathId >>> 16);
    this.#patch(at + 2, pathId & 0xffff);
    return at + 4;
  }

  #raw(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.length);
    this.length += bytes.length;
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
