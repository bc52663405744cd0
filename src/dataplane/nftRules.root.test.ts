import assert from "node:assert/strict";
import { join } from "node:path";
import { describe, test } from "node:test";
import fc from "fast-check";
import { assertGolden } from "../lib/golden.testing.ts";
import { temporaryNamespace } from "../netlink/namespace.testing.ts";
import { anyRuleset } from "./anyRules.testing.ts";
import { openArpTable } from "./arpTable.io.ts";
import { changeTo } from "./iptables.testing.ts";
import { content, listing, nft } from "./nftListing.testing.ts";
import { generation, linesOf, rulesNode } from "./nftNode.testing.ts";
import { openNftKernelRules } from "./nftRules.io.ts";
import {
  accept,
  addressSet,
  chain,
  changeOf,
  counted,
  dispatch,
  distinct,
  drop,
  hook,
  inSet,
  jump,
  not,
  port,
  protocol,
  rule,
  smallNode,
} from "./nftWorld.testing.ts";
import type { RulesetChange } from "./ruleset.ts";
import { emptyRuleset, type Ruleset } from "./ruleset.testing.ts";

describe("a node's rules in nf_tables", () => {
  test("are listed by nft as Calico's", async () => {
    using namespace = temporaryNamespace();
    for (const family of [4, 6] as const) {
      const rules = openNftKernelRules({ family, namespace: namespace.path });
      assert.deepEqual(await rules.apply(smallNode(family)), []);
      rules.close();
    }
    const arp = openArpTable({ namespace: namespace.path });
    arp.apply(
      new Map([
        ["cali1", ["10.65.0.2", "fd00::2"]],
        ["cali2", ["10.65.0.3"]],
      ]),
    );
    arp.close();
    assertGolden(join(import.meta.dirname, "golden", "node.nft"), listing(namespace.name));
  });

  test("stay as they are when another agent finds them as they should be", async () => {
    using node = rulesNode();
    await node.rules.apply(smallNode(4));
    const before = generation(node.path);
    const again = node.again();
    assert.deepEqual(await again.apply(smallNode(4)), []);
    assert.deepEqual(await again.check(), []);
    assert.equal(generation(node.path), before);
    assert.deepEqual(node.repaired, []);
  });

  test("become what they should be, in one transaction, whatever an earlier agent left", async () => {
    using node = rulesNode();
    await node.rules.apply(smallNode(4));
    const wanted = content(node.name);
    nft(
      node.name,
      [
        "add chain ip calico old",
        "add rule ip calico old ip saddr @cali40all-hosts-net drop",
        "add set ip calico gone { type ipv4_addr; }",
        "add element ip calico cali40all-hosts-net { 203.0.113.1 }",
        "delete element ip calico cali40s-clients { 10.65.0.2 }",
        "flush chain ip calico filter-cali-wl-to-host",
        'delete element ip calico filter-cali-to-wl-dispatch { "cali1" }',
        'add element ip calico filter-cali-to-wl-dispatch { "cali1" : goto filter-cali-tw-cali2 }',
        "chain ip calico filter-FORWARD { policy drop; }",
      ].join("\n"),
    );
    const before = generation(node.path);
    const again = node.again();
    assert.deepEqual(await again.apply(smallNode(4)), []);
    assert.deepEqual(content(node.name), wanted);
    assert.equal(generation(node.path), before + 1);
  });

  test("take the place of a table in which nothing can stay", async () => {
    using node = rulesNode();
    nft(
      node.name,
      [
        "add table ip calico { flags dormant; }",
        "add set ip calico cali40s-clients { type ipv4_addr; flags interval; }",
        "add chain ip calico filter-FORWARD { type filter hook forward priority 10; }",
        "add rule ip calico filter-FORWARD ip saddr @cali40s-clients drop",
      ].join("\n"),
    );
    const before = generation(node.path);
    assert.deepEqual(await node.rules.apply(smallNode(4)), []);
    assert.equal(generation(node.path), before + 1);
    using other = rulesNode();
    await other.rules.apply(smallNode(4));
    assert.deepEqual(content(node.name), content(other.name));
  });

  test("end the same by any way of changes as at once", async () => {
    const ruleset = (): fc.Arbitrary<Ruleset> => anyRuleset(4, "raw").map(distinct);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(ruleset(), fc.boolean()), { minLength: 1, maxLength: 4 }), async (steps) => {
        using node = rulesNode();
        let [rules, before] = [node.rules, emptyRuleset(4)];
        for (const [after, isRestarted] of steps) {
          if (isRestarted) [rules, before] = [node.again(), emptyRuleset(4)];
          assert.deepEqual(await rules.apply(changeTo(after, before)), []);
          before = after;
        }
        assert.deepEqual(await rules.check(), []);
        using fresh = rulesNode();
        await fresh.rules.apply(changeTo(before));
        assert.deepEqual(content(node.name), content(fresh.name));
      }),
      { numRuns: 25 },
    );
  });

  test("are removed, and come again", async () => {
    using node = rulesNode();
    nft(node.name, "add table ip other\n");
    await node.rules.apply(smallNode(4));
    await node.rules.remove();
    assert.match(listing(node.name), /^table ip other \{\n\}\n$/);
    await node.rules.remove();
    assert.deepEqual(await node.rules.check(), []);
    assert.deepEqual(await node.rules.apply(smallNode(4)), []);
    assert.ok(linesOf(node.name, "filter-cali-FORWARD").length > 0);
  });

  test("of a large node come in several transactions, of which the last lets packets in", async () => {
    const many = Array.from({ length: 700 }, (_, at) => at);
    const address = (at: number): string => `10.${at >> 16}.${(at >> 8) & 255}.${at & 255}`;
    const large: RulesetChange = changeOf(4, {
      sets: [
        { ...addressSet("s:all"), added: Array.from({ length: 30_000 }, (_, at) => address(at)) },
        addressSet("s:net", "10.9.0.0/16"),
      ],
      chains: [
        ...many.map((at) =>
          chain(`cali-pi-${at}`, [
            rule([protocol(6), inSet("s:all"), port(at + 1)], accept),
            rule([inSet("s:net")], drop),
          ]),
        ),
        ...many.map((at) => chain(`cali-tw-cali${at}`, [rule([], jump(`cali-pi-${at}`)), rule([], drop)])),
        chain("cali-to-wl-dispatch", [rule([], { do: "dispatch", map: "cali-to-wl-dispatch" }), rule([], drop)]),
      ],
      maps: [
        dispatch(
          "cali-to-wl-dispatch",
          "out",
          Object.fromEntries(many.map((at) => [`cali${at}`, `cali-tw-cali${at}`])),
        ),
      ],
      hooks: [hook("filter", "FORWARD", rule([], jump("cali-to-wl-dispatch")))],
    });
    using node = rulesNode();
    assert.deepEqual(await node.rules.apply(large), []);
    assert.deepEqual(await node.rules.check(), []);
    assert.equal(linesOf(node.name, "filter-cali-pi-699").length, 2);
    const before = generation(node.path);
    assert.deepEqual(await node.again().apply(large), []);
    assert.equal(generation(node.path), before);
  });
});

