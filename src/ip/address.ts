import { Failure } from "../lib/errors.ts";

export type Family = 4 | 6;

/** An address as its number: 32 bits for IPv4, 128 for IPv6. Plain data: compare with `sameAddress`. */
export interface Address {
  readonly family: Family;
  readonly value: bigint;
}

export class AddressError extends Failure<"bad-address"> {
  constructor(message: string) {
    super("bad-address", message);
  }
}

/** Number of bits in an address of the family. */
export function addressBits(family: Family): 32 | 128 {
  return family === 4 ? 32 : 128;
}

/**
 * Strict: four decimal octets without leading zeros, or RFC 4291 section 2.2 text without a zone. Throws `AddressError`
 * with the reason.
 */
export function parseAddress(text: string): Address {
  return text.includes(":") ? { family: 6, value: parseV6(text, text) } : { family: 4, value: parseV4(text, text) };
}

function parseV4(text: string, whole: string): bigint {
  const parts = text.split(".");
  if (parts.length !== 4)
    throw new AddressError(`"${whole}" is not an IP address: expected four octets like 192.0.2.1`);
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) {
      throw new AddressError(`"${whole}" is not an IP address: "${part}" is not a number from 0 to 255`);
    }
    value = value * 256 + Number(part);
  }
  return BigInt(value);
}

function parseV6(text: string, whole: string): bigint {
  const fail = (reason: string): never => {
    throw new AddressError(`"${whole}" is not an IPv6 address: ${reason}`);
  };
  if (text.includes("%")) fail("an address with a zone (%) is not accepted here");
  const halves = text.split("::");
  if (halves.length > 2) fail('"::" may stand only once');
  const groupsOf = (half: string, isLast: boolean): number[] => {
    if (half === "") return [];
    const groups: number[] = [];
    const parts = half.split(":");
    for (const [index, part] of parts.entries()) {
      if (part.includes(".")) {
        if (!isLast || index !== parts.length - 1) fail(`"${part}" may stand only at the end`);
        const v4 = Number(parseV4(part, whole));
        groups.push(Math.floor(v4 / 65536), v4 % 65536);
      } else {
        if (!/^[0-9a-fA-F]{1,4}$/.test(part)) fail(`"${part}" is not one to four hex digits`);
        groups.push(Number.parseInt(part, 16));
      }
    }
    return groups;
  };
  const head = groupsOf(halves[0] ?? "", halves.length === 1);
  const tail = halves.length === 2 ? groupsOf(halves[1] ?? "", true) : [];
  const count = head.length + tail.length;
  if (halves.length === 1 && count !== 8) fail(`it has ${count} groups, not eight`);
  if (halves.length === 2 && count > 7) fail('"::" must stand for at least one group');
  let value = 0n;
  for (const group of head) value = (value << 16n) | BigInt(group);
  value <<= BigInt(16 * (8 - count));
  for (const group of tail) value = (value << 16n) | BigInt(group);
  if (halves.length === 2) return ((value >> BigInt(16 * tail.length)) << BigInt(16 * tail.length)) | low(tail);
  return value;
}

function low(groups: readonly number[]): bigint {
  let value = 0n;
  for (const group of groups) value = (value << 16n) | BigInt(group);
  return value;
}

/** RFC 5952: lower case, no leading zeros, the first longest run of two or more zero groups as "::". */
export function formatAddress(address: Address): string {
  if (address.family === 4) {
    const value = Number(address.value);
    return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
  }
  // RFC 5952 section 5: IPv4-mapped addresses are written with dots.
  if (address.value >> 32n === 0xffffn) {
    return `::ffff:${formatAddress({ family: 4, value: address.value & 0xffffffffn })}`;
  }
  const groups = Array.from({ length: 8 }, (_, i) => Number((address.value >> BigInt(16 * (7 - i))) & 0xffffn));
  let longest = { start: -1, length: 1 };
  for (let start = 0; start < 8;) {
    let length = 0;
    while (start + length < 8 && groups[start + length] === 0) length += 1;
    if (length > longest.length) longest = { start, length };
    start += length + 1;
  }
  const hex = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(":");
  if (longest.start < 0) return hex(groups);
  return `${hex(groups.slice(0, longest.start))}::${hex(groups.slice(longest.start + longest.length))}`;
}

/** From 4 or 16 bytes in network order. */
export function addressFromBytes(bytes: Uint8Array): Address {
  if (bytes.length !== 4 && bytes.length !== 16) {
    throw new AddressError(`an address has 4 or 16 bytes, not ${bytes.length}`);
  }
  if (bytes.length === 4) {
    const value = ((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) >>> 0;
    return { family: 4, value: BigInt(value) };
  }
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return { family: 6, value };
}

/** 4 or 16 bytes in network order. */
export function addressToBytes(address: Address): Uint8Array {
  const bytes = new Uint8Array(address.family === 4 ? 4 : 16);
  let value = address.value;
  for (let i = bytes.length - 1; i >= 0; i -= 1) {
    bytes[i] = Number(value & 255n);
    value >>= 8n;
  }
  return bytes;
}

export function sameAddress(a: Address, b: Address): boolean {
  return a.family === b.family && a.value === b.value;
}

/** IPv4 before IPv6, then by number. */
export function compareAddresses(a: Address, b: Address): number {
  if (a.family !== b.family) return a.family - b.family;
  return a.value < b.value ? -1 : a.value > b.value ? 1 : 0;
}

/** The address `offset` further on (or back). Throws where that leaves the family's range. */
export function addressPlus(address: Address, offset: bigint): Address {
  const value = address.value + offset;
  if (value < 0n || value >> BigInt(addressBits(address.family)) !== 0n) {
    throw new AddressError(`${formatAddress(address)} plus ${offset} is outside the IPv${address.family} range`);
  }
  return { family: address.family, value };
}
