/** What a pod, its namespace and the CNI configuration wish of the pod's addresses, by Calico's precedence. */
import { formatAddress, parseAddress, type Address, type Family } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import { IpamError } from "./errors.ts";
import type { PoolNames } from "./allocator.ts";

type Annotations = Readonly<Record<string, string>>;

export interface AddressWishes {
  /** Absent: whatever families the pools offer. */
  readonly families?: readonly Family[];
  readonly pools: PoolNames;
  /** Exactly these, which override the others. */
  readonly addresses?: readonly Address[];
}

/** Keys of the CNI configuration's `ipam` object. */
export interface ConfiguredWishes {
  readonly ipv4Pools?: readonly string[] | undefined;
  readonly ipv6Pools?: readonly string[] | undefined;
  readonly assignIpv4?: boolean | undefined;
  readonly assignIpv6?: boolean | undefined;
}

const PREFIX = "cni.projectcalico.org/";

/**
 * Annotations of the pod come before those of its namespace, and these before the configuration; each key by itself.
 * `ipAddrs` is the pod's only. Throws `bad-request` with the name of the annotation.
 */
export function addressWishes(
  pod: Annotations,
  namespace: Annotations,
  configured: ConfiguredWishes = {},
): AddressWishes {
  const pools: PoolNames = {
    4: listOf("ipv4pools", pod, namespace) ?? configured.ipv4Pools,
    6: listOf("ipv6pools", pod, namespace) ?? configured.ipv6Pools,
  };
  const families = listOf("ipFamilies", pod, namespace)?.map(familyOf) ?? configuredFamilies(configured);
  const addresses = listOf("ipAddrs", pod, {})?.map((text) => addressOf(text));
  for (const family of [4, 6] as const) {
    const same = addresses?.filter((address) => address.family === family) ?? [];
    if (same.length > 1) {
      throw wrong("ipAddrs", `at most one IPv${family} address, not ${same.map(formatAddress).join(" and ")}`);
    }
  }
  if (families?.length === 0)
    throw new IpamError("bad-request", "Cannot assign an address: IPv4 and IPv6 are both off");
  return {
    pools,
    ...(families === undefined ? {} : { families: [...new Set(families)] }),
    ...(addresses === undefined || addresses.length === 0 ? {} : { addresses }),
  };
}

/** Calico's defaults, once one of the two is given: IPv4 on, IPv6 off. */
function configuredFamilies({ assignIpv4, assignIpv6 }: ConfiguredWishes): Family[] | undefined {
  if (assignIpv4 === undefined && assignIpv6 === undefined) return undefined;
  return [...((assignIpv4 ?? true) ? [4 as const] : []), ...((assignIpv6 ?? false) ? [6 as const] : [])];
}

/** The JSON list of strings in the first annotation that has the key. An empty list counts as none. */
function listOf(key: string, ...sources: readonly Annotations[]): string[] | undefined {
  const text = sources.map((annotations) => annotations[PREFIX + key]).find((value) => value !== undefined);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw wrong(key, `${text} is not JSON: ${messageOf(error)}`, error);
  }
  if (!Array.isArray(value) || !value.every((item) => typeof item === "string")) {
    throw wrong(key, `${text} is not a JSON list of strings, such as ["…"]`);
  }
  return value.length === 0 ? undefined : value;
}

function familyOf(text: string): Family {
  if (text === "IPv4") return 4;
  if (text === "IPv6") return 6;
  throw wrong("ipFamilies", `"${text}" is not IPv4 or IPv6`);
}

function addressOf(text: string): Address {
  try {
    return parseAddress(text);
  } catch (error) {
    throw wrong("ipAddrs", messageOf(error), error);
  }
}

function wrong(key: string, reason: string, cause?: unknown): IpamError {
  return new IpamError("bad-request", `Cannot read annotation ${PREFIX}${key}: ${reason}`, cause);
}
