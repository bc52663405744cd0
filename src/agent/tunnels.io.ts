import { clusterRoute, PROTOCOL_BGP, resolveNextHop } from "../dataplane/routes.ts";
import type { RouteTable } from "../dataplane/routeTable.io.ts";
import {
  agentPrograms,
  planTunnels,
  type TunnelBlock,
  type TunnelPlan,
  type TunnelRoute,
} from "../dataplane/tunnelRoutes.ts";
import { formatAddress, sameAddress, type Address, type Family } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { openAlarm } from "../lib/alarm.io.ts";
import { openMonitor } from "../netlink/monitor.io.ts";
import { describeRoute, TABLE_MAIN, type NextHop, type Route } from "../netlink/route.ts";
import type { BlockChange } from "./cluster.io.ts";
import { createTunnelAddresses, type TunnelAddressOptions } from "./tunnelAddresses.io.ts";
import {
  createTunnelDevices,
  deviceOf,
  FAMILIES,
  IPIP,
  vxlanOf,
  type DevicesStatus,
  type DevicesWish,
  type TunnelDevicesOptions,
} from "./tunnelDevices.io.ts";
import { type KnownNode, tunnelBlock, tunnelEnabled, type TunnelId, tunnelNode, tunnelPools } from "./tunnelFacts.ts";

/** The tunnels of this node: their addresses, their devices and the routes through them, from pools, nodes and blocks. */
export interface Tunnels {
  /** Says whether the block's change moves any route. */
  observe(change: BlockChange): boolean;
  /** Pools, nodes or settings have changed. */
  changed(): void;
  /** Links, addresses or routes of this machine have changed. */
  kernelChanged(): void;
  /**
   * Brings devices to what is wanted, where something has changed since, and tells the route table what routes are. Says
   * whether other routes are wanted than before, or another tunnel is active: the caller has them written.
   */
  apply(): boolean;
  /** Has the tunnels' addresses on the Node. Rejects where that fails. */
  publish(): Promise<void>;
  /** Tunnels that work here, at any time: what BGP learns of their pools is not for the kernel. */
  readonly active: ReadonlySet<TunnelId["kind"]>;
  status(): TunnelsStatus;
  /** Lets go: what is in the kernel stays and works. */
  close(): void;
}

export interface TunnelsStatus extends DevicesStatus {
  /** How many destinations go each way. */
  readonly routes: Readonly<Partial<Record<TunnelRoute["routeClass"], number>>>;
  /** Destinations that have no route yet, since their node has not said how it is reached. */
  readonly pending: readonly string[];
  readonly problems: readonly string[];
}

export interface TunnelsOptions
  extends
    Omit<TunnelAddressOptions, "wanted">,
    Pick<TunnelDevicesOptions, "rtnetlink" | "settings" | "isWorkloadInterface"> {
  readonly routeTable: RouteTable;
  /** Something that is not as it should be, or will be time for: apply again. */
  readonly onDisturbance: () => void;
}

/** How long a destination keeps the route that it had, while its node has not said how it is reached now. */
const HOLD_MS = 10_000;
/** How long what others do to our devices gathers. */
const SETTLE_MS = 20;
const RETRY_MS = { first: 250, longest: 10_000 };

