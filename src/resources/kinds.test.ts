import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { Resource } from "./kind.ts";
import { objectOf, testRefusals } from "./malformed.testing.ts";
import { KIND, KINDS, kindOf } from "./registry.ts";
import { InvalidResource } from "./schema.ts";
import { formatManifest, parseManifest } from "./yaml.ts";

const GOLDEN = join(import.meta.dirname, "golden");
/** `CARACAL_UPDATE_GOLDEN=1` writes what the objects are now taken for into `*.normal.yaml`. */
const update = process.env["CARACAL_UPDATE_GOLDEN"] !== undefined;

function parse(object: Record<string, unknown>): Resource {
  const id = kindOf(String(object["apiVersion"]), String(object["kind"]));
  assert.ok(id, `no kind for ${String(object["apiVersion"])} ${String(object["kind"])}`);
  return KIND[id].parse(object);
}

const manifests = readdirSync(GOLDEN)
  .filter((name) => name.endsWith(".yaml") && !name.endsWith(".normal.yaml"))
  .map((name) => ({
    name,
    objects: parseManifest(readFileSync(join(GOLDEN, name), "utf8"), name).map(({ object }) => object),
  }));

for (const { name, objects } of manifests) {
  describe(`golden/${name}`, () => {
    test("is accepted, and normalised as in its .normal.yaml", () => {
      const normal = formatManifest(objects.map(parse));
      const file = join(GOLDEN, name.replace(".yaml", ".normal.yaml"));
      if (update) writeFileSync(file, normal);
      assert.equal(normal, readFileSync(file, "utf8"));
    });

    test("is unchanged when it is parsed again, and when it goes through YAML", () => {
      for (const object of objects) {
        const once = parse(object);
        assert.deepEqual(parse(structuredClone(once) as unknown as Record<string, unknown>), once);
        const [read] = parseManifest(formatManifest([once]), name);
        assert.deepEqual(parse(read!.object), once);
      }
    });

    test("has text in every column", () => {
      for (const object of objects) {
        const item = parse(object);
        for (const { heading, text } of KIND[kindOf(item.apiVersion, item.kind)!]
          .columns as (typeof KINDS)[0]["columns"]) {
          assert.equal(typeof text(item), "string", `${item.kind} ${heading}`);
        }
      }
    });

    test("is not changed by the parse", () => {
      for (const object of objects) {
        const before = structuredClone(object);
        parse(object);
        assert.deepEqual(object, before);
      }
    });
  });
}

test("there is a golden object of every kind", () => {
  const seen = new Set<string | undefined>(
    manifests.flatMap(({ objects }) =>
      objects.map((object) => kindOf(String(object["apiVersion"]), String(object["kind"]))),
    ),
  );
  assert.deepEqual(
    KINDS.map(({ id }) => id).filter((id) => !seen.has(id)),
    [],
  );
});

testRefusals([
  ["IPPool", { metadata: {} }, "spec: is required (an object)", "metadata.name: is required (a string)"],
  [
    "IPPool",
    { metadata: { name: "A_b" }, spec: { cidr: "10.0.0.0/16" } },
    'metadata.name: "A_b" is not a name: lower-case letters, digits, "-" and "." only, beginning and ending with a letter or digit',
  ],
  [
    "IPPool",
    { metadata: { name: "x", namespace: "y" }, spec: { cidr: "10.0.0.0/16" } },
    "metadata.namespace: must be absent: IPPool objects are not in a namespace",
  ],
  [
    "IPPool",
    { metadata: { name: "x", lables: {} }, spec: { cidr: "10.0.0.0/16" } },
    'metadata.lables: unknown field, did you mean "labels"?',
  ],
  [
    "IPPool",
    { metadata: { name: "x", labels: { "a b": "c", d: 5, e: "f g" } }, spec: { cidr: "10.0.0.0/16" } },
    'metadata.labels["a b"]: "a b" is not a key: at most 63 letters, digits, "-", "_" and ".", beginning and ending with a letter or digit',
    'metadata.labels["d"]: expected a string, not the number 5',
    'metadata.labels["e"]: "f g" is not a label value: at most 63 letters, digits, "-", "_" and ".", beginning and ending with a letter or digit',
  ],
  [
    "IPPool",
    { metadata: { name: "x", annotations: { a: "z".repeat(262144) } }, spec: { cidr: "10.0.0.0/16" } },
    "metadata.annotations: all together are 262145 bytes long, more than 262144",
  ],
  ["IPPool", { metadata: [], spec: { cidr: "10.0.0.0/16" } }, "metadata: expected an object, not a list"],
  [
    "Pod",
    { metadata: { name: "x", namespace: "A" }, spec: { containers: [{ name: "c" }] } },
    'metadata.namespace: "A" is not a name: lower-case letters, digits and "-" only, beginning and ending with a letter or digit',
  ],
]);

const pod = (fields: object, container: object = {}) => ({
  spec: { containers: [{ name: "c", ...container }], ...fields },
});

for (const { id } of KINDS) {
  test(`a field that ${id} does not have is refused`, () => {
    const object = manifests
      .flatMap(({ objects }) => objects)
      .find((candidate) => kindOf(String(candidate["apiVersion"]), String(candidate["kind"])) === id)!;
    for (const part of [[], ["metadata"], ...("spec" in object ? [["spec"]] : [])]) {
      const path = [...part, "zzzz"].join(".");
      const wrong = structuredClone(object);
      Object.assign(part.length === 0 ? wrong : (wrong[part[0]!] as object), { zzzz: 1 });
      assert.throws(() => parse(wrong), { faults: [{ path, reason: "unknown field" }] });
    }
  });
}

