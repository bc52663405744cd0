import type { Address } from "../ip/address.ts";
import { comparePrefixes, formatPrefix, hostPrefix, prefixContains, type Prefix, networkOf } from "../ip/prefix.ts";
import type { LinkAddress } from "../netlink/addr.ts";
import {
  PROTOCOL_BOOT,
  PROTOCOL_KERNEL,
  SCOPE_GLOBAL,
  SCOPE_LINK,
  TABLE_MAIN,
  type NextHop,
  type Route,
} from "../netlink/route.ts";

/** The routes that the agent wants in the kernel, and which of those it finds there are its own. */

/** Felix's protocol number, on blackholes and tunnel routes. */
export const PROTOCOL_AGENT = 80;
/** What routes learned in BGP carry: `proto bird`. */
export const PROTOCOL_BGP = 12;

/** Felix's `ipv4NormalRoutePriority`: the metric of a route to a pod. */
const WORKLOAD_METRIC = 1024;

/** Two writers that are ready to prune at different times: `agent` after its first sync, `bgp` when its peers are back. */
export type RouteOwner = "agent" | "bgp";

export interface RouteOwnership {
  /** Index of each of the pods' interfaces. */
  readonly workloadDevices: ReadonlySet<number>;
  /** Felix's `removeExternalRoutes`: whether every route on a pod's interface is ours, whoever made it. */
  readonly removeExternalRoutes: boolean;
  /** Whether the agent speaks BGP on this node; where another daemon does, `proto bird` is that one's. */
  readonly bgp: boolean;
  /** Felix's `deviceRouteProtocol`, which routes to pods carry: 3 (boot) where absent. */
  readonly deviceRouteProtocol?: number;
}

/** `<pod's address>/32 dev cali… scope link`. `protocol` is Felix's `deviceRouteProtocol`. */
export function workloadRoute(address: Address, device: number, protocol = PROTOCOL_BOOT): Route {
  const scope = address.family === 4 ? SCOPE_LINK : SCOPE_GLOBAL;
  return { ...unicast(hostPrefix(address), [{ device }], protocol), scope, metric: WORKLOAD_METRIC };
}

/** Where packets to free addresses of this node's own block end, so that they do not go round by the default route. */
export function blackholeRoute(block: Prefix): Route {
  return { ...unicast(block, [], PROTOCOL_AGENT), type: "blackhole", metric: kernelMetric(block, 0) };
}

/**
 * A route learned in BGP; several next hops share its flows. That of an IPv4 route may be IPv6 (RFC 8950), which the
 * kernel takes as RTA_VIA.
 */
export function bgpRoute(destination: Prefix, nextHops: readonly NextHop[], metric = 0): Route {
  return { ...unicast(destination, nextHops, PROTOCOL_BGP), metric: kernelMetric(destination, metric) };
}

/** The way to a BGP peer that is reached by a gateway of its own (`reachableBy`). */
export function peerRoute(peer: Prefix, gateway: Address, device: number): Route {
  return { ...unicast(peer, [{ gateway, device }], PROTOCOL_AGENT), metric: kernelMetric(peer, 0) };
}

/** To another node's pods, through a tunnel or past one, where the agent writes the route itself. */
export function clusterRoute(destination: Prefix, nextHop: NextHop): Route {
  const scope = nextHop.gateway === undefined && destination.address.family === 4 ? SCOPE_LINK : SCOPE_GLOBAL;
  return { ...unicast(destination, [nextHop], PROTOCOL_AGENT), scope, metric: kernelMetric(destination, 0) };
}

function unicast(destination: Prefix, nextHops: readonly NextHop[], protocol: number): Route {
  return { destination, type: "unicast", table: TABLE_MAIN, protocol, scope: SCOPE_GLOBAL, metric: 0, nextHops };
}

/** The kernel stores an IPv6 route without a metric with 1024 (IP6_RT_PRIO_USER, net/ip6_route.h). */
function kernelMetric(destination: Prefix, metric: number): number {
  return destination.address.family === 6 && metric === 0 ? 1024 : metric;
}

