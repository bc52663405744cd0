import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { mergePatch, sameJson } from "../datastore/patch.ts";
import { inApplyOrder, LAST_APPLIED, lastAppliedOf, threeWayPatch, withLastApplied } from "./apply.ts";

const cases: { name: string; last: object; manifest: object; live: object; patch: object }[] = [
  {
    name: "what is the same is left alone",
    last: { a: 1 },
    manifest: { a: 1 },
    live: { a: 1, status: "up" },
    patch: {},
  },
  { name: "what differs is set", last: { a: 1 }, manifest: { a: 2 }, live: { a: 1 }, patch: { a: 2 } },
  {
    name: "what someone else has changed is set back",
    last: { a: 1 },
    manifest: { a: 1 },
    live: { a: 3 },
    patch: { a: 1 },
  },
  {
    name: "what someone else has added stays",
    last: {},
    manifest: { spec: { x: 1 } },
    live: { spec: { x: 1, nodeName: "node1" } },
    patch: {},
  },
  {
    name: "what the manifest no longer names is removed",
    last: { spec: { x: 1, y: 2 } },
    manifest: { spec: { x: 1 } },
    live: { spec: { x: 1, y: 2 } },
    patch: { spec: { y: null } },
  },
  { name: "what is gone already is not removed again", last: { y: 2 }, manifest: {}, live: {}, patch: {} },
  { name: "lists are one value", last: { l: [1, 2] }, manifest: { l: [1] }, live: { l: [1, 2, 3] }, patch: { l: [1] } },
  { name: "null asks for removal", last: {}, manifest: { a: null }, live: { a: 1 }, patch: { a: null } },
  { name: "null asks for nothing where there is nothing", last: {}, manifest: { a: null }, live: {}, patch: {} },
  {
    name: "an object takes the place of a value",
    last: {},
    manifest: { a: { b: 1 } },
    live: { a: 1 },
    patch: { a: { b: 1 } },
  },
];
describe("a three-way merge", () => {
  for (const { name, last, manifest, live, patch } of cases) {
    test(name, () => assert.deepEqual(threeWayPatch({ ...last }, { ...manifest }, { ...live }), patch));
  }

  test("makes the object what the manifest says, keeps what only others have set, and asks for nothing twice", () => {
    const leaf = fc.oneof(fc.nat(3), fc.constantFrom("x", "y"), fc.array(fc.nat(2), { maxLength: 2 }));
    const fields = fc.dictionary(
      fc.constantFrom("a", "b", "c"),
      fc.oneof(leaf, fc.dictionary(fc.constantFrom("d", "e"), leaf)),
    );
    fc.assert(
      fc.property(fields, fields, fields, (last, manifest, live) => {
        const after = mergePatch(live, threeWayPatch(last, manifest, live)) as Record<string, unknown>;
        for (const [field, value] of Object.entries(manifest)) {
          assert.ok(sameJson(mergePatch(after[field], value), after[field]), `${field} is as the manifest says`);
        }
        for (const field of Object.keys(live)) {
          if (!(field in manifest) && !(field in last)) assert.deepEqual(after[field], live[field]);
          if (!(field in manifest) && field in last) assert.ok(!(field in after));
        }
        assert.deepEqual(threeWayPatch(manifest, manifest, after), {});
      }),
    );
  });
});

test("the manifest that was applied last is kept as kubectl keeps it", () => {
  const manifest = {
    kind: "Pod",
    apiVersion: "v1",
    metadata: { name: "web", annotations: { note: "1", [LAST_APPLIED]: "old" } },
    spec: { containers: [{ name: "main", image: "echo" }] },
  };
  const annotated = withLastApplied(manifest) as { metadata: { annotations: Record<string, string> } };
  assert.equal(
    annotated.metadata.annotations[LAST_APPLIED],
    '{"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"note":"1"},"name":"web"},"spec":{"containers":[{"image":"echo","name":"main"}]}}\n',
  );
  assert.deepEqual(withLastApplied(annotated), annotated);
  assert.partialDeepStrictEqual(lastAppliedOf(annotated), { spec: manifest.spec });
  assert.deepEqual(lastAppliedOf({ metadata: { annotations: { [LAST_APPLIED]: "{" } } }), {});
});

test("what others need is applied before them", () => {
  const kinds = [
    "Pod",
    "NetworkPolicy",
    "IPPool",
    "BGPPeer",
    "Namespace",
    "Service",
    "Tier",
    "FelixConfiguration",
  ] as const;
  assert.deepEqual(
    inApplyOrder(kinds.map((kind) => ({ kind }))).map(({ kind }) => kind),
    ["Namespace", "FelixConfiguration", "IPPool", "BGPPeer", "Tier", "NetworkPolicy", "Service", "Pod"],
  );
});
