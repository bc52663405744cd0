import type { OriginatedRoute, PeerConfig } from "../bgp/config.ts";
import type { FilterRule, FilterRules } from "../bgp/filters.ts";
import { formatAddress, type Address } from "../ip/address.ts";
import { formatPrefix, parsePrefix, type Prefix } from "../ip/prefix.ts";
import { DEFAULT_AS_NUMBER, type BGPConfiguration, type BGPPeer } from "../resources/bgp.ts";
import type { BGPFilter } from "../resources/bgpFilter.ts";
import type { IPPool } from "../resources/ippool.ts";
import type { Node } from "../resources/node.ts";
import { nodeNetwork, type NodeNetwork } from "../resources/nodeNetwork.ts";
import {
  advertisedCommunities,
  directNetworks,
  exportFilter,
  exportRules,
  importFilter,
  localPrefOf,
  userRules,
  type KernelPolicy,
  type NodeInterface,
  type RoutePriorities,
} from "./bgpFilters.ts";
import { withRoutesOfOthers, type KernelRoute } from "./bgpKernelRoutes.ts";
import { BGP_PORT, wantedSessions, type LocalWorkload, type NodeSpeaker, type Session } from "./bgpPeers.ts";
import type { ServiceRoutes } from "./serviceRoutes.ts";
import { tunnelPools } from "./tunnelFacts.ts";

/** All of a node's BGP, worked out from the resources: sessions, filters, what is announced, what the kernel gets. */

export interface BgpInput {
  readonly nodeName: string;
  readonly nodes: readonly Node[];
  readonly configurations: readonly BGPConfiguration[];
  readonly peers: readonly BGPPeer[];
  readonly filters: readonly BGPFilter[];
  readonly pools: readonly IPPool[];
  /** Blocks that this node holds. */
  readonly blocks: readonly Prefix[];
  /** Single addresses that it has from blocks of others. */
  readonly borrowed: readonly Prefix[];
  readonly services: ServiceRoutes;
  readonly interfaces: readonly NodeInterface[];
  /** What other programs wrote into the kernel. */
  readonly kernelRoutes: readonly KernelRoute[];
  /** What names of pods' interfaces begin with. */
  readonly workloadPrefixes: readonly string[];
  readonly workloads: readonly LocalWorkload[];
  /** The value of a key of a Secret, where it is there. */
  readonly secret: (name: string, key: string) => string | undefined;
  /** Tunnels that the agent makes itself: routes of pools that use them are not BGP's. */
  readonly tunnels: ReadonlySet<"ipip" | "vxlan">;
}

/** A session that is wanted and cannot be had yet. */
export interface HeldPeer {
  readonly name: string;
  readonly address: string;
  readonly asn: number;
  readonly localAsn: number;
  readonly reason: string;
}

export interface BgpPlan {
  /** The least that is written to the log of BGP. */
  readonly logSeverity: LogSeverity;
  readonly asn: number;
  readonly listenPort: number;
  /** Every address of the host unless told. */
  readonly listenAddresses?: readonly string[];
  readonly peers: readonly PeerConfig[];
  readonly held: readonly HeldPeer[];
  readonly origination: readonly OriginatedRoute[];
  readonly kernel: KernelPolicy;
  /** Ways to peers that have one of their own (`reachableBy`). */
  readonly staticRoutes: readonly { readonly destination: Prefix; readonly gateway: Address }[];
  /** Addresses that this node has for sessions with pods, on the pods' interfaces. */
  readonly peeringAddresses: readonly { readonly hostInterface: string; readonly address: Address }[];
  /** Names of the Secrets that hold passwords. */
  readonly secrets: readonly string[];
  /** What in the resources has no effect, in words. */
  readonly problems: readonly string[];
}

export type LogSeverity = BGPConfiguration["spec"]["logSeverityScreen"];

/** Whether a line is written where `least` is the least: BGP has nothing to say that is an error of the program's own. */
export function isLogged(level: "info" | "warn", least: LogSeverity): boolean {
  if (least === "Error" || least === "Fatal") return false;
  return level === "warn" || least !== "Warning";
}

const DEFAULT_PRIORITY = 1024;

/** What was read of each node: an object that changes is another object. */
const networks = new WeakMap<Node, NodeNetwork>();

function networkOfNode(node: Node): NodeNetwork {
  const network = networks.get(node) ?? nodeNetwork(node);
  networks.set(node, network);
  return network;
}

