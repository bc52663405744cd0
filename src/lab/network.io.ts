import { formatAddress, type Address } from "../ip/address.ts";
import { parsePrefix, type InterfaceAddress } from "../ip/prefix.ts";
import { createNamespace, deleteNamespace, inNamespace } from "../netlink/namespace.io.ts";
import { openRtnetlink, type Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { writeSysctl } from "../netlink/sysctl.io.ts";
import type { LabDefinition, Member, Segment } from "./definition.ts";
import { memberNamespace, namespacePrefix } from "./files.ts";
import { namespacesWithPrefix } from "./process.io.ts";

/** The wires of a lab: a namespace for the router, with a bridge per segment, and one for each node and host. */

/** Name of the router among the lab's members. */
export const ROUTER = "router";

/** Interface of every node and host. */
const INTERFACE = "eth0";

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
      for (const member of segment.members) addMember(lab, fabric, bridge, segment, member, definition.mtu);
    }
  } finally {
    fabric.close();
  }
}

export function removeNetwork(lab: string): void {
  for (const path of namespacesWithPrefix(namespacePrefix(lab))) deleteNamespace(path);
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
  fabric.addAddress({ device: bridge.index, address: { address: segment.router, length: segment.subnet.length } });
  if (segment.router6 !== undefined && segment.subnet6 !== undefined) {
    const address = { address: segment.router6, length: segment.subnet6.length };
    fabric.addAddress({ device: bridge.index, address, noDuplicateDetection: true });
  }
  return bridge.index;
}

function addMember(
  lab: string,
  fabric: Rtnetlink,
  bridge: number,
  segment: Segment,
  member: Member,
  mtu: number,
): void {
  const namespace = memberNamespace(lab, member.name);
  createNamespace(namespace, { loopback: true });
  // Named by the member, so that the router's `ip link` reads well; the kernel takes 15 characters.
  const port =
    member.name.length <= 15 && member.name !== "lo"
      ? member.name
      : `m-${formatAddress(member.address.address).split(".").slice(2).join("-")}`;
  const link = fabric.addLink({
    kind: "veth",
    name: port,
    mtu,
    master: bridge,
    peer: { name: INTERFACE, mtu, namespace },
  });
  fabric.setLink(link.index, { up: true });
  const own = openRtnetlink(namespace);
  try {
    // No duplicate can be there, and nobody waits for the kernel to look for one.
    inNamespace(namespace, () => writeSysctl(`ipv6/conf/${INTERFACE}/accept_dad`, 0));
    const device = own.link(INTERFACE)!.index;
    own.setLink(device, { up: true });
    attach(own, device, member.address, segment.router, "0.0.0.0/0");
    if (member.address6 !== undefined && segment.router6 !== undefined)
      attach(own, device, member.address6, segment.router6, "::/0");
  } finally {
    own.close();
  }
}

function attach(own: Rtnetlink, device: number, address: InterfaceAddress, gateway: Address, everything: string): void {
  own.addAddress({ device, address, noDuplicateDetection: address.address.family === 6 });
  own.addRoute({ destination: parsePrefix(everything), nextHops: [{ device, gateway }] });
}