describe("sets", () => {
  const world = (...members: string[]): RulesetChange =>
    changeOf(4, {
      sets: [addressSet("s:a", ...members)],
      chains: [
        chain("cali-in", [
          counted({ of: "p", direction: "ingress", index: 0 }, rule([inSet("s:a")], accept)),
          rule([not(inSet("s:a", "destination"))], drop),
        ]),
      ],
      hooks: [hook("filter", "INPUT", rule([], jump("cali-in")))],
    });
  const change = (added: string[], removed: string[] = []): RulesetChange =>
    changeOf(4, { sets: [{ id: "s:a", kind: "net", state: "changed", added, removed }] });
  const [hosts, nets, neither, noNets] = [
    "ip saddr @cali40s-a counter accept",
    "ip saddr @cali40s-a-nets counter accept",
    "ip daddr != @cali40s-a ip daddr != @cali40s-a-nets drop",
    "ip daddr != @cali40s-a drop",
  ];

  test("of addresses and of networks come and go with their members, and rules with them", async () => {
    using node = rulesNode();
    const steps: { name: string; do: RulesetChange; lines: string[] }[] = [
      { name: "nothing", do: world(), lines: [hosts, noNets] },
      { name: "an address", do: change(["10.0.0.1"]), lines: [hosts, noNets] },
      { name: "and a network", do: change(["10.1.0.0/16"]), lines: [hosts, nets, neither] },
      { name: "and another", do: change(["10.2.0.0/16"]), lines: [hosts, nets, neither] },
      { name: "networks alone", do: change([], ["10.0.0.1"]), lines: [nets, "ip daddr != @cali40s-a-nets drop"] },
      {
        name: "one for all",
        do: change(["10.0.0.0/8"], ["10.1.0.0/16", "10.2.0.0/16"]),
        lines: [nets, "ip daddr != @cali40s-a-nets drop"],
      },
      {
        name: "everything",
        do: change(["0.0.0.0/0"], ["10.0.0.0/8"]),
        lines: [nets, "ip daddr != @cali40s-a-nets drop"],
      },
      {
        name: "halves",
        do: change(["0.0.0.0/1", "128.0.0.0/1"], ["0.0.0.0/0"]),
        lines: [nets, "ip daddr != @cali40s-a-nets drop"],
      },
      { name: "an address again", do: change(["192.0.2.1"], ["128.0.0.0/1", "0.0.0.0/1"]), lines: [hosts, noNets] },
      { name: "nothing again", do: change([], ["192.0.2.1"]), lines: [hosts, noNets] },
    ];
    for (const step of steps) {
      const before = generation(node.path);
      assert.deepEqual(await node.rules.apply(step.do), [], step.name);
      assert.equal(generation(node.path), before + 1, step.name);
      assert.deepEqual(linesOf(node.name, "filter-cali-in"), step.lines, step.name);
      assert.deepEqual(await node.rules.check(), [], step.name);
    }
  });

  test("hold the members of their family, once each", async () => {
    using node = rulesNode({ family: 6 });
    const six = { ...world("10.0.0.1", "fd00::1", "fd00:1::/64"), family: 6 as const };
    await node.rules.apply(six);
    await node.rules.apply({ ...change(["fd00::1", "fd00::2", "10.0.0.2"], ["fd00::9"]), family: 6 });
    assert.match(listing(node.name), /set cali60s-a \{[^}]*elements = \{ fd00::1,\s+fd00::2 \}/);
    assert.match(listing(node.name), /set cali60s-a-nets \{[^}]*elements = \{ fd00:1::\/64 \}/);
    assert.deepEqual(await node.rules.check(), []);
  });
});
