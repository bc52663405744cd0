import { addressBits, addressPlus, compareAddresses } from "../ip/address.ts";
import { formatPrefix, networkOf, prefixesOverlap, type Prefix } from "../ip/prefix.ts";
import type { NetworkConfig, SubnetRange } from "./config.ts";
import type { LeasedSubnets } from "./lease.ts";

/** Which subnets may be leased: flannel's `allocateSubnet`. */

/** Flannel draws from the first hundred that are free. */
const CANDIDATES = 100;

/** The first free subnets of the range, at most so many, in ascending order. */
export function freeSubnets(range: SubnetRange, taken: readonly Prefix[], most = CANDIDATES): Prefix[] {
  const { subnetMin, subnetMax, subnetLength } = range;
  const size = 1n << BigInt(addressBits(subnetMin.family) - subnetLength);
  // Leases of the usual length are looked up; only those of a configuration that was changed are compared one by one.
  const usual = new Set<string>();
  const unusual: Prefix[] = [];
  for (const prefix of taken) {
    if (prefix.length < subnetLength) unusual.push(prefix);
    else usual.add(formatPrefix(networkOf(prefix.address, subnetLength)));
  }
  const free: Prefix[] = [];
  for (let at = subnetMin; compareAddresses(at, subnetMax) <= 0; at = addressPlus(at, size)) {
    const subnet = { address: at, length: subnetLength };
    const isTaken = usual.has(formatPrefix(subnet)) || unusual.some((other) => prefixesOverlap(other, subnet));
    if (!isTaken) free.push(subnet);
    // Compared before the next step, which may leave the family's range.
    if (free.length >= most || compareAddresses(at, subnetMax) === 0) break;
  }
  return free;
}

/** Whether the configuration could have given the subnets out, in both families that it has. */
export function fitsConfig(subnets: LeasedSubnets, config: NetworkConfig): boolean {
  return fits(subnets.ipv4, config.ipv4) && fits(subnets.ipv6, config.ipv6);
}

function fits(subnet: Prefix | undefined, range: SubnetRange | undefined): boolean {
  if (subnet === undefined || range === undefined) return subnet === undefined && range === undefined;
  return (
    subnet.length === range.subnetLength &&
    compareAddresses(subnet.address, range.subnetMin) >= 0 &&
    compareAddresses(subnet.address, range.subnetMax) <= 0
  );
}

export function overlapsAny(subnets: LeasedSubnets, taken: readonly LeasedSubnets[]): boolean {
  const meets = (a: Prefix | undefined, b: Prefix | undefined): boolean =>
    a !== undefined && b !== undefined && prefixesOverlap(a, b);
  return taken.some((other) => meets(subnets.ipv4, other.ipv4) || meets(subnets.ipv6, other.ipv6));
}
