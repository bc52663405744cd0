import type { Datastore } from "../datastore/datastore.ts";
import { formatPrefix, hostPrefix, prefixContains, type Prefix } from "../ip/prefix.ts";
import { createAllocator, type Allocator } from "../ipam/allocator.ts";
import { hostOf } from "../ipam/block.ts";
import { worldOf, type World } from "../ipam/world.ts";
import { messageOf } from "../lib/errors.ts";
import { storedBlock } from "../ipam/objects.ts";
import { createBlockStore } from "./blockStore.ts";
import type { BlockChange, Cluster } from "./cluster.io.ts";

/** The node's share of the address pools, kept in step with what people configure. */
export interface Addressing {
  readonly allocator: Allocator;
  /** Says whether it changes what this node announces: its blocks, or its addresses from others' blocks. */
  observe(change: BlockChange): boolean;
  /** Pools, reservations, the configuration or this node's labels have changed. */
  worldChanged(): void;
  /** Blocks that this node holds. */
  blocks(): Prefix[];
  /** Addresses that this node has from blocks of others: each is announced by itself. */
  borrowed(): Prefix[];
  /** Puts right what was left half done. Returns at once. */
  tidy(): void;
}

type Log = (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;

/** `cluster` is asked for only after the first sync. */
export function createAddressing(datastore: Datastore, node: string, cluster: () => Cluster, log: Log): Addressing {
  let world: World | undefined;
  let tidying: Promise<void> | undefined;

  function currentWorld(): World {
    world ??= worldOf(
      {
        pools: cluster().items("IPPool"),
        reservations: cluster().items("IPReservation"),
        configuration: cluster().get("IPAMConfiguration", "default"),
      },
      cluster().get("Node", node)?.metadata.labels ?? {},
    );
    return world;
  }

  const allocator = createAllocator({
    node,
    store: createBlockStore(datastore),
    world: currentWorld,
    clock: Date.now,
    random: Math.random,
  });

  let announced = "";
  const blocks = (): Prefix[] =>
    allocator
      .blocks()
      .filter((block) => hostOf(block) === node)
      .map(({ prefix }) => prefix);
  const borrowed = (): Prefix[] => {
    const own = blocks();
    if (allocator.blocks().length === own.length) return [];
    return allocator
      .allocations()
      .filter(({ address }) => !own.some((block) => prefixContains(block, address)))
      .map(({ address }) => hostPrefix(address));
  };

  return {
    allocator,
    observe(change) {
      if (change.type === "sync") allocator.sync(change.blocks.map(storedBlock));
      else if (change.type === "put") allocator.observe({ type: "put", block: storedBlock(change.block) });
      else allocator.observe({ type: "gone", prefix: storedBlock(change.block).value.prefix });
      const now = [...blocks(), ...borrowed()].map(formatPrefix).toSorted().join(" ");
      if (now === announced) return false;
      announced = now;
      return true;
    },
    worldChanged() {
      world = undefined;
    },
    blocks,
    borrowed,
    tidy() {
      tidying ??= allocator
        .tidy()
        .then((done) => {
          for (const what of done) log("info", "address blocks put in order", { what });
        })
        .catch((error: unknown) =>
          log("warn", "address blocks could not be put in order", { reason: messageOf(error) }),
        )
        .finally(() => {
          tidying = undefined;
        });
    },
  };
}
