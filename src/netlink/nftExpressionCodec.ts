import { ByteReader, ByteWriter, MalformedBytes } from "../lib/bytes.ts";
import {
  type Attributes,
  type AttributeRow,
  be16,
  decodeAttributes,
  encodeAttributes,
  present,
  row,
  text,
  u8,
  type ValueCodec,
  word,
} from "./attributes.ts";
import {
  be32,
  be64,
  bits32,
  flag32,
  listOf,
  named32,
  nestedRow,
  netfilterTable,
  numbered,
  truth32,
  unlessZero,
} from "./nfnetlink.ts";
import { data, objectType, register, value } from "./nftData.ts";
import { COUNTER_ROWS, LIMIT_ROWS } from "./nftObject.ts";
import { type Form, MASQUERADE_FORM, NAT_FORM, REDIRECT_FORM } from "./nftNat.ts";

import {
  COMPARISONS,
  CONNTRACK_KEYS,
  type Counts,
  type Expression,
  FIB_FIELDS,
  META_KEYS,
  PAYLOAD_BASES,
} from "./nftExpression.ts";

/** How expressions are written: one row per kind, with the kernel's name and a table of attributes. */

const direction: ValueCodec<"original" | "reply"> = {
  decode: (reader, field) => (reader.u8(field) === 0 ? "original" : "reply"),
  encode: (writer, way) => writer.u8(way === "original" ? 0 : 1),
};

type Known = Exclude<Expression, { kind: "other" }>;
type Kind = Known["kind"];
type Of<K extends Kind> = Extract<Known, { kind: K }>;

interface ExpressionCodec<E extends Known> {
  /** The kernel's. */
  readonly name: string;
  encode(writer: ByteWriter, expression: E): void;
  /** Undefined where an attribute is missing: it may be another kind of the same name. */
  decode(reader: ByteReader): E | undefined;
}

type Rows = Record<string, AttributeRow<unknown>>;

/** A kind whose fields are its attributes, one to one; it is not of the kind without those that are required. */
function plain<K extends Kind, R extends Rows>(
  name: string,
  kind: K,
  required: readonly (keyof R & string)[],
  rows: R,
): ExpressionCodec<Of<K>> {
  const table = netfilterTable(rows);
  return {
    name,
    // The table's rows are the kind's fields.
    encode: (writer, expression) => encodeAttributes(writer, table, expression as unknown as Attributes<R>),
    decode(reader) {
      const values = decodeAttributes(reader, table);
      if (required.some((field) => values[field] === undefined)) return undefined;
      return { kind, ...present(values) } as unknown as Of<K>;
    },
  };
}

function formed<K extends Kind, R extends Rows>(name: string, form: Form<Of<K>, R>): ExpressionCodec<Of<K>> {
  return {
    name,
    encode: (writer, expression) => encodeAttributes(writer, form.table, form.toWire(expression)),
    decode: (reader) => form.fromWire(decodeAttributes(reader, form.table)),
  };
}

const BITWISE = netfilterTable({
  from: row(1, register),
  into: row(2, register),
  length: row(3, be32),
  mask: nestedRow(4, value),
  xor: nestedRow(5, value),
});

const REJECT = netfilterTable({
  type: row(1, named32(numbered(["icmp", "tcp reset", "icmpx"]))),
  code: row(2, u8),
});

