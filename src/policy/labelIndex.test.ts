import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseSelector } from "../resources/selector.ts";
import { naiveLabelIndex, type LabelIndex, type MatchListener } from "./labelIndex.naive.ts";
import { labelIndex } from "./labelIndex.ts";
import { restrictionsOf } from "./restriction.ts";

type Make = (listener: MatchListener<string>) => LabelIndex<string>;
const IMPLEMENTATIONS: Record<string, Make> = { naive: naiveLabelIndex, fast: (listener) => labelIndex(listener) };

/** An index, and what it has told so far: `item selector`. */
function watched(make: Make): { index: LabelIndex<string>; told: Set<string>; changes: string[] } {
  const told = new Set<string>();
  const changes: string[] = [];
  const index = make({
    started(item, id) {
      assert.ok(!told.has(`${item} ${id}`), `${item} ${id} is told twice`);
      told.add(`${item} ${id}`);
      changes.push(`+${item} ${id}`);
    },
    stopped(item, id) {
      assert.ok(told.delete(`${item} ${id}`), `${item} ${id} stops before it starts`);
      changes.push(`-${item} ${id}`);
    },
  });
  return { index, told, changes };
}

for (const [name, make] of Object.entries(IMPLEMENTATIONS)) {
  describe(`the ${name} label index`, () => {
    test("tells matches as items, selectors and parents come, change and go", () => {
      const { index, changes } = watched(make);
      const after = (change: () => void): string[] => {
        changes.length = 0;
        change();
        return [...changes].sort();
      };
      index.addSelector("web", parseSelector("app == 'web'"));
      assert.deepEqual(
        after(() => index.set("a", { app: "web" }, [])),
        ["+a web"],
      );
      assert.deepEqual(
        after(() => index.set("b", { app: "db" }, ["ns"])),
        [],
      );
      assert.deepEqual(
        after(() => index.addSelector("prod", parseSelector("env == 'prod'"))),
        [],
      );
      assert.deepEqual(
        after(() => index.setParent("ns", { env: "prod", app: "web" })),
        ["+b prod"],
      );
      assert.deepEqual(
        after(() => index.set("b", { env: "dev" }, ["ns"])),
        ["+b web", "-b prod"],
      );
      assert.deepEqual(
        after(() => index.setParent("ns", undefined)),
        ["-b web"],
      );
      assert.deepEqual(
        after(() => index.addSelector("not", parseSelector("app != 'web'"))),
        ["+b not"],
      );
      assert.deepEqual(
        after(() => index.removeSelector("web")),
        [],
      );
      assert.deepEqual(
        after(() => index.delete("b")),
        ["-b not"],
      );
      assert.deepEqual(index.matchesOf("a"), []);
      assert.deepEqual(index.size(), { items: 1, classes: 1, families: 1 });
    });

    test("the first parent that has a label counts", () => {
      const { index, told } = watched(make);
      index.setParent("one", { a: "1" });
      index.setParent("two", { a: "2", b: "2" });
      index.addSelector("s", parseSelector("a == '1' && b == '2'"));
      index.set("x", {}, ["one", "two"]);
      index.set("y", {}, ["two", "one"]);
      assert.deepEqual([...told], ["x s"]);
    });

    test("an item with the same labels and parents changes nothing", () => {
      const { index, changes } = watched(make);
      index.addSelector("s", parseSelector("all()"));
      index.set("x", { a: "1", b: "2" }, ["p"]);
      index.set("x", { b: "2", a: "1" }, ["p"]);
      assert.deepEqual(changes, ["+x s"]);
    });
  });
}

const key = fc.constantFrom("a", "b", "c");
const value = fc.constantFrom("1", "2", "12");
const labels = fc.dictionary(key, value, { maxKeys: 3 });
const parent = fc.constantFrom("p", "q", "r");
const item = fc.constantFrom("x", "y", "z", "w");
const { selectorText } = fc.letrec<{ selectorText: string; leaf: string }>((tie) => ({
  leaf: fc.oneof(
    fc.constant("all()"),
    key.map((k) => `has(${k})`),
    fc
      .tuple(key, fc.constantFrom("==", "!=", "contains", "starts with", "ends with"), value)
      .map(([k, op, v]) => `${k} ${op} '${v}'`),
    fc
      .tuple(key, fc.constantFrom("in", "not in"), fc.array(value, { maxLength: 2 }))
      .map(([k, op, values]) => `${k} ${op} {${values.map((v) => `'${v}'`).join(",")}}`),
  ),
  selectorText: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    tie("leaf"),
    tie("selectorText").map((inner) => `!(${inner})`),
    fc
      .tuple(tie("selectorText"), fc.constantFrom("&&", "||"), tie("selectorText"))
      .map(([left, op, right]) => `(${left}) ${op} (${right})`),
  ),
}));

