import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { giveUpPool } from "./affinity.ts";
import { hostOf } from "./block.ts";
import { memoryBlockStore } from "./store.testing.ts";
import { address, nodeOf, pool, texts, world } from "./world.testing.ts";

const SMALL = pool("10.0.0.0/28", { name: "small", blockSize: 30 });
const V4 = pool("10.0.0.0/16", { name: "v4" });
const V6 = pool("fd00::/112", { name: "v6" });
const attributes = { namespace: "default", pod: "web" };

describe("an address of a block that the node holds", () => {
  test("costs one write and no read", async () => {
    const store = memoryBlockStore();
    const node = nodeOf("node1", store, { world: world([V4]) });
    const [first] = await node.assign({ handle: "a", attributes });
    assert.ok(first);
    const before = { ...store.counts };
    const [second] = await node.assign({ handle: "b", attributes });
    assert.equal(store.counts.writes - before.writes, 1);
    assert.equal(store.counts.reads - before.reads, 0);
    assert.equal(second?.block, first.block);
    assert.notDeepEqual(second?.address, first.address);
  });

  test("costs one write also after it was taken back by its handle", async () => {
    const store = memoryBlockStore();
    const node = nodeOf("node1", store, { world: world([V4]) });
    const given = await node.assign({ handle: "net.a", attributes });
    const before = { ...store.counts };
    assert.deepEqual(texts(await node.release(["net.a", "default.web"])), texts(given));
    assert.deepEqual(texts(await node.release(["net.a", "default.web"])), []);
    assert.equal(store.counts.writes - before.writes, 1);
    assert.equal(store.counts.reads - before.reads, 0);
  });

  test("is written together with those that are asked for meanwhile", async () => {
    const store = memoryBlockStore();
    const node = nodeOf("node1", store, { world: world([V4]) });
    await node.assign({ handle: "first", attributes });
    const before = { ...store.counts };
    const handles = Array.from({ length: 50 }, (_, index) => `pod${index}`);
    const given = await Promise.all(handles.map((handle) => node.assign({ handle, attributes })));
    assert.equal(new Set(given.flatMap(texts)).size, 50);
    assert.ok(store.counts.writes - before.writes <= 3, `${store.counts.writes - before.writes} writes`);
    assert.equal(store.counts.reads, before.reads);
    const released = await node.release(handles);
    assert.equal(released.length, 50);
    assert.ok(store.counts.writes - before.writes <= 6, `${store.counts.writes - before.writes} writes`);
  });

  test("is durable when the caller learns of it", async () => {
    const store = memoryBlockStore();
    const node = nodeOf("node1", store, { world: world([V4]) });
    const check = async (handle: string): Promise<void> => {
      await node.assign({ handle, attributes });
      const stored = [...store.blocks.values()].flatMap(({ value }) => value.holders.map((holder) => holder.handle));
      assert.ok(stored.includes(handle), `${handle} was given out before it was stored`);
    };
    await Promise.all(Array.from({ length: 20 }, (_, index) => check(`pod${index}`)));
  });
});

