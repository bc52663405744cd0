/** Nodes with rules, in a few lines: worlds compiled and built for each node, and packets sent through them. */
import assert from "node:assert/strict";
import { formatAddress, type Address, type Family } from "../ip/address.ts";
import { compiler, type Compiler, type Difference } from "../policy/compile.ts";
import type { Side } from "../policy/flow.ts";
import type { Packet } from "../policy/match.ts";
import type { Endpoint, Update } from "../policy/model.ts";
import { SETTINGS } from "../policy/world.testing.ts";
import type { PolicySettings, World } from "../policy/world.ts";
import type { NodeFacts, RulesetSettings } from "./nodeFacts.ts";
import { pass, travelling, type Fate, type Surroundings, type Travelling } from "./packetPath.testing.ts";
import type { ChainRule } from "./ruleset.ts";
import { rulesetBuilder, type RulesetBuilder } from "./rulesetBuilder.ts";
import { emptyRuleset, follow, type Ruleset } from "./ruleset.testing.ts";

/** Felix's initial values, with as few failsafe ports as policy's tests have. */
const RULESET_SETTINGS: RulesetSettings = {
  ...SETTINGS,
  interfacePrefix: ["cali"],
  chainInsertMode: "Insert",
  disableConntrackInvalidCheck: false,
  workloadSourceSpoofing: "Disabled",
  floatingIPs: "Disabled",
  serviceLoopPrevention: "Drop",
  natPortRange: undefined,
  natOutgoingAddress: "",
  natOutgoingExclusions: "IPPoolsOnly",
  iptablesNATOutgoingInterfaceFilter: "",
  logPrefix: "calico-packet",
  logActionRateLimit: "",
  logActionRateLimitBurst: 5,
};

export type GivenFacts = Partial<Omit<NodeFacts, "settings" | "renderer">> & {
  readonly settings?: Partial<RulesetSettings>;
  readonly renderer?: Partial<NodeFacts["renderer"]>;
};

export function factsOf({ settings = {}, renderer = {}, ...rest }: GivenFacts = {}): NodeFacts {
  return {
    settings: { ...RULESET_SETTINGS, ...settings },
    renderer: {
      markMask: 0xffff0000,
      filterAllowAction: "Accept",
      filterDenyAction: "Drop",
      mangleAllowAction: "Accept",
      sharesHooks: false,
      ...renderer,
    },
    tunnels: [],
    hosts: [],
    vxlanHosts: [],
    pools: [],
    serviceCidrs: [],
    nflog: false,
    ...rest,
  };
}

/** The rulesets of one node that follow its builder. */
export interface RuleNode {
  readonly builder: RulesetBuilder;
  readonly rulesets: Readonly<Record<Family, Ruleset>>;
  /** Takes what changed. */
  refresh(): void;
}

export function ruleNode(families?: readonly Family[]): RuleNode {
  const builder = rulesetBuilder(families);
  const rulesets = { 4: emptyRuleset(4), 6: emptyRuleset(6) };
  return {
    builder,
    rulesets,
    refresh: () => builder.take().forEach((change) => follow(rulesets[change.family], change)),
  };
}

/** A node that is told a world at once. */
export function nodeOf(world: World, node: string, facts: NodeFacts): RuleNode {
  const made = ruleNode();
  made.builder.setFacts(facts);
  made.builder.update(compiledDifference(world, node));
  made.refresh();
  return made;
}

function compiledDifference(world: World, node: string): Difference {
  const made: Compiler = compiler(node);
  made.setInterfaces(world.interfaces.get(node) ?? []);
  const { tiers: tier, profiles: profile, endpoints: endpoint, policies: policy, slices: slice } = world;
  for (const [kind, table] of Object.entries({ tier, profile, endpoint, policy, slice })) {
    for (const [id, value] of table) made.update({ kind, id, value } as Update);
  }
  return made.take();
}

/** Facts that say the same as a world's settings. */
export function factsFor(settings: PolicySettings, given: GivenFacts = {}): NodeFacts {
  return factsOf({ ...given, settings: { ...settings, ...given.settings } });
}

const PASSING: Surroundings = { local: [], isReversePath: true };

