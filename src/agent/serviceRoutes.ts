import { parseAddress, type Family } from "../ip/address.ts";
import { formatPrefix, hostPrefix, isHostPrefix, parsePrefix, prefixContains, type Prefix } from "../ip/prefix.ts";
import type { BGPConfiguration } from "../resources/bgp.ts";
import type { EndpointSlice, Service } from "../resources/service.ts";

/** Which addresses of services this node announces: the rules of confd's route generator. */

export interface ServiceInput {
  readonly nodeName: string;
  /** This node's labels. */
  readonly labels: Readonly<Record<string, string>>;
  /** The BGPConfiguration `default`: a node's own has no say here. */
  readonly configuration: BGPConfiguration["spec"] | undefined;
  readonly services: readonly Service[];
  readonly slices: readonly EndpointSlice[];
}

export interface ServiceRoutes {
  /** Ranges as a whole, and single addresses. */
  readonly announced: readonly Prefix[];
  /** All ranges that are configured: what others say of them is not for this node's kernel, where kube-proxy answers. */
  readonly ranges: readonly Prefix[];
  /** Ranges of addresses from outside, which a route reflector passes on. */
  readonly external: readonly Prefix[];
}

/** On a Node: its services are not announced. */
const EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers";
const SERVICE_NAME_LABEL = "kubernetes.io/service-name";

/** Whether services are announced at all: they need not be looked at otherwise. */
export function announcesServices(configuration: BGPConfiguration["spec"] | undefined): boolean {
  const { serviceClusterIPs = [], serviceExternalIPs = [], serviceLoadBalancerIPs = [] } = configuration ?? {};
  return serviceClusterIPs.length + serviceExternalIPs.length + serviceLoadBalancerIPs.length > 0;
}

export function serviceRoutes({ nodeName, labels, configuration, services, slices }: ServiceInput): ServiceRoutes {
  const of = (list: readonly { cidr: string }[] | undefined): Prefix[] =>
    (list ?? []).map(({ cidr }) => parsePrefix(cidr));
  const cluster = of(configuration?.serviceClusterIPs);
  const external = of(configuration?.serviceExternalIPs);
  const loadBalancer = of(configuration?.serviceLoadBalancerIPs);
  const ranges = [...cluster, ...external, ...loadBalancer];
  if (labels[EXCLUDE_LABEL] === "true" || ranges.length === 0) {
    return { announced: [], ranges, external: [...external, ...loadBalancer] };
  }
  const aggregated = configuration?.serviceLoadBalancerAggregation !== "Disabled";
  const announced = new Map<string, Prefix>();
  const announce = (prefix: Prefix): void => void announced.set(formatPrefix(prefix), prefix);
  // A range of one address is its service's own: it would be announced by nodes that have no endpoint of it.
  for (const range of cluster) announce(range);
  for (const range of external) if (!isHostPrefix(range)) announce(range);
  if (aggregated) for (const range of loadBalancer) if (!isHostPrefix(range)) announce(range);

  const here = localEndpoints(nodeName, slices);
  for (const service of services) {
    const { type, clusterIP, clusterIPs = [], externalIPs = [], externalTrafficPolicy } = service.spec;
    if (type === "ExternalName" || clusterIP === undefined || clusterIP === "" || clusterIP === "None") continue;
    const ingress = (service.status?.loadBalancer?.ingress ?? []).flatMap(({ ip }) => (ip === undefined ? [] : [ip]));
    if (externalTrafficPolicy === "Local") {
      const families = here.get(`${service.metadata.namespace ?? "default"}/${service.metadata.name}`);
      if (families === undefined) continue;
      for (const [addresses, allowed] of [
        [new Set([clusterIP, ...clusterIPs]), cluster],
        [externalIPs, external],
        [ingress, loadBalancer],
      ] as const) {
        for (const prefix of hostsWithin(addresses, allowed)) if (families.has(prefix.address.family)) announce(prefix);
      }
      continue;
    }
    // Every node takes what is for the whole cluster; what no range stands for is announced by itself.
    for (const prefix of hostsWithin(externalIPs, external.filter(isHostPrefix))) announce(prefix);
    const alone = aggregated ? loadBalancer.filter(isHostPrefix) : loadBalancer;
    if (type === "LoadBalancer") for (const prefix of hostsWithin(ingress, alone)) announce(prefix);
  }
  return { announced: [...announced.values()], ranges, external: [...external, ...loadBalancer] };
}

function hostsWithin(addresses: Iterable<string>, ranges: readonly Prefix[]): Prefix[] {
  if (ranges.length === 0) return [];
  return [...addresses].flatMap((text) => {
    const address = parseAddress(text);
    return ranges.some((range) => prefixContains(range, address)) ? [hostPrefix(address)] : [];
  });
}

/** Services with a ready endpoint on the node, and in which families. */
function localEndpoints(nodeName: string, slices: readonly EndpointSlice[]): Map<string, Set<Family>> {
  const found = new Map<string, Set<Family>>();
  for (const { metadata, addressType, endpoints } of slices) {
    const service = metadata.labels?.[SERVICE_NAME_LABEL];
    if (service === undefined || addressType === "FQDN") continue;
    // Absent means ready.
    if (!endpoints.some((each) => each.nodeName === nodeName && each.conditions?.ready !== false)) continue;
    const key = `${metadata.namespace ?? "default"}/${service}`;
    const families = found.get(key) ?? new Set();
    families.add(addressType === "IPv4" ? 4 : 6);
    found.set(key, families);
  }
  return found;
}
