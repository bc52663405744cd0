import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { memoryDatastore } from "../datastore/memory.ts";
import type { Datastore } from "../datastore/datastore.ts";
import { formatAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { createAllocator, type Allocator } from "../ipam/allocator.ts";
import { releaseOrdinals, takeFree } from "../ipam/block.ts";
import { blockObject, storedBlock } from "../ipam/objects.ts";
import { worldOf } from "../ipam/world.ts";
import { ipamBlock, type IPAMBlock } from "../resources/ipam.ts";
import { ipPool } from "../resources/ippool.ts";
import { createBlockStore } from "./blockStore.ts";

const NOW = Date.parse("2026-03-01T12:00:00Z");

function emptyDatastore(): Datastore {
  let uids = 0;
  return memoryDatastore({
    now: () => NOW,
    uid: () => `00000000-0000-4000-8000-${String((uids += 1)).padStart(12, "0")}`,
  });
}

/** As Calico writes one: a pod's address, a tunnel's, one that cools down, and two that are free. */
function calicoBlock(): IPAMBlock {
  return ipamBlock.parse({
    apiVersion: "crd.projectcalico.org/v1",
    kind: "IPAMBlock",
    metadata: { name: "10-244-9-0-29", labels: { "example.org/kept": "yes" }, annotations: { note: "ours" } },
    spec: {
      cidr: "10.244.9.0/29",
      affinity: "host:node1",
      affinityClaimTime: "2026-01-01T00:00:00Z",
      allocations: [0, null, 1, null, 2, null, null, null],
      unallocated: [3, 5, 6, 7, 1],
      attributes: [
        {
          handle_id: "k8s-pod-network.0123abc",
          secondary: { namespace: "default", node: "node1", pod: "web", timestamp: "2026-01-01 00:00:00 +0000 UTC" },
        },
        { handle_id: "vxlan-tunnel-addr-node1", secondary: { node: "node1", type: "vxlanTunnelAddress" } },
        { releasedAt: "2026-03-01T11:59:50Z" },
      ],
      sequenceNumber: 1767225600000000000,
      sequenceNumberForAllocation: { "0": 1767225600000000000, "2": 1767225600000000000, "4": 1767225600000000000 },
      deleted: false,
    },
  });
}

describe("a block of Calico's", () => {
  test("is written back as it was read", () => {
    const object = calicoBlock();
    const { value, version } = storedBlock(object);
    assert.deepEqual(ipamBlock.parse(blockObject(value, version)).spec, {
      ...object.spec,
      affinityClaimTime: "2026-01-01T00:00:00.000Z",
      attributes: [...object.spec.attributes.slice(0, 2), { releasedAt: "2026-03-01T11:59:50.000Z" }],
    });
    assert.deepEqual(blockObject(value, version).metadata, { ...object.metadata, resourceVersion: version });
  });

  test("after changes is one that passes for Calico's still", () => {
    const { value, version } = storedBlock(calicoBlock());
    const holder = { handle: "k8s-pod-network.456", attributes: { node: "node1", namespace: "default", pod: "db" } };
    const none = { has: () => false, touches: () => false, countIn: () => 0n, endOfCover: () => undefined };
    const taken = takeFree(value, holder, none);
    assert.ok(taken);
    const { spec } = ipamBlock.parse(
      blockObject(releaseOrdinals(taken.block, [0], { now: NOW, seconds: 60 }), version),
    );
    assert.deepEqual(spec.allocations, [3, null, 0, 2, 1, null, null, null]);
    assert.deepEqual(spec.unallocated, [5, 6, 7, 1]);
    assert.equal(spec.attributes[spec.allocations[3] ?? -1]?.handle_id, "k8s-pod-network.456");
    assert.deepEqual(spec.attributes[spec.allocations[0] ?? -1], { releasedAt: new Date(NOW).toISOString() });
    assert.equal(spec.sequenceNumberForAllocation["3"], 1767225600000000000);
  });
});

async function nodeOver(datastore: Datastore, node = "node1"): Promise<Allocator> {
  const { items } = await datastore.list("IPPool");
  const world = worldOf({ pools: items, reservations: [], configuration: undefined }, {});
  return createAllocator({
    node,
    store: createBlockStore(datastore),
    world: () => world,
    clock: () => NOW,
    random: () => 0,
  });
}

async function datastoreWithPool(): Promise<Datastore> {
  const datastore = emptyDatastore();
  const pool = {
    apiVersion: "projectcalico.org/v3",
    kind: "IPPool",
    metadata: { name: "pods" },
    spec: { cidr: "10.244.0.0/16", blockSize: 29 },
  };
  await datastore.create("IPPool", ipPool.parse(pool));
  return datastore;
}

describe("over a datastore", () => {
  test("an existing cluster's node goes on with its block, and keeps what else is in it", async () => {
    const datastore = await datastoreWithPool();
    await datastore.create("IPAMBlock", calicoBlock());
    const node = await nodeOver(datastore);
    assert.deepEqual(node.allocations().length, 0);
    const [given] = await node.assign({
      handle: "k8s-pod-network.456",
      attributes: { namespace: "default", pod: "db" },
    });
    assert.equal(given && formatAddress(given.address), "10.244.9.3");
    assert.deepEqual((await node.release(["k8s-pod-network.0123abc", "default.web"])).map(formatAddress), [
      "10.244.9.0",
    ]);
    const block = await datastore.get("IPAMBlock", "10-244-9-0-29");
    assert.deepEqual(block?.metadata.labels, { "example.org/kept": "yes" });
    assert.deepEqual(block?.metadata.annotations, { note: "ours" });
    assert.ok((block?.spec.sequenceNumber ?? 0) > 1767225600000000000);
    // The address that cooled down was released before the pod's, so it comes first.
    assert.deepEqual(block?.spec.unallocated, [5, 6, 7, 1, 4, 0]);
    await node.tidy();
    const affinity = await datastore.get("BlockAffinity", "node1-10-244-9-0-29");
    assert.equal(affinity?.spec.state, "confirmed");
  });

  test("objects get Calico's names, and nobody writes handles", async () => {
    const datastore = await datastoreWithPool();
    const node = await nodeOver(datastore);
    const [given] = await node.assign({ handle: "net.a", attributes: { namespace: "default", pod: "web" } });
    const [blocks, affinities, handles] = await Promise.all([
      datastore.list("IPAMBlock"),
      datastore.list("BlockAffinity"),
      datastore.list("IPAMHandle"),
    ]);
    const name = given && formatAddress(given.block.address).replaceAll(".", "-");
    assert.deepEqual(
      blocks.items.map(({ metadata }) => metadata.name),
      [`${name}-29`],
    );
    assert.deepEqual(
      affinities.items.map(({ metadata }) => metadata.name),
      [`node1-${name}-29`],
    );
    assert.deepEqual(handles.items, []);
    assert.deepEqual(blocks.items[0]?.spec.attributes, [
      {
        handle_id: "net.a",
        secondary: { namespace: "default", pod: "web", node: "node1", timestamp: new Date(NOW).toISOString() },
      },
    ]);
  });

  test("two nodes on one datastore never give out the same address", async () => {
    const datastore = await datastoreWithPool();
    const nodes = await Promise.all(["node1", "node2", "node3"].map((name) => nodeOver(datastore, name)));
    const given = await Promise.all(
      nodes.flatMap((node, index) =>
        Array.from({ length: 20 }, (_, pod) => node.assign({ handle: `net.${index}-${pod}`, attributes: {} })),
      ),
    );
    assert.equal(new Set(given.flat().map(({ address }) => formatAddress(address))).size, 60);
  });

  test("what has moved on, is there already or is gone is a conflict", async () => {
    const datastore = await datastoreWithPool();
    const store = createBlockStore(datastore);
    const { value } = storedBlock(calicoBlock());
    const stored = await store.createBlock(value);
    await assert.rejects(store.createBlock(value), { code: "conflict" });
    await store.updateBlock({ ...stored.value, sequenceNumber: NOW }, stored.version);
    await assert.rejects(store.updateBlock(stored.value, stored.version), { code: "conflict" });
    await assert.rejects(store.deleteBlock(value.prefix, stored.version), { code: "conflict" });
    const fresh = await store.getBlock(value.prefix);
    await store.deleteBlock(value.prefix, fresh?.version ?? "");
    await assert.rejects(store.deleteBlock(value.prefix, fresh?.version ?? ""), { code: "conflict" });
    await assert.rejects(store.updateBlock(stored.value, stored.version), { code: "conflict" });
    assert.equal(await store.getBlock(value.prefix), undefined);
  });

  test("what Calico marked as deleted counts as gone, and makes room", async () => {
    const datastore = await datastoreWithPool();
    const store = createBlockStore(datastore);
    const object = calicoBlock();
    await datastore.create("IPAMBlock", { ...object, spec: { ...object.spec, deleted: true } });
    assert.deepEqual(await store.listBlocks(), []);
    assert.equal(await store.getBlock(parsePrefix("10.244.9.0/29")), undefined);
    const { carried: _carried, ...block } = storedBlock(object).value;
    await store.createBlock(block);
    assert.equal((await store.listBlocks()).length, 1);
  });
});
