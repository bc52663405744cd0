import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { formatAddress, parseAddress, type Address } from "../ip/address.ts";
import { anyHistory, anyPacket, NODES } from "../policy/anyWorld.testing.ts";
import { evaluatorOf } from "../policy/evaluate.ts";
import { sideOf, type Flow } from "../policy/flow.ts";
import { directoryOf, type Packet } from "../policy/match.ts";
import { DEFAULT_ALLOW } from "../policy/convertPolicy.ts";
import {
  LISTENER_REPORT_V2,
  NEIGHBOUR_DISCOVERY,
  type HostInterface,
  type Rule,
  type Update,
} from "../policy/model.ts";
import { SETTINGS } from "../policy/world.testing.ts";
import { applyUpdate, emptyWorld, type PolicySettings, type World } from "../policy/world.ts";
import { factsFor, journey, nodeOf, packetText } from "./ruleWorld.testing.ts";

/** How many worlds are tried: more for a long search (CARACAL_POLICY_RUNS=10000). */
const RUNS = Number(process.env["CARACAL_POLICY_RUNS"] ?? 120);

const INTERFACES: Record<string, readonly HostInterface[]> = {
  node1: [
    { name: "eth0", addresses: ["10.0.0.1", "2001:db8:1::2"] },
    { name: "eth1", addresses: ["10.0.0.2", "2001:db8::1"] },
  ],
  node2: [{ name: "eth0", addresses: ["10.0.0.3", "2001:db8:2::1"] }],
};

const anySettings: fc.Arbitrary<PolicySettings> = fc
  .record({
    defaultEndpointToHostAction: fc.constantFrom("Accept", "Drop", "Reject", "Return", "Return"),
    failsafeInboundHostPorts: fc.constantFrom<PolicySettings["failsafeInboundHostPorts"]>(
      [],
      [{ protocol: "TCP", port: 81 }],
      [{ protocol: "TCP", port: 80 }],
      [{ protocol: "UDP", port: 81, net: "10.0.0.0/30" }],
      [{ protocol: "TCP", port: 8080, net: "0.0.0.0/0" }],
    ),
    failsafeOutboundHostPorts: fc.constantFrom<PolicySettings["failsafeOutboundHostPorts"]>(
      [],
      [{ protocol: "TCP", port: 8080, net: "2001:db8::/32" }],
      [{ protocol: "UDP", port: 81 }],
      [{ protocol: "TCP", port: 80, net: "10.0.0.0/30" }],
    ),
    allowVXLANPacketsFromWorkloads: fc.boolean(),
    vxlanPort: fc.constantFrom(4789, 81),
  })
  .map((settings) => ({ ...SETTINGS, ...settings }));

/**
 * Random worlds deny nearly everything, for many a reason. Here most endpoints have a profile that allows, and most policies
 * end with a rule for all packets, so that each way through the chains is taken by some.
 */
const anyEasyHistory: fc.Arbitrary<readonly Update[]> = fc
  .tuple(anyHistory, fc.array(fc.nat(9), { minLength: 40, maxLength: 40 }))
  .map(([history, dice]) => history.map((update, at) => eased(update, dice[at] ?? 0)));

const LAST: readonly Rule["action"][] = ["allow", "allow", "allow", "pass", "pass", "deny"];

function eased(update: Update, die: number): Update {
  if (die < 2 || update.value === undefined) return update;
  if (update.kind === "endpoint") return { ...update, value: { ...update.value, profiles: [DEFAULT_ALLOW] } };
  const action = LAST[die - 2];
  if (update.kind !== "policy" || action === undefined) return update;
  const last: Rule = { action, source: {}, destination: {}, origin: "last" };
  const [ingress, egress] = [update.value.ingress, update.value.egress].map((rules) => [...rules, last]);
  assert.ok(ingress !== undefined && egress !== undefined);
  return { ...update, value: { ...update.value, ingress, egress } };
}

/** Addresses of services, some of which policy names. */
const SERVICES = { 4: ["10.0.1.9", "198.51.100.9"], 6: ["2001:db8::9"] } as const;