describe("when the node's blocks are full", () => {
  test("another is claimed, pending before the block and confirmed after it", async () => {
    const moments: string[] = [];
    const store = memoryBlockStore((moment) => Promise.resolve(moments.push(moment)));
    const node = nodeOf("node1", store, { world: world([V4]) });
    await node.assign({ handle: "a", attributes });
    const writes = moments.filter((moment) => /^after (create|update)/.test(moment));
    assert.deepEqual(
      writes,
      ["createAffinity", "createBlock", "updateAffinity", "updateBlock"].map((name) => `after ${name}`),
    );
    assert.deepEqual(
      [...store.affinities.values()].map(({ value }) => value.state),
      ["confirmed"],
    );
    assert.deepEqual(
      [...store.blocks.values()].map(({ value }) => hostOf(value)),
      ["node1"],
    );
  });

  test("many requests at once claim no more blocks than they need", async () => {
    const store = memoryBlockStore();
    const node = nodeOf("node1", store, { world: world([pool("10.0.0.0/24", { blockSize: 28 })]) });
    const handles = Array.from({ length: 40 }, (_, index) => `pod${index}`);
    const given = await Promise.all(handles.map((handle) => node.assign({ handle, attributes })));
    assert.equal(new Set(given.flatMap(texts)).size, 40);
    assert.equal(store.blocks.size, 3);
  });

  test("an empty block of another node is taken over once it is a minute old, not before", async () => {
    const store = memoryBlockStore();
    const clock = { now: 1_700_000_000_000 };
    const settings = { world: world([pool("10.0.0.0/30", { blockSize: 30 })], { config: { strictAffinity: true } }) };
    const [one, two] = ["node1", "node2"].map((name) => nodeOf(name, store, settings, clock));
    assert.ok(one && two);
    await one.assign({ handle: "a", attributes });
    await one.release(["a"]);
    clock.now += 59_000;
    await assert.rejects(two.assign({ handle: "b", attributes }), { code: "pool-full" });
    clock.now += 1_000;
    const given = await two.assign({ handle: "b", attributes });
    assert.equal(given?.[0]?.borrowed, false);
    assert.deepEqual(
      [...store.affinities.values()].map(({ value }) => `${value.node} ${value.state}`),
      ["node2 confirmed"],
    );
    await assert.rejects(one.assign({ handle: "c", attributes }), { code: "pool-full" });
  });

  test("an address is borrowed from another node, unless affinity is strict", async () => {
    const store = memoryBlockStore();
    const settings = { world: world([pool("10.0.0.0/30", { name: "tiny", blockSize: 30 })]) };
    const [one, two] = ["node1", "node2"].map((name) => nodeOf(name, store, settings));
    assert.ok(one && two);
    await one.assign({ handle: "a", attributes });
    const [borrowed] = await two.assign({ handle: "b", attributes });
    assert.equal(borrowed?.borrowed, true);
    assert.equal(store.blocks.size, 1);
    settings.world = world(settings.world.pools, { config: { strictAffinity: true } });
    await assert.rejects(two.assign({ handle: "c", attributes }), {
      code: "pool-full",
      message:
        "Cannot assign an IPv4 address to c on node2: no block is free in tiny (10.0.0.0/30); strictAffinity forbids to borrow",
    });
    assert.deepEqual(texts(await two.release(["b"])), texts([borrowed]));
    assert.equal(two.blocks().length, 0);
  });

  test("no more blocks are claimed than a node may hold", async () => {
    const store = memoryBlockStore();
    const settings = { world: world([SMALL], { config: { maxBlocksPerHost: 2, strictAffinity: true } }) };
    const node = nodeOf("node1", store, settings);
    for (let index = 0; index < 8; index += 1) await node.assign({ handle: `pod${index}`, attributes });
    await assert.rejects(node.assign({ handle: "one-more", attributes }), {
      code: "block-limit",
      message: /node1 holds 2 blocks, as many as it may \(maxBlocksPerHost\)/,
    });
    assert.equal(store.blocks.size, 2);
  });

  test("none is claimed where autoAllocateBlocks is off", async () => {
    const config = { autoAllocateBlocks: false, strictAffinity: true };
    const store = memoryBlockStore();
    const node = nodeOf("node1", store, { world: world([V4], { config }) });
    await assert.rejects(node.assign({ handle: "a", attributes }), {
      code: "pool-full",
      message: /autoAllocateBlocks is off/,
    });
    assert.equal(store.blocks.size, 0);
  });

  test("a block is not cut across one from before a change of the block size", async () => {
    const store = memoryBlockStore();
    const settings = { world: world([pool("10.0.0.0/27", { blockSize: 28 })], { config: { strictAffinity: true } }) };
    await nodeOf("node1", store, settings).assign({ handle: "a", attributes });
    settings.world = world([pool("10.0.0.0/27", { blockSize: 30 })], { config: { strictAffinity: true } });
    const other = nodeOf("node2", store, settings);
    for (let index = 0; index < 16; index += 1) await other.assign({ handle: `pod${index}`, attributes });
    await assert.rejects(other.assign({ handle: "x", attributes }), { code: "pool-full" });
  });
});

