import type { FilterMatch, FilterOperation, FilterRule, FilterRules, PrefixMatch } from "../bgp/filters.ts";
import { classOf, type TunnelNode, type TunnelPool } from "../dataplane/tunnelRoutes.ts";
import type { Address, Family } from "../ip/address.ts";
import { parsePrefix, prefixContains, prefixCovers, samePrefix, type Prefix } from "../ip/prefix.ts";
import type { BGPConfiguration } from "../resources/bgp.ts";
import type { BGPFilter } from "../resources/bgpFilter.ts";

/**
 * What a node tells its peers and believes of them: BGPFilters and Calico's own order of export, as rules of the speaker.
 */

/** Networks of this node's own interfaces. */
export interface NodeInterface {
  readonly name: string;
  readonly networks: readonly Prefix[];
  /** To which other programs wrote routes by this interface into the kernel. */
  readonly behind?: readonly Prefix[];
}

/** BIRD's largest number: a route's priority, which is the kernel's metric, goes over the wire as LOCAL_PREF = this − priority. */
const PRIORITY_BASE = 2 ** 31 - 1;
/** A LOCAL_PREF that no priority has been made into: what other people's routers send. */
const LEAST_MAPPED = 2 ** 30;

export type RoutePriorities = Readonly<Record<Family, number>>;

export function localPrefOf(priority: number): number {
  return PRIORITY_BASE - priority;
}

/** The kernel's metric of a learned route; `normal` unless its LOCAL_PREF was made from another. */
export function priorityOf(localPref: number | undefined, normal: number): number {
  return localPref === undefined || localPref < LEAST_MAPPED ? normal : Math.max(1, PRIORITY_BASE - localPref);
}

export interface ExportInput {
  /** Blocks that this node holds. */
  readonly blocks: readonly Prefix[];
  readonly exported: readonly Prefix[];
  /** Pools with `disableBGPExport`. */
  readonly silent: readonly Prefix[];
  /** Service ranges and addresses that this node announces. */
  readonly services: readonly Prefix[];
  /** Service ranges that this node passes on as a route reflector; undefined where it is none. */
  readonly reflected: readonly Prefix[] | undefined;
  readonly communities: readonly { readonly prefix: Prefix; readonly values: readonly string[] }[];
  readonly priorities: RoutePriorities;
}

/**
 * What goes out after a peer's own filters, as confd has BIRD do it: nothing of pools that are not exported; communities;
 * each block as a whole, of what lies inside one only what has a better priority (a machine that moves in); services;
 * and what lies within the other pools, whoever it came from.
 */
export function exportRules(input: ExportInput): FilterRule[] {
  const rules: FilterRule[] = [];
  const add = (name: string, match: FilterMatch, action: FilterRule["action"]): void => {
    if (match.prefixes?.length !== 0) rules.push({ name, match, action });
  };
  add("its pool is not exported (disableBGPExport)", { prefixes: within(input.silent) }, "reject");
  for (const { prefix, values } of input.communities) {
    rules.push({
      name: `prefixAdvertisements`,
      match: { prefixes: within([prefix]) },
      action: "continue",
      operations: values.map(communityOperation),
    });
  }
  const equal = input.blocks.map((prefix): PrefixMatch => ({ prefix, operator: "equal" }));
  add("a block of this node", { source: "local", prefixes: equal }, "accept");
  for (const family of [4, 6] as const) {
    const blocks = within(input.blocks.filter(({ address }) => address.family === family));
    const better = { least: localPrefOf(input.priorities[family]) + 1, most: PRIORITY_BASE, absent: 0 };
    add(
      "inside a block of this node, with a better priority",
      { family, prefixes: blocks, localPref: better },
      "accept",
    );
  }
  add("lies inside a block of this node", { prefixes: within(input.blocks) }, "reject");
  const services = within(input.services);
  if (input.reflected !== undefined) {
    add(
      "a service range, passed on by a route reflector",
      { prefixes: [...services, ...within(input.reflected)] },
      "accept",
    );
  } else {
    add("an advertised service range", { source: "local", prefixes: services }, "accept");
    add("an advertised service range", { peerType: "iBGP", prefixes: services }, "accept");
    // Calico passes it on, and draws traffic to a node that has no endpoint for it and drops it.
    add("a service address of another node, which tells it itself", { prefixes: services }, "reject");
  }
  add("within an exported pool", { prefixes: within(input.exported) }, "accept");
  return rules;
}

function within(prefixes: readonly Prefix[]): PrefixMatch[] {
  return prefixes.map((prefix) => ({ prefix, operator: "in" }));
}

