/** A block store in memory: versions go up by one, and it counts what is asked of it. */
import { setImmediate } from "node:timers/promises";
import { Failure } from "../lib/errors.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import type { Block } from "./block.ts";
import type { Affinity, BlockStore, Stored } from "./store.ts";

export interface MemoryBlockStore extends BlockStore {
  /** The same store as another client sees it, with pauses of its own. */
  readonly client: (pause: Pause) => BlockStore;
  readonly blocks: Map<string, Stored<Block>>;
  readonly affinities: Map<string, Stored<Affinity>>;
  readonly counts: { reads: number; writes: number; conflicts: number };
}

export type Pause = (moment: string) => Promise<unknown>;

/**
 * `pause` is awaited before and after each operation, with its name: there a test decides who comes next, or throws to
 * let the caller crash, before an operation that then did not happen, or after one that did.
 */
export function memoryBlockStore(pause: Pause = () => setImmediate()): MemoryBlockStore {
  const blocks = new Map<string, Stored<Block>>();
  const affinities = new Map<string, Stored<Affinity>>();
  const counts = { reads: 0, writes: 0, conflicts: 0 };
  let version = 0;

  function conflict(what: string): never {
    counts.conflicts += 1;
    throw new Failure("conflict", `${what} is not at that version`);
  }

  function put<Value>(
    map: Map<string, Stored<Value>>,
    key: string,
    value: Value,
    expected: string | undefined,
  ): Stored<Value> {
    if (map.get(key)?.version !== expected) conflict(key);
    version += 1;
    const stored = { value, version: String(version) };
    map.set(key, stored);
    return stored;
  }

  function remove<Value>(map: Map<string, Stored<Value>>, key: string, expected: string): void {
    if (map.get(key)?.version !== expected) conflict(key);
    map.delete(key);
  }

  const affinityKey = (node: string, prefix: Prefix): string => `${node} ${formatPrefix(prefix)}`;

  function client(wait: Pause): BlockStore {
    async function operation<Result>(name: string, kind: "reads" | "writes", run: () => Result): Promise<Result> {
      await wait(`before ${name}`);
      counts[kind] += 1;
      const result = run();
      await wait(`after ${name}`);
      return result;
    }
    return {
      getBlock: (prefix) => operation("getBlock", "reads", () => blocks.get(formatPrefix(prefix))),
      listBlocks: () => operation("listBlocks", "reads", () => [...blocks.values()]),
      createBlock: (block) =>
        operation("createBlock", "writes", () => put(blocks, formatPrefix(block.prefix), block, undefined)),
      updateBlock: (block, expected) =>
        operation("updateBlock", "writes", () => put(blocks, formatPrefix(block.prefix), block, expected)),
      deleteBlock: (prefix, expected) =>
        operation("deleteBlock", "writes", () => remove(blocks, formatPrefix(prefix), expected)),
      getAffinity: (node, prefix) => operation("getAffinity", "reads", () => affinities.get(affinityKey(node, prefix))),
      listAffinities: (node) =>
        operation("listAffinities", "reads", () =>
          [...affinities.values()].filter(({ value }) => node === undefined || value.node === node),
        ),
      createAffinity: (affinity) =>
        operation("createAffinity", "writes", () =>
          put(affinities, affinityKey(affinity.node, affinity.prefix), affinity, undefined),
        ),
      updateAffinity: (affinity, expected) =>
        operation("updateAffinity", "writes", () =>
          put(affinities, affinityKey(affinity.node, affinity.prefix), affinity, expected),
        ),
      deleteAffinity: (affinity, expected) =>
        operation("deleteAffinity", "writes", () =>
          remove(affinities, affinityKey(affinity.node, affinity.prefix), expected),
        ),
    };
  }

  return { ...client(pause), client, blocks, affinities, counts };
}
