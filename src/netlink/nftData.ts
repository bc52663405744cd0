import { MalformedBytes } from "../lib/bytes.ts";
import { raw, row, text, type ValueCodec } from "./attributes.ts";
import { inside, named32, nestedRow, netfilterTable, signed32 } from "./nfnetlink.ts";

/** What expressions compute with and sets hold: registers, values and verdicts, <linux/netfilter/nf_tables.h>. */

/**
 * Where a value of 4 bytes is kept: a rule has sixteen, numbered from 0; a longer value takes the ones after it too.
 * `verdict` is the register that says what becomes of the packet.
 */
export type Register = number | "verdict";

const REGISTERS = 16;
/** NFT_REG_1 to NFT_REG_4 have 16 bytes each, and NFT_REG32_00 begins the same 64 bytes again in pieces of 4. */
const FIRST_OF_16 = 1;
const FIRST_OF_4 = 8;

/** The kernel names a register by its bigger name wherever it has one, and so do `nft` and we. */
export const register: ValueCodec<Register> = {
  decode(reader, field) {
    const number = reader.u32(field);
    if (number === 0) return "verdict";
    const slot = number < FIRST_OF_4 ? (number - FIRST_OF_16) * 4 : number - FIRST_OF_4;
    if (slot >= REGISTERS) throw new MalformedBytes(`${field}: there is no register ${number}`);
    return slot;
  },
  encode(writer, value) {
    if (value === "verdict") return writer.u32(0);
    if (value < 0 || value >= REGISTERS) throw new MalformedBytes(`there is no register of 4 bytes number ${value}`);
    writer.u32(value % 4 === 0 ? FIRST_OF_16 + value / 4 : FIRST_OF_4 + value);
  },
};

/** What becomes of a packet. `continue` goes on with the next rule, as does a rule without a verdict. */
export type Verdict =
  | { readonly kind: "accept" | "drop" | "continue" | "break" | "return" | "stolen" | "queue" | "repeat" }
  /** `goto` does not come back. */
  | { readonly kind: "jump" | "goto"; readonly chain: string };

/** NF_… of <linux/netfilter.h>, NFT_… of nf_tables.h */
const VERDICTS = {
  drop: 0,
  accept: 1,
  stolen: 2,
  queue: 3,
  repeat: 4,
  continue: -1,
  break: -2,
  jump: -3,
  goto: -4,
  return: -5,
} as const;
const CODE: ValueCodec<keyof typeof VERDICTS> = {
  decode(reader, field) {
    const number = signed32.decode(reader, field);
    const kind = (Object.keys(VERDICTS) as (keyof typeof VERDICTS)[]).find((name) => VERDICTS[name] === number);
    if (kind === undefined) throw new MalformedBytes(`${field}: there is no verdict ${number}`);
    return kind;
  },
  encode: (writer, kind) => signed32.encode(writer, VERDICTS[kind]),
};
const VERDICT = netfilterTable({ code: row(1, CODE), chain: row(2, text) });

export const verdict: ValueCodec<Verdict> = {
  decode(reader, field) {
    const { code, chain } = inside(VERDICT).decode(reader, field);
    if (code === undefined) throw new MalformedBytes(`${field}: a verdict has no code`);
    if (code !== "jump" && code !== "goto") return { kind: code };
    if (chain === undefined) throw new MalformedBytes(`${field}: a ${code} names no chain`);
    return { kind: code, chain };
  },
  encode(writer, value) {
    const chain = value.kind === "jump" || value.kind === "goto" ? value.chain : undefined;
    inside(VERDICT).encode(writer, { code: value.kind, chain });
  },
};

/** A value as its bytes, in the order that its type has, or a verdict. */
export type Data = { readonly value: Uint8Array } | { readonly verdict: Verdict };

const DATA = netfilterTable({ value: row(1, raw), verdict: nestedRow(2, verdict) });

export const data: ValueCodec<Data> = {
  decode(reader, field) {
    const { value, verdict: decided } = inside(DATA).decode(reader, field);
    if (decided !== undefined) return { verdict: decided };
    if (value === undefined) throw new MalformedBytes(`${field}: neither a value nor a verdict`);
    return { value };
  },
  encode: (writer, value) => inside(DATA).encode(writer, value),
};

/** Where only a value can be. */
export const value: ValueCodec<Uint8Array> = {
  decode(reader, field) {
    const { value: bytes } = inside(DATA).decode(reader, field);
    if (bytes === undefined) throw new MalformedBytes(`${field}: has no value`);
    return bytes;
  },
  encode: (writer, bytes) => inside(DATA).encode(writer, { value: bytes }),
};

/** NFT_OBJECT_…: what a table can keep under a name, besides chains and sets. */
export const OBJECT_TYPES = { counter: 1, quota: 2, limit: 4 } as const;
export type ObjectType = keyof typeof OBJECT_TYPES;
export const objectType: ValueCodec<ObjectType> = named32(OBJECT_TYPES);

/**
 * What the kernel keeps for us with tables, chains, rules, sets and elements, in the form that `nft` gives it: pieces of
 * a type, a length and a value, with a byte each for type and length (struct nftnl_udata of libnftnl).
 */
export function encodeUserData(pieces: readonly (readonly [type: number, value: Uint8Array])[]): Uint8Array {
  return Uint8Array.from(
    pieces.flatMap(([type, bytes]) => {
      if (bytes.length > 255) throw new MalformedBytes(`user data of ${bytes.length} bytes: at most 255 are kept`);
      return [type, bytes.length, ...bytes];
    }),
  );
}

/** The value of the first piece of the type. What is no user data of this form has none. */
export function findUserData(bytes: Uint8Array | undefined, type: number): Uint8Array | undefined {
  if (bytes === undefined) return undefined;
  for (let at = 0; at + 2 <= bytes.length;) {
    const length = bytes[at + 1] ?? 0;
    if (bytes[at] === type) return bytes.subarray(at + 2, at + 2 + length);
    at += 2 + length;
  }
  return undefined;
}

/** A comment is a piece of text with a zero byte at its end. `nft` takes 128 bytes at most. */
export function commentPiece(type: number, comment: string): readonly [type: number, value: Uint8Array] {
  return [type, new TextEncoder().encode(`${comment}\0`)];
}

export function findComment(bytes: Uint8Array | undefined, type: number): string | undefined {
  const piece = findUserData(bytes, type);
  if (piece === undefined) return undefined;
  const end = piece.indexOf(0);
  return new TextDecoder().decode(end < 0 ? piece : piece.subarray(0, end));
}

/** The type of the piece that holds the comment of a table, chain, rule, element or object; sets have another. */
export const COMMENT = 0;
