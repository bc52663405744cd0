import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { formatAddress } from "../ip/address.ts";
import { anyHistory, anyPacket, NODES } from "../policy/anyWorld.testing.ts";
import { evaluatorOf } from "../policy/evaluate.ts";
import { sideOf, type Flow } from "../policy/flow.ts";
import { directoryOf, type Packet } from "../policy/match.ts";
import { DEFAULT_ALLOW } from "../policy/convertPolicy.ts";
import type { HostInterface, Rule, Update } from "../policy/model.ts";
import { SETTINGS } from "../policy/world.testing.ts";
import { applyUpdate, emptyWorld, type PolicySettings, type World } from "../policy/world.ts";
import { factsFor, journey, nodeOf, packetText } from "./ruleWorld.testing.ts";

/** How many worlds are tried: more for a long search (CARACAL_POLICY_RUNS=10000). */
const RUNS = Number(process.env["CARACAL_POLICY_RUNS"] ?? 120);

const INTERFACES: Record<string, readonly HostInterface[]> = {
  node1: [
    { name: "eth0", addresses: ["10.0.0.1"] },
    { name: "eth1", addresses: ["10.0.0.2", "2001:db8::1"] },
  ],
  node2: [{ name: "eth0", addresses: ["10.0.0.3", "2001:db8:2::1"] }],
};

/**
 * Failsafe ports are none that packets here come from: raw takes what comes from such a port for a reply, and lets it on,
 * while the evaluator speaks of first packets only.
 */
const anySettings: fc.Arbitrary<PolicySettings> = fc
  .record({
    defaultEndpointToHostAction: fc.constantFrom("Accept", "Drop", "Reject", "Return", "Return"),
    failsafeInboundHostPorts: fc.constantFrom<PolicySettings["failsafeInboundHostPorts"]>(
      [],
      [{ protocol: "TCP", port: 81 }],
      [{ protocol: "UDP", port: 81, net: "10.0.0.0/30" }],
      [{ protocol: "TCP", port: 8080, net: "0.0.0.0/0" }],
    ),
    failsafeOutboundHostPorts: fc.constantFrom<PolicySettings["failsafeOutboundHostPorts"]>(
      [],
      [{ protocol: "TCP", port: 8080, net: "2001:db8::/32" }],
      [{ protocol: "UDP", port: 81 }],
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

function flowOf(packet: Packet): Flow {
  const { source, destination, family, ...rest } = packet;
  return {
    ...rest,
    family,
    source: { address: formatAddress(source) },
    destination: { address: formatAddress(destination) },
  };
}

/** The packet gets through all rulesets of all nodes on its way exactly where the evaluator allows it. */
function checkVerdicts(world: World, settings: PolicySettings, packets: readonly Packet[], mark: number): number {
  const facts = factsFor(settings, { settings: { interfacePrefix: ["wep"] }, nflog: mark % 2 === 0 });
  const nodes = new Map(NODES.map((node) => [node, nodeOf(world, node, facts)]));
  const directory = directoryOf(world);
  const evaluate = evaluatorOf(world);
  let compared = 0;
  for (const packet of packets) {
    const flow = flowOf(packet);
    const source = sideOf(directory, flow.source, packet.source);
    const destination = sideOf(directory, flow.destination, packet.destination);
    if (source.role === "outside" && destination.role === "outside") continue;
    const isItself =
      source.role === "workload" && destination.role === "workload" && source.endpoint.id === destination.endpoint.id;
    if (isItself) continue;
    const { allowed, steps } = evaluate(flow);
    const fate = journey(nodes, world, source, destination, packet, mark);
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
        fc.array(anyPacket, { minLength: 16, maxLength: 16 }),
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