/** What tells the kernel's routes apart: there is one for each destination and metric in a table. */
export function routeKey(route: Route): string {
  return `${formatPrefix(route.destination)} ${route.table} ${route.metric}`;
}

/** Whose the route is, undefined for one that is none of our business. */
export function ownerOf(route: Route, ownership: RouteOwnership): RouteOwner | undefined {
  if (route.table !== TABLE_MAIN || route.protocol === PROTOCOL_KERNEL) return undefined;
  if (route.protocol === PROTOCOL_BGP) return ownership.bgp ? "bgp" : undefined;
  if (route.protocol === PROTOCOL_AGENT) return "agent";
  const { workloadDevices, removeExternalRoutes, deviceRouteProtocol = PROTOCOL_BOOT } = ownership;
  const onWorkload = route.nextHops.some(({ device }) => device !== undefined && workloadDevices.has(device));
  return onWorkload && (removeExternalRoutes || route.protocol === deviceRouteProtocol) ? "agent" : undefined;
}

/** Whether the kernel has the route as it is wanted. */
export function sameRoute(a: Route, b: Route): boolean {
  return (
    comparePrefixes(a.destination, b.destination) === 0 &&
    a.type === b.type &&
    a.table === b.table &&
    a.protocol === b.protocol &&
    a.metric === b.metric &&
    a.mtu === b.mtu &&
    a.source?.value === b.source?.value &&
    (a.destination.address.family === 6 || a.scope === b.scope) &&
    nextHopsText(a.nextHops) === nextHopsText(b.nextHops)
  );
}

/** Order does not matter among equal next hops; an absent weight is 1. */
function nextHopsText(nextHops: readonly NextHop[]): string {
  return nextHops
    .map(
      ({ gateway, device, onlink, weight }) =>
        `${gateway?.family}/${gateway?.value} ${device} ${onlink === true} ${weight ?? 1}`,
    )
    .toSorted()
    .join(", ");
}

/**
 * The nearest way to an address by the node's own routes, as BIRD's `gateway recursive` finds it: a next hop that is on a
 * link is its own gateway, another is reached by the gateway of the best route to it. Routes learned in BGP are left
 * out: a next hop must not hang on what it carries.
 */
export function resolveNextHop(address: Address, routes: readonly Route[]): NextHop | undefined {
  const best = bestRoute(
    address,
    routes.filter(({ table, protocol }) => table === TABLE_MAIN && protocol !== PROTOCOL_BGP),
  );
  const [hop] = best?.nextHops ?? [];
  if (hop?.device === undefined || best?.type !== "unicast") return undefined;
  return { gateway: hop.gateway ?? address, device: hop.device };
}

/** The route that packets to the address take: the longest prefix, then the lowest metric. */
export function bestRoute(address: Address, routes: readonly Route[]): Route | undefined {
  let best: Route | undefined;
  for (const route of routes) {
    if (!prefixContains(route.destination, address)) continue;
    const { length } = route.destination;
    const isBetter =
      best === undefined ||
      length > best.destination.length ||
      (length === best.destination.length && route.metric < best.metric);
    if (isBetter) best = route;
  }
  return best;
}

/**
 * The address that this machine's own packets to the destination leave with: the route's own, or as the kernel chooses
 * (inet_select_addr), of the link that it leads to, one in the next hop's network before others.
 */
export function sourceTowards(
  destination: Address,
  routes: readonly Route[],
  addresses: readonly LinkAddress[],
): Address | undefined {
  const best = bestRoute(destination, routes);
  const hop = best?.nextHops[0];
  if (best?.type !== "unicast" || hop === undefined) return undefined;
  if (best.source !== undefined) return best.source;
  const own = addresses.flatMap(({ device, address, scope }) =>
    device === hop.device && address.address.family === destination.family && scope === SCOPE_GLOBAL ? [address] : [],
  );
  const near = hop.gateway ?? destination;
  const nearest = own.find(({ address, length }) => prefixContains(networkOf(address, length), near)) ?? own[0];
  return nearest?.address;
}
