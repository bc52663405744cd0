import { ByteReader, MalformedBytes, type ByteWriter } from "../lib/bytes.ts";
import { mergeAs4Path, needsAs4 } from "./as-path.ts";
import {
  ATTRIBUTES,
  EXTENDED_LENGTH,
  MP_REACH,
  MP_UNREACH,
  OPTIONAL,
  PARTIAL,
  TRANSITIVE,
  type AttributeContext,
  type Fields,
  type PathAttributes,
  type UnknownAttribute,
} from "./attributes.ts";
import { AS_TRANS } from "./constants.ts";
import { notification, ProtocolError, UPDATE_ERROR } from "./notification.ts";

type Field = keyof Fields;
/** A path being read: rows fill it in, in the order of the message. */
type Draft = { -readonly [F in Field]?: Fields[F] } & { unknown?: UnknownAttribute[] };

const FIELD_OF_CODE: ReadonlyMap<number, Field> = new Map(
  (Object.keys(ATTRIBUTES) as Field[]).map((field) => [ATTRIBUTES[field].code, field]),
);
const FIELDS = [...FIELD_OF_CODE.values()];

/** Where one attribute lies in the bytes of the list. */
export interface RawAttribute {
  readonly code: number;
  readonly flags: number;
  /** Of its header. */
  readonly start: number;
  /** Of its value. */
  readonly value: number;
  readonly end: number;
}

/** The attributes one after the other, and why the rest cannot be found where a length is wrong. */
export interface AttributeHeaders {
  readonly headers: readonly RawAttribute[];
  readonly overrun?: string;
}

/** Reads only the headers. RFC 7606 section 4: a length that runs past the end costs the routes, not the session. */
export function scanAttributes(bytes: Uint8Array, start: number, end: number): AttributeHeaders {
  const headers: RawAttribute[] = [];
  let at = start;
  while (at < end) {
    const flags = bytes[at]!;
    const extended = (flags & EXTENDED_LENGTH) !== 0;
    const value = at + (extended ? 4 : 3);
    if (value > end) return { headers, overrun: `an attribute header is cut short after ${end - at} bytes` };
    const code = bytes[at + 1]!;
    const length = extended ? (bytes[at + 2]! << 8) | bytes[at + 3]! : bytes[at + 2]!;
    if (value + length > end) {
      return { headers, overrun: `attribute ${code}: need ${length} bytes, have ${end - value}` };
    }
    headers.push({ code, flags, start: at, value, end: value + length });
    at = value + length;
  }
  return { headers };
}

export interface DecodedAttributes {
  readonly attributes: PathAttributes;
  /** The routes of this message count as withdrawn, because of this (RFC 7606 section 2). */
  readonly withdraw?: string;
  /** Attributes left out because of what was wrong with them. */
  readonly discarded: readonly string[];
}

/**
 * Reads the attributes that `scanAttributes` found, but for the two of RFC 4760 that carry prefixes. Several errors cost
 * what the worst of them costs (RFC 7606 section 3 (h)). Throws `ProtocolError` where the session must end.
 */
export function decodeAttributes(
  bytes: Uint8Array,
  { headers, overrun }: AttributeHeaders,
  context: AttributeContext,
): DecodedAttributes {
  const draft: Draft = {};
  const discarded: string[] = [];
  const seen = new Set<number>();
  let withdraw = overrun;
  for (const { code, flags, value, end } of headers) {
    if (code === MP_REACH || code === MP_UNREACH) continue;
    // RFC 7606 section 3 (g): the first of several counts.
    if (seen.has(code)) {
      discarded.push(`attribute ${code} stands more than once`);
      continue;
    }
    seen.add(code);
    const field = FIELD_OF_CODE.get(code);
    if (field === undefined) {
      // A copy, which a Buffer's own slice would not be: it would keep all that was read with it.
      keepUnknown(draft, code, flags, Uint8Array.from(bytes.subarray(value, end)));
      continue;
    }
    const row = ATTRIBUTES[field];
    if (((flags ^ row.flags) & (OPTIONAL | TRANSITIVE)) !== 0) {
      withdraw ??= `${row.name}: flags ${hex(flags)} instead of ${hex(row.flags)}`;
      continue;
    }
    if (row.internalOnly && !context.internal) {
      discarded.push(`${row.name} does not belong in eBGP`);
      continue;
    }
    try {
      read(draft, field, new ByteReader(bytes, value, end), context);
    } catch (thrown) {
      if (!(thrown instanceof MalformedBytes)) throw thrown;
      if (row.penalty === "discard") discarded.push(thrown.message);
      else withdraw ??= `${row.name}: ${thrown.message}`;
    }
  }
  const attributes = finish(draft, context);
  return { attributes, discarded, ...(withdraw !== undefined && { withdraw }) };
}

