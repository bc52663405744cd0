/** Which pools may serve a request, and of each other pool, why not. */
import { addressBits, addressPlus, type Address, type Family } from "../ip/address.ts";
import { formatPrefix, networkOf, prefixContains, prefixSize, type Prefix } from "../ip/prefix.ts";
import { IpamError } from "./errors.ts";
import type { Reservations } from "./reservations.ts";

export type Labels = Readonly<Record<string, string>>;
export type PoolUse = "Workload" | "Tunnel" | "LoadBalancer";

export interface Pool {
  readonly name: string;
  readonly prefix: Prefix;
  /** Prefix length of its blocks. */
  readonly blockSize: number;
  readonly disabled: boolean;
  /** Whether requests that name no pool may be served from it (`assignmentMode: Automatic`). */
  readonly automatic: boolean;
  readonly allowedUses: readonly PoolUse[];
  readonly selectsNode: (labels: Labels) => boolean;
  readonly selectsNamespace: (labels: Labels) => boolean;
}

export interface PoolRequest {
  readonly family: Family;
  readonly use: PoolUse;
  /** Names or CIDRs. They are taken as they are: selectors and assignment mode do not matter for them. */
  readonly requested?: readonly string[] | undefined;
  readonly nodeLabels: Labels;
  /** Absent for what belongs to no namespace (tunnels, bare containers): namespace selectors then match as if it had no labels. */
  readonly namespaceLabels?: Labels | undefined;
}

export interface PoolChoice {
  readonly pools: readonly Pool[];
  readonly rejected: readonly { readonly pool: string; readonly reason: string }[];
}

/** The pools that may serve the request, in the order in which they are tried. Throws `bad-request` for a pool that is not there. */
export function choosePools(all: readonly Pool[], request: PoolRequest): PoolChoice {
  const named = request.requested !== undefined && request.requested.length > 0;
  const candidates = named
    ? request.requested.map((text) => requestedPool(all, text, request.family))
    : all.filter((pool) => pool.prefix.address.family === request.family);
  const pools: Pool[] = [];
  const rejected: { pool: string; reason: string }[] = [];
  for (const pool of candidates) {
    const reason = (named ? undefined : notSelected(pool, request)) ?? notForUse(pool, request.use);
    if (reason === undefined) pools.push(pool);
    else rejected.push({ pool: pool.name, reason });
  }
  return { pools, rejected };
}

function requestedPool(all: readonly Pool[], text: string, family: Family): Pool {
  const pool = all.find((candidate) => candidate.name === text || formatPrefix(candidate.prefix) === text);
  if (pool === undefined)
    throw new IpamError("bad-request", `Cannot assign from pool "${text}": there is no such IPPool`);
  if (pool.disabled) throw new IpamError("bad-request", `Cannot assign from pool "${text}": it is disabled`);
  if (pool.prefix.address.family !== family) {
    throw new IpamError(
      "bad-request",
      `Cannot assign an IPv${family} address from pool "${text}": it is ${formatPrefix(pool.prefix)}`,
    );
  }
  return pool;
}

function notSelected(pool: Pool, request: PoolRequest): string | undefined {
  if (pool.disabled) return "it is disabled";
  if (!pool.automatic) return "its assignmentMode is Manual, and the request does not name it";
  if (!pool.selectsNode(request.nodeLabels)) return "its nodeSelector does not match the node";
  if (!pool.selectsNamespace(request.namespaceLabels ?? {}))
    return "its namespaceSelector does not match the namespace";
  return undefined;
}

function notForUse(pool: Pool, use: PoolUse): string | undefined {
  return pool.allowedUses.includes(use) ? undefined : `its allowedUses are ${pool.allowedUses.join(", ")}, not ${use}`;
}

/** "default-ipv4-ippool: it is disabled; …", or that there are none. */
export function describeRejected(choice: PoolChoice, family: Family): string {
  if (choice.rejected.length === 0) return `there is no IPv${family} pool`;
  return choice.rejected.map(({ pool, reason }) => `${pool}: ${reason}`).join("; ");
}

/** Whether the node may keep empty blocks of the pool. Uses do not matter: a tunnel's block may serve no workload. */
export function keepsBlocks(pool: Pool, nodeLabels: Labels): boolean {
  return !pool.disabled && pool.selectsNode(nodeLabels);
}

/** The pool that holds the address. Pools do not overlap. */
export function poolOf(pools: readonly Pool[], address: Address): Pool | undefined {
  return pools.find((pool) => prefixContains(pool.prefix, address));
}

/** FNV-1, 32 bits, as Calico seeds its walk over a pool's blocks. */
export function fnv32(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = (Math.imul(hash, 0x01000193) ^ byte) >>> 0;
  return hash;
}

/** Spreads the bits of a hash (the finaliser of MurmurHash3): FNV-1 gives neighbours to names that differ in their last letter. */
function spread(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Length of the pool's blocks; a pool smaller than its block size is one block. */
export function blockLengthOf(pool: Pool): number {
  return Math.max(pool.blockSize, pool.prefix.length);
}

/**
 * Where a node begins to look for a block: always in the same place, which differs between nodes, so that they seldom
 * meet. Blocks of one address have nothing to be found again by, so the walk begins anywhere.
 */
function firstIndex(pool: Pool, node: string, blocks: bigint, random: () => number): bigint {
  const anywhere = blockLengthOf(pool) === addressBits(pool.prefix.address.family);
  const high = anywhere ? Math.floor(random() * 2 ** 32) : spread(fnv32(node));
  const low = anywhere ? Math.floor(random() * 2 ** 32) : spread(high);
  return ((BigInt(high) << 32n) | BigInt(low)) % blocks;
}

/**
 * The blocks of a pool in the order in which this node tries them: once around from its starting place. Blocks that are
 * reserved whole are passed over, and a long reserved range in one step.
 */
export function* blocksInSearchOrder(
  pool: Pool,
  node: string,
  reservations: Reservations,
  random: () => number,
): Generator<Prefix> {
  const length = blockLengthOf(pool);
  const size = 1n << BigInt(addressBits(pool.prefix.address.family) - length);
  const blocks = prefixSize(pool.prefix) / size;
  const start = firstIndex(pool, node, blocks, random);
  for (let step = 0n; step < blocks; step += 1n) {
    const index = (start + step) % blocks;
    const prefix: Prefix = { address: addressPlus(pool.prefix.address, index * size), length };
    const reservedTo = reservations.endOfCover(prefix);
    if (reservedTo === undefined) {
      yield prefix;
      continue;
    }
    const whole = (reservedTo + 1n - prefix.address.value) / size;
    const beforeWrap = blocks - index;
    step += (whole < beforeWrap ? whole : beforeWrap) - 1n;
  }
}

/** The block that the address falls into when its pool's blocks are cut as they are now. */
export function blockPrefixOf(pool: Pool, address: Address): Prefix {
  return networkOf(address, blockLengthOf(pool));
}
