/** What nodes and pods say about the addresses in use. */
import { formatAddress, parseAddress, type Address } from "../ip/address.ts";
import type { Node } from "../resources/node.ts";
import { nodeNetwork } from "../resources/nodeNetwork.ts";
import type { Pod } from "../resources/workload.ts";
import type { Use } from "./check.ts";
import type { Facts, KnownPod } from "./garbage.ts";

/** Annotations in which the agent writes a pod's addresses before the kubelet reports them. */
const POD_IPS = ["cni.projectcalico.org/podIPs", "cni.projectcalico.org/podIP"];

/** What the garbage collector has to know of the cluster. */
export function factsOf(nodes: Iterable<Node>, pods: Iterable<Pod>): Facts {
  return {
    nodes: new Set([...nodes].map(({ metadata }) => metadata.name)),
    pods: new Map(
      [...pods].map((pod): [string, KnownPod] => [
        `${pod.metadata.namespace ?? ""}/${pod.metadata.name}`,
        knownPod(pod),
      ]),
    ),
  };
}

/** Addresses from status and annotations together: either may be ahead of the other. */
function knownPod(pod: Pod): KnownPod {
  return { node: pod.spec.nodeName ?? "", addresses: addressesOf(pod).map(formatAddress) };
}

/** What is no address is passed over: it is no reason to release anything. */
function addressesOf({ metadata, status }: Pod): Address[] {
  // So the agent marks a pod whose network it took down, while the kubelet still reports its addresses.
  if (metadata.annotations?.["cni.projectcalico.org/podIP"] === "") return [];
  const reported = [...(status?.podIPs ?? []).map(({ ip }) => ip), status?.podIP ?? ""];
  const annotated = POD_IPS.flatMap((key) => (metadata.annotations?.[key] ?? "").split(","));
  const texts = [...reported, ...annotated].map((text) => text.replace(/\/\d+$/, "").trim());
  return [...new Set(texts)].flatMap((text) => {
    try {
      return parseAddress(text);
    } catch {
      return [];
    }
  });
}

/** Addresses of running pods with a network of their own, and of nodes' tunnels. */
export function usesOf(nodes: Iterable<Node>, pods: Iterable<Pod>): Use[] {
  const workloads = [...pods]
    .filter(({ spec, status }) => {
      const finished = status?.phase === "Succeeded" || status?.phase === "Failed";
      return spec.hostNetwork !== true && !finished;
    })
    .flatMap((pod) => {
      const owner = `pod ${pod.metadata.namespace ?? ""}/${pod.metadata.name}`;
      return addressesOf(pod).map((address): Use => ({ address, kind: "workload", owner }));
    });
  const tunnels = [...nodes].flatMap((node) => {
    const { ipipTunnel, vxlanTunnel, vxlanTunnelV6, wireguardInterface, wireguardInterfaceV6 } = nodeNetwork(node);
    const named = Object.entries({ ipipTunnel, vxlanTunnel, vxlanTunnelV6, wireguardInterface, wireguardInterfaceV6 });
    return named.flatMap(([name, address]): Use[] =>
      address === undefined ? [] : [{ address, kind: "tunnel", owner: `node ${node.metadata.name} (${name})` }],
    );
  });
  return [...workloads, ...tunnels];
}
