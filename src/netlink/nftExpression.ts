import { numbered } from "./nfnetlink.ts";
import type { Data, ObjectType, Register } from "./nftData.ts";
import type { Masquerade, Nat, Redirect } from "./nftNat.ts";

/**
 * Expressions, which rules are made of: each loads something into registers, compares what is there, or does something;
 * the first that does not match ends its rule. <linux/netfilter/nf_tables.h>
 */
export type Expression =
  | { readonly kind: "meta"; readonly key: MetaKey; readonly into: Register }
  | { readonly kind: "setMeta"; readonly key: MetaKey; readonly from: Register }
  | {
      readonly kind: "payload";
      readonly base: PayloadBase;
      readonly offset: number;
      readonly length: number;
      readonly into: Register;
    }
  | WritePayload
  | { readonly kind: "cmp"; readonly from: Register; readonly operator: Comparison; readonly value: Uint8Array }
  /** `into` = (`from` & mask) ^ xor */
  | {
      readonly kind: "bitwise";
      readonly from: Register;
      readonly into: Register;
      readonly mask: Uint8Array;
      readonly xor: Uint8Array;
    }
  | {
      readonly kind: "byteorder";
      readonly from: Register;
      readonly into: Register;
      readonly operation: "ntoh" | "hton";
      readonly length: number;
      readonly size: number;
    }
  /** Both ends belong to it. */
  | {
      readonly kind: "range";
      readonly from: Register;
      readonly operator: "eq" | "neq";
      readonly first: Uint8Array;
      readonly last: Uint8Array;
    }
  | Lookup
  | {
      readonly kind: "ct";
      readonly key: ConntrackKey;
      readonly into: Register;
      readonly direction?: "original" | "reply";
    }
  | {
      readonly kind: "setCt";
      readonly key: ConntrackKey;
      readonly from: Register;
      readonly direction?: "original" | "reply";
    }
  | { readonly kind: "immediate"; readonly into: Register; readonly data: Data }
  /** The counts are where it begins, and in a list where it is now. */
  | { readonly kind: "counter"; readonly packets?: number; readonly bytes?: number }
  | Limit
  /** Matches while the source of the packet's connection has at most, or `over`, so many connections. */
  | { readonly kind: "connlimit"; readonly count: number; readonly over: boolean }
  | Log
  | Nat
  | Masquerade
  | Redirect
  /** `code` is of ICMP or ICMPv6; of `icmpx`, 0 is no route, 1 port, 2 host unreachable, 3 prohibited. */
  | { readonly kind: "reject"; readonly type: "icmp" | "tcp reset" | "icmpx"; readonly code: number }
  | {
      readonly kind: "fib";
      readonly by: readonly FibField[];
      readonly result: "oif" | "oifname" | "type";
      readonly into: Register;
    }
  | { readonly kind: "notrack" }
  /** The table's object of that name is told of the packet. */
  | { readonly kind: "objref"; readonly type: ObjectType; readonly name: string }
  /** The object that the map has for a key. */
  | { readonly kind: "objrefMap"; readonly from: Register; readonly set: string; readonly setId?: number }
  | UpdateSet
  /** One that we have no form for, as its attributes. Nobody writes it: it is what others have written. */
  | { readonly kind: "other"; readonly name: string; readonly data: Uint8Array };

export interface Counts {
  readonly packets: number;
  readonly bytes: number;
}

interface WritePayload {
  readonly kind: "writePayload";
  readonly from: Register;
  readonly base: PayloadBase;
  readonly offset: number;
  readonly length: number;
  /** Which checksum to mend, and where it is. */
  readonly checksum: "none" | "inet" | "sctp";
  readonly checksumOffset: number;
  /** The transport's checksum covers the field too, by its pseudo header. */
  readonly pseudoHeader?: true;
}

interface Lookup {
  readonly kind: "lookup";
  readonly set: string;
  /** Of a set that is made in the same transaction and has no name of its own. */
  readonly setId?: number;
  readonly from: Register;
  /** Where a map's data goes; `verdict` for a verdict map. */
  readonly into?: Register;
  readonly invert?: true;
}

interface Limit {
  readonly kind: "limit";
  readonly type: "packets" | "bytes";
  readonly rate: number;
  /** Seconds. */
  readonly per: number;
  readonly burst?: number;
  /** Matches what is beyond the limit, not what is within. */
  readonly over: boolean;
}

interface Log {
  readonly kind: "log";
  /** At most 127 bytes. */
  readonly prefix?: string;
  /** To whom listens to the group (NFLOG); without it, to the kernel's log. */
  readonly group?: number;
  /** Bytes of each packet. */
  readonly snapLength?: number;
  readonly queueThreshold?: number;
  /** Of the kernel's log: 0 to 7. */
  readonly level?: number;
  readonly flags?: number;
}

interface UpdateSet {
  readonly kind: "dynset";
  readonly operation: "add" | "update" | "delete";
  readonly set: string;
  readonly setId?: number;
  readonly from: Register;
  readonly data?: Register;
  /** Milliseconds. */
  readonly timeout?: number;
}

/** NFT_META_…, by the names that `nft` prints. */
export const META_KEYS = {
  length: 0,
  protocol: 1,
  priority: 2,
  mark: 3,
  iif: 4,
  oif: 5,
  iifname: 6,
  oifname: 7,
  iiftype: 8,
  oiftype: 9,
  skuid: 10,
  skgid: 11,
  nftrace: 12,
  nfproto: 15,
  l4proto: 16,
  pkttype: 19,
  iifgroup: 21,
  oifgroup: 22,
} as const;
export type MetaKey = keyof typeof META_KEYS;

/** NFT_CT_…, by the names that `nft` prints. */
export const CONNTRACK_KEYS = {
  state: 0,
  direction: 1,
  status: 2,
  mark: 3,
  expiration: 5,
  l3proto: 7,
  protocol: 10,
  "proto-src": 11,
  "proto-dst": 12,
  packets: 14,
  bytes: 15,
  zone: 17,
  "ip saddr": 19,
  "ip daddr": 20,
  "ip6 saddr": 21,
  "ip6 daddr": 22,
  id: 23,
} as const;
export type ConntrackKey = keyof typeof CONNTRACK_KEYS;

export const PAYLOAD_BASES = numbered(["link", "network", "transport", "inner"]);
export type PayloadBase = keyof typeof PAYLOAD_BASES;

export const COMPARISONS = numbered(["eq", "neq", "lt", "lte", "gt", "gte"]);
export type Comparison = keyof typeof COMPARISONS;

/** What a route is looked up by; `present` asks only whether there is one. */
export const FIB_FIELDS = { saddr: 1, daddr: 2, mark: 4, iif: 8, oif: 16, present: 32 } as const;
export type FibField = keyof typeof FIB_FIELDS;
