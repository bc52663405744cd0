import { parseAddress } from "../ip/address.ts";
import { CALICO, defineKind, type ItemOf } from "./define.ts";
import {
  asNumber,
  duration,
  familyOf,
  interfacePattern,
  ipAddress,
  ipAddressOf,
  nameOf,
  net,
  portNumber,
  secretKey,
  selector,
  timestamp,
} from "./fields.ts";
import { configurationName, NameError } from "./names.ts";
import { arrayOf, boolean, int, object, oneOf, optional, refine, string, text, withDefault } from "./schema.ts";

/** Calico's AS number where nobody says otherwise: the first of the private ones (RFC 6996). */
export const DEFAULT_AS_NUMBER = 64512;

/** `aa:nn` of 16 bits each (RFC 1997), or `aa:nn:mm` of 32 bits each (RFC 8092). */
function isCommunity(value: string): boolean {
  const parts = value.split(":");
  if (!parts.every((part) => /^[0-9]{1,10}$/.test(part))) return false;
  const limit = parts.length === 2 ? 2 ** 16 : 2 ** 32;
  return (parts.length === 2 || parts.length === 3) && parts.every((part) => Number(part) < limit);
}

export const communityValue = text("a community", (value) => {
  if (isCommunity(value)) return value;
  throw new NameError(`"${value}" is not a community: expected 65535:65535 or 4294967295:4294967295:4294967295`);
});

const logSeverity = oneOf("Trace", "Debug", "Info", "Warning", "Error", "Fatal");
const ranges = optional(arrayOf(object({ cidr: net })));

const configuration = refine(
  object({
    logSeverityScreen: withDefault(logSeverity, "Info"),
    nodeToNodeMeshEnabled: optional(boolean),
    asNumber: optional(asNumber),
    serviceClusterIPs: ranges,
    serviceExternalIPs: ranges,
    serviceLoadBalancerIPs: ranges,
    serviceLoadBalancerAggregation: withDefault(oneOf("Enabled", "Disabled"), "Enabled"),
    communities: optional(arrayOf(object({ name: string, value: communityValue }))),
    prefixAdvertisements: optional(arrayOf(object({ cidr: net, communities: arrayOf(string) }))),
    listenPort: optional(portNumber),
    nodeMeshPassword: optional(secretKey),
    nodeMeshMaxRestartTime: optional(duration),
    bindMode: optional(oneOf("None", "NodeIP")),
    ignoredInterfaces: optional(arrayOf(interfacePattern)),
    localWorkloadPeeringIPV4: optional(ipAddressOf(4)),
    localWorkloadPeeringIPV6: optional(ipAddressOf(6)),
    /** Which routes between nodes BGP writes into the kernel; Felix writes the others. */
    programClusterRoutes: optional(oneOf("Enabled", "EnabledIPIPOnly", "EnabledNoEncapOnly", "Disabled")),
    ipv4NormalRoutePriority: optional(int(1, 2 ** 31 - 2)),
    ipv6NormalRoutePriority: optional(int(1, 2 ** 31 - 2)),
  }),
  (spec, fault) => {
    const names = new Set((spec.communities ?? []).map(({ name }) => name));
    for (const [i, { communities }] of (spec.prefixAdvertisements ?? []).entries()) {
      for (const [j, community] of communities.entries()) {
        if (isCommunity(community) || names.has(community)) continue;
        fault(
          `"${community}" is neither a community nor the name of one in communities`,
          `prefixAdvertisements[${i}].communities[${j}]`,
        );
      }
    }
    if (names.size > 0 && (spec.prefixAdvertisements ?? []).length === 0) {
      fault("are not used by any of prefixAdvertisements", "communities");
    }
    if (spec.nodeToNodeMeshEnabled === false) {
      if (spec.nodeMeshPassword !== undefined) fault("has no meaning while the mesh is off", "nodeMeshPassword");
      if (spec.nodeMeshMaxRestartTime !== undefined)
        fault("has no meaning while the mesh is off", "nodeMeshMaxRestartTime");
    }
  },
);

