import type { Link } from "../netlink/link.ts";
import { IPIP_DEVICE } from "./ipip.ts";
import type { MtuLink } from "./mtu.ts";
import { VXLAN_DEVICE } from "./vxlan.ts";

/** What the tunnels' devices need to know of the node's other links. */

/** Kinds of links that no packet from another node comes by first: it comes by what lies below them. */
const TUNNEL_KINDS: ReadonlySet<string> = new Set(["vxlan", "ipip", "tun", "wireguard", "gre", "sit", "geneve"]);

/**
 * Links by which IPIP from other nodes may come: all that carry Ethernet and are neither pods' nor tunnels. Of the parts
 * of a bridge or a bond the whole counts. A node may have several that lead to others, and its routes may change.
 */
export function ipipUnderlays(links: readonly Link[], isWorkloadInterface: (name: string) => boolean): number[] {
  return links
    .filter(
      ({ name, loopback, kind, address, master, up }) =>
        up &&
        !loopback &&
        address !== "" &&
        master === undefined &&
        !TUNNEL_KINDS.has(kind ?? "") &&
        !isWorkloadInterface(name),
    )
    .map(({ index }) => index);
}

/** Bytes that the settings name for a tunnel's device; 0: worked out. */
export function givenMtus(settings: {
  readonly ipipMTU: number;
  readonly vxlanMTU: number;
  readonly vxlanMTUV6: number;
}): { readonly ipip: number; readonly vxlan: number; readonly vxlanV6: number } {
  return { ipip: settings.ipipMTU, vxlan: settings.vxlanMTU, vxlanV6: settings.vxlanMTUV6 };
}

/** The links by which the host's MTU is measured: our own tunnels do not count, whatever the pattern says. */
export function mtuLinks(links: readonly Link[]): MtuLink[] {
  const ours: ReadonlySet<string> = new Set([IPIP_DEVICE, ...Object.values(VXLAN_DEVICE)]);
  return links
    .filter(({ name }) => !ours.has(name))
    .map(({ name, mtu, operState }) => ({ name, mtu, up: operState === "up" || operState === "unknown" }));
}

/** What is to be done about checksums that are left to the device: see `checksumOffload`. */
export type OffloadChoice = "off" | "on" | "test";

/**
 * Kernels up to 5.7 spoil the inner checksum of packets that are translated on their way into a VXLAN; others may have
 * network cards that do. Felix's `featureDetectOverride` has the last word (`ChecksumOffloadBroken=true`); of what
 * nobody knows it is tried out.
 */
export function checksumOffload(featureDetectOverride: string, kernelRelease: string): OffloadChoice {
  const override = featureDetectOverride
    .split(",")
    .map((item) => item.split("=").map((part) => part.trim()))
    .find(([name]) => name === "ChecksumOffloadBroken")?.[1];
  if (override === "true") return "off";
  if (override === "false") return "on";
  const [major = 0, minor = 0] = kernelRelease.split(/[.-]/).map(Number);
  return major < 5 || (major === 5 && minor <= 7) ? "off" : "test";
}
