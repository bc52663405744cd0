/** What the tunnels are made from, read from the resources: pools, nodes and blocks as `dataplane/` wants them. */
import type { TunnelBlock, TunnelNode, TunnelPool } from "../dataplane/tunnelRoutes.ts";
import { vtepMac } from "../dataplane/vxlan.ts";
import { addressPlus, type Address, type Family } from "../ip/address.ts";
import { parsePrefix, prefixContains, type Prefix } from "../ip/prefix.ts";
import type { TunnelKind } from "../ipam/handles.ts";
import type { FelixSettings } from "../resources/config.ts";
import type { IPAMBlock } from "../resources/ipam.ts";
import type { IPPool } from "../resources/ippool.ts";
import type { Node } from "../resources/node.ts";
import { nodeNetwork, type NodeNetwork } from "../resources/nodeNetwork.ts";
import { cachedSelector, matches } from "../resources/selector.ts";

/** A tunnel of which a node has an end. */
export interface TunnelId {
  readonly kind: Exclude<TunnelKind, "wireguard">;
  readonly family: Family;
}

export const TUNNELS: readonly TunnelId[] = [
  { kind: "ipip", family: 4 },
  { kind: "vxlan", family: 4 },
  { kind: "vxlan", family: 6 },
];

/** The annotation of the Node in which the tunnel's address stands. */
export function addressField({ kind, family }: TunnelId): "ipipTunnel" | "vxlanTunnel" | "vxlanTunnelV6" {
  if (kind === "ipip") return "ipipTunnel";
  return family === 4 ? "vxlanTunnel" : "vxlanTunnelV6";
}

export function tunnelPools(pools: readonly IPPool[]): TunnelPool[] {
  return pools.map(({ spec }) => ({ prefix: parsePrefix(spec.cidr), ipip: spec.ipipMode, vxlan: spec.vxlanMode }));
}

function usesTunnel({ spec }: IPPool, { kind, family }: TunnelId): boolean {
  return (kind === "ipip" ? spec.ipipMode : spec.vxlanMode) !== "Never" && spec.cidr.includes(":") === (family === 6);
}

/** Whether the node is to have an end of the tunnel: as the setting says, otherwise as the pools ask for. */
export function tunnelEnabled(
  tunnel: TunnelId,
  pools: readonly IPPool[],
  { ipipEnabled, vxlanEnabled, ipv6Support }: Pick<FelixSettings, "ipipEnabled" | "vxlanEnabled" | "ipv6Support">,
): boolean {
  const asked = pools.some((pool) => usesTunnel(pool, tunnel));
  if (tunnel.family === 6) return asked && ipv6Support && vxlanEnabled !== false;
  return (tunnel.kind === "ipip" ? ipipEnabled : vxlanEnabled) ?? asked;
}

/**
 * The pools from which the tunnel's address on this node may come: in use, of this tunnel, for this node. Beside them
 * one that is disabled counts while the node has its address from there, as pods still do.
 */
export function addressPools(
  tunnel: TunnelId,
  pools: readonly IPPool[],
  labels: Readonly<Record<string, string>>,
  present: Address | undefined,
): { readonly name: string; readonly prefix: Prefix }[] {
  return pools.flatMap((pool) => {
    const { metadata, spec } = pool;
    if (!usesTunnel(pool, tunnel) || !spec.allowedUses.includes("Tunnel")) return [];
    const prefix = parsePrefix(spec.cidr);
    const inUse = !spec.disabled && matches(cachedSelector(spec.nodeSelector), labels);
    const isHome = present !== undefined && prefixContains(prefix, present);
    return inUse || (spec.disabled && isHome) ? [{ name: metadata.name, prefix }] : [];
  });
}

export interface KnownNode extends TunnelNode {
  readonly network: NodeNetwork;
}

/** Nodes say something all the time, and mostly nothing about their network. */
const known = new WeakMap<Node, KnownNode>();

export function tunnelNode(node: Node): KnownNode {
  const found = known.get(node);
  if (found !== undefined) return found;
  const { name } = node.metadata;
  const network = nodeNetwork(node);
  const { ipv4, ipv6, vxlanTunnel, vxlanTunnelV6, vxlanTunnelMac, vxlanTunnelMacV6 } = network;
  const made: KnownNode = {
    name,
    network,
    address: { ...(ipv4 && { 4: ipv4 }), ...(ipv6 && { 6: ipv6 }) },
    vtep: {
      ...(vxlanTunnel && { 4: { address: vxlanTunnel, mac: vxlanTunnelMac ?? vtepMac(name, 4) } }),
      ...(vxlanTunnelV6 && { 6: { address: vxlanTunnelV6, mac: vxlanTunnelMacV6 ?? vtepMac(name, 6) } }),
    },
  };
  known.set(node, made);
  return made;
}

const HOST = "host:";

/** Who holds the block, and who has which of its addresses without holding it. */
export function tunnelBlock({ spec }: IPAMBlock): TunnelBlock {
  const prefix = parsePrefix(spec.cidr);
  const holder = spec.affinity?.startsWith(HOST) === true ? spec.affinity.slice(HOST.length) : undefined;
  const users = spec.attributes.map(({ secondary, releasedAt }) =>
    releasedAt === undefined ? secondary?.["node"] : undefined,
  );
  const borrowed = spec.allocations.flatMap((attribute, ordinal) => {
    const node = attribute === null ? undefined : users[attribute];
    if (node === undefined || node === holder) return [];
    return [{ address: addressPlus(prefix.address, BigInt(ordinal)), node }];
  });
  return { prefix, ...(holder === undefined ? {} : { node: holder }), borrowed };
}
