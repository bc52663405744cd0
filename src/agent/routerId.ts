import { createHash } from "node:crypto";
import { formatAddress, type Address } from "../ip/address.ts";

/** `CALICO_ROUTER_ID`: an IPv4 address, `hash` of the node's name, or the node's own IPv4 address, if it has one. */
export function routerIdOf(setting: string | undefined, nodeName: string, ipv4: Address | undefined): string {
  if (setting !== undefined && setting !== "hash") return setting;
  if (setting === undefined && ipv4 !== undefined) return formatAddress(ipv4);
  const digest = createHash("sha256").update(nodeName).digest();
  // Any number but zero (RFC 6286). The first octet stays below 224, where addresses end to be a host's.
  return `${(digest[0]! % 223) + 1}.${digest[1]}.${digest[2]}.${digest[3]}`;
}
