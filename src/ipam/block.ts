/**
 * A block: a slice of a pool (64 addresses by default) that one node holds, and the unit of compare-and-swap. Every
 * function here takes a block and returns a new one; the layout is Calico's, so that its blocks carry over.
 */
import { addressPlus, type Address } from "../ip/address.ts";
import { prefixContains, prefixSize, type Prefix } from "../ip/prefix.ts";
import type { Reservations } from "./reservations.ts";

/** Who holds an address, or, with `releasedAt`, that it cools down and nobody does. */
export interface Holder {
  readonly handle: string | null;
  /** Calico's `secondary`: node, namespace, pod, timestamp, type. */
  readonly attributes: Readonly<Record<string, string>>;
  /** The other owner while a virtual machine moves between nodes. Kept as found. */
  readonly alternate?: Readonly<Record<string, string>>;
  /** Milliseconds since 1970. */
  readonly releasedAt?: number;
}

export interface Block {
  readonly prefix: Prefix;
  /** `host:<node>`, `virtual:<name>`, or null for a block that its node gave up while others held addresses in it. */
  readonly affinity: string | null;
  /** When the affinity was claimed, in milliseconds since 1970; null where that is not known. */
  readonly claimedAt: number | null;
  /** Ordinal of the address in the block → index into `holders`, or null where the address is free. */
  readonly allocations: readonly (number | null)[];
  /** Free ordinals in the order in which they will be given out: the one free for longest comes first. */
  readonly unallocated: readonly number[];
  readonly holders: readonly Holder[];
  /** Goes up with every write, and is never used twice for one prefix. */
  readonly sequenceNumber: number;
  /** Ordinal → the block's sequence number when the address was given out: tells one allocation from the next. */
  readonly sequenceOf: ReadonlyMap<number, number>;
  /** What else the stored object has (labels and the like), for the store to write back. */
  readonly carried?: unknown;
}

/** What to know about time when a block changes. */
export interface Cooldown {
  /** Milliseconds since 1970. */
  readonly now: number;
  /** How long a released address rests before it is given out again. */
  readonly seconds: number;
}

/** The holder of the first and last addresses of Windows nodes' blocks: no workload, so such a block counts as empty. */
const WINDOWS_RESERVED = "windows-reserved-ipam-handle";

export const hostAffinity = (node: string): string => `host:${node}`;

/** The node that the block belongs to; undefined for virtual and orphaned blocks. */
export function hostOf(block: Block): string | undefined {
  return block.affinity?.startsWith("host:") === true ? block.affinity.slice("host:".length) : undefined;
}

/**
 * Sequence numbers start from the clock, so that a block that is deleted and made again never repeats one. Calico
 * counts its nanoseconds, which is beyond what a double counts in ones: such a number goes up to the next double.
 * Ours count microseconds, and go up by one.
 */
function firstSequenceNumber(now: number): number {
  return now * 1000;
}

export function nextSequenceNumber(current: number): number {
  if (current < Number.MAX_SAFE_INTEGER) return current + 1;
  return current + 2 ** (Math.floor(Math.log2(current)) - 52);
}

export function newBlock(prefix: Prefix, affinity: string, now: number): Block {
  const size = Number(prefixSize(prefix));
  return {
    prefix,
    affinity,
    claimedAt: now,
    allocations: Array.from({ length: size }, () => null),
    unallocated: Array.from({ length: size }, (_, ordinal) => ordinal),
    holders: [],
    sequenceNumber: firstSequenceNumber(now),
    sequenceOf: new Map(),
  };
}

export function addressAt(block: Block, ordinal: number): Address {
  return addressPlus(block.prefix.address, BigInt(ordinal));
}

/** The place of an address in its block; undefined where it lies outside. */
export function ordinalOf(block: Block, address: Address): number | undefined {
  if (!prefixContains(block.prefix, address)) return undefined;
  return Number(address.value - block.prefix.address.value);
}

/** The entry of an ordinal: a holder, an address that cools down, or undefined where it is free. */
export function holderAt(block: Block, ordinal: number): Holder | undefined {
  const index = block.allocations[ordinal];
  return index === null || index === undefined ? undefined : block.holders[index];
}

