import { ByteReader, ByteWriter, MalformedBytes } from "../lib/bytes.ts";
import { decodeAttributes, encodeAttributes, present, raw, row, text, type ValueCodec } from "./attributes.ts";
import { CREATE, DUMP, type Message, type Request } from "./framing.ts";
import { be32, be64, inside, nestedRow, netfilterTable } from "./nfnetlink.ts";
import { type BareElement, decodeBareElement, encodeBareElement } from "./nftBareElement.ts";
import { COMMENT, commentPiece, type Data, data, encodeUserData, findComment, value } from "./nftData.ts";
import type { Expression } from "./nftExpression.ts";
import { expression } from "./nftExpressionCodec.ts";
import { formatKey, type KeyRange } from "./nftKey.ts";
import type { NftSet } from "./nftSet.ts";
import { decodeTableFamily, nftRequest, type TableName } from "./nftTable.ts";

/** Elements of sets and maps: <linux/netfilter/nf_tables.h>. */

export const NEW_ELEMENT = 12;
const GET_ELEMENT = 13;
export const DELETE_ELEMENT = 14;

export interface Element extends KeyRange {
  /** What a map has for the key, or the keys of the range. */
  readonly data?: Data;
  /** The same in a map of objects. */
  readonly object?: string;
  readonly comment?: string;
  /** Milliseconds that it stays, from when it was added. */
  readonly timeout?: number;
  /** In a list only: milliseconds until it is gone. */
  readonly expires?: number;
  /** In sets whose elements count. */
  readonly counter?: { readonly packets: number; readonly bytes: number };
}

/** What the form of a set's elements depends on. */
export type SetOfElements = Pick<NftSet, "table" | "name" | "key" | "interval" | "id">;

const INTERVAL_END = 1;
/** The piece of user data by which `nft` knows a range without an end (NFTNL_UDATA_SET_ELEM_FLAGS). */
const OPEN_RANGE: readonly [number, Uint8Array] = [1, Uint8Array.of(1, 0, 0, 0)];

const ELEMENT = netfilterTable({
  flags: row(3, be32),
  timeout: row(4, be64),
  expires: row(5, be64),
  key: nestedRow(1, value),
  last: nestedRow(10, value),
  data: nestedRow(2, data),
  userData: row(6, raw),
  object: row(9, text),
  expression: nestedRow(7, expression),
});
/** One of a message's elements. */
export const element: ValueCodec<WireElement> = inside(ELEMENT);
/** All of a message's, with a way around the table for those that are bare. */
const elementList: ValueCodec<readonly WireElement[]> = {
  decode(reader, field) {
    const { bytes } = reader;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const elements: WireElement[] = [];
    while (reader.remaining >= ITEM_HEADER) {
      const length = reader.u16le("length of an element");
      reader.skip(2, "type of an element");
      const start = reader.offset;
      const item = reader.take(length - ITEM_HEADER, "element");
      const bare = decodeBareElement(view, bytes, start, reader.offset);
      elements.push(bare ?? element.decode(new ByteReader(bytes, start, start + item.length), field));
      reader.skip(Math.min(-length & 3, reader.remaining), "padding");
    }
    return elements;
  },
  encode(writer, elements) {
    for (const one of elements) encodeItem(writer, one);
  },
};

function encodeItem(writer: ByteWriter, item: WireElement): void {
  const start = writer.reserve(ITEM_HEADER);
  if (isBare(item)) encodeBareElement(writer, item);
  else encodeAttributes(writer, ELEMENT, item);
  writer.patchU16le(start, writer.length - start);
  writer.patchU16le(start + 2, LIST_ELEMENT);
}

function isBare(item: WireElement): item is BareElement {
  const { key, timeout, expires, data: mapped, object, userData, expression: counter } = item;
  return key !== undefined && (timeout ?? expires ?? mapped ?? object ?? userData ?? counter) === undefined;
}

const ITEM_HEADER = 4;
/** NFTA_LIST_ELEM, nested. */
const LIST_ELEMENT = 0x8001;

const HEADER = { table: row(1, text), set: row(2, text), setId: row(4, be32) };
/** The elements as they were written already. */
const WRITTEN = netfilterTable({ ...HEADER, elements: nestedRow(3, raw) });
const READ = netfilterTable({ ...HEADER, elements: nestedRow(3, elementList) });

