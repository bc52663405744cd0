import { PROTOCOL_AGENT, PROTOCOL_BGP } from "../dataplane/routes.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import { PROTOCOL_KERNEL, TABLE_MAIN, type Route } from "../netlink/route.ts";
import type { NodeInterface } from "./bgpFilters.ts";

/** Routes that other programs wrote into the kernel, which a node may tell its peers of, as BIRD with `learn`. */

export interface KernelRoute {
  readonly prefix: Prefix;
  /** 0 where the kernel's route has none. */
  readonly metric: number;
  /** The interface that it leads to: the first, where it has several; none for a blackhole. */
  readonly interface?: string;
}

/** RTPROT_REDIRECT (<linux/rtnetlink.h>): what a router told the kernel by ICMP. */
const PROTOCOL_REDIRECT = 1;
const NOT_OTHERS = new Set([PROTOCOL_REDIRECT, PROTOCOL_KERNEL, PROTOCOL_AGENT, PROTOCOL_BGP]);
/** Those that lead somewhere, or nowhere on purpose. */
const TYPES: ReadonlySet<string> = new Set(["unicast", "blackhole", "unreachable", "prohibit"]);

/**
 * Of the kernel's routes those of other programs, of each prefix the one that the kernel prefers. What leads to pods is not
 * among them: that is the agent's, whatever protocol it is written with. `nameOf` gives a link's name by its index.
 */
export function routesOfOthers(
  routes: readonly Route[],
  nameOf: (device: number) => string | undefined,
  workloadPrefixes: readonly string[],
): KernelRoute[] {
  const found = new Map<string, KernelRoute>();
  for (const { destination, table, type, protocol, metric, nextHops } of routes) {
    if (table !== TABLE_MAIN || NOT_OTHERS.has(protocol) || !TYPES.has(type)) continue;
    const device = nextHops[0]?.device;
    const name = device === undefined ? undefined : nameOf(device);
    if (name !== undefined && workloadPrefixes.some((prefix) => name.startsWith(prefix))) continue;
    const key = formatPrefix(destination);
    const other = found.get(key);
    if (other !== undefined && other.metric <= metric) continue;
    found.set(key, { prefix: destination, metric, ...(name !== undefined && { interface: name }) });
  }
  return [...found.values()];
}

/** One text for the same routes. */
export function textOfRoutes(routes: readonly KernelRoute[]): string {
  return routes
    .map(({ prefix, metric, interface: name = "" }) => `${formatPrefix(prefix)} ${metric} ${name}`)
    .toSorted()
    .join("\n");
}

/** The interfaces with the routes of others that lead to them: what `interface` of a BGPFilter means of a node's own. */
export function withRoutesOfOthers(
  interfaces: readonly NodeInterface[],
  routes: readonly KernelRoute[],
): NodeInterface[] {
  const behind = new Map<string, Prefix[]>();
  for (const { prefix, interface: name } of routes) {
    if (name === undefined) continue;
    const list = behind.get(name);
    if (list === undefined) behind.set(name, [prefix]);
    else list.push(prefix);
  }
  const known = new Set(interfaces.map(({ name }) => name));
  return [
    ...interfaces.map((each) => ({ ...each, behind: behind.get(each.name) ?? [] })),
    ...[...behind].flatMap(([name, prefixes]) => (known.has(name) ? [] : [{ name, networks: [], behind: prefixes }])),
  ];
}
