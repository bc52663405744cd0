/**
 * Gives out and takes back addresses on one node. An address from a block that the node holds already costs one write;
 * the slow ways (claiming a block, taking one over, borrowing) are in `shortage.ts`.
 */
import { formatAddress, type Address, type Family } from "../ip/address.ts";
import { formatPrefix, prefixContains, prefixCovers, type Prefix } from "../ip/prefix.ts";
import { giveUpBlock, repairAffinities } from "./affinity.ts";
import {
  addressAt,
  allocationsOf,
  countFree,
  holderAt,
  hostAffinity,
  hostOf,
  isEmpty,
  ordinalOf,
  ordinalsOfHandle,
  releaseOrdinals,
  takeExactly,
  takeFree,
  type Allocation,
  type Block,
  type Cooldown,
  type Holder,
} from "./block.ts";
import { IpamError } from "./errors.ts";
import { createHeldBlocks, type BlockEvent } from "./held.ts";
import { choosePools, describeRejected, keepsBlocks, poolOf, type Labels, type Pool, type PoolUse } from "./pools.ts";
import { createShortage, describeShortage } from "./shortage.ts";
import type { BlockStore, Stored } from "./store.ts";
import type { World } from "./world.ts";

/** How often a search may begin again because others took what it found. */
const SEARCHES = 1000;

export interface AllocatorOptions {
  readonly node: string;
  readonly store: BlockStore;
  /** Asked at every request. */
  readonly world: () => World;
  /** Milliseconds since 1970. */
  readonly clock: () => number;
  /** From 0 up to 1. */
  readonly random: () => number;
}

export interface AssignRequest {
  /** What the addresses will be released by: `<network>.<container id>`. */
  readonly handle: string;
  /** Stored with the address, beside `node` and `timestamp`: `namespace` and `pod`, or the `type` of a tunnel. */
  readonly attributes: Readonly<Record<string, string>>;
  /** Default: Workload. */
  readonly use?: PoolUse | undefined;
  /** One address of each; absent: of each family for which there is a pool. */
  readonly families?: readonly Family[] | undefined;
  /** Pools by name or CIDR, whose selectors then do not matter; absent or empty: those that select node and namespace. */
  readonly pools?: PoolNames | undefined;
  /** Exactly these addresses, also reserved ones; `families` and `pools` then do not matter. */
  readonly addresses?: readonly Address[] | undefined;
  readonly namespaceLabels?: Labels | undefined;
}

export type PoolNames = { readonly [F in Family]?: readonly string[] | undefined };

export interface Assignment {
  readonly address: Address;
  /** The block that it comes from. */
  readonly block: Prefix;
  /** The pool's name. */
  readonly pool: string;
  /** Whether the block is another node's, so that the others need a route for this one address. */
  readonly borrowed: boolean;
}

export interface Allocator {
  /** Reads the node's blocks. Other calls do so by themselves where it was not done. */
  load(): Promise<void>;
  /** Takes in news of any block, from a watch. */
  observe(event: BlockEvent): void;
  /** Takes in a list of all blocks, from the start of a watch. */
  sync(blocks: readonly Stored<Block>[]): void;
  /** All or nothing: in order of family, or of `addresses`. Throws `IpamError`, or what the store throws. */
  assign(request: AssignRequest): Promise<Assignment[]>;
  /** Takes back all that the handles hold on this node and returns it. Unknown handles are no error. */
  release(handles: readonly string[]): Promise<Address[]>;
  /** What the handle holds on this node, as far as is known here. */
  addressesOf(handle: string): Address[];
  /** Every address that is given out on this node, with its holder. */
  allocations(): Allocation[];
  /** The blocks that this node holds, or has addresses in. */
  blocks(): Block[];
  /**
   * Puts right what a crash left half done, and gives up empty blocks of pools that no longer select the node. To be
   * called after a start, when pools or the node's labels change, and now and then. Returns what was done, for the log.
   */
  tidy(): Promise<string[]>;
}

