/** What the addresses of tunnels are released by, and known by: the names are Calico's. */
import type { Family } from "../ip/address.ts";

export type TunnelKind = "ipip" | "vxlan" | "wireguard";

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
