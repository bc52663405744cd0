import { type Address, addressBits, addressPlus, type Family, formatAddress, parseAddress } from "../ip/address.ts";
import {
  formatPrefix,
  lastAddress,
  networkOf,
  parseInterfaceAddress,
  prefixContains,
  type Prefix,
} from "../ip/prefix.ts";
import { Failure, messageOf } from "../lib/errors.ts";

/** Flannel's network configuration: the JSON in etcd's `<prefix>/config`, or in `/etc/kube-flannel/net-conf.json`. */

/** Where the nodes' subnets of one family come from. */
export interface SubnetRange {
  readonly network: Prefix;
  /** The first and last subnet that is given out: network addresses of `subnetLength` bits. */
  readonly subnetMin: Address;
  readonly subnetMax: Address;
  readonly subnetLength: number;
}

export interface VxlanConfig {
  readonly type: "vxlan";
  readonly vni: number;
  /** UDP port; the kernel's 8472 where absent. */
  readonly port?: number;
  /** MTU of the underlay, before the encapsulation is taken off; the external interface's where absent. Bytes. */
  readonly mtu?: number;
  readonly learning: boolean;
  /** Peers on the same segment are reached without encapsulation. */
  readonly directRouting: boolean;
}

export type BackendConfig =
  | VxlanConfig
  | { readonly type: "udp"; readonly port: number }
  | { readonly type: "host-gw" }
  | { readonly type: "ipip"; readonly directRouting: boolean };

export interface NetworkConfig {
  /** Absent where IPv4 is off; so is `ipv6` unless `EnableIPv6` says otherwise. One of them is there. */
  readonly ipv4?: SubnetRange;
  readonly ipv6?: SubnetRange;
  /** Masquerading and forwarding by nf_tables instead of iptables. */
  readonly nftables: boolean;
  readonly backend: BackendConfig;
}

export class NetworkConfigError extends Failure<"bad-network-config"> {
  constructor(message: string) {
    super("bad-network-config", `flannel's network configuration: ${message}`);
  }
}

/** What differs between the families, as `CheckNetworkConfig` of flannel has it (pkg/subnet/config.go). */
const FAMILY_RULES = {
  4: {
    prefix: "",
    network: "Network",
    enable: "EnableIPv4",
    longestSubnet: 30,
    longestNetwork: 28,
    usualLength: 24,
    usualUpTo: 22,
  },
  6: {
    prefix: "IPv6",
    network: "IPv6Network",
    enable: "EnableIPv6",
    longestSubnet: 126,
    longestNetwork: 124,
    usualLength: 64,
    usualUpTo: 62,
  },
} as const;

/** Reads and checks the JSON text, with flannel's defaults. Throws `NetworkConfigError` naming the field. */
export function parseNetworkConfig(text: string): NetworkConfig {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new NetworkConfigError(`it is not JSON: ${messageOf(error)}`);
  }
  const fields = fieldsOf(json, "the configuration");
  const ipv4 = fields.flag("EnableIPv4", true) ? readRange(fields, 4) : undefined;
  const ipv6 = fields.flag("EnableIPv6", false) ? readRange(fields, 6) : undefined;
  if (ipv4 === undefined && ipv6 === undefined) throw new NetworkConfigError("neither IPv4 nor IPv6 is enabled");
  const backend = readBackend(fields.value("Backend"));
  if (ipv6 !== undefined && (backend.type === "udp" || backend.type === "ipip")) {
    throw new NetworkConfigError(`Backend.Type: ${backend.type} carries IPv4 only, but EnableIPv6 is set`);
  }
  return {
    ...(ipv4 !== undefined && { ipv4 }),
    ...(ipv6 !== undefined && { ipv6 }),
    nftables: fields.flag("EnableNFTables", false),
    backend,
  };
}

function readRange(fields: Fields, family: Family): SubnetRange {
  const rules = FAMILY_RULES[family];
  const network = fields.network(rules.network, family);
  if (network === undefined) throw new NetworkConfigError(`${rules.network} is missing, and ${rules.enable} is on`);
  const lengthField = `${rules.prefix}SubnetLen`;
  const subnetLength = fields.number(lengthField, 0) || usualLength(network, rules);
  if (subnetLength > rules.longestSubnet) {
    throw new NetworkConfigError(`${lengthField}: ${subnetLength} is more than ${rules.longestSubnet}`);
  }
  if (subnetLength < network.length + 2) {
    throw new NetworkConfigError(
      `${lengthField}: ${formatPrefix(network)} does not hold four subnets of /${subnetLength}`,
    );
  }
  const size = 1n << BigInt(addressBits(family) - subnetLength);
  const bound = (field: string, usual: Address): Address => {
    const given = fields.address(field, family);
    if (given === undefined) return usual;
    if (!prefixContains(network, given)) {
      throw new NetworkConfigError(`${field}: ${formatAddress(given)} is not in ${formatPrefix(network)}`);
    }
    if (given.value % size !== 0n) {
      throw new NetworkConfigError(`${field}: ${formatAddress(given)} is not on a boundary of /${subnetLength}`);
    }
    return given;
  };
  return {
    network,
    // The first subnet has the network's own address, which old stacks take for a broadcast.
    subnetMin: bound(`${rules.prefix}SubnetMin`, addressPlus(network.address, size)),
    subnetMax: bound(`${rules.prefix}SubnetMax`, addressPlus(lastAddress(network), 1n - size)),
    subnetLength,
  };
}

