import { familiesOf, HOST_MAC, waysOut, type Endpoint, type PodSettings } from "../dataplane/endpoint.ts";
import { hostPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import { CniError, codeFor, type CniCode } from "./error.ts";
import type { CniNode, PodFacts } from "./node.ts";
import { detach, otherAttachment } from "./remove.ts";
import type { CniRequest } from "./request.ts";
import type { AddResult } from "./result.ts";

/** ADD: the pod has its interface, address and routes, and its policy is in the kernel; or nothing is left behind. */
export async function add(request: CniRequest, node: CniNode, hostInterface: string): Promise<AddResult> {
  const reason = node.notReady();
  if (reason !== undefined) throw new CniError("try-again-later", "this node cannot set up pods yet", reason);
  const { workload, containerId, config } = request;
  const first = otherAttachment(request, node);
  if (first !== undefined) {
    throw new CniError(
      "invalid-environment",
      `CNI_IFNAME "${request.interfaceName}": container ${containerId} is attached already, to network ${first.network} as ${first.podInterface}`,
      "a container has one interface of this plugin, since the gateway is the same on each",
    );
  }
  const pod = await podOf(request, node);
  const link = {
    hostInterface,
    podInterface: request.interfaceName,
    mac: macOf(pod) ?? node.randomMac(),
    mtu: config.mtu ?? node.podMtu(),
    netns: request.netns,
  };
  await removeForerunners(request, node, hostInterface);
  const draft: Endpoint = {
    containerId,
    ...(workload.orchestrator === "k8s" ? { namespace: workload.namespace, pod: workload.pod } : {}),
    ...(pod === undefined ? {} : { podUid: pod.uid }),
    ...link,
    addresses: [],
    network: config.name,
  };
  // The address is on its way to the datastore while the kernel makes the interfaces and most of their rules, which do
  // not depend on it.
  const [assigned, linked] = await Promise.allSettled([
    node.addresses.assign(request, pod),
    node.interfaces.createLink(link),
    node.endpoints.prepare(draft),
  ]);
  if (assigned.status === "rejected" || linked.status === "rejected") {
    await undo(request, node, draft);
    if (assigned.status === "rejected") throw failedAs("address-unavailable", assigned.reason);
    throw failedAs("interface-failed", linked.status === "rejected" ? linked.reason : undefined);
  }
  const { addresses, routes } = assigned.value;
  const endpoint: Endpoint = { ...draft, addresses };
  const settings: PodSettings = {
    allowIpForwarding: config.allowIpForwarding,
    includeDefaultRoutes: config.includeDefaultRoutes,
    routes,
  };
  try {
    // Before it is up: the first packet of the pod, and the first to it, meet its policy.
    await node.endpoints.add(endpoint);
    node.interfaces.configure(endpoint, settings);
  } catch (error) {
    await undo(request, node, endpoint);
    throw failedAs("interface-failed", error);
  }
  return {
    hostInterface: { name: hostInterface, mac: HOST_MAC },
    podInterface: { name: link.podInterface, mac: link.mac, mtu: link.mtu, netns: link.netns },
    addresses: addresses.map(hostPrefix),
    routes: waysOut(familiesOf(addresses), settings),
  };
}

/** An error with a code of its own keeps it, as does one that the runtime had better try again after. */
function failedAs(code: CniCode, error: unknown): CniError {
  if (error instanceof CniError) return error;
  const general = codeFor(error);
  return new CniError(general === "try-again-later" ? general : code, messageOf(error), "", error);
}

/** Takes back what a failed ADD has made. What cannot be taken back now, the runtime's DEL or the garbage collection does. */
async function undo(request: CniRequest, node: CniNode, endpoint: Endpoint): Promise<void> {
  await Promise.allSettled([
    node.interfaces.removeLink(endpoint.hostInterface),
    node.addresses.release(request),
    node.endpoints.remove(endpoint),
  ]);
}

/**
 * Whoever stands where the new endpoint will: this container, added twice, whose addresses go back first; or an earlier
 * container of the same pod name, whose own DEL will come for its address, while its interface has to go now.
 */
async function removeForerunners(request: CniRequest, node: CniNode, hostInterface: string): Promise<void> {
  const same = node.endpoints.find(request.containerId, request.interfaceName);
  if (same !== undefined) {
    await node.addresses.release(request);
    await detach(same, node);
  }
  const forerunner = node.endpoints.findByHostInterface(hostInterface);
  if (forerunner !== undefined) await detach(forerunner, node);
}

async function podOf({ workload }: CniRequest, node: CniNode): Promise<PodFacts | undefined> {
  if (workload.orchestrator === "cni") return undefined;
  const { namespace, pod, uid } = workload;
  const facts = await node.podFacts(namespace, pod, uid);
  if (facts !== undefined) return facts;
  const which = uid === undefined ? "" : ` of uid ${uid}`;
  throw new CniError("try-again-later", `pod ${namespace}/${pod}${which} is not in the datastore`);
}

/** The annotation `cni.projectcalico.org/hwAddr`: a MAC that the pod's owner chose. */
function macOf(pod: PodFacts | undefined): string | undefined {
  const text = pod?.annotations["cni.projectcalico.org/hwAddr"];
  if (text === undefined) return undefined;
  const octets = text.toLowerCase().split(":");
  const isMac = octets.length === 6 && octets.every((octet) => /^[0-9a-f]{2}$/.test(octet));
  const isNone = octets.every((octet) => octet === "00");
  // Bit 0 of the first octet marks a group address, which no interface may have; nor may it have none at all.
  if (isMac && !isNone && Number.parseInt(octets[0]!, 16) % 2 === 0) return octets.join(":");
  throw new CniError(
    "invalid-config",
    `annotation cni.projectcalico.org/hwAddr: "${text}" is not a unicast MAC address`,
  );
}
