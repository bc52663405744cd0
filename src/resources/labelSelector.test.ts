import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  labelRequirements,
  labelSelectorText,
  matchesLabels,
  parseLabelQuery,
  type LabelSelector,
} from "./labelSelector.ts";

describe("a label query", () => {
  const rows: { query: string; labels: Record<string, string>; matched: boolean }[] = [
    { query: "", labels: {}, matched: true },
    { query: " ", labels: { a: "b" }, matched: true },
    { query: "a=b", labels: { a: "b" }, matched: true },
    { query: "a==b", labels: { a: "b" }, matched: true },
    { query: "a = b , c = d", labels: { a: "b", c: "d" }, matched: true },
    { query: "a=b,c=d", labels: { a: "b" }, matched: false },
    { query: "a=", labels: { a: "" }, matched: true },
    { query: "a=", labels: {}, matched: false },
    { query: "a!=b", labels: {}, matched: true },
    { query: "a!=b", labels: { a: "b" }, matched: false },
    { query: "a in (x, y)", labels: { a: "y" }, matched: true },
    { query: "a in(x,y)", labels: { a: "z" }, matched: false },
    { query: "a in (,x)", labels: { a: "" }, matched: true },
    { query: "a notin (x)", labels: {}, matched: true },
    { query: "a notin (x)", labels: { a: "x" }, matched: false },
    { query: "a", labels: { a: "" }, matched: true },
    { query: "a", labels: {}, matched: false },
    { query: "!a", labels: {}, matched: true },
    { query: "! a", labels: { a: "b" }, matched: false },
    { query: "constructor", labels: {}, matched: false },
    { query: "in in (in),notin", labels: { in: "in", notin: "" }, matched: true },
    {
      query: "kubernetes.io/os=linux,!node-role.kubernetes.io/control-plane",
      labels: { "kubernetes.io/os": "linux" },
      matched: true,
    },
  ];
  for (const { query, labels, matched } of rows) {
    test(`"${query}" ${matched ? "selects" : "does not select"} ${JSON.stringify(labels)}`, () => {
      assert.equal(matchesLabels(parseLabelQuery(query), labels), matched);
    });
  }

  const malformed: { query: string; reason: RegExp }[] = [
    { query: "a=b,", reason: /"" is not key, !key/ },
    { query: ",a", reason: /",a" is not key/ },
    { query: "a=b c=d", reason: /"a=b c=d" is not key/ },
    { query: "a in x", reason: /"a in x" is not key/ },
    { query: "a in (x", reason: /"a in \(x" is not key/ },
    { query: "!a=b", reason: /"!" may stand only before a key alone, not before a =/ },
    { query: "!a in (b)", reason: /"!" may stand only before a key alone, not before a in/ },
    { query: "a=-", reason: /"-" is not a label value/ },
    { query: "a in (b c)", reason: /"b c" is not a label value/ },
    { query: "a/b/c", reason: /"a\/b\/c" is not a key/ },
    { query: "a>5", reason: /"a>5" is not key/ },
  ];
  for (const { query, reason } of malformed) {
    test(`"${query}" is refused`, () => {
      assert.throws(() => parseLabelQuery(query), { code: "bad-label-query", message: reason });
    });
  }
});

const key = fc.constantFrom("a", "b", "x.io/c");
const value = fc.constantFrom("", "x", "y", "Z_1");
const requirement = fc.oneof(
  fc.record({
    key,
    operator: fc.constantFrom("In" as const, "NotIn" as const),
    values: fc.array(value, { minLength: 1, maxLength: 3 }),
  }),
  fc.record({ key, operator: fc.constantFrom("Exists" as const, "DoesNotExist" as const) }),
);
const selectors: fc.Arbitrary<LabelSelector> = fc.record({
  matchLabels: fc.dictionary(key, value),
  matchExpressions: fc.array(requirement, { maxLength: 3 }),
});

test("the object form and its text select the same", () => {
  fc.assert(
    fc.property(selectors, fc.dictionary(key, value), (selector, labels) => {
      const text = labelSelectorText(selector);
      const query = parseLabelQuery(text === "<none>" ? "" : text);
      assert.equal(matchesLabels(query, labels), matchesLabels(labelRequirements(selector), labels), text);
    }),
    { numRuns: 500 },
  );
});
