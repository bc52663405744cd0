import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Family } from "../ip/address.ts";
import { anyJourney, anyRuleset } from "./anyRules.testing.ts";
import { runLines, type Machine } from "./iptablesMachine.testing.ts";
import { setName } from "./iptablesNames.ts";
import { renderChain, renderRule, scratchMarks, type RenderContext } from "./iptablesRender.ts";
import { passHook, type Travelling } from "./packetPath.testing.ts";
import { chainKeyOf, type ChainRule, type DispatchMap, type Layer, type Match, type RuleAction } from "./ruleset.ts";
import type { Ruleset } from "./ruleset.testing.ts";

/** How many rulesets are tried: more for a long search (CARACAL_POLICY_RUNS=10000). */
const RUNS = Number(process.env["CARACAL_POLICY_RUNS"] ?? 150);
const SCRATCH = scratchMarks(0xffff0000);

function contextOf(family: Family, layer: Layer, maps: ReadonlyMap<string, DispatchMap> = new Map()): RenderContext {
  return { family, layer, scratch: SCRATCH, mapOf: (name) => maps.get(chainKeyOf({ layer, name })) };
}

function machineOf({ family, chains, maps, sets }: Ruleset): Omit<Machine, "surroundings"> {
  const rendered = [...chains.values()].flatMap((chain) => renderChain(chain, contextOf(family, chain.layer, maps)));
  assert.equal(new Set(rendered.map(({ name }) => name)).size, rendered.length, "two chains have one name");
  return {
    chains: new Map(rendered.map((chain) => [chain.name, chain])),
    sets: new Map([...sets].map(([id, { members }]) => [setName(family, id), members])),
  };
}

/** What is left of a packet's way, without what is nobody's. */
function trace(one: Travelling): object {
  return { ...one, mark: (one.mark & ~(SCRATCH.all | SCRATCH.block)) >>> 0 };
}

const clone = (one: Travelling): Travelling => ({ ...one, noted: [] });

describe("rules of iptables", () => {
  for (const family of [4, 6] as const) {
    test(`do with IPv${family} packets what the ruleset says`, () => {
      const layer = "raw";
      fc.assert(
        fc.property(
          anyRuleset(family, layer),
          fc.array(anyJourney(family), { minLength: 8, maxLength: 8 }),
          (ruleset, journeys) => {
            const machine = machineOf(ruleset);
            const hooks = ruleset.hooks.flatMap(({ rule }) => renderRule(rule, contextOf(family, layer)));
            for (const { one, surroundings } of journeys) {
              const [plain, run] = [clone(one), clone(one)];
              const expected = passHook(ruleset, "PREROUTING", plain, surroundings);
              const outcome = runLines({ ...machine, surroundings }, hooks, run);
              assert.equal(outcome === "end" ? "accept" : outcome, expected);
              assert.deepEqual(trace(run), trace(plain));
            }
          },
        ),
        { numRuns: RUNS },
      );
    });
  }
});

/** The options of a rule, as they stand in a chain. */
function lines(
  matches: readonly Match[],
  actions: readonly RuleAction[] = [{ do: "accept" }],
  layer: Layer = "filter",
): string[] {
  return renderRule({ matches, actions }, contextOf(4, layer)).map(({ options }) => options);
}

const tcp: Match = { on: "protocol", protocols: [6] };
const from = (...nets: string[]): Match => ({ on: "address", side: "source", nets });
const to = (...nets: string[]): Match => ({ on: "address", side: "destination", nets });
const port = (first: number, last = first): { first: number; last: number } => ({ first, last });
const manyPorts: Match = {
  on: "ports",
  side: "destination",
  ranges: [port(1, 2), ...Array.from({ length: 14 }, (_, at) => port(100 + at))],
  sets: [],
};

