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
  /** Where a BGPConfiguration says so, for this node or for all. */
  readonly listenPort?: number;
}

/** A session that a BGPPeer asks for. */
type PeerSpec = BGPPeer["spec"];

const BGP_PORT = 179;

/** Undefined while this node has no address. */
export function planBgp(input: BgpInput): BgpPlan | undefined {
  const byName = (name: string) => input.configurations.find(({ metadata }) => metadata.name === name)?.spec;
  const general = byName("default");
  const defaultAsn = general?.asNumber ?? DEFAULT_AS_NUMBER;
  const speakers = input.nodes.map((node): Speaker => {
    const { name, labels = {} } = node.metadata;
    const network = nodeNetwork(node);
    // Calico reads no AS number from a node's own BGPConfiguration: that stands on the node.
    const listenPort = byName(`node.${name}`)?.listenPort ?? general?.listenPort;
    const asn = network.asNumber ?? defaultAsn;
    return { name, labels, network, asn, ...(listenPort === undefined ? {} : { listenPort }) };
  });
  const me = speakers.find(({ name }) => name === input.nodeName);
  if (me === undefined || (me.network.ipv4 === undefined && me.network.ipv6 === undefined)) return undefined;
  const exportFilter = exportBlocks(input.blocks, exportedPools(input));
  const finish = (peer: PeerConfig): PeerConfig => ({
    ...peer,
    exportFilter,
    // As Calico: what a configured peer says is believed, whatever RFC 8212 would want written down.
    importFilter: { rules: [], otherwise: "accept" },
  });
  const mesh = general?.nodeToNodeMeshEnabled === false ? [] : meshPeers(me, speakers);
  const configured = configuredPeers(
    input.peers.map(({ spec }) => spec),
    me,
    speakers,
    defaultAsn,
  );
  // Two sessions to one address cannot be told apart. The first of the configured ones wins, and all win over the mesh.
  const peers = new Map<string, PeerConfig>();
  for (const peer of [...configured, ...mesh]) if (!peers.has(peer.address)) peers.set(peer.address, finish(peer));
  const sorted = [...peers.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  return { asn: me.asn, listenPort: me.listenPort ?? BGP_PORT, peers: sorted };
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
function nodePeers(type: PeerType, me: Speaker, other: Speaker, families: readonly Family[] = [4, 6]): PeerConfig[] {
  return families.flatMap((family): PeerConfig[] => {
    const mine = addressOf(me, family);
    const theirs = addressOf(other, family);
    if (mine === undefined || theirs === undefined) return [];
    const [source, address] = [formatAddress(mine), formatAddress(theirs)];
    return [
      {
        name: protocolName(type, address, type === "Mesh" ? undefined : other.listenPort),
        address,
        ...(other.listenPort === undefined ? {} : { port: other.listenPort }),
        asn: other.asn,
        localAsn: me.asn,
        sourceAddress: source,
        passive: source < address,
      },
    ];
  });
}

/**
 * What all BGPPeers mean for this node, in the order in which confd goes through them: those for every node, those that
 * select this one, and last their way back: who is a peer of another node has that node as a peer.
 */
function configuredPeers(
  specs: readonly PeerSpec[],
  me: Speaker,
  speakers: readonly Speaker[],
  defaultAsn: number,
): PeerConfig[] {
  const others = speakers.filter(({ name }) => name !== me.name);
  const forward = (type: PeerType, spec: PeerSpec): PeerConfig[] => {
    if (spec.peerIP !== undefined) return addressPeer(type, spec, me, others);
    const { peerSelector } = spec;
    if (peerSelector === undefined) return [];
    return others
      .filter(({ labels }) => matches(cachedSelector(peerSelector), labels))
      .flatMap((other) => nodePeers(type, me, other).map((peer) => adjusted(peer, spec)));
  };
  const isGlobal = ({ node, nodeSelector }: PeerSpec): boolean => node === undefined && nodeSelector === undefined;
  return [
    ...specs.filter(isGlobal).flatMap((spec) => forward("Global", spec)),
    ...specs.filter((spec) => !isGlobal(spec) && selects(spec, me)).flatMap((spec) => forward("Node", spec)),
    ...specs
      .filter(({ reversePeering }) => reversePeering !== "Manual")
      .flatMap((spec) => {
        const families = familiesNamed(spec, me, defaultAsn);
        return others
          .filter((other) => selects(spec, other))
          .flatMap((other) => nodePeers("Node", me, other, families).map((peer) => adjusted(peer, spec)));
      }),
  ];
}

/** Whether the peering is one of this node's. */
function selects({ node, nodeSelector }: PeerSpec, { name, labels }: Speaker): boolean {
  if (node !== undefined) return node === name;
  return nodeSelector === undefined || matches(cachedSelector(nodeSelector), labels);
}

/** The families in which this node is the peer that is meant: by its labels, or by address, AS and port. */
function familiesNamed({ peerSelector, peerIP, asNumber }: PeerSpec, me: Speaker, defaultAsn: number): Family[] {
  if (peerSelector !== undefined) return matches(cachedSelector(peerSelector), me.labels) ? [4, 6] : [];
  if (peerIP === undefined) return [];
  const { address, port } = parsePeerAddress(peerIP);
  const parsed = parseAddress(address);
  const mine = addressOf(me, parsed.family);
  const isMe =
    mine?.value === parsed.value &&
    (asNumber ?? defaultAsn) === me.asn &&
    (port === undefined || port === (me.listenPort ?? BGP_PORT));
  return isMe ? [parsed.family] : [];
}

function addressPeer(type: PeerType, spec: PeerSpec, me: Speaker, others: readonly Speaker[]): PeerConfig[] {
  const { address, port: given } = parsePeerAddress(spec.peerIP ?? "");
  const parsed = parseAddress(address);
  const mine = addressOf(me, parsed.family);
  const text = formatAddress(parsed);
  // A peer for all nodes may be one of them: nobody speaks with himself.
  if (mine === undefined || mine.value === parsed.value) return [];
  const node = others.find((other) => addressOf(other, parsed.family)?.value === parsed.value);
  const port = given ?? node?.listenPort;
  const peer = {
    name: protocolName(type, text, port),
    address: text,
    ...(port === undefined ? {} : { port }),
    asn: spec.asNumber ?? me.asn,
    localAsn: me.asn,
    sourceAddress: formatAddress(mine),
  };
  return [adjusted(peer, spec)];
}

/** The session as the BGPPeer wants it. */
function adjusted(peer: PeerConfig, { sourceAddress, nextHopMode, localASNumber }: PeerSpec): PeerConfig {
  const { sourceAddress: own, ...rest } = peer;
  return {
    ...rest,
    ...(sourceAddress === "None" || own === undefined ? {} : { sourceAddress: own }),
    ...(localASNumber === undefined ? {} : { localAsn: localASNumber }),
    ...(nextHopMode === "Self" ? { nextHopSelf: true } : {}),
  };
}

type PeerType = "Mesh" | "Global" | "Node";

/** The names that Calico gives BIRD's protocols, which people's tools parse. */
function protocolName(type: PeerType, address: string, port: number | undefined): string {
  return `${type}_${address.replaceAll(/[.:]/g, "_")}${port === undefined ? "" : `_port_${port}`}`;
}
