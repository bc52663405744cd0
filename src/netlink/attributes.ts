import { type Address, addressFromBytes, type Family } from "../ip/address.ts";
import { type ByteReader, type ByteWriter, MalformedBytes } from "../lib/bytes.ts";

/**
 * Attributes, the fields of every netlink message (`struct nlattr` of <linux/netlink.h>):
 *
 *      0               2               4
 *     +---------------+---------------+-----------+ - - - - +
 *     | length, with  | type and two  | value     | padding |
 *     | these 4 bytes | flags         |           | to 4    |
 *     +---------------+---------------+-----------+ - - - - +
 *
 * A message's attributes are a table with one row each: our name, the kernel's number, and how the value is written.
 */

/** How one kind of value is written. `decode` is given a reader of exactly the value's bytes. */
export interface ValueCodec<Value> {
  decode(reader: ByteReader, field: string): Value;
  encode(writer: ByteWriter, value: Value): void;
}

export interface AttributeRow<Value> {
  readonly code: number;
  readonly codec: ValueCodec<Value>;
}

type Rows = Record<string, AttributeRow<unknown>>;

/** What a table's attributes decode to: only those that were there, and of them only those that have a row. */
export type Attributes<R extends Rows> = {
  -readonly [Name in keyof R]?: (R[Name] extends AttributeRow<infer Value> ? Value : never) | undefined;
};

export interface AttributeTable<R extends Rows> {
  /** In the order in which they are sent. */
  readonly rows: readonly {
    readonly name: keyof R & string;
    readonly code: number;
    readonly codec: ValueCodec<unknown>;
  }[];
  readonly byCode: ReadonlyMap<number, { readonly name: keyof R & string; readonly codec: ValueCodec<unknown> }>;
}

/** The values of a table's attributes. */
export type ValuesOf<Table> = Table extends AttributeTable<infer R> ? Attributes<R> : never;

const HEADER_LENGTH = 4;
/** Without NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
const TYPE_MASK = 0x3fff;

export function row<Value>(code: number, codec: ValueCodec<Value>): AttributeRow<Value> {
  return { code, codec };
}

export function attributeTable<R extends Rows>(rows: R): AttributeTable<R> {
  const list = Object.entries(rows).map(([name, { code, codec }]) => ({ name, code, codec }));
  return { rows: list, byCode: new Map(list.map((entry) => [entry.code, entry])) };
}

export function encodeAttributes<R extends Rows>(
  writer: ByteWriter,
  table: AttributeTable<R>,
  values: Attributes<R>,
): void {
  for (const { name, code, codec } of table.rows) {
    const value = values[name];
    if (value !== undefined) encodeAttribute(writer, code, codec, value);
  }
}

/** One attribute: header, value and padding. Throws `MalformedBytes` where the value is too long for its length. */
export function encodeAttribute<Value>(writer: ByteWriter, code: number, codec: ValueCodec<Value>, value: Value): void {
  const start = writer.reserve(HEADER_LENGTH);
  codec.encode(writer, value);
  const length = writer.length - start;
  // The kernel would read another length than the one written.
  if (length > 0xffff) throw new MalformedBytes(`attribute ${code} has ${length} bytes, more than its length can say`);
  writer.patchU16le(start, length);
  writer.patchU16le(start + 2, code);
  writer.reserve(padding(length));
}

/** All that is left in the reader. Attributes without a row are skipped; of repeated ones the last counts. */
export function decodeAttributes<R extends Rows>(reader: ByteReader, table: AttributeTable<R>): Attributes<R> {
  const values: Attributes<R> = {};
  eachAttribute(reader, (code, value) => {
    const entry = table.byCode.get(code);
    // The table pairs the name with the codec of its type.
    if (entry !== undefined)
      values[entry.name] = entry.codec.decode(value, entry.name) as Attributes<R>[typeof entry.name];
  });
  return values;
}

function eachAttribute(reader: ByteReader, visit: (code: number, value: ByteReader) => void): void {
  // What is too short for a header is padding, which the kernel ignores too.
  while (reader.remaining >= HEADER_LENGTH) {
    const length = reader.u16le("attribute length");
    const code = reader.u16le("attribute type") & TYPE_MASK;
    if (length < HEADER_LENGTH)
      throw new MalformedBytes(`attribute ${code}: its length is ${length}, less than its header`);
    const value = reader.sub(length - HEADER_LENGTH, `attribute ${code}`);
    reader.skip(Math.min(padding(length), reader.remaining), "padding");
    visit(code, value);
  }
}

function padding(length: number): number {
  return -length & 3;
}

