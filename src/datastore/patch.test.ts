import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { DatastoreError } from "./datastore.ts";
import { jsonPatch, mergePatch, sameJson } from "./patch.ts";
import { strategicMergePatch } from "./strategic.ts";

describe("merge patch", () => {
  // RFC 7386 appendix A.
  const examples: [unknown, unknown, unknown][] = [
    [{ a: "b" }, { a: "c" }, { a: "c" }],
    [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
    [{ a: "b" }, { a: null }, {}],
    [{ a: "b", b: "c" }, { a: null }, { b: "c" }],
    [{ a: ["b"] }, { a: "c" }, { a: "c" }],
    [{ a: "c" }, { a: ["b"] }, { a: ["b"] }],
    [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
    [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
    [
      ["a", "b"],
      ["c", "d"],
      ["c", "d"],
    ],
    [{ a: "b" }, ["c"], ["c"]],
    [{ a: "foo" }, null, null],
    [{ a: "foo" }, "bar", "bar"],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: "b", c: null }, { a: "b" }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ];
  for (const [target, patch, result] of examples) {
    test(`${JSON.stringify(target)} with ${JSON.stringify(patch)} is ${JSON.stringify(result)}`, () => {
      const before = structuredClone(target);
      assert.deepEqual(mergePatch(target, patch), result);
      assert.deepEqual(target, before, "the argument is left as it was");
    });
  }

  test("a field called __proto__ is a field", () => {
    const merged = mergePatch({}, JSON.parse('{"__proto__":{"polluted":true}}')) as Record<string, unknown>;
    assert.equal(merged["polluted"], undefined);
    assert.equal(JSON.stringify(merged), '{"__proto__":{"polluted":true}}');
  });
});

describe("JSON patch", () => {
  // RFC 6902 appendix A.
  const examples: { name: string; target: unknown; patch: unknown[]; result: unknown }[] = [
    {
      name: "A.1 add a member",
      target: { foo: "bar" },
      patch: [{ op: "add", path: "/baz", value: "qux" }],
      result: { baz: "qux", foo: "bar" },
    },
    {
      name: "A.2 add an element",
      target: { foo: ["bar", "baz"] },
      patch: [{ op: "add", path: "/foo/1", value: "qux" }],
      result: { foo: ["bar", "qux", "baz"] },
    },
    {
      name: "A.3 remove a member",
      target: { baz: "qux", foo: "bar" },
      patch: [{ op: "remove", path: "/baz" }],
      result: { foo: "bar" },
    },
    {
      name: "A.4 remove an element",
      target: { foo: ["bar", "qux", "baz"] },
      patch: [{ op: "remove", path: "/foo/1" }],
      result: { foo: ["bar", "baz"] },
    },
    {
      name: "A.5 replace",
      target: { baz: "qux", foo: "bar" },
      patch: [{ op: "replace", path: "/baz", value: "boo" }],
      result: { baz: "boo", foo: "bar" },
    },
    {
      name: "A.6 move a value",
      target: { foo: { bar: "baz", waldo: "fred" }, qux: { corge: "grault" } },
      patch: [{ op: "move", from: "/foo/waldo", path: "/qux/thud" }],
      result: { foo: { bar: "baz" }, qux: { corge: "grault", thud: "fred" } },
    },
    {
      name: "A.7 move an element",
      target: { foo: ["all", "grass", "cows", "eat"] },
      patch: [{ op: "move", from: "/foo/1", path: "/foo/3" }],
      result: { foo: ["all", "cows", "eat", "grass"] },
    },
    {
      name: "A.8 test",
      target: { baz: "qux", foo: ["a", 2, "c"] },
      patch: [
        { op: "test", path: "/baz", value: "qux" },
        { op: "test", path: "/foo/1", value: 2 },
      ],
      result: { baz: "qux", foo: ["a", 2, "c"] },
    },
    {
      name: "A.10 add a nested member",
      target: { foo: "bar" },
      patch: [{ op: "add", path: "/child", value: { grandchild: {} } }],
      result: { foo: "bar", child: { grandchild: {} } },
    },
    {
      name: "A.14 escaped names",
      target: { "/": 9, "~1": 10 },
      patch: [{ op: "test", path: "/~01", value: 10 }],
      result: { "/": 9, "~1": 10 },
    },
    {
      name: "A.16 add to the end",
      target: { foo: ["bar"] },
      patch: [{ op: "add", path: "/foo/-", value: ["abc", "def"] }],
      result: { foo: ["bar", ["abc", "def"]] },
    },
    {
      name: "copy",
      target: { a: { b: 1 } },
      patch: [
        { op: "copy", from: "/a", path: "/c" },
        { op: "replace", path: "/c/b", value: 2 },
      ],
      result: { a: { b: 1 }, c: { b: 2 } },
    },
    {
      name: "the whole document",
      target: { a: 1 },
      patch: [{ op: "replace", path: "", value: { b: 2 } }],
      result: { b: 2 },
    },
  ];
  for (const { name, target, patch, result } of examples) {
    test(name, () => {
      const before = structuredClone(target);
      assert.deepEqual(jsonPatch(target, patch), result);
      assert.deepEqual(target, before, "the argument is left as it was");
    });
  }

  const refused: { name: string; patch: unknown; reason: RegExp }[] = [
    {
      name: "A.9 a test that fails",
      patch: [{ op: "test", path: "/a", value: "bar" }],
      reason: /not the one tested for/,
    },
    {
      name: "A.12 a parent that is not there",
      patch: [{ op: "add", path: "/baz/bat", value: 1 }],
      reason: /nothing at this path/,
    },
    {
      name: "A.15 a number is not its text",
      patch: [{ op: "test", path: "/n", value: "1" }],
      reason: /not the one tested for/,
    },
    { name: "a remove of nothing", patch: [{ op: "remove", path: "/x" }], reason: /nothing at this path/ },
    {
      name: "an index beyond the list",
      patch: [{ op: "add", path: "/list/3", value: 1 }],
      reason: /no element 3 in a list of 2/,
    },
    {
      name: "an index with a leading zero",
      patch: [{ op: "replace", path: "/list/01", value: 1 }],
      reason: /no element 01/,
    },
    { name: "an operation that is not known", patch: [{ op: "spam", path: "/a" }], reason: /unknown operation "spam"/ },
    { name: "a pointer that is none", patch: [{ op: "remove", path: "a" }], reason: /not a JSON pointer/ },
    { name: "an add without a value", patch: [{ op: "add", path: "/b" }], reason: /needs a value/ },
    { name: "a move into itself", patch: [{ op: "move", from: "/o", path: "/o/p" }], reason: /into itself/ },
    { name: "what is not a list", patch: { op: "remove", path: "/a" }, reason: /list of operations/ },
    {
      name: "a prototype",
      patch: [{ op: "add", path: "/__proto__/polluted", value: 1 }],
      reason: /nothing at this path/,
    },
  ];
  for (const { name, patch, reason } of refused) {
    test(`refuses ${name}`, () => {
      const attempt = (): unknown => jsonPatch({ a: "foo", n: 1, list: [1, 2], o: { p: 1 } }, patch);
      assert.throws(
        attempt,
        (thrown) => thrown instanceof DatastoreError && thrown.code === "invalid" && reason.test(thrown.message),
      );
    });
  }
});

describe("strategic merge patch", () => {
  const pod = {
    metadata: { name: "web", finalizers: ["a", "b"] },
    spec: {
      containers: [
        { name: "main", image: "nginx:1", ports: [{ containerPort: 80, protocol: "TCP" }], args: ["-v"] },
        { name: "side", image: "envoy" },
      ],
      tolerations: [{ key: "x" }],
    },
  };
  const cases: { name: string; patch: unknown; result: unknown }[] = [
    {
      name: "elements of a keyed list are merged by their key",
      patch: { spec: { containers: [{ name: "main", image: "nginx:2" }] } },
      result: {
        ...pod,
        spec: { ...pod.spec, containers: [{ ...pod.spec.containers[0], image: "nginx:2" }, pod.spec.containers[1]] },
      },
    },
    {
      name: "an element with a new key is added",
      patch: { spec: { containers: [{ name: "third", image: "x" }] } },
      result: { ...pod, spec: { ...pod.spec, containers: [...pod.spec.containers, { name: "third", image: "x" }] } },
    },
    {
      name: "an element can be deleted",
      patch: { spec: { containers: [{ name: "side", $patch: "delete" }] } },
      result: { ...pod, spec: { ...pod.spec, containers: [pod.spec.containers[0]] } },
    },
    {
      name: "lists without a key are replaced",
      patch: { spec: { tolerations: [{ key: "y" }] } },
      result: { ...pod, spec: { ...pod.spec, tolerations: [{ key: "y" }] } },
    },
    {
      name: "sets are joined, and values taken out by name",
      patch: { metadata: { finalizers: ["c"], "$deleteFromPrimitiveList/finalizers": ["a"] } },
      result: { ...pod, metadata: { name: "web", finalizers: ["b", "c"] } },
    },
    {
      name: "the order of elements can be set",
      patch: { spec: { "$setElementOrder/containers": [{ name: "side" }, { name: "main" }] } },
      result: { ...pod, spec: { ...pod.spec, containers: [pod.spec.containers[1], pod.spec.containers[0]] } },
    },
    {
      name: "an object can be replaced whole",
      patch: { metadata: { $patch: "replace", name: "web" } },
      result: { ...pod, metadata: { name: "web" } },
    },
    { name: "null removes", patch: { metadata: { finalizers: null } }, result: { ...pod, metadata: { name: "web" } } },
    {
      name: "only the keys retained stay",
      patch: { metadata: { $retainKeys: ["name"] } },
      result: { ...pod, metadata: { name: "web" } },
    },
  ];
  for (const { name, patch, result } of cases) {
    test(name, () => {
      const before = structuredClone(pod);
      assert.deepEqual(strategicMergePatch(pod, patch), result);
      assert.deepEqual(pod, before, "the argument is left as it was");
    });
  }
  test("an element without its key is refused", () => {
    assert.throws(
      () => strategicMergePatch(pod, { spec: { containers: [{ image: "x" }] } }),
      /lacks its merge key name/,
    );
  });
});

test("equality of JSON is that of values, whatever the order of fields", () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (left, right) => {
      const copy = JSON.parse(JSON.stringify(left), (_, value: unknown) =>
        typeof value === "object" && value !== null && !Array.isArray(value)
          ? Object.fromEntries(Object.entries(value).toReversed())
          : value,
      ) as unknown;
      assert.ok(sameJson(JSON.parse(JSON.stringify(left)), copy));
      let equal = true;
      try {
        assert.deepEqual(JSON.parse(JSON.stringify(left)), JSON.parse(JSON.stringify(right)));
      } catch {
        equal = false;
      }
      assert.equal(sameJson(JSON.parse(JSON.stringify(left)), JSON.parse(JSON.stringify(right))), equal);
    }),
    { numRuns: 100 },
  );
});
