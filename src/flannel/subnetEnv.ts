import { addressPlus } from "../ip/address.ts";
import { formatPrefix, networkOf, parseInterfaceAddress, type Prefix } from "../ip/prefix.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import type { NetworkConfig } from "./config.ts";
import type { LeasedSubnets } from "./lease.ts";

/** `/run/flannel/subnet.env`, by which flannel tells the container runtime and its CNI plugin what this node has. */
export interface SubnetEnv {
  /** The networks of all nodes; older flannels may write several. */
  readonly networks: readonly Prefix[];
  readonly ipv6Networks: readonly Prefix[];
  readonly subnets: LeasedSubnets;
  /** Of the pods. Bytes. */
  readonly mtu: number;
  /** Whether flannel masquerades, so that the bridge must not. */
  readonly ipMasq: boolean;
}

export class SubnetEnvError extends Failure<"malformed"> {
  constructor(message: string) {
    super("malformed", message);
  }
}

export function subnetEnvOf(
  { ipv4, ipv6 }: NetworkConfig,
  subnets: LeasedSubnets,
  mtu: number,
  ipMasq: boolean,
): SubnetEnv {
  return {
    networks: ipv4 === undefined ? [] : [ipv4.network],
    ipv6Networks: ipv6 === undefined ? [] : [ipv6.network],
    subnets,
    mtu,
    ipMasq,
  };
}

/** Each subnet is written as its first usable address, which the bridge takes: `FLANNEL_SUBNET=10.5.34.1/24`. */
export function formatSubnetEnv({ networks, ipv6Networks, subnets, mtu, ipMasq }: SubnetEnv): string {
  const list = (prefixes: readonly Prefix[]): string => prefixes.map(formatPrefix).join(",");
  const first = ({ address, length }: Prefix): string => formatPrefix({ address: addressPlus(address, 1n), length });
  const lines = [
    ...(subnets.ipv4 === undefined
      ? []
      : [`FLANNEL_NETWORK=${list(networks)}`, `FLANNEL_SUBNET=${first(subnets.ipv4)}`]),
    ...(subnets.ipv6 === undefined
      ? []
      : [`FLANNEL_IPV6_NETWORK=${list(ipv6Networks)}`, `FLANNEL_IPV6_SUBNET=${first(subnets.ipv6)}`]),
    `FLANNEL_MTU=${mtu}`,
    `FLANNEL_IPMASQ=${ipMasq}`,
  ];
  return `${lines.join("\n")}\n`;
}

/** Throws `SubnetEnvError` with the name of what is missing or malformed. */
export function parseSubnetEnv(text: string): SubnetEnv {
  const values = new Map<string, string>();
  for (const line of text.split("\n")) {
    const at = line.indexOf("=");
    if (at > 0) values.set(line.slice(0, at).trim(), line.slice(at + 1).trim());
  }
  const networksOf = (name: string): Prefix[] =>
    (values.get(name) ?? "")
      .split(",")
      .filter((part) => part !== "")
      .map((part) => readNetwork(name, part));
  const subnetOf = (name: string): Prefix | undefined => {
    const value = values.get(name);
    return value === undefined || value === "" ? undefined : readNetwork(name, value);
  };
  const ipv4 = subnetOf("FLANNEL_SUBNET");
  const ipv6 = subnetOf("FLANNEL_IPV6_SUBNET");
  if (ipv4 === undefined && ipv6 === undefined) {
    throw new SubnetEnvError("neither FLANNEL_SUBNET nor FLANNEL_IPV6_SUBNET is there");
  }
  const mtu = values.get("FLANNEL_MTU") ?? "";
  if (!/^[0-9]+$/.test(mtu)) throw new SubnetEnvError(`FLANNEL_MTU "${mtu}" is not a number`);
  const ipMasq = values.get("FLANNEL_IPMASQ") ?? "";
  if (ipMasq !== "true" && ipMasq !== "false")
    throw new SubnetEnvError(`FLANNEL_IPMASQ "${ipMasq}" is not true or false`);
  return {
    networks: networksOf("FLANNEL_NETWORK"),
    ipv6Networks: networksOf("FLANNEL_IPV6_NETWORK"),
    subnets: { ...(ipv4 !== undefined && { ipv4 }), ...(ipv6 !== undefined && { ipv6 }) },
    mtu: Number(mtu),
    ipMasq: ipMasq === "true",
  };
}

function readNetwork(name: string, text: string): Prefix {
  try {
    const { address, length } = parseInterfaceAddress(text);
    return networkOf(address, length);
  } catch (error) {
    throw new SubnetEnvError(`${name}: ${messageOf(error)}`);
  }
}
