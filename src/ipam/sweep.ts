/** Carries out what `findGarbage` decided, after a last look at each thing that is about to go. */
import { messageOf } from "../lib/errors.ts";
import { formatAddress } from "../ip/address.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import { giveUpBlock } from "./affinity.ts";
import { holderAt, nextSequenceNumber, releaseOrdinals, type Allocation, type Block, type Cooldown } from "./block.ts";
import { judge, type Facts, type Findings, type LeakedAllocation } from "./garbage.ts";
import { isConflict, type BlockStore } from "./store.ts";

/** How often a release is tried against a block that its node keeps changing. The next round comes anyway. */
const RELEASE_ATTEMPTS = 10;

export interface SweepReport {
  readonly released: readonly LeakedAllocation[];
  /** What turned out to be in use, or to have changed, at the last look. */
  readonly kept: readonly LeakedAllocation[];
  readonly blocks: readonly Prefix[];
  /** Sentences about what went wrong; the next round tries again. */
  readonly failures: readonly string[];
}

/** `look` reads the node and the pod of an allocation anew, from the store itself and not from a cache. */
export async function sweep(
  store: BlockStore,
  findings: Findings,
  cooldown: Cooldown,
  look: (allocation: Allocation) => Promise<Facts>,
): Promise<SweepReport> {
  const released: LeakedAllocation[] = [];
  const kept: LeakedAllocation[] = [];
  const blocks: Prefix[] = [];
  const failures: string[] = [];
  const attempt = async (what: string, work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      failures.push(`Cannot ${what}: ${messageOf(error)}`);
    }
  };

  for (const leak of findings.leaks) {
    const addresses = leak.map(({ address }) => formatAddress(address)).join(", ");
    await attempt(`release ${addresses}`, async () => {
      const gone = (await stillLeaked(leak, look)) && (await releaseTogether(store, leak, cooldown));
      (gone ? released : kept).push(...leak);
    });
  }
  for (const block of findings.emptyBlocks) {
    const { prefix } = block.value;
    await attempt(`give up block ${formatPrefix(prefix)}`, async () => {
      if (await giveUpBlock(store, block, cooldown, true)) blocks.push(prefix);
    });
  }
  for (const { value, version } of findings.strayAffinities) {
    await attempt(`drop the affinity of ${value.node} to ${formatPrefix(value.prefix)}`, async () => {
      try {
        await store.deleteAffinity(value, version);
      } catch (error) {
        if (!isConflict(error)) throw error;
      }
    });
  }
  return { released, kept, blocks, failures };
}

async function stillLeaked(
  leak: readonly LeakedAllocation[],
  look: (allocation: Allocation) => Promise<Facts>,
): Promise<boolean> {
  for (const allocation of leak) {
    if (judge(allocation, await look(allocation)).verdict !== "leaked") return false;
  }
  return true;
}

/** All addresses of a handle, in whatever blocks they lie, provided that each is still the allocation that was judged. */
async function releaseTogether(
  store: BlockStore,
  leak: readonly LeakedAllocation[],
  cooldown: Cooldown,
): Promise<boolean> {
  const byBlock = Map.groupBy(leak, ({ block }) => block);
  for (const [prefix, allocations] of byBlock) {
    const block = await store.getBlock(prefix);
    if (block === undefined || !allocations.every((allocation) => isSame(block.value, allocation))) return false;
  }
  let all = true;
  for (const [prefix, allocations] of byBlock) {
    all = (await releaseExactly(store, prefix, allocations, cooldown)) && all;
  }
  return all;
}

/** By compare-and-swap, and only what is still the same allocation. */
async function releaseExactly(
  store: BlockStore,
  prefix: Prefix,
  allocations: readonly LeakedAllocation[],
  cooldown: Cooldown,
): Promise<boolean> {
  for (let attempt = 0; attempt < RELEASE_ATTEMPTS; attempt += 1) {
    const stored = await store.getBlock(prefix);
    if (stored === undefined || !allocations.every((allocation) => isSame(stored.value, allocation))) return false;
    const ordinals = allocations.map(({ ordinal }) => ordinal);
    const block = releaseOrdinals(stored.value, ordinals, cooldown);
    try {
      await store.updateBlock({ ...block, sequenceNumber: nextSequenceNumber(block.sequenceNumber) }, stored.version);
      return true;
    } catch (error) {
      if (!isConflict(error)) throw error;
    }
  }
  return false;
}

/** The handle and the sequence number tell an allocation from a later one of the same address. */
function isSame(block: Block, { ordinal, holder, sequenceNumber }: Allocation): boolean {
  const present = holderAt(block, ordinal);
  return (
    present?.handle === holder.handle &&
    present.releasedAt === undefined &&
    block.sequenceOf.get(ordinal) === sequenceNumber
  );
}
