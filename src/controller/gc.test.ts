import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { createBlockStore } from "../agent/blockStore.ts";
import type { Datastore } from "../datastore/datastore.ts";
import { memoryDatastore } from "../datastore/memory.ts";
import { formatAddress } from "../ip/address.ts";
import { createAllocator } from "../ipam/allocator.ts";
import { worldOf } from "../ipam/world.ts";
import { KIND } from "../resources/registry.ts";
import { NO_SUSPICIONS } from "../ipam/garbage.ts";
import { collectGarbage, runController } from "./gc.io.ts";

async function clusterWith(...pods: readonly { name: string; exists: boolean }[]): Promise<Datastore> {
  let uids = 0;
  const uid = (): string => `00000000-0000-4000-8000-${String((uids += 1)).padStart(12, "0")}`;
  const datastore = memoryDatastore({ now: () => Date.now(), uid });
  const pool = {
    apiVersion: "projectcalico.org/v3",
    kind: "IPPool",
    metadata: { name: "pods" },
    spec: { cidr: "10.244.0.0/16" },
  };
  const pools = [await datastore.create("IPPool", KIND.IPPool.parse(pool))];
  for (const name of ["node1", "node2"]) {
    await datastore.create("Node", KIND.Node.parse({ apiVersion: "v1", kind: "Node", metadata: { name }, spec: {} }));
  }
  const world = worldOf({ pools, reservations: [], configuration: undefined }, {});
  const store = createBlockStore(datastore);
  const node = createAllocator({ node: "node1", store, world: () => world, clock: Date.now, random: Math.random });
  for (const { name, exists } of pods) {
    const [given] = await node.assign({ handle: `net.${name}`, attributes: { namespace: "default", pod: name } });
    if (!exists || given === undefined) continue;
    const annotations = { "cni.projectcalico.org/podIP": `${formatAddress(given.address)}/32` };
    const spec = { nodeName: "node1", containers: [{ name: "main", image: "echo" }] };
    await datastore.create(
      "Pod",
      KIND.Pod.parse({ apiVersion: "v1", kind: "Pod", metadata: { name, namespace: "default", annotations }, spec }),
    );
  }
  return datastore;
}

async function heldIn(datastore: Datastore): Promise<string[]> {
  const { items } = await datastore.list("IPAMBlock");
  return items.flatMap(({ spec }) => spec.attributes.map(({ handle_id }) => handle_id ?? "")).sort();
}

const log = (): void => undefined;

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 200; attempt += 1) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail("what was waited for did not come about");
}

describe("the controller", () => {
  test("releases what pods left behind, and nothing that they have", async () => {
    const datastore = await clusterWith({ name: "web", exists: true }, { name: "gone", exists: false });
    const stop = new AbortController();
    const running = runController(datastore, { store: createBlockStore(datastore), log, graceMs: 50 }, stop.signal);
    await until(async () => (await heldIn(datastore)).length === 1);
    assert.deepEqual(await heldIn(datastore), ["net.web"]);
    stop.abort();
    await running;
  });

  test("keeps what an agent has an endpoint for", async () => {
    const datastore = await clusterWith({ name: "hidden", exists: false });
    const [block] = (await datastore.list("IPAMBlock")).items;
    const address = block?.spec.cidr.replace(/\/26$/, "") ?? "";
    const endpoints = new Map([["node1", new Set([address])]]);
    const options = { store: createBlockStore(datastore), log, endpoints: () => Promise.resolve(endpoints) };
    const first = await collectGarbage(datastore, options, NO_SUSPICIONS, 0);
    await collectGarbage(datastore, options, first.suspicions, 0);
    assert.deepEqual(await heldIn(datastore), ["net.hidden"]);
    const without = { store: options.store, log };
    const second = await collectGarbage(datastore, without, NO_SUSPICIONS, 0);
    assert.deepEqual(second.report.released, []);
    const third = await collectGarbage(datastore, without, second.suspicions, 0);
    assert.deepEqual(
      third.report.released.map(({ holder }) => holder.handle),
      ["net.hidden"],
    );
  });

  test("cleans up after a node that is deleted without waiting for the grace period", async () => {
    const datastore = await clusterWith({ name: "web", exists: false });
    const stop = new AbortController();
    const running = runController(
      datastore,
      { store: createBlockStore(datastore), log, graceMs: 3_600_000 },
      stop.signal,
    );
    await new Promise((resolve) => setTimeout(resolve, 20));
    await datastore.delete("Node", "node1");
    await until(async () => (await heldIn(datastore)).length === 0);
    stop.abort();
    await running;
    assert.deepEqual(await heldIn(datastore), []);
  });
});
