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

/** The MTU of pods: it must fit through every tunnel that is enabled. */
export function podMtu(host: number, enabled: readonly Encapsulation[]): number {
  return Math.min(host, ...enabled.map((encapsulation) => host - OVERHEAD[encapsulation]));
}
