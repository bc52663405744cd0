import type { Address } from "../ip/address.ts";
import { Failure } from "../lib/errors.ts";
import type { NetworkConfig, SubnetRange } from "./config.ts";
import {
  formatLeaseValue,
  type Lease,
  type LeaseAttributes,
  leaseKey,
  type LeasedSubnets,
  parseLeaseKey,
  parseLeaseValue,
} from "./lease.ts";
import type { KeyStore, StoredKey } from "./store.ts";
import { fitsConfig, freeSubnets, overlapsAny } from "./subnets.ts";

/** How a node comes to its lease in etcd, and keeps it. */

export class LeaseFailure extends Failure<"no-subnet-left" | "lost-every-race"> {}

/** Seconds that a lease lives unless it is renewed: flannel's 24 hours. */
export const LEASE_SECONDS = 24 * 60 * 60;

/** Nodes that start at the same time draw the same subnet now and then. */
const MAX_ATTEMPTS = 10;

/** A lease as it stands in the store. */
export interface HeldLease extends Lease {
  readonly key: string;
  readonly revision: string;
  /** A reservation stays for good: an administrator wrote the key without a lease (docs/reservations.md of flannel). */
  readonly reserved: boolean;
}

export interface AcquireInput {
  readonly store: KeyStore;
  /** `/coreos.com/network/subnets/` */
  readonly prefix: string;
  readonly config: NetworkConfig;
  readonly attributes: LeaseAttributes;
  /** What this node had before, from `subnet.env`. */
  readonly previous: LeasedSubnets | undefined;
  /** A whole number from 0, below the bound. */
  readonly random: (bound: number) => number;
}

/**
 * The lease that names this node, where it still fits the configuration; else the subnet that it had before, where that is
 * free; else a random one of the first that are free. A race that is lost begins it anew (flannel gives up at the first).
 * Throws `LeaseFailure`, or the store's error.
 */
export async function acquireLease(input: AcquireInput): Promise<HeldLease> {
  const { store, prefix, config, attributes, previous } = input;
  const value = formatLeaseValue(attributes);
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
    const { items } = await store.list(prefix);
    const held = items.flatMap((item) => readLease(prefix, item) ?? []);
    const mine = held.find((lease) => isOf(lease.attributes, attributes));
    if (mine !== undefined && fitsConfig(mine.subnets, config)) {
      const renewed = await renewLease(store, { ...mine, attributes });
      if (renewed !== undefined) return renewed;
      continue;
    }
    // A key of ours that does not fit any more must not keep others from the addresses.
    if (mine !== undefined) await store.remove(mine.key, mine.revision);
    const others = held.filter((lease) => lease !== mine).map(({ subnets }) => subnets);
    const reusable = previous !== undefined && fitsConfig(previous, config) && !overlapsAny(previous, others);
    const subnets = reusable ? previous : drawSubnets(input, others);
    const key = prefix + leaseKey(subnets);
    const revision = await store.create(key, value, LEASE_SECONDS);
    if (revision !== undefined) return { subnets, attributes, key, revision, reserved: false };
  }
  throw new LeaseFailure(
    "lost-every-race",
    `Cannot lease a subnet: other nodes were faster each of the ${MAX_ATTEMPTS} times`,
  );
}

/** For as long again. Undefined where the key is not at that revision any more: somebody else has changed or deleted it. */
export async function renewLease(store: KeyStore, lease: HeldLease): Promise<HeldLease | undefined> {
  const ttl = lease.reserved ? undefined : LEASE_SECONDS;
  const revision = await store.replace(lease.key, formatLeaseValue(lease.attributes), lease.revision, ttl);
  return revision === undefined ? undefined : { ...lease, revision };
}

/** Undefined for keys that are no leases, and values that cannot be read. */
export function readLease(prefix: string, item: StoredKey): HeldLease | undefined {
  const subnets = parseLeaseKey(item.key.slice(prefix.length));
  if (subnets === undefined) return undefined;
  try {
    const attributes = parseLeaseValue(item.value);
    return { subnets, attributes, key: item.key, revision: item.revision, reserved: !item.leased };
  } catch {
    return undefined;
  }
}

/** Whether the lease is this node's: its public address says so. */
export function isOf(theirs: LeaseAttributes, own: LeaseAttributes): boolean {
  return own.publicIp === undefined
    ? sameAddress(theirs.publicIpv6, own.publicIpv6)
    : sameAddress(theirs.publicIp, own.publicIp);
}

const sameAddress = (a: Address | undefined, b: Address | undefined): boolean =>
  a !== undefined && b !== undefined && a.family === b.family && a.value === b.value;

function drawSubnets({ config, random }: AcquireInput, taken: readonly LeasedSubnets[]): LeasedSubnets {
  const draw = (range: SubnetRange | undefined, family: "ipv4" | "ipv6"): LeasedSubnets => {
    if (range === undefined) return {};
    const used = taken.flatMap((subnets) => subnets[family] ?? []);
    const free = freeSubnets(range, used);
    const chosen = free[random(free.length)];
    if (chosen === undefined) {
      throw new LeaseFailure("no-subnet-left", `Cannot lease an ${family} subnet: all ${used.length} are taken`);
    }
    return { [family]: chosen };
  };
  return { ...draw(config.ipv4, "ipv4"), ...draw(config.ipv6, "ipv6") };
}
