import { addressToBytes, type Address } from "../ip/address.ts";
import type { Prefix } from "../ip/prefix.ts";
import { toHex } from "../lib/bytes.ts";
import type { IPIP_MAPS } from "./ipipMaps.ts";

/** What is wanted of this node's end of the IPIP tunnel. */
export interface IpipWish {
  /** The node's own address: what its packets come from, and what packets must be for to be taken. */
  readonly local: Address;
  /** The address of the device; absent while the node has none. */
  readonly address?: Address;
  readonly mtu: number;
  /** Prefixes of pods' addresses, and the node that each is behind. */
  readonly destinations: readonly { readonly destination: Prefix; readonly node: Address }[];
  /** Nodes whose packets are taken. */
  readonly peers: readonly Address[];
  /** Networks whose packets are taken beside that. */
  readonly networks: readonly Prefix[];
  /** Indexes of the links by which packets from other nodes come. */
  readonly underlays: readonly number[];
}

/** Names of the device, whichever kind it is: Calico's and flannel's. */
export const IPIP_DEVICE = "tunl0";
export const FLANNEL_IPIP_DEVICE = "flannel.ipip";

/** Entries of a BPF map, by their key in hex. */
export type Entries = ReadonlyMap<string, { readonly key: Uint8Array; readonly value: Uint8Array }>;

/** What the maps of the two programs hold for this wish; `device` is the device's index. */
export function ipipEntries(
  { local, destinations, peers, networks }: IpipWish,
  device: number,
): { readonly [Name in Exclude<keyof typeof IPIP_MAPS, "ipip_counters">]: Entries } {
  const yes = Uint8Array.of(1, 0, 0, 0);
  return {
    ipip_settings: entries([[new Uint8Array(4), joined(addressToBytes(local), u32(device))]]),
    ipip_remotes: entries(destinations.map(({ destination, node }) => [prefixKey(destination), addressToBytes(node)])),
    ipip_peers: entries(peers.map((peer) => [addressToBytes(peer), yes])),
    ipip_networks: entries(networks.map((network) => [prefixKey(network), yes])),
  };
}

function entries(pairs: readonly (readonly [Uint8Array, Uint8Array])[]): Entries {
  return new Map(pairs.map(([key, value]) => [toHex(key), { key, value }]));
}

/** `struct bpf_lpm_trie_key`: the length in host order, then the address. */
function prefixKey({ address, length }: Prefix): Uint8Array {
  return joined(u32(length), addressToBytes(address));
}

const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer);

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}

/** Why a packet that came by a socket (with its outer header, put together from fragments) is not taken. */
export type IpipRefusal = "not for this node" | "unknown peer" | "malformed" | "congestion";

const HEADER = 20;
const ECN_MASK = 3;

/**
 * The inner packet of one that came with its outer header: what the program at the underlay does, for what it leaves to
 * the stack (RFC 2003 section 3.1; congestion as in RFC 6040 section 4.2). The bytes are changed in place.
 */
export function openEnvelope(
  packet: Uint8Array,
  isKnown: (source: Uint8Array, destination: Uint8Array) => IpipRefusal | undefined,
): Uint8Array | IpipRefusal {
  const outerHeader = ((packet[0] ?? 0) & 15) * 4;
  if (packet.length < outerHeader + HEADER || outerHeader < HEADER) return "malformed";
  const refusal = isKnown(packet.subarray(12, 16), packet.subarray(16, 20));
  if (refusal !== undefined) return refusal;
  const inner = packet.subarray(outerHeader);
  const innerHeader = (inner[0]! & 15) * 4;
  const length = (inner[2]! << 8) | inner[3]!;
  if (inner[0]! >> 4 !== 4 || innerHeader < HEADER || length !== inner.length || innerHeader > length)
    return "malformed";
  const [outerTos, innerTos] = [packet[1]!, inner[1]!];
  if ((outerTos & ECN_MASK) === ECN_MASK && (innerTos & ECN_MASK) !== ECN_MASK) {
    if ((innerTos & ECN_MASK) === 0) return "congestion";
    const sum = (inner[10]! << 8) | inner[11]!;
    inner[1] = innerTos | ECN_MASK;
    // RFC 1624: HC' = ~(~HC + ~m + m'), with only the TOS byte changed.
    let changed = (~sum & 0xffff) + (~innerTos & 0xffff) + inner[1];
    changed = (changed & 0xffff) + (changed >> 16);
    changed = ~((changed & 0xffff) + (changed >> 16)) & 0xffff;
    inner[10] = changed >> 8;
    inner[11] = changed & 255;
  }
  return inner;
}

/** What the tunnel's kind is, as `node status` says it. */
export type IpipKind = "kernel" | "bpf";
