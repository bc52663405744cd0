import { addressFromBytes, addressToBytes } from "../ip/address.ts";
import { ByteWriter } from "../lib/bytes.ts";
import { AS_SET, type AsPath, type AsSegment } from "./as-path.ts";
import { encodeAttributes } from "./attribute-list.ts";
import { ATTRIBUTES, EXTENDED_LENGTH, ORIGINS, type PathAttributes, type UnknownAttribute } from "./attributes.ts";

// The one form in which attributes are kept: as bytes, the same for equal attributes whatever session they came by.
//
//   +--------+-----------------------+--------------------------------------------------------------+
//   | 0, 16, | IPv6 next hop, if any | the list as in an iBGP session with four-octet AS numbers:   |
//   | or 32  | (and its link-local)  | ascending codes, no MP_REACH_NLRI; an IPv4 next hop is in it |
//   +--------+-----------------------+--------------------------------------------------------------+

const CANONICAL = { asOctets: 4, internal: true } as const;

export function toCanonical(attributes: PathAttributes): Uint8Array {
  const { nextHop, linkLocalNextHop } = attributes;
  const writer = new ByteWriter(64);
  const hops = [nextHop, linkLocalNextHop].flatMap((hop) => (hop?.family === 6 ? [addressToBytes(hop)] : []));
  writer.u8(hops.reduce((length, hop) => length + hop.length, 0));
  for (const hop of hops) writer.raw(hop);
  encodeAttributes(writer, attributes, CANONICAL, nextHop?.family === 4);
  return writer.finish();
}

/** Where the list begins. */
export const listStart = (bytes: Uint8Array, start: number): number => start + 1 + bytes[start]!;

/** The attributes of canonical bytes, of which nothing needs to be checked: the fast form of `decodeAttributes`. */
export function fromCanonical(bytes: Uint8Array, start: number, length: number): PathAttributes {
  const draft: { -readonly [Name in keyof PathAttributes]: PathAttributes[Name] } = {
    origin: "incomplete",
    asPath: [],
  };
  const end = start + length;
  const list = listStart(bytes, start);
  if (list > start + 1) draft.nextHop = addressFromBytes(bytes.subarray(start + 1, start + 17));
  if (list > start + 17) draft.linkLocalNextHop = addressFromBytes(bytes.subarray(start + 17, start + 33));
  const unknown: UnknownAttribute[] = [];
  for (let at = list; at < end;) {
    const flags = bytes[at]!;
    const code = bytes[at + 1]!;
    const extended = (flags & EXTENDED_LENGTH) !== 0;
    const value = at + (extended ? 4 : 3);
    at = value + (extended ? (bytes[at + 2]! << 8) | bytes[at + 3]! : bytes[at + 2]!);
    switch (code) {
      case ATTRIBUTES.origin.code:
        draft.origin = ORIGINS[bytes[value]!]!;
        break;
      case ATTRIBUTES.asPath.code:
        draft.asPath = asPathAt(bytes, value, at);
        break;
      case ATTRIBUTES.nextHop.code:
        draft.nextHop = { family: 4, value: BigInt(u32(bytes, value)) };
        break;
      case ATTRIBUTES.med.code:
        draft.med = u32(bytes, value);
        break;
      case ATTRIBUTES.localPref.code:
        draft.localPref = u32(bytes, value);
        break;
      case ATTRIBUTES.atomicAggregate.code:
        draft.atomicAggregate = true;
        break;
      case ATTRIBUTES.aggregator.code: {
        const address = { family: 4, value: BigInt(u32(bytes, value + 4)) } as const;
        draft.aggregator = { asn: u32(bytes, value), address };
        break;
      }
      case ATTRIBUTES.communities.code:
        draft.communities = wordsAt(bytes, value, at);
        break;
      case ATTRIBUTES.originatorId.code:
        draft.originatorId = u32(bytes, value);
        break;
      case ATTRIBUTES.clusterList.code:
        draft.clusterList = wordsAt(bytes, value, at);
        break;
      case ATTRIBUTES.extendedCommunities.code: {
        const words = wordsAt(bytes, value, at);
        draft.extendedCommunities = Array.from({ length: words.length / 2 }, (_, index) => {
          return (BigInt(words[2 * index]!) << 32n) | BigInt(words[2 * index + 1]!);
        });
        break;
      }
      case ATTRIBUTES.largeCommunities.code: {
        const words = wordsAt(bytes, value, at);
        draft.largeCommunities = Array.from({ length: words.length / 3 }, (_, index) => ({
          global: words[3 * index]!,
          local1: words[3 * index + 1]!,
          local2: words[3 * index + 2]!,
        }));
        break;
      }
      default:
        unknown.push({ code, flags: flags & ~EXTENDED_LENGTH, value: Uint8Array.from(bytes.subarray(value, at)) });
    }
  }
  if (unknown.length > 0) draft.unknown = unknown;
  return draft;
}

function asPathAt(bytes: Uint8Array, start: number, end: number): AsPath {
  const path: AsSegment[] = [];
  for (let at = start; at < end;) {
    const next = at + 2 + 4 * bytes[at + 1]!;
    path.push({ type: bytes[at] === AS_SET ? "set" : "sequence", asns: wordsAt(bytes, at + 2, next) });
    at = next;
  }
  return path;
}

function wordsAt(bytes: Uint8Array, start: number, end: number): number[] {
  const words: number[] = [];
  for (let at = start; at < end; at += 4) words.push(u32(bytes, at));
  return words;
}

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
