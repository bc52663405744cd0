import type { PeerConfig } from "../bgp/config.ts";
import { formatAddress, parseAddress, type Address, type Family } from "../ip/address.ts";
import { parsePeerAddress, type BGPConfiguration, type BGPPeer } from "../resources/bgp.ts";
import { parseDuration } from "../resources/fields.ts";
import type { NodeNetwork } from "../resources/nodeNetwork.ts";
import { cachedSelector, matches, type Labels } from "../resources/selector.ts";
import { bfdOf } from "./bgpBfd.ts";

/** Whom a node speaks BGP with: worked out from the resources, as confd does it for BIRD. */

/** A node as the others see it. */
export interface NodeSpeaker {
  readonly name: string;
  readonly labels: Labels;
  readonly network: NodeNetwork;
  readonly asn: number;
  /** Where a BGPConfiguration says so, for this node or for all. */
  readonly listenPort?: number;
}

/** A pod of this node, which may be a router itself. */
export interface LocalWorkload {
  readonly labels: Labels;
  readonly addresses: readonly Address[];
  readonly hostInterface: string;
}

export interface SessionInput {
  readonly me: NodeSpeaker;
  /** All nodes, this one among them. */
  readonly speakers: readonly NodeSpeaker[];
  readonly peers: readonly BGPPeer[];
  /** The BGPConfiguration `default`. */
  readonly general: BGPConfiguration | undefined;
  readonly defaultAsn: number;
  readonly workloads: readonly LocalWorkload[];
}

/** A key of a Secret. */
export interface SecretReference {
  readonly name: string;
  readonly key: string;
}

/** A session before its filters, its password and its place in the table of peers. */
export interface Session {
  readonly peer: Omit<PeerConfig, "importFilter" | "exportFilter" | "password"> & { readonly localAsn: number };
  /** Names of BGPFilters. */
  readonly filters: readonly string[];
  readonly password?: SecretReference;
  /** The way to the peer, where it has one of its own. */
  readonly reachableBy?: Address;
  /** Where the peer is a node that is a route reflector itself. */
  readonly peerCluster?: string;
  /** What could not be read, in words. */
  readonly problem?: string;
  /** The pod's interface, on which this node has an address for the session. */
  readonly workload?: { readonly hostInterface: string; readonly address?: Address };
}

type PeerSpec = BGPPeer["spec"];
type PeerType = "Mesh" | "Global" | "Node" | "Local_Workload";

export const BGP_PORT = 179;
/** RFC 4724 section 3: the restart time has 12 bits. */
const LONGEST_RESTART = 4095;

/** Every session that the resources ask for; of two with one address the first counts. */
export function wantedSessions(input: SessionInput): Session[] {
  return [...configuredSessions(input), ...meshSessions(input)].map((session) => ({
    ...session,
    peer: { ...session.peer, ...reflection(session, input.me) },
  }));
}

export function addressOf({ network }: NodeSpeaker, family: Family): Address | undefined {
  return (family === 4 ? network.ipv4 : network.ipv6)?.address;
}

/** One session per family with every other node. Route reflectors, and this node if it is one, are not in the mesh. */
function meshSessions({ me, speakers, general }: SessionInput): Session[] {
  const spec = general?.spec;
  if (spec?.nodeToNodeMeshEnabled === false || me.network.routeReflectorClusterId !== undefined) return [];
  const others = speakers.filter(
    ({ name, network }) => name !== me.name && network.routeReflectorClusterId === undefined,
  );
  const { nodeMeshPassword, nodeMeshMaxRestartTime } = spec ?? {};
  const { bfd, problem } = bfdOf(general?.metadata.annotations);
  return others
    .flatMap((other) => nodeSessions("Mesh", me, other))
    .map((session) => ({
      ...session,
      peer: {
        ...session.peer,
        ...restartTime(nodeMeshMaxRestartTime),
        ...(bfd !== undefined && { bfd }),
      },
      ...(nodeMeshPassword !== undefined && { password: nodeMeshPassword.secretKeyRef }),
      ...(problem !== undefined && { problem: `BGPConfiguration default: ${problem}` }),
    }));
}