/** Undefined while this node has no address. */
export function planBgp(input: BgpInput): BgpPlan | undefined {
  const byName = (name: string) => input.configurations.find(({ metadata }) => metadata.name === name);
  const general = byName("default");
  const own = byName(`node.${input.nodeName}`);
  const defaultAsn = general?.spec.asNumber ?? DEFAULT_AS_NUMBER;
  const speakers = input.nodes.map((node): NodeSpeaker => {
    const { name, labels = {} } = node.metadata;
    const network = networkOfNode(node);
    // Calico reads no AS number from a node's own BGPConfiguration: that stands on the node.
    const listenPort = byName(`node.${name}`)?.spec.listenPort ?? general?.spec.listenPort;
    const asn = network.asNumber ?? defaultAsn;
    return { name, labels, network, asn, ...(listenPort === undefined ? {} : { listenPort }) };
  });
  const me = speakers.find(({ name }) => name === input.nodeName);
  if (me === undefined || (me.network.ipv4 === undefined && me.network.ipv6 === undefined)) return undefined;
  const priorities: RoutePriorities = {
    4: general?.spec.ipv4NormalRoutePriority ?? DEFAULT_PRIORITY,
    6: general?.spec.ipv6NormalRoutePriority ?? DEFAULT_PRIORITY,
  };
  const direct = directNetworks(input.interfaces, general?.spec.ignoredInterfaces ?? [], input.workloadPrefixes);
  const sessions = wantedSessions({
    me,
    speakers,
    peers: input.peers,
    general,
    defaultAsn,
    workloads: input.workloads,
  });
  const known = withRoutesOfOthers(direct, input.kernelRoutes);
  const filters = filtersFor(input, me, own?.spec, general?.spec, priorities, known);
  const { peers, held, kept, problems } = settle(sessions, filters, input.secret);
  const { address4, address6 } = { address4: me.network.ipv4?.address, address6: me.network.ipv6?.address };
  const bound = [address4, address6].flatMap((address) => (address === undefined ? [] : [formatAddress(address)]));
  return {
    logSeverity: own?.spec.logSeverityScreen ?? general?.spec.logSeverityScreen ?? "Info",
    asn: me.asn,
    listenPort: me.listenPort ?? BGP_PORT,
    ...(general?.spec.bindMode === "NodeIP" && { listenAddresses: bound }),
    peers: peers.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    held,
    origination: origination(input, direct, priorities),
    kernel: {
      refused: refusedByKernel(input, general?.spec.programClusterRoutes),
      priorities,
      ...ipipPolicy(input, me, general?.spec.programClusterRoutes),
    },
    staticRoutes: kept.flatMap(({ peer, reachableBy }) =>
      reachableBy === undefined ? [] : [{ destination: parsePrefix(hostText(peer.address)), gateway: reachableBy }],
    ),
    peeringAddresses: kept.flatMap(({ workload }) =>
      workload?.address === undefined ? [] : [{ hostInterface: workload.hostInterface, address: workload.address }],
    ),
    secrets: [...new Set(sessions.flatMap(({ password }) => (password === undefined ? [] : [password.name])))],
    problems: [...new Set([...problems, ...filters.missing])],
  };
}

const hostText = (address: string): string => `${address}/${address.includes(":") ? 128 : 32}`;

interface Filters {
  exportOf(names: readonly string[]): FilterRules;
  importOf(names: readonly string[]): FilterRules;
  /** Sentences on filters that are named and not there. */
  readonly missing: Set<string>;
}

/** Peers with the same filters share one object: the speaker encodes once for all of them. */
function filtersFor(
  input: BgpInput,
  { network }: NodeSpeaker,
  own: BGPConfiguration["spec"] | undefined,
  general: BGPConfiguration["spec"] | undefined,
  priorities: RoutePriorities,
  direct: readonly NodeInterface[],
): Filters {
  const cidrs = (silent: boolean): Prefix[] =>
    input.pools.filter(({ spec }) => spec.disableBGPExport === silent).map(({ spec }) => parsePrefix(spec.cidr));
  const last: FilterRule[] = exportRules({
    blocks: input.blocks,
    exported: cidrs(false),
    silent: cidrs(true),
    services: input.services.announced,
    reflected: network.routeReflectorClusterId === undefined ? undefined : input.services.external,
    communities: advertisedCommunities(own, general),
    priorities,
  });
  const byName = new Map(input.filters.map((filter) => [filter.metadata.name, filter]));
  const missing = new Set<string>();
  const context = { interfaces: direct, priorities };
  const named = (names: readonly string[]): BGPFilter[] =>
    names.flatMap((name) => {
      const filter = byName.get(name);
      if (filter !== undefined) return [filter];
      missing.add(`there is no BGPFilter ${name}: peers that name it do without`);
      return [];
    });
  const cached = (make: (names: readonly string[]) => FilterRules) => {
    const made = new Map<string, FilterRules>();
    return (names: readonly string[]): FilterRules => {
      const key = names.join(" ");
      const rules = made.get(key) ?? make(names);
      made.set(key, rules);
      return rules;
    };
  };
  return {
    exportOf: cached((names) => exportFilter(userRules(named(names), "export", context), last)),
    importOf: cached((names) => importFilter(userRules(named(names), "import", context))),
    missing,
  };
}

