import { MalformedBytes } from "../lib/bytes.ts";
import { decodeAttributes, present, raw, row, text } from "./attributes.ts";
import { CREATE, DUMP, type Message, type Request } from "./framing.ts";
import { be32, be64, inside, listOf, nameOf, nestedRow, netfilterTable } from "./nfnetlink.ts";
import { commentPiece, encodeUserData, findComment, OBJECT_TYPES, type ObjectType } from "./nftData.ts";
import { expression } from "./nftExpressionCodec.ts";
import { byteOrderNumber, fieldLengths, keyLength, type KeyType, keyTypeNumber, keyTypesOf } from "./nftKey.ts";
import { decodeTableFamily, type Listed, nftRequest, type TableName } from "./nftTable.ts";

/** Sets and maps of nf_tables: <linux/netfilter/nf_tables.h>. */

export const NEW_SET = 9;
const GET_SET = 10;
export const DELETE_SET = 11;

export interface NftSet {
  readonly table: TableName;
  readonly name: string;
  /** One type, or the types of a concatenation's fields. Empty where it is of a type that has no name here. */
  readonly key: readonly KeyType[];
  /** What a map has for each key. */
  readonly data?: "verdict" | readonly KeyType[] | { readonly object: ObjectType };
  /**
   * Elements may be ranges of keys, which must not overlap. One change costs the kernel time in proportion to all that
   * the set holds (Linux 6.18: 0.1 ms at a thousand ranges, 2 ms at ten thousand), where a set without ranges takes
   * 40 µs at any size: keep single keys in one of those.
   */
  readonly interval?: true;
  /** Rules add to it (`dynset`). */
  readonly dynamic?: true;
  /** Elements may be given a time after which they are gone. */
  readonly timeouts?: true;
  /** Milliseconds: what elements are given by default. */
  readonly timeout?: number;
  /** No more elements than that. */
  readonly size?: number;
  /** Each element counts the packets that match it. */
  readonly counter?: true;
  readonly comment?: string;
  /** Belongs to one rule, and goes with it. Its name ends in %d, for which the kernel puts a number. */
  readonly anonymous?: true;
  /** Its elements are there before its rule, and do not change. */
  readonly constant?: true;
  /** By which rules of the same transaction find one that is anonymous. */
  readonly id?: number;
}

/** NFT_SET_… */
const FLAGS = { anonymous: 0x1, constant: 0x2, interval: 0x4, timeouts: 0x10, dynamic: 0x20 } as const;
const MAP = 0x8;
const OBJECTS = 0x40;
const CONCATENATION = 0x80;

/** NFT_DATA_VERDICT */
const VERDICT_TYPE = 0xffffff00;

/** enum nftnl_udata_set_types of libnftnl */
const KEY_ORDER = 0;
const DATA_ORDER = 1;
const KEY_TYPEOF = 3;
const DATA_TYPEOF = 4;
const DATA_INTERVAL = 6;
const SET_COMMENT = 7;
/** "It is a concatenation", in the form in which `nft` remembers how a set was declared. */
const CONCATENATION_TYPEOF = Uint8Array.of(0, 4, 13, 0, 0, 0, 1, 0);

const field = netfilterTable({ length: row(1, be32) });
const DESCRIPTION = netfilterTable({ size: row(1, be32), fields: nestedRow(2, listOf(inside(field))) });

const SET = netfilterTable({
  table: row(1, text),
  name: row(2, text),
  flags: row(3, be32),
  keyType: row(4, be32),
  keyLength: row(5, be32),
  dataType: row(6, be32),
  dataLength: row(7, be32),
  objectType: row(15, be32),
  id: row(10, be32),
  description: nestedRow(9, inside(DESCRIPTION)),
  timeout: row(11, be64),
  userData: row(13, raw),
  expression: nestedRow(17, expression),
  handle: row(16, be64),
});

export function listSets(table: TableName): Request {
  return nftRequest(GET_SET, DUMP, table.family, SET, { table: table.name });
}

