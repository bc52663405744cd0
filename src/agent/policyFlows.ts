/** Which of the connections that the kernel follows are forbidden by the policy that is in force now. */
import { formatAddress, type Address } from "../ip/address.ts";
import type { Connection, Tuple } from "../netlink/conntrack.ts";
import type { EndpointChains } from "../policy/chains.ts";
import type { Compiler } from "../policy/compile.ts";
import { interpret } from "../policy/interpret.ts";
import type { Packet } from "../policy/match.ts";

/**
 * Judges connections as if each began now. Those of this node's workloads are judged, at either side; what the node itself
 * says to its workloads is never held back.
 */
export function forbidden(
  { endpoints, ...tables }: ReturnType<Compiler["tables"]>,
  isOwnAddress: (address: string) => boolean,
): (connection: Connection) => boolean {
  const byAddress = new Map<string, EndpointChains>();
  for (const chains of endpoints.values()) {
    if (chains.kind === "workload") for (const address of chains.addresses) byAddress.set(address, chains);
  }
  return ({ original, reply }) => {
    const source = byAddress.get(formatAddress(original.source));
    const destination = byAddress.get(formatAddress(reply.source));
    if (source === undefined && destination === undefined) return false;
    const packet = packetOf(original, reply);
    if (source !== undefined && interpret(tables, source, "egress", "normal", packet) === "deny") return true;
    return (
      destination !== undefined &&
      !isOwnAddress(formatAddress(original.source)) &&
      interpret(tables, destination, "ingress", "normal", packet) === "deny"
    );
  };
}

/** The first packet as policy sees it: after its destination was translated, and before its source is. */
function packetOf(original: Tuple, reply: Tuple): Packet {
  const { source, protocol, sourcePort, icmp } = original;
  const destination: Address = reply.source;
  const destinationPort = reply.sourcePort;
  return {
    family: source.family,
    protocol,
    source,
    destination,
    ...(sourcePort === undefined ? {} : { sourcePort }),
    ...(destinationPort === undefined ? {} : { destinationPort }),
    ...(icmp === undefined ? {} : { icmp }),
  };
}
