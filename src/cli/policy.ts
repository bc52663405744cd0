import { compareVersions } from "../datastore/datastore.ts";
import type { KindId } from "../resources/registry.ts";
import { formatTable } from "./table.ts";

/** What agents say of policy, and how it is shown. */

/** In an agent's status. */
export interface PolicyReport {
  readonly renderer: string | null;
  readonly generation: number;
  readonly inForce: number;
  readonly failure: string | null;
  /** Of the settings. */
  readonly fault?: string | null;
  readonly problems: readonly { readonly id: string; readonly reason: string }[];
}

/** What of it a person should see. */
export function policyInfo(report: PolicyReport | undefined): string[] {
  if (report === undefined) return [];
  const { renderer, generation, inForce, failure, fault = null, problems } = report;
  const behind = generation - inForce;
  return [
    ...(failure === null ? [] : [`policy is not in force: ${failure}`]),
    ...(fault === null ? [] : [`settings are not carried out, those before are in force: ${fault}`]),
    ...(renderer !== null && behind > 0 && failure === null ? [`policy is ${behind} changes behind`] : []),
    ...problems.map(({ id, reason }) => `${id}: ${reason}`),
  ];
}

/** Kinds that say what may pass. */
export const POLICY_KINDS: ReadonlySet<KindId> = new Set([
  ...(["NetworkPolicy", "ClusterNetworkPolicy", "CalicoNetworkPolicy", "GlobalNetworkPolicy", "HostEndpoint"] as const),
  ...(["StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"] as const),
  ...(["Tier", "Profile", "NetworkSet", "GlobalNetworkSet"] as const),
]);

/** Of these, kinds that decide nothing wherever they are known. */
export const DRAFT_KINDS: ReadonlySet<KindId> = new Set<KindId>([
  "StagedNetworkPolicy",
  "StagedGlobalNetworkPolicy",
  "StagedKubernetesNetworkPolicy",
]);
export const DRAFT_CELL = "never: a draft";

/** How far one agent is with a kind. */
export interface KindInForce {
  readonly node: string;
  readonly resourceVersion?: string;
  /** Why it is not, or does not answer. */
  readonly reason?: string;
  /** By `namespace/name` or `name`: why the object is in force otherwise than it was written. */
  readonly problems: Readonly<Record<string, readonly string[]>>;
}

/** `3/3 nodes`, with the first node that is missing and why. */
export function inForceCell(object: string, version: string | undefined, agents: readonly KindInForce[]): string {
  const missing = agents.flatMap(({ node, resourceVersion, reason, problems }) => {
    const [problem] = problems[object] ?? [];
    if (problem !== undefined) return [`${node}: ${problem}`];
    const isThere =
      resourceVersion !== undefined && version !== undefined && compareVersions(resourceVersion, version) >= 0;
    return isThere ? [] : [`${node}: ${reason ?? "it has not seen it yet"}`];
  });
  const count = `${agents.length - missing.length}/${agents.length} nodes`;
  const others = missing.length > 1 ? `; ${missing.length - 1} more` : "";
  return missing.length === 0 ? count : `${count} (${missing[0]}${others})`;
}

/** So many names of objects fit in one question. */
const NAMES_MAX = 30;

/** At least one part, which may be empty. */
export function inParts<Item>(items: readonly Item[]): Item[][] {
  const parts: Item[][] = [];
  for (let at = 0; at === 0 || at < items.length; at += NAMES_MAX) parts.push(items.slice(at, at + NAMES_MAX));
  return parts;
}

/** What one rule has counted on one node. */
export interface PolicyCount {
  readonly of: string;
  readonly direction: string;
  readonly rule?: number;
  readonly packets: number;
  readonly bytes: number;
}

export interface NodeCounts {
  readonly node: string;
  readonly counts: readonly PolicyCount[];
}

/** Over all nodes, sorted by what they are of; rules in their order, the ends of tiers last. */
export function sumCounts(nodes: readonly NodeCounts[]): PolicyCount[] {
  const sums = new Map<string, PolicyCount>();
  for (const count of nodes.flatMap(({ counts }) => counts)) {
    const key = `${count.of} ${count.direction} ${count.rule ?? ""}`;
    const { packets = 0, bytes = 0 } = sums.get(key) ?? {};
    sums.set(key, { ...count, packets: packets + count.packets, bytes: bytes + count.bytes });
  }
  const isEnd = ({ of }: PolicyCount): number => (of === "profiles" ? 2 : of.startsWith("tier/") ? 1 : 0);
  const text = ({ of, direction }: PolicyCount): string => `${of} ${direction}`;
  return [...sums.values()].sort(
    (a, b) => isEnd(a) - isEnd(b) || (text(a) < text(b) ? -1 : text(a) > text(b) ? 1 : (a.rule ?? -1) - (b.rule ?? -1)),
  );
}

export function formatCounts(counts: readonly PolicyCount[]): string {
  return formatTable(
    ["POLICY", "DIRECTION", "RULE", "PACKETS", "BYTES"],
    counts.map(({ of, direction, rule, packets, bytes }) => [
      policyName(of),
      direction,
      rule === undefined ? "end" : String(rule),
      String(packets),
      String(bytes),
    ]),
  );
}

const KIND_WORDS: Readonly<Record<string, string>> = {
  knp: "networkpolicy",
  kcnp: "clusternetworkpolicy",
  np: "networkpolicy.projectcalico.org",
  gnp: "globalnetworkpolicy",
  pro: "profile",
  tier: "tier",
};

/** `knp/default/web` as `networkpolicy default/web`. */
function policyName(id: string): string {
  const slash = id.indexOf("/");
  const word = KIND_WORDS[id.slice(0, Math.max(0, slash))];
  return word === undefined ? id : `${word} ${id.slice(slash + 1)}`;
}
