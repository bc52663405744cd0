import { createHash } from "node:crypto";
import {
  DEFAULT_ROUTE,
  familiesOf,
  GATEWAY_V4,
  GATEWAY_V6,
  HOST_MAC,
  type Endpoint,
  type PodRoute,
} from "../dataplane/endpoint.ts";
import { formatPrefix, hostPrefix } from "../ip/prefix.ts";
import { codeOf, messageOf } from "../lib/errors.ts";
import { hostInterfaceName } from "../resources/names.ts";
import { CniError, type CniCode } from "./error.ts";
import type { Assigned, CniNode, PodFacts } from "./node.ts";
import { parseRequest, splitRequest, type CniRequest, type CniVersion } from "./request.ts";
import { formatAddResult, formatError, formatVersionResult, type AddResult } from "./result.ts";

/** What the shim prints and exits with. */
export interface Answer {
  readonly ok: boolean;
  /** For standard output; empty where the specification prints nothing. */
  readonly text: string;
}

/** Carries out one request of the shim, whatever comes: every failure becomes an error in the specification's form. */
export async function answerRequest(bytes: Uint8Array, node: CniNode, interfacePrefix: string): Promise<Answer> {
  let version: CniVersion = "1.0.0";
  try {
    const { environment, stdin } = splitRequest(bytes);
    const request = parseRequest(environment, stdin);
    version = request.config.cniVersion;
    const result = await carryOut(request, node, interfacePrefix);
    return { ok: true, text: result === undefined ? "" : `${JSON.stringify(result)}\n` };
  } catch (error) {
    const known = error instanceof CniError ? error : new CniError(codeFor(error), messageOf(error), "", error);
    return { ok: false, text: `${JSON.stringify(formatError(known, version))}\n` };
  }
}

/** A datastore that is away comes back: the runtime is told to try again. */
function codeFor(error: unknown): CniCode {
  const code = codeOf(error);
  return code === "unavailable" || code === "timeout" ? "try-again-later" : "io-failure";
}

async function carryOut(request: CniRequest, node: CniNode, interfacePrefix: string): Promise<object | undefined> {
  switch (request.command) {
    case "ADD":
      return formatAddResult(await add(request, node, interfacePrefix), request.config.cniVersion);
    case "DEL":
      await del(request, node, interfacePrefix);
      return undefined;
    case "CHECK":
      check(request, node);
      return undefined;
    case "GC":
      await collectGarbage(request, node);
      return undefined;
    case "STATUS": {
      const reason = node.notReady();
      if (reason !== undefined) throw new CniError("plugin-not-available", "this node cannot set up pods now", reason);
      return undefined;
    }
    case "VERSION":
      return formatVersionResult(request.config.cniVersion);
  }
}

/**
 * The node's end of a pod's veth pair. A Kubernetes pod's comes from its name, so that a pod that is made again under its
 * name has the same; a bare container's from its id.
 */
function hostInterfaceOf(request: CniRequest, interfacePrefix: string): string {
  const { workload, containerId, interfaceName } = request;
  if (workload.orchestrator === "cni") {
    // Two networks of one container must not meet in one interface.
    const digest = createHash("sha1").update(`${containerId}.${interfaceName}`).digest("hex");
    return `${interfacePrefix}${digest.slice(0, 11)}`;
  }
  return hostInterfaceName(workload.namespace, workload.pod, interfacePrefix);
}