/** BGP for all nodes (`default`), and what is different on one (`node.<name>`). */
export const bgpConfiguration = defineKind({
  kind: "BGPConfiguration",
  group: CALICO,
  version: "v3",
  plural: "bgpconfigurations",
  shortNames: ["bgpconfig", "bgpconfigs"],
  checkName: configurationName,
  fields: {
    spec: withDefault(configuration, { logSeverityScreen: "Info", serviceLoadBalancerAggregation: "Enabled" }),
  },
  check({ metadata, spec }, fault) {
    if (metadata.name === "default") return;
    for (const field of ["nodeToNodeMeshEnabled", "nodeMeshPassword", "nodeMeshMaxRestartTime"] as const) {
      if (spec[field] !== undefined) fault("may be set in the BGPConfiguration named default only", `spec.${field}`);
    }
  },
  columns: [
    { heading: "LOGSEVERITY", text: ({ spec }) => spec.logSeverityScreen },
    { heading: "MESHENABLED", text: ({ spec }) => String(spec.nodeToNodeMeshEnabled ?? true) },
    { heading: "ASNUMBER", text: ({ spec }) => String(spec.asNumber ?? DEFAULT_AS_NUMBER) },
  ],
});
export type BGPConfiguration = ItemOf<typeof bgpConfiguration>;

/** A peer's address and, where it is given, port: `192.0.2.1`, `192.0.2.1:1179`, `[2001:db8::1]:1179`. Throws `Failure`. */
export function parsePeerAddress(value: string): { address: string; port?: number } {
  const withPort = /^(?:\[([^\]]*)\]|([0-9.]+)):([0-9]+)$/.exec(value);
  if (withPort === null) {
    parseAddress(value);
    return { address: value };
  }
  const address = withPort[1] ?? withPort[2] ?? "";
  const port = Number(withPort[3]);
  const { family } = parseAddress(address);
  if ((withPort[1] !== undefined) !== (family === 6))
    throw new NameError(`"${value}": only IPv6 addresses stand in brackets`);
  if (port < 1 || port > 65535) throw new NameError(`"${value}": port ${port} is not 1 to 65535`);
  return { address, port };
}

const peerIP = text("an IP address with an optional port", (value) => {
  parsePeerAddress(value);
  return value;
});

const peer = refine(
  object({
    /** Neither this nor nodeSelector: every node. */
    node: optional(nameOf),
    nodeSelector: optional(selector),
    peerIP: optional(peerIP),
    peerSelector: optional(selector),
    localWorkloadSelector: optional(selector),
    /** Absent: the same as the node's. */
    asNumber: optional(asNumber),
    localASNumber: optional(asNumber),
    keepOriginalNextHop: optional(boolean),
    nextHopMode: optional(oneOf("Auto", "Self", "Keep")),
    password: optional(secretKey),
    sourceAddress: withDefault(oneOf("UseNodeIP", "None"), "UseNodeIP"),
    maxRestartTime: optional(duration),
    keepaliveTime: optional(duration),
    numAllowedLocalASNumbers: optional(int(0, 10)),
    /** Hop count (RFC 5082). */
    ttlSecurity: optional(int(0, 255)),
    /** Gateway over which the peer is reached. */
    reachableBy: optional(ipAddress),
    /** Names of BGPFilters, in the order in which they are asked. */
    filters: optional(arrayOf(nameOf)),
    reversePeering: optional(oneOf("Auto", "Manual")),
  }),
  (spec, fault) => {
    const exclude = (field: keyof typeof spec, other: keyof typeof spec): void => {
      if (spec[field] !== undefined && spec[other] !== undefined)
        fault(`must be absent, because ${other} is given`, field);
    };
    exclude("node", "nodeSelector");
    exclude("peerIP", "peerSelector");
    exclude("asNumber", "peerSelector");
    exclude("peerIP", "localWorkloadSelector");
    exclude("peerSelector", "localWorkloadSelector");
    if (spec.localWorkloadSelector !== undefined && spec.asNumber === undefined) {
      fault("is required, because localWorkloadSelector is given", "asNumber");
    }
    if ([spec.peerIP, spec.peerSelector, spec.localWorkloadSelector].every((field) => field === undefined)) {
      fault("is required (or peerSelector, or localWorkloadSelector)", "peerIP");
    }
    if (spec.keepOriginalNextHop === true) exclude("keepOriginalNextHop", "nextHopMode");
    if (spec.reachableBy === undefined) return;
    if (spec.peerIP === undefined) fault("must be absent without peerIP", "reachableBy");
    else if (familyOf(spec.reachableBy) !== familyOf(parsePeerAddress(spec.peerIP).address)) {
      fault("is not of the same IP version as peerIP", "reachableBy");
    }
  },
);

