import { createHash } from "node:crypto";
import { formatAddress, sameAddress, type Address, type Family } from "../ip/address.ts";
import type { Link } from "../netlink/link.ts";
import type { ForwardingEntry, ForwardingSpec, Neighbour, NeighbourSpec } from "../netlink/neigh.ts";

/** This node's end of a VXLAN (RFC 7348) as Calico has it: no learning, every other end entered by hand. */

/** Name of the device of each family. */
export const VXLAN_DEVICE: { readonly [F in Family]: string } = { 4: "vxlan.calico", 6: "vxlan-v6.calico" };

export interface VxlanWish {
  readonly family: Family;
  /** The network's number, 4096 where nobody says otherwise. */
  readonly id: number;
  /** UDP port, 4789 where nobody says otherwise. */
  readonly port: number;
  /** The node's own address, which outer packets come from. */
  readonly local: Address;
  /** Index of the link that has it. */
  readonly underlay: number;
  readonly mac: string;
  /** The device's address: this node's tunnel address. */
  readonly address: Address;
  readonly mtu: number;
  readonly peers: readonly VxlanPeer[];
}

export interface VxlanPeer {
  /** The tunnel address of another node, which routes to its blocks go by. */
  readonly address: Address;
  readonly mac: string;
  /** The node's own address, which outer packets go to. */
  readonly node: Address;
}

/**
 * The MAC of a node's end where the Node names none: 0x66 and the first five bytes of SHA-1 of the node's name (IPv6:
 * with "-v6" after it), so that every node knows every other's.
 */
export function vtepMac(nodeName: string, family: Family): string {
  const digest = createHash("sha1")
    .update(family === 4 ? nodeName : `${nodeName}-v6`)
    .digest();
  return ["66", ...[...digest.subarray(0, 5)].map((byte) => byte.toString(16).padStart(2, "0"))].join(":");
}

/** Whether the device must be made anew: these it cannot change while it lives. */
export function mustBeMadeAnew({ vxlan, kind }: Link, wish: VxlanWish): boolean {
  return (
    kind !== "vxlan" ||
    vxlan === undefined ||
    vxlan.id !== wish.id ||
    vxlan.port !== wish.port ||
    vxlan.device !== wish.underlay ||
    vxlan.learning === true ||
    vxlan.local === undefined ||
    !sameAddress(vxlan.local, wish.local)
  );
}

export interface EntryChanges {
  readonly neighbours: readonly NeighbourSpec[];
  readonly forwarding: readonly ForwardingSpec[];
  readonly staleNeighbours: readonly NeighbourSpec[];
  readonly staleForwarding: readonly ForwardingSpec[];
}

/**
 * What to write into the neighbour and forwarding tables of the device, and what to take out. Everything that is entered
 * by hand there is ours; what the kernel entered of itself is let be.
 */
export function planEntries(
  device: number,
  peers: readonly VxlanPeer[],
  neighbours: readonly Neighbour[],
  forwarding: readonly ForwardingEntry[],
): EntryChanges {
  const byAddress = new Map(peers.map((peer) => [formatAddress(peer.address), peer]));
  const byMac = new Map(peers.map((peer) => [peer.mac, peer]));
  const present = neighbours.filter((entry) => entry.device === device && entry.state === "permanent");
  const right = new Set(
    present.flatMap(({ address, linkAddress }) => {
      const text = formatAddress(address);
      return byAddress.get(text)?.mac === linkAddress ? [text] : [];
    }),
  );
  const entries = forwarding.filter((entry) => entry.device === device && entry.self === true);
  const isWanted = ({ linkAddress, destination }: ForwardingEntry): boolean => {
    const node = byMac.get(linkAddress)?.node;
    return node !== undefined && destination !== undefined && sameAddress(node, destination);
  };
  const forwarded = new Set(entries.filter(isWanted).map(({ linkAddress }) => linkAddress));
  return {
    neighbours: [...byAddress]
      .filter(([text]) => !right.has(text))
      .map(([, { address, mac }]) => ({ device, address, linkAddress: mac })),
    forwarding: [...byMac]
      .filter(([mac]) => !forwarded.has(mac))
      .map(([mac, { node }]) => ({ device, linkAddress: mac, destination: node, table: "self" })),
    staleNeighbours: present.filter(({ address }) => !byAddress.has(formatAddress(address))),
    staleForwarding: entries.flatMap((entry) => {
      const { linkAddress, destination } = entry;
      if (isWanted(entry) || destination === undefined) return [];
      // One of ours that leads elsewhere is replaced; what was appended beside the right one goes.
      if (byMac.has(linkAddress) && !forwarded.has(linkAddress)) return [];
      return [{ device, linkAddress, destination, table: "self" as const }];
    }),
  };
}
