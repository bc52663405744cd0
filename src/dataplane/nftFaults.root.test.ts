import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { content, nft } from "./nftListing.testing.ts";
import { generation, linesOf, rulesNode, until } from "./nftNode.testing.ts";
import {
  accept,
  addressSet,
  chain,
  changeOf,
  counted,
  drop,
  hook,
  inSet,
  jump,
  not,
  rule,
  ACCEPT_MARK,
  setMark,
  smallNode,
} from "./nftWorld.testing.ts";
import type { ChainRule, RulesetChange } from "./ruleset.ts";

const DROPS = ['drop comment "refused by the kernel"'];

describe("what the kernel does not take", () => {
  const base = (...rules: ChainRule[]): RulesetChange =>
    changeOf(4, {
      sets: [addressSet("s:a", "10.0.0.1")],
      chains: [chain("cali-good", [rule([inSet("s:a")], accept)]), chain("cali-bad", rules)],
      hooks: [
        hook("filter", "FORWARD", rule([], jump("cali-good"))),
        hook("filter", "FORWARD", rule([], jump("cali-bad"))),
      ],
    });
  const right = rule([], { do: "return" });

  const refused: { name: string; rules: ChainRule[]; reason: RegExp }[] = [
    {
      name: "a jump to nowhere",
      rules: [right, rule([], jump("nowhere"))],
      reason: /^Cannot add rule .*\(ENOENT\) at jump to filter-nowhere$/,
    },
    { name: "a set that is not there", rules: [rule([inSet("s:none")], accept)], reason: /there is no set s:none/ },
    {
      name: "a negated look at a set that is not there",
      rules: [rule([not(inSet("s:none"))], drop)],
      reason: /there is no set s:none/,
    },
    {
      name: "a map that is not there",
      rules: [rule([], { do: "dispatch", map: "none" })],
      reason: /there is no map filter\/none/,
    },
    {
      name: "an interface's name that is too long",
      rules: [rule([{ on: "interface", way: "in", name: "a-name-of-17-bytes" }], accept)],
      reason: /longer than an interface's name/,
    },
    { name: "an address that is none", rules: [rule([], { do: "dnat", to: "10.0.0" })], reason: /10\.0\.0/ },
    {
      name: "translation in a chain of the wrong kind",
      rules: [rule([], { do: "masquerade" })],
      reason: /\((ENOTSUP|EOPNOTSUPP)\)/,
    },
    { name: "a circle", rules: [rule([], jump("cali-bad"))], reason: /\((ELOOP|EMLINK)\)/ },
    {
      name: "something behind an end",
      rules: [rule([], drop, { do: "mark", value: 1, mask: 1 })],
      reason: /nothing can come after "drop"/,
    },
  ];
  for (const { name, rules, reason } of refused) {
    test(`drops instead, while all else is carried out: ${name}`, async () => {
      using node = rulesNode();
      const refusals = await node.rules.apply(base(...rules));
      assert.deepEqual(
        refusals.map(({ origin }) => origin),
        ["of cali-bad"],
      );
      assert.match(refusals[0]?.reason ?? "", reason);
      assert.deepEqual(linesOf(node.name, "filter-cali-bad"), DROPS);
      assert.deepEqual(linesOf(node.name, "filter-cali-good"), ["ip saddr @cali40s-a accept"]);
      assert.deepEqual(await node.rules.check(), []);

      // It stands while others change, and is asked again when it changes itself.
      const still = await node.rules.apply(changeOf(4, { chains: [chain("cali-more", [right])] }));
      assert.deepEqual(
        still.map(({ origin }) => origin),
        ["of cali-bad"],
      );
      assert.deepEqual(linesOf(node.name, "filter-cali-bad"), DROPS);
      assert.deepEqual(await node.rules.apply(changeOf(4, { chains: [chain("cali-bad", [right])] })), []);
      assert.deepEqual(linesOf(node.name, "filter-cali-bad"), ["return"]);

      const again = await node.rules.apply(changeOf(4, { chains: [chain("cali-bad", rules)] }));
      assert.deepEqual(
        again.map(({ origin }) => origin),
        ["of cali-bad"],
      );
      assert.deepEqual(linesOf(node.name, "filter-cali-bad"), DROPS);
    });
  }

  test("several rules of one chain are one refusal", async () => {
    using node = rulesNode();
    const refusals = await node.rules.apply(base(rule([], jump("nowhere")), rule([], jump("nowhere-else"))));
    assert.deepEqual(
      refusals.map(({ origin }) => origin),
      ["of cali-bad"],
    );
    assert.match(refusals[0]?.reason ?? "", /nowhere\b/);
    assert.deepEqual(linesOf(node.name, "filter-cali-bad"), DROPS);
    assert.deepEqual(linesOf(node.name, "filter-cali-good"), ["ip saddr @cali40s-a accept"]);
  });

  const standIns: { name: string; instead: ChainRule[]; expected: string[] }[] = [
    {
      name: "what stands in for it is there",
      instead: [rule([{ on: "interface", way: "in", name: "cali*" }], drop)],
      expected: ['iifname "cali*" drop'],
    },
    { name: "nothing, where that is what stands in for it", instead: [], expected: [] },
    { name: "what stands in for it is refused too: it drops", instead: [rule([], jump("nowhere"))], expected: DROPS },
    {
      name: "what stands in for it cannot be expressed: it drops",
      instead: [rule([], drop, drop)],
      expected: DROPS,
    },
  ];
  for (const { name, instead, expected } of standIns) {
    test(`of a chain that is refused, ${name}`, async () => {
      using node = rulesNode();
      const bad = { ...chain("cali-bad", [rule([], jump("nowhere"))]), instead };
      const hooks = [hook("filter", "FORWARD", rule([], jump("cali-bad")))];
      const refusals = await node.rules.apply(changeOf(4, { chains: [bad], hooks }));
      assert.deepEqual(
        refusals.map(({ origin }) => origin),
        ["of cali-bad"],
      );
      assert.deepEqual(linesOf(node.name, "filter-cali-bad"), expected);
      assert.deepEqual(await node.rules.check(), []);
      assert.deepEqual(linesOf(node.name, "filter-cali-bad"), expected);
    });
  }

  test("in a hook, has what stands in for all of our rules there", async () => {
    using node = rulesNode();
    const held = [rule([{ on: "interface", way: "in", name: "cali*" }], drop)];
    const hooks = [
      { ...hook("filter", "FORWARD", rule([], jump("nowhere"))), instead: held },
      hook("filter", "FORWARD", rule([], setMark(ACCEPT_MARK)), "last"),
    ];
    const refusals = await node.rules.apply(changeOf(4, { hooks }));
    assert.deepEqual(
      refusals.map(({ origin }) => origin),
      ["filter-FORWARD"],
    );
    assert.deepEqual(linesOf(node.name, "filter-FORWARD").slice(1), ['iifname "cali*" drop']);
  });

  test("several at once are found, each with its reason", async () => {
    using node = rulesNode();
    const bad = Array.from({ length: 20 }, (_, at) => chain(`cali-bad-${at}`, [rule([], jump(`nowhere-${at}`))]));
    const good = Array.from({ length: 20 }, (_, at) => chain(`cali-good-${at}`, [right]));
    const hooks = [...bad, ...good].map(({ name }) => hook("filter", "FORWARD", rule([], jump(name))));
    const refusals = await node.rules.apply(changeOf(4, { chains: [...bad, ...good], hooks }));
    assert.deepEqual(
      refusals.map(({ origin, reason }) => `${origin} ${/nowhere-\d+/.exec(reason)?.[0]}`),
      bad.map(({ origin }, at) => `${origin} nowhere-${at}`),
    );
    for (const { name } of bad) assert.deepEqual(linesOf(node.name, `filter-${name}`), DROPS);
    for (const { name } of good) assert.deepEqual(linesOf(node.name, `filter-${name}`), ["return"]);
    assert.equal(linesOf(node.name, "filter-FORWARD").length, 41);
  });

  const sets: { name: string; bad: RulesetChange; good: RulesetChange; reason: RegExp }[] = [
    {
      name: "too many members",
      bad: changeOf(4, {
        sets: [{ id: "s:a", kind: "net", state: "changed", added: ["10.0.0.2", "10.0.0.3", "10.0.0.4"], removed: [] }],
      }),
      good: changeOf(4, { sets: [{ id: "s:a", kind: "net", state: "changed", added: [], removed: ["10.0.0.4"] }] }),
      reason: /set cali40s-a has 4 members, more than 3/,
    },
    {
      name: "networks that overlap",
      bad: changeOf(4, {
        sets: [{ id: "s:a", kind: "net", state: "changed", added: ["10.1.0.0/16", "10.1.2.0/24"], removed: [] }],
      }),
      good: changeOf(4, {
        sets: [{ id: "s:a", kind: "net", state: "changed", added: [], removed: ["10.1.2.0/24", "10.1.0.0/16"] }],
      }),
      reason: /^Cannot add 10\.1\.0\.0\/16, 10\.1\.2\.0\/24 to set cali40s-a-nets of table ip calico/,
    },
    {
      name: "what is no address",
      bad: changeOf(4, { sets: [{ id: "s:a", kind: "net", state: "changed", added: ["10.0.0.256"], removed: [] }] }),
      good: changeOf(4, {
        sets: [{ id: "s:a", kind: "net", state: "changed", added: ["10.0.0.2"], removed: ["10.0.0.256"] }],
      }),
      reason: /set cali40s-a: .*10\.0\.0\.256/,
    },
  ];
  for (const { name, bad, good, reason } of sets) {
    test(`a set makes all that look at it drop: ${name}`, async () => {
      using node = rulesNode({ maxSetSize: 3 });
      assert.deepEqual(await node.rules.apply(base(rule([not(inSet("s:a"))], drop), right)), []);
      const refusals = await node.rules.apply(bad);
      assert.deepEqual(refusals.map(({ origin }) => origin).toSorted(), ["of cali-bad", "of cali-good"]);
      for (const one of refusals) assert.match(one.reason, reason);
      assert.deepEqual(linesOf(node.name, "filter-cali-good"), DROPS);
      assert.deepEqual(linesOf(node.name, "filter-cali-bad"), DROPS);
      assert.deepEqual(await node.rules.check(), []);
      assert.deepEqual(await node.rules.apply(good), []);
      assert.deepEqual(linesOf(node.name, "filter-cali-good"), ["ip saddr @cali40s-a accept"]);
      assert.deepEqual(
        linesOf(node.name, "filter-cali-bad"),
        ["ip daddr != @cali40s-a drop", "return"].map((line) => line.replace("daddr", "saddr")),
      );
      assert.deepEqual(await node.rules.check(), []);
    });
  }

  test("of very many is found as well, and costs the others nothing", async () => {
    using node = rulesNode();
    const all = Array.from({ length: 1500 }, (_, at) => at);
    const isBad = (at: number): boolean => at % 500 === 7;
    const chains = all.map((at) => chain(`cali-${at}`, [isBad(at) ? rule([], jump(`nowhere-${at}`)) : right]));
    const looking = chain("cali-looking", [rule([inSet("s:bad")], accept)]);
    const refusals = await node.rules.apply(
      changeOf(4, {
        sets: [addressSet("s:bad", "10.0.0.0/8", "10.1.0.0/16"), addressSet("s:good", "10.0.0.0/8")],
        chains: [...chains, looking],
        hooks: [...chains, looking].map(({ name }) => hook("filter", "FORWARD", rule([], jump(name)))),
      }),
    );
    assert.deepEqual(refusals.map(({ origin }) => origin).toSorted(), [
      "of cali-1007",
      "of cali-507",
      "of cali-7",
      "of cali-looking",
    ]);
    const blocks = content(node.name).filter((block) => block.includes("chain filter-cali-"));
    assert.equal(blocks.filter((block) => block.includes("\t\treturn")).length, 1497);
    assert.equal(blocks.filter((block) => block.includes(DROPS[0]!)).length, 4);
    assert.deepEqual(await node.rules.check(), []);
  });

  test("a map to a chain that is not there leads nowhere", async () => {
    using node = rulesNode();
    const refusals = await node.rules.apply({
      ...changeOf(4, {
        chains: [chain("cali-go", [rule([], { do: "dispatch", map: "cali-map" })]), chain("cali-other", [right])],
        hooks: [hook("filter", "FORWARD", rule([], jump("cali-go")))],
      }),
      maps: new Map([
        ["filter/cali-map", { layer: "filter", name: "cali-map", by: "in", entries: new Map([["cali1", "nowhere"]]) }],
      ]),
    });
    assert.deepEqual(
      refusals.map(({ origin }) => origin),
      ["of cali-go"],
    );
    assert.deepEqual(linesOf(node.name, "filter-cali-go"), DROPS);
    assert.deepEqual(linesOf(node.name, "filter-cali-other"), ["return"]);
  });
});