/** What else there is to a journey. */
export interface Journey {
  /** Of the packet at first. */
  readonly mark?: number;
  /** Where it was sent: the first node that it meets translates that. */
  readonly sentTo?: Address | undefined;
}

/** As others' rules do it, before ours are asked. */
function translating(ruleset: Ruleset, from: Address, to: Address): Ruleset {
  const [sent, meant] = [formatAddress(from), formatAddress(to)];
  const rule: ChainRule = {
    matches: [{ on: "address", side: "destination", nets: [sent] }],
    actions: [{ do: "dnat", to: meant }],
  };
  const hooks = (["PREROUTING", "OUTPUT"] as const).map(
    (hook) => ({ layer: "nat", hook, place: "first", rule }) as const,
  );
  return { ...ruleset, hooks: [...hooks, ...ruleset.hooks] };
}

/**
 * What becomes of a connection's first packet on all nodes on its way, each of which has one interface to the others, its
 * first. A node's own packets to itself go by `lo`.
 */
export function journey(
  nodes: ReadonlyMap<string, RuleNode>,
  world: World,
  source: Side,
  destination: Side,
  packet: Packet,
  { mark = 0, sentTo }: Journey = {},
): Fate {
  const isFirst = (node: string): boolean => node === (source.node ?? destination.node);
  const ruleset = (node: string): Ruleset => {
    const found = nodes.get(node)?.rulesets[packet.family];
    assert.ok(found !== undefined, `there is no node ${node}`);
    return sentTo !== undefined && isFirst(node) ? translating(found, sentTo, packet.destination) : found;
  };
  const uplink = (node: string): string => world.interfaces.get(node)?.[0]?.name ?? "eth0";
  const send = (node: string, hooks: Parameters<typeof pass>[1], given: Partial<Travelling>): Fate => {
    const isAsSent = sentTo !== undefined && isFirst(node);
    const one = travelling(isAsSent ? { ...packet, destination: sentTo } : packet, { mark, ...given });
    const fate = pass(ruleset(node), hooks, one, PASSING);
    assert.equal((one.mark & 0xffff) >>> 0, (mark & 0xffff) >>> 0, "bits of others' changed");
    return fate;
  };
  let fate: Fate = "accept";
  const isWithin = source.node !== undefined && source.node === destination.node;
  if (source.role === "node") {
    if (isWithin && destination.role === "node") {
      fate = send(source.node, ["OUTPUT", "POSTROUTING"], { out: "lo" });
      return fate === "accept" ? send(source.node, ["PREROUTING", "INPUT"], { in: "lo" }) : fate;
    }
    const out = isWithin ? doorOf(destination) : uplink(source.node);
    fate = send(source.node, ["OUTPUT", "POSTROUTING"], { out });
  } else if (source.role === "workload") {
    const arriving = { in: doorOf(source) };
    if (isWithin && destination.role === "node") return send(source.node, ["PREROUTING", "INPUT"], arriving);
    const out = isWithin ? doorOf(destination) : uplink(source.node);
    fate = send(source.node, ["PREROUTING", "FORWARD", "POSTROUTING"], { ...arriving, out });
  }
  if (fate !== "accept" || isWithin || destination.role === "outside") return fate;
  const arriving = { in: uplink(destination.node) };
  if (destination.role === "node") return send(destination.node, ["PREROUTING", "INPUT"], arriving);
  return send(destination.node, ["PREROUTING", "FORWARD", "POSTROUTING"], { ...arriving, out: doorOf(destination) });
}

function doorOf(side: Side): string {
  assert.ok(side.role === "workload");
  const { interfaceName }: Endpoint = side.endpoint;
  assert.ok(interfaceName !== undefined);
  return interfaceName;
}

/** `10.0.0.1:40000 > 10.0.0.2:80 protocol 6`, for messages. */
export function packetText({ source, destination, protocol, sourcePort, destinationPort, icmp }: Packet): string {
  const port = (number: number | undefined): string => (number === undefined ? "" : `#${number}`);
  const what = icmp === undefined ? "" : ` ${icmp.type}/${icmp.code}`;
  return `${formatAddress(source)}${port(sourcePort)} > ${formatAddress(destination)}${port(destinationPort)} protocol ${protocol}${what}`;
}