/** Gives each address its one session, and holds back those whose password is not known: none goes without. */
function settle(sessions: readonly Session[], filters: Filters, secret: BgpInput["secret"]) {
  const peers: PeerConfig[] = [];
  const held: HeldPeer[] = [];
  const problems: string[] = [];
  const kept = new Map<string, Session>();
  for (const session of sessions) {
    const { peer, password: reference, problem } = session;
    const other = kept.get(peer.address);
    if (other !== undefined) {
      if (other.peer.port !== peer.port && !peer.name.startsWith("Mesh_")) {
        problems.push(`${peer.name} has no session: an address has one, and ${other.peer.name} has it`);
      }
      continue;
    }
    kept.set(peer.address, session);
    if (problem !== undefined) problems.push(problem);
    const password = reference === undefined ? undefined : secret(reference.name, reference.key);
    if (reference !== undefined && (password === undefined || password === "")) {
      const { name, address, asn, localAsn } = peer;
      const reason = `password? There is no key "${reference.key}" in a Secret "${reference.name}"`;
      held.push({ name, address, asn, localAsn, reason });
      continue;
    }
    peers.push({
      ...peer,
      ...(password !== undefined && { password }),
      exportFilter: filters.exportOf(session.filters),
      importFilter: filters.importOf(session.filters),
    });
  }
  return { peers, held, problems, kept: [...kept.values()] };
}

/**
 * What this node has to say, before any filter: blocks, borrowed addresses, services, and the networks of its interfaces
 * and what other programs wrote into the kernel, which go out where they lie in a pool or a BGPFilter lets them.
 */
function origination(
  { blocks, borrowed, services, kernelRoutes }: BgpInput,
  direct: readonly NodeInterface[],
  priorities: RoutePriorities,
): OriginatedRoute[] {
  const routes = new Map<string, OriginatedRoute>();
  for (const prefix of [...blocks, ...borrowed, ...services.announced, ...direct.flatMap(({ networks }) => networks)]) {
    const localPref = localPrefOf(priorities[prefix.address.family]);
    routes.set(formatPrefix(prefix), { prefix, attributes: { localPref } });
  }
  const foreign = kernelRoutes.map(({ prefix, metric }): OriginatedRoute => {
    // No metric says nothing of how good a route is, though to the kernel it is the best.
    const localPref = localPrefOf(metric === 0 ? priorities[prefix.address.family] : metric);
    return { prefix, attributes: { localPref }, lastResort: true };
  });
  return [...routes.values(), ...foreign];
}

/** What BGP writes into the IPIP tunnel, where it is asked to and the tunnel is there. */
function ipipPolicy(
  { pools, tunnels }: BgpInput,
  { network }: NodeSpeaker,
  program: BGPConfiguration["spec"]["programClusterRoutes"],
): Pick<KernelPolicy, "ipip"> {
  const isAsked = program === "Enabled" || program === "EnabledIPIPOnly";
  if (!isAsked || !tunnels.has("ipip") || network.ipv4 === undefined) return {};
  return { ipip: { self: { address: { 4: network.ipv4 } }, pools: tunnelPools(pools) } };
}

/** What others write into the kernel: kube-proxy answers for services, the agent's own tunnels for pools that use them. */
function refusedByKernel(
  { pools, services, tunnels }: BgpInput,
  program: BGPConfiguration["spec"]["programClusterRoutes"] = "EnabledNoEncapOnly",
): KernelPolicy["refused"] {
  const plain = program === "Enabled" || program === "EnabledNoEncapOnly";
  const ipip = program === "Enabled" || program === "EnabledIPIPOnly";
  const reason = `programClusterRoutes is ${program}`;
  return [
    ...services.ranges.map((prefix) => ({ prefix, reason: "it is a range of service addresses" })),
    ...pools.flatMap(({ spec: { cidr, ipipMode, vxlanMode } }) => {
      const prefix = parsePrefix(cidr);
      if (vxlanMode !== "Never") {
        return tunnels.has("vxlan") ? [{ prefix, reason: "its pool uses VXLAN, whose routes the agent writes" }] : [];
      }
      if (ipipMode !== "Never") return ipip || !tunnels.has("ipip") ? [] : [{ prefix, reason }];
      return plain ? [] : [{ prefix, reason }];
    }),
  ];
}