describe("what others do to the table", () => {
  const edits: { name: string; script: string; told: RegExp }[] = [
    {
      name: "a rule more",
      script: "insert rule ip calico filter-cali-pi-knp/default/web accept",
      told: /chain filter-cali-pi-knp\/default\/web was changed/,
    },
    {
      name: "a chain without its rules",
      script: "flush chain ip calico filter-cali-tw-cali1",
      told: /chain filter-cali-tw-cali1 was changed/,
    },
    {
      name: "a hook without its rules",
      script: "flush chain ip calico filter-FORWARD",
      told: /chain filter-FORWARD was changed/,
    },
    {
      name: "another policy",
      script: "chain ip calico filter-FORWARD { policy drop; }",
      told: /chain filter-FORWARD was changed/,
    },
    {
      name: "an address more",
      script: "add element ip calico cali40s-clients { 203.0.113.1 }",
      told: /set cali40s-clients was changed/,
    },
    {
      name: "an address less",
      script: "delete element ip calico cali40s-clients { 10.65.0.2 }",
      told: /set cali40s-clients was changed/,
    },
    {
      name: "a network more",
      script: "add element ip calico cali40s-clients-nets { 203.0.113.0/24 }",
      told: /set cali40s-clients-nets was changed/,
    },
    { name: "an endpoint less", script: "flush set ip calico cali40svc-api", told: /set cali40svc-api was changed/ },
    {
      name: "another way",
      script:
        'delete element ip calico filter-cali-to-wl-dispatch { "cali2" }\nadd element ip calico filter-cali-to-wl-dispatch { "cali2" : goto filter-cali-tw-cali1 }',
      told: /set filter-cali-to-wl-dispatch was changed/,
    },
    {
      name: "a chain of their own",
      script:
        "add chain ip calico mine\nadd rule ip calico mine ip saddr @cali40s-clients drop\nadd rule ip calico filter-cali-FORWARD jump mine",
      told: /chain mine was not ours/,
    },
    { name: "a set of their own", script: "add set ip calico mine { type ipv4_addr; }", told: /set mine was not ours/ },
    {
      name: "a table that sleeps",
      script: "add table ip calico { flags dormant; }",
      told: /table ip calico held what could not stay/,
    },
    { name: "no table", script: "delete table ip calico", told: /table ip calico was gone/ },
    { name: "nothing at all", script: "flush ruleset", told: /table ip calico was gone/ },
    {
      name: "another table of that name",
      script:
        "delete table ip calico\nadd table ip calico\nadd chain ip calico filter-FORWARD { type filter hook forward priority 5; }",
      told: /held what could not stay/,
    },
  ];
  for (const { name, script, told } of edits) {
    test(`is put right within a second, and told: ${name}`, async () => {
      using node = rulesNode();
      await node.rules.apply(smallNode(4));
      const before = content(node.name);
      await sleep(1); // others' turn
      nft(node.name, `${script}\n`);
      await until(() => assert.match(node.repaired.flat().join("\n"), told));
      assert.deepEqual(content(node.name), before);
      assert.deepEqual(await node.rules.check(), []);
      assert.equal(node.repaired.length, 1);
    });
  }

  test("a table that is gone is there again in milliseconds", async () => {
    using node = rulesNode();
    await node.rules.apply(smallNode(4));
    await sleep(1);
    nft(node.name, "flush ruleset\n");
    const took = await until(() => assert.equal(node.repaired.length, 1));
    assert.ok(took < 100, `${took} ms`);
  });

  test("a table that is another program's own is told of, and ours again when that lets go", async () => {
    const failures: string[] = [];
    using node = rulesNode({ onFailure: (error) => failures.push(String(error)) });
    await node.rules.apply(smallNode(4));
    const before = content(node.name);
    await sleep(1);
    const other = spawn("ip", ["netns", "exec", node.name, "nft", "-i"], { stdio: ["pipe", "ignore", "ignore"] });
    try {
      other.stdin.write("delete table ip calico; add table ip calico { flags owner; }\n");
      await until(() => assert.match(failures.join(), /EPERM/), 2000);
      await assert.rejects(node.rules.check(), /EPERM/);
      await assert.rejects(node.rules.apply(changeOf(4, {})), /EPERM/);
    } finally {
      other.stdin.end();
    }
    await until(() => assert.deepEqual(content(node.name), before), 2000);
    assert.deepEqual(await node.rules.apply(changeOf(4, {})), [], "no part of it was at fault");
  });

  test("somebody who does so all the time is answered slower and slower, and in the end rightly", async () => {
    using node = rulesNode();
    await node.rules.apply(smallNode(4));
    const before = content(node.name);
    for (let times = 0; times < 40; times += 1) {
      nft(node.name, "flush chain ip calico filter-cali-FORWARD\n");
      await sleep(5);
    }
    await until(() => assert.deepEqual(content(node.name), before), 2000);
    assert.ok(node.repaired.length >= 3 && node.repaired.length <= 12, `${node.repaired.length} repairs`);
  });

  test("in other tables is nobody's business", async () => {
    using node = rulesNode();
    await node.rules.apply(smallNode(4));
    nft(
      node.name,
      "add table ip other\nadd chain ip other c\nadd rule ip other c accept\nadd table ip6 calico\nadd table inet calico\n",
    );
    const before = generation(node.path);
    await sleep(60);
    assert.equal(generation(node.path), before);
    assert.deepEqual(node.repaired, []);
  });

  test("is found by a check when it was not heard of, and changes that come with it are carried out", async () => {
    using node = rulesNode();
    await node.rules.apply(smallNode(4));
    const before = content(node.name);
    // In one turn of the event loop: nothing was heard yet.
    nft(
      node.name,
      "flush chain ip calico filter-cali-tw-cali1\ndelete element ip calico cali40s-clients { 10.65.0.2 }\n",
    );
    await node.rules.check();
    assert.deepEqual(node.repaired.flat().toSorted(), [
      "chain filter-cali-tw-cali1 was changed",
      "set cali40s-clients was changed",
    ]);
    assert.deepEqual(content(node.name), before);

    nft(node.name, "flush ruleset\n");
    assert.deepEqual(await node.rules.apply(changeOf(4, { chains: [chain("cali-new", [rule([], accept)])] })), []);
    assert.deepEqual(content(node.name), [...before, "ip calico: chain filter-cali-new {\n\t\taccept\n\t}"].toSorted());

    nft(
      node.name,
      "flush chain ip calico filter-FORWARD\nflush chain ip calico filter-cali-FORWARD\ndelete chain ip calico filter-cali-FORWARD\nadd element ip calico cali40s-clients { 10.65.0.77 }\n",
    );
    const change: RulesetChange = changeOf(4, {
      sets: [{ id: "s:clients", kind: "net", state: "changed", added: ["10.65.0.78"], removed: ["10.65.0.2"] }],
      goneChains: ["filter/cali-new"],
    });
    assert.deepEqual(await node.rules.apply(change), []);
    await until(() =>
      assert.deepEqual(
        content(node.name),
        before.map((block) => block.replace("10.65.0.2,\n\t\t\t     10.65.0.3", "10.65.0.3,\n\t\t\t     10.65.0.78")),
      ),
    );
  });
});

