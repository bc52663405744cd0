import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { formatManifest, parseManifest } from "./yaml.ts";

const objects = (text: string): unknown[] => parseManifest(text, "x.yaml").map(({ object }) => object);

describe("a manifest", () => {
  test("of several documents says where each began", () => {
    const text = '# pools\n\n---\na: 1\n---\n# nothing\n---\n\n# second\nb: 2\nc: 3\n...\n---\n{"d": 4}\n';
    assert.deepEqual(
      parseManifest(text, "x").map(({ object, document, line }) => [object, document, line]),
      [
        [{ a: 1 }, 1, 4],
        [{ b: 2, c: 3 }, 3, 10],
        [{ d: 4 }, 4, 14],
      ],
    );
  });

  test("of nothing has no objects", () => {
    for (const text of ["", "\n", "---\n", "# only words\n", "---\n---\n", "null\n"])
      assert.deepEqual(objects(text), [], JSON.stringify(text));
  });

  test("in JSON is read as YAML is", () => {
    assert.deepEqual(objects('{"a": [1, null, {"b": "c"}], "d": "\\u00e9"}'), [{ a: [1, null, { b: "c" }], d: "é" }]);
  });

  test("of lists stands for their items", () => {
    const list = "apiVersion: v1\nkind: List\nitems:\n- {kind: Pod, n: 1}\n- kind: List\n  items: [{kind: Node}]\n";
    assert.deepEqual(objects(list), [{ kind: "Pod", n: 1 }, { kind: "Node" }]);
    const pods = "apiVersion: v1\nkind: PodList\nmetadata: {resourceVersion: '5'}\nitems:\n- {metadata: {name: a}}\n";
    assert.deepEqual(objects(pods), [{ apiVersion: "v1", kind: "Pod", metadata: { name: "a" } }]);
    assert.deepEqual(objects("kind: List\nitems: []\n"), []);
  });

  test("may use anchors, aliases and merge keys", () => {
    assert.deepEqual(objects("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}\n"), [
      { a: { b: 1 }, c: { b: 1 }, d: { b: 1, e: 2 } },
    ]);
  });

  test("takes yes, no, on and off for text", () => {
    assert.deepEqual(objects("a: [yes, no, on, off, true]\n"), [{ a: ["yes", "no", "on", "off", true] }]);
  });

  const malformed: { name: string; text: string; message: RegExp }[] = [
    {
      name: "a mapping in a scalar",
      text: "a: 1\n---\nb: c: d\n",
      message: /^x\.yaml, line 3, column \d+: Nested mappings/,
    },
    { name: "a tab", text: "a:\n\tb: 1\n", message: /^x\.yaml, line 2, column 1: Tabs are not allowed/ },
    { name: "a key twice", text: "a: 1\nb: 2\na: 3\n", message: /^x\.yaml, line 3, column 1: Map keys must be unique/ },
    { name: "an unknown alias", text: "a: *b\n", message: /^x\.yaml, line 1.*Unresolved alias/ },
    { name: "a list", text: "a: 1\n---\n- b\n", message: /^x\.yaml, line 3: document 2 is not an object$/ },
    { name: "a word", text: "hello\n", message: /^x\.yaml, line 1: document 1 is not an object$/ },
    {
      name: "a list of words",
      text: "kind: List\nitems: [a]\n",
      message: /^x\.yaml, line 1: items\[0\] is not an object$/,
    },
    {
      name: "aliases of aliases without end",
      text: `a: &a [x,x,x,x,x,x,x,x,x]\n${["b", "c", "d", "e"].map((key, i) => `${key}: &${key} [${`*${"abcd"[i]},`.repeat(9)}]`).join("\n")}\n`,
      message: /^x\.yaml, line 1.*Excessive alias count/,
    },
  ];
  for (const { name, text, message } of malformed) {
    test(`with ${name} is refused with its place`, () => {
      assert.throws(() => parseManifest(text, "x.yaml"), { code: "bad-manifest", message });
    });
  }
});

test("objects that are printed read back as themselves", () => {
  const tree = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 3 },
      fc.string(),
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.constantFrom("yes", "1e3", "0x1f", "~", "2026-01-31", "a: b", "- a", "#"),
      fc.array(tie("value"), { maxLength: 3 }),
      fc.dictionary(fc.string(), tie("value"), { maxKeys: 3, noNullPrototype: true }),
    ),
  })).value;
  const input = fc.array(
    fc.dictionary(fc.string(), tree, { minKeys: 1, maxKeys: 3, noNullPrototype: true }).filter((o) => !("items" in o)),
    { maxLength: 3 },
  );
  fc.assert(
    fc.property(input, (list) => {
      assert.deepEqual(objects(formatManifest(list)), list);
    }),
    { numRuns: 200 },
  );
});

test("text that older readers take for something else is printed in quotes", () => {
  assert.equal(formatManifest([{ a: "yes", b: "0777", c: "plain" }]), 'a: "yes"\nb: "0777"\nc: plain\n');
});