describe("a refusal", () => {
  test("names the object, with one line for each fault", () => {
    const bad = objectOf("Pod", { metadata: { name: "web", namespace: "shop" }, spec: { containrs: [] } });
    assert.throws(() => KIND.Pod.parse(bad), {
      code: "invalid",
      message:
        'Pod "shop/web" is not valid:\n  spec.containers: is required (a list)\n  spec.containrs: unknown field, did you mean "containers"?',
    });
  });

  for (const input of [undefined, null, 5, "x", [], {}]) {
    test(`${JSON.stringify(input)} for a pod is one`, () => {
      assert.throws(() => KIND.Pod.parse(input), { code: "invalid" });
    });
  }

  test("meets another kind, or version", () => {
    const other = {
      ...objectOf("IPPool", { spec: { cidr: "10.0.0.0/16" } }),
      apiVersion: "projectcalico.org/v1",
      kind: "Pool",
    };
    assert.throws(() => KIND.IPPool.parse(other), {
      faults: [
        { path: "kind", reason: 'expected IPPool, not the text "Pool"' },
        { path: "apiVersion", reason: 'expected projectcalico.org/v3, not the text "projectcalico.org/v1"' },
      ],
    });
    assert.throws(() => KIND.Namespace.parse({ metadata: { name: "x" } }), {
      faults: [
        { path: "kind", reason: "expected Namespace, not nothing" },
        { path: "apiVersion", reason: "expected v1, not nothing" },
      ],
    });
  });
});

describe("a parse", () => {
  test("keeps unknown fields where it is told to, and only then", () => {
    const newer = objectOf("Pod", pod({ flux: { a: 1 } }, { warp: 9 }));
    assert.throws(() => KIND.Pod.parse(newer), InvalidResource);
    const kept: unknown = KIND.Pod.parse(newer, { keepUnknown: true }).spec;
    assert.deepEqual(kept, { containers: [{ name: "c", warp: 9 }], flux: { a: 1 }, serviceAccountName: "default" });
  });

  test("fills in the namespace of namespaced kinds", () => {
    assert.equal(KIND.Pod.parse(objectOf("Pod", pod({}))).metadata.namespace, "default");
    assert.equal(KIND.Node.parse(objectOf("Node", {})).metadata.namespace, undefined);
    assert.equal(
      KIND.Node.parse(objectOf("Node", { metadata: { name: "x", namespace: "" } })).metadata.namespace,
      undefined,
    );
  });

  test("takes an object that is yet to be named", () => {
    assert.equal(KIND.Pod.parse(objectOf("Pod", { ...pod({}), metadata: { generateName: "web-" } })).metadata.name, "");
  });

  const types: [object, string[]][] = [
    [{}, ["Ingress"]],
    [{ ingress: [{ action: "Allow" }] }, ["Ingress"]],
    [{ egress: [{ action: "Allow" }] }, ["Egress"]],
    [{ ingress: [{ action: "Allow" }], egress: [{ action: "Allow" }] }, ["Ingress", "Egress"]],
    [{ ingress: [], egress: [] }, ["Ingress"]],
    [{ egress: [{ action: "Allow" }], types: ["Ingress"] }, ["Ingress"]],
  ];
  for (const [spec, expected] of types) {
    test(`works out that a policy of ${JSON.stringify(spec)} governs ${expected.join(" and ")}`, () => {
      assert.deepEqual(KIND.CalicoNetworkPolicy.parse(objectOf("CalicoNetworkPolicy", { spec })).spec.types, expected);
      assert.deepEqual(KIND.GlobalNetworkPolicy.parse(objectOf("GlobalNetworkPolicy", { spec })).spec.types, expected);
    });
  }
});

describe("an update", () => {
  const pool = (spec: object) => KIND.IPPool.parse(objectOf("IPPool", { spec: { cidr: "10.0.0.0/16", ...spec } }));

  test("of what may change passes", () => {
    KIND.IPPool.checkUpdate?.(pool({}), pool({ disabled: true, cidr: "10.0.0.1/16", blockSize: 26 }));
    assert.equal(KIND.Tier.checkUpdate, undefined);
  });

  test("of a pool's CIDR or block size is refused", () => {
    assert.throws(() => KIND.IPPool.checkUpdate?.(pool({}), pool({ cidr: "10.1.0.0/16", blockSize: 28 })), {
      faults: [
        { path: "spec.cidr", reason: 'cannot be changed (it is "10.0.0.0/16"): delete the object and create it anew' },
        { path: "spec.blockSize", reason: "cannot be changed (it is 26): delete the object and create it anew" },
      ],
    });
  });

  test("gives a pod its node once", () => {
    const on = (nodeName?: string) => KIND.Pod.parse(objectOf("Pod", pod(nodeName === undefined ? {} : { nodeName })));
    KIND.Pod.checkUpdate?.(on(), on("node1"));
    assert.throws(() => KIND.Pod.checkUpdate?.(on("node1"), on("node2")), InvalidResource);
    assert.throws(() => KIND.Pod.checkUpdate?.(on("node1"), on()), InvalidResource);
  });
});
