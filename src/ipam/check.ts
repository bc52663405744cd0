/** Whether what is allocated is what is in use: compares the books of the blocks with pods and nodes. */
import { compareAddresses, formatAddress, type Address } from "../ip/address.ts";
import { formatPrefix, prefixSize } from "../ip/prefix.ts";
import { addressAt, allocationsOf, hostOf, type Allocation, type Block } from "./block.ts";
import { judge, type Facts } from "./garbage.ts";
import { poolOf, type Pool } from "./pools.ts";
import { holderName } from "./show.ts";
import type { Affinity } from "./store.ts";

/** An address that somebody has, wherever it came from. */
export interface Use {
  readonly address: Address;
  readonly kind: "workload" | "tunnel";
  /** `pod default/web`, `node1 (ipip tunnel)`. */
  readonly owner: string;
}

export interface CheckInput {
  readonly pools: readonly Pool[];
  readonly blocks: readonly Block[];
  readonly affinities: readonly Affinity[];
  readonly uses: readonly Use[];
  readonly facts: Facts;
  /** Ids of the IPAMHandle objects that a cluster under Calico left. Nothing here writes any. */
  readonly handles: readonly string[];
}

export type ProblemKind =
  | "leaked"
  | "not-allocated"
  | "not-in-active-pool"
  | "multiple-owners"
  | "invalid-block"
  | "affinity"
  | "empty-handle";

export interface Problem {
  readonly kind: ProblemKind;
  readonly address?: string;
  /** A sentence. */
  readonly message: string;
}

export interface CheckReport {
  readonly blocks: readonly { readonly cidr: string; readonly affinity: string | null; readonly allocations: number }[];
  readonly allocations: number;
  readonly coolingDown: number;
  readonly activePools: readonly string[];
  readonly tunnelAddresses: number;
  readonly workloadAddresses: number;
  readonly handles: number;
  /** Most first. */
  readonly nodes: readonly { readonly node: string; readonly allocations: number }[];
  readonly problems: readonly Problem[];
}

export function checkIpam(input: CheckInput): CheckReport {
  const { pools, blocks, uses, handles } = input;
  const allocations = blocks.flatMap(allocationsOf);
  const active = pools.filter(({ disabled }) => !disabled);
  const perNode = new Map<string, number>();
  for (const { holder } of allocations) {
    const node = holder.attributes["node"];
    if (node !== undefined) perNode.set(node, (perNode.get(node) ?? 0) + 1);
  }
  return {
    blocks: blocks.map((block) => ({
      cidr: formatPrefix(block.prefix),
      affinity: block.affinity,
      allocations: allocationsOf(block).length,
    })),
    allocations: allocations.length,
    coolingDown: blocks.flatMap(restingIn).length,
    activePools: active.map(({ prefix }) => formatPrefix(prefix)),
    tunnelAddresses: uses.filter(({ kind }) => kind === "tunnel").length,
    workloadAddresses: uses.filter(({ kind }) => kind === "workload").length,
    handles: handles.length,
    nodes: [...perNode]
      .map(([node, held]) => ({ node, allocations: held }))
      .sort((a, b) => b.allocations - a.allocations || (a.node < b.node ? -1 : 1)),
    problems: [
      ...leaks(allocations, input),
      ...unaccounted(allocations, uses, active),
      ...sharedAddresses(uses),
      ...blocks.flatMap(blockFaults).map((message): Problem => ({ kind: "invalid-block", message })),
      ...affinityProblems(input),
      ...emptyHandles(allocations, handles),
    ],
  };
}

function restingIn(block: Block): number[] {
  return block.allocations.flatMap((index) =>
    index !== null && block.holders[index]?.releasedAt !== undefined ? [index] : [],
  );
}

/** Allocated, but not in use. */
function leaks(allocations: readonly Allocation[], { uses, facts }: CheckInput): Problem[] {
  const used = new Set(uses.map(({ address }) => formatAddress(address)));
  return allocations.flatMap((allocation): Problem[] => {
    const address = formatAddress(allocation.address);
    const judgement = judge(allocation, facts);
    if (judgement.verdict !== "leaked" || used.has(address)) return [];
    const message = `${address} is allocated to ${holderName(allocation.holder)}, but not in use: ${judgement.reason}`;
    return [{ kind: "leaked", address, message }];
  });
}

