import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { memoryDatastore } from "../datastore/memory.ts";
import { KIND, type Kinds } from "../resources/registry.ts";
import { keepAutoHostEndpoints } from "./autoHostEndpoints.io.ts";
import { planHostEndpoints } from "./autoHostEndpoints.ts";

type Settings = Parameters<typeof planHostEndpoints>[2];

const node = (name: string, address: string, labels: Record<string, string> = {}): Kinds["Node"] =>
  KIND.Node.parse({
    apiVersion: "v1",
    kind: "Node",
    metadata: { name, labels, annotations: { "projectcalico.org/IPv4Address": `${address}/24` } },
    spec: {},
    status: {
      addresses: [
        { type: "InternalIP", address },
        { type: "ExternalIP", address: "198.51.100.7" },
      ],
    },
  });
const endpoint = (name: string, labels: Record<string, string>): Kinds["HostEndpoint"] =>
  KIND.HostEndpoint.parse({
    apiVersion: "projectcalico.org/v3",
    kind: "HostEndpoint",
    metadata: { name, labels, resourceVersion: "7" },
    spec: { node: "n1", interfaceName: "*" },
  });
const OURS = { "projectcalico.org/created-by": "calico-kube-controllers" };
const ON: Settings = { autoCreate: "Enabled" };

describe("automatic host endpoints", () => {
  test("stand for all interfaces of every node, with its labels and addresses, and let everything through", () => {
    const { create, update, remove } = planHostEndpoints([node("n1", "192.0.2.1", { rack: "r1" })], [], ON);
    assert.deepEqual(create, [
      {
        apiVersion: "projectcalico.org/v3",
        kind: "HostEndpoint",
        metadata: { name: "n1-auto-hep", labels: { rack: "r1", ...OURS } },
        spec: {
          node: "n1",
          profiles: ["projectcalico-default-allow"],
          interfaceName: "*",
          expectedIPs: ["192.0.2.1", "198.51.100.7"],
        },
      },
    ]);
    assert.deepEqual([update, remove], [[], []]);
    assert.deepEqual(KIND.HostEndpoint.parse(create[0]), create[0]);
  });

  test("come from templates too, for the nodes and networks that these name", () => {
    const settings: Settings = {
      autoCreate: "Enabled",
      createDefaultHostEndpoint: "Disabled",
      templates: [
        {
          generateName: "front",
          interfaceCIDRs: ["198.51.100.0/24"],
          nodeSelector: "edge == 'yes'",
          labels: { side: "front" },
        },
        { generateName: "none", interfaceCIDRs: ["203.0.113.0/24"] },
        { generateName: "odd", interfacePattern: "eth.*" },
      ],
    };
    const nodes = [node("n1", "192.0.2.1", { edge: "yes" }), node("n2", "192.0.2.2")];
    const { create, problems } = planHostEndpoints(nodes, [], settings);
    assert.deepEqual(
      create.map(({ metadata, spec }) => [
        metadata.name,
        metadata.labels?.["side"],
        spec.expectedIPs,
        spec.interfaceName,
      ]),
      [["n1-front-auto-hep", "front", ["198.51.100.7"], undefined]],
    );
    assert.match(problems.join(), /template "odd": interfacePattern is not supported/);
  });

  test("follow their node, go with it, and go when they are turned off; others' stay", () => {
    const mine = endpoint("n1-auto-hep", OURS);
    const theirs = endpoint("n2-auto-hep", {});
    const gone = endpoint("n9-auto-hep", OURS);
    const nodes = [node("n1", "192.0.2.1", { rack: "r2" }), node("n2", "192.0.2.2")];
    const plan = planHostEndpoints(nodes, [mine, theirs, gone], ON);
    assert.deepEqual(plan.create, []);
    assert.partialDeepStrictEqual(plan.update, [
      { metadata: { name: "n1-auto-hep", resourceVersion: "7", labels: { rack: "r2" } } },
    ]);
    assert.deepEqual(plan.remove, [gone]);
    assert.match(plan.problems.join(), /n2-auto-hep is somebody else's/);
    assert.deepEqual(planHostEndpoints(nodes, plan.update, ON).update, []);
    for (const off of [undefined, { autoCreate: "Disabled" } as const]) {
      assert.deepEqual(planHostEndpoints(nodes, [mine, theirs], off).remove, [mine]);
    }
  });

  test("are made, changed and taken away as nodes and the configuration change", async () => {
    let uids = 0;
    const datastore = memoryDatastore({ now: () => 1_800_000_000_000, uid: () => `uid-${(uids += 1)}` });
    const timers = {
      now: () => performance.now(),
      setTimeout,
      clearTimeout: (timer: unknown) => clearTimeout(timer as NodeJS.Timeout),
    };
    const end = keepAutoHostEndpoints(datastore, { timers, random: () => 0.5 }, () => undefined);
    const names = async (): Promise<string> =>
      (await datastore.list("HostEndpoint")).items
        .map(({ metadata }) => `${metadata.name} ${metadata.labels?.["rack"] ?? ""}`.trim())
        .sort()
        .join(", ");
    const until = async (expected: string): Promise<void> => {
      for (let tries = 0; (await names()) !== expected && tries < 200; tries += 1) await sleep(10);
      assert.equal(await names(), expected);
    };
    try {
      await datastore.create("Node", node("n1", "192.0.2.1"));
      await datastore.create(
        "KubeControllersConfiguration",
        KIND.KubeControllersConfiguration.parse({
          apiVersion: "projectcalico.org/v3",
          kind: "KubeControllersConfiguration",
          metadata: { name: "default" },
          spec: { controllers: { node: { hostEndpoint: { autoCreate: "Enabled" } } } },
        }),
      );
      await until("n1-auto-hep");
      await datastore.create("Node", node("n2", "192.0.2.2"));
      await datastore.patch("Node", "n1", undefined, { metadata: { labels: { rack: "r1" } } });
      await until("n1-auto-hep r1, n2-auto-hep");
      await datastore.delete("Node", "n2");
      await until("n1-auto-hep r1");
      await datastore.delete("KubeControllersConfiguration", "default");
      await until("");
    } finally {
      end();
    }
  });
});
