import { formatTable } from "./table.ts";

/** The tunnels of a node and the ways to other nodes, as its agent tells of them, and how they are shown. */

export interface TunnelsReport {
  readonly ipip: (TunnelReport & IpipReport) | null;
  readonly vxlan: readonly (TunnelReport & { readonly checksumOffload: string | null })[];
  /** Destinations whose node has not said yet how it is reached. */
  readonly pending: readonly string[];
  readonly problems: readonly string[];
}

interface TunnelReport {
  readonly device: string;
  readonly address: string | null;
  readonly mtu: number;
  /** Other nodes at its other ends. */
  readonly peers: number;
}

interface IpipReport {
  /** `kernel`, or `bpf` where the kernel has no such device. */
  readonly kind: string;
  readonly counters?: Readonly<Record<string, number>>;
  /** Why the tunnel would end with the agent, where it would. */
  readonly notKept?: string;
}

export interface FlannelReport {
  readonly backend: string;
  readonly subnets: string;
  readonly mtu: number;
  readonly peers: number;
  readonly devices: { readonly devices?: readonly string[] } & Partial<IpipReport>;
  readonly problems: readonly string[];
}

export interface PathStatus {
  readonly node: string;
  /** By what packets travel: `none`, `ipip`, `vxlan`, `flannel udp`. */
  readonly kind: string;
  readonly device: string;
  readonly target: string;
  /** Bytes of the largest packet that pods send there, and of the largest that arrives. */
  readonly mtu: number;
  readonly largest: number | null;
  readonly verdict: string;
  /** What is wrong; empty where nothing is. */
  readonly text: string;
  readonly roundTrip: number | null;
  /** Milliseconds since 1970. */
  readonly checkedAt: number;
}

/** A line for each tunnel; nothing where there is none. */
export function formatTunnels(
  tunnels: TunnelsReport | undefined,
  flannel: FlannelReport | null | undefined,
): string | undefined {
  const rows = [...(tunnels === undefined ? [] : tunnelRows(tunnels)), ...(flannel ? [flannelRow(flannel)] : [])];
  return rows.length === 0 ? undefined : formatTable(["DEVICE", "BY", "ADDRESS", "MTU", "NODES", "INFO"], rows);
}

function tunnelRows({ ipip, vxlan }: TunnelsReport): string[][] {
  const rowOf = ({ device, address, mtu, peers }: TunnelReport, by: string, info: string): string[] => {
    return [device, by, address ?? "-", String(mtu), String(peers), info || "-"];
  };
  return [
    ...(ipip === null ? [] : [rowOf(ipip, `IPIP, ${ipipForm(ipip.kind)}`, ipipInfo(ipip))]),
    ...vxlan.map((each) => rowOf(each, "VXLAN", offloadInfo(each.checksumOffload))),
  ];
}

function flannelRow({ backend, subnets, mtu, peers, devices }: FlannelReport): string[] {
  const { kind } = devices;
  const by = `flannel ${backend}${kind === undefined ? "" : `, ${ipipForm(kind)}`}`;
  const info = kind === undefined ? "" : ipipInfo({ ...devices, kind });
  return [devices.devices?.join(", ") || "-", by, subnets, String(mtu), String(peers), info || "-"];
}

const ipipForm = (kind: string): string => (kind === "kernel" ? "the kernel's device" : "BPF programs");

/** Packets that the programs did not take: the device's own counters know nothing of them. */
const DROPPED: Readonly<Record<string, string>> = {
  droppedUnknownPeer: "from strangers",
  droppedNoRemote: "to nobody's addresses",
  droppedNoRoute: "to nodes without a route",
  droppedMalformed: "malformed",
};

function ipipInfo({ counters = {}, notKept }: IpipReport): string {
  const dropped = Object.entries(DROPPED).flatMap(([name, words]) =>
    (counters[name] ?? 0) > 0 ? [`${counters[name]} ${words}`] : [],
  );
  return [
    notKept === undefined ? "" : `it ends with the agent: ${notKept}`,
    dropped.length === 0 ? "" : `packets dropped: ${dropped.join(", ")}`,
  ]
    .filter((text) => text !== "")
    .join("; ");
}

/** What the test of the checksum offload has come to: see docs/tunnels.md. */
function offloadInfo(verdict: string | null): string {
  if (verdict === "broken") return "the checksum offload spoils packets, and is off";
  if (verdict === "set off") return "the checksum offload is off by configuration";
  return verdict === "fine" ? "the checksum offload works" : "";
}

/** In a line, of what the tables below say in full. */
export function tunnelInfo(tunnels: TunnelsReport | undefined, flannel: FlannelReport | null | undefined): string[] {
  const pending = tunnels?.pending ?? [];
  const some = `${pending.slice(0, 3).join(", ")}${pending.length > 3 ? " and others" : ""}`;
  return [
    ...(tunnels?.problems ?? []),
    ...(pending.length === 0 ? [] : [`no way yet to ${some}: their nodes have not said how they are reached`]),
    ...(flannel?.problems ?? []),
  ];
}

/** In a line, of what the table below says in full. */
export function pathInfo(peers: readonly PathStatus[]): string[] {
  const bad = new Set(peers.flatMap(({ node, verdict }) => (verdict === "reachable" ? [] : [node])));
  if (bad.size === 0) return [];
  return [
    `the ${bad.size === 1 ? "way" : "ways"} to ${[...bad].slice(0, 3).join(", ")}${bad.size > 3 ? " and others" : ""}: see below`,
  ];
}

export function formatPaths(peers: readonly PathStatus[]): string {
  return formatTable(
    ["NODE", "BY", "DEVICE", "TARGET", "STATE", "LARGEST", "MTU", "ROUND TRIP", "INFO"],
    peers.map(({ node, kind, device, target, verdict, largest, mtu, roundTrip, text }) => [
      node,
      kind === "none" ? "no tunnel" : kind,
      device,
      target,
      verdict,
      largest === null ? "-" : String(largest),
      String(mtu),
      roundTrip === null ? "-" : `${roundTrip.toFixed(2)} ms`,
      text || "-",
    ]),
  );
}
