import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Datastore } from "../datastore/datastore.ts";
import { addressBits, addressPlus } from "../ip/address.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import { membersOf, type LabDefinition } from "./definition.ts";
import { LabError } from "./labError.ts";

/** A lab with Canal: flannel between the nodes, Calico's policy at the pods' doors, both in the agent. */

/** Bits of a node's subnets, as Kubernetes' controller manager gives them out (--node-cidr-mask-size-ipv4, -ipv6). */
const NODE_SUBNET_BITS = { 4: 24, 6: 80 } as const;

/** Flannel's other backends carry IPv4 alone. */
const BACKENDS_OF_BOTH_FAMILIES: ReadonlySet<unknown> = new Set(["vxlan", "host-gw"]);

const configFile = (directory: string): string => `${directory}/net-conf.json`;

/** The networks that flannel gives subnets of. */
function networks({ podSubnet, podSubnet6, flannel }: LabDefinition): Prefix[] {
  return podSubnet6 !== undefined && BACKENDS_OF_BOTH_FAMILIES.has(flannel["Type"])
    ? [podSubnet, podSubnet6]
    : [podSubnet];
}

/** Flannel's configuration, the same on every node. */
export function writeNetworkConfig(directory: string, definition: LabDefinition): void {
  const [ipv4, ipv6] = networks(definition).map(formatPrefix);
  const config = {
    Network: ipv4,
    ...(ipv6 !== undefined && { EnableIPv6: true, IPv6Network: ipv6, IPv6SubnetLen: NODE_SUBNET_BITS[6] }),
    EnableNFTables: true,
    Backend: definition.flannel,
  };
  writeFileSync(configFile(directory), `${JSON.stringify(config, undefined, 2)}\n`);
}

/** What the conflist of Canal says of addresses. */
export function canalIpam(definition: LabDefinition): object {
  const ranges = networks(definition).map(({ address }) => [
    { subnet: address.family === 4 ? "usePodCidr" : "usePodCidrIPv6" },
  ]);
  return { type: "host-local", ranges };
}

/** What the manifests of Canal give to calico/node, and flannel's own variables. */
export function canalEnvironment(
  definition: LabDefinition,
  directory: string,
  runDirectory: string,
): Record<string, string> {
  return {
    CALICO_NETWORKING_BACKEND: "none",
    CLUSTER_TYPE: "k8s,canal",
    USE_POD_CIDR: "true",
    NO_DEFAULT_POOLS: "true",
    FELIX_DEFAULTENDPOINTTOHOSTACTION: "ACCEPT",
    FELIX_IPV6SUPPORT: String(networks(definition).length > 1),
    CARACAL_FLANNEL: "true",
    FLANNELD_IFACE: "eth0",
    FLANNELD_IP_MASQ: "true",
    FLANNELD_NET_CONFIG_PATH: configFile(directory),
    FLANNELD_SUBNET_FILE: `${runDirectory}/subnet.env`,
  };
}

/** Gives each node its part of the pods' subnets, as Kubernetes' controller manager does. Agents make their Nodes themselves. */
export async function givePodCidrs(
  definition: LabDefinition,
  datastore: Datastore,
  signal: AbortSignal,
): Promise<void> {
  const partOf = (network: Prefix, index: number): string => {
    const { family } = network.address;
    const length = NODE_SUBNET_BITS[family];
    if (network.length > length)
      throw new LabError("bad-definition", `${formatPrefix(network)} has no room for a /${length} for each node`);
    const size = 1n << BigInt(addressBits(family) - length);
    return formatPrefix({ address: addressPlus(network.address, size * BigInt(index)), length });
  };
  await Promise.all(
    membersOf(definition, "node").map(async ({ name }, index) => {
      const podCIDRs = networks(definition).map((network) => partOf(network, index));
      while (!signal.aborted) {
        try {
          await datastore.patch("Node", name, undefined, { spec: { podCIDR: podCIDRs[0], podCIDRs } });
          return;
        } catch {
          await sleep(50); // the Node is not there yet, or the API server is still starting
        }
      }
    }),
  );
}
