import { writeFileSync } from "node:fs";
import { hostMtu, podMtu, type Encapsulation } from "../dataplane/mtu.ts";
import { givenMtus, mtuLinks } from "../dataplane/tunnelDevices.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import type { FelixSettings } from "../resources/config.ts";
import type { IPPool } from "../resources/ippool.ts";

/** How large this node's pods' packets may be: worked out when it is asked for, and kept until something changes. */
export interface PodMtu {
  current(): number;
  /** Links of the node, pools, settings or flannel have changed. */
  changed(): void;
}

export interface PodMtuOptions {
  readonly rtnetlink: Pick<Rtnetlink, "links">;
  readonly settings: () => FelixSettings;
  readonly pools: () => readonly IPPool[];
  /** Flannel's, where it carries the packets. */
  readonly flannelMtu: () => number | undefined;
  /** Rewritten with each new value, for configurations that have runtimes or other plugins read it, as Calico's do. */
  readonly file: string;
}

export function createPodMtu({ rtnetlink, settings, pools, flannelMtu, file }: PodMtuOptions): PodMtu {
  let known: number | undefined;
  return {
    current() {
      if (known !== undefined) return known;
      const host = hostMtu(mtuLinks(rtnetlink.links()), settings().mtuIfacePattern);
      known = Math.min(flannelMtu() ?? host, podMtu(host, encapsulations(pools()), givenMtus(settings())));
      writeFileSync(file, `${known}\n`);
      return known;
    },
    changed() {
      known = undefined;
    },
  };
}

/** The tunnels that pods' packets may have to fit through. */
function encapsulations(pools: readonly IPPool[]): Encapsulation[] {
  const enabled = new Set<Encapsulation>();
  for (const { spec } of pools) {
    if (spec.ipipMode !== "Never") enabled.add("ipip");
    if (spec.vxlanMode !== "Never") enabled.add(spec.cidr.includes(":") ? "vxlanV6" : "vxlan");
  }
  return [...enabled];
}
