/**
 * The table `arp calico-arp`. With proxy ARP, which answers a workload for every address in the world, the host would
 * answer for the workload's own address too, and it would take that for a conflict: such answers are dropped.
 */
import { addressFromBytes, addressToBytes, formatAddress, parseAddress } from "../ip/address.ts";
import type { Expression } from "../netlink/nftExpression.ts";
import { concatenate, interfaceBytes, portBytes } from "../netlink/nftKey.ts";
import { drop } from "../netlink/nftStatement.ts";
import type { TableName } from "../netlink/nftTable.ts";
import type { KeptChain, KeptSet, TableChange } from "./keptTable.ts";
import type { SetForm } from "./nftSets.ts";

export const ARP_TABLE: TableName = { family: "arp", name: "calico-arp" };

const OWN_ADDRESSES = "cali-own-addresses";

/** RFC 826: the operation is at byte 6 of the packet, the sender's IPv4 address at byte 14. */
const IS_REPLY: readonly Expression[] = [
  { kind: "payload", base: "network", offset: 6, length: 2, into: 0 },
  { kind: "cmp", from: 0, operator: "eq", value: portBytes(2) },
];
const SAYS_OWN_ADDRESS: readonly Expression[] = [
  { kind: "meta", key: "oifname", into: 0 },
  { kind: "payload", base: "network", offset: 14, length: 4, into: 4 },
  { kind: "lookup", set: OWN_ADDRESSES, from: 0 },
];

const OUTPUT: KeptChain = {
  base: { type: "filter", hook: "output", priority: 0, policy: "accept" },
  origin: "arp",
  drafts: () => [{ steps: [...IS_REPLY, ...SAYS_OWN_ADDRESS, ...drop()] }],
};

const NAME_LENGTH = 16;

/** `cali1 10.0.0.1` */
const FORM: SetForm = {
  nft: { table: ARP_TABLE, name: OWN_ADDRESSES, key: ["ifname", "ipv4_addr"] },
  encode(member) {
    const space = member.indexOf(" ");
    const address = addressToBytes(parseAddress(member.slice(space + 1)));
    return concatenate({ key: interfaceBytes(member.slice(0, space)) }, { key: address });
  },
  decode({ key }) {
    const end = key.indexOf(0);
    const name = new TextDecoder().decode(key.subarray(0, end < 0 ? NAME_LENGTH : Math.min(end, NAME_LENGTH)));
    return `${name} ${formatAddress(addressFromBytes(key.subarray(NAME_LENGTH, NAME_LENGTH + 4)))}`;
  },
};

/** Interfaces of workloads with their addresses, of either family; undefined: the interface is gone. */
export type WorkloadAddresses = ReadonlyMap<string, readonly string[] | undefined>;

/** Takes changes in, and says what they mean for the table. */
export function arpTable(): (workloads: WorkloadAddresses) => TableChange {
  const members = new Set<string>();
  const known = new Map<string, readonly string[]>();
  let isNew = true;
  return (workloads) => {
    const added: string[] = [];
    const removed: string[] = [];
    for (const [name, addresses = []] of workloads) {
      const now = addresses.filter((address) => !address.includes(":")).map((address) => `${name} ${address}`);
      for (const member of known.get(name) ?? []) {
        if (!now.includes(member) && members.delete(member)) removed.push(member);
      }
      for (const member of now) if (!members.has(member) && members.add(member)) added.push(member);
      if (now.length > 0) known.set(name, now);
      else known.delete(name);
    }
    const set: KeptSet = { form: FORM, members };
    const chains = new Map(isNew ? [["filter-OUTPUT", OUTPUT]] : []);
    const isChange = isNew || added.length + removed.length > 0;
    isNew = false;
    return { chains, sets: new Map(isChange ? [[OWN_ADDRESSES, { set, added, removed }]] : []) };
  };
}

/** Keeps the host from answering workloads' ARP requests for their own addresses. */
export interface ArpTable {
  /** What changed; the first call says all there are. Throws `Failure`; it is tried again by itself. */
  apply(workloads: WorkloadAddresses): void;
  check(): Promise<readonly string[]>;
  /** Deletes the table. */
  remove(): void;
  close(): void;
}
