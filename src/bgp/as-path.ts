import { MalformedBytes, type ByteReader, type ByteWriter } from "../lib/bytes.ts";
import { AS_TRANS } from "./constants.ts";

/** RFC 4271 section 4.3 (b): a sequence is in order, nearest first; a set, made by aggregation, has none. */
export interface AsSegment {
  readonly type: "sequence" | "set";
  readonly asns: readonly number[];
}

export type AsPath = readonly AsSegment[];

/** Segment types (RFC 4271 section 4.3 (b)). */
export const AS_SET = 1;
const SEQUENCE = 2;
const LONGEST_SEGMENT = 255;

/** The length that the decision process compares: a set counts as one AS (RFC 4271 section 9.1.2.2 (a)). */
export function pathLength(path: AsPath): number {
  let length = 0;
  for (const segment of path) length += segment.type === "set" ? 1 : segment.asns.length;
  return length;
}

/** The AS the route was heard from, or 0 where it began in our own AS (or in a set). */
export function neighborAsn(path: AsPath): number {
  const first = path[0];
  return first?.type === "sequence" ? (first.asns[0] ?? 0) : 0;
}

export function countAsn(path: AsPath, asn: number): number {
  let count = 0;
  for (const segment of path) for (const other of segment.asns) if (other === asn) count += 1;
  return count;
}

/** RFC 4271 section 5.1.2 (b). */
export function prepend(path: AsPath, asn: number, times = 1): AsPath {
  const added = Array.from({ length: times }, () => asn);
  const [first, ...others] = path;
  if (first?.type !== "sequence") return [{ type: "sequence", asns: added }, ...path];
  return [{ type: "sequence", asns: [...added, ...first.asns] }, ...others];
}

/** `64512 64513 {64520 64521}`. */
export function formatAsPath(path: AsPath): string {
  return path.map(({ type, asns }) => (type === "set" ? `{${asns.join(" ")}}` : asns.join(" "))).join(" ");
}

/** `octets` is 4 where both sides have the four-octet AS capability (RFC 6793), else 2. */
export function decodeAsPath(reader: ByteReader, octets: 2 | 4): AsPath {
  const path: AsSegment[] = [];
  while (reader.remaining > 0) {
    const type = reader.u8("AS_PATH segment type");
    // Confederation segments (3, 4) do not belong in a session between confederations either (RFC 5065 section 5).
    if (type !== AS_SET && type !== SEQUENCE) throw new MalformedBytes(`AS_PATH segment type ${type} is not 1 or 2`);
    const count = reader.u8("AS_PATH segment length");
    if (count === 0) throw new MalformedBytes("an AS_PATH segment is empty");
    const asns: number[] = [];
    for (let i = 0; i < count; i += 1) asns.push(octets === 4 ? reader.u32("AS number") : reader.u16("AS number"));
    if (asns.includes(0)) throw new MalformedBytes("AS 0 stands in the AS_PATH (RFC 7607)");
    path.push({ type: type === AS_SET ? "set" : "sequence", asns });
  }
  return path;
}

export function encodeAsPath(writer: ByteWriter, path: AsPath, octets: 2 | 4): void {
  for (const { type, asns } of path) {
    for (let start = 0; start < asns.length; start += LONGEST_SEGMENT) {
      const part = asns.slice(start, start + LONGEST_SEGMENT);
      writer.u8(type === "set" ? AS_SET : SEQUENCE);
      writer.u8(part.length);
      for (const asn of part) {
        if (octets === 4) writer.u32(asn);
        else writer.u16(asn > 65535 ? AS_TRANS : asn);
      }
    }
  }
}

/** Whether an AS in the path does not fit in two octets, so that AS4_PATH must carry it. */
export function needsAs4(path: AsPath): boolean {
  return path.some(({ asns }) => asns.some((asn) => asn > 65535));
}

/**
 * What a speaker of two-octet numbers passed on, made whole from AS4_PATH (RFC 6793 section 4.2.3): the old speakers in
 * front of it stand only in AS_PATH. An AS4_PATH that is longer than the AS_PATH cannot be right, and is ignored.
 */
export function mergeAs4Path(path: AsPath, as4Path: AsPath): AsPath {
  let keep = pathLength(path) - pathLength(as4Path);
  if (keep < 0) return path;
  const merged: AsSegment[] = [];
  for (const segment of path) {
    if (keep === 0) break;
    const asns = segment.type === "set" ? segment.asns : segment.asns.slice(0, keep);
    keep -= segment.type === "set" ? 1 : asns.length;
    merged.push({ type: segment.type, asns });
  }
  const last = merged.at(-1);
  const [first, ...others] = as4Path;
  if (last?.type !== "sequence" || first?.type !== "sequence") return [...merged, ...as4Path];
  return [...merged.slice(0, -1), { type: "sequence", asns: [...last.asns, ...first.asns] }, ...others];
}