function usualLength(network: Prefix, rules: (typeof FAMILY_RULES)[Family]): number {
  if (network.length > rules.longestNetwork) {
    throw new NetworkConfigError(
      `${rules.network}: ${formatPrefix(network)} is too small, /${rules.longestNetwork} is the least`,
    );
  }
  return network.length <= rules.usualUpTo ? rules.usualLength : network.length + 2;
}

/** Flannel's documents say that vxlan is the default; its code says udp, and clusters rely on the code. */
const USUAL_BACKEND = "udp";

function readBackend(value: unknown): BackendConfig {
  const fields = fieldsOf(value ?? {}, "Backend");
  const type = fields.text("Type") ?? USUAL_BACKEND;
  switch (type) {
    case "vxlan": {
      const port = fields.number("Port", 0, 65535);
      const mtu = fields.number("MTU", 0, 65535);
      if (fields.flag("GBP", false)) {
        throw new NetworkConfigError("Backend.GBP: group policy in VXLAN headers is not supported");
      }
      return {
        type,
        vni: fields.number("VNI", 1, 0xffffff),
        ...(port !== 0 && { port }),
        ...(mtu !== 0 && { mtu }),
        learning: fields.flag("Learning", false),
        directRouting: fields.flag("DirectRouting", false),
      };
    }
    case "udp":
      return { type, port: fields.number("Port", 8285, 65535) };
    case "host-gw":
      return { type };
    case "ipip":
      return { type, directRouting: fields.flag("DirectRouting", false) };
    default:
      throw new NetworkConfigError(`Backend.Type: "${type}" is not one of udp, vxlan, host-gw, ipip`);
  }
}

/** Fields of a JSON object by name, in whatever case, as Go reads them: an exact match comes before others. */
interface Fields {
  value(name: string): unknown;
  flag(name: string, usual: boolean): boolean;
  number(name: string, usual: number, most?: number): number;
  text(name: string): string | undefined;
  /** Undefined where absent, or empty. */
  address(name: string, family: Family): Address | undefined;
  /** As Go reads it: bits beyond the length are dropped. */
  network(name: string, family: Family): Prefix | undefined;
}

function fieldsOf(object: unknown, what: string): Fields {
  if (typeof object !== "object" || object === null || Array.isArray(object)) {
    throw new NetworkConfigError(`${what} is not a JSON object`);
  }
  const entries = Object.entries(object);
  const find = (name: string): unknown => {
    const exact = entries.find(([key]) => key === name);
    return (exact ?? entries.find(([key]) => key.toLowerCase() === name.toLowerCase()))?.[1] ?? undefined;
  };
  const path = (name: string): string => (what === "Backend" ? `Backend.${name}` : name);
  const wrong = (name: string, expected: string): never => {
    throw new NetworkConfigError(`${path(name)}: expected ${expected}, found ${JSON.stringify(find(name))}`);
  };
  const text = (name: string): string | undefined => {
    const value = find(name);
    return value === undefined || typeof value === "string" ? value : wrong(name, "text");
  };
  const parsed = <Value>(name: string, parse: (given: string) => Value): Value | undefined => {
    const given = text(name);
    if (given === undefined || given === "") return undefined;
    try {
      return parse(given);
    } catch (error) {
      throw new NetworkConfigError(`${path(name)}: ${messageOf(error)}`);
    }
  };
  return {
    value: find,
    text,
    flag(name, usual) {
      const value = find(name) ?? usual;
      return typeof value === "boolean" ? value : wrong(name, "true or false");
    },
    number(name, usual, most = Number.MAX_SAFE_INTEGER) {
      const value = find(name) ?? usual;
      const isWhole = typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= most;
      return isWhole ? value : wrong(name, `a whole number from 0 to ${most}`);
    },
    address: (name, family) => parsed(name, (given) => ofFamily(parseAddress(given), family)),
    network: (name, family) =>
      parsed(name, (given) => {
        const { address, length } = parseInterfaceAddress(given);
        return networkOf(ofFamily(address, family), length);
      }),
  };
}

function ofFamily(address: Address, family: Family): Address {
  if (address.family === family) return address;
  throw new NetworkConfigError(`${formatAddress(address)} is not an IPv${family} address`);
}
