/** What Calico keeps on a Kubernetes Node, in annotations. */
import { formatAddress, parseAddress, type Address, type Family } from "../ip/address.ts";
import { formatPrefix, hostPrefix, parseInterfaceAddress, type InterfaceAddress } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import { asNumber, mac } from "./fields.ts";
import { parseWith, type Fault } from "./schema.ts";

/** What a node says about its network. Absent: not set. */
export interface NodeNetwork {
  /** Its address with the length of its subnet, which decides what is CrossSubnet. */
  ipv4?: InterfaceAddress;
  ipv6?: InterfaceAddress;
  asNumber?: number;
  /** A node that has one is a route reflector, and not in the mesh. Written as an IPv4 address. */
  routeReflectorClusterId?: string;
  ipipTunnel?: Address;
  vxlanTunnel?: Address;
  vxlanTunnelV6?: Address;
  vxlanTunnelMac?: string;
  vxlanTunnelMacV6?: string;
  wireguardInterface?: Address;
  wireguardInterfaceV6?: Address;
  /** In base64. */
  wireguardPublicKey?: string;
  wireguardPublicKeyV6?: string;
}

interface AnnotationCodec<Value> {
  /** Its name after `projectcalico.org/`. */
  readonly name: string;
  read(text: string): Value;
  write(value: Value): string;
}

const subnetAddress = (name: string, family: Family): AnnotationCodec<InterfaceAddress> => ({
  name,
  // A bare address stands for a subnet of its own.
  read: (text) => ofFamily(family, text.includes("/") ? parseInterfaceAddress(text) : hostPrefix(parseAddress(text))),
  write: formatPrefix,
});
const address = (name: string, family: Family): AnnotationCodec<Address> => ({
  name,
  read: (text) => ofFamily(family, hostPrefix(parseAddress(text))).address,
  write: formatAddress,
});
const word = (name: string, read: (text: string) => string = (text) => text): AnnotationCodec<string> => ({
  name,
  read,
  write: (value) => value,
});

function ofFamily(family: Family, value: InterfaceAddress): InterfaceAddress {
  if (value.address.family === family) return value;
  throw new TypeError(`"${formatAddress(value.address)}" is not an IPv${family} address`);
}

const macText = (text: string): string => parseWith(mac, text, "MAC address");

/** One row per annotation of Calico's that we understand. */
const ANNOTATIONS: { readonly [Field in keyof NodeNetwork]-?: AnnotationCodec<NonNullable<NodeNetwork[Field]>> } = {
  ipv4: subnetAddress("IPv4Address", 4),
  ipv6: subnetAddress("IPv6Address", 6),
  asNumber: { name: "ASNumber", read: (text) => parseWith(asNumber, text, "AS number"), write: String },
  routeReflectorClusterId: word("RouteReflectorClusterID", (text) => formatAddress(address("", 4).read(text))),
  ipipTunnel: address("IPv4IPIPTunnelAddr", 4),
  vxlanTunnel: address("IPv4VXLANTunnelAddr", 4),
  vxlanTunnelV6: address("IPv6VXLANTunnelAddr", 6),
  vxlanTunnelMac: word("VXLANTunnelMACAddr", macText),
  vxlanTunnelMacV6: word("VXLANTunnelMACAddrV6", macText),
  wireguardInterface: address("IPv4WireguardInterfaceAddr", 4),
  wireguardInterfaceV6: address("IPv6WireguardInterfaceAddr", 6),
  wireguardPublicKey: word("WireguardPublicKey"),
  wireguardPublicKeyV6: word("WireguardPublicKeyV6"),
};
const PREFIX = "projectcalico.org/";

/**
 * The node's annotations, read. What cannot be read is left out, and listed in `faults`: another node's mistake must
 * not stop this one.
 */
export function nodeNetwork(item: {
  metadata: { annotations?: Record<string, string> };
}): NodeNetwork & { faults: Fault[] } {
  const annotations = item.metadata.annotations ?? {};
  const faults: Fault[] = [];
  const network: Record<string, unknown> = {};
  for (const [field, codec] of Object.entries(ANNOTATIONS)) {
    const text = annotations[PREFIX + codec.name];
    if (text === undefined || text === "") continue;
    try {
      network[field] = codec.read(text);
    } catch (thrown) {
      faults.push({ path: `metadata.annotations["${PREFIX}${codec.name}"]`, reason: messageOf(thrown) });
    }
  }
  return { ...(network as NodeNetwork), faults };
}

/** The merge patch that sets what is given and, for null, takes it away. */
export function nodeNetworkPatch(change: { readonly [Field in keyof NodeNetwork]?: NodeNetwork[Field] | null }): {
  metadata: { annotations: Record<string, string | null> };
} {
  const annotations: Record<string, string | null> = {};
  for (const field of Object.keys(ANNOTATIONS) as (keyof NodeNetwork)[]) {
    const value = change[field];
    const codec: AnnotationCodec<unknown> = ANNOTATIONS[field];
    if (value !== undefined) annotations[PREFIX + codec.name] = value === null ? null : codec.write(value);
  }
  return { metadata: { annotations } };
}
