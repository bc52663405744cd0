import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  cachedSelector,
  formatSelector,
  matches,
  matchesBy,
  parseSelector,
  SelectorError,
  selectorId,
  type Selector,
} from "./selector.ts";

describe("a selector", () => {
  const canonical: { text: string; canonical: string }[] = [
    { text: "", canonical: "all()" },
    { text: "  ", canonical: "all()" },
    { text: "all()", canonical: "all()" },
    { text: " all ( ) ", canonical: "all()" },
    { text: "global()", canonical: "global()" },
    { text: "a=='b'", canonical: 'a == "b"' },
    { text: `a != "it's"`, canonical: `a != "it's"` },
    { text: `a == 'say "x"'`, canonical: `a == 'say "x"'` },
    { text: "has(a)&&!has(b)", canonical: "(has(a) && !has(b))" },
    { text: "!!has(a)", canonical: "has(a)" },
    { text: "! ! ! has(a)", canonical: "!has(a)" },
    { text: "a in {'z','b','z'}", canonical: 'a in {"b", "z"}' },
    { text: "a in {}", canonical: "a in {}" },
    { text: "a in {'b',}", canonical: 'a in {"b"}' },
    { text: "a notin {'b'}", canonical: 'a not in {"b"}' },
    { text: "a not  in{'b'}", canonical: 'a not in {"b"}' },
    { text: "a contains 'b'", canonical: 'a contains "b"' },
    { text: "a startswith 'b'", canonical: 'a starts with "b"' },
    { text: "a starts  with 'b'", canonical: 'a starts with "b"' },
    { text: "a endswith'b'", canonical: 'a ends with "b"' },
    { text: "has(a) || has(b) && has(c)", canonical: "(has(a) || (has(b) && has(c)))" },
    { text: "(has(a) || has(b)) && has(c)", canonical: "((has(a) || has(b)) && has(c))" },
    { text: "has(a) && (has(b) && has(c))", canonical: "(has(a) && (has(b) && has(c)))" },
    { text: "((((has(a)))))", canonical: "has(a)" },
    { text: "!(has(a) || has(b))", canonical: "!(has(a) || has(b))" },
    // Words are operators only where an operator may stand.
    { text: "in in {'in'}", canonical: 'in in {"in"}' },
    { text: "has == 'x' && all != 'y' && not == 'z'", canonical: '(has == "x" && all != "y" && not == "z")' },
    { text: "projectcalico.org/namespace == 'a-b_c'", canonical: 'projectcalico.org/namespace == "a-b_c"' },
    { text: "a\n==\t'b'", canonical: 'a == "b"' },
  ];
  for (const row of canonical) {
    test(`${JSON.stringify(row.text)} means ${row.canonical}`, () => {
      assert.equal(formatSelector(parseSelector(row.text)), row.canonical);
    });
  }

  const malformed: { text: string; reason: string }[] = [
    { text: "env == ", reason: "expected a value in quotes after ==, at character 8" },
    { text: "env == prod", reason: "expected a value in quotes after ==, at character 8" },
    { text: "has(a) && b = 'c'", reason: "expected an operator such as == or in after the label b, at character 13" },
    { text: "env", reason: "expected an operator such as == or in after the label env, at character 4" },
    { text: "env in 'a'", reason: 'expected "{" after in, at character 8' },
    { text: "env in {'a' 'b'}", reason: 'expected "," or "}", at character 13' },
    { text: "env in {a}", reason: 'expected a value in quotes or "}", at character 9' },
    { text: "env in {,}", reason: 'expected a value in quotes or "}", at character 9' },
    { text: "env == 'prod", reason: "the text that begins with ' does not end, at character 8" },
    { text: "has()", reason: "expected a label in has(), at character 5" },
    { text: "has(a", reason: 'expected ")" to end has(, at character 6' },
    { text: "all(a)", reason: 'expected ")" to end all(, at character 5' },
    { text: "(has(a)", reason: 'expected "&&", "||" or ")", at character 8' },
    { text: "has(a))", reason: 'expected "&&", "||" or the end, at character 7' },
    { text: "has(a) has(b)", reason: 'expected "&&", "||" or the end, at character 8' },
    { text: "has(a) &&", reason: "expected a label, has(), all(), global() or (, at character 10" },
    { text: "&& has(a)", reason: "expected a label, has(), all(), global() or (, at character 1" },
    { text: "has(a) & has(b)", reason: 'expected "&&", "||" or the end, at character 8' },
    { text: "a inside {'b'}", reason: "expected an operator such as == or in after the label a, at character 3" },
    { text: "a$b == 'c'", reason: "expected an operator such as == or in after the label a, at character 2" },
    { text: `${"x".repeat(513)} == 'c'`, reason: "a label may be 512 characters long, not 513, at character 1" },
    { text: `${"(".repeat(300)}all()`, reason: "more than 250 parentheses inside each other, at character 252" },
  ];
  for (const { text, reason } of malformed) {
    test(`${JSON.stringify(text.slice(0, 40))} is refused: ${reason}`, () => {
      assert.throws(() => parseSelector(text), { name: "Failure", code: "bad-selector", message: reason });
    });
  }

  const matching: { selector: string; labels: Record<string, string>; matched: boolean }[] = [
    { selector: "", labels: {}, matched: true },
    { selector: "all()", labels: { a: "b" }, matched: true },
    { selector: "a == 'b'", labels: { a: "b" }, matched: true },
    { selector: "a == 'b'", labels: { a: "c" }, matched: false },
    { selector: "a == ''", labels: {}, matched: false },
    { selector: "a != 'b'", labels: {}, matched: true },
    { selector: "a != 'b'", labels: { a: "b" }, matched: false },
    { selector: "a in {'b','c'}", labels: { a: "c" }, matched: true },
    { selector: "a in {}", labels: { a: "" }, matched: false },
    { selector: "a not in {}", labels: {}, matched: true },
    { selector: "a not in {'b'}", labels: {}, matched: true },
    { selector: "a not in {'b'}", labels: { a: "b" }, matched: false },
    { selector: "has(a)", labels: { a: "" }, matched: true },
    { selector: "has(toString)", labels: {}, matched: false },
    { selector: "!has(constructor)", labels: {}, matched: true },
    { selector: "a contains 'x'", labels: { a: "axb" }, matched: true },
    { selector: "a contains ''", labels: {}, matched: false },
    { selector: "a starts with 'x'", labels: { a: "xb" }, matched: true },
    { selector: "a starts with 'b'", labels: { a: "xb" }, matched: false },
    { selector: "a ends with 'b'", labels: { a: "xb" }, matched: true },
    { selector: "a ends with 'x'", labels: {}, matched: false },
    { selector: "has(a) || has(b) && has(c)", labels: { a: "" }, matched: true },
    { selector: "(has(a) || has(b)) && has(c)", labels: { a: "" }, matched: false },
    { selector: "!(has(a) && has(b))", labels: { a: "" }, matched: true },
    { selector: "global()", labels: {}, matched: true },
    { selector: "global()", labels: { "projectcalico.org/namespace": "shop" }, matched: false },
  ];
  for (const { selector, labels, matched } of matching) {
    test(`${JSON.stringify(selector)} ${matched ? "selects" : "does not select"} ${JSON.stringify(labels)}`, () => {
      assert.equal(matches(parseSelector(selector), labels), matched);
      assert.equal(
        matchesBy(parseSelector(selector), (key) => new Map(Object.entries(labels)).get(key)),
        matched,
      );
    });
  }

  test("its id is s: and the base64url SHA-224 of the canonical text", () => {
    // printf 's:a == "b"' | openssl dgst -sha224 -binary | basenc --base64url
    assert.equal(selectorId(parseSelector("a=='b'")), "s:flMh0m0X_BowkAK_W3j3MgH8oQOsj3WxGDoXCQ");
    assert.equal(selectorId(parseSelector("a=='b'")), selectorId(parseSelector(' a  == "b"')));
    assert.match(selectorId(parseSelector("a=='b'")), /^s:[A-Za-z0-9_-]{38}$/);
    assert.notEqual(selectorId(parseSelector("a=='b'")), selectorId(parseSelector("a=='c'")));
  });

  test("a cached parse gives the same object, and refuses the same text each time", () => {
    assert.equal(cachedSelector("has(cached)"), cachedSelector("has(cached)"));
    assert.throws(() => cachedSelector("has("), SelectorError);
    assert.throws(() => cachedSelector("has("), SelectorError);
    for (let i = 0; i < 5000; i += 1) cachedSelector(`a == '${i}'`);
    assert.deepEqual(cachedSelector("a == '1'"), parseSelector("a == '1'"));
  });
});