describe("choice of addresses", () => {
  test("one of each family that pools offer; all or nothing", async () => {
    const store = memoryBlockStore();
    const settings = { world: world([V4, V6]) };
    const node = nodeOf("node1", store, settings);
    const both = await node.assign({ handle: "a", attributes });
    assert.deepEqual(
      both.map(({ address: { family } }) => family),
      [4, 6],
    );
    settings.world = world([V4, pool("fd00::/128", { blockSize: 128 })], {
      config: { strictAffinity: true },
      reserved: ["fd00::/64"],
    });
    await assert.rejects(node.assign({ handle: "b", attributes }), { code: "pool-full" });
    assert.deepEqual(node.addressesOf("b"), []);
    assert.equal([...store.blocks.values()].flatMap(({ value }) => value.holders).length, 2);
  });

  test("reserved addresses are given out only by name", async () => {
    const store = memoryBlockStore();
    const settings = {
      world: world([SMALL], { reserved: ["10.0.0.0/29", "10.0.0.8/30", "10.0.0.12/31", "10.0.0.14/32"] }),
    };
    const node = nodeOf("node1", store, settings);
    assert.deepEqual(texts(await node.assign({ handle: "a", attributes })), ["10.0.0.15"]);
    await assert.rejects(node.assign({ handle: "b", attributes }), { code: "pool-full" });
    assert.deepEqual(texts(await node.assign({ handle: "b", attributes, addresses: [address("10.0.0.3")] })), [
      "10.0.0.3",
    ]);
  });

  test("an address by name: taken, outside of pools, in another node's block", async () => {
    const store = memoryBlockStore();
    const settings = { world: world([V4]) };
    const [one, two] = ["node1", "node2"].map((name) => nodeOf(name, store, settings));
    assert.ok(one && two);
    const wanted = [address("10.0.7.7")];
    const [given] = await one.assign({ handle: "a", attributes, addresses: wanted });
    assert.equal(given && formatPrefix(given.block), "10.0.7.0/26");
    await assert.rejects(two.assign({ handle: "b", attributes, addresses: wanted }), {
      code: "address-taken",
      message: "Cannot assign 10.0.7.7 to b on node2: pod default/web (handle a on node1) has it",
    });
    await assert.rejects(two.assign({ handle: "b", attributes, addresses: [address("192.0.2.1")] }), {
      code: "bad-request",
    });
    const [borrowed] = await two.assign({ handle: "b", attributes, addresses: [address("10.0.7.8")] });
    assert.equal(borrowed?.borrowed, true);
    settings.world = world([V4], { config: { strictAffinity: true } });
    await assert.rejects(two.assign({ handle: "c", attributes, addresses: [address("10.0.7.9")] }), {
      code: "strict-affinity",
      message: /its block 10\.0\.7\.0\/26 belongs to node1/,
    });
  });

  test("several pools are tried in their order", async () => {
    const settings = { world: world([SMALL, V6, pool("10.1.0.0/30", { name: "b", blockSize: 30 })]) };
    const node = nodeOf("node1", memoryBlockStore(), settings);
    const pools = { 4: ["b", "10.0.0.0/28"] };
    const given = [];
    for (let index = 0; index < 5; index += 1) {
      given.push(...(await node.assign({ handle: `pod${index}`, attributes, families: [4], pools })));
    }
    assert.deepEqual(
      given.map((assigned) => assigned.pool),
      ["b", "b", "b", "b", "small"],
    );
  });

  test("where no pool will do, the error says why of each", async () => {
    const pools = [
      pool("10.1.0.0/16", { name: "off", disabled: true }),
      pool("10.2.0.0/16", { name: "by-hand", automatic: false }),
      pool("10.3.0.0/16", { name: "elsewhere", selectsNode: () => false }),
      pool("10.4.0.0/16", { name: "others", selectsNamespace: (labels) => labels["team"] === "a" }),
      pool("10.5.0.0/16", { name: "balancers", allowedUses: ["LoadBalancer"] }),
    ];
    const node = nodeOf("node1", memoryBlockStore(), { world: world(pools) });
    await assert.rejects(node.assign({ handle: "a", attributes }), {
      code: "no-pool",
      message:
        "Cannot assign an IPv4 address to a on node1: off: it is disabled; by-hand: its assignmentMode is Manual, and the " +
        "request does not name it; elsewhere: its nodeSelector does not match the node; others: its namespaceSelector does " +
        "not match the namespace; balancers: its allowedUses are LoadBalancer, not Workload",
    });
    const named = { handle: "a", attributes, families: [4 as const] };
    for (const name of ["by-hand", "elsewhere", "others"]) {
      assert.equal((await node.assign({ ...named, pools: { 4: [name] } }))[0]?.pool, name);
    }
    await assert.rejects(node.assign({ ...named, pools: { 4: ["off"] } }), {
      code: "bad-request",
      message: /it is disabled/,
    });
    await assert.rejects(node.assign({ ...named, pools: { 4: ["nope"] } }), {
      code: "bad-request",
      message: /no such IPPool/,
    });
    await assert.rejects(node.assign({ ...named, pools: { 4: ["balancers"] } }), { code: "no-pool" });
    assert.equal((await node.assign({ ...named, namespaceLabels: { team: "a" } }))[0]?.pool, "others");
  });
});

