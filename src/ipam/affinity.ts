/**
 * Claiming a block for a node and giving it up, in steps each of which may be the last one before a crash. The order is
 * Calico's: affinity pending → block → affinity confirmed; affinity pendingDeletion → block → affinity gone. Whatever a
 * crash leaves, `repairOf` says how to put it right.
 */
import { formatPrefix, prefixCovers, type Prefix } from "../ip/prefix.ts";
import { hostAffinity, hostOf, isEmpty, newBlock, nextSequenceNumber, type Block, type Cooldown } from "./block.ts";
import { isConflict, type Affinity, type BlockStore, type Stored } from "./store.ts";

/** Claims a block that does not exist. Undefined where another node was faster. */
export async function claimBlock(
  store: BlockStore,
  node: string,
  prefix: Prefix,
  now: number,
): Promise<Stored<Block> | undefined> {
  const pending = await beginClaim(store, { node, type: "host", prefix, state: "pending" });
  if (pending === undefined) return undefined;
  const created = await unlessConflict(store.createBlock(newBlock(prefix, hostAffinity(node), now)));
  if (created !== undefined) {
    await confirm(store, pending);
    return created;
  }
  const existing = await store.getBlock(prefix);
  if (existing !== undefined && hostOf(existing.value) === node) {
    await confirm(store, pending);
    return existing;
  }
  await unlessConflict(store.deleteAffinity(pending.value, pending.version));
  return undefined;
}

async function beginClaim(store: BlockStore, affinity: Affinity): Promise<Stored<Affinity> | undefined> {
  const created = await unlessConflict(store.createAffinity(affinity));
  if (created !== undefined) return created;
  const existing = await store.getAffinity(affinity.node, affinity.prefix);
  if (existing === undefined || existing.value.state === "confirmed") return existing;
  return unlessConflict(store.updateAffinity({ ...existing.value, state: "pending" }, existing.version));
}

/** A conflict here is harmless: the block says whose it is, and `repairOf` sees to the affinity later. */
async function confirm(store: BlockStore, affinity: Stored<Affinity>): Promise<void> {
  if (affinity.value.state === "confirmed") return;
  await unlessConflict(store.updateAffinity({ ...affinity.value, state: "confirmed" }, affinity.version));
}

/**
 * Gives up a block, as it stands at this version: an empty one goes, one with addresses in use stays without an owner
 * (`mustBeEmpty` refuses that). Returns whether it was given up.
 */
export async function giveUpBlock(
  store: BlockStore,
  block: Stored<Block>,
  cooldown: Cooldown,
  mustBeEmpty: boolean,
): Promise<boolean> {
  const { prefix } = block.value;
  const empty = isEmpty(block.value, cooldown);
  if (mustBeEmpty && !empty) return false;
  const owner = hostOf(block.value);
  const affinity = owner === undefined ? undefined : await store.getAffinity(owner, prefix);
  let leaving = affinity;
  if (affinity !== undefined) {
    leaving = await unlessConflict(
      store.updateAffinity({ ...affinity.value, state: "pendingDeletion" }, affinity.version),
    );
    if (leaving === undefined) return false;
  }
  try {
    if (empty) await store.deleteBlock(prefix, block.version);
    else await store.updateBlock(orphaned(block.value), block.version);
  } catch (error) {
    if (!isConflict(error)) throw error;
    // The block changed meanwhile: its node goes on using it.
    if (leaving !== undefined && affinity !== undefined) {
      await unlessConflict(store.updateAffinity(affinity.value, leaving.version));
    }
    return false;
  }
  if (leaving !== undefined) await unlessConflict(store.deleteAffinity(leaving.value, leaving.version));
  return true;
}

function orphaned(block: Block): Block {
  return { ...block, affinity: null, claimedAt: null, sequenceNumber: nextSequenceNumber(block.sequenceNumber) };
}

export type Repair = "none" | "confirm" | "create" | "drop";

/** What brings the affinity of a node in line with the block, whichever step was the last one before a crash. */
export function repairOf(node: string, affinity: Affinity | undefined, block: Block | undefined): Repair {
  const ours = block !== undefined && hostOf(block) === node;
  if (affinity === undefined) return ours ? "create" : "none";
  if (!ours) return "drop";
  return affinity.state === "confirmed" ? "none" : "confirm";
}

/** Brings a node's affinities in line with its blocks. Returns what was done, for the log. */
export async function repairAffinities(store: BlockStore, node: string, blocks: readonly Block[]): Promise<string[]> {
  const affinities = (await store.listAffinities(node)).filter(({ value }) => value.type === "host");
  const byPrefix = new Map(affinities.map((affinity) => [formatPrefix(affinity.value.prefix), affinity]));
  const prefixes = new Map(
    [...affinities.map(({ value }) => value.prefix), ...blocks.map(({ prefix }) => prefix)].map((prefix) => [
      formatPrefix(prefix),
      prefix,
    ]),
  );
  const held = new Map(blocks.map((block) => [formatPrefix(block.prefix), block]));
  const done: string[] = [];
  for (const [key, prefix] of prefixes) {
    const affinity = byPrefix.get(key);
    if (repairOf(node, affinity?.value, held.get(key)) === "none") continue;
    // What is held in memory gave the hint; the store decides.
    const block = (await store.getBlock(prefix))?.value;
    const repair = repairOf(node, affinity?.value, block);
    if (repair === "none") continue;
    await unlessConflict(applyRepair(store, repair, affinity, { node, type: "host", prefix, state: "confirmed" }));
    done.push(`${repair} affinity of ${node} to ${key}`);
  }
  return done;
}

async function applyRepair(
  store: BlockStore,
  repair: Repair,
  affinity: Stored<Affinity> | undefined,
  confirmed: Affinity,
): Promise<unknown> {
  if (affinity === undefined) return store.createAffinity(confirmed);
  if (repair === "drop") return store.deleteAffinity(affinity.value, affinity.version);
  return store.updateAffinity({ ...affinity.value, state: "confirmed" }, affinity.version);
}

/**
 * Takes every block of a pool from its node, before the pool is deleted: the pool must be disabled already, so that none
 * is claimed anew. Pods keep their addresses. Returns the blocks that could not be taken, because they kept changing.
 */
export async function giveUpPool(store: BlockStore, pool: Prefix, cooldown: Cooldown): Promise<Prefix[]> {
  const left: Prefix[] = [];
  for (const listed of await store.listBlocks()) {
    if (!prefixCovers(pool, listed.value.prefix)) continue;
    let block: Stored<Block> | undefined = listed;
    for (let attempt = 0; attempt < 10 && block !== undefined; attempt += 1) {
      if (hostOf(block.value) === undefined && !isEmpty(block.value, cooldown)) block = undefined;
      else if (await giveUpBlock(store, block, cooldown, false)) block = undefined;
      else block = await store.getBlock(block.value.prefix);
    }
    if (block !== undefined) left.push(block.value.prefix);
  }
  return left;
}

async function unlessConflict<Result>(write: Promise<Result>): Promise<Result | undefined> {
  try {
    return await write;
  } catch (error) {
    if (isConflict(error)) return undefined;
    throw error;
  }
}