/** One per kind; their attributes in the order in which `nft` sends them. */
const CODECS: { readonly [K in Kind]: ExpressionCodec<Of<K>> } = {
  meta: plain("meta", "meta", ["key", "into"], { key: row(2, named32(META_KEYS)), into: row(1, register) }),
  setMeta: plain("meta", "setMeta", ["key", "from"], { key: row(2, named32(META_KEYS)), from: row(3, register) }),
  payload: plain("payload", "payload", ["into", "base", "offset", "length"], {
    into: row(1, register),
    base: row(2, named32(PAYLOAD_BASES)),
    offset: row(3, be32),
    length: row(4, be32),
  }),
  writePayload: plain("payload", "writePayload", ["from", "base", "offset", "length", "checksum", "checksumOffset"], {
    from: row(5, register),
    base: row(2, named32(PAYLOAD_BASES)),
    offset: row(3, be32),
    length: row(4, be32),
    checksum: row(6, named32(numbered(["none", "inet", "sctp"]))),
    checksumOffset: row(7, be32),
    pseudoHeader: row(8, flag32(1)),
  }),
  cmp: plain("cmp", "cmp", ["from", "operator", "value"], {
    from: row(1, register),
    operator: row(2, named32(COMPARISONS)),
    value: nestedRow(3, value),
  }),
  bitwise: formed("bitwise", {
    table: BITWISE,
    toWire: (bitwise) => ({ ...bitwise, length: bitwise.mask.length }),
    fromWire({ from, into, mask, xor }) {
      // Without a mask it is a shift, or an operation of two registers.
      if (from === undefined || into === undefined || mask === undefined || xor === undefined) return undefined;
      return { kind: "bitwise", from, into, mask, xor };
    },
  }),
  byteorder: plain("byteorder", "byteorder", ["from", "into", "operation", "length", "size"], {
    from: row(1, register),
    into: row(2, register),
    operation: row(3, named32(numbered(["ntoh", "hton"]))),
    length: row(4, be32),
    size: row(5, be32),
  }),
  range: plain("range", "range", ["from", "operator", "first", "last"], {
    from: row(1, register),
    operator: row(2, named32(numbered(["eq", "neq"]))),
    first: nestedRow(3, value),
    last: nestedRow(4, value),
  }),
  lookup: plain("lookup", "lookup", ["from", "set"], {
    from: row(2, register),
    into: row(3, register),
    set: row(1, text),
    setId: row(4, be32),
    invert: row(5, flag32(1)),
  }),
  ct: plain("ct", "ct", ["key", "into"], {
    key: row(2, named32(CONNTRACK_KEYS)),
    into: row(1, register),
    direction: row(3, direction),
  }),
  setCt: plain("ct", "setCt", ["key", "from"], {
    key: row(2, named32(CONNTRACK_KEYS)),
    direction: row(3, direction),
    from: row(4, register),
  }),
  immediate: plain("immediate", "immediate", ["into", "data"], { into: row(1, register), data: nestedRow(2, data) }),
  counter: plain("counter", "counter", [], COUNTER_ROWS),
  limit: plain("limit", "limit", ["rate", "per", "type", "over"], LIMIT_ROWS),
  connlimit: plain("connlimit", "connlimit", ["count", "over"], { count: row(1, be32), over: row(2, truth32) }),
  log: plain("log", "log", [], {
    prefix: row(2, text),
    group: row(1, be16),
    snapLength: row(3, be32),
    queueThreshold: row(4, be16),
    level: row(5, be32),
    flags: row(6, be32),
  }),
  nat: formed("nat", NAT_FORM),
  masquerade: formed("masq", MASQUERADE_FORM),
  redirect: formed("redir", REDIRECT_FORM),
  reject: formed("reject", {
    table: REJECT,
    toWire: (reject) => reject,
    // The kernel says no code of a TCP reset.
    fromWire: ({ type, code = 0 }) => (type === undefined ? undefined : { kind: "reject", type, code }),
  }),
  fib: plain("fib", "fib", ["by", "result", "into"], {
    by: row(3, bits32(FIB_FIELDS)),
    result: row(2, named32({ oif: 1, oifname: 2, type: 3 })),
    into: row(1, register),
  }),
  notrack: plain("notrack", "notrack", [], {}),
  objref: plain("objref", "objref", ["type", "name"], { type: row(1, objectType), name: row(2, word) }),
  objrefMap: plain("objref", "objrefMap", ["from", "set"], {
    from: row(3, register),
    set: row(4, text),
    setId: row(5, be32),
  }),
  dynset: plain("dynset", "dynset", ["from", "operation", "set"], {
    from: row(4, register),
    data: row(5, register),
    operation: row(3, named32(numbered(["add", "update", "delete"]))),
    timeout: row(6, unlessZero(be64)),
    set: row(1, text),
    setId: row(2, be32),
  }),
};

const BY_NAME = Map.groupBy(Object.values(CODECS), ({ name }) => name);

/** Read as bytes, since the name says what they are; written straight away. */
const body: ValueCodec<Uint8Array | Known> = {
  decode: (reader) => reader.rest().slice(),
  encode(writer, item) {
    if (item instanceof Uint8Array) return writer.raw(item);
    const codec: ExpressionCodec<Known> = CODECS[item.kind];
    codec.encode(writer, item);
  },
};
const ENVELOPE = netfilterTable({ name: row(1, text), data: nestedRow(2, body) });

/**
 * Expressions by their bytes. A ruleset of a hundred thousand has a few hundred different ones, and looking one up takes
 * a tenth of the time of reading it.
 */
const known = new Map<string, Expression>();
const KNOWN_MAX = 4096;