const key = fc.stringMatching(/^[A-Za-z0-9_./-]{1,12}$/);
const value = fc.oneof(fc.stringMatching(/^[^'"]{0,8}$/), fc.stringMatching(/^[^']{0,8}$/), fc.constantFrom("a", "b"));
const plain = { noNullPrototype: true };
const selectors = fc.letrec<{ any: Selector; leaf: Selector }>((tie) => ({
  leaf: fc.oneof(
    fc.record({ op: fc.constantFrom("all" as const, "global" as const) }, plain),
    fc.record({ op: fc.constant("has" as const), key }, plain),
    fc.record({ op: fc.constantFrom("==", "!=", "contains", "starts with", "ends with"), key, value }, plain),
    fc.record(
      {
        op: fc.constantFrom("in", "not in"),
        key,
        values: fc
          .uniqueArray(value, { maxLength: 4 })
          .map((values) => values.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))),
      },
      plain,
    ),
  ),
  any: fc.oneof(
    { maxDepth: 4 },
    tie("leaf"),
    fc.record({ op: fc.constant("!" as const), operand: tie("any").filter(({ op }) => op !== "!") }, plain),
    fc.record(
      { op: fc.constantFrom("&&", "||"), operands: fc.array(tie("any"), { minLength: 2, maxLength: 3 }) },
      plain,
    ),
  ),
})).any;

test("any selector that is printed reads back as itself", () => {
  fc.assert(
    fc.property(selectors, (selector) => {
      const text = formatSelector(selector);
      assert.deepEqual(parseSelector(text), selector);
      assert.equal(formatSelector(parseSelector(text)), text);
    }),
    { numRuns: 500 },
  );
});

test("any text is a selector or a SelectorError with a position inside it", () => {
  const fragment = fc.constantFrom(
    "has(",
    ")",
    "(",
    "a",
    "==",
    "!=",
    "'x'",
    '"y"',
    " ",
    "in",
    "not in",
    "{",
    "}",
    ",",
    "&&",
    "||",
    "!",
    "all()",
    "'",
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(fragment, { maxLength: 12 }).map((parts) => parts.join("")),
  );
  fc.assert(
    fc.property(text, (input) => {
      try {
        const selector = parseSelector(input);
        assert.deepEqual(parseSelector(formatSelector(selector)), selector);
      } catch (thrown) {
        if (!(thrown instanceof SelectorError)) throw thrown;
        assert.ok(thrown.position >= 1 && thrown.position <= input.length + 1);
      }
    }),
    { numRuns: 2000 },
  );
});