/** Sessions between two of our nodes: the one whose address is lower as text waits, so that they do not meet half-way. */
function nodeSessions(
  type: PeerType,
  me: NodeSpeaker,
  other: NodeSpeaker,
  families: readonly Family[] = [4, 6],
): Session[] {
  return families.flatMap((family): Session[] => {
    const mine = addressOf(me, family);
    const theirs = addressOf(other, family);
    if (mine === undefined || theirs === undefined) return [];
    const [source, address] = [formatAddress(mine), formatAddress(theirs)];
    const ipv4Alone = addressOf(me, 4) === undefined || addressOf(other, 4) === undefined;
    const peer = {
      name: protocolName(type, address, type === "Mesh" ? undefined : other.listenPort),
      address,
      ...(other.listenPort === undefined ? {} : { port: other.listenPort }),
      asn: other.asn,
      localAsn: me.asn,
      sourceAddress: source,
      passive: source < address,
      ...(family === 6 && ipv4Alone && BOTH_FAMILIES),
      ...ADD_PATHS,
    };
    return [{ peer, filters: [], ...clusterOf(other) }];
  });
}

function clusterOf(node: NodeSpeaker | undefined): Pick<Session, "peerCluster"> {
  const peerCluster = node?.network.routeReflectorClusterId;
  return peerCluster === undefined ? {} : { peerCluster };
}

/** Where there is no IPv4 between two, IPv6 carries it too (RFC 8950). */
const BOTH_FAMILIES = { families: [6, 4] as readonly Family[] };
/** As Calico's BIRD: `add paths on`. */
const ADD_PATHS = { addPath: { send: true, receive: true } };

/**
 * What all BGPPeers mean for this node, in the order in which confd goes through them: those for every node, those that
 * select this one, and last their way back: who is a peer of another node has that node as a peer.
 */
function configuredSessions(input: SessionInput): Session[] {
  const { me, speakers, peers } = input;
  const others = speakers.filter(({ name }) => name !== me.name);
  const forward = (type: "Global" | "Node", peer: BGPPeer): Session[] => {
    const { spec } = peer;
    if (spec.localWorkloadSelector !== undefined) return workloadSessions(peer, input);
    if (spec.peerIP !== undefined) return addressSession(type, peer, me, others);
    const { peerSelector } = spec;
    if (peerSelector === undefined) return [];
    return others
      .filter(({ labels }) => matches(cachedSelector(peerSelector), labels))
      .flatMap((other) => nodeSessions(type, me, other).map((session) => adjusted(session, peer)));
  };
  const isGlobal = ({ spec: { node, nodeSelector } }: BGPPeer): boolean =>
    node === undefined && nodeSelector === undefined;
  return [
    ...peers.filter(isGlobal).flatMap((peer) => forward("Global", peer)),
    ...peers.filter((peer) => !isGlobal(peer) && selects(peer.spec, me)).flatMap((peer) => forward("Node", peer)),
    ...peers
      .filter(({ spec }) => spec.reversePeering !== "Manual")
      .flatMap((peer) => {
        const families = familiesNamed(peer.spec, input);
        return others
          .filter((other) => selects(peer.spec, other))
          .flatMap((other) => nodeSessions("Node", me, other, families).map((session) => adjusted(session, peer)));
      }),
  ];
}

/** Whether the peering is one of this node's. */
function selects({ node, nodeSelector }: PeerSpec, { name, labels }: NodeSpeaker): boolean {
  if (node !== undefined) return node === name;
  return nodeSelector === undefined || matches(cachedSelector(nodeSelector), labels);
}

/** The families in which this node is the peer that is meant: by its labels, or by address, AS and port. */
function familiesNamed({ peerSelector, peerIP, asNumber }: PeerSpec, { me, defaultAsn }: SessionInput): Family[] {
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

function addressSession(type: PeerType, resource: BGPPeer, me: NodeSpeaker, others: readonly NodeSpeaker[]): Session[] {
  const { spec } = resource;
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
    ...(parsed.family === 6 && addressOf(me, 4) === undefined && BOTH_FAMILIES),
    ...ADD_PATHS,
  };
  const session: Session = {
    peer,
    filters: [],
    ...clusterOf(node),
    ...(spec.reachableBy !== undefined && { reachableBy: parseAddress(spec.reachableBy) }),
  };
  return [adjusted(session, resource)];
}

