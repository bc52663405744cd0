/** What the allocator asks of a datastore: blocks and affinities under compare-and-swap. */
import { codeOf } from "../lib/errors.ts";
import type { Prefix } from "../ip/prefix.ts";
import type { Block } from "./block.ts";

/** A value and the version of it that a compare-and-swap names. Versions are opaque. */
export interface Stored<Value> {
  readonly value: Value;
  readonly version: string;
}

/**
 * That a node claims a block: written `pending` before the block is, `confirmed` after, and `pendingDeletion` before
 * the block goes. The block itself is the truth about who may give out its addresses; the affinity says who began what.
 */
export interface Affinity {
  /** A node, or with type `virtual`, the name of what holds the block instead. */
  readonly node: string;
  readonly type: "host" | "virtual";
  readonly prefix: Prefix;
  readonly state: "pending" | "confirmed" | "pendingDeletion";
  /** As of a block. */
  readonly carried?: unknown;
}

/**
 * Writes fail with code `conflict` when the object is not at the version named, is gone, or (create) is there already:
 * then nothing was written. After any other error it is not known whether the write took place.
 */
export interface BlockStore {
  getBlock(prefix: Prefix): Promise<Stored<Block> | undefined>;
  listBlocks(): Promise<Stored<Block>[]>;
  createBlock(block: Block): Promise<Stored<Block>>;
  updateBlock(block: Block, version: string): Promise<Stored<Block>>;
  deleteBlock(prefix: Prefix, version: string): Promise<void>;
  getAffinity(node: string, prefix: Prefix): Promise<Stored<Affinity> | undefined>;
  /** Those of one node, or all. */
  listAffinities(node?: string): Promise<Stored<Affinity>[]>;
  createAffinity(affinity: Affinity): Promise<Stored<Affinity>>;
  updateAffinity(affinity: Affinity, version: string): Promise<Stored<Affinity>>;
  deleteAffinity(affinity: Affinity, version: string): Promise<void>;
}

export function isConflict(thrown: unknown): boolean {
  return codeOf(thrown) === "conflict";
}
