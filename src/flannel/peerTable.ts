import { addressToBytes } from "../ip/address.ts";
import { comparePrefixes } from "../ip/prefix.ts";
import type { Lease } from "./lease.ts";

/**
 * Who has which subnet, for threads that never leave their loop: in memory that they share. One side of it is read while
 * the other is written; a generation, the last word to be written, says which.
 *
 *     word  0           1        2 …                              2 + 3 × CAPACITY …
 *          +-----------+--------+-----------------------------+---+-------------------
 *          | generation| (pad)  | side 0: count, then entries |   | side 1
 *          +-----------+--------+-----------------------------+---+-------------------
 *     entry: network, mask, the peer's address
 *
 * IPv4 only, as flannel's udp backend is; addresses are numbers of 32 bits.
 */
export type SharedPeers = Int32Array<SharedArrayBuffer>;

/** Nodes of the largest clusters, and some. */
const CAPACITY = 16_384;
const ENTRY = 3;
const SIDE = 1 + ENTRY * CAPACITY;
const FIRST_SIDE = 2;

export function sharedPeers(): SharedPeers {
  return new Int32Array(new SharedArrayBuffer((FIRST_SIDE + 2 * SIDE) * 4));
}

/** Publishes the leases that have IPv4. Says how many did not fit. */
export function publishPeers(table: SharedPeers, peers: readonly Lease[]): number {
  const entries = peers
    .flatMap(({ subnets, attributes }) =>
      subnets.ipv4 === undefined || attributes.publicIp === undefined
        ? []
        : [{ subnet: subnets.ipv4, peer: attributes.publicIp }],
    )
    // The longest prefix is asked first; flannel's C asks in the order in which they came.
    .toSorted((a, b) => b.subnet.length - a.subnet.length || comparePrefixes(a.subnet, b.subnet));
  const generation = Atomics.load(table, 0) + 1;
  const start = FIRST_SIDE + (generation & 1) * SIDE;
  let at = start + 1;
  const kept = entries.slice(0, CAPACITY);
  for (const { subnet, peer } of kept) {
    table[at] = wordOf(addressToBytes(subnet.address));
    table[at + 1] = subnet.length === 0 ? 0 : -1 << (32 - subnet.length);
    table[at + 2] = wordOf(addressToBytes(peer));
    at += ENTRY;
  }
  table[start] = kept.length;
  Atomics.store(table, 0, generation);
  return entries.length - kept.length;
}

function wordOf(bytes: Uint8Array): number {
  return (bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!;
}

/** Addresses that were looked up before, by their lower bits. */
const REMEMBERED = 1024;

/** Finds the peer that has an address, both as signed numbers of 32 bits; 0 where none has. */
export function peerLookup(table: SharedPeers): (destination: number) => number {
  const asked = new Int32Array(REMEMBERED);
  const found = new Int32Array(REMEMBERED);
  let generation = -1;

  function renew(now: number): void {
    generation = now;
    asked.fill(0);
  }

  function search(destination: number): number {
    const start = FIRST_SIDE + (generation & 1) * SIDE;
    const end = start + 1 + ENTRY * table[start]!;
    for (let at = start + 1; at < end; at += ENTRY) {
      if ((destination & table[at + 1]!) === table[at]) return table[at + 2]!;
    }
    return 0;
  }

  return (destination) => {
    const now = Atomics.load(table, 0);
    if (now !== generation) renew(now);
    const slot = (destination ^ (destination >>> 10)) & (REMEMBERED - 1);
    // 0.0.0.0 is what a free slot looks like, and nobody's address.
    if (destination === 0) return 0;
    if (asked[slot] === destination) return found[slot]!;
    let peer = search(destination);
    // Published twice meanwhile: the side that was read may have been written to.
    for (let later = Atomics.load(table, 0); later - generation > 1; later = Atomics.load(table, 0)) {
      renew(later);
      peer = search(destination);
    }
    asked[slot] = destination;
    found[slot] = peer;
    return peer;
  };
}