/** A router, or a set of nodes, that some or all nodes speak BGP with. */
export const bgpPeer = defineKind({
  kind: "BGPPeer",
  group: CALICO,
  version: "v3",
  plural: "bgppeers",
  shortNames: ["bgpp", "bgpps", "bp", "bps"],
  fields: { spec: peer },
  columns: [
    { heading: "PEERIP", text: ({ spec }) => spec.peerIP ?? spec.peerSelector ?? spec.localWorkloadSelector ?? "" },
    { heading: "NODE", text: ({ spec }) => spec.node ?? spec.nodeSelector ?? "(global)" },
    { heading: "ASN", text: ({ spec }) => (spec.asNumber === undefined ? "" : String(spec.asNumber)) },
  ],
});
export type BGPPeer = ItemOf<typeof bgpPeer>;

const birdStatus = object({
  state: optional(oneOf("Ready", "NotReady")),
  version: optional(string),
  routerID: optional(string),
  lastBootTime: optional(string),
  lastReconfigurationTime: optional(string),
});
const peerStatus = object({
  peerIP: optional(string),
  type: optional(oneOf("NodeMesh", "NodePeer", "GlobalPeer")),
  state: optional(oneOf("Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established", "Close")),
  since: optional(string),
});
const routeStatus = object({
  type: optional(oneOf("FIB", "RIB")),
  destination: optional(string),
  gateway: optional(string),
  interface: optional(string),
  learnedFrom: optional(
    object({
      sourceType: optional(oneOf("Kernel", "Static", "Direct", "NodeMesh", "BGPPeer")),
      peerIP: optional(string),
    }),
  ),
});
const count = withDefault(int(0, 2 ** 31 - 1), 0);

/** A request for the state of one node's BGP, which that node answers in `status`. */
export const calicoNodeStatus = defineKind({
  kind: "CalicoNodeStatus",
  group: CALICO,
  version: "v3",
  plural: "caliconodestatuses",
  shortNames: ["nodestatus", "nodestatuses"],
  status: true,
  fields: {
    spec: object({
      node: nameOf,
      classes: withDefault(arrayOf(oneOf("Agent", "BGP", "Routes")), []),
      /** 0: not refreshed. */
      updatePeriodSeconds: withDefault(int(0, 2 ** 31 - 1), 10),
    }),
    status: optional(
      object({
        agent: optional(object({ birdV4: optional(birdStatus), birdV6: optional(birdStatus) })),
        bgp: optional(
          object({
            numberEstablishedV4: count,
            numberNotEstablishedV4: count,
            numberEstablishedV6: count,
            numberNotEstablishedV6: count,
            peersV4: optional(arrayOf(peerStatus)),
            peersV6: optional(arrayOf(peerStatus)),
          }),
        ),
        routes: optional(
          object({ routesV4: optional(arrayOf(routeStatus)), routesV6: optional(arrayOf(routeStatus)) }),
        ),
        lastUpdated: optional(timestamp),
      }),
    ),
  },
  columns: [
    { heading: "NODE", text: ({ spec }) => spec.node },
    { heading: "CLASSES", text: ({ spec }) => spec.classes.join(",") },
  ],
});
export type CalicoNodeStatus = ItemOf<typeof calicoNodeStatus>;