/** The communities of `prefixAdvertisements`, names replaced by what they stand for. */
export function advertisedCommunities(
  ...specs: readonly (BGPConfiguration["spec"] | undefined)[]
): { prefix: Prefix; values: string[] }[] {
  // As confd: those of the node's own configuration, or else of the general one.
  const spec = specs.find((each) => each?.prefixAdvertisements !== undefined);
  const named = new Map((spec?.communities ?? []).map(({ name, value }) => [name, value]));
  return (spec?.prefixAdvertisements ?? []).map(({ cidr, communities }) => ({
    prefix: parsePrefix(cidr),
    values: communities.map((community) => named.get(community) ?? community),
  }));
}

function communityOperation(value: string): FilterOperation {
  const [first = 0, second = 0, third] = value.split(":").map(Number);
  return third === undefined
    ? { type: "addCommunity", community: first * 65536 + second }
    : { type: "addLargeCommunity", community: { global: first, local1: second, local2: third } };
}

type Rule = NonNullable<BGPFilter["spec"]["exportV4"]>[number];

export interface FilterContext {
  readonly interfaces: readonly NodeInterface[];
  readonly priorities: RoutePriorities;
}

/** Rules of the filters of a peer, in the order in which the peer names them: the first that holds decides. */
export function userRules(
  filters: readonly BGPFilter[],
  direction: "import" | "export",
  context: FilterContext,
): FilterRule[] {
  return filters.flatMap(({ metadata, spec }) =>
    ([4, 6] as const).flatMap((family) => {
      const field = `${direction}V${family}` as const;
      return (spec[field] ?? []).flatMap((rule, index) =>
        ruleOf(`BGPFilter ${metadata.name} ${field}[${index}]`, rule, family, context),
      );
    }),
  );
}

/** All that is told to a peer: its filters, then Calico's order. What both leave open is not told. */
export function exportFilter(user: readonly FilterRule[], own: readonly FilterRule[]): FilterRules {
  return { rules: [...user, ...own], otherwise: "reject" };
}

/** As Calico: what a configured peer says is believed unless a filter refuses it, whatever RFC 8212 wants written down. */
export function importFilter(user: readonly FilterRule[]): FilterRules {
  return { rules: user, otherwise: "accept" };
}

function ruleOf(name: string, rule: Rule, family: Family, { interfaces, priorities }: FilterContext): FilterRule[] {
  const { communities, asPathPrefix, priority, peerType, source } = rule;
  const values = (communities?.values ?? []).map((value) => value.split(":").map(Number));
  const match: FilterMatch = {
    family,
    ...(rule.cidr !== undefined && { prefixes: prefixMatches(rule, family) }),
    ...(source === "RemotePeers" && { source: "peers" as const }),
    ...(peerType !== undefined && { peerType }),
    ...(values.some(({ length }) => length === 2) && {
      communities: values.flatMap(([asn = 0, value = 0, third]) => (third === undefined ? [asn * 65536 + value] : [])),
    }),
    ...(values.some(({ length }) => length === 3) && {
      largeCommunities: values.flatMap(([global = 0, local1 = 0, local2]) =>
        local2 === undefined ? [] : [{ global, local1, local2 }],
      ),
    }),
    ...(asPathPrefix !== undefined && { asPathPrefix }),
    ...(priority !== undefined && {
      localPref: {
        least: localPrefOf(priority),
        most: localPrefOf(priority),
        absent: localPrefOf(priorities[family]),
      },
    }),
  };
  const action = rule.action === "Accept" ? "accept" : "reject";
  const operations = (rule.operations ?? []).map(operationOf);
  const made = (narrowed: FilterMatch): FilterRule => ({
    name,
    match: narrowed,
    action,
    ...(operations.length > 0 && { operations }),
  });
  if (rule.interface === undefined) return [made(match)];
  return onInterface(match, rule.interface, rule, interfaces).map(made);
}

/**
 * The interface of a route, as BIRD sees it: of one of this node's own networks the interface that has it, of one that
 * another program wrote into the kernel that which it leads to, of a learned one that on which its next hop lies.
 */
function onInterface(
  match: FilterMatch,
  pattern: string,
  rule: Rule,
  interfaces: readonly NodeInterface[],
): FilterMatch[] {
  const meant = interfaces.filter(({ name }) => matchesPattern(pattern, name));
  const networks = meant.flatMap((each) => each.networks);
  const own = [...networks, ...meant.flatMap(({ behind = [] }) => behind)].filter(
    (network) => network.address.family === match.family && holds(rule, network),
  );
  const local: FilterMatch = {
    ...match,
    source: "local",
    prefixes: own.map((prefix) => ({ prefix, operator: "equal" })),
  };
  const learned: FilterMatch = { ...match, source: "peers", nextHops: networks };
  return [
    ...(match.source === "peers" || own.length === 0 ? [] : [local]),
    ...(networks.length === 0 ? [] : [learned]),
  ];
}

