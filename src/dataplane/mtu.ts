/** How large a pod's packets may be: the node's own MTU, less what the enabled tunnels put around a packet. */

/** Bytes that each encapsulation adds to a packet. */
export const OVERHEAD = { ipip: 20, vxlan: 50, vxlanV6: 70, wireguard: 60, wireguardV6: 80 } as const;
export type Encapsulation = keyof typeof OVERHEAD;

/** Felix's default `mtuIfacePattern`. */
export const MTU_INTERFACE_PATTERN = "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)";

/** Where no interface matches, the smallest that the large clouds give. Bytes. */
const FALLBACK_MTU = 1460;

export interface MtuLink {
  readonly name: string;
  readonly mtu: number;
  /** Operational state up, as `ip link` shows it. */
  readonly up: boolean;
}

/** The smallest MTU of the links that are up and match the pattern; 1460 where none does. */
export function hostMtu(links: readonly MtuLink[], pattern = MTU_INTERFACE_PATTERN): number {
  const expression = new RegExp(pattern);
  const candidates = links.filter((link) => link.up && expression.test(link.name)).map((link) => link.mtu);
  return candidates.length === 0 ? FALLBACK_MTU : Math.min(...candidates);
}

/** The MTU of a tunnel's device: as it is given, or the host's less what the tunnel puts around a packet. */
export function tunnelMtu(encapsulation: Encapsulation, host: number, given = 0): number {
  return given > 0 ? given : host - OVERHEAD[encapsulation];
}

/** The MTU of pods: it must fit through every tunnel that is enabled. `given` are those that a setting names, or 0. */
export function podMtu(
  host: number,
  enabled: readonly Encapsulation[],
  given: { readonly [E in Encapsulation]?: number } = {},
): number {
  return Math.min(host, ...enabled.map((encapsulation) => tunnelMtu(encapsulation, host, given[encapsulation])));
}