export function createTunnels(options: TunnelsOptions): Tunnels {
  const { nodeName, rtnetlink, routeTable, cluster, settings, onDisturbance, log } = options;
  const blocks = new Map<string, { readonly text: string; readonly block: TunnelBlock }>();
  let routes = new Map<string, { readonly route: Route; readonly since: number }>();
  const active = new Set<TunnelId["kind"]>();
  /** What was last wanted, in words. */
  let said = "";
  let plan: TunnelPlan = { routes: [], pending: [], ipipDestinations: [] };
  let dirty = true;
  let retryMs = RETRY_MS.first;
  let closed = false;

  const another = openAlarm(() => {
    dirty = true;
    onDisturbance();
  });
  /** Looks again after a while. */
  const later = (milliseconds: number): void => another.within(milliseconds);

  const addresses = createTunnelAddresses({
    ...options,
    wanted: (tunnel) => isEnabled(tunnel) || (devices.isLingering(deviceOf(tunnel)) ? "keep" : false),
  });

  const devices = createTunnelDevices({ ...options, isEnabled, later });

  function isEnabled(tunnel: TunnelId): boolean {
    return tunnelEnabled(tunnel, cluster().items("IPPool"), settings());
  }

  /** The kernel's form of a route; undefined while its device is not there. */
  function kernelRoute(route: TunnelRoute, situation: Situation): Route | undefined {
    const { destination, routeClass, gateway, device, onlink } = route;
    const { family } = destination.address;
    if (routeClass === "noEncap") {
      const hop = gateway && situation.wayTo(gateway);
      return hop && clusterRoute(destination, hop);
    }
    if (device === "underlay") {
      const underlay = situation.underlays[family];
      return underlay === undefined
        ? undefined
        : clusterRoute(destination, { device: underlay, ...(gateway && { gateway }) });
    }
    const index = devices.indexOf(deviceOf(device === "tunl0" ? IPIP : vxlanOf(family)));
    if (index === undefined) return undefined;
    return clusterRoute(destination, { device: index, ...(gateway && { gateway }), ...(onlink && { onlink }) });
  }

  /** `silent`: addresses of nodes that have not said that they have an end of the IPIP tunnel. */
  function writeRoutes(situation: Situation, silent: ReadonlySet<string>): void {
    const now = performance.now();
    const next = new Map<string, { readonly route: Route; readonly since: number }>();
    const keep = (key: string): boolean => {
      const held = routes.get(key);
      if (held === undefined || now - held.since > HOLD_MS) return false;
      next.set(key, held);
      later(held.since + HOLD_MS - now + 1);
      return true;
    };
    for (const each of plan.routes) {
      const key = formatPrefix(each.destination);
      const route = kernelRoute(each, situation);
      // A node that has not heard of the tunnel yet would not take what comes by it.
      const isEarly = each.device === "tunl0" && each.gateway !== undefined && silent.has(formatAddress(each.gateway));
      if (route !== undefined && !(isEarly && keep(key))) next.set(key, { route, since: now });
      else if (route === undefined) keep(key);
    }
    for (const destination of plan.pending) keep(formatPrefix(destination));
    routes = next;
    routeTable.want(
      "tunnels",
      "agent",
      [...next.values()].map(({ route }) => route),
    );
  }

  function applyAll(): void {
    const node = cluster().get("Node", nodeName);
    if (node === undefined) return;
    const self = tunnelNode(node);
    const peers = cluster()
      .items("Node")
      .filter(({ metadata }) => metadata.name !== nodeName)
      .map(tunnelNode);
    const situation = look(self);
    plan = planTunnels({
      self,
      peers,
      pools: tunnelPools(cluster().items("IPPool")).filter(({ prefix, ipip: ipipMode, vxlan }) => {
        // A tunnel that a setting has switched off is not for us, whatever the pools say.
        if (vxlan !== "Never") return isEnabled(vxlanOf(prefix.address.family));
        return ipipMode === "Never" || isEnabled(IPIP);
      }),
      blocks: [...blocks.values()].map(({ block }) => block),
      programs: agentPrograms(settings().programClusterRoutes),
    });
    devices.apply({ self, peers, ipipDestinations: plan.ipipDestinations, ...situation });
    const works = (tunnel: TunnelId): boolean => devices.indexOf(deviceOf(tunnel)) !== undefined;
    for (const kind of ["ipip", "vxlan"] as const) {
      if (kind === "ipip" ? works(IPIP) : FAMILIES.some((family) => works(vxlanOf(family)))) active.add(kind);
      else active.delete(kind);
    }
    const silent = peers.filter(({ network }) => network.ipipTunnel === undefined);
    writeRoutes(situation, new Set(silent.flatMap(({ address }) => addressText(address[4]) ?? [])));
    if (devices.problems().length === 0) {
      retryMs = RETRY_MS.first;
    } else {
      later(retryMs);
      retryMs = Math.min(retryMs * 2, RETRY_MS.longest);
    }
  }

  interface Situation extends Pick<DevicesWish, "links" | "underlays"> {
    readonly wayTo: (address: Address) => NextHop | undefined;
  }

  function look(self: KnownNode): Situation {
    const present = rtnetlink.addresses();
    const linkOf = (family: Family): number | undefined => {
      const own = self.address[family]?.address;
      return own && present.find((each) => sameAddress(each.address.address, own))?.device;
    };
    let known: Route[] | undefined;
    return {
      links: rtnetlink.links(),
      underlays: { 4: linkOf(4), 6: linkOf(6) },
      wayTo(address) {
        known ??= rtnetlink.routes({ table: TABLE_MAIN }).filter(({ protocol }) => protocol !== PROTOCOL_BGP);
        return resolveNextHop(address, known);
      },
    };
  }

  // Neighbours and forwarding entries of our own devices; of links, addresses and routes others tell us.
  const endMonitor = openMonitor(
    { groups: ["neighbour"] },
    {
      event({ item }) {
        if (item.kind !== "neighbour" && item.kind !== "forwarding") return;
        const { device } = item.kind === "neighbour" ? item.neighbour : item.entry;
        if (FAMILIES.some((family) => devices.indexOf(deviceOf(vxlanOf(family))) === device)) later(SETTLE_MS);
      },
      overrun: () => later(SETTLE_MS),
      failed: (failure) => log("warn", "the tunnels' neighbours cannot be followed", { reason: failure.message }),
    },
  );

  return {
    observe(change) {
      if (change.type === "sync") {
        const present = new Set(change.blocks.map(({ metadata }) => metadata.name));
        for (const name of blocks.keys()) if (!present.has(name)) blocks.delete(name);
        for (const block of change.blocks) put(block);
        dirty = true;
        return true;
      }
      const { block } = change;
      const moved = change.type === "gone" || block.spec.deleted ? blocks.delete(block.metadata.name) : put(block);
      dirty ||= moved;
      return moved;
    },
    changed() {
      dirty = true;
    },
    kernelChanged() {
      dirty = true;
    },
    apply() {
      if (!dirty || closed) return false;
      dirty = false;
      applyAll();
      addresses.check();
      const now = [...active, ...routes.values().map(({ route }) => describeRoute(route))].join("\n");
      const moved = now !== said;
      said = now;
      return moved;
    },
    publish: () => addresses.publish(),
    active,
    status() {
      const counts: Partial<Record<TunnelRoute["routeClass"], number>> = {};
      for (const { routeClass } of plan.routes) counts[routeClass] = (counts[routeClass] ?? 0) + 1;
      return {
        ...devices.status(),
        routes: counts,
        pending: plan.pending.map(formatPrefix),
        problems: devices.problems(),
      };
    },
    close() {
      closed = true;
      another.close();
      endMonitor();
      addresses.close();
      devices.close();
    },
  };

  function put(item: Parameters<typeof tunnelBlock>[0]): boolean {
    if (item.spec.deleted) return blocks.delete(item.metadata.name);
    const block = tunnelBlock(item);
    const text = textOf(block);
    if (blocks.get(item.metadata.name)?.text === text) return false;
    blocks.set(item.metadata.name, { text, block });
    return true;
  }
}

/** Two blocks of the same text have the same routes. */
function textOf({ prefix, node, borrowed }: TunnelBlock): string {
  const users = borrowed.map(({ address, node: user }) => `${formatAddress(address)} ${user}`);
  return [formatPrefix(prefix), node ?? "", ...users].join(",");
}

const addressText = (own: KnownNode["address"][4]): string | undefined => own && formatAddress(own.address);
