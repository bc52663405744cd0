import { FLANNEL_IPIP_DEVICE, IPIP_DEVICE } from "../dataplane/ipip.ts";
import { bestRoute } from "../dataplane/routes.ts";
import { addressPlus, formatAddress, type Address } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import type { Link } from "../netlink/link.ts";
import type { Route } from "../netlink/route.ts";
import type { IPAMBlock } from "../resources/ipam.ts";
import type { Path } from "./pathCheck.ts";
import type { KnownNode } from "./tunnelFacts.ts";

/** Which ways there are to another node, by what it says of itself and where the kernel sends packets for it. */

export interface Surroundings {
  readonly routes: readonly Route[];
  readonly link: (index: number) => Pick<Link, "name" | "kind" | "mtu" | "vxlan"> | undefined;
  /** What a pod's interface has. Bytes. */
  readonly podMtu: number;
}

export interface PeerFacts {
  readonly node: KnownNode;
  /** Its subnets where flannel carries pods' packets, as `spec.podCIDRs` has them; otherwise none. */
  readonly subnets: readonly string[];
  /** Addresses of pods that it runs, the first of each family is taken. */
  readonly pods: readonly Address[];
}

/**
 * One path for each device that leads to the node's pods. Tunnels are asked at their other end, which has an address of
 * its own; where there is none, packets for a pod are used.
 */
export function pathsTo({ node, subnets, pods }: PeerFacts, around: Surroundings): Path[] {
  const { ipipTunnel, vxlanTunnel, vxlanTunnelV6 } = node.network;
  const ends = [ipipTunnel, vxlanTunnel, vxlanTunnelV6].filter((address) => address !== undefined);
  // The device of flannel's backends has the subnet's first address; host-gw has no device, and nobody has that address.
  const flannel = subnets.map((subnet) => parsePrefix(subnet).address);
  const found = new Map<string, Path>();
  const consider = (target: Address, atEnd: (path: Path) => boolean): void => {
    const path = pathBy(target, node, around);
    if (path === undefined) return;
    const isPod = !atEnd(path);
    // What stands behind a tunnel is asked by its end: that a pod is there adds nothing.
    if (isPod && path.kind !== "none") return;
    const key = `${target.family} ${path.device}`;
    if (!found.has(key)) found.set(key, { ...path, isPod });
  };
  for (const target of ends) consider(target, () => true);
  for (const target of flannel) consider(target, ({ kind }) => kind !== "none");
  for (const target of pods) consider(target, () => false);
  return [...found.values()];
}

/** Undefined where the node has no address of the family, or no route of its own leads to the target. */
function pathBy(target: Address, node: KnownNode, { routes, link, podMtu }: Surroundings): Path | undefined {
  const nodeAddress = node.address[target.family]?.address;
  const route = bestRoute(target, routes);
  const index = route?.nextHops[0]?.device;
  const device = index === undefined ? undefined : link(index);
  if (nodeAddress === undefined || device === undefined) return undefined;
  if (route?.type !== "unicast" || route.destination.length === 0) return undefined;
  return {
    node: node.name,
    ...kindOf(device),
    device: device.name,
    target,
    isPod: false,
    nodeAddress,
    mtu: Math.min(podMtu, device.mtu),
  };
}

/** Flannel's TUN device, and the port that everybody uses. */
const FLANNEL_TUN = /^flannel\d+$/;
const FLANNEL_UDP_PORT = 8285;
const VXLAN_PORT = 4789;

function kindOf({ name, kind, vxlan }: Pick<Link, "name" | "kind" | "vxlan">): Pick<Path, "kind" | "port"> {
  if (kind === "vxlan") return { kind: "vxlan", port: vxlan?.port ?? VXLAN_PORT };
  if (kind === "ipip" || name === IPIP_DEVICE || name === FLANNEL_IPIP_DEVICE) return { kind: "ipip" };
  if (FLANNEL_TUN.test(name)) return { kind: "flannel udp", port: FLANNEL_UDP_PORT };
  return { kind: "none" };
}

/** Some pods' addresses of each node, kept up to date from the blocks: enough to have another when one does not answer. */
export interface PodAddresses {
  put(block: IPAMBlock): void;
  drop(name: string): void;
  /** Those of blocks that are not named are gone. */
  keepOnly(names: ReadonlySet<string>): void;
  of(node: string): Address[];
}

const KEPT_OF_A_BLOCK = 3;

export function podAddresses(): PodAddresses {
  const byBlock = new Map<string, { readonly node: string; readonly address: Address }[]>();
  const byNode = new Map<string, Set<string>>();

  function drop(name: string): void {
    for (const { node } of byBlock.get(name) ?? []) byNode.get(node)?.delete(name);
    byBlock.delete(name);
  }

  return {
    put(block) {
      const { name } = block.metadata;
      drop(name);
      const found = podsOf(block);
      if (found.length === 0) return;
      byBlock.set(name, found);
      for (const { node } of found) {
        const blocks = byNode.get(node) ?? new Set();
        byNode.set(node, blocks.add(name));
      }
    },
    drop,
    keepOnly(names) {
      for (const name of byBlock.keys()) if (!names.has(name)) drop(name);
    },
    of: (node) =>
      [...(byNode.get(node) ?? [])].flatMap((name) =>
        (byBlock.get(name) ?? []).flatMap((each) => (each.node === node ? [each.address] : [])),
      ),
  };
}

function podsOf({ spec }: IPAMBlock): { node: string; address: Address }[] {
  if (spec.deleted) return [];
  const first = parsePrefix(spec.cidr).address;
  const found: { node: string; address: Address }[] = [];
  for (const [ordinal, at] of spec.allocations.entries()) {
    const attribute = at === null ? undefined : spec.attributes[at];
    const { node, pod } = attribute?.secondary ?? {};
    if (node === undefined || pod === undefined || attribute?.releasedAt !== undefined) continue;
    found.push({ node, address: addressPlus(first, BigInt(ordinal)) });
    if (found.length === KEPT_OF_A_BLOCK) break;
  }
  return found;
}

/** What makes it worth looking again: where the node is, and where its tunnels end. */
export function whereabouts({ address, network }: KnownNode): string {
  const { ipipTunnel, vxlanTunnel, vxlanTunnelV6 } = network;
  return [address[4]?.address, address[6]?.address, ipipTunnel, vxlanTunnel, vxlanTunnelV6]
    .map((each) => (each === undefined ? "" : formatAddress(each)))
    .join(" ");
}
