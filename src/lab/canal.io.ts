import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Datastore } from "../datastore/datastore.ts";
import { addressPlus } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { LabError, membersOf, type LabDefinition } from "./definition.ts";

/** A lab with Canal: flannel between the nodes, Calico's policy at the pods' doors, both in the agent. */

/** Bits of a node's subnet, as Kubernetes' controller manager gives them out (--node-cidr-mask-size). */
const NODE_SUBNET_BITS = 24;

const configFile = (directory: string): string => `${directory}/net-conf.json`;

/** Flannel's configuration, the same on every node. */
export function writeNetworkConfig(directory: string, { podSubnet, flannel }: LabDefinition): void {
  const config = { Network: formatPrefix(podSubnet), EnableNFTables: true, Backend: flannel };
  writeFileSync(configFile(directory), `${JSON.stringify(config, undefined, 2)}\n`);
}

/** What the manifests of Canal give to calico/node, and flannel's own variables. */
export function canalEnvironment(directory: string, runDirectory: string): Record<string, string> {
  return {
    CALICO_NETWORKING_BACKEND: "none",
    CLUSTER_TYPE: "k8s,canal",
    USE_POD_CIDR: "true",
    NO_DEFAULT_POOLS: "true",
    FELIX_DEFAULTENDPOINTTOHOSTACTION: "ACCEPT",
    FELIX_IPV6SUPPORT: "false",
    CARACAL_FLANNEL: "true",
    FLANNELD_IFACE: "eth0",
    FLANNELD_IP_MASQ: "true",
    FLANNELD_NET_CONFIG_PATH: configFile(directory),
    FLANNELD_SUBNET_FILE: `${runDirectory}/subnet.env`,
  };
}

/** Gives each node its part of the pods' subnet, as Kubernetes' controller manager does. Agents make their Nodes themselves. */
export async function givePodCidrs(
  definition: LabDefinition,
  datastore: Datastore,
  signal: AbortSignal,
): Promise<void> {
  const { podSubnet } = definition;
  if (podSubnet.length > NODE_SUBNET_BITS)
    throw new LabError("bad-definition", `podSubnet ${formatPrefix(podSubnet)} has no room for a /24 for each node`);
  const size = 1n << BigInt(32 - NODE_SUBNET_BITS);
  await Promise.all(
    membersOf(definition, "node").map(async ({ name }, index) => {
      const podCIDR = `${formatPrefix({ address: addressPlus(podSubnet.address, size * BigInt(index)), length: NODE_SUBNET_BITS })}`;
      while (!signal.aborted) {
        try {
          await datastore.patch("Node", name, undefined, { spec: { podCIDR, podCIDRs: [podCIDR] } });
          return;
        } catch {
          await sleep(50); // the Node is not there yet, or the API server is still starting
        }
      }
    }),
  );
}