/** Whether a name is meant by a pattern, in which `*` stands for any characters. */
export function matchesPattern(pattern: string, name: string): boolean {
  const parts = pattern.split("*").map((part) => part.replaceAll(/[.\\+?^${}()|[\]]/g, String.raw`\$&`));
  return new RegExp(`^${parts.join(".*")}$`).test(name);
}

/** Whether `cidr`, `matchOperator` and `prefixLength` of a rule hold of a prefix. */
function holds(rule: Rule, prefix: Prefix): boolean {
  if (rule.cidr === undefined) return true;
  const cidr = parsePrefix(rule.cidr);
  const { min = 0, max = 128 } = rule.prefixLength ?? {};
  const lengthFits = prefix.length >= min && prefix.length <= max;
  switch (rule.matchOperator) {
    case "In":
      return prefixCovers(cidr, prefix) && lengthFits;
    case "NotIn":
      return !(prefixCovers(cidr, prefix) && lengthFits);
    case "NotEqual":
      return !(samePrefix(cidr, prefix) && lengthFits);
    default:
      return samePrefix(cidr, prefix) && lengthFits;
  }
}

const OPERATORS = { Equal: "equal", NotEqual: "notEqual", In: "in", NotIn: "notIn" } as const;

/** The negations negate all of it, also the length: BIRD's `net !~ [ cidr{min,max} ]`. */
function prefixMatches({ cidr, matchOperator, prefixLength }: Rule, family: Family): PrefixMatch[] {
  const prefix = parsePrefix(cidr ?? "");
  const operator = OPERATORS[matchOperator ?? "Equal"];
  const longest = family === 4 ? 32 : 128;
  const { min = 0, max = longest } = prefixLength ?? {};
  if (operator === "in" || operator === "equal") return [{ prefix, operator, minLength: min, maxLength: max }];
  const everything: Prefix = { address: { family, value: 0n }, length: 0 };
  return [
    { prefix, operator },
    ...(min > 0 ? [{ prefix: everything, operator: "in" as const, maxLength: min - 1 }] : []),
    ...(max < longest ? [{ prefix: everything, operator: "in" as const, minLength: max + 1 }] : []),
  ];
}

function operationOf(operation: NonNullable<Rule["operations"]>[number]): FilterOperation {
  if (operation.addCommunity !== undefined) return communityOperation(operation.addCommunity.value);
  if (operation.prependASPath !== undefined) return { type: "prependAsPath", asns: operation.prependASPath.prefix };
  return { type: "setLocalPref", value: localPrefOf(operation.setPriority?.value ?? 0) };
}

/** Networks of the node's own that are known to BGP, as BIRD's `direct`: of all interfaces but pods', kube-proxy's and those ignored. */
export function directNetworks(
  interfaces: readonly NodeInterface[],
  ignored: readonly string[],
  workloadPrefixes: readonly string[],
): NodeInterface[] {
  const out = [...ignored, "kube-ipvs*", ...workloadPrefixes.map((prefix) => `${prefix}*`)];
  return interfaces.filter(({ name }) => !out.some((pattern) => matchesPattern(pattern, name)));
}

/** Prefixes that BGP leaves to others to write into the kernel. */
export interface KernelPolicy {
  readonly refused: readonly { readonly prefix: Prefix; readonly reason: string }[];
  readonly priorities: RoutePriorities;
  /** Where BGP writes the routes of the IPIP tunnel: the pools, and this node, whose own network needs no tunnel. */
  readonly ipip?: { readonly self: Pick<TunnelNode, "address">; readonly pools: readonly TunnelPool[] };
}

/** Whether packets to the prefix go to that node through the IPIP tunnel. */
export function throughIpip({ ipip }: KernelPolicy, prefix: Prefix, node: Address): boolean {
  return ipip !== undefined && classOf(prefix, node, ipip.self, ipip.pools) === "ipipTunnel";
}

/** Why a learned route is not written into the kernel; undefined where it is. */
export function kernelRefusal({ refused }: KernelPolicy, prefix: Prefix): string | undefined {
  return refused.find((each) => prefixContains(each.prefix, prefix.address) && each.prefix.length <= prefix.length)
    ?.reason;
}