/** It may be there already, if it is the same. */
export function addSet(set: NftSet): Request {
  const { table, key, data, interval, size, timeout, counter, comment } = set;
  const concatenation = key.length > 1 && interval === true;
  const fields = concatenation ? fieldLengths(key).map((length) => ({ length })) : undefined;
  return nftRequest(NEW_SET, CREATE, table.family, SET, {
    table: table.name,
    name: set.name,
    flags: flagsOf(set),
    keyType: keyTypeNumber(key),
    keyLength: keyLength(key),
    ...encodeDataType(data),
    id: set.id ?? 1, // the kernel wants one
    description: size === undefined && fields === undefined ? undefined : { size, fields },
    timeout,
    userData: userDataOf(key, data, comment),
    expression: counter === true ? { kind: "counter" } : undefined,
  });
}

/** Fails with EBUSY while a rule refers to it. */
export function deleteSet({ table, name }: Pick<NftSet, "table" | "name">): Request {
  return nftRequest(DELETE_SET, 0, table.family, SET, { table: table.name, name });
}

function flagsOf(set: NftSet): number {
  let flags = set.key.length > 1 && set.interval === true ? CONCATENATION : 0;
  for (const name of Object.keys(FLAGS) as (keyof typeof FLAGS)[]) if (set[name] === true) flags |= FLAGS[name];
  if (set.data === undefined) return flags;
  return flags | (typeof set.data === "object" && "object" in set.data ? OBJECTS : MAP);
}

type DataType = NonNullable<NftSet["data"]>;

function encodeDataType(data: DataType | undefined): { dataType?: number; dataLength?: number; objectType?: number } {
  if (data === undefined) return {};
  if (data === "verdict") return { dataType: VERDICT_TYPE, dataLength: 0 };
  if ("object" in data) return { objectType: OBJECT_TYPES[data.object] };
  return { dataType: keyTypeNumber(data), dataLength: keyLength(data) };
}

function userDataOf(key: readonly KeyType[], data: DataType | undefined, comment: string | undefined): Uint8Array {
  const pieces: (readonly [number, Uint8Array])[] = [[KEY_ORDER, u32(byteOrderNumber(key))]];
  const values = data !== undefined && data !== "verdict" && !("object" in data) ? data : [];
  const hasData = data === "verdict" || values.length > 0;
  if (hasData) pieces.push([DATA_ORDER, u32(byteOrderNumber(values))]);
  if (key.length > 1) pieces.push([KEY_TYPEOF, CONCATENATION_TYPEOF]);
  if (values.length > 1) pieces.push([DATA_TYPEOF, CONCATENATION_TYPEOF]);
  if (data !== undefined) pieces.push([DATA_INTERVAL, u32(0)]);
  if (comment !== undefined) pieces.push(commentPiece(SET_COMMENT, comment));
  return encodeUserData(pieces);
}

function u32(number: number): Uint8Array {
  return Uint8Array.of(number, 0, 0, 0);
}

export function decodeSet({ body }: Message): (NftSet & Listed) | undefined {
  const family = decodeTableFamily(body);
  if (family === undefined) return undefined;
  const values = decodeAttributes(body, SET);
  const { table, name, flags = 0, keyType = 0, handle = 0, timeout, description } = values;
  if (table === undefined || name === undefined) throw new MalformedBytes("a set of nf_tables has no name");
  const set = (flag: number): true | undefined => ((flags & flag) !== 0 ? true : undefined);
  return {
    table: { family, name: table },
    name,
    handle,
    key: keyTypesOf(keyType) ?? [],
    ...present({
      data: decodeDataType(values.dataType, values.objectType),
      interval: set(FLAGS.interval),
      dynamic: set(FLAGS.dynamic),
      timeouts: set(FLAGS.timeouts),
      timeout,
      // Sets that rules add to are given a size where they have none.
      size: description?.size,
      counter: values.expression?.kind === "counter" ? (true as const) : undefined,
      comment: findComment(values.userData, SET_COMMENT),
      anonymous: set(FLAGS.anonymous),
      constant: set(FLAGS.constant),
    }),
  };
}

function decodeDataType(dataType: number | undefined, objectNumber: number | undefined): DataType | undefined {
  if (dataType === VERDICT_TYPE) return "verdict";
  if (dataType !== undefined) return keyTypesOf(dataType) ?? [];
  const object = objectNumber === undefined ? undefined : nameOf(OBJECT_TYPES, objectNumber);
  return object && { object };
}