async function add(request: CniRequest, node: CniNode, interfacePrefix: string): Promise<AddResult> {
  const reason = node.notReady();
  if (reason !== undefined) throw new CniError("try-again-later", "this node cannot set up pods yet", reason);
  const hostInterface = hostInterfaceOf(request, interfacePrefix);
  await removeForerunners(request, node, hostInterface);
  const pod = await podOf(request, node);
  const link = {
    hostInterface,
    podInterface: request.interfaceName,
    mac: macOf(pod) ?? node.randomMac(),
    mtu: request.config.mtu ?? node.podMtu(),
    netns: request.netns,
  };
  // The address is on its way to the datastore while the kernel makes the interfaces, which do not depend on it.
  const assigning = node.addresses.assign(request, pod);
  try {
    await node.interfaces.createLink(link);
  } catch (error) {
    await Promise.allSettled([assigning]);
    await undo(request, node, hostInterface);
    throw new CniError("interface-failed", messageOf(error), "", error);
  }
  let assigned: Assigned;
  try {
    assigned = await assigning;
  } catch (error) {
    await undo(request, node, hostInterface);
    throw error instanceof CniError ? error : new CniError("address-unavailable", messageOf(error), "", error);
  }
  const { workload, containerId, config } = request;
  const endpoint: Endpoint = {
    containerId,
    ...(workload.orchestrator === "k8s" ? { namespace: workload.namespace, pod: workload.pod } : {}),
    ...(pod === undefined ? {} : { podUid: pod.uid }),
    podInterface: link.podInterface,
    hostInterface,
    mac: link.mac,
    mtu: link.mtu,
    addresses: assigned.addresses,
    netns: link.netns,
    network: config.name,
  };
  try {
    node.interfaces.configure(endpoint, {
      allowIpForwarding: config.allowIpForwarding,
      includeDefaultRoutes: config.includeDefaultRoutes,
      routes: assigned.routes,
    });
    await node.endpoints.add(endpoint);
  } catch (error) {
    await undo(request, node, hostInterface);
    throw new CniError("interface-failed", messageOf(error), "", error);
  }
  return {
    hostInterface: { name: hostInterface, mac: HOST_MAC },
    podInterface: { name: link.podInterface, mac: link.mac, mtu: link.mtu, netns: link.netns },
    addresses: assigned.addresses.map(hostPrefix),
    routes: resultRoutes(assigned),
  };
}

/** Takes back what a failed ADD has made. What cannot be taken back now, the runtime's DEL or the garbage collection does. */
async function undo(request: CniRequest, node: CniNode, hostInterface: string): Promise<void> {
  await Promise.allSettled([node.interfaces.removeLink(hostInterface), node.addresses.release(request)]);
}

/**
 * Whoever stands where the new endpoint will: this container, added twice, whose addresses go back first; or an earlier
 * container of the same pod name, whose own DEL will come for its address, while its interface has to go now.
 */
async function removeForerunners(request: CniRequest, node: CniNode, hostInterface: string): Promise<void> {
  const same = node.endpoints.find(request.containerId, request.interfaceName);
  if (same !== undefined) {
    await detach(same, node);
    await node.addresses.release(request);
  }
  const forerunner = node.endpoints.findByHostInterface(hostInterface);
  if (forerunner !== undefined) await detach(forerunner, node);
}

async function detach(endpoint: Endpoint, node: CniNode): Promise<void> {
  await node.interfaces.removeLink(endpoint.hostInterface);
  await node.endpoints.remove(endpoint);
}

async function podOf(request: CniRequest, node: CniNode): Promise<PodFacts | undefined> {
  const { workload } = request;
  if (workload.orchestrator === "cni") return undefined;
  const facts = await node.podFacts(workload.namespace, workload.pod, workload.uid);
  if (facts !== undefined) return facts;
  throw new CniError("try-again-later", `pod ${workload.namespace}/${workload.pod} is not in the datastore`);
}

/** The annotation `cni.projectcalico.org/hwAddr`: a MAC that the pod's owner chose. */
function macOf(pod: PodFacts | undefined): string | undefined {
  const text = pod?.annotations["cni.projectcalico.org/hwAddr"];
  if (text === undefined) return undefined;
  const octets = text.toLowerCase().split(":");
  const isMac = octets.length === 6 && octets.every((octet) => /^[0-9a-f]{2}$/.test(octet));
  // Bit 0 of the first octet marks a group address, which no interface may have.
  if (isMac && Number.parseInt(octets[0]!, 16) % 2 === 0) return octets.join(":");
  throw new CniError(
    "invalid-config",
    `annotation cni.projectcalico.org/hwAddr: "${text}" is not a unicast MAC address`,
  );
}