/** Pods of this node that are routers themselves, and their peer the node: at `localWorkloadPeeringIPV4` or `…IPV6`. */
function workloadSessions(resource: BGPPeer, { me, general, workloads }: SessionInput): Session[] {
  const { localWorkloadSelector = "", asNumber = 0 } = resource.spec;
  const { localWorkloadPeeringIPV4, localWorkloadPeeringIPV6 } = general?.spec ?? {};
  return workloads
    .filter(({ labels }) => matches(cachedSelector(localWorkloadSelector), labels))
    .flatMap(({ addresses, hostInterface }) =>
      addresses.map((address): Session => {
        const peering = address.family === 4 ? localWorkloadPeeringIPV4 : localWorkloadPeeringIPV6;
        const mine = addressOf(me, address.family);
        const source = peering ?? (mine === undefined ? undefined : formatAddress(mine));
        const text = formatAddress(address);
        const session: Session = {
          peer: {
            name: protocolName("Local_Workload", text, undefined),
            address: text,
            asn: asNumber,
            localAsn: me.asn,
            ...(source !== undefined && { sourceAddress: source }),
            ...ADD_PATHS,
          },
          filters: [],
          workload: { hostInterface, ...(peering !== undefined && { address: parseAddress(peering) }) },
        };
        return adjusted(session, resource);
      }),
    );
}

/** The session as the BGPPeer wants it. */
function adjusted(session: Session, { metadata, spec }: BGPPeer): Session {
  const { sourceAddress, ...rest } = session.peer;
  const { nextHopMode, localASNumber, keepaliveTime, numAllowedLocalASNumbers = 0, ttlSecurity = 0 } = spec;
  const plain = {
    ...rest,
    ...(spec.sourceAddress === "None" || sourceAddress === undefined ? {} : { sourceAddress }),
    ...(localASNumber === undefined ? {} : { localAsn: localASNumber }),
  };
  const external = plain.asn !== plain.localAsn;
  // `keepOriginalNextHop` is the older way to say Keep, and speaks of eBGP alone.
  const keep = nextHopMode === "Keep" || (spec.keepOriginalNextHop === true && external);
  const { bfd, problem } = bfdOf(metadata.annotations);
  return {
    ...session,
    peer: {
      ...plain,
      ...(nextHopMode === "Self" ? { nextHopSelf: true } : {}),
      ...(keep ? { nextHopKeep: true } : {}),
      ...restartTime(spec.maxRestartTime),
      ...(keepaliveTime === undefined ? {} : { keepaliveTime: Math.max(1, seconds(keepaliveTime)) }),
      ...(numAllowedLocalASNumbers === 0 ? {} : { allowOwnAs: numAllowedLocalASNumbers }),
      ...(ttlSecurity === 0 ? {} : { ttlSecurity }),
      ...(bfd !== undefined && { bfd }),
    },
    filters: spec.filters ?? [],
    ...(spec.password !== undefined && { password: spec.password.secretKeyRef }),
    ...(problem !== undefined && { problem: `BGPPeer ${metadata.name}: ${problem}` }),
  };
}

/** A node with a cluster ID reflects: to it, iBGP peers without a cluster ID, or with another, are clients. */
function reflection(
  { peer, peerCluster }: Session,
  { network }: NodeSpeaker,
): Pick<PeerConfig, "clusterId" | "routeReflectorClient"> {
  const clusterId = network.routeReflectorClusterId;
  if (clusterId === undefined || peer.asn !== peer.localAsn) return {};
  return { clusterId, routeReflectorClient: peerCluster !== clusterId };
}

function restartTime(duration: string | undefined): Pick<PeerConfig, "restartTime"> {
  return duration === undefined ? {} : { restartTime: Math.min(seconds(duration), LONGEST_RESTART) };
}

function seconds(duration: string): number {
  return Math.round(parseDuration(duration) / 1000);
}

/** The names that Calico gives BIRD's protocols, which people's tools parse. */
function protocolName(type: PeerType, address: string, port: number | undefined): string {
  return `${type}_${address.replaceAll(/[.:]/g, "_")}${port === undefined ? "" : `_port_${port}`}`;
}
