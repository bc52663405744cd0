import { type Address, type Family, formatAddress } from "../ip/address.ts";
import { formatPrefix, hostPrefix, type Prefix } from "../ip/prefix.ts";
import type { LinkAddressSpec } from "../netlink/addr.ts";
import type { ForwardingSpec, NeighbourSpec } from "../netlink/neigh.ts";
import { type Route, SCOPE_GLOBAL, TABLE_MAIN } from "../netlink/route.ts";
import type { BackendConfig, NetworkConfig, SubnetRange } from "./config.ts";
import { type ExternalInterface, isOnLink } from "./external.ts";
import { type Lease, type LeasedSubnets, parseVtepData } from "./lease.ts";

/** What each backend wants in the kernel, worked out from the leases: no backend adds or removes anything by itself. */

/** Who wrote a route: flannel's own say `boot`, as anybody's may; ours are known by this number. */
export const PROTOCOL_FLANNEL = 81;

/** Bytes that each backend puts around a packet; VXLAN more where the outer header is of IPv6. */
const OVERHEAD = { udp: 28, vxlan: 50, "host-gw": 0, ipip: 20 } as const;
const OVERHEAD_V6 = 20;

export interface KernelState {
  readonly addresses: readonly LinkAddressSpec[];
  readonly routes: readonly Route[];
  readonly neighbours: readonly NeighbourSpec[];
  readonly forwarding: readonly ForwardingSpec[];
}

/** Indexes of the backend's own devices, where they are there. */
export interface Devices {
  readonly ipv4?: number;
  readonly ipv6?: number;
}

export interface PlaneInput {
  readonly config: NetworkConfig;
  readonly external: ExternalInterface;
  readonly own: LeasedSubnets;
  readonly peers: readonly Lease[];
  readonly devices: Devices;
}

/** MTU of the backend's device of the family. Bytes. */
export function deviceMtu(backend: BackendConfig, external: Pick<ExternalInterface, "mtu">, family: Family): number {
  if (backend.type !== "vxlan") return external.mtu - OVERHEAD[backend.type];
  return (backend.mtu ?? external.mtu) - OVERHEAD.vxlan - (family === 6 ? OVERHEAD_V6 : 0);
}

/**
 * MTU of pods: what fits through the devices of both families. Flannel takes IPv4's for both, though the kernel gives the
 * device of IPv6 no more than this: such packets would be lost until their senders learn better.
 */
export function podMtu(config: NetworkConfig, external: Pick<ExternalInterface, "mtu">): number {
  const families = FAMILIES.filter((family) => rangeOf(config, family) !== undefined);
  return Math.min(...families.map((family) => deviceMtu(config.backend, external, family)));
}

/** Peers of other backends are passed over, as flannel does. */
export function desiredState(input: PlaneInput): KernelState {
  const { backend } = input.config;
  const peers = input.peers.filter(({ attributes }) => attributes.backendType === backend.type);
  const families = FAMILIES.filter((family) => rangeOf(input.config, family) !== undefined);
  switch (backend.type) {
    case "udp":
      return merge([ownAddress(input, 4), wholeNetwork(input)]);
    case "vxlan":
      return merge(
        families.flatMap((family) => [
          ownAddress(input, family),
          ...peers.map((peer) => towardsVtep(input, peer, family, backend.directRouting)),
        ]),
      );
    case "host-gw":
      return merge(families.flatMap((family) => peers.map((peer) => towardsGateway(input, peer, family))));
    case "ipip":
      return merge([
        ownAddress(input, 4),
        ...peers.map((peer) =>
          backend.directRouting && isNear(input, peer, 4) ? towardsGateway(input, peer, 4) : throughTunnel(input, peer),
        ),
      ]);
  }
}

const FAMILIES = [4, 6] as const;
const NOTHING: KernelState = { addresses: [], routes: [], neighbours: [], forwarding: [] };

function merge(parts: readonly KernelState[]): KernelState {
  return {
    addresses: parts.flatMap(({ addresses }) => addresses),
    routes: parts.flatMap(({ routes }) => routes),
    neighbours: parts.flatMap(({ neighbours }) => neighbours),
    forwarding: parts.flatMap(({ forwarding }) => forwarding),
  };
}

const rangeOf = ({ ipv4, ipv6 }: NetworkConfig, family: Family): SubnetRange | undefined =>
  family === 4 ? ipv4 : ipv6;
const subnetOf = (subnets: LeasedSubnets, family: Family): Prefix | undefined =>
  family === 4 ? subnets.ipv4 : subnets.ipv6;
