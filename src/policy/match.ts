/** Whether a packet matches a rule, and if not, why. The plain meaning of rules, against which everything is tested. */
import { formatAddress, type Address, type Family } from "../ip/address.ts";
import { formatPrefix, prefixContains, type Prefix } from "../ip/prefix.ts";
import { formatSelector, matchesBy, type Selector } from "../resources/selector.ts";
import {
  anyContains,
  icmpOf,
  parseNet,
  protocolName,
  type Endpoint,
  type Entity,
  type IcmpMatch,
  type PortMatch,
  type Rule,
} from "./model.ts";
import { labelOf, type World } from "./world.ts";

/** The first packet of a connection. Ports are those of TCP, UDP and SCTP only, `icmp` of the family's ICMP only. */
export interface Packet {
  readonly family: Family;
  readonly protocol: number;
  readonly source: Address;
  readonly destination: Address;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly icmp?: { readonly type: number; readonly code: number };
}

/** What rules ask of a world: who has an address. */
export interface Directory {
  readonly world: World;
  /** All endpoints and sets to which the address belongs. */
  ownersOf(address: Address): readonly Endpoint[];
}

export function directoryOf(world: World): Directory {
  const nets = new Map<string, readonly Prefix[]>();
  for (const endpoint of world.endpoints.values()) nets.set(endpoint.id, endpoint.nets.map(parseNet));
  const known = new Map<string, readonly Endpoint[]>();
  return {
    world,
    ownersOf(address) {
      const key = formatAddress(address);
      const owners =
        known.get(key) ?? [...world.endpoints.values()].filter(({ id }) => anyContains(nets.get(id) ?? [], address));
      known.set(key, owners);
      return owners;
    },
  };
}

export function selects(world: World, selector: Selector, endpoint: Endpoint): boolean {
  return matchesBy(selector, (key) => labelOf(world, endpoint, key));
}

/** Undefined where the packet matches; else the first thing that does not, in words. */
export function mismatch(rule: Rule, packet: Packet, directory: Directory): string | undefined {
  const { family, protocol, notProtocol, icmp, notIcmp } = rule;
  if (family !== undefined && family !== packet.family) return `the packet is IPv${packet.family}, not IPv${family}`;
  if (protocol !== undefined && protocol !== packet.protocol) {
    return `the protocol is ${protocolName(packet.protocol)}, not ${protocolName(protocol)}`;
  }
  if (notProtocol === packet.protocol) return `the protocol is ${protocolName(notProtocol)}`;
  if (icmp !== undefined && !isIcmp(icmp, packet)) return `it is not ICMP ${icmpText(icmp)}`;
  if (notIcmp !== undefined && isIcmp(notIcmp, packet)) return `it is ICMP ${icmpText(notIcmp)}`;
  return (
    sideMismatch("source", rule.source, packet.source, packet.sourcePort, packet, directory) ??
    sideMismatch("destination", rule.destination, packet.destination, packet.destinationPort, packet, directory)
  );
}

function isIcmp({ type, code }: IcmpMatch, packet: Packet): boolean {
  if (packet.protocol !== icmpOf(packet.family)) return false;
  return (type === undefined || type === packet.icmp?.type) && (code === undefined || code === packet.icmp?.code);
}

function icmpText({ type, code }: IcmpMatch): string {
  return [...(type === undefined ? [] : [`type ${type}`]), ...(code === undefined ? [] : [`code ${code}`])].join(", ");
}

function sideMismatch(
  side: "source" | "destination",
  entity: Entity,
  address: Address,
  port: number | undefined,
  packet: Packet,
  directory: Directory,
): string | undefined {
  const { nets, notNets, selector, notSelector, ports, notPorts, service } = entity;
  const text = formatAddress(address);
  if (nets !== undefined && !anyContains(nets, address)) return `${side} ${text} is not in ${netsText(nets)}`;
  const net = notNets?.find((excluded) => prefixContains(excluded, address));
  if (net !== undefined) return `${side} ${text} is in ${formatPrefix(net)}`;
  const { world } = directory;
  if (selector !== undefined && !directory.ownersOf(address).some((owner) => selects(world, selector, owner))) {
    return `${side} ${text} belongs to nothing that ${formatSelector(selector)} selects`;
  }
  const owner =
    notSelector === undefined
      ? undefined
      : directory.ownersOf(address).find((candidate) => selects(world, notSelector, candidate));
  if (owner !== undefined) return `${side} ${text} belongs to ${owner.id}, which is excluded`;
  const isNamed = ({ name }: { name: string }): boolean => hasNamedPort(name, address, port, packet, entity, directory);
  const hits = (match: PortMatch): boolean =>
    "name" in match ? isNamed(match) : port !== undefined && match.first <= port && port <= match.last;
  if (ports !== undefined && !ports.some(hits)) return `${side} port ${port ?? "(none)"} is not ${portsText(ports)}`;
  const excluded = notPorts?.find(hits);
  if (excluded !== undefined) return `${side} port ${port} is ${portsText([excluded])}`;
  if (service !== undefined && !isOfService(service, side, address, port, packet, world)) {
    return `${side} ${text}${side === "source" ? "" : ` port ${port ?? "(none)"}`} is not of the service ${service}`;
  }
  return undefined;
}

/** Whether an endpoint that has the address (and is selected, where the side has a selector) calls the port so. */
function hasNamedPort(
  name: string,
  address: Address,
  port: number | undefined,
  packet: Packet,
  { selector }: Entity,
  directory: Directory,
): boolean {
  return directory
    .ownersOf(address)
    .some(
      (owner) =>
        (selector === undefined || selects(directory.world, selector, owner)) &&
        owner.ports.some(
          (candidate) => candidate.name === name && candidate.protocol === packet.protocol && candidate.port === port,
        ),
    );
}

function isOfService(
  service: string,
  side: "source" | "destination",
  address: Address,
  port: number | undefined,
  packet: Packet,
  world: World,
): boolean {
  const text = formatAddress(address);
  return [...world.slices.values()].some(
    (slice) =>
      slice.service === service &&
      slice.addresses.includes(text) &&
      (side === "source" || slice.ports.some((of) => of.protocol === packet.protocol && of.port === port)),
  );
}

const SHOWN_MAX = 4;

function netsText(nets: readonly Prefix[]): string {
  const shown = nets.slice(0, SHOWN_MAX).map(formatPrefix).join(", ");
  return nets.length > SHOWN_MAX ? `${shown} or ${nets.length - SHOWN_MAX} more` : shown;
}

function portsText(ports: readonly PortMatch[]): string {
  const one = (port: PortMatch): string =>
    "name" in port ? `"${port.name}"` : port.first === port.last ? String(port.first) : `${port.first}-${port.last}`;
  const shown = ports.slice(0, SHOWN_MAX).map(one).join(", ");
  return ports.length > SHOWN_MAX ? `${shown} or ${ports.length - SHOWN_MAX} more` : shown;
}
