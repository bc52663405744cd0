/** How full pools and blocks are, and who has an address. */
import { formatAddress, type Address } from "../ip/address.ts";
import { comparePrefixes, formatPrefix, prefixContains, prefixCovers, prefixSize } from "../ip/prefix.ts";
import {
  addressAt,
  allocationsOf,
  endCooldowns,
  holderAt,
  hostOf,
  ordinalOf,
  type Block,
  type Cooldown,
  type Holder,
} from "./block.ts";
import { poolOf, type Pool } from "./pools.ts";
import type { Reservations } from "./reservations.ts";

export interface Usage {
  readonly cidr: string;
  readonly total: bigint;
  readonly inUse: bigint;
  /** Released, and not given out again yet. */
  readonly coolingDown: bigint;
  /** Neither in use nor to be given out (IPReservation). */
  readonly reserved: bigint;
  readonly free: bigint;
}

export interface BlockUsage extends Usage {
  /** The node, or what else holds it; absent where nobody does. */
  readonly owner?: string;
}

export interface PoolUsage extends Usage {
  /** The pool's name; absent for blocks that no pool covers any more. */
  readonly name?: string;
  readonly blocks: readonly BlockUsage[];
}

/** One entry for each pool, and one more (`cidr` empty) for blocks outside of all pools, where there are any. */
export function usageOf(
  pools: readonly Pool[],
  blocks: readonly Block[],
  reservations: Reservations,
  cooldown: Cooldown,
): PoolUsage[] {
  const sorted = blocks.toSorted((a, b) => comparePrefixes(a.prefix, b.prefix));
  const usages = pools
    .toSorted((a, b) => comparePrefixes(a.prefix, b.prefix))
    .map((pool): PoolUsage => {
      const within = sorted.filter(({ prefix }) => prefixCovers(pool.prefix, prefix));
      const usage = usageIn(
        formatPrefix(pool.prefix),
        prefixSize(pool.prefix),
        reservations.countIn(pool.prefix),
        within,
        reservations,
        cooldown,
      );
      return { name: pool.name, ...usage, blocks: within.map((block) => blockUsage(block, reservations, cooldown)) };
    });
  const outside = sorted.filter(({ prefix }) => poolOf(pools, prefix.address) === undefined);
  if (outside.length > 0) {
    const total = outside.reduce((sum, { prefix }) => sum + prefixSize(prefix), 0n);
    const reserved = outside.reduce((sum, { prefix }) => sum + reservations.countIn(prefix), 0n);
    const usage = usageIn("", total, reserved, outside, reservations, cooldown);
    usages.push({ ...usage, blocks: outside.map((block) => blockUsage(block, reservations, cooldown)) });
  }
  return usages;
}

function blockUsage(block: Block, reservations: Reservations, cooldown: Cooldown): BlockUsage {
  const { prefix, affinity } = block;
  const usage = usageIn(
    formatPrefix(prefix),
    prefixSize(prefix),
    reservations.countIn(prefix),
    [block],
    reservations,
    cooldown,
  );
  const owner = hostOf(block) ?? affinity;
  return owner === null ? usage : { ...usage, owner };
}

function usageIn(
  cidr: string,
  total: bigint,
  reservedInAll: bigint,
  blocks: readonly Block[],
  reservations: Reservations,
  cooldown: Cooldown,
): Usage {
  let inUse = 0n;
  let coolingDown = 0n;
  let reserved = reservedInAll;
  for (const block of blocks.map((stored) => endCooldowns(stored, cooldown))) {
    for (const ordinal of block.allocations.keys()) {
      const holder = holderAt(block, ordinal);
      if (holder === undefined) continue;
      if (holder.releasedAt === undefined) inUse += 1n;
      else coolingDown += 1n;
      if (reservations.has(addressAt(block, ordinal))) reserved -= 1n;
    }
  }
  return { cidr, total, inUse, coolingDown, reserved, free: total - inUse - coolingDown - reserved };
}

export interface Borrowed {
  readonly address: string;
  /** The node that has the address. */
  readonly node: string;
  readonly block: string;
  /** The node whose block it is; absent where nobody's. */
  readonly owner?: string;
  readonly type: string;
  readonly holder: string;
}

/** Addresses that nodes have from blocks that are not theirs. */
export function borrowedOf(blocks: readonly Block[]): Borrowed[] {
  return blocks
    .toSorted((a, b) => comparePrefixes(a.prefix, b.prefix))
    .flatMap((block) => {
      const owner = hostOf(block);
      return allocationsOf(block).flatMap(({ address, holder }): Borrowed[] => {
        const { node, type } = holder.attributes;
        if (node === undefined || node === owner) return [];
        return [
          {
            address: formatAddress(address),
            node,
            block: formatPrefix(block.prefix),
            ...(owner === undefined ? {} : { owner }),
            type: type ?? "pod",
            holder: holderName(holder),
          },
        ];
      });
    });
}

/** `default/web`, the type of a tunnel, or the handle. */
export function holderName({ handle, attributes: { namespace, pod, type } }: Holder): string {
  if (pod !== undefined) return `${namespace ?? ""}/${pod}`;
  return type ?? handle ?? "";
}

export type AddressState =
  | { readonly state: "in-use"; readonly holder: Holder; readonly block: string }
  | { readonly state: "cooling-down"; readonly releasedAt: number; readonly block: string }
  | { readonly state: "free" };

/** Who has the address. */
export function stateOf(address: Address, blocks: readonly Block[], cooldown: Cooldown): AddressState {
  const stored = blocks.find(({ prefix }) => prefixContains(prefix, address));
  if (stored === undefined) return { state: "free" };
  const block = endCooldowns(stored, cooldown);
  const holder = holderAt(block, ordinalOf(block, address) ?? -1);
  if (holder === undefined) return { state: "free" };
  const cidr = formatPrefix(block.prefix);
  const { releasedAt } = holder;
  return releasedAt === undefined
    ? { state: "in-use", holder, block: cidr }
    : { state: "cooling-down", releasedAt, block: cidr };
}
