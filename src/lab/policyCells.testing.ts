import { formatAddress, parseAddress, type Address, type Family } from "../ip/address.ts";
import { podEndpointId } from "../policy/convertEndpoint.ts";
import { evaluatorOf, type Evaluation } from "../policy/evaluate.ts";
import type { Flow, Party } from "../policy/flow.ts";
import { icmpOf, PROTOCOL } from "../policy/model.ts";
import type { World } from "../policy/world.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import type { Protocol } from "./matrix.ts";
import type { Manifest } from "./policyObjects.testing.ts";
import { probe } from "./probe.io.ts";

/** Real connections beside what the evaluator says of them. */

/** Who connects, or is connected to. */
export interface Place {
  readonly name: string;
  readonly netns: string;
  /** At most one of each family. */
  readonly addresses: readonly Address[];
  readonly ports: readonly { readonly protocol: "TCP" | "UDP"; readonly port: number }[];
  party(address: Address): Party;
}

/** One connection. */
export interface Cell {
  readonly from: Place;
  readonly to: Place;
  readonly source: Address;
  readonly address: Address;
  readonly protocol: Protocol;
  /** 0 for ICMP. */
  readonly port: number;
  readonly sourcePort?: number;
}

interface ContainerPort {
  readonly containerPort: number;
  readonly protocol: "TCP" | "UDP";
}

/** A pod with the fixed addresses of its annotation. */
export function podPlace(lab: string, { metadata, spec }: Manifest): Place {
  const { namespace = "default", name, annotations } = metadata;
  const { nodeName, containers } = spec as {
    nodeName: string;
    containers: readonly { readonly ports: readonly ContainerPort[] }[];
  };
  const endpoint = podEndpointId(namespace, name, nodeName);
  const ips = JSON.parse(annotations?.["cni.projectcalico.org/ipAddrs"] ?? "[]") as string[];
  return {
    name: `${namespace}/${name}`,
    netns: podNamespace(lab, namespace, name),
    addresses: ips.map(parseAddress),
    ports: containers.flatMap(({ ports }) => ports).map(({ containerPort: port, protocol }) => ({ port, protocol })),
    party: () => ({ endpoint }),
  };
}

/** A node itself, or a machine outside. */
export function memberPlace(
  lab: string,
  name: string,
  role: "node" | "host",
  addresses: readonly string[],
  ports: Place["ports"] = [],
): Place {
  const party = (address: Address): Party =>
    role === "node" ? { node: name, address: formatAddress(address) } : { address: formatAddress(address) };
  return { name, netns: memberNamespace(lab, name), addresses: addresses.map(parseAddress), ports, party };
}

/** Everybody to everybody else, by each family, at each port of the one that is reached, and an echo. */
export function cellsBetween(
  sources: readonly Place[],
  targets: readonly Place[],
  sourcePorts: readonly number[] = [],
): Cell[] {
  const cells: Cell[] = [];
  for (const from of sources) {
    for (const to of targets) {
      if (from === to) continue;
      for (const address of to.addresses) {
        const source = from.addresses.find(({ family }) => family === address.family);
        if (source === undefined) continue;
        for (const { protocol, port } of [...to.ports, { protocol: "ICMP", port: 0 } as const]) {
          const sourcePort = sourcePorts[cells.length % sourcePorts.length];
          const isBound = sourcePort !== undefined && protocol !== "ICMP";
          cells.push({ from, to, source, address, protocol, port, ...(isBound ? { sourcePort } : {}) });
        }
      }
    }
  }
  return cells;
}

const echoOf = (family: Family): { type: number; code: number } => ({ type: family === 4 ? 8 : 128, code: 0 });

function flowOf({ from, to, source, address, protocol, port, sourcePort = 40_000 }: Cell): Flow {
  const { family } = address;
  return {
    source: from.party(source),
    destination: to.party(address),
    family,
    ...(protocol === "ICMP"
      ? { protocol: icmpOf(family), icmp: echoOf(family) }
      : { protocol: PROTOCOL[protocol], sourcePort, destinationPort: port }),
  };
}

function cellText({ from, to, address, protocol, port, sourcePort }: Cell): string {
  const by = sourcePort === undefined ? "" : ` from port ${sourcePort}`;
  return `${from.name} to ${to.name} (${formatAddress(address)}) ${protocol} ${port}${by}`;
}

export interface Comparison {
  readonly allowed: number;
  readonly forbidden: number;
  /** Let through too late to be seen at once: the machine is busy. */
  readonly late: number;
  /** What is not as the evaluator says, with its reason. */
  readonly disagreements: readonly string[];
}

/** Most sockets of one process at a time. */
const AT_ONCE = 900;
/** What is held back says nothing. What is let through answers within a fraction of this, unless the machine is busy. */
const FIRST_MS = 150;
const SECOND_MS = 2500;

/**
 * Tries every cell. One that connects although it is forbidden is wrong at once; one that does not although it is
 * allowed is asked once more, with more patience.
 */
export function compare(world: World, cells: readonly Cell[]): Comparison {
  const evaluate = evaluatorOf(world);
  const evaluations = cells.map((cell) => evaluate(flowOf(cell)));
  const connected = tryAll(cells, FIRST_MS);
  const again = cells.flatMap((_, at) => (evaluations[at]!.allowed && connected[at] !== true ? [at] : []));
  const second = tryAll(
    again.map((at) => cells[at]!),
    SECOND_MS,
  );
  for (const [index, at] of again.entries()) connected[at] = second[index]!;
  const wrong = cells.flatMap((cell, at) =>
    connected[at] === evaluations[at]!.allowed
      ? []
      : [`${cellText(cell)}: ${outcome(connected[at]!, evaluations[at]!)}`],
  );
  const allowed = evaluations.filter((evaluation) => evaluation.allowed).length;
  return {
    allowed,
    forbidden: cells.length - allowed,
    late: second.filter(Boolean).length,
    disagreements: wrong,
  };
}

function outcome(connected: boolean, { steps }: Evaluation): string {
  const last = steps.at(-1);
  const why =
    last === undefined ? "nothing decides" : `${last.direction} of ${last.endpoint} ${JSON.stringify(last.decision)}`;
  return connected ? `connected although forbidden: ${why}` : `held back although allowed: ${why}`;
}

function tryAll(cells: readonly Cell[], timeoutMs: number): boolean[] {
  const targets = cells.map(({ from, address, protocol, port, sourcePort }) => ({
    netns: from.netns,
    address,
    protocol,
    port,
    ...(sourcePort === undefined ? {} : { sourcePort }),
  }));
  return probe(targets, timeoutMs, AT_ONCE);
}
