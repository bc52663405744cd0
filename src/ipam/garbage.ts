/**
 * Which addresses and blocks are held by nobody any more. An allocation is taken for good until the contrary is shown:
 * what is not known is kept, and what looks leaked must do so twice, with the grace period in between.
 */
import { formatAddress } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import {
  allocationsOf,
  hostOf,
  isEmpty,
  isWindowsReserved,
  type Allocation,
  type Block,
  type Cooldown,
} from "./block.ts";
import { isTunnelType } from "./handles.ts";
import type { Affinity, Stored } from "./store.ts";

export const DEFAULT_GRACE_MS = 15 * 60_000;

export interface KnownPod {
  /** Empty while it is not scheduled. */
  readonly node: string;
  /** In their normal form; empty while none is reported. */
  readonly addresses: readonly string[];
}

/** What is known of the cluster at one moment. */
export interface Facts {
  readonly nodes: ReadonlySet<string>;
  /** By `namespace/name`. */
  readonly pods: ReadonlyMap<string, KnownPod>;
  /** By node, the addresses that its agent has endpoints for, where it tells. */
  readonly endpoints?: ReadonlyMap<string, ReadonlySet<string>>;
}

export type Judgement =
  | { readonly verdict: "live" | "unknown" }
  /** `nodeGone`: there is no node on which it could be in use, so nothing is worth waiting for. */
  | { readonly verdict: "leaked"; readonly reason: string; readonly nodeGone: boolean };

/** Whether somebody uses the address, by these facts alone. */
export function judge({ address, holder }: Allocation, facts: Facts): Judgement {
  const { node, namespace, pod, type } = holder.attributes;
  const text = formatAddress(address);
  if (node === undefined || isWindowsReserved(holder)) return { verdict: "unknown" };
  if (facts.endpoints?.get(node)?.has(text) === true) return { verdict: "live" };
  const nodeGone = !facts.nodes.has(node);
  if (isTunnelType(type)) {
    return nodeGone ? { verdict: "leaked", reason: `node ${node} does not exist`, nodeGone } : { verdict: "live" };
  }
  if (namespace === undefined || pod === undefined) return { verdict: "unknown" };
  const known = facts.pods.get(`${namespace}/${pod}`);
  if (known === undefined) {
    const reason = `pod ${namespace}/${pod} does not exist${nodeGone ? `, nor does node ${node}` : ""}`;
    return { verdict: "leaked", reason, nodeGone };
  }
  if (known.node === "") return { verdict: "unknown" };
  if (known.node !== node) {
    return { verdict: "leaked", reason: `pod ${namespace}/${pod} is on node ${known.node}, not on ${node}`, nodeGone };
  }
  if (known.addresses.length === 0 || known.addresses.includes(text)) return { verdict: "live" };
  return { verdict: "leaked", reason: `pod ${namespace}/${pod} has ${known.addresses.join(", ")} instead`, nodeGone };
}

/** When something began to look like garbage (milliseconds since 1970), by what it is. */
export interface Suspicions {
  readonly allocations: ReadonlyMap<string, number>;
  readonly emptyBlocks: ReadonlyMap<string, number>;
}

export const NO_SUSPICIONS: Suspicions = { allocations: new Map(), emptyBlocks: new Map() };

export interface LeakedAllocation extends Allocation {
  readonly reason: string;
}

export interface Findings {
  /** What to take back: all addresses of one handle, or none. */
  readonly leaks: readonly (readonly LeakedAllocation[])[];
  /** Blocks to give up. */
  readonly emptyBlocks: readonly Stored<Block>[];
  /** Affinities that stand for nothing: their node and their block are both gone, or the block is another's. */
  readonly strayAffinities: readonly Stored<Affinity>[];
  /** To be passed in next time. */
  readonly suspicions: Suspicions;
}

export interface Cluster {
  readonly blocks: readonly Stored<Block>[];
  readonly affinities: readonly Stored<Affinity>[];
  readonly facts: Facts;
}

/** One look at the whole cluster. Decides only; what is found is looked at once more before it is released. */
export function findGarbage(
  { blocks, affinities, facts }: Cluster,
  previous: Suspicions,
  { cooldown, graceMs }: { readonly cooldown: Cooldown; readonly graceMs: number },
): Findings {
  const { now } = cooldown;
  const suspicions = { allocations: new Map<string, number>(), emptyBlocks: new Map<string, number>() };
  /** Whether it was seen before, and long enough ago. Remembers it for the next time. */
  const lasts = (seen: Map<string, number>, before: ReadonlyMap<string, number>, key: string): boolean => {
    const since = before.get(key);
    seen.set(key, since ?? now);
    return since !== undefined && now - since >= graceMs;
  };

  const byHandle = new Map<string, { confirmed: LeakedAllocation[]; others: number }>();
  for (const { value: block } of blocks) {
    for (const allocation of allocationsOf(block)) {
      const group = allocation.holder.handle ?? `address ${formatAddress(allocation.address)}`;
      const handle = byHandle.get(group) ?? { confirmed: [], others: 0 };
      byHandle.set(group, handle);
      const judgement = judge(allocation, facts);
      const confirmed =
        judgement.verdict === "leaked" &&
        (lasts(suspicions.allocations, previous.allocations, allocationKey(allocation)) || judgement.nodeGone);
      if (confirmed) handle.confirmed.push({ ...allocation, reason: judgement.reason });
      else handle.others += 1;
    }
  }
  const leaks = [...byHandle.values()].filter(({ others }) => others === 0).map(({ confirmed }) => confirmed);

  const kept = new Map<string, number>();
  for (const { value } of blocks) kept.set(shareOf(value), (kept.get(shareOf(value)) ?? 0) + 1);
  const emptyBlocks = blocks.filter(({ value: block }) => {
    const node = hostOf(block);
    if (!isEmpty(block, cooldown) || (node === undefined && block.affinity !== null)) return false;
    // Its sequence number is in the key: a block that was used in between begins anew.
    const key = `${formatPrefix(block.prefix)} at ${block.sequenceNumber}`;
    const empty = lasts(suspicions.emptyBlocks, previous.emptyBlocks, key);
    if (node !== undefined && !facts.nodes.has(node)) return true;
    if (!empty || node === undefined) return empty;
    // The node's last block of the family stays: its next pod would only have to claim one again.
    const left = kept.get(shareOf(block)) ?? 0;
    if (left > 1) kept.set(shareOf(block), left - 1);
    return left > 1;
  });

  const hosts = new Map(blocks.map(({ value }) => [formatPrefix(value.prefix), hostOf(value)]));
  const strayAffinities = affinities.filter(({ value: { node, type, prefix } }) => {
    // A node that lives sees to its own: this one may be in the midst of a claim.
    return type === "host" && !facts.nodes.has(node) && hosts.get(formatPrefix(prefix)) !== node;
  });
  return { leaks, emptyBlocks, strayAffinities, suspicions };
}

function allocationKey({ address, holder, sequenceNumber }: Allocation): string {
  return `${formatAddress(address)} ${holder.handle ?? ""} ${sequenceNumber ?? ""}`;
}

/** The blocks among which one is the last. */
function shareOf(block: Block): string {
  return `${hostOf(block) ?? ""} ${block.prefix.address.family}`;
}
