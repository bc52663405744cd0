import { policyInfo, type PolicyReport } from "./policy.ts";
import {
  formatPaths,
  formatTunnels,
  pathInfo,
  tunnelInfo,
  type FlannelReport,
  type PathStatus,
  type TunnelsReport,
} from "./statusTunnels.ts";
import { formatTable } from "./table.ts";

/** What the agents say of themselves, as far as it is shown, and how it is shown. */

export interface AgentStatus {
  readonly node: string;
  readonly ready: boolean;
  readonly waitingFor: readonly string[];
  readonly ipv4: string | null;
  readonly ipv6: string | null;
  readonly addressReason: string;
  readonly asNumber: number;
  readonly backend: string;
  readonly datastore: { readonly synced: boolean; readonly trouble: string | null };
  readonly endpoints: number;
  readonly blocks: readonly string[];
  readonly routes: {
    readonly wanted: number;
    readonly problems: readonly { readonly destination: string; readonly reason: string }[];
  };
  readonly bgp: {
    readonly settled: boolean;
    readonly peers: readonly PeerStatus[];
    /** What in the configuration has no effect. */
    readonly problems?: readonly string[];
  };
  /** Absent in an agent that enforces nothing. */
  readonly policy?: PolicyReport;
  /** Absent in an agent that is older. */
  readonly tunnels?: TunnelsReport;
  /** The ways to other nodes, as far as they were tried out. */
  readonly paths?: { readonly intervalMs: number; readonly peers: readonly PathStatus[] };
  /** Where flannel carries pods' packets, in the agent. */
  readonly flannel?: FlannelReport | null;
}

export interface PeerStatus {
  readonly name: string;
  readonly address: string;
  readonly asn: number;
  readonly type: string;
  readonly state: string;
  /** Milliseconds since 1970. */
  readonly since: number;
  /** Why it is not established; empty when it is. */
  readonly reason: string;
  readonly routes: {
    readonly [family: string]: {
      readonly received: number;
      readonly accepted: number;
      readonly stale: number;
      readonly advertised: number;
    };
  };
  readonly lastNotification?: { readonly direction: string; readonly text: string; readonly at: number };
  readonly bfd?: { readonly state: string };
}

/** An agent that did not answer. */
export interface Silent {
  readonly node: string;
  readonly error: string;
}

export type NodeAnswer = AgentStatus | Silent;

export function isSilent(answer: NodeAnswer): answer is Silent {
  return "error" in answer;
}

/** One line per node, then each node's peers in the table of `calicoctl node status`, its tunnels, and the ways to others. */
export function formatNodeStatus(answers: readonly NodeAnswer[]): string {
  const nodes = formatTable(
    ["NODE", "STATUS", "ADDRESS", "AS", "PEERS", "PODS", "BLOCKS", "INFO"],
    answers.map((answer) => {
      if (isSilent(answer)) return [answer.node, "silent", "", "", "", "", "", answer.error];
      const { peers } = answer.bgp;
      const up = peers.filter(({ state }) => state === "established").length;
      const addresses = [answer.ipv4, answer.ipv6].filter((address) => address !== null).join(",");
      const info = [
        ...answer.waitingFor.map((reason) => `waits for ${reason}`),
        answer.datastore.trouble ?? "",
        ...answer.routes.problems.map(({ reason }) => reason),
        ...(answer.bgp.problems ?? []),
        ...policyInfo(answer.policy),
        ...tunnelInfo(answer.tunnels, answer.flannel),
        ...pathInfo(answer.paths?.peers ?? []),
      ];
      return [
        answer.node,
        answer.ready ? "ready" : "not ready",
        addresses,
        String(answer.asNumber),
        `${up}/${peers.length}`,
        String(answer.endpoints),
        String(answer.blocks.length),
        info.filter((text) => text !== "").join("; ") || "-",
      ];
    }),
  );
  const silentOrAlone = (answer: NodeAnswer): boolean => isSilent(answer) || answer.bgp.peers.length === 0;
  const peers = answers
    .filter((answer): answer is AgentStatus => !silentOrAlone(answer))
    .map((answer) => `\n${answer.node}: BGP peers\n${formatPeers(answer.bgp.peers)}`);
  const tunnels = answers.flatMap((answer) => {
    const table = isSilent(answer) ? undefined : formatTunnels(answer.tunnels, answer.flannel);
    return table === undefined ? [] : [`\n${answer.node}: tunnels\n${table}`];
  });
  const paths = answers.flatMap((answer) =>
    isSilent(answer) || (answer.paths?.peers.length ?? 0) === 0
      ? []
      : [`\n${answer.node}: ways to other nodes\n${formatPaths(answer.paths?.peers ?? [])}`],
  );
  return nodes + peers.join("") + tunnels.join("") + paths.join("");
}

