import { ByteReader, MalformedBytes } from "../lib/bytes.ts";
import { decodeAttributes, present, raw, row, text, type ValueCodec } from "./attributes.ts";
import { CREATE, DUMP, type Message, type Request } from "./framing.ts";
import {
  be32,
  be64,
  inside,
  named32,
  nameOf,
  nestedRow,
  netfilterTable,
  numbered,
  truth32,
  unlessZero,
} from "./nfnetlink.ts";
import { COMMENT, findComment, OBJECT_TYPES } from "./nftData.ts";
import { commentData, decodeTableFamily, type Listed, nftRequest, type TableName } from "./nftTable.ts";

/** Counters, quotas and limits that have a name in their table, so that several rules, or a map's elements, share them. */

export const NEW_OBJECT = 18;
const GET_OBJECT = 19;
export const DELETE_OBJECT = 20;

export type NftObject = {
  readonly table: TableName;
  readonly name: string;
  readonly comment?: string;
} & ObjectState;

export type ObjectState =
  | { readonly type: "counter"; readonly packets?: number; readonly bytes?: number }
  /** Matches up to so many bytes, or `over` them. */
  | { readonly type: "quota"; readonly bytes: number; readonly over: boolean; readonly consumed?: number }
  | {
      readonly type: "limit";
      readonly unit: "packets" | "bytes";
      readonly rate: number;
      /** Seconds. */
      readonly per: number;
      readonly burst?: number;
      readonly over: boolean;
    };

/** Of expressions too. */
export const COUNTER_ROWS = { bytes: row(1, be64), packets: row(2, be64) };
export const LIMIT_ROWS = {
  rate: row(1, be64),
  per: row(2, be64),
  burst: row(3, unlessZero(be32)),
  type: row(4, named32(numbered(["packets", "bytes"]))),
  over: row(5, truth32),
};

const COUNTER = netfilterTable(COUNTER_ROWS);
const QUOTA = netfilterTable({ bytes: row(1, be64), consumed: row(4, be64), over: row(2, truth32) });
const LIMIT = netfilterTable(LIMIT_ROWS);

/** Read as bytes, since the type says what they are. */
const state: ValueCodec<Uint8Array | ObjectState | "none"> = {
  decode: (reader) => reader.rest().slice(),
  encode(writer, item) {
    if (item instanceof Uint8Array || item === "none") return;
    switch (item.type) {
      case "counter":
        return inside(COUNTER).encode(writer, item);
      case "quota":
        return inside(QUOTA).encode(writer, { ...item, consumed: item.consumed ?? 0 });
      case "limit":
        return inside(LIMIT).encode(writer, { ...item, type: item.unit });
    }
  },
};

const OBJECT = netfilterTable({
  table: row(1, text),
  name: row(2, text),
  type: row(3, be32),
  userData: row(8, raw),
  state: nestedRow(4, state),
  handle: row(6, be64),
});

export function listObjects(table: TableName): Request {
  return nftRequest(GET_OBJECT, DUMP, table.family, OBJECT, { table: table.name });
}

/** It may be there already, and keeps its counts then; of a limit or a quota, its bounds are changed. */
export function addObject(object: NftObject): Request {
  const { table, name, comment, type } = object;
  const values = { table: table.name, name, type: OBJECT_TYPES[type], state: object, userData: commentData(comment) };
  return nftRequest(NEW_OBJECT, CREATE, table.family, OBJECT, values);
}

/** Fails with EBUSY while a rule or an element refers to it. */
export function deleteObject({ table, name, type }: Pick<NftObject, "table" | "name" | "type">): Request {
  return nftRequest(DELETE_OBJECT, 0, table.family, OBJECT, {
    table: table.name,
    name,
    type: OBJECT_TYPES[type],
    state: "none",
  });
}

/** Undefined for types that have no form here. */
export function decodeObject({ body }: Message): (NftObject & Listed) | undefined {
  const family = decodeTableFamily(body);
  if (family === undefined) return undefined;
  const { table, name, type: number = 0, state: bytes, handle = 0, userData } = decodeAttributes(body, OBJECT);
  if (table === undefined || name === undefined) throw new MalformedBytes("an object of nf_tables has no name");
  const type = nameOf(OBJECT_TYPES, number);
  if (type === undefined || !(bytes instanceof Uint8Array)) return undefined;
  const comment = present({ comment: findComment(userData, COMMENT) });
  return { table: { family, name: table }, name, handle, ...decodeState[type](new ByteReader(bytes)), ...comment };
}

const decodeState: { readonly [Type in ObjectState["type"]]: (reader: ByteReader) => ObjectState } = {
  counter: (reader) => ({ type: "counter", ...present(decodeAttributes(reader, COUNTER)) }),
  quota(reader) {
    const { bytes = 0, over = false, consumed = 0 } = decodeAttributes(reader, QUOTA);
    return { type: "quota", bytes, over, consumed };
  },
  limit(reader) {
    const { rate = 0, per = 0, burst, type = "packets", over = false } = decodeAttributes(reader, LIMIT);
    return { type: "limit", unit: type, rate, per, over, ...present({ burst }) };
  },
};