const written: { name: string; matches: Match[]; actions?: RuleAction[]; layer?: Layer; lines: string[] }[] = [
  {
    name: "what fits into one rule",
    matches: [
      tcp,
      { on: "interface", way: "in", name: "cali*" },
      { ...from("10.0.0.0/8"), negated: true },
      { on: "set", side: "destination", set: "s:abc" },
      { on: "ports", side: "destination", ranges: [port(80), port(1000, 2000)], sets: [] },
    ],
    lines: [
      "-p 6 -i cali+ ! -s 10.0.0.0/8 -m set --match-set cali40s:abc dst -m multiport --dports 80,1000:2000 -j ACCEPT",
    ],
  },
  {
    name: "a few networks, one rule each, where the first that holds decides",
    matches: [from("10.0.0.1", "10.0.0.2")],
    lines: ["-s 10.0.0.1 -j ACCEPT", "-s 10.0.0.2 -j ACCEPT"],
  },
  {
    name: "networks of both sides, with marks",
    matches: [tcp, from("10.0.0.1", "10.0.0.2"), to("10.0.1.0/24", "10.0.2.0/24")],
    lines: [
      "-j MARK --set-mark 0x0/0x80000",
      "-s 10.0.0.1 -j MARK --set-mark 0x80000/0x80000",
      "-s 10.0.0.2 -j MARK --set-mark 0x80000/0x80000",
      "-j MARK --set-mark 0x0/0x100000",
      "-d 10.0.1.0/24 -j MARK --set-mark 0x100000/0x100000",
      "-d 10.0.2.0/24 -j MARK --set-mark 0x100000/0x100000",
      "-m mark ! --mark 0x100000/0x100000 -j MARK --set-mark 0x0/0x80000",
      "-p 6 -m mark --mark 0x80000/0x80000 -j ACCEPT",
    ],
  },
  {
    name: "networks that are excluded",
    matches: [{ ...from("10.0.0.1", "10.0.0.2"), negated: true }],
    lines: [
      "-j MARK --set-mark 0x80000/0x80000",
      "-s 10.0.0.1 -j MARK --set-mark 0x0/0x80000",
      "-s 10.0.0.2 -j MARK --set-mark 0x0/0x80000",
      "-m mark --mark 0x80000/0x80000 -j ACCEPT",
    ],
  },
  {
    name: "more ports than one match takes",
    matches: [tcp, manyPorts],
    lines: [
      "-p 6 -m multiport --dports 1:2,100,101,102,103,104,105,106,107,108,109,110,111,112 -j ACCEPT",
      "-p 6 -m multiport --dports 113 -j ACCEPT",
    ],
  },
  {
    name: "such ports, excluded: in one rule",
    matches: [tcp, { ...manyPorts, negated: true }],
    lines: [
      "-p 6 -m multiport ! --dports 1:2,100,101,102,103,104,105,106,107,108,109,110,111,112 -m multiport ! --dports 113 -j ACCEPT",
    ],
  },
  {
    name: "ports or sets of ports",
    matches: [tcp, { on: "ports", side: "source", ranges: [port(80)], sets: ["n:a"] }],
    lines: ["-p 6 -m multiport --sports 80 -j ACCEPT", "-p 6 -m set --match-set cali40n:a src,src -j ACCEPT"],
  },
  {
    name: "ports of a protocol without ports: never",
    matches: [{ on: "protocol", protocols: [47] }, manyPorts],
    lines: [],
  },
  { name: "protocols that exclude each other: never", matches: [tcp, { on: "icmp", type: 8 }], lines: [] },
  {
    name: "ICMP that is excluded, of TCP: always",
    matches: [tcp, { on: "icmp", type: 8, negated: true }],
    lines: ["-p 6 -j ACCEPT"],
  },
  {
    name: "ICMP that is excluded, of ICMP",
    matches: [
      { on: "protocol", protocols: [1] },
      { on: "icmp", type: 8, code: 0, negated: true },
    ],
    lines: ["-p 1 -m icmp ! --icmp-type 8/0 -j ACCEPT"],
  },
  {
    name: "a mark that the rule looks at itself",
    matches: [{ on: "mark", value: 0, mask: 0x10000 }],
    actions: [{ do: "mark", value: 0x10000, mask: 0x10000 }, { do: "return" }],
    lines: [
      "-j MARK --set-mark 0x0/0x100000",
      "-m mark --mark 0x0/0x10000 -j MARK --set-mark 0x100000/0x100000",
      "-m mark --mark 0x100000/0x100000 -j MARK --set-mark 0x10000/0x10000",
      "-m mark --mark 0x100000/0x100000 -j RETURN",
    ],
  },
  {
    name: "several actions",
    matches: [tcp],
    actions: [
      { do: "nflog", group: 2, prefix: "DPE|default" },
      { do: "log", prefix: 'say "no": ', perSecond: 0.5, burst: 3 },
      { do: "drop" },
    ],
    lines: [
      '-p 6 -j NFLOG --nflog-group 2 --nflog-prefix "DPE|default" --nflog-size 80',
      String.raw`-p 6 -m limit --limit 30/minute --limit-burst 3 -j LOG --log-prefix "say \"no\": " --log-level 5`,
      "-p 6 -j DROP",
    ],
  },
  {
    name: "translation to ports, which need a protocol",
    matches: [from("10.0.0.1")],
    actions: [{ do: "masquerade", ports: port(1024, 2048) }],
    layer: "nat",
    lines: [
      "-p 6 -s 10.0.0.1 -j MASQUERADE --to-ports 1024-2048 --random-fully",
      "-p 17 -s 10.0.0.1 -j MASQUERADE --to-ports 1024-2048 --random-fully",
      "-p 132 -s 10.0.0.1 -j MASQUERADE --to-ports 1024-2048 --random-fully",
      "-j MARK --set-mark 0x80000/0x80000",
      "-p 6 -j MARK --set-mark 0x0/0x80000",
      "-p 17 -j MARK --set-mark 0x0/0x80000",
      "-p 132 -j MARK --set-mark 0x0/0x80000",
      "-s 10.0.0.1 -m mark --mark 0x80000/0x80000 -j MASQUERADE --random-fully",
    ],
  },
  {
    name: "reject, where there is no such target",
    matches: [],
    actions: [{ do: "reject" }],
    layer: "raw",
    lines: ["-j DROP"],
  },
];

