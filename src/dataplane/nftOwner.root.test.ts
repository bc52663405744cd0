import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { content, nft } from "./nftListing.testing.ts";
import { generation, linesOf, type RulesNode, rulesNode, until } from "./nftNode.testing.ts";
import { accept, addressSet, chain, changeOf, drop, hook, inSet, jump, rule } from "./nftWorld.testing.ts";
import type { RulesetChange } from "./ruleset.ts";

const WORLD: RulesetChange = changeOf(4, {
  sets: [addressSet("s:a", "10.0.0.1")],
  chains: [chain("cali-tw-a", [rule([inSet("s:a")], accept), rule([], drop)])],
  hooks: [hook("filter", "FORWARD", rule([], jump("cali-tw-a")))],
});

describe("a table that is owned", () => {
  const OTHERS = [
    "delete table ip calico",
    "flush table ip calico",
    "flush chain ip calico filter-FORWARD",
    "insert rule ip calico filter-cali-tw-a accept",
    "flush set ip calico cali40s-a",
    "add element ip calico cali40s-a { 10.0.0.2 }",
    "add chain ip calico more",
  ];
  const now = (node: RulesNode): string[] => content(node.name);

  test("is changed by nobody else", async () => {
    using node = rulesNode({ isOwned: true });
    assert.deepEqual(await node.rules.apply(WORLD), []);
    const before = now(node);
    assert.ok(before.some((block) => block.includes("ip saddr @cali40s-a accept")));
    for (const command of OTHERS) assert.throws(() => nft(node.name, command), /Operation not permitted/, command);
    nft(node.name, "flush ruleset");
    assert.deepEqual(now(node), before);
    assert.deepEqual(await node.rules.apply(changeOf(4, { chains: [chain("cali-tw-a", [rule([], drop)])] })), []);
    assert.deepEqual(linesOf(node.name, "filter-cali-tw-a"), ["drop"]);
    assert.deepEqual(await node.rules.check(), []);
    assert.deepEqual(node.repaired, []);
  });

  test("stays when its agent has gone, and is the next one's, with all that is right in it", async () => {
    using node = rulesNode({ isOwned: true });
    await node.rules.apply(WORLD);
    const before = now(node);
    node.rules.close();
    assert.deepEqual(now(node), before);
    nft(node.name, "insert rule ip calico filter-cali-tw-a accept");
    await node.again().apply(WORLD);
    assert.deepEqual(now(node), before);
    assert.throws(() => nft(node.name, "delete table ip calico"), /Operation not permitted/);

    const rules = node.again();
    const at = generation(node.path);
    await rules.apply(WORLD);
    assert.equal(generation(node.path), at + 1, "but for the claim, nothing was to be done");
  });

  test("takes the place of one that was made without an owner, in one transaction", async () => {
    using node = rulesNode();
    await node.rules.apply(WORLD);
    const before = now(node);
    const rules = node.again({ isOwned: true });
    const at = generation(node.path);
    await rules.apply(WORLD);
    assert.equal(generation(node.path), at + 1);
    assert.deepEqual(now(node), before);
    assert.throws(() => nft(node.name, "flush table ip calico"), /Operation not permitted/);
  });

  test("is anybody's again for an agent that owns none, and goes with it", async () => {
    using node = rulesNode({ isOwned: true });
    await node.rules.apply(WORLD);
    const before = now(node);
    const rules = node.again({ isOwned: false });
    await rules.apply(WORLD);
    nft(node.name, "flush chain ip calico filter-FORWARD");
    await until(() => assert.deepEqual(now(node), before));
    await rules.remove();
    assert.deepEqual(now(node), []);

    const owner = node.again({ isOwned: true });
    await owner.apply(WORLD);
    await owner.remove();
    assert.deepEqual(now(node), []);
  });
});
