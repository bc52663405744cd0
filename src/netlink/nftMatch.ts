import { type Address, addressToBytes, type Family } from "../ip/address.ts";
import type { Prefix } from "../ip/prefix.ts";
import type { Register } from "./nftData.ts";
import type { ConntrackKey, Expression, FibField, MetaKey } from "./nftExpression.ts";
import { hostBytes, interfaceBytes, portBytes, protocolBytes } from "./nftKey.ts";

/**
 * What a rule asks of a packet, as the expressions that `nft` makes of the same words. Each begins at the first register
 * again, since nothing of one match is needed by the next; the fields of a concatenation take one after the other.
 */

/** A part of the packet, or something known about it, by which sets and maps are asked. */
export type Field =
  | "source address"
  | "destination address"
  | "protocol"
  | "source port"
  | "destination port"
  | "input interface"
  | "output interface"
  | "mark";

const RESULT = 0;

/** Where addresses are in the header of IPv4 (RFC 791 section 3.1) and IPv6 (RFC 8200 section 3). */
const SOURCE_AT = { 4: 12, 6: 8 } as const;
const DESTINATION_AT = { 4: 16, 6: 24 } as const;
const ADDRESS_LENGTH = { 4: 4, 6: 16 } as const;

/** Registers of 4 bytes that a field takes. */
function width(field: Field, family: Family): number {
  if (field === "source address" || field === "destination address") return ADDRESS_LENGTH[family] / 4;
  return field === "input interface" || field === "output interface" ? 4 : 1;
}

/** Puts the field into registers. Ports are where TCP, UDP and SCTP have them: ask for the protocol first. */
export function loadField(field: Field, family: Family, into: Register = RESULT): Expression {
  switch (field) {
    case "source address":
      return { kind: "payload", base: "network", offset: SOURCE_AT[family], length: ADDRESS_LENGTH[family], into };
    case "destination address":
      return { kind: "payload", base: "network", offset: DESTINATION_AT[family], length: ADDRESS_LENGTH[family], into };
    case "protocol":
      return { kind: "meta", key: "l4proto", into };
    case "source port":
      return { kind: "payload", base: "transport", offset: 0, length: 2, into };
    case "destination port":
      return { kind: "payload", base: "transport", offset: 2, length: 2, into };
    case "input interface":
      return { kind: "meta", key: "iifname", into };
    case "output interface":
      return { kind: "meta", key: "oifname", into };
    case "mark":
      return { kind: "meta", key: "mark", into };
  }
}

/** Loads the fields as a key; returns the register it begins at with the expressions. */
function loadKey(fields: readonly Field[], family: Family): Expression[] {
  let at = RESULT;
  return fields.map((field) => {
    const into = at;
    at += width(field, family);
    return loadField(field, family, into);
  });
}

export interface MatchOptions {
  /** Matches what is not so. */
  readonly not?: boolean;
}

/** In the set, as a concatenation where there are several fields. */
export function inSet(fields: readonly Field[], family: Family, set: string, options: MatchOptions = {}): Expression[] {
  const invert = options.not === true ? { invert: true as const } : {};
  return [...loadKey(fields, family), { kind: "lookup", set, from: RESULT, ...invert }];
}

/** What the verdict map has for the fields becomes of the packet; where it has nothing, the next rule is asked. */
export function verdictMap(fields: readonly Field[], family: Family, map: string): Expression[] {
  return [...loadKey(fields, family), { kind: "lookup", set: map, from: RESULT, into: "verdict" }];
}

/** Loads what the map has for the fields, for an action that takes it from the first register. */
export function lookUp(fields: readonly Field[], family: Family, map: string): Expression[] {
  return [...loadKey(fields, family), { kind: "lookup", set: map, from: RESULT, into: RESULT }];
}

/** By name; one that ends in `*` stands for all that begin so. */
export function interfaceIs(way: "input" | "output", name: string, options: MatchOptions = {}): Expression[] {
  const value = name.endsWith("*") ? new TextEncoder().encode(name.slice(0, -1)) : interfaceBytes(name);
  return [loadField(`${way} interface`, 4, RESULT), compare(value, options)];
}