describe("counts", () => {
  test("go on when other rules of the chain change, and begin anew where the rule is another", async () => {
    using node = rulesNode();
    const one = (index: number, ...more: ChainRule[]): ChainRule[] => [
      counted({ of: "p", direction: "ingress", index }, rule([inSet("s:a")], accept)),
      ...more,
    ];
    const world = (...rules: ChainRule[]): RulesetChange =>
      changeOf(4, {
        sets: [addressSet("s:a", "127.0.0.1")],
        chains: [chain("cali-in", rules)],
        hooks: [hook("filter", "INPUT", rule([], jump("cali-in")))],
      });
    await node.rules.apply(world(...one(0)));
    nft(node.name, "reset counters\n");
    const { inside } = await import("../netlink/namespace.testing.ts");
    inside(node.name, "ping", "-c", "3", "-i", "0.01", "127.0.0.1");
    const counts = async (): Promise<[number | undefined, number][]> =>
      (await node.rules.counts()).map(({ counted: { index }, packets }) => [index, packets]);
    assert.deepEqual(await counts(), [[0, 6]]);
    await node.rules.apply(changeOf(4, { chains: [chain("cali-in", [...one(0), rule([], { do: "return" })])] }));
    assert.deepEqual(await counts(), [[0, 6]]);
    // With a network its rule becomes two, of which both count for it.
    await node.rules.apply(
      changeOf(4, { sets: [{ id: "s:a", kind: "net", state: "changed", added: ["127.1.0.0/16"], removed: [] }] }),
    );
    inside(node.name, "ping", "-c", "1", "127.0.0.1");
    inside(node.name, "ping", "-c", "1", "127.1.0.1");
    assert.deepEqual(await counts(), [[0, 10]]);
    await node.again().apply(world(...one(0)));
    await node.rules.apply(changeOf(4, { chains: [chain("cali-in", one(1))] }));
    assert.deepEqual(await counts(), [[1, 0]]);
  });
});
