import { type ByteReader, type ByteWriter, MalformedBytes } from "../lib/bytes.ts";
import {
  type Attributes,
  type AttributeRow,
  type AttributeTable,
  attributeTable,
  decodeAttributes,
  encodeAttribute,
  encodeAttributes,
  type ValueCodec,
} from "./attributes.ts";
import type { Message, Request } from "./framing.ts";

/**
 * What the subsystems of netfilter (nf_tables, conntrack, packet log) have in common: <linux/netfilter/nfnetlink.h>.
 * Their numbers are in network order, and they mark attributes that hold attributes (NLA_F_NESTED).
 */

export const NETLINK_NETFILTER = 12;

/** NFNL_SUBSYS_…: the upper byte of a message's type. */
const SUBSYSTEMS = { conntrack: 1, log: 4, nftables: 10 } as const;
export type Subsystem = keyof typeof SUBSYSTEMS;

/** NFNLGRP_…: multicast groups. */
export const GROUP_CONNTRACK_NEW = 1;
export const GROUP_CONNTRACK_UPDATE = 2;
export const GROUP_CONNTRACK_DESTROY = 3;
export const GROUP_NFTABLES = 7;

/** NFPROTO_… of <linux/netfilter.h>; tables of family `inet` see IPv4 and IPv6. */
const FAMILIES = { unspecified: 0, inet: 1, ip: 2, arp: 3, netdev: 5, bridge: 7, ip6: 10 } as const;
export type NetfilterFamily = keyof typeof FAMILIES;

/**
 * A request of a subsystem. After the message's own header comes a `struct nfgenmsg`:
 *
 *      0        1         2                 4
 *     +--------+---------+-----------------+
 *     | family | version | resource, in    |
 *     |        | (0)     | network order   |
 *     +--------+---------+-----------------+
 */
export function netfilterRequest(
  subsystem: Subsystem,
  operation: number,
  flags: number,
  family: NetfilterFamily,
  encode: (writer: ByteWriter) => void,
  resource = 0,
): Request {
  return {
    type: (SUBSYSTEMS[subsystem] << 8) | operation,
    flags,
    encode(writer) {
      encodeNetfilterHeader(writer, family, resource);
      encode(writer);
    },
  };
}

export function encodeNetfilterHeader(writer: ByteWriter, family: NetfilterFamily, resource: number): void {
  writer.u8(FAMILIES[family]);
  writer.u8(0);
  writer.u16(resource);
}

export interface NetfilterHeader {
  /** Undefined for a number that has no name here. */
  readonly family: NetfilterFamily | undefined;
  readonly resource: number;
}

export function decodeNetfilterHeader(body: ByteReader): NetfilterHeader {
  const number = body.u8("netfilter family");
  body.skip(1, "netfilter version");
  return { family: nameOf(FAMILIES, number), resource: body.u16("netfilter resource") };
}

/** The operation of a message of the subsystem; undefined for messages of others. */
export function operationOf(message: Pick<Message, "type">, subsystem: Subsystem): number | undefined {
  return message.type >> 8 === SUBSYSTEMS[subsystem] ? message.type & 0xff : undefined;
}

const NESTED = 0x8000;

/** A row whose value holds attributes. */
export function nestedRow<Value>(code: number, codec: ValueCodec<Value>): AttributeRow<Value> {
  return { code: code | NESTED, codec };
}

type Rows = Record<string, AttributeRow<unknown>>;

/** `attributeTable` for rows that may be nested: the kernel's answers do not have the mark. */
export function netfilterTable<R extends Rows>(rows: R): AttributeTable<R> {
  const table = attributeTable(rows);
  return { rows: table.rows, byCode: new Map(table.rows.map((entry) => [entry.code & ~NESTED, entry])) };
}

/** Attributes inside an attribute, for a `nestedRow`. */
export function inside<R extends Rows>(table: AttributeTable<R>): ValueCodec<Attributes<R>> {
  return {
    decode: (reader) => decodeAttributes(reader, table),
    encode: (writer, values) => encodeAttributes(writer, table, values),
  };
}