/** What is missing though every route must have it (RFC 4271 section 5, RFC 7606 section 3 (d)). */
export function missingAttribute(
  headers: readonly RawAttribute[],
  needsNextHop: boolean,
  context: AttributeContext,
): string | undefined {
  const has = ({ code }: { code: number }): boolean => headers.some((header) => header.code === code);
  const { origin, asPath, nextHop, localPref } = ATTRIBUTES;
  const needed = [origin, asPath, ...(needsNextHop ? [nextHop] : []), ...(context.internal ? [localPref] : [])];
  const missing = needed.find((row) => !has(row));
  return missing === undefined ? undefined : `${missing.name} is missing`;
}

/** Writes every attribute but those of RFC 4760, in ascending order of code. */
export function encodeAttributes(
  writer: ByteWriter,
  attributes: PathAttributes,
  context: AttributeContext,
  withNextHop: boolean,
): void {
  const unknown = attributes.unknown?.toSorted((a, b) => a.code - b.code) ?? [];
  const fields: Fields = context.asOctets === 4 ? attributes : { ...attributes, ...repairs(attributes) };
  let next = 0;
  for (const field of FIELDS) {
    const row = ATTRIBUTES[field];
    for (; next < unknown.length && unknown[next]!.code < row.code; next += 1) writeUnknown(writer, unknown[next]!);
    if (field === "nextHop" && !withNextHop) continue;
    if (row.internalOnly && !context.internal) continue;
    write(writer, field, fields, context);
  }
  for (; next < unknown.length; next += 1) writeUnknown(writer, unknown[next]!);
}

/** Writes one attribute; its length takes two bytes only where it must. */
export function writeAttribute(writer: ByteWriter, flags: number, code: number, value: Uint8Array): void {
  const extended = value.length > 255;
  writer.u8(extended ? flags | EXTENDED_LENGTH : flags & ~EXTENDED_LENGTH);
  writer.u8(code);
  if (extended) writer.u16(value.length);
  else writer.u8(value.length);
  writer.raw(value);
}

function read<F extends Field>(
  draft: { -readonly [K in F]?: Fields[K] },
  field: F,
  reader: ByteReader,
  context: AttributeContext,
): void {
  draft[field] = ATTRIBUTES[field].decode(reader, context);
}

function write<F extends Field>(writer: ByteWriter, field: F, fields: Fields, context: AttributeContext): void {
  const value = fields[field];
  if (value === undefined) return;
  const row = ATTRIBUTES[field];
  const start = writer.length;
  writer.u8(row.flags);
  writer.u8(row.code);
  const length = writer.reserve(1);
  row.encode(writer, value, context);
  const size = writer.length - length - 1;
  if (size <= 255) return writer.patchU8(length, size);
  // Rare: once more, with two bytes for the length.
  writer.length = start;
  writer.u8(row.flags | EXTENDED_LENGTH);
  writer.u8(row.code);
  writer.u16(size);
  row.encode(writer, value, context);
}

/** RFC 4271 section 5: not understood and transitive is passed on, marked as partial; not transitive is dropped. */
function keepUnknown(draft: Draft, code: number, flags: number, value: Uint8Array): void {
  if ((flags & OPTIONAL) === 0) {
    throw new ProtocolError(
      notification(UPDATE_ERROR.code, UPDATE_ERROR.unrecognizedWellKnown),
      `attribute ${code} claims to be well-known (flags ${hex(flags)}), but is not`,
    );
  }
  if ((flags & TRANSITIVE) === 0) return;
  draft.unknown ??= [];
  draft.unknown.push({ code, flags: (flags | PARTIAL) & ~EXTENDED_LENGTH, value });
}

/** Joins what a two-octet speaker had to split (RFC 6793 section 4.2.3), and stands in for what is missing. */
function finish({ as4Path, as4Aggregator, ...draft }: Draft, { asOctets }: AttributeContext): PathAttributes {
  const attributes = { ...draft, origin: draft.origin ?? "incomplete", asPath: draft.asPath ?? [] };
  if (asOctets === 4) return attributes;
  // An aggregator that did not know of four octets has also left AS4_PATH behind the times.
  if (as4Aggregator !== undefined && draft.aggregator !== undefined) {
    if (draft.aggregator.asn !== AS_TRANS) return attributes;
    attributes.aggregator = as4Aggregator;
  }
  if (as4Path !== undefined) attributes.asPath = mergeAs4Path(attributes.asPath, as4Path);
  return attributes;
}

/** What goes beside the two-octet forms, so that four-octet numbers survive (RFC 6793 section 4.2.2). */
function repairs({ asPath, aggregator }: PathAttributes): Pick<Fields, "as4Path" | "as4Aggregator"> {
  return {
    ...(needsAs4(asPath) && { as4Path: asPath }),
    ...(aggregator !== undefined && aggregator.asn > 65535 && { as4Aggregator: aggregator }),
  };
}

function writeUnknown(writer: ByteWriter, { code, flags, value }: UnknownAttribute): void {
  writeAttribute(writer, flags, code, value);
}

function hex(flags: number): string {
  return `0x${flags.toString(16).padStart(2, "0")}`;
}
