import { detectAddress, type DetectInput, type DetectLink } from "../dataplane/autodetect.ts";
import { sourceTowards } from "../dataplane/routes.ts";
import type { Datastore } from "../datastore/datastore.ts";
import { parseAddress, sameAddress, type Address, type Family } from "../ip/address.ts";
import { formatPrefix, hostPrefix, type InterfaceAddress } from "../ip/prefix.ts";
import { TABLE_MAIN } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import type { Node } from "../resources/node.ts";
import { nodeNetworkPatch } from "../resources/nodeNetwork.ts";
import type { AddressChoice, AgentConfig } from "./config.ts";
import { ensureNode } from "./startup.io.ts";

/** This node's address of one family, and the sentence that says why it is this one. */
interface NodeAddress {
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
    sourceTowards: (destination) =>
      sourceTowards(destination, rtnetlink.routes({ family, table: TABLE_MAIN }), rtnetlink.addresses()),
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

/** Finds this node's addresses and keeps them written on its Node. */
export interface AddressPublisher {
  /** Rejects where no address is found, or the Node cannot be written. */
  publish(): Promise<void>;
  /** What was chosen and why; empty before it was. */
  chosen(): string;
}

export function createAddressPublisher(
  config: Pick<AgentConfig, "nodeName" | "address" | "asNumber">,
  rtnetlink: Rtnetlink,
  datastore: Datastore,
  currentNode: () => Node | undefined,
  onChosen: (chosen: string) => void,
): AddressPublisher {
  const { nodeName, address, asNumber } = config;
  let chosen = "";
  return {
    async publish() {
      const node = currentNode() ?? (await ensureNode(datastore, nodeName));
      const found = {
        ipv4: findNodeAddress(address[4], 4, rtnetlink, node),
        ipv6: findNodeAddress(address[6], 6, rtnetlink, node),
      };
      const patch = nodeNetworkPatch({
        ipv4: found.ipv4?.address ?? null,
        ipv6: found.ipv6?.address ?? null,
        ...(asNumber === undefined ? {} : { asNumber }),
      });
      const present = node.metadata.annotations ?? {};
      const differs = Object.entries(patch.metadata.annotations).some(
        ([name, value]) => (present[name] ?? null) !== value,
      );
      if (differs) await datastore.patch("Node", nodeName, undefined, patch);
      const text = [found.ipv4, found.ipv6]
        .flatMap((each) => (each === undefined ? [] : [`${formatPrefix(each.address)}: ${each.reason}`]))
        .join("; ");
      if (text !== chosen) onChosen(text);
      chosen = text;
    },
    chosen: () => chosen,
  };
}
