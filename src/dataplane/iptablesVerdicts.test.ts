import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { anyHistory, anyPacket } from "../policy/anyWorld.testing.ts";
import { SETTINGS } from "../policy/world.testing.ts";
import { applyUpdate, emptyWorld } from "../policy/world.ts";
import { ipsetMembers } from "./ipsetText.ts";
import { runLines, type Machine } from "./iptablesMachine.testing.ts";
import { iptablesModel } from "./iptablesModel.ts";
import { setName } from "./iptablesNames.ts";
import { scratchMarks } from "./iptablesRender.ts";
import { LAYERS } from "./iptablesSave.ts";
import { passHook, travelling, type Surroundings, type Travelling } from "./packetPath.testing.ts";
import { factsFor, nodeOf } from "./ruleWorld.testing.ts";
import type { Hook, Layer } from "./ruleset.ts";
import type { Ruleset } from "./ruleset.testing.ts";

/** How many worlds are tried: more for a long search (CARACAL_POLICY_RUNS=10000). */
const RUNS = Number(process.env["CARACAL_POLICY_RUNS"] ?? 15);
const MASK = 0xffff0000;
const SCRATCH = scratchMarks(MASK);

function machineOf(ruleset: Ruleset): {
  machine: Omit<Machine, "chains" | "surroundings">;
  model: ReturnType<typeof iptablesModel>;
} {
  const { family, chains, maps, hooks, sets } = ruleset;
  const model = iptablesModel(family, SCRATCH);
  model.change({ family, chains, maps, hooks, sets: [] });
  assert.deepEqual(model.refusals(), []);
  const members = [...sets].map(([id, set]) => [setName(family, id), ipsetMembers(family, set.members)] as const);
  return { model, machine: { sets: new Map(members) } };
}

const HOOKS: readonly Hook[] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/** What is left of a packet's way, without what is nobody's, and counters, which stand elsewhere where a rule logs. */
const trace = (one: Travelling): object => ({
  ...one,
  mark: (one.mark & ~(SCRATCH.all | SCRATCH.block)) >>> 0,
  noted: one.noted.toSorted(),
});

describe("rules that a node has of policy", () => {
  test("do in iptables what they say, in every hook of every table", () => {
    let dropped = 0;
    fc.assert(
      fc.property(
        anyHistory,
        fc.array(anyPacket, { minLength: 6, maxLength: 6 }),
        fc.array(fc.nat(), { minLength: 6, maxLength: 6 }),
        (history, packets, dice) => {
          const world = emptyWorld(SETTINGS);
          world.interfaces.set("node1", [{ name: "eth0", addresses: ["10.0.0.1"] }]);
          for (const update of history) applyUpdate(world, update);
          const facts = factsFor(SETTINGS, { settings: { interfacePrefix: ["wep"] }, nflog: dice[0]! % 2 === 0 });
          const { rulesets } = nodeOf(world, "node1", facts);
          const made = { 4: machineOf(rulesets[4]), 6: machineOf(rulesets[6]) };
          for (const [index, packet] of packets.entries()) {
            const ruleset = rulesets[packet.family];
            const { model, machine } = made[packet.family];
            const names = [...[...ruleset.maps.values()].flatMap(({ entries }) => [...entries.keys()]), "eth0", "wep9"];
            const die = dice[index]!;
            const surroundings: Surroundings = { local: ["10.0.0.1"], isReversePath: die % 3 !== 0 };
            const given = {
              in: names[die % names.length]!,
              out: names[(die >> 8) % names.length]!,
              mark: ((die << 13) & 0x70000) >>> 0,
              state: die % 5 === 0 ? "established" : "new",
            } as const;
            for (const layer of LAYERS) {
              for (const hook of HOOKS) {
                const hooked = model.tables[layer].hooks.get(hook);
                if (hooked === undefined || (layer === "nat" && given.state !== "new")) continue;
                const [plain, run] = [
                  travelling(packet, { ...given, noted: [] }),
                  travelling(packet, { ...given, noted: [] }),
                ];
                const expected = passHook(only(ruleset, layer), hook, plain, surroundings);
                const lines = [...hooked.first.lines, ...hooked.last.lines];
                const outcome = runLines({ ...machine, surroundings, chains: model.tables[layer].chains }, lines, run);
                assert.equal(outcome === "end" ? "accept" : outcome, expected, `${layer} ${hook}`);
                assert.deepEqual(trace(run), trace(plain));
                if (expected !== "accept") dropped += 1;
              }
            }
          }
        },
      ),
      { numRuns: RUNS },
    );
    assert.ok(dropped > RUNS, "hardly any packet was dropped");
  });
});

const only = (ruleset: Ruleset, layer: Layer): Ruleset => ({
  ...ruleset,
  hooks: ruleset.hooks.filter((each) => each.layer === layer),
});