export function createAllocator({ node, store, world, clock, random }: AllocatorOptions): Allocator {
  const cooldown = (): Cooldown => ({ now: clock(), seconds: world().config.cooldownSeconds });
  const held = createHeldBlocks(node, store, cooldown);
  const shortage = createShortage({ node, store, held, cooldown, random });
  /** Assignments under way, which a release of the same handle waits for. */
  const assigning = new Map<string, Set<Promise<unknown>>>();
  let loading: Promise<void> | undefined;
  let loaded = false;

  async function readBlocks(): Promise<void> {
    held.sync(await store.listBlocks());
    loaded = true;
  }

  async function load(): Promise<void> {
    if (loaded) return;
    loading ??= readBlocks().finally(() => {
      loading = undefined;
    });
    await loading;
  }

  const ours = (): Block[] => held.blocks().filter((block) => hostOf(block) === node);

  function choose(request: AssignRequest, family: Family): ReturnType<typeof choosePools> {
    const { pools, nodeLabels } = world();
    const { use = "Workload", namespaceLabels } = request;
    return choosePools(pools, { family, use, requested: request.pools?.[family], nodeLabels, namespaceLabels });
  }

  function familiesOf(request: AssignRequest): readonly Family[] {
    if (request.families !== undefined && request.families.length > 0) return request.families;
    const offered = ([4, 6] as const).filter((family) => choose(request, family).pools.length > 0);
    return offered.length > 0 ? offered : [4];
  }

  /** A block of this node with an address that no change on its way will take; pools in their order. */
  function blockWithRoom(pools: readonly Pool[]): Block | undefined {
    const { reservations } = world();
    for (const pool of pools) {
      for (const block of ours()) {
        if (!prefixCovers(pool.prefix, block.prefix)) continue;
        if (countFree(block, reservations, cooldown()) > held.promised(block.prefix)) return block;
      }
    }
    return undefined;
  }

  async function assignAny(request: AssignRequest, family: Family, holder: Holder): Promise<Assignment> {
    const cannot = `Cannot assign an IPv${family} address to ${request.handle} on ${node}`;
    const choice = choose(request, family);
    const { pools } = choice;
    if (pools.length === 0) throw new IpamError("no-pool", `${cannot}: ${describeRejected(choice, family)}`);
    const { reservations, config } = world();
    for (let search = 0; search < SEARCHES; search += 1) {
      const block = blockWithRoom(pools);
      if (block !== undefined) {
        const ordinal = await held.commit(block.prefix, 1, (current) => {
          if (current.affinity !== hostAffinity(node)) return undefined;
          const taken = takeFree(current, holder, reservations);
          return taken && { block: taken.block, result: taken.ordinal };
        });
        if (ordinal !== undefined) return assignment(block, ordinal, pools);
        continue;
      }
      const hasRoom = (): boolean => blockWithRoom(pools) !== undefined;
      const found = await shortage.findBlock({ pools, family, reservations, config, hasRoom });
      if (found === "found") continue;
      const borrowed = config.strictAffinity ? undefined : await shortage.borrow({ pools, reservations, holder });
      if (borrowed !== undefined) return assignment(borrowed.block, borrowed.ordinal, pools);
      throw describeShortage(found, { cannot, node, pools, config });
    }
    throw new IpamError("contention", `${cannot}: others took what was found, ${SEARCHES} times over`);
  }

  function assignment(block: Block, ordinal: number, pools: readonly Pool[]): Assignment {
    const address = addressAt(block, ordinal);
    const pool = poolOf(pools, address)?.name ?? "";
    return { address, block: block.prefix, pool, borrowed: hostOf(block) !== node };
  }

  async function assignExactly(request: AssignRequest, address: Address, holder: Holder): Promise<Assignment> {
    const { pools, config } = world();
    const { use = "Workload" } = request;
    const cannot = `Cannot assign ${formatAddress(address)} to ${request.handle} on ${node}`;
    const enabled = pools.filter(({ disabled }) => !disabled);
    const pool = poolOf(enabled, address);
    if (pool === undefined) throw new IpamError("bad-request", `${cannot}: it lies in no enabled IPPool`);
    if (!pool.allowedUses.includes(use)) {
      const allowed = pool.allowedUses.join(", ");
      throw new IpamError("bad-request", `${cannot}: pool ${pool.name} allows ${allowed}, not ${use}`);
    }
    const take = (block: Block): { block: Block; result: Assignment } => {
      const ordinal = ordinalOf(block, address) ?? -1;
      if (config.strictAffinity && block.affinity !== hostAffinity(node)) {
        const owner = hostOf(block) ?? "no node";
        const reason = `its block ${formatPrefix(block.prefix)} belongs to ${owner}, and strictAffinity is set`;
        throw new IpamError("strict-affinity", `${cannot}: ${reason}`);
      }
      const taken = takeExactly(block, ordinal, holder);
      if (taken !== undefined) return { block: taken, result: assignment(taken, ordinal, [pool]) };
      throw new IpamError("address-taken", `${cannot}: ${describeHolder(holderAt(block, ordinal))} has it`);
    };
    // A block may go between being found and being changed, though hardly ever twice.
    for (let attempt = 0; attempt < 5; attempt += 1) {
      const known = held.blocks().find(({ prefix }) => prefixContains(prefix, address));
      const block = known ?? (await shortage.blockAround(pool, address));
      const taken = block && (await held.commit(block.prefix, 1, take));
      if (taken !== undefined) return taken;
    }
    throw new IpamError("contention", `${cannot}: its block kept coming and going`);
  }

  async function assignAll(request: AssignRequest): Promise<Assignment[]> {
    await load();
    const timestamp = new Date(clock()).toISOString();
    const holder: Holder = { handle: request.handle, attributes: { ...request.attributes, node, timestamp } };
    const { addresses = [] } = request;
    const outcomes = await Promise.allSettled(
      addresses.length > 0
        ? addresses.map((address) => assignExactly(request, address, holder))
        : familiesOf(request).map((family) => assignAny(request, family, holder)),
    );
    const given = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed === undefined) return given;
    // What cannot be taken back now goes with the handle's release. The first error is the one to tell of.
    await Promise.allSettled(given.map((assigned) => takeBack(assigned, request.handle)));
    throw failed.reason;
  }

  /** Only this address: the handle may hold others from before. */
  async function takeBack(assigned: Assignment, handle: string): Promise<void> {
    await held.commit(assigned.block, 0, (block) => {
      const ordinal = ordinalOf(block, assigned.address) ?? -1;
      if (holderAt(block, ordinal)?.handle !== handle) return undefined;
      return { block: releaseOrdinals(block, [ordinal], cooldown()), result: ordinal };
    });
  }

  async function releaseHandle(handle: string): Promise<Address[]> {
    const underWay = assigning.get(handle);
    if (underWay !== undefined) await Promise.allSettled(underWay);
    const released = await Promise.all(
      held.blocksOfHandle(handle).map((prefix) =>
        held.commit(prefix, 0, (block) => {
          const ordinals = ordinalsOfHandle(block, handle);
          const addresses = ordinals.map((ordinal) => addressAt(block, ordinal));
          return { block: releaseOrdinals(block, ordinals, cooldown()), result: addresses };
        }),
      ),
    );
    return released.flatMap((addresses) => addresses ?? []);
  }

  async function giveUpUnwanted(): Promise<string[]> {
    const { pools, nodeLabels } = world();
    const done: string[] = [];
    for (const block of ours()) {
      const pool = poolOf(pools, block.prefix.address);
      const wanted = pool !== undefined && keepsBlocks(pool, nodeLabels);
      if (wanted || !isEmpty(block, cooldown()) || held.promised(block.prefix) > 0) continue;
      const stored = await store.getBlock(block.prefix);
      if (stored === undefined || !(await giveUpBlock(store, stored, cooldown(), true))) continue;
      held.observe({ type: "gone", prefix: block.prefix });
      const why = pool === undefined ? "no pool covers it" : `pool ${pool.name} is not for this node any more`;
      done.push(`gave up empty block ${formatPrefix(block.prefix)}: ${why}`);
    }
    return done;
  }

  return {
    load,
    observe: (event) => held.observe(event),
    sync: (blocks) => {
      held.sync(blocks);
      loaded = true;
    },
    assign: async (request) => {
      const running = assignAll(request);
      const others = assigning.get(request.handle) ?? new Set();
      assigning.set(request.handle, others.add(running));
      try {
        return await running;
      } finally {
        others.delete(running);
        if (others.size === 0) assigning.delete(request.handle);
      }
    },
    release: async (handles) => {
      await load();
      return (await Promise.all([...new Set(handles)].map(releaseHandle))).flat();
    },
    addressesOf: (handle) =>
      held.blocks().flatMap((block) => ordinalsOfHandle(block, handle).map((ordinal) => addressAt(block, ordinal))),
    allocations: () =>
      held
        .blocks()
        .flatMap(allocationsOf)
        .filter(({ holder }) => holder.attributes["node"] === node),
    blocks: () => held.blocks(),
    tidy: async () => {
      await load();
      return shortage.exclusively(async () => {
        const repaired = await repairAffinities(store, node, ours());
        return [...repaired, ...(await giveUpUnwanted())];
      });
    },
  };
}

function describeHolder(holder: Holder | undefined): string {
  const { namespace, pod, node, type } = holder?.attributes ?? {};
  const who = pod === undefined ? (type ?? "a holder without a name") : `pod ${namespace ?? ""}/${pod}`;
  return `${who} (handle ${holder?.handle ?? "none"}${node === undefined ? "" : ` on ${node}`})`;
}
