import type { Endpoint } from "../dataplane/endpoint.ts";
import { CniError } from "./error.ts";
import type { CniNode } from "./node.ts";
import type { CniRequest } from "./request.ts";
import type { InTurn } from "./turns.ts";

/**
 * Succeeds also where nothing is left to delete, and with an empty CNI_NETNS: runtimes call DEL twice. The interface is
 * taken only if it is still this container's: a newer pod of the same name may have it by now.
 */
export async function del(request: CniRequest, node: CniNode, usualName: string): Promise<void> {
  const endpoint = node.endpoints.find(request.containerId, request.interfaceName);
  // What follows a refused ADD of a second interface: all that there is belongs to the first.
  if (endpoint === undefined && otherAttachment(request, node) !== undefined) return;
  const hostInterface = endpoint?.hostInterface ?? usualName;
  const owner = node.endpoints.findByHostInterface(hostInterface);
  // Nobody's is what an ADD left that was never answered; but an agent that has just started does not know them all.
  const isOurs = owner === undefined ? node.notReady() === undefined : owner.containerId === request.containerId;
  await Promise.all([
    node.addresses.release(request),
    isOurs ? node.interfaces.removeLink(hostInterface) : Promise.resolve(),
  ]);
  // Last: until then a crash leaves the endpoint known, and the runtime's next DEL finds it.
  if (endpoint !== undefined) await node.endpoints.remove(endpoint);
}

/** GC: every attachment of this network that the runtime does not know any more goes, with its address. */
export async function collectGarbage(request: CniRequest, node: CniNode, inTurn: InTurn): Promise<void> {
  const { validAttachments, name } = request.config;
  if (validAttachments === undefined) {
    throw new CniError("invalid-config", 'GC needs the list "cni.dev/valid-attachments"');
  }
  const reason = node.notReady();
  if (reason !== undefined) throw new CniError("try-again-later", "this node does not know all its pods yet", reason);
  const alive = new Set(validAttachments.map(({ containerId, interfaceName }) => `${containerId}:${interfaceName}`));
  const stale = node.endpoints
    .list()
    .filter((endpoint) => endpoint.network === name && !alive.has(`${endpoint.containerId}:${endpoint.podInterface}`));
  for (const endpoint of stale) {
    await inTurn(endpoint.hostInterface, async () => {
      await node.addresses.release(deleteRequest(request, endpoint));
      await detach(endpoint, node);
    });
  }
  const valid = validAttachments.map(({ containerId }) => ({ network: name, containerId }));
  await node.addresses.releaseOthers(name, [...valid, ...node.endpoints.list()]);
}

/** The DEL that the runtime never sent. */
function deleteRequest(request: CniRequest, endpoint: Endpoint): CniRequest {
  const { containerId, podInterface, namespace, pod } = endpoint;
  const isPod = namespace !== undefined && pod !== undefined;
  return {
    ...request,
    command: "DEL",
    containerId,
    netns: "",
    interfaceName: podInterface,
    workload: isPod ? { orchestrator: "k8s", namespace, pod } : { orchestrator: "cni" },
    environment: {
      ...request.environment,
      CNI_COMMAND: "DEL",
      CNI_CONTAINERID: containerId,
      CNI_NETNS: "",
      CNI_IFNAME: podInterface,
    },
  };
}

export async function detach(endpoint: Endpoint, node: CniNode): Promise<void> {
  await node.interfaces.removeLink(endpoint.hostInterface);
  await node.endpoints.remove(endpoint);
}

/** What the container has under another interface name: two would want the same routes, to the same gateway. */
export function otherAttachment({ containerId, interfaceName }: CniRequest, node: CniNode): Endpoint | undefined {
  return node.endpoints
    .list()
    .find((endpoint) => endpoint.containerId === containerId && endpoint.podInterface !== interfaceName);
}