/** An attribute's length has 16 bits, and one element has far less than the difference. */
const CHUNK = 60_000;

export function listElements({ table, name }: Pick<NftSet, "table" | "name">): Request {
  return nftRequest(GET_ELEMENT, DUMP, table.family, READ, { table: table.name, set: name });
}

/**
 * In as many messages as it takes. Elements that are there already are no failure, unless what a map has for them
 * differs (EBUSY), or ranges overlap (EEXIST, ENOTEMPTY).
 */
export function addElements(set: SetOfElements, elements: readonly Element[]): Request[] {
  return write(NEW_ELEMENT, CREATE, set, elements);
}

/** By their keys alone, which are whole ranges where they were added as such. Fails with ENOENT. */
export function deleteElements(set: SetOfElements, elements: readonly KeyRange[]): Request[] {
  return write(
    DELETE_ELEMENT,
    0,
    set,
    elements.map(({ key, last }) => ({ key, ...present({ last }) })),
  );
}

/** Deletes every element, and keeps the set. */
export function flushSet({ table, name }: Pick<NftSet, "table" | "name">): Request {
  return nftRequest(DELETE_ELEMENT, 0, table.family, READ, { table: table.name, set: name });
}

function write(operation: number, flags: number, set: SetOfElements, elements: readonly Element[]): Request[] {
  const header = { table: set.table.name, set: set.name, setId: set.id };
  return chunks(set, elements, operation === NEW_ELEMENT).map((bytes) =>
    nftRequest(operation, flags, set.table.family, WRITTEN, { ...header, elements: bytes }),
  );
}

/**
 * Elements as they will be sent, in pieces that fit a message each: a tenth of the room that they take as objects, which
 * counts where a quarter of a million of them wait for their transaction.
 */
export interface WrittenElements {
  readonly count: number;
  readonly pieces: readonly Uint8Array[];
}

/** For a set of the form. */
export function writeElements(set: SetOfElements, elements: Iterable<Element>): WrittenElements {
  let count = 0;
  function* counted(): Generator<Element> {
    for (const one of elements) {
      count += 1;
      yield one;
    }
  }
  const pieces = chunks(set, counted(), true);
  return { count, pieces };
}

/**
 * As `addElements`. A set that has a number is one that the same transaction makes, and is not named: by its name the
 * kernel would look through all sets that there are, which with 10,000 of them takes longer than all else.
 */
export function addWrittenElements(set: SetOfElements, { pieces }: WrittenElements): Request[] {
  const name = set.id === undefined ? set.name : undefined;
  const header = { table: set.table.name, set: name, setId: set.id };
  return pieces.map((bytes) =>
    nftRequest(NEW_ELEMENT, CREATE, set.table.family, WRITTEN, { ...header, elements: bytes }),
  );
}

/** One does for all elements, as nothing here awaits. */
const writer = new ByteWriter(1024);

function chunks(set: SetOfElements, elements: Iterable<Element>, adding: boolean): Uint8Array[] {
  const done: Uint8Array[] = [];
  writer.clear();
  const put = (wire: WireElement): void => encodeItem(writer, wire);
  for (const one of elements) {
    if (writer.length > CHUNK) {
      done.push(writer.finish());
      writer.clear();
    }
    toWire(set, one, adding, put);
  }
  if (writer.length > 0) done.push(writer.finish());
  return done;
}

/** As the kernel has it: a range is two elements, unless it is of a concatenation. */
interface WireElement {
  readonly flags?: number | undefined;
  readonly timeout?: number | undefined;
  readonly expires?: number | undefined;
  readonly key?: Uint8Array | undefined;
  readonly last?: Uint8Array | undefined;
  readonly data?: Data | undefined;
  readonly object?: string | undefined;
  readonly userData?: Uint8Array | undefined;
  readonly expression?: Expression | undefined;
}

