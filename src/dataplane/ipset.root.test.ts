import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { bench, chain, changeTo, nothing, setsOf, simple, type Bench } from "./iptables.testing.ts";
import type { RulesetChange } from "./ruleset.ts";

describe("address sets", () => {
  const set = (state: "new" | "changed" | "gone", added: string[] = [], removed: string[] = []): RulesetChange =>
    nothing(4, { sets: [{ id: "s:one", kind: "net", state, added, removed }] });
  const members = (it: Bench): string[] => [...(setsOf(it.name, 4).get("cali40s:one")?.members ?? [])].sort();

  test("are made anew where they outgrow their room, while rules look at them", async () => {
    using it = bench("nft", 4, { maxSetSize: 4 });
    await it.rules.apply(changeTo(simple()));
    const many = Array.from({ length: 20 }, (_, at) => `10.2.0.${at}`);
    assert.deepEqual(await it.rules.apply(set("changed", many)), []);
    assert.deepEqual(members(it), [...many, "10.0.0.1", "10.1.0.0/16"].sort());
    assert.equal(setsOf(it.name, 4).get("cali40s:one")?.maxSize, 32);
    assert.deepEqual([...setsOf(it.name, 4).keys()], ["cali40s:one"]);
    assert.deepEqual(await it.rules.check(), []);
  });

  test("have everything in two halves, which others may share", async () => {
    using it = bench("legacy");
    await it.rules.apply(set("new", ["0.0.0.0/0", "10.0.0.1"]));
    assert.deepEqual(members(it), ["0.0.0.0/1", "10.0.0.1", "128.0.0.0/1"]);
    await it.rules.apply(set("changed", ["0.0.0.0/1"], ["0.0.0.0/0"]));
    assert.deepEqual(members(it), ["0.0.0.0/1", "10.0.0.1"]);
    await it.rules.apply(set("changed", ["0.0.0.0/0"], ["0.0.0.0/1"]));
    assert.deepEqual(await it.rules.check(), []);
    assert.deepEqual(members(it), ["0.0.0.0/1", "10.0.0.1", "128.0.0.0/1"]);
  });

  test("go when nobody waits for it, and come again with what is theirs alone", async () => {
    using it = bench("legacy");
    await it.rules.apply(set("new", ["10.0.0.1", "10.0.0.2"]));
    await it.rules.apply(set("gone"));
    assert.deepEqual(members(it), ["10.0.0.1", "10.0.0.2"]);
    await it.rules.apply(set("new", ["10.0.0.3"]));
    assert.deepEqual(members(it), ["10.0.0.3"]);
    await it.rules.apply(set("gone"));
    const deadline = performance.now() + 3000;
    while (setsOf(it.name, 4).size > 0 && performance.now() < deadline) await sleep(20);
    assert.equal(setsOf(it.name, 4).size, 0);
  });

  test("that ipset refuses do not hold up others", async () => {
    using it = bench("nft");
    const ruleset = simple();
    ruleset.sets.set("n:bad", { kind: "ip,port", members: new Set(["10.0.0.1,tcp:80", "10.0.0.1,tcp:99999"]) });
    ruleset.sets.set("s:two", { kind: "net", members: new Set(["10.0.0.2"]) });
    const looking = chain("cali-fw-cali2", [
      { matches: [{ on: "ports", side: "source", ranges: [], sets: ["n:bad"] }], actions: [{ do: "return" }] },
    ]);
    ruleset.chains.set("filter/cali-fw-cali2", looking);
    const refusals = await it.rules.apply(changeTo(ruleset));
    assert.deepEqual(
      refusals.map(({ origin }) => origin),
      ["of cali-fw-cali2"],
    );
    assert.match(refusals[0]!.reason, /'99999' is out of range/);
    assert.deepEqual([...setsOf(it.name, 4).get("cali40s:two")!.members], ["10.0.0.2"]);
    assert.deepEqual(members(it), ["10.0.0.1", "10.1.0.0/16"]);
    const better = {
      id: "n:bad",
      kind: "ip,port",
      state: "changed",
      added: [],
      removed: ["10.0.0.1,tcp:99999"],
    } as const;
    await it.rules.apply(nothing(4, { sets: [better] }));
    await it.rules.check();
    assert.match(it.everything()["filter/cali-fw-cali2"]!.join("|"), /-j RETURN$/);
  });

  test("that cannot be as they should close the chains that look at them", async () => {
    using it = bench("legacy");
    // Somebody's set with our name, of another kind, in use: it can be neither used nor removed.
    it.ipset("create", "cali40s:one", "hash:ip,port");
    it.iptables("-A", "INPUT", "-m", "set", "--match-set", "cali40s:one", "src,src", "-j", "ACCEPT");
    const refusals = await it.rules.apply(changeTo(simple()));
    assert.deepEqual(
      refusals.map(({ origin }) => origin),
      ["of cali-fw-cali1"],
    );
    assert.match(refusals[0]!.reason, /cannot be destroyed.*\(destroy cali40s:one\)/);
    assert.match(it.everything()["filter/cali-fw-cali1"]!.join("|"), /^-m comment --comment "cali:[\w-]{16}" -j DROP$/);
    it.iptables("-F", "INPUT");
    await it.rules.check();
    assert.deepEqual(members(it), ["10.0.0.1", "10.1.0.0/16"]);
    assert.equal(it.everything()["filter/cali-fw-cali1"]!.length, 2);
  });
});
