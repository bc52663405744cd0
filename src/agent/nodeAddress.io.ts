import { detectAddress, type DetectInput, type DetectLink } from "../dataplane/autodetect.ts";
import { resolveNextHop } from "../dataplane/routes.ts";
import { sameAddress, type Address, type Family } from "../ip/address.ts";
import { parseAddress } from "../ip/address.ts";
import { hostPrefix, type InterfaceAddress } from "../ip/prefix.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import type { Node } from "../resources/node.ts";
import type { AddressChoice } from "./config.ts";

/** This node's address of one family, and the sentence that says why it is this one. */
export interface NodeAddress {
  readonly address: InterfaceAddress;
  readonly reason: string;
}

/** Carries out an `IP` or `IP6` setting. Undefined where the family is not used. Throws `AutodetectError`. */
export function findNodeAddress(
  choice: AddressChoice,
  family: Family,
  rtnetlink: Rtnetlink,
  node: Node,
): NodeAddress | undefined {
  if (choice.kind === "none") return undefined;
  const links = detectLinks(rtnetlink);
  if (choice.kind === "fixed") {
    const wanted = "length" in choice.address ? choice.address : undefined;
    if (wanted !== undefined) return { address: wanted, reason: "it is given by the environment" };
    const given = choice.address as Address;
    const present = links.flatMap(({ addresses }) => addresses).find(({ address }) => sameAddress(address, given));
    return { address: present ?? hostPrefix(given), reason: "it is given by the environment" };
  }
  const input: DetectInput = {
    family,
    links,
    sourceTowards: (destination) => sourceTowards(rtnetlink, destination),
    internalAddresses: (node.status?.addresses ?? [])
      .filter(({ type }) => type === "InternalIP")
      .map(({ address }) => parseAddress(address)),
  };
  const { address, reason } = detectAddress(choice.method, input);
  return { address, reason };
}

function detectLinks(rtnetlink: Rtnetlink): DetectLink[] {
  const addresses = rtnetlink.addresses();
  return rtnetlink.links().map(({ index, name, up }) => ({
    name,
    up,
    addresses: addresses.filter(({ device }) => device === index).map(({ address }) => address),
  }));
}

/** The address that the kernel would send from: the route's own source, or the first of the link that it leads to. */
function sourceTowards(rtnetlink: Rtnetlink, destination: Address): Address | undefined {
  const hop = resolveNextHop(destination, rtnetlink.routes({ family: destination.family }));
  if (hop === undefined) return undefined;
  return rtnetlink
    .addresses()
    .find(({ device, address }) => device === hop.device && address.address.family === destination.family)?.address
    .address;
}
