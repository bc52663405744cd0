import { isHostPrefix } from "../ip/prefix.ts";
import { addressBits, sameAddress, type Address } from "../ip/address.ts";
import type { LinkAddress } from "../netlink/addr.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { mustBeMadeAnew, planEntries, VXLAN_DEVICE, type VxlanWish } from "./vxlan.ts";

/**
 * Makes this node's end of a VXLAN as it is wanted, and changes only what differs. Returns the index of the device, and
 * whether it was made now. Throws `Failure` where the kernel refuses.
 */
export function applyVxlan(rtnetlink: Rtnetlink, wish: VxlanWish): { readonly device: number; readonly made: boolean } {
  const name = VXLAN_DEVICE[wish.family];
  let link = rtnetlink.link(name);
  if (link !== undefined && mustBeMadeAnew(link, wish)) {
    rtnetlink.deleteLink(link.index);
    link = undefined;
  }
  const made = link === undefined;
  link ??= rtnetlink.addLink({
    kind: "vxlan",
    name,
    address: wish.mac,
    mtu: wish.mtu,
    vxlan: { id: wish.id, port: wish.port, local: wish.local, device: wish.underlay, learning: false },
  });
  const { index: device } = link;
  // Before the device is up: a device that comes up without its address has its routes written twice.
  setOnlyAddress(rtnetlink, device, wish.address);
  if (link.mtu !== wish.mtu) rtnetlink.setLink(device, { mtu: wish.mtu });
  if (link.address !== wish.mac) rtnetlink.setLink(device, { address: wish.mac });
  if (!link.up) rtnetlink.setLink(device, { up: true });
  const changes = planEntries(device, wish.peers, rtnetlink.neighbours(), rtnetlink.forwarding());
  for (const entry of changes.forwarding) rtnetlink.replaceForwarding(entry);
  for (const entry of changes.neighbours) rtnetlink.replaceNeighbour(entry);
  for (const entry of changes.staleNeighbours) rtnetlink.deleteNeighbour(entry);
  for (const entry of changes.staleForwarding) rtnetlink.deleteForwarding(entry);
  return { device, made };
}

/** Takes the device away; what is no VXLAN is not ours. Says whether it was there. */
export function removeVxlan(rtnetlink: Rtnetlink, family: VxlanWish["family"]): boolean {
  const link = rtnetlink.link(VXLAN_DEVICE[family]);
  return link?.kind === "vxlan" && rtnetlink.deleteLink(link.index);
}

/**
 * The device has this address of the address's family, as a network of its own, and no other; link-local addresses are
 * the kernel's. Without one it has none.
 */
export function setOnlyAddress(
  rtnetlink: Pick<Rtnetlink, "addresses" | "addAddress" | "deleteAddress">,
  device: number,
  wanted: Address | undefined,
  family = wanted?.family ?? 4,
): void {
  const present = rtnetlink
    .addresses()
    .filter((item) => item.device === device && item.address.address.family === family && !isLinkLocal(item));
  const isRight = ({ address }: LinkAddress): boolean =>
    wanted !== undefined && isHostPrefix(address) && sameAddress(address.address, wanted);
  if (wanted !== undefined && !present.some(isRight)) {
    const address = { address: wanted, length: addressBits(family) };
    rtnetlink.addAddress({ device, address, noDuplicateDetection: family === 6 });
  }
  for (const item of present) if (!isRight(item)) rtnetlink.deleteAddress({ device, address: item.address });
}

const isLinkLocal = ({ address }: LinkAddress): boolean =>
  address.address.family === 6 && address.address.value >> 118n === 0x3fan; // fe80::/10
