/**
 * The blocks that a node holds, or has addresses in, kept in memory so that giving out a free address costs one write
 * and no read. Changes of a block that arrive while it is being written go out together in its next write, and each
 * caller learns of its own change only when that is durable.
 */
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import { endCooldowns, hostOf, nextSequenceNumber, type Block, type Cooldown } from "./block.ts";
import { IpamError } from "./errors.ts";
import { isConflict, type BlockStore, type Stored } from "./store.ts";

/** How often a change is tried against a block that others keep changing; Calico's own number. */
const CONFLICT_RETRIES = 100;

/** The changed block and what to tell the caller; undefined where the block cannot serve the change. */
export type BlockChange<Result> = (block: Block) => { readonly block: Block; readonly result: Result } | undefined;

/** What a watch or a list says of a block. */
export type BlockEvent =
  | { readonly type: "put"; readonly block: Stored<Block> }
  | { readonly type: "gone"; readonly prefix: Prefix };

export interface HeldBlocks {
  /** Takes in what a watch says. Older news than what is held (the echo of our own writes) is passed over. */
  observe(event: BlockEvent): void;
  /** Takes in a full list: blocks that it lacks are looked up again before they are used. */
  sync(blocks: readonly Stored<Block>[]): void;
  /** Holds on to a block for the sake of a change about to be made to it. */
  hold(block: Stored<Block>): void;
  /** Every block held that is not known to be gone. */
  blocks(): Block[];
  /** Addresses that changes on their way to the store will take from the block. */
  promised(prefix: Prefix): number;
  /** Blocks in which the handle has addresses, and those of which that is not known. */
  blocksOfHandle(handle: string): Prefix[];
  /** The result is undefined where the block is gone or cannot serve the change. `takes`: how many addresses it takes. */
  commit<Result>(prefix: Prefix, takes: number, change: BlockChange<Result>): Promise<Result | undefined>;
}

interface Pending {
  readonly takes: number;
  /** Applies the change; `settle` tells the caller, once the block is written. */
  readonly apply: (block: Block) => { block: Block; settle: () => void };
  readonly gone: () => void;
  readonly fail: (error: unknown) => void;
}

interface Entry {
  readonly prefix: Prefix;
  stored: Stored<Block>;
  /** What is held may not be what is stored: read it again before the next change. */
  doubtful: boolean;
  /** It seems to be gone: it counts as such until it is read again. */
  gone: boolean;
  queue: Pending[];
  writing: readonly Pending[];
  draining: boolean;
}