/** In use, but not allocated, or from no pool that could have given it. */
function unaccounted(allocations: readonly Allocation[], uses: readonly Use[], active: readonly Pool[]): Problem[] {
  const allocated = new Set(allocations.map(({ address }) => formatAddress(address)));
  return uses
    .toSorted((a, b) => compareAddresses(a.address, b.address))
    .flatMap((use): Problem[] => {
      const address = formatAddress(use.address);
      if (poolOf(active, use.address) === undefined) {
        return [
          {
            kind: "not-in-active-pool",
            address,
            message: `${address} is in use by ${use.owner}, but in no active IP pool`,
          },
        ];
      }
      if (allocated.has(address)) return [];
      return [{ kind: "not-allocated", address, message: `${address} is in use by ${use.owner}, but not allocated` }];
    });
}

function sharedAddresses(uses: readonly Use[]): Problem[] {
  const owners = Map.groupBy(uses, ({ address }) => formatAddress(address));
  return [...owners].flatMap(([address, sharing]): Problem[] => {
    const names = [...new Set(sharing.map(({ owner }) => owner))];
    if (names.length < 2) return [];
    return [{ kind: "multiple-owners", address, message: `${address} is in use by ${names.join(" and by ")}` }];
  });
}

/** What a crash may leave for a while. Each node puts its own right; the controller those of nodes that are gone. */
function affinityProblems({ blocks, affinities }: CheckInput): Problem[] {
  const hosts = new Map(blocks.map((block) => [formatPrefix(block.prefix), hostOf(block)]));
  const claimed = new Set<string>();
  const problems: Problem[] = [];
  for (const { node, type, prefix, state } of affinities) {
    if (type !== "host") continue;
    const cidr = formatPrefix(prefix);
    const host = hosts.get(cidr);
    claimed.add(`${node} ${cidr}`);
    if (host === node) continue;
    const instead = hosts.has(cidr) ? `belongs to ${host ?? "no node"}` : "does not exist";
    problems.push({
      kind: "affinity",
      message: `node ${node} has a ${state} affinity to block ${cidr}, which ${instead}`,
    });
  }
  for (const [cidr, host] of hosts) {
    if (host === undefined || claimed.has(`${host} ${cidr}`)) continue;
    problems.push({ kind: "affinity", message: `block ${cidr} belongs to node ${host}, which has no affinity to it` });
  }
  return problems;
}

function emptyHandles(allocations: readonly Allocation[], handles: readonly string[]): Problem[] {
  // Objects are named in lower case, so that is how they are compared.
  const held = new Set(allocations.map(({ holder }) => holder.handle?.toLowerCase()));
  return handles
    .filter((handle) => !held.has(handle.toLowerCase()))
    .map((handle) => ({ kind: "empty-handle", message: `handle ${handle} has no addresses` }));
}

/** What is wrong with the bookkeeping of a block; empty for a sound one. */
export function blockFaults(block: Block): string[] {
  const faults: string[] = [];
  const size = Number(prefixSize(block.prefix));
  const name = formatPrefix(block.prefix);
  if (block.allocations.length !== size) {
    faults.push(`block ${name} has ${block.allocations.length} allocation entries for ${size} addresses`);
  }
  const seen = new Set<number>();
  for (const ordinal of block.unallocated) {
    if (ordinal >= size) {
      faults.push(`block ${name} lists ordinal ${ordinal} as free, which lies outside it`);
      continue;
    }
    const address = formatAddress(addressAt(block, ordinal));
    if (seen.has(ordinal)) faults.push(`block ${name} lists ${address} as free twice`);
    seen.add(ordinal);
    if ((block.allocations[ordinal] ?? null) !== null) {
      faults.push(`block ${name} lists ${address} as free and as allocated`);
    }
  }
  for (const [ordinal, index] of block.allocations.entries()) {
    if (ordinal >= size) break;
    const address = formatAddress(addressAt(block, ordinal));
    if (index === null && !seen.has(ordinal)) {
      faults.push(`block ${name} lists ${address} neither as free nor as allocated`);
    }
    if (index !== null && block.holders[index] === undefined) {
      faults.push(`block ${name}: ${address} refers to attribute ${index}, which does not exist`);
    }
  }
  return faults;
}
