/** Which host endpoint stands for which interface of a node. */
import type { Endpoint, HostInterface } from "./model.ts";

export const EVERY_INTERFACE = "*";

/**
 * The host endpoints of one node by the interface that they stand for; `*` for all interfaces that have none of their
 * own. An endpoint that names its interface comes before one that only knows an address of it; of several the first by
 * name counts.
 */
export function hostEndpointsByInterface(
  endpoints: readonly Endpoint[],
  interfaces: readonly HostInterface[],
): Map<string, Endpoint> {
  const byInterface = new Map<string, Endpoint>();
  const sorted = endpoints.toSorted((a, b) => (a.id < b.id ? -1 : 1));
  for (const endpoint of sorted) {
    const { interfaceName } = endpoint;
    if (interfaceName !== undefined && !byInterface.has(interfaceName)) byInterface.set(interfaceName, endpoint);
  }
  for (const endpoint of sorted) {
    if (endpoint.interfaceName !== undefined) continue;
    for (const { name, addresses } of interfaces) {
      if (!byInterface.has(name) && endpoint.nets.some((net) => addresses.includes(net))) {
        byInterface.set(name, endpoint);
      }
    }
  }
  return byInterface;
}
