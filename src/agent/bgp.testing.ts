import { bgpConfiguration, bgpPeer, type BGPConfiguration, type BGPPeer } from "../resources/bgp.ts";
import { bgpFilter, type BGPFilter } from "../resources/bgpFilter.ts";
import { ipPool, type IPPool } from "../resources/ippool.ts";
import { node, type Node } from "../resources/node.ts";
import { nodeNetworkPatch, type NodeNetwork } from "../resources/nodeNetwork.ts";
import { endpointSlice, service, type EndpointSlice, type Service } from "../resources/service.ts";
import type { ServiceRoutes } from "./serviceRoutes.ts";

export type { NodeNetwork };

/** Objects of the datastore, as short as can be: for tests of what BGP makes of them. */

const CALICO = { apiVersion: "projectcalico.org/v3" };

export function machine(name: string, network: NodeNetwork, labels: Record<string, string> = {}): Node {
  const { annotations } = nodeNetworkPatch(network).metadata;
  return node.parse({ apiVersion: "v1", kind: "Node", metadata: { name, labels, annotations } });
}

export const configuration = (name: string, spec: object, annotations = {}): BGPConfiguration =>
  bgpConfiguration.parse({ ...CALICO, kind: "BGPConfiguration", metadata: { name, annotations }, spec });

export const peer = (name: string, spec: object, annotations = {}): BGPPeer =>
  bgpPeer.parse({ ...CALICO, kind: "BGPPeer", metadata: { name, annotations }, spec });

export const filter = (name: string, spec: object): BGPFilter =>
  bgpFilter.parse({ ...CALICO, kind: "BGPFilter", metadata: { name }, spec });

export const pool = (cidr: string, spec: object = {}): IPPool =>
  ipPool.parse({
    ...CALICO,
    kind: "IPPool",
    metadata: { name: cidr.replaceAll(/[.:/]/g, "-") },
    spec: { cidr, ...spec },
  });

export const serviceOf = (name: string, spec: object, loadBalancer: readonly string[] = []): Service =>
  service.parse({
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "shop" },
    spec: { ports: [{ port: 80 }], ...spec },
    status: { loadBalancer: { ingress: loadBalancer.map((ip) => ({ ip })) } },
  });

export const sliceOf = (name: string, endpoints: readonly object[], addressType = "IPv4"): EndpointSlice =>
  endpointSlice.parse({
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name: `${name}-1`, namespace: "shop", labels: { "kubernetes.io/service-name": name } },
    addressType,
    endpoints,
    ports: [],
  });

export const NO_SERVICES: ServiceRoutes = { announced: [], ranges: [], external: [] };