export function createHeldBlocks(node: string, store: BlockStore, cooldown: () => Cooldown): HeldBlocks {
  const entries = new Map<string, Entry>();
  /** Handle → keys of the entries in which it has addresses. */
  const byHandle = new Map<string, Set<string>>();

  const concernsUs = (block: Block): boolean =>
    hostOf(block) === node || block.holders.some((holder) => holder.attributes["node"] === node);

  function unindex(entry: Entry): void {
    const key = formatPrefix(entry.prefix);
    for (const holder of entry.stored.value.holders) {
      if (holder.handle === null) continue;
      const handle = withoutLineEnd(holder.handle);
      const keys = byHandle.get(handle);
      if (keys?.delete(key) === true && keys.size === 0) byHandle.delete(handle);
    }
  }

  function index(entry: Entry): void {
    const key = formatPrefix(entry.prefix);
    for (const holder of entry.stored.value.holders) {
      if (holder.handle === null) continue;
      const handle = withoutLineEnd(holder.handle);
      const keys = byHandle.get(handle);
      if (keys === undefined) byHandle.set(handle, new Set([key]));
      else keys.add(key);
    }
  }

  function put(entry: Entry, stored: Stored<Block>): void {
    unindex(entry);
    entry.stored = stored;
    entry.doubtful = false;
    entry.gone = false;
    index(entry);
  }

  function forget(entry: Entry): void {
    unindex(entry);
    entries.delete(formatPrefix(entry.prefix));
  }

  /** The block may have been made since, by us or anew: only the store knows. */
  function suspectGone(entry: Entry): void {
    entry.doubtful = true;
    entry.gone = true;
  }

  function add(stored: Stored<Block>): Entry {
    const prefix = stored.value.prefix;
    const entry: Entry = { prefix, stored, doubtful: false, gone: false, queue: [], writing: [], draining: false };
    entries.set(formatPrefix(prefix), entry);
    index(entry);
    return entry;
  }

  function takeIn(stored: Stored<Block>, always: boolean): void {
    const entry = entries.get(formatPrefix(stored.value.prefix));
    if (entry === undefined) {
      if (always || concernsUs(stored.value)) add(stored);
      return;
    }
    const newer = stored.value.sequenceNumber > entry.stored.value.sequenceNumber;
    if (newer || entry.doubtful) put(entry, stored);
    if (!entry.draining && !always && !concernsUs(entry.stored.value)) forget(entry);
  }

  /** One write for all of `batch`. */
  async function write(entry: Entry, batch: readonly Pending[]): Promise<void> {
    for (let attempt = 0; attempt < CONFLICT_RETRIES; attempt += 1) {
      if (entry.doubtful || attempt > 0) {
        const fresh = await store.getBlock(entry.prefix);
        if (fresh === undefined) {
          forget(entry);
          for (const pending of [...batch, ...entry.queue.splice(0)]) pending.gone();
          return;
        }
        put(entry, fresh);
      }
      const { value, version } = entry.stored;
      let block = endCooldowns(value, cooldown());
      const settled: (() => void)[] = [];
      const before = block;
      for (const pending of batch) {
        const applied = pending.apply(block);
        block = applied.block;
        settled.push(applied.settle);
      }
      if (block !== before) {
        try {
          const next = { ...block, sequenceNumber: nextSequenceNumber(block.sequenceNumber) };
          const updated = await store.updateBlock(next, version);
          // A watch may have brought still later news meanwhile.
          if (updated.value.sequenceNumber > entry.stored.value.sequenceNumber) put(entry, updated);
        } catch (error) {
          if (isConflict(error)) continue;
          entry.doubtful = true;
          throw error;
        }
      }
      for (const settle of settled) settle();
      return;
    }
    throw new IpamError(
      "contention",
      `Cannot change block ${formatPrefix(entry.prefix)}: others changed it at each of ${CONFLICT_RETRIES} attempts`,
    );
  }

  async function drain(entry: Entry): Promise<void> {
    entry.draining = true;
    while (entry.queue.length > 0) {
      entry.writing = entry.queue;
      entry.queue = [];
      try {
        await write(entry, entry.writing);
      } catch (error) {
        for (const pending of entry.writing) pending.fail(error);
      }
      entry.writing = [];
    }
    entry.draining = false;
    const current = entries.get(formatPrefix(entry.prefix)) === entry;
    if (current && !entry.doubtful && !concernsUs(entry.stored.value)) forget(entry);
  }

  return {
    observe: (event) => {
      if (event.type === "put") return takeIn(event.block, false);
      const entry = entries.get(formatPrefix(event.prefix));
      if (entry !== undefined) suspectGone(entry);
    },
    sync: (blocks) => {
      const listed = new Set(blocks.map((stored) => formatPrefix(stored.value.prefix)));
      for (const [key, entry] of entries) if (!listed.has(key)) suspectGone(entry);
      for (const stored of blocks) takeIn(stored, false);
    },
    hold: (stored) => takeIn(stored, true),
    blocks: () => [...entries.values()].flatMap((entry) => (entry.gone ? [] : entry.stored.value)),
    promised: (prefix) => {
      const entry = entries.get(formatPrefix(prefix));
      if (entry === undefined) return 0;
      return [...entry.writing, ...entry.queue].reduce((sum, pending) => sum + pending.takes, 0);
    },
    blocksOfHandle: (handle) => {
      const keys = new Set(byHandle.get(withoutLineEnd(handle)));
      for (const [key, entry] of entries) if (entry.doubtful) keys.add(key);
      return [...keys].flatMap((key) => entries.get(key)?.prefix ?? []);
    },
    commit: (prefix, takes, change) => {
      const entry = entries.get(formatPrefix(prefix));
      if (entry === undefined) return Promise.resolve(undefined);
      return new Promise((resolve, reject) => {
        const apply: Pending["apply"] = (block) => {
          try {
            const changed = change(block);
            return { block: changed?.block ?? block, settle: () => resolve(changed?.result) };
          } catch (error) {
            return { block, settle: () => reject(error instanceof Error ? error : new Error(String(error))) };
          }
        };
        entry.queue.push({ takes, apply, gone: () => resolve(undefined), fail: reject });
        if (!entry.draining) void drain(entry);
      });
    },
  };
}

/** Some old handles carry a line end, see `sameHandle`. */
function withoutLineEnd(handle: string): string {
  return handle.split("\r", 1)[0] ?? "";
}
