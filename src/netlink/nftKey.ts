import { type Address, addressBits, addressFromBytes, addressToBytes, formatAddress } from "../ip/address.ts";
import { formatPrefix, lastAddress, type Prefix } from "../ip/prefix.ts";
import { MalformedBytes } from "../lib/bytes.ts";

/** The types of values in sets, and their bytes. The kernel only wants lengths: the types are what `nft` prints by. */

interface KeyTypeRow {
  /** `enum datatypes` of nftables' include/datatype.h. */
  readonly number: number;
  /** Bytes. */
  readonly length: number;
  readonly order: "host" | "network";
}

const KEY_TYPES = {
  ipv4_addr: { number: 7, length: 4, order: "network" },
  ipv6_addr: { number: 8, length: 16, order: "network" },
  ether_addr: { number: 9, length: 6, order: "host" },
  inet_proto: { number: 12, length: 1, order: "network" },
  inet_service: { number: 13, length: 2, order: "network" },
  icmp_type: { number: 14, length: 1, order: "network" },
  mark: { number: 19, length: 4, order: "host" },
  iface_index: { number: 20, length: 4, order: "host" },
  ct_state: { number: 26, length: 4, order: "host" },
  icmpv6_type: { number: 29, length: 1, order: "network" },
  ifname: { number: 41, length: 16, order: "host" },
} as const satisfies Record<string, KeyTypeRow>;
export type KeyType = keyof typeof KEY_TYPES;

/** In a type's number of several fields, each has so many bits. */
const TYPE_BITS = 6;
/** Fields of a concatenation begin at registers. */
const ALIGNMENT = 4;

const padded = (length: number): number => Math.ceil(length / ALIGNMENT) * ALIGNMENT;

/** What the kernel keeps as a set's type: one field's number, or the numbers of a concatenation's fields. */
export function keyTypeNumber(types: readonly KeyType[]): number {
  return types.reduce((number, type) => (number << TYPE_BITS) | KEY_TYPES[type].number, 0);
}

/** Undefined where one of them has no name here. */
export function keyTypesOf(number: number): KeyType[] | undefined {
  const types: KeyType[] = [];
  for (let rest = number; rest !== 0; rest >>>= TYPE_BITS) {
    const field = rest & ((1 << TYPE_BITS) - 1);
    const type = (Object.keys(KEY_TYPES) as KeyType[]).find((name) => KEY_TYPES[name].number === field);
    if (type === undefined) return undefined;
    types.unshift(type);
  }
  return types;
}

/** Bytes of a key: the fields of a concatenation are padded to 4 bytes each. */
export function keyLength(types: readonly KeyType[]): number {
  const [only] = types;
  if (types.length === 1 && only !== undefined) return KEY_TYPES[only].length;
  return types.reduce((length, type) => length + padded(KEY_TYPES[type].length), 0);
}

/** Bytes of each field, without padding. */
export function fieldLengths(types: readonly KeyType[]): number[] {
  return types.map((type) => KEY_TYPES[type].length);
}

/** BYTEORDER_… of nftables' include/datatype.h, as a set's user data has it: of a concatenation none. */
export function byteOrderNumber(types: readonly KeyType[]): number {
  const [only] = types;
  if (types.length !== 1 || only === undefined) return 0;
  return KEY_TYPES[only].order === "host" ? 1 : 2;
}

/** A key, or with `last` all keys from `key` on up to it, field by field in a concatenation. */
export interface KeyRange {
  readonly key: Uint8Array;
  readonly last?: Uint8Array;
}

export function protocolBytes(protocol: number): Uint8Array {
  return Uint8Array.of(protocol);
}

export function portBytes(port: number): Uint8Array {
  return Uint8Array.of(port >> 8, port);
}

/** Marks, and other numbers of 4 bytes that the kernel has in its own order. */
export function hostBytes(number: number): Uint8Array {
  return Uint8Array.of(number, number >>> 8, number >>> 16, number >>> 24);
}

/** Of at most 15 bytes, filled with zeros. */
export function interfaceBytes(name: string): Uint8Array {
  const bytes = new Uint8Array(KEY_TYPES.ifname.length);
  const text = new TextEncoder().encode(name);
  if (text.length >= bytes.length) throw new MalformedBytes(`"${name}" is longer than an interface's name can be`);
  bytes.set(text);
  return bytes;
}

/** All addresses of the network. */
export function prefixRange(prefix: Prefix): KeyRange {
  const key = addressToBytes(prefix.address);
  if (prefix.length === addressBits(prefix.address.family)) return { key };
  return { key, last: addressToBytes(lastAddress(prefix)) };
}

export function portRange(first: number, last: number): KeyRange {
  return first === last ? { key: portBytes(first) } : { key: portBytes(first), last: portBytes(last) };
}

/** The fields of a concatenation as one key; a range where any of them is one. */
export function concatenate(...fields: readonly KeyRange[]): KeyRange {
  const key = joined(fields.map((field) => field.key));
  if (fields.every(({ last }) => last === undefined)) return { key };
  return { key, last: joined(fields.map((field) => field.last ?? field.key)) };
}

function joined(fields: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(fields.reduce((length, field) => length + padded(field.length), 0));
  let at = 0;
  for (const field of fields) {
    bytes.set(field, at);
    at += padded(field.length);
  }
  return bytes;
}

/** As `nft` writes it, but for names of protocols and services: `10.0.0.0/24 . 6 . 80-90`. */
export function formatKey(types: readonly KeyType[], { key, last }: KeyRange): string {
  if (key.length !== keyLength(types))
    return `0x${Array.from(key, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  let at = 0;
  const fields = types.map((type) => {
    const { length } = KEY_TYPES[type];
    const end = at + length;
    const first = formatField(type, key.subarray(at, end));
    const until = last === undefined ? first : formatField(type, last.subarray(at, end));
    const prefix = last && prefixOf(type, key.subarray(at, end), last.subarray(at, end));
    at += types.length === 1 ? length : padded(length);
    return first === until ? first : (prefix ?? `${first}-${until}`);
  });
  return fields.join(" . ");
}

function formatField(type: KeyType, bytes: Uint8Array): string {
  switch (type) {
    case "ipv4_addr":
    case "ipv6_addr":
      return formatAddress(addressFromBytes(bytes));
    case "ifname": {
      const end = bytes.indexOf(0);
      return `"${new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end))}"`;
    }
    case "ether_addr":
      return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
    case "mark":
    case "ct_state":
    case "iface_index":
      return `0x${bytes
        .toReversed()
        .reduce((number, byte) => number * 256 + byte, 0)
        .toString(16)}`;
    default:
      return String(bytes.reduce((number, byte) => number * 256 + byte, 0));
  }
}

/** The network that the range is, if it is one. */
function prefixOf(type: KeyType, first: Uint8Array, last: Uint8Array): string | undefined {
  if (type !== "ipv4_addr" && type !== "ipv6_addr") return undefined;
  const from: Address = addressFromBytes(first);
  const bits = addressBits(from.family);
  const size = addressFromBytes(last).value - from.value + 1n;
  const hostBits = size.toString(2).length - 1;
  const prefix = { address: from, length: bits - hostBits };
  return size === 1n << BigInt(hostBits) && from.value % size === 0n ? formatPrefix(prefix) : undefined;
}
