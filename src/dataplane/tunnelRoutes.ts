import type { Address, Family } from "../ip/address.ts";
import {
  comparePrefixes,
  formatPrefix,
  isHostPrefix,
  type InterfaceAddress,
  networkOf,
  prefixContains,
} from "../ip/prefix.ts";
import { hostPrefix, prefixCovers, type Prefix } from "../ip/prefix.ts";

/**
 * How packets to other nodes' pods travel: as they are, in IPIP or in VXLAN. Decided block by block from the pool that
 * the block lies in and from where the two nodes are, as Calico decides it (felix/calc/l3_route_resolver.go).
 */

/** When packets of a pool are put into a tunnel. */
export type TunnelMode = "Never" | "Always" | "CrossSubnet";

export interface TunnelPool {
  readonly prefix: Prefix;
  readonly ipip: TunnelMode;
  readonly vxlan: TunnelMode;
}

/** The end of a VXLAN on one node: the address of its device, and the device's own MAC. */
export interface Vtep {
  readonly address: Address;
  readonly mac: string;
}

export interface TunnelNode {
  readonly name: string;
  /** With the length of its subnet, by which CrossSubnet decides. */
  readonly address: { readonly [F in Family]?: InterfaceAddress };
  readonly vtep: { readonly [F in Family]?: Vtep };
}

/** A block of addresses, and who has those of it that are not at the node that holds the block. */
export interface TunnelBlock {
  readonly prefix: Prefix;
  /** The node that holds the block; absent for one that no node holds. */
  readonly node?: string;
  readonly borrowed: readonly { readonly address: Address; readonly node: string }[];
}

/** The best comes first: where two say how one destination is reached, the earlier counts. */
const CLASSES = ["local", "vxlanSameSubnet", "vxlanTunnel", "ipipSameSubnet", "ipipTunnel", "noEncap"] as const;
export type RouteClass = (typeof CLASSES)[number];

/** Which devices a route of this module can lead to: named here, resolved to an index where it is written. */
export type TunnelDevice = "tunl0" | "vxlan" | "underlay";

export interface TunnelRoute {
  readonly destination: Prefix;
  readonly routeClass: Exclude<RouteClass, "local">;
  /** Name of the node that the packets go to. */
  readonly node: string;
  readonly device: TunnelDevice;
  /** Absent where the destination is itself on the link: the VXLAN's other end. */
  readonly gateway?: Address;
  /** The gateway is taken to be on the link: no address of the device says so. */
  readonly onlink: boolean;
}

/** Felix's `programClusterRoutes`, as far as it is the agent's: VXLAN always is. */
export interface AgentPrograms {
  readonly ipip: boolean;
  readonly noEncap: boolean;
}

export interface TunnelInput {
  readonly self: TunnelNode;
  readonly peers: readonly TunnelNode[];
  readonly pools: readonly TunnelPool[];
  readonly blocks: readonly TunnelBlock[];
  readonly programs: AgentPrograms;
}

export interface TunnelPlan {
  /** Destinations in the order of their addresses. */
  readonly routes: readonly TunnelRoute[];
  /** Destinations of which the route cannot be made yet, since the node at the other end has not said how. */
  readonly pending: readonly Prefix[];
  /**
   * Every destination of pools with IPIP, and the node address that its packets are put into an envelope to: also those
   * of the same subnet and those of which BGP writes the routes, so that the tunnel carries whatever is routed into it.
   */
  readonly ipipDestinations: readonly { readonly destination: Prefix; readonly node: Address }[];
}

/** Felix's setting as the two answers that it stands for. */
export function agentPrograms(
  setting: "Enabled" | "EnabledIPIPOnly" | "EnabledNoEncapOnly" | "Disabled",
): AgentPrograms {
  return {
    ipip: setting === "Enabled" || setting === "EnabledIPIPOnly",
    noEncap: setting === "Enabled" || setting === "EnabledNoEncapOnly",
  };
}

