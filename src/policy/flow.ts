/** A connection as people give it, and what it is on the wire: addresses, and who has them. */
import { formatAddress, parseAddress, type Address, type Family } from "../ip/address.ts";
import type { Directory, Packet } from "./match.ts";
import type { Endpoint } from "./model.ts";
import { endpointAddress, PolicyError, type World } from "./world.ts";

/** An endpoint by its id, a process of a node itself, or any address: whoever has it, or somebody outside. */
export type Party =
  | { readonly endpoint: string; readonly address?: string }
  | { readonly node: string; readonly address: string }
  | { readonly address: string };

/** The first packet of a connection; replies are let through with it. */
export interface Flow {
  readonly source: Party;
  readonly destination: Party;
  /** IP protocol number. */
  readonly protocol: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly icmp?: { readonly type: number; readonly code: number };
  /** Where both sides have both and it is not given: IPv4. */
  readonly family?: Family;
  /** Where it was sent before the node translated the address, as for a service. */
  readonly sentTo?: { readonly address: string; readonly port?: number };
  /** The interfaces by which it leaves the source's node and comes to the destination's. Absent: each node's first. */
  readonly interfaces?: { readonly out?: string; readonly in?: string };
}

/** A side of the flow with its role. A workload and a node's own process are policed, anybody else is not. */
export type Side =
  | { readonly role: "workload"; readonly endpoint: Endpoint; readonly node: string }
  | { readonly role: "node"; readonly node: string }
  | { readonly role: "outside"; readonly node?: undefined };

/** Throws `PolicyError` where an endpoint does not exist, or the sides have no addresses of one family. */
export function packetOf(world: World, flow: Flow): Packet {
  const families: readonly Family[] = flow.family === undefined ? [4, 6] : [flow.family];
  for (const family of families) {
    const source = addressOf(world, flow.source, family);
    const destination = addressOf(world, flow.destination, family);
    if (source === undefined || destination === undefined) continue;
    const { protocol, sourcePort, destinationPort, icmp } = flow;
    return {
      family,
      protocol,
      source,
      destination,
      ...(sourcePort === undefined ? {} : { sourcePort }),
      ...(destinationPort === undefined ? {} : { destinationPort }),
      ...(icmp === undefined ? {} : { icmp }),
    };
  }
  const wanted = flow.family === undefined ? "of one family" : `of IPv${flow.family}`;
  throw new PolicyError("no-address", `source and destination of the flow have no addresses ${wanted}`);
}

function addressOf(world: World, party: Party, family: Family): Address | undefined {
  const text =
    party.address ?? ("endpoint" in party ? endpointAddress(endpointNamed(world, party.endpoint), family) : undefined);
  const address = text === undefined ? undefined : parseAddress(text);
  return address?.family === family ? address : undefined;
}

function endpointNamed(world: World, id: string): Endpoint {
  const endpoint = world.endpoints.get(id);
  if (endpoint === undefined) throw new PolicyError("unknown-endpoint", `there is no endpoint ${id}`);
  return endpoint;
}

export function sideOf(directory: Directory, party: Party, address: Address): Side {
  const { world } = directory;
  if ("node" in party) return { role: "node", node: party.node };
  const owners = "endpoint" in party ? [endpointNamed(world, party.endpoint)] : directory.ownersOf(address);
  const endpoint = owners.find(({ kind }) => kind === "workload") ?? owners.find(({ kind }) => kind === "host");
  if (endpoint?.node !== undefined) {
    const { node } = endpoint;
    return endpoint.kind === "workload" ? { role: "workload", endpoint, node } : { role: "node", node };
  }
  const text = formatAddress(address);
  const node = [...world.interfaces].find(([, list]) => list.some(({ addresses }) => addresses.includes(text)))?.[0];
  return node === undefined ? { role: "outside" } : { role: "node", node };
}