/** calicoctl's columns, and its words: tools read them. */
export function formatPeers(peers: readonly PeerStatus[]): string {
  return formatTable(
    ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"],
    peers.map((peer) => {
      const isUp = peer.state === "established";
      const info = isUp
        ? "Established"
        : peer.reason === ""
          ? capital(peer.state)
          : `${capital(peer.state)}: ${peer.reason}`;
      return [
        peer.address,
        peerType(peer.name),
        isUp ? "up" : "start",
        new Date(peer.since).toISOString().slice(0, 19).replace("T", " "),
        info,
      ];
    }),
  );
}

/** All that there is to know of each peer. */
export function formatPeerDetails(rows: readonly { readonly node: string; readonly peer: PeerStatus }[]): string {
  return formatTable(
    ["NODE", "NAME", "PEER ADDRESS", "AS", "TYPE", "STATE", "SINCE", "RECEIVED", "ADVERTISED", "INFO"],
    rows.map(({ node, peer }) => {
      const counts = Object.values(peer.routes);
      const sum = (of: (count: (typeof counts)[number]) => number): number =>
        counts.reduce((total, count) => total + of(count), 0);
      const stale = sum(({ stale: kept }) => kept);
      const refused = sum(({ received, accepted }) => received - accepted);
      const info = [
        peer.reason,
        refused > 0 ? `${refused} of its routes are refused` : "",
        peer.bfd !== undefined && peer.bfd.state !== "up" ? `BFD is ${peer.bfd.state}` : "",
        stale > 0 ? `${stale} routes kept from before it went away` : "",
        peer.lastNotification === undefined
          ? ""
          : `last notification ${peer.lastNotification.direction}: ${peer.lastNotification.text}`,
      ];
      return [
        node,
        peer.name,
        peer.address,
        String(peer.asn),
        peer.type,
        peer.state,
        new Date(peer.since).toISOString().slice(0, 19).replace("T", " "),
        String(sum(({ received }) => received)),
        String(sum(({ advertised }) => advertised)),
        info.filter((text) => text !== "").join("; ") || "-",
      ];
    }),
  );
}

function peerType(name: string): string {
  if (name.startsWith("Mesh_")) return "node-to-node mesh";
  if (name.startsWith("Local_Workload_")) return "local workload";
  return name.startsWith("Global_") ? "global" : "node specific";
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

export interface RouteRow {
  readonly prefix: string;
  readonly from: string;
  readonly to?: string;
  readonly chosen: boolean;
  readonly reason: string;
  readonly stale: boolean;
  /** Why the kernel is not given it. */
  readonly kernel?: string;
  readonly nextHops: readonly { readonly nextHop: string; readonly gateway?: string; readonly interface?: string }[];
}

export function formatRoutes(rows: readonly { readonly node: string; readonly route: RouteRow }[]): string {
  return formatTable(
    ["NODE", "PREFIX", "FROM", "TO", "NEXT HOP", "CHOSEN", "REASON"],
    rows.map(({ node, route }) => [
      node,
      route.prefix,
      route.from,
      route.to ?? "-",
      route.nextHops
        .map(
          ({ nextHop, gateway, interface: device }) =>
            `${nextHop}${gateway === undefined ? "" : ` by ${gateway}`}${device === undefined ? "" : ` on ${device}`}`,
        )
        .join(", ") || "-",
      route.chosen ? "yes" : "no",
      `${route.reason}${route.stale ? " (stale)" : ""}${route.kernel === undefined ? "" : `; not for the kernel: ${route.kernel}`}`,
    ]),
  );
}