const deviceOf = (devices: Devices, family: Family): number | undefined => (family === 4 ? devices.ipv4 : devices.ipv6);
const publicIpOf = ({ attributes }: Lease, family: Family): Address | undefined =>
  family === 4 ? attributes.publicIp : attributes.publicIpv6;

/** The subnet's own address, with no network behind it: packets of this node to pods elsewhere leave with it. */
function ownAddress({ own, devices }: PlaneInput, family: Family): KernelState {
  const subnet = subnetOf(own, family);
  const device = deviceOf(devices, family);
  if (subnet === undefined || device === undefined) return NOTHING;
  // Nobody else can have it: duplicate address detection would only hold it back.
  const certain = family === 6 ? { noDuplicateDetection: true } : {};
  return { ...NOTHING, addresses: [{ device, address: hostPrefix(subnet.address), ...certain }] };
}

/** One route for all, since the relay knows who has which subnet. */
function wholeNetwork({ config, devices }: PlaneInput): KernelState {
  const network = config.ipv4?.network;
  if (network === undefined || devices.ipv4 === undefined) return NOTHING;
  return { ...NOTHING, routes: [route(network, { device: devices.ipv4 })] };
}

function towardsVtep(input: PlaneInput, peer: Lease, family: Family, direct: boolean): KernelState {
  const subnet = subnetOf(peer.subnets, family);
  const destination = publicIpOf(peer, family);
  const { attributes } = peer;
  const vtep = parseVtepData(family === 4 ? attributes.backendData : attributes.backendV6Data);
  if (subnet === undefined || destination === undefined) return NOTHING;
  if (direct && isNear(input, peer, family)) return towardsGateway(input, peer, family);
  const device = deviceOf(input.devices, family);
  if (vtep === undefined || device === undefined) return NOTHING;
  return {
    addresses: [],
    neighbours: [{ device, address: subnet.address, linkAddress: vtep.mac, state: "permanent" }],
    forwarding: [{ device, linkAddress: vtep.mac, destination, table: "self" }],
    routes: [route(subnet, { gateway: subnet.address, device, onlink: true })],
  };
}

/** By the peer's own address: only a peer on the same segment can be one's gateway. */
function towardsGateway(input: PlaneInput, peer: Lease, family: Family): KernelState {
  const subnet = subnetOf(peer.subnets, family);
  const gateway = publicIpOf(peer, family);
  if (subnet === undefined || gateway === undefined) return NOTHING;
  return { ...NOTHING, routes: [route(subnet, { gateway, device: input.external.index })] };
}

function throughTunnel({ devices }: PlaneInput, peer: Lease): KernelState {
  const subnet = subnetOf(peer.subnets, 4);
  const gateway = publicIpOf(peer, 4);
  const device = deviceOf(devices, 4);
  if (subnet === undefined || gateway === undefined || device === undefined) return NOTHING;
  return { ...NOTHING, routes: [route(subnet, { gateway, device, onlink: true })] };
}

function isNear({ external }: PlaneInput, peer: Lease, family: Family): boolean {
  const address = publicIpOf(peer, family);
  return address !== undefined && isOnLink(external, address);
}

function route(destination: Prefix, nextHop: Route["nextHops"][number]): Route {
  return {
    destination,
    type: "unicast",
    table: TABLE_MAIN,
    protocol: PROTOCOL_FLANNEL,
    // As flannel has it, for devices too. IPv6 has no scopes, and its own usual metric (IP6_RT_PRIO_USER).
    scope: SCOPE_GLOBAL,
    metric: destination.address.family === 6 ? 1024 : 0,
    nextHops: [nextHop],
  };
}

/** What cannot work, said in words: peers that this backend has no way to. */
export function unreachablePeers({
  config,
  external,
  peers,
}: Pick<PlaneInput, "config" | "external" | "peers">): string[] {
  const { type } = config.backend;
  return peers.flatMap((peer) => {
    const { attributes, subnets } = peer;
    const prefix = subnets.ipv4 ?? subnets.ipv6;
    const name = `${prefix === undefined ? "?" : formatPrefix(prefix)} at ${addressText(peer)}`;
    if (attributes.backendType !== type) {
      return [`the node of ${name} has the backend ${attributes.backendType}, this one has ${type}`];
    }
    const far = [attributes.publicIp, attributes.publicIpv6].some(
      (address) => address !== undefined && !isOnLink(external, address),
    );
    if (type === "host-gw" && far) {
      return [`the node of ${name} is not on the segment of ${external.name}, which host-gw needs`];
    }
    return [];
  });
}

function addressText({ attributes }: Lease): string {
  const address = attributes.publicIp ?? attributes.publicIpv6;
  return address === undefined ? "no address" : formatAddress(address);
}