/** What cannot be read is `other`, so that a list of rules is whole whatever is in them. */
export const expression: ValueCodec<Expression> = {
  decode(reader, field) {
    const { buffer, byteOffset } = reader.bytes;
    const bytes = Buffer.from(buffer, byteOffset + reader.offset, reader.remaining).toString("latin1");
    const found = known.get(bytes);
    if (found !== undefined) {
      reader.skip(reader.remaining, field);
      return found;
    }
    const decoded = decodeExpression(reader, field);
    // Counters differ all the time.
    if (decoded.kind === "counter") return decoded;
    if (known.size >= KNOWN_MAX) known.clear();
    known.set(bytes, decoded);
    return decoded;
  },
  encode(writer, item) {
    const kept = keptBytes.get(item);
    if (kept !== undefined) return writer.raw(kept);
    if (item.kind === "other") return encodeAttributes(writer, ENVELOPE, { name: item.name, data: item.data });
    // `nft` says nothing about notrack, and libnftnl leaves the attribute out then.
    const data = item.kind === "notrack" ? undefined : item;
    encodeAttributes(writer, ENVELOPE, { name: CODECS[item.kind].name, data });
  },
};

const keptBytes = new WeakMap<Expression, Uint8Array>();

/**
 * Writes the expressions once and for all, for those that stand in thousands of rules: their bytes are kept as long as
 * they are, and copied where they are written again. Returns them.
 */
export function keepBytes(list: readonly Expression[]): readonly Expression[] {
  for (const one of list) {
    const writer = new ByteWriter(64);
    expression.encode(writer, one);
    keptBytes.set(one, writer.finish());
  }
  return list;
}

function decodeExpression(reader: ByteReader, field: string): Expression {
  const { name, data: bytes } = decodeAttributes(reader, ENVELOPE);
  if (name === undefined) throw new MalformedBytes(`${field}: an expression has no name`);
  const content = bytes instanceof Uint8Array ? bytes : new Uint8Array();
  for (const codec of BY_NAME.get(name) ?? []) {
    const decoded = attempt(codec, content);
    if (decoded !== undefined) return decoded;
  }
  return { kind: "other", name, data: content };
}

export const expressions: ValueCodec<readonly Expression[]> = listOf(expression);

/** Only read: of a list of expressions, what the first counter has. */
export const counterAmong: ValueCodec<Counts | undefined> = {
  decode(reader) {
    let counts: Counts | undefined;
    const find: ValueCodec<undefined> = {
      decode(item) {
        if (counts !== undefined) return;
        const { name, data: bytes } = decodeAttributes(item, ENVELOPE);
        const decoded =
          name === "counter" && bytes instanceof Uint8Array ? CODECS.counter.decode(new ByteReader(bytes)) : undefined;
        if (decoded !== undefined) counts = { packets: decoded.packets ?? 0, bytes: decoded.bytes ?? 0 };
      },
      encode: () => undefined,
    };
    listOf(find).decode(reader, "expressions");
    return counts;
  },
  encode: () => undefined,
};

function attempt(codec: ExpressionCodec<Known>, bytes: Uint8Array): Expression | undefined {
  try {
    return codec.decode(new ByteReader(bytes));
  } catch (error) {
    if (error instanceof MalformedBytes) return undefined;
    throw error;
  }
}

/** The same expressions, but for counts and numbers of the transaction, which are not part of what a rule does. */
export function sameExpressions(a: readonly Expression[], b: readonly Expression[]): boolean {
  return a.length === b.length && a.every((one, at) => sameExpression(one, b[at]!));
}

export function sameExpression(a: Expression, b: Expression): boolean {
  if (a === b) return true;
  if (a.kind === "counter" && b.kind === "counter") return true;
  return sameFields(a, b);
}

const isOfTransaction = (field: string): boolean => field === "setId";

/** Fields that are absent and fields that are undefined are the same. */
function sameFields(a: object, b: object): boolean {
  const [one, other]: Record<string, unknown>[] = [{ ...a }, { ...b }];
  for (const field in one) if (!isOfTransaction(field) && !sameValue(one[field], other?.[field])) return false;
  for (const field in other)
    if (other[field] !== undefined && one?.[field] === undefined && !isOfTransaction(field)) return false;
  return true;
}

function sameValue(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (a instanceof Uint8Array || b instanceof Uint8Array) {
    if (!(a instanceof Uint8Array && b instanceof Uint8Array) || a.length !== b.length) return false;
    return a.every((byte, at) => byte === b[at]);
  }
  return sameFields(a, b);
}
