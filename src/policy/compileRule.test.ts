import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseSelector } from "../resources/selector.ts";
import { compileRules, portBlocks, rulesForFamily, type CompiledRule } from "./compileRule.ts";
import { parseNet, type Rule } from "./model.ts";
import type { SetSpec } from "./sets.ts";

const rule = (fields: Partial<Rule>): Rule => ({
  action: "allow",
  source: {},
  destination: {},
  origin: "r",
  ...fields,
});
const nets = (...list: string[]) => list.map(parseNet);
const all = (fields: Partial<Rule>): CompiledRule[] => [...compileRules([rule(fields)], nameOf).rules];
const bare = ({ index: _i, origin: _o, action: _a, family: _f, ...rest }: CompiledRule): object => rest;

/** Sets by what they are of. */
function nameOf(spec: SetSpec): string {
  if (spec.of === "service") return `${spec.kind} of ${spec.service}`;
  const { selector } = spec;
  const text = "key" in selector ? selector.key : selector.op;
  return spec.of === "selector" ? text : `${spec.port}/${spec.protocol} of ${text}`;
}

describe("a rule is compiled to", () => {
  const selector = parseSelector("has(app)");
  const table: { name: string; rule: Partial<Rule>; source?: object; destination?: object }[] = [
    { name: "nothing for an empty side", rule: {} },
    {
      name: "nets as text",
      rule: { source: { nets: nets("10.0.0.0/8"), notNets: nets("10.0.0.1", "2001:db8::1") } },
      source: { nets: ["10.0.0.0/8"], notNets: ["10.0.0.1", "2001:db8::1"] },
    },
    {
      name: "sets for selectors",
      rule: { source: { selector }, destination: { notSelector: selector } },
      source: { sets: ["app"] },
      destination: { notSets: ["app"] },
    },
    {
      name: "ranges for port numbers",
      rule: { protocol: 6, destination: { ports: [{ first: 1, last: 9 }], notPorts: [{ first: 2, last: 2 }] } },
      destination: {
        ports: { ranges: [{ first: 1, last: 9 }], sets: [] },
        notPorts: { ranges: [{ first: 2, last: 2 }], sets: [] },
      },
    },
    {
      name: "a set for a named port, narrowed by the selector, which it then stands for",
      rule: { protocol: 6, destination: { selector, ports: [{ name: "http" }] } },
      destination: { ports: { ranges: [], sets: ["http/6 of app"] } },
    },
    {
      name: "a set for a named port beside numbers, and the selector's own",
      rule: { protocol: 17, destination: { selector, ports: [{ name: "dns" }, { first: 53, last: 53 }] } },
      destination: { sets: ["app"], ports: { ranges: [{ first: 53, last: 53 }], sets: ["dns/17 of app"] } },
    },
    {
      name: "a set for a named port of anybody",
      rule: { protocol: 6, source: { notPorts: [{ name: "http" }] } },
      source: { notPorts: { ranges: [], sets: ["http/6 of all"] } },
    },
    {
      name: "a set for a service: with ports in a destination, without in a source",
      rule: { source: { service: "n/s" }, destination: { service: "n/t" } },
      source: { sets: ["net of n/s"] },
      destination: { portSets: ["ip,port of n/t"] },
    },
  ];
  for (const { name, rule: given, source = {}, destination = {} } of table) {
    test(name, () => {
      const [compiled] = all(given);
      assert.deepEqual([compiled?.source, compiled?.destination], [source, destination]);
    });
  }

  test("nothing, or a denial, where it cannot be expressed: and that is reported", () => {
    const bad = { destination: { ports: [{ first: 1, last: 1 }] } };
    const actions = ["allow", "deny", "pass", "log", "allow"] as const;
    const rules = actions.map((action, at) => rule({ action, ...(at < 4 ? bad : {}), origin: `r${at}` }));
    const compiled = compileRules(rules, nameOf);
    assert.deepEqual(
      compiled.rules.map(({ action, index, origin, ...rest }) => [action, index, origin, rest]),
      [
        ["deny", 1, "r1", { source: {}, destination: {} }],
        ["deny", 2, "r2", { source: {}, destination: {} }],
        ["allow", 4, "r4", { source: {}, destination: {} }],
      ],
    );
    assert.deepEqual(compiled.problems, [
      "r0: ports of the destination need TCP, UDP or SCTP; it is left out",
      "r1: ports of the destination need TCP, UDP or SCTP; everything is denied in its place",
      "r2: ports of the destination need TCP, UDP or SCTP; everything is denied in its place",
      "r3: ports of the destination need TCP, UDP or SCTP; it is left out",
    ]);
  });
});

