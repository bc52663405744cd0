import { addressBits, type Family } from "../ip/address.ts";
import type { Prefix } from "../ip/prefix.ts";
import type { ByteWriter } from "../lib/bytes.ts";
import { notification, ProtocolError, UPDATE_ERROR } from "./notification.ts";

/** Where a run of prefixes lies in a message: read with `walkNlri`. */
export interface NlriRange {
  readonly family: Family;
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
  /** Each prefix has a path identifier before it (RFC 7911). */
  readonly addPath: boolean;
}

/** A prefix as numbers: its address in 32-bit words (IPv4 uses the first), and the path identifier, or 0. */
export type NlriVisitor = (w0: number, w1: number, w2: number, w3: number, length: number, pathId: number) => void;

/** A prefix as numbers, for the tables and filters: no big integers where a million prefixes pass. */
export interface PrefixWords {
  readonly w0: number;
  readonly w1: number;
  readonly w2: number;
  readonly w3: number;
  readonly length: number;
}

export interface Nlri {
  readonly prefix: Prefix;
  readonly pathId: number;
}

/**
 * Calls `visit` for each prefix, front to back. Bits beyond the length are cleared (RFC 4271 section 4.3 calls them
 * irrelevant). Throws `ProtocolError` (Invalid Network Field) where a prefix is too long or cut short: nothing after it can
 * be found then, so RFC 7606 section 5.3 leaves no choice but to end the session. Check with `checkNlri` before acting.
 */
export function walkNlri({ family, bytes, start, end, addPath }: NlriRange, visit: NlriVisitor): void {
  const longest = addressBits(family);
  let at = start;
  while (at < end) {
    let pathId = 0;
    if (addPath) {
      if (at + 5 > end) throw invalidNetwork(`a path identifier is cut short: ${end - at} bytes are left`);
      pathId = u32(bytes, at);
      at += 4;
    }
    const length = bytes[at]!;
    at += 1;
    if (length > longest) throw invalidNetwork(`an IPv${family} prefix cannot have ${length} bits`);
    const octets = (length + 7) >> 3;
    if (at + octets > end) {
      throw invalidNetwork(`a /${length} needs ${octets} bytes, ${end - at} are left`);
    }
    const w0 = word(bytes, at, octets, length, 0);
    if (family === 4) visit(w0, 0, 0, 0, length, pathId);
    else {
      const w1 = word(bytes, at, octets, length, 1);
      const w2 = word(bytes, at, octets, length, 2);
      visit(w0, w1, w2, word(bytes, at, octets, length, 3), length, pathId);
    }
    at += octets;
  }
}

const ignore: NlriVisitor = () => undefined;

/** Throws as `walkNlri` does. */
export function checkNlri(range: NlriRange): void {
  walkNlri(range, ignore);
}

/** The clear form: for tests, views and small numbers. */
export function decodeNlri(range: NlriRange): Nlri[] {
  const found: Nlri[] = [];
  walkNlri(range, (w0, w1, w2, w3, length, pathId) => {
    found.push({ prefix: prefixOfWords(range.family, { w0, w1, w2, w3, length }), pathId });
  });
  return found;
}

/** Writes one prefix as NLRI. */
export function encodeNlri(writer: ByteWriter, { prefix, pathId }: Nlri, addPath: boolean): void {
  const words = wordsOfPrefix(prefix);
  if (addPath) writer.u32(pathId);
  writer.u8(prefix.length);
  const octets = (prefix.length + 7) >> 3;
  for (let index = 0; index < octets; index += 1) {
    const value = index < 4 ? words.w0 : index < 8 ? words.w1 : index < 12 ? words.w2 : words.w3;
    writer.u8((value >>> (24 - 8 * (index & 3))) & 255);
  }
}

export function wordsOfPrefix({ address, length }: Prefix): PrefixWords {
  if (address.family === 4) return { w0: Number(address.value), w1: 0, w2: 0, w3: 0, length };
  const part = (shift: bigint): number => Number((address.value >> shift) & 0xffffffffn);
  return { w0: part(96n), w1: part(64n), w2: part(32n), w3: part(0n), length };
}

export function prefixOfWords(family: Family, { w0, w1, w2, w3, length }: PrefixWords): Prefix {
  if (family === 4) return { address: { family, value: BigInt(w0) }, length };
  const value = (BigInt(w0) << 96n) | (BigInt(w1) << 64n) | (BigInt(w2) << 32n) | BigInt(w3);
  return { address: { family, value }, length };
}

/** The index-th 32 bits of a prefix whose bytes begin at `at`, without the bits beyond its length. */
function word(bytes: Uint8Array, at: number, octets: number, length: number, index: number): number {
  const first = index * 4;
  if (octets <= first) return 0;
  const from = at + first;
  let value = bytes[from]! << 24;
  if (octets > first + 1) value |= bytes[from + 1]! << 16;
  if (octets > first + 2) value |= bytes[from + 2]! << 8;
  if (octets > first + 3) value |= bytes[from + 3]!;
  const bits = length - index * 32;
  if (bits < 32) value &= -1 << (32 - bits);
  return value >>> 0;
}

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

function invalidNetwork(reason: string): ProtocolError {
  return new ProtocolError(notification(UPDATE_ERROR.code, UPDATE_ERROR.invalidNetwork), `malformed prefix: ${reason}`);
}
