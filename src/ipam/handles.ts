/** What addresses are released by: the names are Calico's. */
import type { Family } from "../ip/address.ts";

export type TunnelKind = "ipip" | "vxlan" | "wireguard";

/** Of the container of a pod; the network's name is the CNI configuration's. */
export function containerHandle(network: string, containerId: string): string {
  return `${network}.${containerId}`;
}

/** Of a pod, as versions before container ids gave it: released beside the container's. */
export function workloadHandle(namespace: string, pod: string): string {
  return `${namespace}.${pod}`;
}

export function tunnelHandle(kind: TunnelKind, family: Family, node: string): string {
  return `${kind}${family === 6 ? "-v6" : ""}-tunnel-addr-${node}`;
}

/** Value of the attribute `type` of a tunnel's address. */
export function tunnelType(kind: TunnelKind, family: Family): string {
  return `${kind}${family === 6 ? "V6" : ""}TunnelAddress`;
}

export function isTunnelType(type: string | undefined): boolean {
  return type?.endsWith("TunnelAddress") === true;
}
