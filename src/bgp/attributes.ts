import { addressFromBytes, addressToBytes, formatAddress, type Address } from "../ip/address.ts";
import { MalformedBytes, type ByteReader, type ByteWriter } from "../lib/bytes.ts";
import { decodeAsPath, encodeAsPath, type AsPath } from "./as-path.ts";
import { AS_TRANS } from "./constants.ts";

/** In the order in which the decision process prefers them. */
export type Origin = "igp" | "egp" | "incomplete";
/** By their numbers. */
export const ORIGINS: readonly Origin[] = ["igp", "egp", "incomplete"];

/** RFC 8092: `global:local1:local2`. */
export interface LargeCommunity {
  readonly global: number;
  readonly local1: number;
  readonly local2: number;
}

/** The AS and speaker that formed an aggregate. */
export interface Aggregator {
  readonly asn: number;
  readonly address: Address;
}

/** An optional transitive attribute that we pass on without knowing it. */
export interface UnknownAttribute {
  readonly code: number;
  readonly flags: number;
  readonly value: Uint8Array;
}

/** What an UPDATE says of its routes. Plain data; absent where the message had no such attribute. */
export interface PathAttributes {
  readonly origin: Origin;
  readonly asPath: AsPath;
  readonly nextHop?: Address;
  /** The second next hop that an IPv6 neighbour on the link may give (RFC 2545 section 3). */
  readonly linkLocalNextHop?: Address;
  readonly med?: number;
  readonly localPref?: number;
  readonly atomicAggregate?: true;
  readonly aggregator?: Aggregator;
  /** RFC 1997: high half the AS, low half its value. */
  readonly communities?: readonly number[];
  /** RFC 4456: a BGP identifier. */
  readonly originatorId?: number;
  readonly clusterList?: readonly number[];
  /** RFC 4360: eight octets each. */
  readonly extendedCommunities?: readonly bigint[];
  readonly largeCommunities?: readonly LargeCommunity[];
  readonly unknown?: readonly UnknownAttribute[];
}

/** What two speakers agreed on that changes how attributes are written. */
export interface AttributeContext {
  /** Octets of an AS number: RFC 6793. */
  readonly asOctets: 2 | 4;
  /** Whether the session is iBGP. */
  readonly internal: boolean;
}

/** What a malformed attribute costs (RFC 7606 section 7), from least to most. */
export type Penalty = "discard" | "withdraw" | "reset";

export interface AttributeCodec<Value> {
  readonly code: number;
  /** As in ORIGIN or MED: shown to people. */
  readonly name: string;
  readonly flags: number;
  readonly penalty: Penalty;
  /** Belongs in iBGP alone: neither believed nor sent in eBGP. */
  readonly internalOnly?: true;
  decode(reader: ByteReader, context: AttributeContext): Value;
  encode(writer: ByteWriter, value: Value, context: AttributeContext): void;
}

export const OPTIONAL = 0x80;
export const TRANSITIVE = 0x40;
export const PARTIAL = 0x20;
export const EXTENDED_LENGTH = 0x10;
export const MP_REACH = 14;
export const MP_UNREACH = 15;

/** The fields that have a row: those of a path, and the two that repair what two-octet speakers passed on. */
export interface Fields extends Omit<PathAttributes, "unknown" | "linkLocalNextHop"> {
  readonly as4Path?: AsPath;
  readonly as4Aggregator?: Aggregator;
}
type Value<Field extends keyof Fields> = NonNullable<Fields[Field]>;

function whole(reader: ByteReader, length: number, field: string): void {
  if (reader.remaining !== length) throw new MalformedBytes(`${field}: has ${reader.remaining} bytes, not ${length}`);
}

const origin: AttributeCodec<Origin> = {
  code: 1,
  name: "ORIGIN",
  flags: TRANSITIVE,
  penalty: "withdraw",
  decode(reader) {
    whole(reader, 1, "ORIGIN");
    const value = reader.u8("ORIGIN");
    const known = ORIGINS[value];
    if (known === undefined) throw new MalformedBytes(`ORIGIN ${value} is not 0, 1 or 2`);
    return known;
  },
  encode(writer, value) {
    writer.u8(ORIGINS.indexOf(value));
  },
};

const asPath: AttributeCodec<AsPath> = {
  code: 2,
  name: "AS_PATH",
  flags: TRANSITIVE,
  penalty: "withdraw",
  decode: (reader, { asOctets }) => decodeAsPath(reader, asOctets),
  encode(writer, value, { asOctets }) {
    encodeAsPath(writer, value, asOctets);
  },
};

const nextHop: AttributeCodec<Address> = {
  code: 3,
  name: "NEXT_HOP",
  flags: TRANSITIVE,
  penalty: "withdraw",
  decode(reader) {
    whole(reader, 4, "NEXT_HOP");
    return checkNextHop(addressFromBytes(reader.take(4, "NEXT_HOP")));
  },
  encode(writer, value) {
    writer.raw(addressToBytes(value));
  },
};

function checkNextHop(address: Address): Address {
  const fault = nextHopFault(address);
  if (fault !== undefined) throw new MalformedBytes(fault);
  return address;
}

/** A next hop must be the address of a host (RFC 4271 section 6.3): why this one is not, or undefined. */
export function nextHopFault(address: Address): string | undefined {
  const { family, value } = address;
  const top = Number(value >> (family === 4 ? 24n : 120n));
  const impossible = family === 4 ? top === 0 || top === 127 || top >= 224 : top === 255 || value <= 1n;
  return impossible ? `next hop ${formatAddress(address)} is no host's address` : undefined;
}