describe("release", () => {
  test("puts an address behind all free ones", async () => {
    const node = nodeOf("node1", memoryBlockStore(), { world: world([pool("10.0.0.0/30", { blockSize: 30 })]) });
    const order: string[] = [];
    for (let index = 0; index < 6; index += 1) {
      order.push(...texts(await node.assign({ handle: "a", attributes })));
      await node.release(["a"]);
    }
    assert.deepEqual(order, ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.0", "10.0.0.1"]);
  });

  test("lets an address cool down, unless somebody asks for just that one", async () => {
    const clock = { now: 1_700_000_000_000 };
    const settings = { world: world([pool("10.0.0.0/31", { blockSize: 31 })], { config: { cooldownSeconds: 30 } }) };
    const node = nodeOf("node1", memoryBlockStore(), settings, clock);
    await node.assign({ handle: "a", attributes });
    await node.assign({ handle: "b", attributes });
    await node.release(["a", "b"]);
    assert.deepEqual(node.allocations(), []);
    await assert.rejects(node.assign({ handle: "c", attributes }), { code: "pool-full" });
    assert.deepEqual(texts(await node.assign({ handle: "c", attributes, addresses: [address("10.0.0.1")] })), [
      "10.0.0.1",
    ]);
    clock.now += 30_000;
    assert.deepEqual(texts(await node.assign({ handle: "d", attributes })), ["10.0.0.0"]);
  });

  test("waits for an assignment of the same handle that is under way", async () => {
    const node = nodeOf("node1", memoryBlockStore(), { world: world([V4]) });
    const given = node.assign({ handle: "a", attributes });
    assert.equal((await node.release(["a"])).length, 1);
    await given;
    assert.deepEqual(node.addressesOf("a"), []);
  });

  test("finds what a write stored whose answer was lost", async () => {
    let lose = false;
    const store = memoryBlockStore((moment) => {
      if (!lose || moment !== "after updateBlock") return Promise.resolve();
      lose = false;
      return Promise.reject(new Error("connection reset"));
    });
    const node = nodeOf("node1", store, { world: world([V4]) });
    await node.assign({ handle: "a", attributes });
    lose = true;
    await assert.rejects(node.assign({ handle: "b", attributes }), /connection reset/);
    assert.equal((await node.release(["b"])).length, 1);
    assert.equal((await node.assign({ handle: "c", attributes })).length, 1);
  });

  test("after a restart finds the addresses of handles", async () => {
    const store = memoryBlockStore();
    const settings = { world: world([V4, V6]) };
    const given = await nodeOf("node1", store, settings).assign({ handle: "a", attributes });
    assert.deepEqual(texts(await nodeOf("node1", store, settings).release(["a"])), texts(given));
  });
});

describe("a pool that is to be deleted", () => {
  test("loses its blocks, but pods keep their addresses until they are released", async () => {
    const store = memoryBlockStore();
    const settings = { world: world([V4, V6]) };
    const [one, two] = ["node1", "node2"].map((name) => nodeOf(name, store, settings));
    assert.ok(one && two);
    await one.assign({ handle: "a", attributes });
    await two.assign({ handle: "b", attributes, families: [4] });
    await two.release(["b"]);
    settings.world = world([pool("10.0.0.0/16", { disabled: true }), V6]);
    const cooldown = { now: 1_700_000_000_000, seconds: 0 };
    assert.deepEqual(await giveUpPool(store, V4.prefix, cooldown), []);
    const owners = [...store.blocks.values()].map(({ value }) => value.affinity);
    assert.deepEqual(owners, [null, "host:node1"]);
    assert.equal(store.affinities.size, 1);
    assert.equal((await one.release(["a"])).length, 2);
    await assert.rejects(one.assign({ handle: "c", attributes, families: [4] }), { code: "no-pool" });
    assert.deepEqual(await giveUpPool(store, V4.prefix, cooldown), []);
    assert.equal(store.blocks.size, 1);
  });
});

describe("tidy", () => {
  test("gives up empty blocks of pools that no longer select the node, and no others", async () => {
    const store = memoryBlockStore();
    const settings = { world: world([V4, V6]) };
    const node = nodeOf("node1", store, settings);
    await node.assign({ handle: "a", attributes });
    await node.assign({ handle: "b", attributes, families: [4] });
    settings.world = world([
      pool("10.0.0.0/16", { selectsNode: () => false }),
      pool("fd00::/112", { selectsNode: () => false }),
    ]);
    assert.deepEqual(await node.tidy(), []);
    await node.release(["a"]);
    assert.match(
      (await node.tidy()).join(),
      /^gave up empty block fd00::[0-9a-f]+\/122: pool fd00::\/112 is not for this node any more$/,
    );
    await node.release(["b"]);
    assert.equal((await node.tidy()).length, 1);
    assert.deepEqual([store.blocks.size, store.affinities.size], [0, 0]);
  });

  test("brings affinities in line with blocks", async () => {
    const store = memoryBlockStore();
    const node = nodeOf("node1", store, { world: world([V4]) });
    await node.assign({ handle: "a", attributes });
    const [[key, stored]] = [...store.affinities.entries()] as [
      [string, NonNullable<ReturnType<typeof store.affinities.get>>],
    ];
    store.affinities.set(key, { ...stored, value: { ...stored.value, state: "pendingDeletion" } });
    await store.createAffinity({ node: "node1", type: "host", prefix: parsePrefix("10.0.9.0/26"), state: "pending" });
    await store.createAffinity({ node: "node2", type: "host", prefix: parsePrefix("10.0.10.0/26"), state: "pending" });
    assert.equal((await node.tidy()).length, 2);
    assert.deepEqual(
      [...store.affinities.values()].map(({ value }) => `${value.node} ${value.state}`),
      ["node1 confirmed", "node2 pending"],
    );
    store.affinities.delete(key);
    await node.tidy();
    assert.equal(store.affinities.get(key)?.value.state, "confirmed");
    assert.deepEqual(await node.tidy(), []);
  });
});