/** Values in the byte order of the host, as most are. */
export const u8: ValueCodec<number> = {
  decode: (reader, field) => reader.u8(field),
  encode: (writer, value) => writer.u8(value),
};
export const u16: ValueCodec<number> = {
  decode: (reader, field) => reader.u16le(field),
  encode: (writer, value) => writer.u16le(value),
};
export const u32: ValueCodec<number> = {
  decode: (reader, field) => reader.u32le(field),
  encode: (writer, value) => writer.u32le(value),
};
export const i32: ValueCodec<number> = {
  decode: (reader, field) => reader.i32le(field),
  encode: (writer, value) => writer.i32le(value),
};
/** In network order, as ports are. */
export const be16: ValueCodec<number> = {
  decode: (reader, field) => reader.u16(field),
  encode: (writer, value) => writer.u16(value),
};
/** One byte, 0 or 1. */
export const bool: ValueCodec<boolean> = {
  decode: (reader, field) => reader.u8(field) !== 0,
  encode: (writer, value) => writer.u8(value ? 1 : 0),
};
/** A copy of the bytes, since the buffer they came in is used again. */
export const raw: ValueCodec<Uint8Array> = {
  decode: (reader) => reader.rest().slice(),
  encode: (writer, value) => writer.raw(value),
};

const textEncoder = new TextEncoder();
const textDecoder = new TextDecoder();

/** Names come again and again, and each call of the encoder costs more than all else of an attribute. */
const encoded = new Map<string, Uint8Array>();
const ENCODED_MAX = 4096;

function encodeText(value: string): Uint8Array {
  const known = encoded.get(value);
  if (known !== undefined) return known;
  const bytes = textEncoder.encode(value);
  if (encoded.size >= ENCODED_MAX) encoded.clear();
  encoded.set(value, bytes);
  return bytes;
}

/** Text with the zero byte at its end that C wants; a missing one is forgiven. */
export const text: ValueCodec<string> = {
  decode(reader) {
    const bytes = reader.rest();
    const end = bytes.indexOf(0);
    return textDecoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
  },
  encode(writer, value) {
    writer.raw(encodeText(value));
    writer.u8(0);
  },
};

/** An IPv4 or IPv6 address: its length says which. */
export const address: ValueCodec<Address> = {
  decode(reader, field) {
    if (reader.remaining === 4) return { family: 4, value: BigInt(reader.u32(field)) };
    if (reader.remaining !== 16)
      throw new MalformedBytes(`${field}: an address has 4 or 16 bytes, not ${reader.remaining}`);
    return addressFromBytes(reader.rest());
  },
  encode(writer, { family, value }) {
    if (family === 4) return writer.u32(Number(value));
    writer.u64(value >> 64n);
    writer.u64(value & 0xffffffffffffffffn);
  },
};

/** Text as long as its attribute, which is how `ip` names kinds of links. */
export const word: ValueCodec<string> = {
  decode: (reader, field) => text.decode(reader, field),
  encode: (writer, value) => writer.raw(textEncoder.encode(value)),
};

/** AF_INET and AF_INET6 of <bits/socket.h>. */
export function familyNumber(family: Family): number {
  return family === 4 ? 2 : 10;
}

/** Undefined for families that are not IP, such as AF_BRIDGE. */
export function familyOf(number: number): Family | undefined {
  return number === 2 ? 4 : number === 10 ? 6 : undefined;
}

/** A link-layer address as `ee:ee:ee:ee:ee:ee`; of other lengths where the link has another kind. */
export const linkAddress: ValueCodec<string> = {
  decode: (reader) => Array.from(reader.rest(), (byte) => byte.toString(16).padStart(2, "0")).join(":"),
  encode(writer, value) {
    for (const part of value.split(":")) {
      if (!/^[0-9a-fA-F]{2}$/.test(part))
        throw new MalformedBytes(`"${value}" is not a link address like ee:ee:ee:ee:ee:ee`);
      writer.u8(Number.parseInt(part, 16));
    }
  },
};

/** Attributes inside an attribute. rtnetlink does not ask for NLA_F_NESTED in the type, and `ip` does not send it. */
export function nested<R extends Rows>(table: AttributeTable<R>): ValueCodec<Attributes<R>> {
  return {
    decode: (reader) => decodeAttributes(reader, table),
    encode: (writer, values) => encodeAttributes(writer, table, values),
  };
}

/** The object without the fields that are undefined, for types that tell absent fields by their absence. */
export function present<Values extends object>(values: Values): Present<Values> {
  const kept: Partial<Values> = {};
  for (const name of Object.keys(values) as (keyof Values)[]) if (values[name] !== undefined) kept[name] = values[name];
  return kept as unknown as Present<Values>;
}

type Present<Values> = { [Name in keyof Values as undefined extends Values[Name] ? never : Name]: Values[Name] } & {
  [Name in keyof Values as undefined extends Values[Name] ? Name : never]?: Exclude<Values[Name], undefined>;
};