export function addressIs(side: "source" | "destination", prefix: Prefix, options: MatchOptions = {}): Expression[] {
  const { address, length } = prefix;
  const { family } = address;
  const value = addressToBytes(address);
  const offset = (side === "source" ? SOURCE_AT : DESTINATION_AT)[family];
  // All of no bits, or whole bytes, are compared without a mask.
  if (length % 8 === 0 && length > 0) {
    const bytes = length / 8;
    const payload: Expression = { kind: "payload", base: "network", offset, length: bytes, into: RESULT };
    return [payload, compare(value.slice(0, bytes), options)];
  }
  const mask = value.map((_, at) => (0xff << Math.max(0, 8 - Math.max(0, length - 8 * at))) & 0xff);
  const xor = new Uint8Array(value.length);
  return [
    { kind: "payload", base: "network", offset, length: value.length, into: RESULT },
    { kind: "bitwise", from: RESULT, into: RESULT, mask, xor },
    compare(value, options),
  ];
}

/** By number: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6. */
export function protocolIs(protocol: number, options: MatchOptions = {}): Expression[] {
  return [loadField("protocol", 4, RESULT), compare(protocolBytes(protocol), options)];
}

/** Both ends belong to the range. Ask for the protocol first. */
export function portIs(
  side: "source" | "destination",
  first: number,
  last: number = first,
  options: MatchOptions = {},
): Expression[] {
  const port = loadField(`${side} port`, 4, RESULT);
  if (first === last) return [port, compare(portBytes(first), options)];
  return [port, ...inRange(portBytes(first), portBytes(last), options)];
}

/** Of ICMP and ICMPv6, which have type and code in the same place. Ask for the protocol first. */
export function icmpIs(type: number, code?: number, options: MatchOptions = {}): Expression[] {
  const value = code === undefined ? Uint8Array.of(type) : Uint8Array.of(type, code);
  return [
    { kind: "payload", base: "transport", offset: 0, length: value.length, into: RESULT },
    compare(value, options),
  ];
}

/** Both ends belong to the range. */
export function icmpTypeWithin(first: number, last: number): Expression[] {
  const type: Expression = { kind: "payload", base: "transport", offset: 0, length: 1, into: RESULT };
  return [type, ...inRange(Uint8Array.of(first), Uint8Array.of(last), {})];
}

/** Those bits of the mark that the mask has. */
export function markIs(value: number, mask: number, options: MatchOptions = {}): Expression[] {
  return masked({ kind: "meta", key: "mark", into: RESULT }, value, mask, options);
}

/** Of the connection, as `markIs`. */
export function connectionMarkIs(value: number, mask: number, options: MatchOptions = {}): Expression[] {
  return masked({ kind: "ct", key: "mark", into: RESULT }, value, mask, options);
}

function masked(loaded: Expression, value: number, mask: number, options: MatchOptions): Expression[] {
  if (mask === 0xffffffff) return [loaded, compare(hostBytes(value), options)];
  return [
    loaded,
    { kind: "bitwise", from: RESULT, into: RESULT, mask: hostBytes(mask), xor: hostBytes(0) },
    compare(hostBytes(value), options),
  ];
}

/** NF_CT_STATE_BIT of <linux/netfilter/nf_conntrack_common.h> */
const STATES = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 } as const;
export type ConnectionState = keyof typeof STATES;

/** In one of the states. A packet that is of no connection is `invalid`, or `untracked`. */
export function stateIs(...states: readonly ConnectionState[]): Expression[] {
  return anyBit("state", states.reduce(withState, 0), {});
}

export function stateIsNot(...states: readonly ConnectionState[]): Expression[] {
  return anyBit("state", states.reduce(withState, 0), { not: true });
}

const withState = (bits: number, state: ConnectionState): number => bits | STATES[state];