function resultRoutes(assigned: Assigned): PodRoute[] {
  if (assigned.routes.length > 0) return [...assigned.routes];
  return familiesOf(assigned.addresses).map((family) => ({
    destination: DEFAULT_ROUTE[family],
    gateway: family === 4 ? GATEWAY_V4 : GATEWAY_V6,
  }));
}

/**
 * Succeeds also where nothing is left to delete, and with an empty CNI_NETNS: runtimes call DEL twice. The interface is
 * taken only if it is still this container's: a newer pod of the same name may have it by now.
 */
async function del(request: CniRequest, node: CniNode, interfacePrefix: string): Promise<void> {
  const endpoint = node.endpoints.find(request.containerId, request.interfaceName);
  const hostInterface = hostInterfaceOf(request, interfacePrefix);
  const owner = node.endpoints.findByHostInterface(endpoint?.hostInterface ?? hostInterface);
  const isOurs = owner === undefined || owner.containerId === request.containerId;
  await Promise.all([
    node.addresses.release(request),
    isOurs ? node.interfaces.removeLink(endpoint?.hostInterface ?? hostInterface) : Promise.resolve(),
  ]);
  // Last: until then a crash leaves the endpoint known, and the runtime's next DEL finds it.
  if (endpoint !== undefined) await node.endpoints.remove(endpoint);
}

function check(request: CniRequest, node: CniNode): void {
  const endpoint = node.endpoints.find(request.containerId, request.interfaceName);
  if (endpoint === undefined) {
    throw new CniError(
      "unknown-container",
      `container ${request.containerId} has no interface ${request.interfaceName} from this plugin`,
    );
  }
  if (request.config.prevResult === undefined) {
    throw new CniError("invalid-config", "CHECK needs the result of ADD as prevResult");
  }
  const expected = new Set(endpoint.addresses.map((address) => formatPrefix(hostPrefix(address))));
  const strangers = addressesOf(request.config.prevResult).filter((text) => !expected.has(text));
  const differences = [
    ...strangers.map((text) => `prevResult has ${text}, which this endpoint has not`),
    ...node.interfaces.differences({ ...endpoint, netns: request.netns }),
  ];
  if (differences.length > 0) {
    throw new CniError(
      "endpoint-mismatch",
      `the network of container ${request.containerId} is not as ADD left it`,
      differences.join("; "),
    );
  }
}

/** `ips` of a result that belong to our interface pair; other plugins of the chain may have added their own. */
function addressesOf(prevResult: Readonly<Record<string, unknown>>): string[] {
  const ips = prevResult["ips"];
  if (!Array.isArray(ips)) return [];
  return ips.flatMap((ip: unknown) => {
    if (typeof ip !== "object" || ip === null || !("address" in ip) || typeof ip.address !== "string") return [];
    return [ip.address];
  });
}

/** GC: every attachment of this network that the runtime does not know any more goes, with its address. */
async function collectGarbage(request: CniRequest, node: CniNode): Promise<void> {
  const { validAttachments, name } = request.config;
  if (validAttachments === undefined) {
    throw new CniError("invalid-config", 'GC needs the list "cni.dev/valid-attachments"');
  }
  const alive = new Set(validAttachments.map(({ containerId, interfaceName }) => `${containerId}/${interfaceName}`));
  const stale = node.endpoints
    .list()
    .filter((endpoint) => endpoint.network === name && !alive.has(`${endpoint.containerId}/${endpoint.podInterface}`));
  for (const endpoint of stale) await detach(endpoint, node);
  await node.addresses.releaseOthers(name, new Set(validAttachments.map(({ containerId }) => containerId)));
}
