import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { HookedRules } from "./iptablesModel.ts";
import {
  actualTable,
  allNames,
  describePlan,
  isEmpty,
  noteDone,
  planTable,
  restoreText,
  type ActualTable,
  type InsertMode,
} from "./iptablesPlan.ts";
import { rendered, type RenderedChain } from "./iptablesRender.ts";

const chainOf = (name: string, ...options: string[]): RenderedChain =>
  rendered(
    "filter",
    name,
    options.map((each) => ({ options: each })),
  );
const hooked = (first: readonly string[], last: readonly string[]): HookedRules => ({
  first: chainOf("FORWARD", ...first),
  last: chainOf("FORWARD/last", ...last),
});
const WANTED = hooked(["-j cali-A", "-j cali-B"], ["-j cali-C"]);
const desired = (chains: RenderedChain[], hooks?: HookedRules) => ({
  chains: new Map(chains.map((each) => [each.name, each])),
  hooks: new Map(hooks === undefined ? [] : [["FORWARD", hooks]]),
});

/** Rules of others, and `a`, `b`, `c`: ours of `WANTED`. */
function table(order: string): ActualTable {
  const [a, b] = WANTED.first.hashes;
  const hashes: Record<string, string> = { a: a!, b: b!, c: WANTED.last.hashes[0]!, z: "somethingThatsOld" };
  const rules = order.split("").map((letter) => ({ options: `was ${letter}`, hash: hashes[letter] ?? "" }));
  return { chains: new Map(), others: new Map([["FORWARD", rules]]) };
}

const placed: { order: string; mode: InsertMode; right: boolean }[] = [
  { order: "abc", mode: "insert", right: true },
  { order: "abXYc", mode: "insert", right: true },
  { order: "aXbc", mode: "insert", right: false },
  { order: "XabYc", mode: "insert", right: false },
  { order: "XabYc", mode: "append", right: true },
  { order: "bac", mode: "append", right: false },
  { order: "abcX", mode: "insert", right: false },
  { order: "ab", mode: "insert", right: false },
  { order: "abzc", mode: "append", right: false },
  { order: "aabc", mode: "insert", right: false },
  { order: "", mode: "append", right: false },
];

describe("our rules in a chain of the kernel's", () => {
  for (const { order, mode, right } of placed) {
    test(`${order || "(none)"} are ${right ? "right" : "wrong"} for ${mode}, and then become right`, () => {
      const actual = table(order);
      const wanted = desired([], WANTED);
      const plan = planTable("filter", wanted, actual, allNames(wanted, actual), mode);
      assert.equal(isEmpty(plan), right);
      noteDone(plan, actual, mode);
      assert.ok(isEmpty(planTable("filter", wanted, actual, allNames(wanted, actual), mode)));
      const others = actual.others.get("FORWARD")?.filter(({ hash }) => hash === "");
      assert.deepEqual(
        others?.map(({ options }) => options),
        order
          .split("")
          .filter((letter) => /[XY]/.test(letter))
          .map((letter) => `was ${letter}`),
      );
    });
  }

  test("are taken out, where none is wanted", () => {
    const actual = table("aXc");
    const plan = planTable("filter", desired([]), actual, allNames(desired([]), actual), "insert");
    assert.equal(restoreText(plan, "insert"), "*filter\n-D FORWARD was a\n-D FORWARD was c\nCOMMIT\n");
  });
});

test("a table goes from what it holds to what it is to hold in one transaction", () => {
  const same = chainOf("cali-same", "-j DROP");
  const changed = chainOf("cali-changed", "-j RETURN");
  const added = chainOf("cali-added", "-p 6 -j ACCEPT", "-j cali-changed");
  const wanted = desired([same, changed, added], hooked(["-j cali-added"], ["-j ACCEPT"]));
  const actual: ActualTable = {
    chains: new Map([
      ["cali-same", same.hashes],
      ["cali-changed", ["AAAAAAAAAAAAAAAA"]],
      ["cali-old", []],
    ]),
    others: new Map([["FORWARD", [{ options: "-j KUBE-FORWARD", hash: "" }]]]),
  };
  const plan = planTable("filter", wanted, actual, allNames(wanted, actual), "insert");
  const mark = (chain: RenderedChain, at = 0): string => `-m comment --comment "cali:${chain.hashes[at]}"`;
  const { first, last } = wanted.hooks.get("FORWARD")!;
  assert.deepEqual(restoreText(plan, "insert").split("\n"), [
    "*filter",
    ":cali-changed - [0:0]",
    ":cali-added - [0:0]",
    ":cali-old - [0:0]",
    `-A cali-changed ${mark(changed)} -j RETURN`,
    `-A cali-added ${mark(added)} -p 6 -j ACCEPT`,
    `-A cali-added ${mark(added, 1)} -j cali-changed`,
    `-I FORWARD 1 ${mark(first)} -j cali-added`,
    `-A FORWARD ${mark(last)} -j ACCEPT`,
    "-X cali-old",
    "COMMIT",
    "",
  ]);
  assert.deepEqual(describePlan(plan, actual), [
    "filter: chain cali-changed was changed",
    "filter: chain cali-added was removed",
    "filter: our rules in FORWARD were changed or moved",
    "filter: chain cali-old is not wanted",
  ]);
  noteDone(plan, actual, "insert");
  assert.ok(isEmpty(planTable("filter", wanted, actual, allNames(wanted, actual), "insert")));
});

test("of a saved table, our chains are known by the marks of their rules", () => {
  const rule = { options: "-j DROP", hash: "AAAAAAAAAAAAAAAA", packets: 1, bytes: 2 };
  const { chains, others } = actualTable(
    new Map([
      ["FORWARD", [rule]],
      ["cali-x", [rule, { ...rule, hash: "" }]],
    ]),
  );
  assert.deepEqual([...chains], [["cali-x", ["AAAAAAAAAAAAAAAA", ""]]]);
  assert.deepEqual([...others], [["FORWARD", [rule]]]);
});
