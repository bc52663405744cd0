import type { Address } from "../ip/address.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import type { NextHop, Route } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { bgpRoute, routeKey } from "./routes.ts";
import type { RouteTable } from "./routeTable.io.ts";

/** What BGP says of a prefix. */
export interface LearnedRoute {
  readonly prefix: Prefix;
  /** Best first; none where there is no route any more. */
  readonly nextHops: readonly LearnedHop[];
  /** Of the kernel's route: its metric. */
  readonly metric?: number;
}

export interface LearnedHop {
  /** As the peer announced it. */
  readonly nextHop: Address;
  /** The neighbour on the link, where the next hop is none. */
  readonly gateway?: Address;
  readonly interface?: string;
  /** It goes through a tunnel, on whose link every next hop is. */
  readonly onlink?: boolean;
}

/** The routes learned in BGP, as the kernel is to have them: what changes is written, and nothing else is looked at. */
export interface LearnedRoutes {
  apply(changes: readonly LearnedRoute[]): void;
  /** Links came, went, or came back under another index. */
  linksChanged(): void;
  clear(): void;
}

export function createLearnedRoutes(rtnetlink: Pick<Rtnetlink, "link">, routeTable: RouteTable): LearnedRoutes {
  const learned = new Map<string, { readonly said: LearnedRoute; readonly route: Route | undefined }>();
  /** Links come and go under their names; routes need their index. */
  const indexes = new Map<string, number | undefined>();

  function indexOf(name: string): number | undefined {
    if (!indexes.has(name)) indexes.set(name, rtnetlink.link(name)?.index);
    return indexes.get(name);
  }

  function routeOf({ prefix, nextHops, metric }: LearnedRoute): Route | undefined {
    const hops = nextHops.flatMap((hop): NextHop[] => {
      const device = hop.interface === undefined ? undefined : indexOf(hop.interface);
      return device === undefined
        ? []
        : [{ gateway: hop.gateway ?? hop.nextHop, device, ...(hop.onlink === true && { onlink: true }) }];
    });
    return hops.length === 0 ? undefined : bgpRoute(prefix, hops, metric);
  }

  function apply(changes: readonly LearnedRoute[]): void {
    const put: Route[] = [];
    const gone: Route[] = [];
    for (const said of changes) {
      const key = formatPrefix(said.prefix);
      const before = learned.get(key)?.route;
      const route = routeOf(said);
      if (said.nextHops.length === 0) learned.delete(key);
      else learned.set(key, { said, route });
      if (route !== undefined) put.push(route);
      if (before !== undefined && (route === undefined || routeKey(before) !== routeKey(route))) gone.push(before);
    }
    routeTable.change("bgp", "bgp", put, gone);
  }

  return {
    apply,
    linksChanged() {
      const before = new Map(indexes);
      indexes.clear();
      const moved = new Set<string | undefined>(
        [...before].flatMap(([name, index]) => (indexOf(name) === index ? [] : [name])),
      );
      if (moved.size === 0) return;
      apply(
        [...learned.values()].flatMap(({ said }) =>
          said.nextHops.some((hop) => moved.has(hop.interface)) ? [said] : [],
        ),
      );
    },
    clear() {
      learned.clear();
      routeTable.want("bgp", "bgp", []);
    },
  };
}
