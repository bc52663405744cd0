import { addressToBytes } from "../ip/address.ts";
import { listStart } from "./attribute-bytes.ts";
import { DEFAULT_LOCAL_PREF } from "./attribute-table.ts";
import { ATTRIBUTES, EXTENDED_LENGTH, WELL_KNOWN } from "./attributes.ts";
import { AFI, SAFI_UNICAST } from "./constants.ts";
import { LOCAL_PEER, type RibPeer } from "./decision.ts";
import { givesOwnNextHop, reflects, type ExportPolicy } from "./export-policy.ts";

// The fast form of `exportRefusal`, `exportAttributes` and `encodeForPacking` where filters change nothing: from the
// canonical form (`attribute-bytes.ts`) to what is packed into messages, byte for byte what those three would make of it.

/** What is packed: two bytes that say how long the beginning of MP_REACH_NLRI is, that, and the list of attributes. */
export const PACKED_HEADER = 2;
/** In place of a length: the peers are not told. */
export const REFUSED = 0;
/** In place of a length: to be worked out from the decoded attributes. */
export const NOT_PLAIN = -1;

/** Writes into `out` what is told of attributes that came from `source`; returns the length, `REFUSED` or `NOT_PLAIN`. */
export type ExportBytes = (
  bytes: Uint8Array,
  start: number,
  length: number,
  source: RibPeer,
  out: Uint8Array,
) => number;

const { asPath, nextHop, med, localPref, communities, originatorId, clusterList } = ATTRIBUTES;
const AS_SEQUENCE = 2;

export function exportBytesOf(policy: ExportPolicy): ExportBytes {
  const { family, internal, asOctets, clusterId, localAsn, extendedNextHop, ownNextHop, gracefulShutdown } = policy;
  if (asOctets !== 4 || gracefulShutdown) return () => NOT_PLAIN;
  const ownBytes = ownNextHop === undefined ? undefined : addressToBytes(ownNextHop);
  return (bytes, start, length, source, out) => {
    const end = start + length;
    const local = source.index === LOCAL_PEER;
    const learnedInside = !local && source.internal;
    if (learnedInside && internal && !reflects(source, policy)) return REFUSED;
    const list = listStart(bytes, start);

    // Which next hop, and where it stands.
    let hop = ownBytes;
    let hopAt = 0;
    let hopLength = ownBytes?.length ?? 0;
    if (!givesOwnNextHop(source, policy)) {
      hop = bytes;
      hopAt = list > start + 1 ? start + 1 : valueOf(bytes, list, end, nextHop.code);
      hopLength = list > start + 1 ? 16 : 4;
      if (hopAt === 0) return NOT_PLAIN;
    }
    if (hop === undefined) return REFUSED;
    if (family === 4 ? hopLength === 16 && !extendedNextHop : hopLength === 4) return REFUSED;
    const inReach = hopLength === 16;

    let to = PACKED_HEADER;
    if (inReach) {
      out[to] = 0;
      out[to + 1] = AFI[family];
      out[to + 2] = SAFI_UNICAST;
      out[to + 3] = hopLength;
      to = copy(hop, hopAt, hopAt + hopLength, out, to + 4);
      out[to] = 0;
      to += 1;
    }
    out[0] = 0;
    out[1] = to - PACKED_HEADER;

    const reflected = internal && learnedInside;
    let hasLocalPref = !internal;
    let hasOriginator = !reflected;
    let hasClusters = !reflected;
    for (let at = list; at < end;) {
      const code = bytes[at + 1]!;
      const extended = (bytes[at]! & EXTENDED_LENGTH) !== 0;
      const value = at + (extended ? 4 : 3);
      const next = value + (extended ? (bytes[at + 2]! << 8) | bytes[at + 3]! : bytes[at + 2]!);
      // What every route has from us comes in its place.
      if (!hasLocalPref && code >= localPref.code) {
        if (code > localPref.code) to = writeWord(out, to, localPref, DEFAULT_LOCAL_PREF);
        hasLocalPref = true;
      }
      if (!hasOriginator && code >= originatorId.code) {
        if (code > originatorId.code) to = writeWord(out, to, originatorId, source.routerId);
        hasOriginator = true;
      }
      if (!hasClusters && code > clusterList.code) {
        to = writeWord(out, to, clusterList, clusterId);
        hasClusters = true;
      }
      switch (code) {
        case asPath.code:
          if (internal) to = copy(bytes, at, next, out, to);
          else {
            if (bytes[value] === AS_SEQUENCE && bytes[value + 1] === 255 && next > value) return NOT_PLAIN;
            to = writePrepended(bytes, value, next, localAsn, out, to);
          }
          if (inReach) break;
          to = writeHeader(out, to, nextHop, 4);
          to = copy(hop, hopAt, hopAt + 4, out, to);
          break;
        case nextHop.code:
          break;
        case med.code:
          if (internal || local) to = copy(bytes, at, next, out, to);
          break;
        case localPref.code:
          if (internal) to = copy(bytes, at, next, out, to);
          break;
        case communities.code:
          if (isKeptBack(bytes, value, next, internal)) return REFUSED;
          to = copy(bytes, at, next, out, to);
          break;
        case originatorId.code:
          if (internal) to = copy(bytes, at, next, out, to);
          break;
        case clusterList.code:
          if (!internal) break;
          if (!reflected) to = copy(bytes, at, next, out, to);
          else {
            to = writeHeader(out, to, clusterList, next - value + 4);
            to = copy(bytes, value, next, out, putWord(out, to, clusterId));
          }
          hasClusters = true;
          break;
        default:
          to = copy(bytes, at, next, out, to);
      }
      at = next;
    }
    if (!hasLocalPref) to = writeWord(out, to, localPref, DEFAULT_LOCAL_PREF);
    if (!hasOriginator) to = writeWord(out, to, originatorId, source.routerId);
    if (!hasClusters) to = writeWord(out, to, clusterList, clusterId);
    return to;
  };
}