/** Works out everything at once. Blocks of unknown nodes, and of nodes without an address, lead nowhere. */
export function planTunnels({ self, peers, pools, blocks, programs }: TunnelInput): TunnelPlan {
  const nodes = new Map(peers.filter(({ name }) => name !== self.name).map((node) => [node.name, node]));
  const best = new Map<string, Candidate>();
  const consider = (destination: Prefix, name: string): void => {
    const key = formatPrefix(destination);
    const candidate = candidateFor(destination, name === self.name ? self : nodes.get(name), self, pools);
    if (candidate === undefined) return;
    const present = best.get(key);
    // At equal rank the later stands: the user of a single address counts before the holder of its block.
    if (present === undefined || rank(candidate) <= rank(present)) best.set(key, candidate);
  };
  for (const { prefix, node, borrowed } of blocks) {
    if (node !== undefined) consider(prefix, node);
    for (const { address, node: user } of borrowed) if (user !== node) consider(hostPrefix(address), user);
  }
  const sorted = [...best.values()].toSorted((a, b) => comparePrefixes(a.destination, b.destination));
  const routes: TunnelRoute[] = [];
  const pending: Prefix[] = [];
  const ipipDestinations: { destination: Prefix; node: Address }[] = [];
  for (const candidate of sorted) {
    if (candidate.routeClass === "local") continue;
    const { destination, address, routeClass } = candidate;
    const isIpip = routeClass === "ipipTunnel" || routeClass === "ipipSameSubnet";
    if (isIpip) ipipDestinations.push({ destination, node: address });
    if ((isIpip && !programs.ipip) || (routeClass === "noEncap" && !programs.noEncap)) continue;
    const route = routeFor(candidate, routeClass, self);
    if (route === undefined) pending.push(destination);
    else routes.push(route);
  }
  return { routes, pending, ipipDestinations };
}

interface Candidate {
  readonly destination: Prefix;
  readonly routeClass: RouteClass;
  readonly node: TunnelNode;
  readonly address: Address;
}

const rank = ({ routeClass }: Candidate): number => CLASSES.indexOf(routeClass);

function candidateFor(
  destination: Prefix,
  node: TunnelNode | undefined,
  self: TunnelNode,
  pools: readonly TunnelPool[],
): Candidate | undefined {
  const { family } = destination.address;
  const address = node?.address[family]?.address;
  if (node === undefined || address === undefined) return undefined;
  const routeClass = node === self ? "local" : classOf(destination, address, self, pools);
  return routeClass && { destination, routeClass, node, address };
}

/** Undefined for what lies in no pool, and while this node has no address: nothing is known of how to reach it. */
export function classOf(
  destination: Prefix,
  nodeAddress: Address,
  self: Pick<TunnelNode, "address">,
  pools: readonly TunnelPool[],
): Exclude<RouteClass, "local"> | undefined {
  const pool = poolOf(destination, pools);
  const own = self.address[destination.address.family];
  if (pool === undefined || own === undefined) return undefined;
  const sameSubnet = prefixContains(networkOf(own.address, own.length), nodeAddress);
  const past = (mode: TunnelMode): boolean => mode === "CrossSubnet" && sameSubnet;
  if (pool.vxlan !== "Never") return past(pool.vxlan) ? "vxlanSameSubnet" : "vxlanTunnel";
  if (pool.ipip !== "Never") return past(pool.ipip) ? "ipipSameSubnet" : "ipipTunnel";
  return "noEncap";
}

function poolOf(destination: Prefix, pools: readonly TunnelPool[]): TunnelPool | undefined {
  return pools.find(({ prefix }) => prefixCovers(prefix, destination));
}

function routeFor(
  { destination, node, address }: Candidate,
  routeClass: Exclude<RouteClass, "local">,
  self: TunnelNode,
): TunnelRoute | undefined {
  const common = { destination, routeClass, node: node.name };
  switch (routeClass) {
    case "ipipTunnel":
      return { ...common, device: "tunl0", gateway: address, onlink: true };
    case "vxlanTunnel": {
      const { family } = destination.address;
      const vtep = node.vtep[family];
      if (vtep === undefined || self.vtep[family] === undefined) return undefined;
      // The other end itself needs no gateway: it is on the link.
      const isEnd = isHostPrefix(destination) && destination.address.value === vtep.address.value;
      return isEnd
        ? { ...common, device: "vxlan", onlink: false }
        : { ...common, device: "vxlan", gateway: vtep.address, onlink: true };
    }
    case "ipipSameSubnet":
    case "vxlanSameSubnet":
    case "noEncap":
      return { ...common, device: "underlay", gateway: address, onlink: false };
  }
}
