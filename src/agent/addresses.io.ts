import { CniError } from "../cni/error.ts";
import type { AddressHolder, AddressSource, Assigned, PodFacts } from "../cni/node.ts";
import { parseConfigRoutes, type CniRequest } from "../cni/request.ts";
import { parseInterfaceAddress } from "../ip/prefix.ts";
import type { Allocator, AssignRequest } from "../ipam/allocator.ts";
import { addressWishes } from "../ipam/wishes.ts";
import { messageOf } from "../lib/errors.ts";
import { callDelegate } from "./delegate.io.ts";

/**
 * Pods' addresses, from our own IPAM, or from the `host-local` plugin where the network configuration says so.
 * `podCidrs` are the node's own ranges, for `usePodCidr`.
 */
export function createAddressSource(allocator: Allocator, podCidrs: () => readonly string[]): AddressSource {
  return {
    async assign(request, pod) {
      if (request.config.ipamType === "host-local") return delegateAdd(request, podCidrs());
      const assignments = await allocator.assign(assignRequest(request, pod));
      return { addresses: assignments.map(({ address }) => address), routes: [] };
    },
    async release(request) {
      if (request.config.ipamType === "host-local") {
        await callDelegate(request, "DEL", delegateConfig(request, podCidrs()));
        return;
      }
      await allocator.release(handlesOf(request));
    },
    async releaseOthers(network, living) {
      const kept = new Set(living.map(handleOf));
      const stale = allocator
        .allocations()
        .flatMap(({ holder }) => (holder.handle === null ? [] : [holder.handle]))
        .filter((handle) => handle.startsWith(`${network}.`) && !kept.has(handle));
      return stale.length === 0 ? 0 : (await allocator.release([...new Set(stale)])).length;
    },
  };
}

function handleOf({ network, containerId }: AddressHolder): string {
  return `${network}.${containerId}`;
}

const holderOf = ({ config, containerId }: CniRequest): AddressHolder => ({ network: config.name, containerId });

/** Also the handle of older releases of Calico, which had no container in it. */
function handlesOf(request: CniRequest): string[] {
  const { workload } = request;
  return workload.orchestrator === "k8s"
    ? [handleOf(holderOf(request)), `${workload.namespace}.${workload.pod}`]
    : [handleOf(holderOf(request))];
}

function assignRequest(request: CniRequest, pod: PodFacts | undefined): AssignRequest {
  const { workload, config } = request;
  return {
    ...addressWishes(pod?.annotations ?? {}, pod?.namespaceAnnotations ?? {}, config),
    handle: handleOf(holderOf(request)),
    attributes: workload.orchestrator === "k8s" ? { namespace: workload.namespace, pod: workload.pod } : {},
    ...(pod === undefined ? {} : { namespaceLabels: pod.namespaceLabels }),
  };
}

/** The configuration for the delegate: Calico's `usePodCidr` becomes the node's own range. */
function delegateConfig({ config }: CniRequest, podCidrs: readonly string[]): Record<string, unknown> {
  const subnetOf = (value: unknown, family: 4 | 6): unknown => {
    if (value !== "usePodCidr" && value !== "usePodCidrIPv6") return value;
    const found = podCidrs.find((cidr) => cidr.includes(":") === (family === 6));
    if (found === undefined)
      throw new CniError(
        "try-again-later",
        `the node has no IPv${family} podCIDR, which ipam.subnet "${value}" asks for`,
      );
    return found;
  };
  const ipam: Record<string, unknown> = { ...config.ipam };
  if (ipam["subnet"] !== undefined)
    ipam["subnet"] = subnetOf(ipam["subnet"], ipam["subnet"] === "usePodCidrIPv6" ? 6 : 4);
  if (Array.isArray(ipam["ranges"])) {
    ipam["ranges"] = ipam["ranges"].map((set: unknown) =>
      Array.isArray(set)
        ? set.map((range: Record<string, unknown>) => ({
            ...range,
            subnet: subnetOf(range["subnet"], range["subnet"] === "usePodCidrIPv6" ? 6 : 4),
          }))
        : set,
    );
  }
  return { cniVersion: config.cniVersion, name: config.name, type: config.raw["type"], ipam };
}

async function delegateAdd(request: CniRequest, podCidrs: readonly string[]): Promise<Assigned> {
  const text = await callDelegate(request, "ADD", delegateConfig(request, podCidrs));
  try {
    const { ips, routes } = JSON.parse(text) as { ips: { address: string }[]; routes?: unknown };
    return {
      // The pod has just this address: its neighbours are reached by the node.
      addresses: ips.map(({ address }) => parseInterfaceAddress(address).address),
      routes: parseConfigRoutes(routes, "routes of host-local's result"),
    };
  } catch (error) {
    throw new CniError(
      "address-unavailable",
      `the IPAM plugin host-local gave no usable result: ${messageOf(error)}`,
      text,
      error,
    );
  }
}