export interface Allocation {
  readonly block: Prefix;
  readonly ordinal: number;
  readonly address: Address;
  readonly holder: Holder;
  /** Undefined on addresses given out by versions of Calico that kept none. */
  readonly sequenceNumber: number | undefined;
}

/** The addresses that somebody holds: neither free ones nor those that cool down. */
export function allocationsOf(block: Block): Allocation[] {
  const found: Allocation[] = [];
  for (const ordinal of block.allocations.keys()) {
    const holder = holderAt(block, ordinal);
    if (holder === undefined || holder.releasedAt !== undefined) continue;
    const sequenceNumber = block.sequenceOf.get(ordinal);
    found.push({ block: block.prefix, ordinal, address: addressAt(block, ordinal), holder, sequenceNumber });
  }
  return found;
}

/** Handles as they are compared. Some old ones carry a line end, see projectcalico/cni-plugin issue 821. */
export function sameHandle(stored: string | null, handle: string): boolean {
  return stored !== null && (stored === handle || stored.split("\r", 1)[0] === handle);
}

export function ordinalsOfHandle(block: Block, handle: string): number[] {
  const indexes = new Set<number>();
  for (const [index, holder] of block.holders.entries()) {
    if (holder.releasedAt === undefined && sameHandle(holder.handle, handle)) indexes.add(index);
  }
  if (indexes.size === 0) return [];
  const ordinals: number[] = [];
  for (const [ordinal, index] of block.allocations.entries()) {
    if (index !== null && indexes.has(index)) ordinals.push(ordinal);
  }
  return ordinals;
}

function isCooled(holder: Holder, cooldown: Cooldown): boolean {
  return holder.releasedAt !== undefined && holder.releasedAt + cooldown.seconds * 1000 <= cooldown.now;
}

/** Addresses whose cool-down is over go to the tail of the free ones, the first released first. */
export function endCooldowns(block: Block, cooldown: Cooldown): Block {
  if (!block.holders.some((holder) => isCooled(holder, cooldown))) return block;
  const over: { ordinal: number; releasedAt: number }[] = [];
  for (const ordinal of block.allocations.keys()) {
    const holder = holderAt(block, ordinal);
    if (holder?.releasedAt !== undefined && isCooled(holder, cooldown)) {
      over.push({ ordinal, releasedAt: holder.releasedAt });
    }
  }
  over.sort((a, b) => a.releasedAt - b.releasedAt || a.ordinal - b.ordinal);
  const ordinals = over.map(({ ordinal }) => ordinal);
  return withoutUnusedHolders({
    ...block,
    ...freed(block, ordinals),
    unallocated: [...block.unallocated, ...ordinals],
  });
}

function freed(block: Block, ordinals: readonly number[]): Pick<Block, "allocations" | "sequenceOf"> {
  const allocations = [...block.allocations];
  const sequenceOf = new Map(block.sequenceOf);
  for (const ordinal of ordinals) {
    allocations[ordinal] = null;
    sequenceOf.delete(ordinal);
  }
  return { allocations, sequenceOf };
}

/** Drops the entries that no ordinal points at, and moves the indexes of the others down. */
function withoutUnusedHolders(block: Block): Block {
  const used = new Set(block.allocations);
  const holders: Holder[] = [];
  const moved = new Map<number, number>();
  for (const [index, holder] of block.holders.entries()) {
    if (!used.has(index)) continue;
    moved.set(index, holders.length);
    holders.push(holder);
  }
  if (holders.length === block.holders.length) return block;
  // An index without an entry stays as it is: a damaged block is for `check` to report, not for us to guess at.
  const allocations = block.allocations.map((index) => (index === null ? null : (moved.get(index) ?? index)));
  return { ...block, allocations, holders };
}

function sameHolder(a: Holder, b: Holder): boolean {
  if (a.handle !== b.handle || a.releasedAt !== b.releasedAt) return false;
  if (a.alternate !== undefined || b.alternate !== undefined) return false;
  const keys = Object.keys(a.attributes);
  return (
    keys.length === Object.keys(b.attributes).length && keys.every((key) => a.attributes[key] === b.attributes[key])
  );
}

