/** The members of address sets and dispatch maps as elements of sets of nf_tables, and back. */
import { addressFromBytes, addressToBytes, type Family, formatAddress, parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { Failure } from "../lib/errors.ts";
import type { Element } from "../netlink/nftElement.ts";
import {
  concatenate,
  formatKey,
  interfaceBytes,
  type KeyType,
  portBytes,
  prefixRange,
  protocolBytes,
} from "../netlink/nftKey.ts";
import type { NftSet } from "../netlink/nftSet.ts";
import { PROTOCOL, protocolName } from "../policy/model.ts";
import { chainName, netsName, setName, tableOf } from "./nftNames.ts";
import type { DispatchMap, Layer } from "./ruleset.ts";

/** A set of the kernel's, and how its elements are written here. */
export interface SetForm {
  readonly nft: NftSet;
  encode(member: string): Element;
  /** Undefined for what we would not write. */
  decode(element: Element): string | undefined;
}

/**
 * Which of its two halves an address set has: a hash of single addresses, which takes a new one in no time, and a set of
 * ranges for networks, where each change costs time in proportion to all that are there.
 */
export interface SetShape {
  readonly hosts: boolean;
  readonly nets: boolean;
}

export function addressType(family: Family): KeyType {
  return family === 4 ? "ipv4_addr" : "ipv6_addr";
}

export function isNetwork(member: string): boolean {
  return member.includes("/");
}

/** Single addresses. */
export function hostsForm(family: Family, id: string): SetForm {
  return {
    nft: { table: tableOf(family), name: setName(family, id), key: [addressType(family)] },
    encode: (member) => ({ key: addressBytes(member) }),
    decode: ({ key, last }) => (last === undefined ? formatBytes(key) : undefined),
  };
}

/** Networks. */
export function netsForm(family: Family, id: string): SetForm {
  const key = [addressType(family)];
  return {
    nft: { table: tableOf(family), name: netsName(family, id), key, interval: true },
    encode: (member) => prefixRange(parsePrefix(member)),
    decode: (element) => formatKey(key, element),
  };
}

/** Addresses with protocol and port: `10.0.0.1,tcp:80`. */
export function endpointsForm(family: Family, id: string): SetForm {
  const key = [addressType(family), "inet_proto", "inet_service"] as const;
  const addressLength = family === 4 ? 4 : 16;
  return {
    nft: { table: tableOf(family), name: setName(family, id), key },
    encode(member) {
      const [, address = "", protocol = "", port = ""] = /^(.*),([a-z0-9]+):([0-9]+)$/.exec(member) ?? [];
      return concatenate(
        { key: addressBytes(address) },
        { key: protocolBytes(protocolNumber(protocol)) },
        { key: portBytes(Number(port)) },
      );
    },
    decode({ key: bytes, last }) {
      const [protocol, high, low] = [bytes[addressLength], bytes[addressLength + 4], bytes[addressLength + 5]];
      if (last !== undefined || protocol === undefined || high === undefined || low === undefined) return undefined;
      const address = formatBytes(bytes.subarray(0, addressLength));
      return `${address},${protocolName(protocol).toLowerCase()}:${high * 256 + low}`;
    },
  };
}

const PROTOCOLS = new Map(Object.entries(PROTOCOL).map(([name, number]) => [name.toLowerCase(), number]));

function protocolNumber(name: string): number {
  const number = PROTOCOLS.get(name) ?? Number(name);
  if (!(number >= 0 && number <= 255)) throw new Failure("bad-member", `"${name}" is not a protocol`);
  return number;
}

/** Interfaces and the chains to go to: `cali1 cali-fw-cali1`. No interface's name has a space. */
export function dispatchForm(family: Family, { layer, name }: Pick<DispatchMap, "layer" | "name">): SetForm {
  return {
    nft: { table: tableOf(family), name: chainName(layer, name), key: ["ifname"], data: "verdict" },
    encode(member) {
      const space = member.indexOf(" ");
      const chain = member.slice(space + 1);
      return { key: interfaceBytes(member.slice(0, space)), data: { verdict: { kind: "goto", chain } } };
    },
    decode({ key, data }) {
      if (data === undefined || !("verdict" in data) || data.verdict.kind !== "goto") return undefined;
      const end = key.indexOf(0);
      return `${new TextDecoder().decode(end < 0 ? key : key.subarray(0, end))} ${data.verdict.chain}`;
    },
  };
}

/** A map's entry as a member. */
export function dispatchMember(layer: Layer, interfaceName: string, chain: string): string {
  return `${interfaceName} ${chainName(layer, chain)}`;
}

const ZERO = 0x30;
const NINE = 0x39;
const DOT = 0x2e;

/** Of a quarter of a million members: IPv4 is read without detours. */
function addressBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(4);
  let [at, value, digits] = [0, 0, 0];
  for (let index = 0; index < text.length; index += 1) {
    const code = text.charCodeAt(index);
    if (code >= ZERO && code <= NINE) {
      value = value * 10 + code - ZERO;
      digits += 1;
    } else if (code === DOT && digits > 0 && at < 3 && value < 256) {
      bytes[at] = value;
      [at, value, digits] = [at + 1, 0, 0];
    } else return addressToBytes(parseAddress(text));
  }
  if (at !== 3 || digits === 0 || value > 255) return addressToBytes(parseAddress(text));
  bytes[3] = value;
  return bytes;
}

function formatBytes(bytes: Uint8Array): string {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  return formatAddress(addressFromBytes(bytes));
}
