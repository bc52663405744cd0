/**
 * What a node does when its blocks are full, in Calico's order: claim a block that nobody has, take over an empty block
 * of another node, and, unless affinity is strict, borrow a single address from another node's block.
 */
import type { Address, Family } from "../ip/address.ts";
import { formatPrefix, prefixContains, prefixCovers, prefixesOverlap, type Prefix } from "../ip/prefix.ts";
import { claimBlock, giveUpBlock } from "./affinity.ts";
import { countFree, hostOf, isEmpty, takeFree, type Block, type Cooldown, type Holder } from "./block.ts";
import { IpamError, type IpamCode } from "./errors.ts";
import type { HeldBlocks } from "./held.ts";
import { blockPrefixOf, blocksInSearchOrder, type Pool } from "./pools.ts";
import type { Reservations } from "./reservations.ts";
import type { BlockStore, Stored } from "./store.ts";
import type { IpamConfig } from "./world.ts";

/** An empty block is left to its node for this long, or two nodes could take it from each other without end. */
const RECLAIM_AGE_MS = 60_000;

/** How many claims may be lost to faster nodes before giving up. */
const LOST_CLAIMS = 100;

/** `not-allowed`: autoAllocateBlocks is off. `contention`: other nodes were faster at every block. */
export type Search = "found" | "block-limit" | "not-allowed" | "pool-full" | "contention";

export interface Shortage {
  /** Runs one after the other what looks for blocks or gives them up. */
  exclusively<Result>(work: () => Promise<Result>): Promise<Result>;
  /** Sees to it that the node has a block with room, where that can be. */
  findBlock(wanted: {
    readonly pools: readonly Pool[];
    readonly family: Family;
    readonly reservations: Reservations;
    readonly config: IpamConfig;
    /** Asked again before and after looking at the store: others may have found a block already. */
    readonly hasRoom: () => boolean;
  }): Promise<Search>;
  /** One address from any block with room. */
  borrow(wanted: {
    readonly pools: readonly Pool[];
    readonly reservations: Reservations;
    readonly holder: Holder;
  }): Promise<{ readonly block: Block; readonly ordinal: number } | undefined>;
  /** The block in which the address lies, claimed for this node where it does not exist. Undefined where that was lost to another. */
  blockAround(pool: Pool, address: Address): Promise<Block | undefined>;
}

