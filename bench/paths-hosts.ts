import { execFileSync } from "node:child_process";
import { inNamespace } from "../src/netlink/namespace.io.ts";

/** Two hosts with a pod each, and how the pods of some are joined: by hand, with `ip` and `bridge`. */
export interface HostPair {
  /** Paths of their namespaces. */
  readonly hosts: readonly [string, string];
  readonly pods: readonly [string, string];
  /** All pods of the pair; a /24 of it is on each side. */
  readonly network: string;
  nodeAddress(side: 1 | 2): string;
  podAddress(side: 1 | 2): string;
  gateway(side: 1 | 2): string;
}

/** Flannel's configuration, and the MTU that pods have by it. */
export const FLANNEL = {
  "flannel udp": { backend: { Type: "udp" }, mtu: 1472 },
  "flannel vxlan": { backend: { Type: "vxlan" }, mtu: 1450 },
  "flannel host-gw": { backend: { Type: "host-gw" }, mtu: 1500 },
} as const;

const MTU = { plain: 1500, "VXLAN by hand": 1450 } as const;

export function addHandPath(name: keyof typeof MTU, pair: HostPair): void {
  for (const side of [1, 2] as const) {
    if (name === "plain") {
      const other = side === 1 ? 2 : 1;
      ip(pair.hosts[side - 1]!, "route", "add", subnetOf(pair, other), "via", pair.nodeAddress(other));
    } else addVxlan(pair, side);
    addPodRoute(pair, side, MTU[name]);
  }
}

/** The way out of a pod. */
export function addPodRoute(pair: HostPair, side: 1 | 2, mtu: number): void {
  ip(pair.pods[side - 1]!, "route", "add", pair.network, "via", pair.gateway(side), "mtu", String(mtu));
}

/** Its half of the pair's network. */
export const subnetOf = (pair: HostPair, side: 1 | 2): string => pair.podAddress(side).replace(/\d+$/, "0/24");

const DEVICE = "vxlan0";
const macOf = (side: number): string => `66:00:00:00:00:0${side}`;
const endOf = (pair: HostPair, side: 1 | 2): string => pair.podAddress(side).replace(/\d+$/, "0");

/** The very devices and entries that an agent makes. */
function addVxlan(pair: HostPair, side: 1 | 2): void {
  const other = side === 1 ? 2 : 1;
  const host = pair.hosts[side - 1]!;
  const local = pair.nodeAddress(side);
  const options = ["id", "4096", "dstport", "4789", "local", local, "dev", "eth0", "nolearning"];
  ip(host, "link", "add", DEVICE, "address", macOf(side), "mtu", "1450", "type", "vxlan", ...options);
  ip(host, "address", "add", `${endOf(pair, side)}/32`, "dev", DEVICE);
  ip(host, "link", "set", DEVICE, "up");
  const entry = ["fdb", "append", macOf(other), "dev", DEVICE, "dst", pair.nodeAddress(other), "self", "permanent"];
  execFileSync("ip", ["netns", "exec", nameOf(host), "bridge", ...entry]);
  const end = endOf(pair, other);
  ip(host, "neigh", "add", end, "lladdr", macOf(other), "dev", DEVICE, "nud", "permanent");
  ip(host, "route", "add", subnetOf(pair, other), "via", end, "dev", DEVICE, "onlink");
}

/** As `ip netns` knows it. */
const nameOf = (netns: string): string => netns.slice(netns.lastIndexOf("/") + 1);

function ip(netns: string, ...args: string[]): void {
  inNamespace(netns, () => execFileSync("ip", args));
}
