import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { namespace as namespaceKind, type Namespace } from "../resources/service.ts";
import { pod as podKind, type Pod } from "../resources/workload.ts";
import { podFacts } from "./podFacts.ts";

const pod = (uid: string, annotations: Record<string, string> = {}): Pod =>
  podKind.parse({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "web", namespace: "default", uid, annotations },
    spec: { containers: [{ name: "c", image: "x" }] },
  });
const home: Namespace = namespaceKind.parse({
  apiVersion: "v1",
  kind: "Namespace",
  metadata: { name: "default", labels: { team: "a" }, annotations: { note: "b" } },
});

type Arguments = Parameters<typeof podFacts>;

/** `copy` is the node's, `stored` what the datastore has. */
function facts(copy: Pod | undefined, stored: readonly (Pod | Namespace)[], uid?: string): ReturnType<typeof podFacts> {
  const known = { get: (kind: string) => (kind === "Pod" ? copy : undefined) } as Arguments[0];
  const datastore = { get: (kind: string) => Promise.resolve(stored.find((object) => object.kind === kind)) };
  return podFacts(known, datastore as unknown as Arguments[1], "default", "web", uid);
}

describe("what is known of a pod", () => {
  test("comes from the node's copy, with its namespace", async () => {
    assert.deepEqual(await facts(pod("u1", { a: "b" }), [home], "u1"), {
      uid: "u1",
      annotations: { a: "b" },
      namespaceName: "default",
      namespaceLabels: { team: "a", "kubernetes.io/metadata.name": "default" },
      namespaceAnnotations: { note: "b" },
    });
  });

  test("comes from the datastore where the copy is behind", async () => {
    assert.equal((await facts(undefined, [pod("uid-1")], "uid-1"))?.uid, "uid-1");
    assert.equal((await facts(pod("old"), [pod("uid-1")], "uid-1"))?.uid, "uid-1");
  });

  test("is nothing where there is no such pod, or another of its name", async () => {
    assert.equal(await facts(undefined, [home], "u1"), undefined);
    assert.equal(await facts(undefined, []), undefined);
    assert.equal(await facts(pod("u2"), [pod("u2")], "u1"), undefined);
  });

  test("is the mirror's, of a pod of the node's own manifests", async () => {
    assert.equal((await facts(pod("u2", { "kubernetes.io/config.mirror": "u1" }), [], "u1"))?.uid, "u2");
    assert.equal(await facts(pod("u2", { "kubernetes.io/config.mirror": "u3" }), [], "u1"), undefined);
  });

  test("needs no uid", async () => {
    const found = await facts(pod("u2"), []);
    assert.deepEqual([found?.uid, found?.namespaceLabels], ["u2", {}]);
  });
});