/** IPS_… of <linux/netfilter/nf_conntrack_common.h> */
const STATUSES = { "seen-reply": 2, assured: 4, confirmed: 8, snat: 16, dnat: 32, dying: 512 } as const;
export type ConnectionStatus = keyof typeof STATUSES;

/** One of these is true of the connection. */
export function statusIs(...statuses: readonly ConnectionStatus[]): Expression[] {
  return anyBit("status", statuses.reduce(withStatus, 0), {});
}

/** There is a connection, and none of these is true of it. */
export function statusIsNot(...statuses: readonly ConnectionStatus[]): Expression[] {
  return anyBit("status", statuses.reduce(withStatus, 0), { not: true });
}

const withStatus = (bits: number, status: ConnectionStatus): number => bits | STATUSES[status];

function anyBit(key: ConntrackKey, bits: number, { not = false }: MatchOptions): Expression[] {
  return [
    { kind: "ct", key, into: RESULT },
    { kind: "bitwise", from: RESULT, into: RESULT, mask: hostBytes(bits), xor: hostBytes(0) },
    compare(hostBytes(0), { not: !not }),
  ];
}

/** The way that the packet goes, seen from who began the connection. */
export function directionIs(direction: "original" | "reply"): Expression[] {
  return [{ kind: "ct", key: "direction", into: RESULT }, compare(Uint8Array.of(direction === "original" ? 0 : 1), {})];
}

/** Whom the connection was for before its addresses were translated. */
export function originalDestinationIs(address: Address): Expression[] {
  const key = address.family === 4 ? "ip daddr" : "ip6 daddr";
  return [{ kind: "ct", key, into: RESULT, direction: "original" }, compare(addressToBytes(address), {})];
}

/** The port in network order, as `originalDestinationIs`. */
export function originalPortIs(port: number): Expression[] {
  return [{ kind: "ct", key: "proto-dst", into: RESULT, direction: "original" }, compare(portBytes(port), {})];
}

/**
 * There is no route back to the source by the interface that the packet came in by: `fib saddr . iif oif 0`. With `mark`,
 * the packet's mark takes part in the choice of the route.
 */
export function noRouteBack(options: MatchOptions & { readonly mark?: boolean } = {}): Expression[] {
  const by: FibField[] = options.mark === true ? ["saddr", "mark", "iif"] : ["saddr", "iif"];
  return [{ kind: "fib", by, result: "oif", into: RESULT }, compare(hostBytes(0), options)];
}

/** RTN_… of <linux/rtnetlink.h> */
const ADDRESS_TYPES = {
  unicast: 1,
  local: 2,
  broadcast: 3,
  anycast: 4,
  multicast: 5,
  blackhole: 6,
  unreachable: 7,
} as const;
export type AddressType = keyof typeof ADDRESS_TYPES;

/** What this host's routes say of the address. */
export function addressTypeIs(
  side: "source" | "destination",
  type: AddressType,
  options: MatchOptions = {},
): Expression[] {
  const by: FibField[] = [side === "source" ? "saddr" : "daddr"];
  return [{ kind: "fib", by, result: "type", into: RESULT }, compare(hostBytes(ADDRESS_TYPES[type]), options)];
}

/** Any number that the kernel has in its own order, such as `skuid` or `iif`. */
export function metaIs(key: MetaKey, value: number, options: MatchOptions = {}): Expression[] {
  return [{ kind: "meta", key, into: RESULT }, compare(hostBytes(value), options)];
}

function compare(value: Uint8Array, { not = false }: MatchOptions): Expression {
  return { kind: "cmp", from: RESULT, operator: not ? "neq" : "eq", value };
}

/** `nft` asks for a range with two comparisons, and for what is not in it with one expression. */
function inRange(first: Uint8Array, last: Uint8Array, { not = false }: MatchOptions): Expression[] {
  if (not) return [{ kind: "range", from: RESULT, operator: "neq", first, last }];
  return [
    { kind: "cmp", from: RESULT, operator: "gte", value: first },
    { kind: "cmp", from: RESULT, operator: "lte", value: last },
  ];
}
