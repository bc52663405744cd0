import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { worldOf } from "../policy/world.testing.ts";
import { pass, travelling, type Fate, type Travelling } from "./packetPath.testing.ts";
import { HOST, object, OUT, packetOf, PODS, policy, X, Y } from "./packetTable.testing.ts";
import type { Hook, RuleChain } from "./ruleset.ts";
import type { Ruleset } from "./ruleset.testing.ts";
import { factsOf, nodeOf } from "./ruleWorld.testing.ts";

const DROP: RuleChain["rules"] = [{ matches: [], actions: [{ do: "drop" }] }];

/** The ruleset after the kernel refused the chain. */
function without(ruleset: Ruleset, key: string): Ruleset {
  const refused = ruleset.chains.get(key);
  assert.ok(refused !== undefined);
  const rules = refused.instead ?? (refused.layer === "nat" ? [] : DROP);
  return { ...ruleset, chains: new Map([...ruleset.chains, [key, { ...refused, rules }]]) };
}

/** After it refused one of our rules in a hook. */
function withoutHook(ruleset: Ruleset, layer: string, hook: string): Ruleset {
  const isIt = (of: { layer: string; hook: string }): boolean => of.layer === layer && of.hook === hook;
  const hooks = ruleset.hooks.flatMap((each) =>
    isIt(each) ? (each.instead ?? []).map((rule) => ({ ...each, rule })) : [each],
  );
  return { ...ruleset, hooks };
}

interface Way {
  readonly name: string;
  readonly hooks: readonly Hook[];
  readonly packet: string;
  readonly given: Partial<Travelling>;
}

const IN: readonly Hook[] = ["PREROUTING", "INPUT"];
const OUTWARDS: readonly Hook[] = ["OUTPUT", "POSTROUTING"];
const THROUGH: readonly Hook[] = ["PREROUTING", "FORWARD", "POSTROUTING"];

/** What keeps a node within reach. */
const REACH: readonly Way[] = [
  { name: "ssh", hooks: IN, packet: `${OUT}#1 > 192.0.2.1#22 TCP`, given: { in: "eth0" } },
  {
    name: "its answers",
    hooks: OUTWARDS,
    packet: `192.0.2.1#22 > ${OUT}#1 TCP`,
    given: { out: "eth0", state: "established" },
  },
  { name: "a question of the node", hooks: OUTWARDS, packet: `192.0.2.1#9 > ${OUT}#53 UDP`, given: { out: "eth0" } },
  {
    name: "the answer",
    hooks: IN,
    packet: `${OUT}#53 > 192.0.2.1#9 UDP`,
    given: { in: "eth0", state: "established" },
  },
  { name: "the node with itself", hooks: OUTWARDS, packet: "192.0.2.1#9 > 192.0.2.1#80 TCP", given: { out: "lo" } },
  { name: "what comes of that", hooks: IN, packet: "192.0.2.1#9 > 192.0.2.1#80 TCP", given: { in: "lo" } },
  { name: "a health probe", hooks: OUTWARDS, packet: "192.0.2.1#9 > 10.1.0.1#80 TCP", given: { out: X } },
];

/** What policy forbids workloads, and host endpoints. */
const FORBIDDEN: readonly Way[] = [
  { name: "out of a pod", hooks: THROUGH, packet: `10.1.0.1#1 > ${OUT}#80 TCP`, given: { in: X, out: "eth0" } },
  { name: "from pod to pod", hooks: THROUGH, packet: "10.1.0.1#1 > 10.1.0.2#80 TCP", given: { in: X, out: Y } },
  { name: "into a pod", hooks: THROUGH, packet: `${OUT}#1 > 10.1.0.1#80 TCP`, given: { in: "eth0", out: X } },
  { name: "from a pod to its node", hooks: IN, packet: "10.1.0.1#1 > 192.0.2.1#80 TCP", given: { in: X } },
  {
    name: "by an unknown interface",
    hooks: THROUGH,
    packet: `10.1.0.9#1 > ${OUT}#80 TCP`,
    given: { in: "cali0", out: "eth0" },
  },
];

const SHUT = policy("{selector: all(), types: [Ingress, Egress]}", "shut");
const EVERY = object("HostEndpoint", "all", "{node: node1, interfaceName: '*'}");
const TUNNELS = factsOf({
  tunnels: [
    { kind: "vxlan", family: 4, device: "vxlan.calico", addresses: ["10.1.0.0"] },
    { kind: "ipip", family: 4, device: "tunl0", addresses: ["10.1.0.0"] },
  ],
});

describe("a chain that the kernel refuses lets no workload's packet through, and leaves the node within reach", () => {
  for (const [name, objects] of [
    ["without host endpoints", []],
    ["with one of an interface", [HOST]],
    ["with one of all interfaces", [EVERY]],
  ] as const) {
    test(name, () => {
      const world = worldOf([...PODS, ...objects, SHUT], {
        interfaces: { node1: [{ name: "eth0", addresses: ["192.0.2.1", "2001:db8:f::1"] }] },
      });
      const whole = nodeOf(world, "node1", TUNNELS).rulesets[4];
      const fateIn = (ruleset: Ruleset, { hooks, packet, given }: Way): Fate =>
        pass(ruleset, hooks, travelling(packetOf(packet), given), { local: ["192.0.2.1"], isReversePath: true });
      const everyOne: [string, Ruleset][] = [
        ["none", whole],
        ...[...whole.chains.keys()].map((key): [string, Ruleset] => [key, without(whole, key)]),
        ...whole.hooks.map(({ layer, hook }): [string, Ruleset] => [
          `hook ${layer} ${hook}`,
          withoutHook(whole, layer, hook),
        ]),
      ];
      for (const [refused, ruleset] of everyOne) {
        for (const way of REACH) {
          // Failsafe ports are what is refused then, and a host endpoint's own policy decides.
          const isShut = objects.length > 0 && refused.includes("failsafe");
          if (!isShut) assert.equal(fateIn(ruleset, way), "accept", `${refused} refused: ${way.name}`);
        }
        for (const way of FORBIDDEN) assert.notEqual(fateIn(ruleset, way), "accept", `${refused} refused: ${way.name}`);
      }
      assert.ok(everyOne.length > (objects.length > 0 ? 40 : 20));
    });
  }

  test("nobody may hand in packets that carry packets where the set of those who may is refused", () => {
    const whole = nodeOf(worldOf(PODS), "node1", TUNNELS).rulesets[4];
    for (const packet of [`${OUT} > 192.0.2.1 4`, `${OUT}#1 > 192.0.2.1#4789 UDP`]) {
      const fate = pass(without(whole, "filter/cali-INPUT"), IN, travelling(packetOf(packet), { in: "eth0" }), {
        local: ["192.0.2.1"],
        isReversePath: true,
      });
      assert.equal(fate, "drop");
    }
  });
});
