import { addressToBytes } from "../ip/address.ts";
import { listStart } from "./attribute-bytes.ts";
import { ATTRIBUTES, EXTENDED_LENGTH, WELL_KNOWN } from "./attributes.ts";
import type { ImportPolicy } from "./import-policy.ts";

const { asPath, nextHop, communities, originatorId, clusterList } = ATTRIBUTES;

/** Takes attributes in their canonical form. */
export type PlainCheck = (bytes: Uint8Array, start: number, length: number) => boolean;

/**
 * The fast form of `importRefusal` and `acceptedAttributes`: true where surely the one has nothing against attributes, and
 * the other does not change them. What gives rise to doubts is decoded and judged there.
 */
export function plainCheckOf(policy: ImportPolicy): PlainCheck {
  const { ownAsns, routerId, clusterId, internal, ownAddress } = policy;
  const own = ownAddress === undefined ? new Uint8Array(0) : addressToBytes(ownAddress);
  const isOwn = (bytes: Uint8Array, at: number, length: number): boolean => {
    if (own.length !== length) return false;
    for (let index = 0; index < length; index += 1) if (bytes[at + index] !== own[index]) return false;
    return true;
  };
  const hasOwnAsn = (bytes: Uint8Array, start: number, end: number): boolean => {
    for (let at = start; at < end;) {
      const next = at + 2 + 4 * bytes[at + 1]!;
      for (at += 2; at < next; at += 4) if (ownAsns.includes(u32(bytes, at))) return true;
    }
    return false;
  };
  const hasWord = (bytes: Uint8Array, start: number, end: number, word: number): boolean => {
    for (let at = start; at < end; at += 4) if (u32(bytes, at) === word) return true;
    return false;
  };
  return (bytes, start, length) => {
    const end = start + length;
    if (bytes[start] !== 0 && isOwn(bytes, start + 1, 16)) return false;
    for (let at = listStart(bytes, start); at < end;) {
      const extended = (bytes[at]! & EXTENDED_LENGTH) !== 0;
      const value = at + (extended ? 4 : 3);
      const next = value + (extended ? (bytes[at + 2]! << 8) | bytes[at + 3]! : bytes[at + 2]!);
      switch (bytes[at + 1]) {
        case asPath.code:
          if (hasOwnAsn(bytes, value, next)) return false;
          break;
        case nextHop.code:
          if (isOwn(bytes, value, 4)) return false;
          break;
        case communities.code:
          if (!internal && hasWord(bytes, value, next, WELL_KNOWN.gracefulShutdown)) return false;
          break;
        case originatorId.code:
          if (u32(bytes, value) === routerId) return false;
          break;
        case clusterList.code:
          if (hasWord(bytes, value, next, clusterId)) return false;
          break;
        default:
      }
      at = next;
    }
    return true;
  };
}

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}
