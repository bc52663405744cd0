/**
 * What policy says about a connection, from its source to its destination, and why: the plain meaning of all objects
 * together. It is slow and obvious on purpose; the compiler is tested against it, and people ask it for explanations.
 */
import { parseAddress } from "../ip/address.ts";
import { prefixContains } from "../ip/prefix.ts";
import type { ProtoPort } from "../resources/knob.ts";
import { EVERY_INTERFACE, hostEndpointsByInterface } from "./hostEndpoints.ts";
import { evaluateChain, type ChainResult, type ChainStage, type Decision } from "./evaluateChain.ts";
import { packetOf, sideOf, type Flow, type Side } from "./flow.ts";
import { directoryOf, type Directory, type Packet } from "./match.ts";
import {
  hasFamily,
  IPIP,
  LISTENER_REPORT_V2,
  NEIGHBOUR_DISCOVERY,
  parseNet,
  PROTOCOL,
  type Direction,
  type Endpoint,
} from "./model.ts";
import { withDrafts, type World } from "./world.ts";

/** One place on the packet's path at which policy decides. */
export interface Step extends ChainResult {
  readonly node: string;
  readonly endpoint: string;
  readonly direction: Direction;
  readonly stage: ChainStage | "to host";
}

export interface Evaluation {
  readonly allowed: boolean;
  /** In the order of the path; the last one denied, where the flow is not allowed. */
  readonly steps: readonly Step[];
  /** At the source's own door, and at the destination's: absent where there is none, or the packet never came to it. */
  readonly egress?: Step;
  readonly ingress?: Step;
  /** What would be with all drafts (staged policies) in force. Absent where there are none. */
  readonly withDrafts?: Evaluation;
}

/** Throws `PolicyError` for an endpoint that does not exist, or sides without addresses of one family. */
export function evaluate(world: World, flow: Flow): Evaluation {
  return evaluatorOf(world)(flow);
}

/** As `evaluate`, for many flows in a world that does not change meanwhile. */
export function evaluatorOf(world: World): (flow: Flow) => Evaluation {
  const enforced = directoryOf(world);
  const hasDrafts = [...world.policies.values()].some(({ draft }) => draft !== undefined);
  const drafted = hasDrafts ? directoryOf(withDrafts(world)) : undefined;
  return (flow) => {
    const evaluation = evaluateIn(enforced, flow);
    return drafted === undefined ? evaluation : { ...evaluation, withDrafts: evaluateIn(drafted, flow) };
  };
}

function evaluateIn(directory: Directory, flow: Flow): Evaluation {
  const { world } = directory;
  const packet = packetOf(world, flow);
  const source = sideOf(directory, flow.source, packet.source);
  const destination = sideOf(directory, flow.destination, packet.destination);
  const walk = walker(directory, flow, packet, source.node ?? destination.node);
  if (leave(walk, source, destination) && enter(walk, source, destination)) arrive(walk, source, destination);
  const { steps } = walk;
  const own = (side: Side, direction: Direction): Step | undefined =>
    steps.find(
      (step) =>
        step.direction === direction &&
        step.stage === "normal" &&
        step.node === side.node &&
        step.endpoint.startsWith(side.role === "workload" ? "wep/" : "hep/"),
    );
  const egress = own(source, "egress");
  const ingress = own(destination, "ingress");
  return {
    allowed: steps.at(-1)?.verdict !== "deny",
    steps,
    ...(egress === undefined ? {} : { egress }),
    ...(ingress === undefined ? {} : { ingress }),
  };
}

