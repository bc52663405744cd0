import { exportBlocks } from "../bgp/filters.ts";
import type { PeerConfig } from "../bgp/config.ts";
import { formatAddress, parseAddress, type Address, type Family } from "../ip/address.ts";
import { parsePrefix, prefixCovers, type Prefix } from "../ip/prefix.ts";
import { DEFAULT_AS_NUMBER, parsePeerAddress, type BGPConfiguration, type BGPPeer } from "../resources/bgp.ts";
import type { IPPool } from "../resources/ippool.ts";
import type { Node } from "../resources/node.ts";
import { nodeNetwork, type NodeNetwork } from "../resources/nodeNetwork.ts";
import { cachedSelector, matches } from "../resources/selector.ts";

/** Whom a node speaks BGP with, and what it tells them: worked out from the resources, as confd writes BIRD's configuration. */

export interface BgpInput {
  readonly nodeName: string;
  readonly nodes: readonly Node[];
  readonly configurations: readonly BGPConfiguration[];
  readonly peers: readonly BGPPeer[];
  readonly pools: readonly IPPool[];
  /** Blocks that this node holds. */
  readonly blocks: readonly Prefix[];
}

export interface BgpPlan {
  readonly asn: number;
  readonly listenPort: number;
  readonly peers: readonly PeerConfig[];
}

interface Speaker {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly network: NodeNetwork;
  readonly asn: number;
}

/** Undefined while this node has no address. */
export function planBgp(input: BgpInput): BgpPlan | undefined {
  const byName = (name: string) => input.configurations.find(({ metadata }) => metadata.name === name)?.spec;
  const general = byName("default");
  const own = byName(`node.${input.nodeName}`);
  const defaultAsn = general?.asNumber ?? DEFAULT_AS_NUMBER;
  const speakers = input.nodes.map((node): Speaker => {
    const network = nodeNetwork(node);
    return {
      name: node.metadata.name,
      labels: node.metadata.labels ?? {},
      network,
      asn: network.asNumber ?? defaultAsn,
    };
  });
  const self = speakers.find(({ name }) => name === input.nodeName);
  if (self === undefined || (self.network.ipv4 === undefined && self.network.ipv6 === undefined)) return undefined;
  const me: Speaker = { ...self, asn: self.network.asNumber ?? own?.asNumber ?? defaultAsn };
  const exportFilter = exportBlocks(input.blocks, exportedPools(input));
  const finish = (peer: PeerConfig): PeerConfig => ({
    ...peer,
    exportFilter,
    // As Calico: what a configured peer says is believed, whatever RFC 8212 would want written down.
    importFilter: { rules: [], otherwise: "accept" },
  });
  const mesh = general?.nodeToNodeMeshEnabled === false ? [] : meshPeers(me, speakers);
  const configured = input.peers.flatMap((peer) => configuredPeers(peer, me, speakers));
  const peers = new Map<string, PeerConfig>();
  // A configured peer at a mesh peer's address takes its place: two sessions to one address cannot be told apart.
  for (const peer of [...mesh, ...configured]) peers.set(peer.address, finish(peer));
  return { asn: me.asn, listenPort: own?.listenPort ?? general?.listenPort ?? 179, peers: [...peers.values()] };
}

/** The pools whose routes may leave this node. */
function exportedPools({ pools }: BgpInput): Prefix[] {
  return pools.filter(({ spec }) => !spec.disableBGPExport).map(({ spec }) => parsePrefix(spec.cidr));
}

/** Blocks of pools that are not to be announced are left out; a block outside every pool stays with its node's pods. */
export function announcedBlocks(blocks: readonly Prefix[], pools: readonly IPPool[]): Prefix[] {
  const silent = pools.filter(({ spec }) => spec.disableBGPExport).map(({ spec }) => parsePrefix(spec.cidr));
  return blocks.filter((block) => !silent.some((pool) => prefixCovers(pool, block)));
}

function addressOf({ network }: Speaker, family: Family): Address | undefined {
  return (family === 4 ? network.ipv4 : network.ipv6)?.address;
}

/** One session per family with every other node. Route reflectors, and this node if it is one, are not in the mesh. */
function meshPeers(me: Speaker, speakers: readonly Speaker[]): PeerConfig[] {
  if (me.network.routeReflectorClusterId !== undefined) return [];
  const others = speakers.filter(
    ({ name, network }) => name !== me.name && network.routeReflectorClusterId === undefined,
  );
  return others.flatMap((other) => nodePeers("Mesh", me, other));
}

/** Sessions between two of our nodes: the one whose address is lower as text waits, so that they do not meet half-way. */
function nodePeers(type: "Mesh" | "Node", me: Speaker, other: Speaker): PeerConfig[] {
  return ([4, 6] as const).flatMap((family): PeerConfig[] => {
    const mine = addressOf(me, family);
    const theirs = addressOf(other, family);
    if (mine === undefined || theirs === undefined) return [];
    const [source, address] = [formatAddress(mine), formatAddress(theirs)];
    return [
      {
        name: protocolName(type, address),
        address,
        asn: other.asn,
        localAsn: me.asn,
        sourceAddress: source,
        passive: source < address,
      },
    ];
  });
}

/** What one BGPPeer means for this node: sessions with the address or the nodes that it names, or their way back. */
function configuredPeers(peer: BGPPeer, me: Speaker, speakers: readonly Speaker[]): PeerConfig[] {
  const { spec } = peer;
  const selects = ({ name, labels }: Speaker): boolean => {
    if (spec.node !== undefined) return spec.node === name;
    return spec.nodeSelector === undefined || matches(cachedSelector(spec.nodeSelector), labels);
  };
  if (spec.peerIP !== undefined) return selects(me) ? addressPeer(peer, me) : [];
  if (spec.peerSelector === undefined) return [];
  const selector = cachedSelector(spec.peerSelector);
  const isPeer = ({ labels }: Speaker): boolean => matches(selector, labels);
  const withReverse = spec.reversePeering !== "Manual";
  return speakers
    .filter(
      (other) =>
        other.name !== me.name && ((selects(me) && isPeer(other)) || (withReverse && isPeer(me) && selects(other))),
    )
    .flatMap((other) => nodePeers("Node", me, other));
}

function addressPeer({ spec }: BGPPeer, me: Speaker): PeerConfig[] {
  const { address, port } = parsePeerAddress(spec.peerIP ?? "");
  const parsed = parseAddress(address);
  const mine = addressOf(me, parsed.family);
  const text = formatAddress(parsed);
  // A peer for all nodes may be one of them: nobody speaks with himself.
  if (mine === undefined || formatAddress(mine) === text) return [];
  const isGlobal = spec.node === undefined && spec.nodeSelector === undefined;
  const suffix = port === undefined ? "" : `_port_${port}`;
  return [
    {
      name: `${protocolName(isGlobal ? "Global" : "Node", text)}${suffix}`,
      address: text,
      ...(port === undefined ? {} : { port }),
      asn: spec.asNumber ?? me.asn,
      localAsn: spec.localASNumber ?? me.asn,
      ...(spec.sourceAddress === "None" ? {} : { sourceAddress: formatAddress(mine) }),
      ...(spec.nextHopMode === "Self" ? { nextHopSelf: true } : {}),
    },
  ];
}

/** The names that Calico gives BIRD's protocols, which people's tools parse. */
function protocolName(type: "Mesh" | "Global" | "Node", address: string): string {
  return `${type}_${address.replaceAll(/[.:]/g, "_")}`;
}
