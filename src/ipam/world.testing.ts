import { formatAddress, parseAddress, type Address } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { createAllocator, type Allocator, type Assignment } from "./allocator.ts";
import type { Pool } from "./pools.ts";
import { reservationsOf } from "./reservations.ts";
import type { BlockStore } from "./store.ts";
import type { IpamConfig, World } from "./world.ts";

/** A pool that serves everybody, of 64 addresses a block unless told otherwise. */
export function pool(cidr: string, changes: Partial<Pool> = {}): Pool {
  const prefix = parsePrefix(cidr);
  return {
    name: cidr,
    prefix,
    blockSize: prefix.address.family === 4 ? 26 : 122,
    disabled: false,
    automatic: true,
    allowedUses: ["Workload", "Tunnel"],
    selectsNode: () => true,
    selectsNamespace: () => true,
    ...changes,
  };
}

export const usualConfig: IpamConfig = {
  strictAffinity: false,
  maxBlocksPerHost: 20,
  autoAllocateBlocks: true,
  cooldownSeconds: 0,
};

export function world(
  pools: readonly Pool[],
  changes: { config?: Partial<IpamConfig>; reserved?: readonly string[]; nodeLabels?: Record<string, string> } = {},
): World {
  return {
    pools,
    reservations: reservationsOf((changes.reserved ?? []).map(parsePrefix)),
    config: { ...usualConfig, ...changes.config },
    nodeLabels: changes.nodeLabels ?? {},
  };
}

export interface TestClock {
  now: number;
}

/** A node's allocator over `store`; `settings.world` may be changed at any time. */
export function nodeOf(
  name: string,
  store: BlockStore,
  settings: { world: World },
  clock: TestClock = { now: 1_700_000_000_000 },
  random: () => number = () => 0,
): Allocator {
  return createAllocator({ node: name, store, world: () => settings.world, clock: () => clock.now, random });
}

export const address = (text: string): Address => parseAddress(text);

export function texts(given: readonly (Assignment | Address)[]): string[] {
  return given.map((item) => formatAddress("address" in item ? item.address : item));
}
