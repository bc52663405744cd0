import assert from "node:assert/strict";
import { test } from "node:test";
import { check, identify, ManifestsRefused } from "./manifests.ts";

const POOL = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: { name: a }\nspec: { cidr: 10.0.0.0/16 }\n";
const POD = "apiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec: { containers: [{ name: main, image: echo }] }\n";

const refused: { name: string; text: string; namespace?: string; lines: RegExp[] }[] = [
  { name: "text that is not YAML", text: "a: [", lines: [/^file\.yaml, line 1/] },
  {
    name: "an object that does not say what it is",
    text: "metadata: { name: a }",
    lines: [/^file\.yaml, document 1, line 1: apiVersion: is required/],
  },
  {
    name: "a kind that there is not",
    text: POOL.replace("IPPool", "IPPol"),
    lines: [/document 1, line 1: kind: there is no IPPol in projectcalico\.org\/v3 here, did you mean "IPPool"/],
  },
  {
    name: "a kind in the wrong group",
    text: POOL.replace("projectcalico.org/v3", "v1"),
    lines: [/apiVersion: IPPool is not in v1, it is in projectcalico\.org\/v3/],
  },
  {
    name: "an object without a name",
    text: POOL.replace("name: a", "labels: {}"),
    lines: [/metadata\.name: is required/],
  },
  {
    name: "an object of another namespace",
    text: POD.replace("name: web", "name: web, namespace: shop"),
    namespace: "default",
    lines: [/is "shop", but the namespace given is "default"/],
  },
  {
    name: "every fault of every document",
    text: `${POOL.replace("10.0.0.0/16", "10.0.0.0/99")}---\n${POD.replace("image:", "imag:").replace("name: web", "name: Web")}`,
    lines: [
      /^file\.yaml, document 1, line 1: IPPool "a": spec\.cidr: /,
      /^file\.yaml, document 2, line 6: Pod "Web": spec\.containers\[0\]\.imag: /,
      /^file\.yaml, document 2, line 6: Pod "Web": metadata\.name: /,
    ],
  },
];
for (const { name, text, namespace, lines } of refused) {
  test(`refuses ${name}`, () => {
    assert.throws(
      () => check([{ source: "file.yaml", text }], namespace),
      (thrown) => {
        assert.ok(thrown instanceof ManifestsRefused);
        for (const line of lines)
          assert.ok(
            thrown.message.split("\n").some((each) => line.test(each)),
            `${line} in:\n${thrown.message}`,
          );
        return true;
      },
    );
  });
}

test("objects go to the namespace given, or to default", () => {
  const found = (namespace?: string) => check([{ source: "file.yaml", text: `${POOL}---\n${POD}` }], namespace);
  assert.deepEqual(
    found().map(({ kind, name, namespace }) => ({ kind, name, namespace })),
    [
      { kind: "IPPool", name: "a", namespace: undefined },
      { kind: "Pod", name: "web", namespace: "default" },
    ],
  );
  assert.equal(found("shop")[1]?.object.metadata.namespace, "shop");
  assert.deepEqual(found("shop")[1]?.raw["metadata"], { name: "web", namespace: "shop" });
});

test("an object that is not valid can still be identified", () => {
  const [found] = identify([{ source: "file.yaml", text: POOL.replace("cidr", "old") }], undefined);
  assert.partialDeepStrictEqual(found, { kind: "IPPool", name: "a" });
});