/** Any number of attributes of code 1 (NFTA_LIST_ELEM), with attributes in each. */
export function listOf<Item>(codec: ValueCodec<Item>): ValueCodec<readonly Item[]> {
  const { code } = nestedRow(1, codec);
  return {
    decode(reader, field) {
      const items: Item[] = [];
      const collect: ValueCodec<undefined> = {
        decode: (item) => void items.push(codec.decode(item, field)),
        encode: () => undefined,
      };
      decodeAttributes(reader, attributeTable({ item: { code: 1, codec: collect } }));
      return items;
    },
    encode(writer, items) {
      for (const item of items) encodeAttribute(writer, code, codec, item);
    },
  };
}

/** Numbers in network order. */
export const be32: ValueCodec<number> = {
  decode: (reader, field) => reader.u32(field),
  encode: (writer, value) => writer.u32(value),
};
/** Counts of packets, bytes and milliseconds: exact up to 2^53. */
export const be64: ValueCodec<number> = {
  decode: (reader, field) => Number(reader.u64(field)),
  encode: (writer, value) => writer.u64(BigInt(value)),
};
/** Where the kernel says zero for what is not there. */
export function unlessZero(codec: ValueCodec<number>): ValueCodec<number | undefined> {
  return {
    decode: (reader, field) => codec.decode(reader, field) || undefined,
    encode: (writer, value) => codec.encode(writer, value ?? 0),
  };
}

/** An int in network order. */
export const signed32: ValueCodec<number> = {
  decode: (reader, field) => reader.u32(field) | 0,
  encode: (writer, value) => writer.u32(value >>> 0),
};

/** A 32-bit number with a name each. */
export function named32<Name extends string>(names: Readonly<Record<Name, number>>): ValueCodec<Name> {
  return {
    decode(reader, field) {
      const number = reader.u32(field);
      const name = nameOf(names, number);
      if (name === undefined) throw new MalformedBytes(`${field}: ${number} has no name here`);
      return name;
    },
    encode: (writer, name) => writer.u32(names[name]),
  };
}

/** The names of the bits that are set in a 32-bit number, in ascending order. */
export function bits32<Name extends string>(bits: Readonly<Record<Name, number>>): ValueCodec<readonly Name[]> {
  const names = Object.keys(bits) as Name[];
  return {
    decode(reader, field) {
      const number = reader.u32(field);
      const known = names.filter((name) => (number & bits[name]) !== 0);
      const unknown = known.reduce((left, name) => left & ~bits[name], number);
      if (unknown !== 0) throw new MalformedBytes(`${field}: bits 0x${(unknown >>> 0).toString(16)} have no name here`);
      return known;
    },
    encode: (writer, set) => writer.u32(set.reduce((number, name) => number | bits[name], 0) >>> 0),
  };
}

/** Bit 0 of a 32-bit number, said also where it is not set. */
export const truth32: ValueCodec<boolean> = {
  decode: (reader, field) => (reader.u32(field) & 1) !== 0,
  encode: (writer, set) => writer.u32(set ? 1 : 0),
};

/** One bit of a 32-bit field of flags, of which we know no other. */
export function flag32(bit: number): ValueCodec<true | undefined> {
  return {
    decode: (reader, field) => ((reader.u32(field) & bit) !== 0 ? true : undefined),
    encode: (writer) => writer.u32(bit),
  };
}

/** Names to numbers, counted from zero. */
export function numbered<const Name extends string>(names: readonly Name[]): Record<Name, number> {
  return Object.fromEntries(names.map((name, at) => [name, at])) as Record<Name, number>;
}

/** The name that has the number. */
export function nameOf<Name extends string>(names: Readonly<Record<Name, number>>, number: number): Name | undefined {
  return (Object.keys(names) as Name[]).find((name) => names[name] === number);
}
