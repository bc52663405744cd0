import { prefixCovers } from "../ip/prefix.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import { annotationsOf, attributesIn, leaseOfNode, type NodeRecord, nodePublicIps, subnetsOf } from "./annotations.ts";
import type { NetworkConfig } from "./config.ts";
import { describeSubnets, type Lease, type LeaseAttributes } from "./lease.ts";
import { type Clock, keepTrying, type SubnetListener, type SubnetManager } from "./subnetManager.ts";

/** Flannel's subnet manager over Kubernetes: the subnet is the Node's podCIDR, the rest is in its annotations. */

/** What it needs of Kubernetes. Calls reject with an error that says why. */
export interface NodeStore {
  get(name: string): Promise<NodeRecord | undefined>;
  /** All nodes, and the version to watch from. */
  list(): Promise<{ readonly nodes: readonly NodeRecord[]; readonly version: string }>;
  /** Ends when the signal is aborted or the server ends it; throws where the version is too old, or the stream breaks. */
  watch(version: string, signal: AbortSignal): AsyncIterable<NodeChange>;
  /** Sets these annotations and leaves all others. */
  annotate(name: string, annotations: Readonly<Record<string, string>>): Promise<void>;
  /** Sets the condition NetworkUnavailable to False (flannel's reason FlannelIsUp). */
  networkIsUp(name: string): Promise<void>;
}

export interface NodeChange {
  readonly type: "changed" | "deleted";
  readonly node: NodeRecord;
}

export interface KubeManagerOptions {
  readonly nodes: NodeStore;
  readonly nodeName: string;
  /** What the names of annotations begin with: `flannel.alpha.coreos.com/`. */
  readonly annotationPrefix: string;
  /** Reads net-conf.json. */
  readonly readConfig: () => NetworkConfig;
  /** Whether the Node's condition NetworkUnavailable is flannel's to set. */
  readonly setNetworkAvailable: boolean;
  readonly clock: Clock;
}

export class KubeManagerError extends Failure<"no-node" | "no-pod-cidr" | "outside-network"> {}

export function kubeManager(options: KubeManagerOptions): SubnetManager & {
  /** The Node's own idea of its public addresses, as if by `-public-ip`. */
  nodePublicIps(): Promise<ReturnType<typeof nodePublicIps>>;
} {
  const { nodes, nodeName, annotationPrefix, clock } = options;
  let own: LeaseAttributes | undefined;

  async function ownNode(): Promise<NodeRecord> {
    const node = await nodes.get(nodeName);
    if (node !== undefined) return node;
    throw new KubeManagerError("no-node", `Kubernetes has no node "${nodeName}"`);
  }

  async function annotate(node: NodeRecord, attributes: LeaseAttributes): Promise<void> {
    const wanted = annotationsOf(annotationPrefix, attributes, node);
    const missing = Object.entries(wanted).filter(([key, value]) => node.annotations[key] !== value);
    if (missing.length > 0) await nodes.annotate(nodeName, Object.fromEntries(missing));
  }

  async function follow(listener: SubnetListener, signal: AbortSignal, wentWell: () => void): Promise<void> {
    const { nodes: all, version } = await nodes.list();
    const known = new Map(all.map((node) => [node.name, node]));
    let told: string | undefined;
    const settle = async (): Promise<void> => {
      const node = known.get(nodeName);
      // Who changed our annotations would send our pods' packets elsewhere.
      if (node !== undefined && own !== undefined) await annotate(node, own);
      const peers = [...known.values()]
        .filter(({ name }) => name !== nodeName)
        .toSorted((a, b) => (a.name < b.name ? -1 : 1))
        .flatMap((each) => leaseOfNode(annotationPrefix, each) ?? []);
      // Nodes change every few seconds, with their heartbeats; leases hardly ever.
      const text = JSON.stringify(peers, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value));
      if (text === told) return;
      told = text;
      listener.peers(peers);
    };
    await settle();
    wentWell();
    for await (const { type, node } of nodes.watch(version, signal)) {
      if (type === "deleted") known.delete(node.name);
      else known.set(node.name, node);
      await settle();
    }
  }

  return {
    // oxlint-disable-next-line require-await -- what is thrown is to be a rejection
    async networkConfig() {
      return options.readConfig();
    },
    async stored() {
      return attributesIn(annotationPrefix, await ownNode());
    },
    nodePublicIps: async () => nodePublicIps(annotationPrefix, await ownNode()),
    async acquire(config, attributes) {
      const node = await ownNode();
      const subnets = subnetsOf(node);
      for (const family of ["ipv4", "ipv6"] as const) {
        const range = config[family];
        if (range !== undefined && subnets[family] === undefined) {
          throw new KubeManagerError(
            "no-pod-cidr",
            `node "${nodeName}" has no ${family} podCIDR: the controller manager gives none out (--allocate-node-cidrs)`,
          );
        }
      }
      own = attributes;
      await annotate(node, attributes);
      if (options.setNetworkAvailable) await nodes.networkIsUp(nodeName);
      const { ipv4, ipv6 } = subnets;
      const lease: Lease = {
        subnets: {
          ...(ipv4 !== undefined && config.ipv4 !== undefined && { ipv4 }),
          ...(ipv6 !== undefined && config.ipv6 !== undefined && { ipv6 }),
        },
        attributes,
      };
      outsideNetwork(config, lease);
      return lease;
    },
    async follow(listener, signal) {
      await keepTrying(
        clock,
        signal,
        (wentWell) => follow(listener, signal, wentWell),
        (error) => listener.problem(messageOf(error)),
      );
    },
  };
}

/** A podCIDR that lies outside flannel's Network would be neither routed nor masqueraded as it should. */
function outsideNetwork(config: NetworkConfig, { subnets }: Lease): void {
  for (const family of ["ipv4", "ipv6"] as const) {
    const network = config[family]?.network;
    const subnet = subnets[family];
    if (network === undefined || subnet === undefined) continue;
    if (!prefixCovers(network, subnet)) {
      throw new KubeManagerError(
        "outside-network",
        `the podCIDR ${describeSubnets({ [family]: subnet })} lies outside flannel's Network ${describeSubnets({ [family]: network })}`,
      );
    }
  }
}
