import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Expression } from "../netlink/nftExpression.ts";
import { countsFor } from "./keptDifference.ts";
import { cut } from "./nftActions.ts";
import { type Draft, draftsOf, type RenderContext, ruleChanges, sameRules } from "./nftRender.ts";
import { accept, counted, inSet, port, protocol, rule } from "./nftWorld.testing.ts";
import type { ChainRule, RuleAction } from "./ruleset.ts";

const context: RenderContext = {
  family: 4,
  shapeOf: () => ({ hosts: true, nets: true }),
  dispatchBy: () => "in",
};
const drafts = (...rules: ChainRule[]): Draft[] => draftsOf(rules, "filter", context);
const limitOf = (action: RuleAction): Expression | undefined => {
  const steps = drafts(rule([], action))[0]?.steps ?? [];
  return steps.find((step): step is Expression => step.kind === "limit");
};

describe("rules as drafts", () => {
  test("a log with a limit stands by itself, before what else the rule does", () => {
    const both = drafts(
      rule([protocol(6)], { do: "mark", value: 1, mask: 1 }, { do: "log", prefix: "p", perSecond: 10 }),
    );
    assert.deepEqual(
      both.map(({ steps }) => steps.map(({ kind }) => kind)),
      [
        ["meta", "cmp", "limit", "log"],
        ["meta", "cmp", "meta", "bitwise", "setMeta"],
      ],
    );
  });

  test("limits are whole numbers of the smallest unit that they are whole in", () => {
    const rows: [number, number, number][] = [
      [10, 10, 1],
      [100 / 60, 100, 60],
      [7 / 3600, 7, 3600],
      [1 / 86_400, 1, 86_400],
      [1e-9, 1, 86_400],
    ];
    for (const [perSecond, rate, per] of rows) {
      const limit = limitOf({ do: "log", prefix: "p", perSecond, burst: 3 });
      assert.deepEqual(limit, { kind: "limit", type: "packets", rate, per, burst: 3, over: false });
    }
  });

  test("comments and prefixes are cut between letters, and have no quotes", () => {
    assert.equal(cut('say "a"', 20), "say 'a'");
    assert.equal(cut("äöü", 4), "äö");
    assert.equal(cut("äöü", 5), "äö");
    assert.equal(cut("äöü", 6), "äöü");
  });

  test("what cannot be expressed is said so", () => {
    assert.throws(() => drafts(rule([], accept, { do: "mark", value: 1, mask: 1 })), /nothing can come after "accept"/);
    assert.throws(() => drafts(rule([], { do: "dnat", to: "nowhere" })), { name: "Failure" });
  });

  test("are the same as the rules that they become, and as no others", () => {
    const some = drafts(
      counted({ of: "p", direction: "ingress" }, rule([inSet("s:a"), protocol(6, 17), port(80)], accept)),
      rule(
        [
          {
            ...port(1),
            on: "ports",
            side: "source",
            ranges: [1, 3].map((first) => ({ first, last: first })),
            sets: [],
          },
        ],
        accept,
      ),
    );
    const table = { family: "ip", name: "calico" } as const;
    let id = 0;
    const listed = some.map((draft) => {
      const changes = ruleChanges(table, "c", draft, { packets: 7, bytes: 70 }, () => (id += 1));
      const sets = changes.flatMap((change) =>
        change.kind === "addElements" ? [[change.set.id, change.elements] as const] : [],
      );
      const made = changes.flatMap((change) => (change.kind === "addRule" ? [change.rule] : []));
      return { rule: made[0]!, sets: new Map(sets) };
    });
    // The kernel gives each a name of its own.
    const rules = listed.map(({ rule: one }) => ({
      ...one,
      expressions: one.expressions.map((step) => ("setId" in step ? { ...step, set: `__set${step.setId}` } : step)),
    }));
    const all = new Map(listed.flatMap(({ sets }) => [...sets]));
    const elementsOf = (name: string) => all.get(Number(name.slice("__set".length))) ?? [];
    assert.ok(sameRules(rules, some, elementsOf));
    assert.ok(!sameRules(rules.slice(1), some, elementsOf));
    assert.ok(!sameRules(rules.toReversed(), some, elementsOf));
    assert.ok(!sameRules(rules, some, () => []));
    assert.ok(
      !sameRules(
        rules.map((one) => ({ ...one, comment: "other" })),
        some,
        elementsOf,
      ),
    );
    for (const [at, one] of rules.entries()) {
      for (const index of one.expressions.keys()) {
        const less = rules.with(at, { ...one, expressions: one.expressions.toSpliced(index, 1) });
        assert.ok(!sameRules(less, some, elementsOf), `without expression ${index} of rule ${at}`);
      }
    }
  });
});

describe("counts", () => {
  test("of a rule go on with the first of its drafts, whatever comes before it", () => {
    const one = counted({ of: "p", direction: "ingress", index: 0 }, rule([inSet("s:a")], accept));
    const other = counted({ of: "p", direction: "ingress", index: 1 }, rule([], accept));
    const before = drafts(one, other).map(({ counts }) => counts);
    const counts = before.map((_, at) => ({ packets: at + 1, bytes: 10 * (at + 1) }));
    assert.deepEqual(countsFor(drafts(rule([], accept), other, structuredClone(one)), before, counts), [
      undefined,
      { packets: 3, bytes: 30 },
      { packets: 3, bytes: 30 },
      undefined,
    ]);
    assert.deepEqual(countsFor(drafts({ ...one, actions: [{ do: "drop" }] }), before, counts), [undefined, undefined]);
  });
});