/** From the source to where its node hands the packet on (or over, where the destination is on the same node). */
function leave(walk: Walker, source: Side, destination: Side): boolean {
  const isLocal = source.node === destination.node;
  if (source.role === "outside") return true;
  if (source.role === "node") {
    // A process may always reach its own node's workloads: health probes do.
    if (isLocal) return true;
    const endpoint = walk.hostEndpoint(source.node, "out");
    if (endpoint === undefined) return true;
    return walk.host(endpoint, "egress", "untracked") !== "continue"
      ? !walk.denied()
      : walk.host(endpoint, "egress", "normal") !== "deny";
  }
  // A pod reaches itself without leaving its namespace.
  if (destination.role === "workload" && destination.endpoint.id === source.endpoint.id) return true;
  const everywhere = walk.hostEndpoint(source.node, "workload");
  const before = everywhere === undefined ? "continue" : walk.host(everywhere, "ingress", "preDNAT");
  if (before === "deny") return false;
  const isForwarded = destination.role !== "node" || !isLocal;
  if (isForwarded && before === "continue" && everywhere !== undefined) {
    if (walk.host(everywhere, "ingress", "forward") === "deny") return false;
  }
  if (!isForwarded && walk.isNeighbourDiscovery()) {
    walk.note(source.node, source.endpoint.id, "egress", "to host", "allow", { by: "neighbour discovery" });
    return true;
  }
  if (!walk.hasFamily(source.endpoint)) {
    walk.note(source.node, source.endpoint.id, "egress", "normal", "deny", { by: "family" });
    return false;
  }
  if (walk.isEncapsulated()) {
    walk.note(source.node, source.endpoint.id, "egress", "normal", "deny", { by: "encapsulation" });
    return false;
  }
  if (walk.chain(source.node, source.endpoint, "egress", "normal") === "deny") return false;
  if (!isForwarded) return toHost(walk, source, everywhere);
  if (isLocal) return true;
  const exit = walk.hostEndpoint(source.node, "out");
  return exit === undefined || walk.host(exit, "egress", "forward") !== "deny";
}

/** A workload to its own node. */
function toHost(walk: Walker, source: Side & { role: "workload" }, everywhere: Endpoint | undefined): boolean {
  const value = walk.world.settings.defaultEndpointToHostAction;
  if (walk.isToLoopback() && value !== "Drop" && value !== "Reject") {
    walk.note(source.node, source.endpoint.id, "egress", "to host", "deny", { by: "loopback" });
    return false;
  }
  if (value === "Return") return everywhere === undefined || walk.host(everywhere, "ingress", "normal") !== "deny";
  const verdict = value === "Accept" ? "allow" : "deny";
  const decision = { by: "setting", setting: "defaultEndpointToHostAction", value } as const;
  walk.note(source.node, source.endpoint.id, "egress", "to host", verdict, decision);
  return verdict === "allow";
}

/** Into the destination's node from elsewhere. */
function enter(walk: Walker, source: Side, destination: Side): boolean {
  if (destination.role === "outside" || source.node === destination.node) return true;
  const endpoint = walk.hostEndpoint(destination.node, "in");
  if (endpoint === undefined) return true;
  for (const stage of ["untracked", "preDNAT"] as const) {
    const verdict = walk.host(endpoint, "ingress", stage);
    if (verdict !== "continue") return verdict === "allow";
  }
  const stage = destination.role === "node" ? "normal" : "forward";
  return walk.host(endpoint, "ingress", stage) !== "deny";
}

/** Through the door of the destination itself. */
function arrive(walk: Walker, source: Side, destination: Side): void {
  if (destination.role !== "workload") return;
  const isLocal = source.node === destination.node;
  if (isLocal && source.role === "node") return;
  if (source.role === "workload" && source.endpoint.id === destination.endpoint.id) return;
  if (!walk.hasFamily(destination.endpoint)) {
    return walk.note(destination.node, destination.endpoint.id, "ingress", "normal", "deny", { by: "family" });
  }
  if (walk.chain(destination.node, destination.endpoint, "ingress", "normal") === "deny") return;
  const everywhere = walk.hostEndpoint(destination.node, "workload");
  if (everywhere !== undefined) walk.host(everywhere, "egress", "forward");
}

type Verdict = ChainResult["verdict"];

interface Walker {
  readonly world: World;
  readonly steps: Step[];
  denied(): boolean;
  note(
    node: string,
    endpoint: string,
    direction: Direction,
    stage: Step["stage"],
    verdict: Verdict,
    decision: Decision,
  ): void;
  chain(node: string, endpoint: Endpoint, direction: Direction, stage: ChainStage): Verdict;
  /** As `chain`, for a host endpoint, whose failsafe ports come first. */
  host(endpoint: Endpoint, direction: Direction, stage: ChainStage): Verdict;
  /** The host endpoint for the way out of a node, the way in, or the interfaces of its workloads. */
  hostEndpoint(node: string, way: "out" | "in" | "workload"): Endpoint | undefined;
  isEncapsulated(): boolean;
  isNeighbourDiscovery(): boolean;
  /** Whether it asks for what listens to the node itself, as nobody translated it to there. */
  isToLoopback(): boolean;
  /** Whether the workload may have to do with packets of the family. */
  hasFamily(endpoint: Endpoint): boolean;
}

