import { existsSync, readFileSync } from "node:fs";
import { Failure, messageOf } from "../lib/errors.ts";
import { systemClock } from "./clock.io.ts";
import { type NetworkConfig, parseNetworkConfig } from "./config.ts";
import type { FlannelOptions } from "./flags.ts";
import { kubeManager, type NodeStore } from "./kubeManager.ts";
import type { SubnetManager } from "./subnetManager.ts";

/** Kubernetes, as flannel sees it, and which of its nodes this is. */
export interface KubernetesNode {
  readonly nodes: NodeStore;
  readonly nodeName: string;
}

/**
 * The subnet manager over Kubernetes, and the interface that flags and the Node's annotations name together. Rejects while
 * the Node is not there.
 */
export async function openKubeManager(
  { external }: Pick<FlannelOptions, "external">,
  kubernetes: NonNullable<FlannelOptions["kubernetes"]>,
  { nodes, nodeName }: KubernetesNode,
): Promise<{ readonly manager: SubnetManager; readonly external: FlannelOptions["external"] }> {
  const manager = kubeManager({
    nodes,
    nodeName,
    annotationPrefix: kubernetes.annotationPrefix,
    setNetworkAvailable: kubernetes.setNetworkAvailable,
    readConfig: () => readConfigFile(kubernetes.configFile),
    clock: systemClock,
  });
  const { ipv4, ipv6 } = await manager.nodePublicIps();
  const named = { ...(ipv4 !== undefined && { publicIp: ipv4 }), ...(ipv6 !== undefined && { publicIpv6: ipv6 }) };
  return { manager, external: { ...named, ...external } };
}

function readConfigFile(file: string): NetworkConfig {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new Failure("no-network-config", `Cannot read flannel's network configuration: ${messageOf(error)}`, error);
  }
  const config = parseNetworkConfig(text);
  if (!config.nftables && !existsSync("/proc/sys/net/bridge/bridge-nf-call-iptables")) {
    process.emitWarning("br_netfilter is not loaded: Services do not work between pods of one node");
  }
  return config;
}