function toWire(set: SetOfElements, item: Element, adding: boolean, put: (wire: WireElement) => void): void {
  const { key, last = key, comment, counter, timeout, data: mapped, object } = item;
  if (set.interval !== true && item.last !== undefined) {
    throw new MalformedBytes(`set ${set.name} has no ranges, and cannot take ${formatKey(set.key, item)}`);
  }
  // A key alone, as there may be a quarter of a million.
  if (set.interval !== true && (comment ?? counter ?? timeout ?? mapped ?? object) === undefined) return put({ key });
  const single = set.interval === true && set.key.length < 2;
  const end = single ? next(last) : undefined;
  const open = single && adding && end === undefined;
  const pieces = [...(comment === undefined ? [] : [commentPiece(COMMENT, comment)]), ...(open ? [OPEN_RANGE] : [])];
  put({
    timeout,
    key,
    last: set.interval === true && !single && (adding || item.last !== undefined) ? last : undefined,
    data: mapped,
    object,
    userData: pieces.length === 0 ? undefined : encodeUserData(pieces),
    expression: counter && { kind: "counter", ...counter },
  });
  // The end is the first key that is not in the range; the range up to the highest key of all has none.
  if (end !== undefined) put({ flags: INTERVAL_END, key: end });
}

/** The bytes as a number in network order, plus one; undefined where there is no higher number of that length. */
function next(bytes: Uint8Array): Uint8Array | undefined {
  const higher = bytes.slice();
  for (let at = higher.length - 1; at >= 0; at -= 1) {
    higher[at] = (higher[at]! + 1) & 0xff;
    if (higher[at] !== 0) return higher;
  }
  return undefined;
}

function previous(bytes: Uint8Array): Uint8Array {
  const lower = bytes.slice();
  for (let at = lower.length - 1; at >= 0; at -= 1) {
    lower[at] = (lower[at]! - 1) & 0xff;
    if (lower[at] !== 0xff) break;
  }
  return lower;
}

/** What one message of a list, or of a notification, has of a set. Ranges are put together by `elementsOf`. */
export interface ElementMessage {
  readonly table: TableName;
  readonly set: string;
  readonly elements: readonly WireElement[];
}

export function decodeElements({ body }: Message): ElementMessage | undefined {
  const family = decodeTableFamily(body);
  if (family === undefined) return undefined;
  const { table, set, elements = [] } = decodeAttributes(body, READ);
  if (table === undefined || set === undefined) throw new MalformedBytes("elements of nf_tables have no set");
  return { table: { family, name: table }, set, elements };
}

/** The elements of a set that one or more messages told of: in ascending order of their keys where it has ranges. */
export function elementsOf(
  set: Pick<NftSet, "key" | "interval">,
  messages: readonly Pick<ElementMessage, "elements">[],
): Element[] {
  const wires = messages.flatMap(({ elements }) => elements);
  if (set.interval !== true || set.key.length > 1) return wires.map((wire) => fromWire(wire, wire.last));
  // The end of a range comes before the beginning of the next where they are the same key.
  const sorted = wires.toSorted((a, b) => compareBytes(keyOf(a), keyOf(b)) || Number(isEnd(b)) - Number(isEnd(a)));
  return sorted.flatMap((wire, at) => {
    if (isEnd(wire)) return [];
    const following = sorted[at + 1];
    const key = keyOf(wire);
    const last = following === undefined ? key.map(() => 0xff) : previous(keyOf(following));
    return [fromWire(wire, last)];
  });
}

const keyOf = ({ key = new Uint8Array() }: WireElement): Uint8Array => key;
const isEnd = ({ flags = 0 }: WireElement): boolean => (flags & INTERVAL_END) !== 0;

function fromWire(wire: WireElement, end: Uint8Array | undefined): Element {
  const key = keyOf(wire);
  const last = end === undefined || compareBytes(end, key) === 0 ? undefined : end;
  const counts = wire.expression?.kind === "counter" ? wire.expression : undefined;
  const counter = counts && { packets: counts.packets ?? 0, bytes: counts.bytes ?? 0 };
  if (isBare(wire)) return last === undefined ? { key } : { key, last };
  const { data: mapped, object, timeout, expires, userData } = wire;
  return {
    key,
    ...present({ last, data: mapped, object, comment: findComment(userData, COMMENT), timeout, expires, counter }),
  };
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let at = 0; at < a.length && at < b.length; at += 1) {
    if (a[at] !== b[at]) return a[at]! - b[at]!;
  }
  return a.length - b.length;
}