describe("for packets of one family", () => {
  const plain = { source: {}, destination: {} };
  const table: { name: string; rule: Partial<Rule>; v4: object[]; v6: object[] }[] = [
    { name: "a rule without a family stands for both", rule: {}, v4: [plain], v6: [plain] },
    { name: "a rule for one stands for that", rule: { family: 6 }, v4: [], v6: [plain] },
    {
      name: "nets of the other are left out, and without any left the rule",
      rule: { source: { nets: nets("10.0.0.0/8") }, destination: { notNets: nets("10.0.0.0/8") } },
      v4: [{ source: { nets: ["10.0.0.0/8"] }, destination: { notNets: ["10.0.0.0/8"] } }],
      v6: [],
    },
    {
      name: "the whole family among the nets is no condition",
      rule: { source: { nets: nets("0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32") } },
      v4: [plain],
      v6: [{ source: { nets: ["2001:db8::/32"] }, destination: {} }],
    },
    {
      name: "the whole family negated removes the rule",
      rule: { source: { notNets: nets("::/0", "10.0.0.0/8") } },
      v4: [{ source: { notNets: ["10.0.0.0/8"] }, destination: {} }],
      v6: [],
    },
    {
      name: "an ICMP message is of the family's own ICMP",
      rule: { protocol: 1, icmp: { type: 8 } },
      v4: [{ ...plain, protocol: 1, icmp: { type: 8 } }],
      v6: [],
    },
    {
      name: "any ICMP message is its protocol",
      rule: { icmp: {} },
      v4: [{ ...plain, protocol: 1 }],
      v6: [{ ...plain, protocol: 58 }],
    },
    {
      name: "an ICMP message that is not meant, with the protocol",
      rule: { protocol: 58, notIcmp: { type: 128, code: 0 } },
      v4: [{ ...plain, protocol: 58 }],
      v6: [{ ...plain, protocol: 58, notIcmp: { type: 128, code: 0 } }],
    },
    {
      name: "an ICMP message that is not meant, without a protocol, makes two rules",
      rule: { notIcmp: { type: 8 }, notProtocol: 17 },
      v4: [
        { ...plain, protocol: 1, notProtocols: [17], notIcmp: { type: 8 } },
        { ...plain, notProtocols: [17, 1] },
      ],
      v6: [
        { ...plain, protocol: 58, notProtocols: [17], notIcmp: { type: 8 } },
        { ...plain, notProtocols: [17, 58] },
      ],
    },
    {
      name: "no ICMP message at all",
      rule: { notIcmp: {} },
      v4: [{ ...plain, notProtocols: [1] }],
      v6: [{ ...plain, notProtocols: [58] }],
    },
    {
      name: "the message that is meant and not meant",
      rule: { icmp: { type: 8 }, notIcmp: { type: 8 } },
      v4: [],
      v6: [],
    },
    { name: "the protocol that is meant and not meant", rule: { protocol: 6, notProtocol: 6 }, v4: [], v6: [] },
  ];
  for (const { name, rule: given, v4, v6 } of table) {
    test(name, () => {
      const [compiled] = all(given);
      assert.ok(compiled !== undefined);
      assert.deepEqual(rulesForFamily(compiled, 4).map(bare), v4);
      assert.deepEqual(rulesForFamily(compiled, 6).map(bare), v6);
    });
  }
});

test("port ranges are put in blocks of at most fifteen numbers, a range counting as two", () => {
  const single = (at: number) => ({ first: at, last: at });
  const range = (at: number) => ({ first: at, last: at + 1 });
  assert.deepEqual(portBlocks([], 15), []);
  const many = Array.from({ length: 16 }, (_, at) => single(at * 2));
  assert.deepEqual(
    portBlocks(many, 15).map(({ length }) => length),
    [15, 1],
  );
  const ranges = Array.from({ length: 8 }, (_, at) => range(at * 3));
  assert.deepEqual(portBlocks([...ranges, single(99)], 15), [ranges.slice(0, 7), [ranges[7], single(99)]]);
  assert.deepEqual(portBlocks([...many, ...ranges], 15).flat(), [...many, ...ranges]);
});