/** A packet, and where it was sent before its destination was translated. */
interface Sent {
  readonly packet: Packet;
  readonly sentTo: Address | undefined;
}

/** A node's own address of the family, or the one given. */
const ownAddress = (node: string, given: Address): Address =>
  (INTERFACES[node]?.[0]?.addresses ?? []).map(parseAddress).find(({ family }) => family === given.family) ?? given;

/** Many are of nodes or to nodes, or translated, and many are those without which IPv6 does not work, or nearly so. */
const anySent: fc.Arbitrary<Sent> = fc
  .record({
    given: anyPacket,
    nodes: fc.tuple(...[1, 2].map(() => fc.constantFrom(undefined, undefined, ...NODES))),
    type: fc.constantFrom(undefined, ...NEIGHBOUR_DISCOVERY, LISTENER_REPORT_V2, 129, 137),
    service: fc.nat(4),
  })
  .map(({ given, nodes: [from, to], type, service }) => {
    const [source, destination] = [from, to].map((node, at) => {
      const address = at === 0 ? given.source : given.destination;
      return node === undefined ? address : ownAddress(node, address);
    }) as [Address, Address];
    const icmp = given.icmp === undefined || type === undefined ? {} : { icmp: { type, code: 0 } };
    return {
      packet: { ...given, source, destination, ...icmp },
      sentTo: [SERVICES[given.family][service]].flatMap((text) => text ?? []).map(parseAddress)[0],
    };
  });

function flowOf({ packet, sentTo }: Sent): Flow {
  const { source, destination, family, ...rest } = packet;
  return {
    ...rest,
    family,
    source: { address: formatAddress(source) },
    destination: { address: formatAddress(destination) },
    ...(sentTo === undefined ? {} : { sentTo: { address: formatAddress(sentTo) } }),
  };
}

/** The packet gets through all rulesets of all nodes on its way exactly where the evaluator allows it. */
function checkVerdicts(world: World, settings: PolicySettings, all: readonly Sent[], mark: number): number {
  const facts = factsFor(settings, {
    settings: { interfacePrefix: ["wep"] },
    renderer: { sharesHooks: mark % 3 === 0 },
    nflog: mark % 2 === 0,
  });
  const nodes = new Map(NODES.map((node) => [node, nodeOf(world, node, facts)]));
  const directory = directoryOf(world);
  const evaluate = evaluatorOf(world);
  let compared = 0;
  for (const sent of all) {
    const { packet, sentTo } = sent;
    const flow = flowOf(sent);
    const source = sideOf(directory, flow.source, packet.source);
    const destination = sideOf(directory, flow.destination, packet.destination);
    if (source.role === "outside" && destination.role === "outside") continue;
    const isItself =
      source.role === "workload" && destination.role === "workload" && source.endpoint.id === destination.endpoint.id;
    if (isItself) continue;
    const { allowed, steps } = evaluate(flow);
    const fate = journey(nodes, world, source, destination, packet, { mark, sentTo });
    compared += 1;
    const why = steps.map((step) => `${step.node} ${step.endpoint} ${step.direction} ${step.stage} ${step.verdict}`);
    assert.equal(fate === "accept", allowed, `${packetText(packet)}: ${fate}, but ${why.join("; ")}`);
  }
  return compared;
}

describe("the ruleset says what the evaluator says", () => {
  test("of any world, between workloads, nodes and others, on all nodes of the way", () => {
    let compared = 0;
    fc.assert(
      fc.property(
        anyEasyHistory,
        anySettings,
        fc.array(anySent, { minLength: 16, maxLength: 16 }),
        fc.integer({ min: 0, max: 2 ** 32 - 1 }),
        (history, settings, packets, mark) => {
          const world = emptyWorld(settings);
          for (const [node, list] of Object.entries(INTERFACES)) world.interfaces.set(node, list);
          for (const update of history) applyUpdate(world, update);
          compared += checkVerdicts(world, settings, packets, mark);
        },
      ),
      { numRuns: RUNS },
    );
    assert.ok(compared > RUNS, "hardly any packet had a way");
  });
});
