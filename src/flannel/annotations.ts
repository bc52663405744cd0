import { type Address, formatAddress, parseAddress } from "../ip/address.ts";
import { networkOf, parseInterfaceAddress, type Prefix } from "../ip/prefix.ts";
import { attributesOf, type Lease, type LeaseAttributes, type LeasedSubnets } from "./lease.ts";

/** What flannel's nodes say of themselves in Kubernetes: annotations of their Node (pkg/subnet/kube/annotations.go). */

export const ANNOTATION_PREFIX = "flannel.alpha.coreos.com/";

/** A Kubernetes Node, as far as flannel looks at it. */
export interface NodeRecord {
  readonly name: string;
  /** `spec.podCIDRs`, or the one `spec.podCIDR`. */
  readonly podCidrs: readonly string[];
  readonly annotations: Readonly<Record<string, string>>;
}

const NAMES = {
  managed: "kube-subnet-manager",
  backendType: "backend-type",
  backendData: "backend-data",
  backendV6Data: "backend-v6-data",
  publicIp: "public-ip",
  publicIpv6: "public-ipv6",
  publicIpOverwrite: "public-ip-overwrite",
  publicIpv6Overwrite: "public-ipv6-overwrite",
  nodePublicIp: "node-public-ip",
  nodePublicIpv6: "node-public-ipv6",
} as const;
type Name = keyof typeof NAMES;

const keyOf = (prefix: string, name: Name): string => `${prefix}${NAMES[name]}`;

/** The annotations of this node. An administrator's `public-ip-overwrite` comes before the address that was found. */
export function annotationsOf(prefix: string, attributes: LeaseAttributes, node: NodeRecord): Record<string, string> {
  const overwritten = (name: Name): Address | undefined => addressIn(node, keyOf(prefix, name));
  const publicIp = attributes.publicIp && (overwritten("publicIpOverwrite") ?? attributes.publicIp);
  const publicIpv6 = attributes.publicIpv6 && (overwritten("publicIpv6Overwrite") ?? attributes.publicIpv6);
  const values: [Name, string][] = [
    ["managed", "true"],
    ["backendType", attributes.backendType === "udp" ? "" : attributes.backendType],
  ];
  if (publicIp !== undefined) {
    values.push(["backendData", JSON.stringify(attributes.backendData ?? null)], ["publicIp", formatAddress(publicIp)]);
  }
  if (publicIpv6 !== undefined) {
    values.push(
      ["backendV6Data", JSON.stringify(attributes.backendV6Data ?? null)],
      ["publicIpv6", formatAddress(publicIpv6)],
    );
  }
  return Object.fromEntries(values.map(([name, value]) => [keyOf(prefix, name), value]));
}

/** The node's lease; undefined for one that flannel does not run on, or that has no subnet yet, or says nonsense. */
export function leaseOfNode(prefix: string, node: NodeRecord): Lease | undefined {
  if (node.annotations[keyOf(prefix, "managed")] !== "true") return undefined;
  const attributes = attributesIn(prefix, node);
  const subnets = subnetsOf(node);
  if (attributes === undefined || (subnets.ipv4 === undefined && subnets.ipv6 === undefined)) return undefined;
  return { subnets, attributes };
}

/** What the annotations say, undefined where they cannot be read. */
export function attributesIn(prefix: string, node: NodeRecord): LeaseAttributes | undefined {
  const text = (name: Name): string => node.annotations[keyOf(prefix, name)] ?? "";
  try {
    const publicIp = addressIn(node, keyOf(prefix, "publicIp"));
    const publicIpv6 = addressIn(node, keyOf(prefix, "publicIpv6"));
    return {
      ...(publicIp !== undefined && { publicIp }),
      ...(publicIpv6 !== undefined && { publicIpv6 }),
      ...attributesOf(text("backendType"), jsonIn(text("backendData")), jsonIn(text("backendV6Data"))),
    };
  } catch {
    return undefined;
  }
}

/** The addresses that an administrator gave the node, as if by `-public-ip`. */
export function nodePublicIps(prefix: string, node: NodeRecord): { ipv4?: Address; ipv6?: Address } {
  const ipv4 = addressIn(node, keyOf(prefix, "nodePublicIp"));
  const ipv6 = addressIn(node, keyOf(prefix, "nodePublicIpv6"));
  return { ...(ipv4 !== undefined && { ipv4 }), ...(ipv6 !== undefined && { ipv6 }) };
}

/** The first of each family. */
export function subnetsOf(node: NodeRecord): LeasedSubnets {
  const prefixes = node.podCidrs.flatMap((text): Prefix[] => {
    try {
      const { address, length } = parseInterfaceAddress(text);
      return [networkOf(address, length)];
    } catch {
      return [];
    }
  });
  const ipv4 = prefixes.find(({ address }) => address.family === 4);
  const ipv6 = prefixes.find(({ address }) => address.family === 6);
  return { ...(ipv4 !== undefined && { ipv4 }), ...(ipv6 !== undefined && { ipv6 }) };
}

function addressIn(node: NodeRecord, key: string): Address | undefined {
  const text = node.annotations[key] ?? "";
  return text === "" ? undefined : parseAddress(text);
}

const jsonIn = (text: string): unknown => (text === "" ? undefined : (JSON.parse(text) as unknown));