describe("a rule is written", () => {
  for (const { name, matches, actions, layer, lines: expected } of written) {
    test(name, () => assert.deepEqual(lines(matches, actions, layer), expected));
  }

  test("with its comment, in characters that no shell mistakes", () => {
    const rule: ChainRule = { matches: [tcp], actions: [{ do: "drop" }], comment: `it's "ours"; $x` };
    assert.deepEqual(renderRule(rule, contextOf(4, "filter")), [
      { options: '-m comment --comment "it_s _ours__ _x" -p 6 -j DROP' },
    ]);
  });

  test("with its counter where every packet passes it", () => {
    const counted = { of: "np/a", direction: "ingress", index: 0 } as const;
    const log: RuleAction = { do: "log", prefix: "a", perSecond: 5 };
    const options = '-m limit --limit 5/second --limit-burst 5 -j LOG --log-prefix "a" --log-level 5';
    const rendered = (actions: RuleAction[]): object[] =>
      renderRule({ matches: [], actions, counted }, contextOf(4, "filter"));
    assert.deepEqual(rendered([log]), [{ options: "", counted }, { options }]);
    assert.deepEqual(rendered([log, { do: "drop" }]), [{ options }, { options: "-j DROP", counted }]);
  });
});

const refused: { name: string; matches: Match[]; actions?: RuleAction[]; reason: RegExp }[] = [
  { name: "protocol 0", matches: [{ on: "protocol", protocols: [0] }], reason: /protocol 0/ },
  { name: "a name that is a pattern", matches: [{ on: "interface", way: "in", name: "eth+" }], reason: /"eth\+"/ },
  { name: "ICMP type 255", matches: [{ on: "icmp", type: 255 }], reason: /type 255/ },
  {
    name: "an action after the end",
    matches: [],
    actions: [{ do: "drop" }, { do: "return" }],
    reason: /"drop" must be the last/,
  },
  {
    name: "scratch marks that are looked at",
    matches: [from("10.0.0.1", "10.0.0.2"), { on: "mark", value: 0, mask: 0x80000 }],
    actions: [{ do: "jump", chain: "cali-x" }],
    reason: /0x80000 and 0x100000/,
  },
  {
    name: "a line break",
    matches: [],
    actions: [{ do: "log", prefix: "a\n-A INPUT -j ACCEPT" }],
    reason: /cannot read/,
  },
];

describe("iptables has no words for", () => {
  for (const { name, matches, actions, reason } of refused) {
    test(name, () => assert.throws(() => lines(matches, actions), reason));
  }
});

test("a mark mask has to have room for the scratch marks", () => {
  assert.deepEqual(scratchMarks(0xffff0000), { all: 0x80000, block: 0x100000 });
  assert.throws(() => scratchMarks(0xf0000), /0xf0000 has 4 bits, and the rules need 5/);
});
