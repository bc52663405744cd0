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
  readonly bgp: { readonly settled: boolean; readonly peers: readonly PeerStatus[] };
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

/** One line per node, then each node's peers in the table of `calicoctl node status`. */
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
  return nodes + peers.join("");
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
      const info = [
        peer.reason,
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
      `${route.reason}${route.stale ? " (stale)" : ""}`,
    ]),
  );
}