type Change = (index: LabelIndex<string>) => void;
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(item, labels, fc.uniqueArray(parent, { maxLength: 2 })).map(
    ([of, own, parents]): Change =>
      (index) =>
        index.set(of, own, parents),
  ),
  item.map(
    (of): Change =>
      (index) =>
        index.delete(of),
  ),
  fc.tuple(parent, fc.option(labels, { nil: undefined })).map(
    ([of, own]): Change =>
      (index) =>
        index.setParent(of, own),
  ),
  selectorText.map(
    (text): Change =>
      (index) =>
        index.addSelector(text, parseSelector(text)),
  ),
  selectorText.map(
    (text): Change =>
      (index) =>
        index.removeSelector(text),
  ),
);

const hash = fc.constantFrom(
  undefined,
  () => 1,
  (own: object) => Object.keys(own).length,
);

test("the fast label index tells what the naive one tells, after every change, also where hashes collide", () => {
  fc.assert(
    fc.property(
      fc.array(change, { maxLength: 25 }),
      fc.array(selectorText, { maxLength: 4 }),
      hash,
      (changes, texts, by) => {
        const fast = watched((listener) => labelIndex(listener, { hashOf: by }));
        const naive = watched(naiveLabelIndex);
        const steps = [
          ...texts.map(
            (text): Change =>
              (index) =>
                index.addSelector(text, parseSelector(text)),
          ),
          ...changes,
        ];
        for (const step of steps) {
          fast.changes.length = naive.changes.length = 0;
          step(fast.index);
          step(naive.index);
          assert.deepEqual(fast.changes.sort(), naive.changes.sort());
          // Removing a selector tells nothing, and it may come back.
          for (const both of [fast, naive]) {
            for (const pair of both.told) {
              const at = pair.indexOf(" ");
              if (!both.index.matchesOf(pair.slice(0, at)).includes(pair.slice(at + 1))) both.told.delete(pair);
            }
          }
          for (const one of ["x", "y", "z", "w"]) {
            assert.deepEqual([...fast.index.matchesOf(one)].sort(), [...naive.index.matchesOf(one)].sort());
          }
          for (const text of texts) {
            assert.deepEqual([...fast.index.itemsOf(text)].sort(), [...naive.index.itemsOf(text)].sort());
          }
          assert.deepEqual(fast.index.size(), naive.index.size());
        }
      },
    ),
    { numRuns: 150 },
  );
});

describe("labels with the same hash", () => {
  for (const order of ["x y z", "z y x", "y x z", "y z x"]) {
    test(`are told apart, and forgotten in the order ${order}`, () => {
      const { index } = watched((listener) => labelIndex(listener, { hashOf: () => 1 }));
      const fill = (): void => ["x", "y", "z"].forEach((name) => index.set(name, { name }, []));
      index.addSelector("first", parseSelector("has(name)"));
      index.set("stays", {}, []);
      fill();
      assert.equal(index.size().classes, 4);
      for (const [left, name] of order.split(" ").entries()) {
        index.delete(name);
        assert.equal(index.size().classes, 3 - left);
      }
      // A class that was kept by mistake would not know of this one.
      index.addSelector("s", parseSelector("has(name)"));
      fill();
      assert.deepEqual(
        ["x", "y", "z"].map((name) => index.matchesOf(name).toSorted()),
        [
          ["first", "s"],
          ["first", "s"],
          ["first", "s"],
        ],
      );
    });
  }
});

describe("what a selector demands", () => {
  const table: { text: string; demands: unknown[] }[] = [
    { text: "a == '1'", demands: [{ key: "a", values: ["1"] }] },
    { text: "a in {'2', '1'}", demands: [{ key: "a", values: ["1", "2"] }] },
    { text: "has(a) && b == '1'", demands: [{ key: "b", values: ["1"] }, { key: "a" }] },
    { text: "a starts with '1'", demands: [{ key: "a" }] },
    { text: "a == '1' || a == '2'", demands: [{ key: "a", values: ["1", "2"] }] },
    { text: "a == '1' || has(a)", demands: [{ key: "a" }] },
    { text: "a == '1' || b == '1'", demands: [] },
    { text: "(a == '1' && b == '1') || (b == '2' && has(c))", demands: [{ key: "b", values: ["1", "2"] }] },
    { text: "a != '1'", demands: [] },
    { text: "!has(a)", demands: [] },
    {
      text: "projectcalico.org/orchestrator == 'k8s' && has(a)",
      demands: [{ key: "a" }, { key: "projectcalico.org/orchestrator", values: ["k8s"] }],
    },
  ];
  for (const { text, demands } of table) {
    test(text, () => assert.deepEqual(restrictionsOf(parseSelector(text)), demands));
  }
});
