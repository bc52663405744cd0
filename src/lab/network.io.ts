import { formatAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { removePins } from "../netlink/bpfPins.io.ts";
import { createNamespace, deleteNamespace, inNamespace } from "../netlink/namespace.io.ts";
import { openRtnetlink, type Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { writeSysctl } from "../netlink/sysctl.io.ts";
import type { LabDefinition, Member, Segment } from "./definition.ts";
import { memberNamespace, namespacePrefix } from "./files.ts";
import { namespacesWithPrefix } from "./process.io.ts";

/** The wires of a lab: a namespace for the router, with a bridge per segment, and one for each node and host. */

/** Name of the router among the lab's members. */
export const ROUTER = "router";

/** Builds all of it. What fails leaves the lab half built: `removeNetwork` takes away whatever is there. */
export function buildNetwork(lab: string, definition: LabDefinition): void {
  const router = memberNamespace(lab, ROUTER);
  createNamespace(router, { loopback: true });
  inNamespace(router, () => {
    writeSysctl("ipv4/ip_forward", 1);
    writeSysctl("ipv6/conf/all/forwarding", 1);
    letBridgesBridge();
  });
  const fabric = openRtnetlink(router);
  try {
    for (const [index, segment] of definition.segments.entries()) {
      const bridge = addBridge(fabric, `seg${index + 1}`, segment, definition.mtu);
      for (const member of segment.members) {
        const places = definition.segments.filter(({ members }) => members.some(({ name }) => name === member.name));
        addMember({ lab, fabric, bridge, segment, member, isRouter: places.length > 1, mtu: definition.mtu });
      }
    }
  } finally {
    fabric.close();
  }
}

export function removeNetwork(lab: string): void {
  for (const path of namespacesWithPrefix(namespacePrefix(lab))) {
    removePins(path);
    deleteNamespace(path);
  }
}

/** Frames between members of a segment are not the router's business: its firewall hooks stay out of the bridge. */
function letBridgesBridge(): void {
  for (const name of ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"]) {
    try {
      writeSysctl(`bridge/${name}`, 0);
    } catch {
      // A kernel without br_netfilter has nothing to switch off.
    }
  }
}

function addBridge(fabric: Rtnetlink, name: string, segment: Segment, mtu: number): number {
  const bridge = fabric.addLink({ kind: "bridge", name, mtu, up: true, bridge: { multicastSnooping: false } });
  // Once it was changed it no longer follows the smallest of its ports, as no switch does.
  for (const each of [mtu - 1, mtu]) fabric.setLink(bridge.index, { mtu: each });
  if (segment.router !== undefined && segment.subnet !== undefined) {
    fabric.addAddress({ device: bridge.index, address: { address: segment.router, length: segment.subnet.length } });
  }
  if (segment.router6 !== undefined && segment.subnet6 !== undefined) {
    const address = { address: segment.router6, length: segment.subnet6.length };
    fabric.addAddress({ device: bridge.index, address, noDuplicateDetection: true });
  }
  return bridge.index;
}

interface Placed {
  readonly lab: string;
  readonly fabric: Rtnetlink;
  readonly bridge: number;
  readonly segment: Segment;
  readonly member: Member;
  /** It stands on several segments. */
  readonly isRouter: boolean;
  readonly mtu: number;
}

function addMember({ lab, fabric, bridge, segment, member, isRouter, mtu }: Placed): void {
  const namespace = memberNamespace(lab, member.name);
  const isFirst = member.interface === "eth0";
  if (isFirst) createNamespace(namespace, { loopback: true });
  const link = fabric.addLink({
    kind: "veth",
    name: portName(member),
    mtu,
    master: bridge,
    peer: { name: member.interface, mtu, namespace },
  });
  fabric.setLink(link.index, { up: true });
  const own = openRtnetlink(namespace);
  try {
    inNamespace(namespace, () => {
      // No duplicate can be there, and nobody waits for the kernel to look for one.
      writeSysctl(`ipv6/conf/${member.interface}/accept_dad`, 0);
      if (!isRouter) return;
      writeSysctl("ipv4/ip_forward", 1);
      writeSysctl("ipv6/conf/all/forwarding", 1);
    });
    const device = own.link(member.interface)!.index;
    own.setLink(device, { up: true });
    const { address, address6 } = member;
    for (const each of [address, address6]) {
      if (each === undefined) continue;
      own.addAddress({ device, address: each, noDuplicateDetection: each.address.family === 6 });
    }
    if (isRouter) return; // it is told the ways by its daemons
    // Without IPv4 of its own, a node with IPv4 pods has its default route by IPv6 (RFC 8950).
    const out = [
      { everything: "0.0.0.0/0", gateway: segment.gateway ?? segment.gateway6 },
      { everything: "::/0", gateway: segment.gateway6 },
    ];
    for (const { everything, gateway } of out) {
      if (gateway !== undefined)
        own.addRoute({ destination: parsePrefix(everything), nextHops: [{ device, gateway }] });
    }
  } finally {
    own.close();
  }
}

/** Named by the member, so that the router's `ip link` reads well; the kernel takes 15 characters. */
export function portName({ name, interface: device, address, address6 }: Member): string {
  const full = device === "eth0" ? name : `${name}-${device}`;
  if (full.length <= 15 && full !== "lo") return full;
  const where = address ?? address6;
  const text = where === undefined ? "" : formatAddress(where.address);
  return `m-${text.split(/[.:]/).slice(-3).join("-")}`.slice(0, 15);
}