function number(code: number, name: string, flags: number, internalOnly?: true): AttributeCodec<number> {
  return {
    code,
    name,
    flags,
    penalty: "withdraw",
    ...(internalOnly && { internalOnly }),
    decode(reader) {
      whole(reader, 4, name);
      return reader.u32(name);
    },
    encode(writer, value) {
      writer.u32(value);
    },
  };
}

const atomicAggregate: AttributeCodec<true> = {
  code: 6,
  name: "ATOMIC_AGGREGATE",
  flags: TRANSITIVE,
  penalty: "discard",
  decode(reader) {
    whole(reader, 0, "ATOMIC_AGGREGATE");
    return true;
  },
  encode() {
    // Its presence is its value.
  },
};

function aggregatorOf(code: number, name: string, octetsIn: (context: AttributeContext) => 2 | 4) {
  const codec: AttributeCodec<Aggregator> = {
    code,
    name,
    flags: OPTIONAL | TRANSITIVE,
    penalty: "discard",
    decode(reader, context) {
      const octets = octetsIn(context);
      whole(reader, octets + 4, name);
      const asn = octets === 4 ? reader.u32(name) : reader.u16(name);
      return { asn, address: addressFromBytes(reader.take(4, name)) };
    },
    encode(writer, { asn, address }, context) {
      if (octetsIn(context) === 4) writer.u32(asn);
      else writer.u16(asn > 65535 ? AS_TRANS : asn);
      writer.raw(addressToBytes(address));
    },
  };
  return codec;
}

/** A list of items of one size: empty ones are malformed (RFC 7606 sections 7.8 to 7.14, RFC 8092 section 6). */
function list<Item>(
  row: { code: number; name: string; flags: number; size: number; internalOnly?: true },
  read: (reader: ByteReader) => Item,
  write: (writer: ByteWriter, item: Item) => void,
): AttributeCodec<readonly Item[]> {
  const { code, name, flags, size, internalOnly } = row;
  return {
    code,
    name,
    flags,
    penalty: "withdraw",
    ...(internalOnly && { internalOnly }),
    decode(reader) {
      if (reader.remaining === 0) throw new MalformedBytes(`${name} is empty`);
      const items: Item[] = [];
      while (reader.remaining >= size) items.push(read(reader));
      if (reader.remaining > 0) throw new MalformedBytes(`${name}: need ${size} bytes, have ${reader.remaining}`);
      return items;
    },
    encode(writer, items) {
      for (const item of items) write(writer, item);
    },
  };
}

const u32 = (name: string): [(reader: ByteReader) => number, (writer: ByteWriter, value: number) => void] => [
  (reader) => reader.u32(name),
  (writer, value) => writer.u32(value),
];

const as4Path: AttributeCodec<AsPath> = {
  code: 17,
  name: "AS4_PATH",
  flags: OPTIONAL | TRANSITIVE,
  penalty: "discard",
  decode: (reader) => decodeAsPath(reader, 4),
  encode(writer, value) {
    encodeAsPath(writer, value, 4);
  },
};

/** One row per attribute we understand, in the ascending order of code in which they are sent. */
export const ATTRIBUTES: { readonly [Field in keyof Required<Fields>]: AttributeCodec<Value<Field>> } = {
  origin,
  asPath,
  nextHop,
  med: number(4, "MULTI_EXIT_DISC", OPTIONAL),
  localPref: number(5, "LOCAL_PREF", TRANSITIVE, true),
  atomicAggregate,
  aggregator: aggregatorOf(7, "AGGREGATOR", ({ asOctets }) => asOctets),
  communities: list({ code: 8, name: "COMMUNITIES", flags: OPTIONAL | TRANSITIVE, size: 4 }, ...u32("community")),
  originatorId: number(9, "ORIGINATOR_ID", OPTIONAL, true),
  clusterList: list(
    { code: 10, name: "CLUSTER_LIST", flags: OPTIONAL, size: 4, internalOnly: true },
    ...u32("cluster identifier"),
  ),
  extendedCommunities: list(
    { code: 16, name: "EXTENDED_COMMUNITIES", flags: OPTIONAL | TRANSITIVE, size: 8 },
    (reader) => reader.u64("extended community"),
    (writer, value) => writer.u64(value),
  ),
  as4Path,
  as4Aggregator: aggregatorOf(18, "AS4_AGGREGATOR", () => 4),
  largeCommunities: list<LargeCommunity>(
    { code: 32, name: "LARGE_COMMUNITIES", flags: OPTIONAL | TRANSITIVE, size: 12 },
    (reader) => ({
      global: reader.u32("large community"),
      local1: reader.u32("large community"),
      local2: reader.u32("large community"),
    }),
    (writer, { global, local1, local2 }) => {
      writer.u32(global);
      writer.u32(local1);
      writer.u32(local2);
    },
  ),
};

/** RFC 1997 and RFC 8326: what every speaker does without being told. */
export const WELL_KNOWN = {
  noExport: 0xffffff01,
  noAdvertise: 0xffffff02,
  noExportSubconfed: 0xffffff03,
  gracefulShutdown: 0xffff0000,
} as const;

/** `64512:100`. */
export function formatCommunity(value: number): string {
  return `${value >>> 16}:${value & 0xffff}`;
}

export function formatLargeCommunity({ global, local1, local2 }: LargeCommunity): string {
  return `${global}:${local1}:${local2}`;
}
