import { type Address, formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, networkOf, type Prefix } from "../ip/prefix.ts";
import { Failure, messageOf } from "../lib/errors.ts";

/** A node's lease of its subnet, as flannel keeps it in etcd: the key names the subnets, the value says how to get there. */

/** The subnets that a node has: of IPv4, of IPv6, or of both. */
export interface LeasedSubnets {
  readonly ipv4?: Prefix;
  readonly ipv6?: Prefix;
}

export interface LeaseAttributes {
  /** Where packets to the node's pods are sent. */
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
  /** `udp` is what an absent type stands for. */
  readonly backendType: string;
  /** What the backend's peers need to know, of IPv4 and of IPv6: JSON. */
  readonly backendData?: unknown;
  readonly backendV6Data?: unknown;
}

export interface Lease {
  readonly subnets: LeasedSubnets;
  readonly attributes: LeaseAttributes;
}

/** What a vxlan node says of itself, in either family. */
export interface VtepData {
  readonly vni: number;
  readonly mac: string;
}

export class LeaseError extends Failure<"malformed"> {
  constructor(message: string) {
    super("malformed", message);
  }
}

/** `10.5.34.0-24`, with two families `10.5.34.0-24&fc00:5:6:1::-64`. A lease without IPv4 has `0.0.0.0-0` for it. */
export function leaseKey({ ipv4, ipv6 }: LeasedSubnets): string {
  const dashed = (prefix: Prefix): string => formatPrefix(prefix).replace("/", "-");
  const first = ipv4 === undefined ? NO_IPV4 : dashed(ipv4);
  return ipv6 === undefined ? first : `${first}&${dashed(ipv6)}`;
}

const NO_IPV4 = "0.0.0.0-0";
/** pkg/subnet/subnet.go of flannel, with its dots escaped. */
const KEY = /^(\d+\.\d+\.\d+\.\d+)-(\d+)(?:&([a-f\d:]+)-(\d+))?$/;

/** Undefined for a key that names no subnet: flannel passes over such as well. */
export function parseLeaseKey(key: string): LeasedSubnets | undefined {
  const match = KEY.exec(key);
  if (match === null) return undefined;
  const [, address4 = "", length4 = "", address6, length6 = ""] = match;
  try {
    const ipv4 = `${address4}-${length4}` === NO_IPV4 ? undefined : prefixOf(address4, length4, 32);
    const ipv6 = address6 === undefined ? undefined : prefixOf(address6, length6, 128);
    return { ...(ipv4 !== undefined && { ipv4 }), ...(ipv6 !== undefined && { ipv6 }) };
  } catch {
    return undefined;
  }
}

function prefixOf(address: string, length: string, most: number): Prefix {
  if (Number(length) > most) throw new LeaseError(`/${length} is longer than /${most}`);
  return networkOf(parseAddress(address), Number(length));
}

/** The value in etcd: flannel's `LeaseAttrs`, with its names in its order, and empty ones left out as it does. */
export function formatLeaseValue(attributes: LeaseAttributes): string {
  const { publicIp, publicIpv6, backendType, backendData, backendV6Data } = attributes;
  return JSON.stringify({
    PublicIP: publicIp === undefined ? "0.0.0.0" : formatAddress(publicIp),
    PublicIPv6: publicIpv6 === undefined ? null : formatAddress(publicIpv6),
    BackendType: backendType === "udp" ? undefined : backendType,
    BackendData: backendData,
    BackendV6Data: backendV6Data,
  });
}

/** Throws `LeaseError` for what is no lease. */
export function parseLeaseValue(text: string): LeaseAttributes {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new LeaseError(`a lease is not JSON: ${messageOf(error)}`);
  }
  if (typeof value !== "object" || value === null) throw new LeaseError("a lease is not a JSON object");
  const fields: Readonly<Record<string, unknown>> = { ...value };
  const publicIp = addressIn(fields, "PublicIP");
  const publicIpv6 = addressIn(fields, "PublicIPv6");
  const type = fields["BackendType"] ?? "";
  if (typeof type !== "string") throw new LeaseError("BackendType of a lease is not text");
  return {
    ...(publicIp !== undefined && publicIp.value !== 0n && { publicIp }),
    ...(publicIpv6 !== undefined && { publicIpv6 }),
    ...attributesOf(type, fields["BackendData"], fields["BackendV6Data"]),
  };
}

/** The backend's part of the attributes; null and absent data are the same. */
export function attributesOf(
  type: string,
  data: unknown,
  v6Data: unknown,
): Pick<LeaseAttributes, "backendType" | "backendData" | "backendV6Data"> {
  return {
    backendType: type === "" ? "udp" : type,
    ...(data !== undefined && data !== null && { backendData: data }),
    ...(v6Data !== undefined && v6Data !== null && { backendV6Data: v6Data }),
  };
}

function addressIn(fields: Readonly<Record<string, unknown>>, name: string): Address | undefined {
  const text = fields[name] ?? "";
  if (text === "") return undefined;
  if (typeof text !== "string") throw new LeaseError(`${name} of a lease is not text`);
  try {
    return parseAddress(text);
  } catch (error) {
    throw new LeaseError(`${name} of a lease: ${messageOf(error)}`);
  }
}

export const formatVtepData = ({ vni, mac }: VtepData): unknown => ({ VNI: vni, VtepMAC: mac });

/** Undefined where the data is of no vxlan node. */
export function parseVtepData(data: unknown): VtepData | undefined {
  if (typeof data !== "object" || data === null) return undefined;
  const mac = "VtepMAC" in data ? data.VtepMAC : undefined;
  const vni = "VNI" in data ? data.VNI : undefined;
  if (typeof mac !== "string" || !/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(mac)) return undefined;
  return { vni: typeof vni === "number" ? vni : 1, mac: mac.toLowerCase() };
}

/** `10.5.34.0/24 and fc00:5:6:1::/64`: how people read it. */
export function describeSubnets({ ipv4, ipv6 }: LeasedSubnets): string {
  return [ipv4, ipv6].flatMap((prefix) => (prefix === undefined ? [] : [formatPrefix(prefix)])).join(" and ");
}
