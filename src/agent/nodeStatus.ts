import type { PeerStatus, RouteView } from "../bgp/config.ts";
import { formatAddress, type Family } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { Route } from "../netlink/route.ts";
import type { CalicoNodeStatus } from "../resources/bgp.ts";

/** What a CalicoNodeStatus asks of a node, in Calico's words. */

export type NodeStatus = NonNullable<CalicoNodeStatus["status"]>;
export type StatusClass = CalicoNodeStatus["spec"]["classes"][number];

export interface NodeStatusInput {
  readonly classes: readonly StatusClass[];
  readonly now: Date;
  readonly version: string;
  readonly routerId: string;
  readonly started: Date;
  readonly configured: Date;
  readonly isReady: boolean;
  /** Which families the node has an address of. */
  readonly families: readonly Family[];
  readonly peers: readonly PeerStatus[];
  /** The view `best`. */
  readonly routes: () => readonly RouteView[];
  /** Of the kernel's main table, those that are not BGP's. */
  readonly kernelRoutes: () => readonly Route[];
  readonly interfaceName: (index: number) => string;
}

/** An object of the datastore holds so many routes of a family, and no more. */
const MOST_ROUTES = 5000;

export function nodeStatusOf(input: NodeStatusInput): NodeStatus {
  const { classes, now } = input;
  return {
    ...(classes.includes("Agent") && { agent: agentStatus(input) }),
    ...(classes.includes("BGP") && { bgp: bgpStatus(input) }),
    ...(classes.includes("Routes") && { routes: routeStatus(input) }),
    lastUpdated: now.toISOString().replace(/\.[0-9]{3}Z$/, "Z"),
  };
}

function agentStatus({ version, routerId, started, configured, isReady, families }: NodeStatusInput) {
  const one = {
    state: isReady ? ("Ready" as const) : ("NotReady" as const),
    version: `caracal ${version}`,
    routerID: routerId,
    lastBootTime: birdTime(started),
    lastReconfigurationTime: birdTime(configured),
  };
  // Calico runs a BIRD for each family; here is one speaker for both.
  return { ...(families.includes(4) && { birdV4: one }), ...(families.includes(6) && { birdV6: one }) };
}

const STATES = {
  idle: "Idle",
  connect: "Connect",
  active: "Active",
  openSent: "OpenSent",
  openConfirm: "OpenConfirm",
  established: "Established",
} as const;

function bgpStatus({ peers }: NodeStatusInput) {
  const of = (family: Family) => peers.filter(({ address }) => address.includes(":") === (family === 6));
  const listed = (family: Family) =>
    of(family).map(({ address, name, state, since }) => ({
      peerIP: address,
      type: peerType(name),
      state: STATES[state],
      since: birdTime(new Date(since)),
    }));
  const up = (family: Family): number => of(family).filter(({ state }) => state === "established").length;
  return {
    numberEstablishedV4: up(4),
    numberNotEstablishedV4: of(4).length - up(4),
    numberEstablishedV6: up(6),
    numberNotEstablishedV6: of(6).length - up(6),
    peersV4: listed(4),
    peersV6: listed(6),
  };
}

function peerType(name: string): "NodeMesh" | "NodePeer" | "GlobalPeer" {
  if (name.startsWith("Mesh_")) return "NodeMesh";
  return name.startsWith("Global_") ? "GlobalPeer" : "NodePeer";
}

type StatusRoute = NonNullable<NonNullable<NodeStatus["routes"]>["routesV4"]>[number];

function routeStatus({ peers, routes, kernelRoutes, interfaceName }: NodeStatusInput) {
  const addresses = new Map(peers.map(({ name, address }) => [name, address]));
  const learned = routes().map(({ prefix, from, chosen, nextHops }): StatusRoute => {
    const [hop] = nextHops;
    const peerIP = addresses.get(from);
    const gateway = hop === undefined ? "N/A" : formatAddress(hop.gateway ?? hop.nextHop);
    return {
      type: chosen ? "FIB" : "RIB",
      destination: prefix,
      gateway,
      interface: hop?.interface ?? "N/A",
      learnedFrom:
        peerIP === undefined
          ? { sourceType: "Static" }
          : { sourceType: from.startsWith("Mesh_") ? "NodeMesh" : "BGPPeer", peerIP },
    };
  });
  const own = kernelRoutes().map(({ destination, type, nextHops: [hop] }): StatusRoute => ({
    type: "FIB",
    destination: formatPrefix(destination),
    gateway: hop?.gateway === undefined ? "N/A" : formatAddress(hop.gateway),
    interface: type === "unicast" && hop?.device !== undefined ? interfaceName(hop.device) : type,
    learnedFrom: { sourceType: type === "blackhole" ? "Static" : hop?.gateway === undefined ? "Direct" : "Kernel" },
  }));
  // What this node holds itself stands there once, as the kernel has it.
  const held = new Set(own.map(({ destination }) => destination));
  const all = [
    ...own,
    ...learned.filter(({ destination, learnedFrom }) => learnedFrom?.peerIP !== undefined || !held.has(destination)),
  ];
  const of = (family: Family): StatusRoute[] =>
    all
      .filter(({ destination = "0.0.0.0/0" }) => parsePrefix(destination).address.family === family)
      .slice(0, MOST_ROUTES);
  return { routesV4: of(4), routesV6: of(6) };
}

/** `2026-11-22 06:04:33`, as BIRD writes it. */
function birdTime(time: Date): string {
  return time.toISOString().slice(0, 19).replace("T", " ");
}