/** @param first the node that the packet meets first, which translates its destination */
function walker(directory: Directory, flow: Flow, packet: Packet, first: string | undefined): Walker {
  const { world } = directory;
  const steps: Step[] = [];
  const sent: Packet = {
    ...packet,
    ...(flow.sentTo === undefined ? {} : { destination: parseAddress(flow.sentTo.address) }),
    ...(flow.sentTo?.port === undefined ? {} : { destinationPort: flow.sentTo.port }),
  };
  /** As the stage sees it: a node translates after the two early ones. */
  const seenAt = (node: string, stage: ChainStage): Packet =>
    node === first && (stage === "untracked" || stage === "preDNAT") ? sent : packet;
  const isListener = (types: readonly number[]): boolean =>
    packet.protocol === PROTOCOL.ICMPv6 && packet.family === 6 && types.includes(packet.icmp?.type ?? 0);
  const walk: Walker = {
    world,
    steps,
    denied: () => steps.at(-1)?.verdict === "deny",
    note(node, endpoint, direction, stage, verdict, decision) {
      steps.push({ node, endpoint, direction, stage, verdict, decision, tiers: [], profiles: [] });
    },
    chain(node, endpoint, direction, stage) {
      const result = evaluateChain(directory, endpoint, direction, stage, seenAt(node, stage));
      steps.push({ node, endpoint: endpoint.id, direction, stage, ...result });
      return result.verdict;
    },
    host(endpoint, direction, stage) {
      const node = endpoint.node ?? "";
      if (stage === "forward") return walk.chain(node, endpoint, direction, stage);
      const isDiscovery = isListener([...NEIGHBOUR_DISCOVERY, LISTENER_REPORT_V2]);
      const port = failsafe(world, direction, stage, seenAt(node, stage));
      if (!isDiscovery && port === undefined) return walk.chain(node, endpoint, direction, stage);
      // The early stages let it go on; only what the node itself sends or gets is free of the later ones.
      const verdict = stage === "normal" ? "allow" : "continue";
      const by: Decision = isDiscovery || port === undefined ? { by: "neighbour discovery" } : { by: "failsafe", port };
      walk.note(node, endpoint.id, direction, stage, verdict, by);
      return verdict;
    },
    hostEndpoint(node, way) {
      const interfaces = world.interfaces.get(node) ?? [];
      const own = [...world.endpoints.values()].filter(
        (endpoint) => endpoint.kind === "host" && endpoint.node === node,
      );
      const byInterface = hostEndpointsByInterface(own, interfaces);
      const every = byInterface.get(EVERY_INTERFACE);
      if (way === "workload") return every;
      const name = flow.interfaces?.[way] ?? interfaces[0]?.name;
      return name === undefined ? every : (byInterface.get(name) ?? every);
    },
    isEncapsulated() {
      const { allowIPIPPacketsFromWorkloads, allowVXLANPacketsFromWorkloads, vxlanPort } = world.settings;
      if (packet.protocol === IPIP) return !allowIPIPPacketsFromWorkloads;
      const isVxlan = packet.protocol === PROTOCOL.UDP && packet.destinationPort === vxlanPort;
      return isVxlan && !allowVXLANPacketsFromWorkloads;
    },
    isNeighbourDiscovery: () => isListener(NEIGHBOUR_DISCOVERY),
    isToLoopback: () => flow.sentTo === undefined && prefixContains(LOOPBACK, packet.destination),
    hasFamily: ({ nets, local }) => hasFamily([...nets, ...(local?.allowedSourcePrefixes ?? [])], packet.family),
  };
  return walk;
}

/** IPv6's, ::1, no other machine can be asked for. */
const LOOPBACK = parseNet("127.0.0.0/8");

/** The port of the packet that is always open at host endpoints, if it is one. */
function failsafe({ settings }: World, direction: Direction, stage: ChainStage, packet: Packet): number | undefined {
  const isInbound = direction === "ingress";
  const [inbound, outbound] = [settings.failsafeInboundHostPorts, settings.failsafeOutboundHostPorts];
  const peer = isInbound ? packet.source : packet.destination;
  const isOpen =
    (own: number | undefined) =>
    ({ protocol, port, net }: ProtoPort): boolean =>
      PROTOCOL[protocol] === packet.protocol &&
      port === own &&
      (net === undefined || prefixContains(parseNet(net), peer));
  const asked = (isInbound ? inbound : outbound).find(isOpen(packet.destinationPort));
  if (asked !== undefined || stage !== "untracked") return asked?.port;
  // Before connections are told apart, what comes from such a port has to be taken for an answer.
  return (isInbound ? outbound : inbound).find(isOpen(packet.sourcePort))?.port;
}