/** Well-known communities (RFC 1997). */
function isKeptBack(bytes: Uint8Array, start: number, end: number, internal: boolean): boolean {
  for (let at = start; at < end; at += 4) {
    const community = u32(bytes, at);
    if (community === WELL_KNOWN.noAdvertise) return true;
    if (!internal && (community === WELL_KNOWN.noExport || community === WELL_KNOWN.noExportSubconfed)) return true;
  }
  return false;
}

function writePrepended(
  bytes: Uint8Array,
  start: number,
  end: number,
  asn: number,
  out: Uint8Array,
  at: number,
): number {
  const joins = end > start && bytes[start] === AS_SEQUENCE;
  let to = writeHeader(out, at, asPath, end - start + (joins ? 4 : 6));
  out[to] = AS_SEQUENCE;
  out[to + 1] = joins ? bytes[start + 1]! + 1 : 1;
  to = putWord(out, to + 2, asn);
  return copy(bytes, joins ? start + 2 : start, end, out, to);
}

function writeWord(out: Uint8Array, at: number, row: { code: number; flags: number }, word: number): number {
  return putWord(out, writeHeader(out, at, row, 4), word);
}

function writeHeader(
  out: Uint8Array,
  at: number,
  { code, flags }: { code: number; flags: number },
  length: number,
): number {
  out[at + 1] = code;
  if (length > 255) {
    out[at] = flags | EXTENDED_LENGTH;
    out[at + 2] = length >> 8;
    out[at + 3] = length & 255;
    return at + 4;
  }
  out[at] = flags;
  out[at + 2] = length;
  return at + 3;
}

function putWord(out: Uint8Array, at: number, word: number): number {
  out[at] = word >>> 24;
  out[at + 1] = word >>> 16;
  out[at + 2] = word >>> 8;
  out[at + 3] = word;
  return at + 4;
}

function copy(from: Uint8Array, start: number, end: number, out: Uint8Array, at: number): number {
  let to = at;
  for (let index = start; index < end; index += 1, to += 1) out[to] = from[index]!;
  return to;
}

/** Where the value of an attribute of the list begins, or 0. */
function valueOf(bytes: Uint8Array, list: number, end: number, code: number): number {
  for (let at = list; at < end;) {
    const extended = (bytes[at]! & EXTENDED_LENGTH) !== 0;
    const value = at + (extended ? 4 : 3);
    if (bytes[at + 1] === code) return value;
    at = value + (extended ? (bytes[at + 2]! << 8) | bytes[at + 3]! : bytes[at + 2]!);
  }
  return 0;
}

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