/** The block with these ordinals pointing at `holder`, which shares an entry with its equal. */
function pointed(block: Block, ordinals: readonly number[], holder: Holder): Pick<Block, "allocations" | "holders"> {
  const existing = block.holders.findIndex((other) => sameHolder(other, holder));
  const holders = existing >= 0 ? block.holders : [...block.holders, holder];
  const allocations = [...block.allocations];
  for (const ordinal of ordinals) allocations[ordinal] = existing >= 0 ? existing : block.holders.length;
  return { allocations, holders };
}

/** Gives out this address. Undefined where it is not free. */
export function takeOrdinal(block: Block, ordinal: number, holder: Holder): Block | undefined {
  if (!block.unallocated.includes(ordinal) || block.allocations[ordinal] !== null) return undefined;
  return {
    ...block,
    ...pointed(block, [ordinal], holder),
    unallocated: block.unallocated.filter((free) => free !== ordinal),
    sequenceOf: new Map(block.sequenceOf).set(ordinal, block.sequenceNumber),
  };
}

/** Gives out the address that has been free for longest and is not reserved. Undefined where there is none. */
export function takeFree(
  block: Block,
  holder: Holder,
  reservations: Reservations,
): { block: Block; ordinal: number } | undefined {
  for (const ordinal of block.unallocated) {
    if (reservations.has(addressAt(block, ordinal))) continue;
    const taken = takeOrdinal(block, ordinal, holder);
    if (taken !== undefined) return { block: taken, ordinal };
  }
  return undefined;
}

/**
 * Gives out this address even while it cools down, to whoever asks for just this one: a pod that keeps its address over
 * a restart. Undefined where somebody holds it.
 */
export function takeExactly(block: Block, ordinal: number, holder: Holder): Block | undefined {
  const resting = holderAt(block, ordinal)?.releasedAt !== undefined;
  const ready = resting
    ? withoutUnusedHolders({ ...block, ...freed(block, [ordinal]), unallocated: [...block.unallocated, ordinal] })
    : block;
  return takeOrdinal(ready, ordinal, holder);
}

/**
 * Takes addresses back: to the tail of the free ones, or, with a cool-down, into rest. Ordinals that nobody holds are
 * left as they are.
 */
export function releaseOrdinals(block: Block, ordinals: readonly number[], cooldown: Cooldown): Block {
  const held = [...new Set(ordinals)].filter((ordinal) => {
    const holder = holderAt(block, ordinal);
    return holder !== undefined && holder.releasedAt === undefined;
  });
  if (held.length === 0) return block;
  if (cooldown.seconds > 0) {
    const resting: Holder = { handle: null, attributes: {}, releasedAt: cooldown.now };
    return withoutUnusedHolders({ ...block, ...pointed(block, held, resting) });
  }
  return withoutUnusedHolders({ ...block, ...freed(block, held), unallocated: [...block.unallocated, ...held] });
}

/** How many addresses could be given out now. */
export function countFree(block: Block, reservations: Reservations, cooldown: Cooldown): number {
  const { unallocated, allocations } = endCooldowns(block, cooldown);
  const free = unallocated.filter((ordinal) => allocations[ordinal] === null);
  if (!reservations.touches(block.prefix)) return free.length;
  return free.filter((ordinal) => !reservations.has(addressAt(block, ordinal))).length;
}

/** Whether nobody holds an address and none cools down, so that the block may go. */
export function isEmpty(block: Block, cooldown: Cooldown): boolean {
  return block.allocations.every((index) => {
    if (index === null) return true;
    const holder = block.holders[index];
    return holder !== undefined && (isCooled(holder, cooldown) || holder.handle?.toLowerCase() === WINDOWS_RESERVED);
  });
}

export function isWindowsReserved(holder: Holder): boolean {
  return holder.handle?.toLowerCase() === WINDOWS_RESERVED;
}