export function createShortage(options: {
  readonly node: string;
  readonly store: BlockStore;
  readonly held: HeldBlocks;
  readonly cooldown: () => Cooldown;
  readonly random: () => number;
}): Shortage {
  const { node, store, held, cooldown, random } = options;
  let last: Promise<unknown> = Promise.resolve();

  function exclusively<Result>(work: () => Promise<Result>): Promise<Result> {
    const running = last.then(work);
    last = running.catch(() => undefined);
    return running;
  }

  async function claim(prefix: Prefix): Promise<boolean> {
    const block = await claimBlock(store, node, prefix, cooldown().now);
    if (block !== undefined) held.observe({ type: "put", block });
    return block !== undefined;
  }

  /** Takes over empty blocks that their nodes had for a while, and those that have no node. */
  async function reclaim(
    all: readonly Stored<Block>[],
    pools: readonly Pool[],
    reservations: Reservations,
  ): Promise<boolean> {
    const { now } = cooldown();
    for (const stored of all) {
      const { prefix, claimedAt } = stored.value;
      const free = isEmpty(stored.value, cooldown()) && countFree(stored.value, reservations, cooldown()) > 0;
      const old = claimedAt === null || now - claimedAt >= RECLAIM_AGE_MS;
      if (!free || !old || isVirtual(stored.value) || hostOf(stored.value) === node || !inPools(pools, prefix))
        continue;
      if ((await giveUpBlock(store, stored, cooldown(), true)) && (await claim(prefix))) return true;
    }
    return false;
  }

  return {
    exclusively,
    findBlock: ({ pools, family, reservations, config, hasRoom }) =>
      exclusively(async () => {
        if (hasRoom()) return "found";
        if (!config.autoAllocateBlocks) return "not-allowed";
        const all = await store.listBlocks();
        held.sync(all);
        if (hasRoom()) return "found";
        const ours = all.filter(({ value }) => hostOf(value) === node && value.prefix.address.family === family);
        if (ours.length >= config.maxBlocksPerHost) return "block-limit";
        let lost = 0;
        for (const pool of pools) {
          const exists = overlapsAny(
            all.map(({ value }) => value.prefix).filter((prefix) => prefixCovers(pool.prefix, prefix)),
          );
          for (const prefix of blocksInSearchOrder(pool, node, reservations, random)) {
            if (exists(prefix)) continue;
            if (await claim(prefix)) return "found";
            lost += 1;
            if (lost >= LOST_CLAIMS) return "contention";
          }
        }
        return (await reclaim(all, pools, reservations)) ? "found" : "pool-full";
      }),
    borrow: async ({ pools, reservations, holder }) => {
      const all = (await store.listBlocks()).filter(({ value }) => {
        const usable = inPools(pools, value.prefix) && !isVirtual(value);
        return usable && countFree(value, reservations, cooldown()) > 0;
      });
      const start = Math.floor(random() * all.length);
      for (const stored of [...all.slice(start), ...all.slice(0, start)]) {
        held.hold(stored);
        const borrowed = await held.commit(stored.value.prefix, 1, (block) => {
          const taken = takeFree(block, holder, reservations);
          return taken && { block: taken.block, result: taken };
        });
        if (borrowed !== undefined) return borrowed;
      }
      return undefined;
    },
    blockAround: (pool, address) =>
      exclusively(async () => {
        const all = await store.listBlocks();
        const existing = all.find(({ value }) => prefixContains(value.prefix, address));
        if (existing === undefined) await claim(blockPrefixOf(pool, address));
        else held.hold(existing);
        return held.blocks().find(({ prefix }) => prefixContains(prefix, address));
      }),
  };
}

const SHORTAGES: Record<Exclude<Search, "found">, IpamCode> = {
  "block-limit": "block-limit",
  "not-allowed": "pool-full",
  "pool-full": "pool-full",
  contention: "contention",
};

/** The error that says what there was too little of, and where. */
export function describeShortage(
  search: Exclude<Search, "found">,
  { cannot, node, pools, config }: { cannot: string; node: string; pools: readonly Pool[]; config: IpamConfig },
): IpamError {
  const where = pools.map(({ name, prefix }) => `${name} (${formatPrefix(prefix)})`).join(", ");
  const reasons: Record<typeof search, string> = {
    "block-limit": `${node} holds ${config.maxBlocksPerHost} blocks, as many as it may (maxBlocksPerHost), and all are full`,
    "not-allowed": `the blocks of ${node} are full, and autoAllocateBlocks is off`,
    "pool-full": `no block is free in ${where}`,
    contention: `other nodes were faster at each of ${LOST_CLAIMS} blocks in ${where}`,
  };
  const borrowing = config.strictAffinity
    ? "strictAffinity forbids to borrow"
    : "no other block there has a free address";
  return new IpamError(SHORTAGES[search], `${cannot}: ${reasons[search]}; ${borrowing}`);
}

function isVirtual(block: Block): boolean {
  return block.affinity !== null && hostOf(block) === undefined;
}

function inPools(pools: readonly Pool[], prefix: Prefix): boolean {
  return pools.some((pool) => prefixCovers(pool.prefix, prefix));
}

/**
 * Whether a prefix overlaps one of these. Most are of the pool's present block size and found by their name; those from
 * before a change of the block size are few.
 */
function overlapsAny(prefixes: readonly Prefix[]): (prefix: Prefix) => boolean {
  const names = new Set(prefixes.map(formatPrefix));
  const lengths = new Set(prefixes.map(({ length }) => length));
  return (prefix) => {
    if (names.has(formatPrefix(prefix))) return true;
    const uniform = lengths.size === 0 || (lengths.size === 1 && lengths.has(prefix.length));
    return !uniform && prefixes.some((other) => other.length !== prefix.length && prefixesOverlap(other, prefix));
  };
}
