import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { acquireLease, LeaseFailure } from "./acquire.ts";
import { parseNetworkConfig } from "./config.ts";
import { etcdManager } from "./etcdManager.ts";
import { describeSubnets, formatLeaseValue, type Lease } from "./lease.ts";
import { checkStore, memoryStore, type MemoryStore } from "./store.testing.ts";
import type { Clock, SubnetManager } from "./subnetManager.ts";

const PREFIX = "/coreos.com/network";
const SUBNETS = `${PREFIX}/subnets/`;
const config = parseNetworkConfig('{"Network":"10.5.0.0/16"}');
const attributesOf = (address: string) => ({ publicIp: parseAddress(address), backendType: "udp" });
const own = attributesOf("192.0.2.1");
const valueOf = (address: string): string => formatLeaseValue(attributesOf(address));

/** Draws the first that is free. */
const first = () => 0;

describe("a lease is acquired", () => {
  const acquire = (store: MemoryStore, previous?: string) =>
    acquireLease({
      store,
      prefix: SUBNETS,
      config,
      attributes: own,
      previous: previous === undefined ? undefined : { ipv4: parsePrefix(previous) },
      random: first,
    });

  test("at random among the first that are free", async () => {
    const store = memoryStore();
    store.put(`${SUBNETS}10.5.1.0-24`, valueOf("192.0.2.2"));
    assert.equal(describeSubnets((await acquire(store)).subnets), "10.5.2.0/24");
    assert.equal(store.keys()[`${SUBNETS}10.5.2.0-24`], valueOf("192.0.2.1"));
  });
  test("anew, where the store has one of this node's address", async () => {
    const store = memoryStore();
    store.put(`${SUBNETS}10.5.77.0-24`, valueOf("192.0.2.1"));
    assert.equal(describeSubnets((await acquire(store, "10.5.9.0/24")).subnets), "10.5.77.0/24");
    assert.equal(Object.keys(store.keys()).length, 1);
  });
  test("and a reservation stays one", async () => {
    const store = memoryStore();
    store.put(`${SUBNETS}10.5.77.0-24`, valueOf("192.0.2.1"), false);
    assert.equal((await acquire(store)).reserved, true);
    assert.equal((await store.get(`${SUBNETS}10.5.77.0-24`))?.leased, false);
  });
  test("elsewhere, where its own does not fit the configuration any more", async () => {
    const store = memoryStore();
    store.put(`${SUBNETS}10.99.7.0-24`, valueOf("192.0.2.1"));
    assert.equal(describeSubnets((await acquire(store)).subnets), "10.5.1.0/24");
    assert.deepEqual(Object.keys(store.keys()), [`${SUBNETS}10.5.1.0-24`]);
  });
  test("where it was before, if that is free and fits", async () => {
    const store = memoryStore();
    assert.equal(describeSubnets((await acquire(store, "10.5.9.0/24")).subnets), "10.5.9.0/24");
    const taken = memoryStore();
    taken.put(`${SUBNETS}10.5.9.0-24`, valueOf("192.0.2.2"));
    assert.equal(describeSubnets((await acquire(taken, "10.5.9.0/24")).subnets), "10.5.1.0/24");
    assert.equal(describeSubnets((await acquire(memoryStore(), "10.6.9.0/24")).subnets), "10.5.1.0/24");
  });
  test("after a race that was lost: flannel would give up here", async () => {
    const store = memoryStore();
    store.beforeWrite = (key) => store.put(key, valueOf("192.0.2.2"));
    assert.equal(describeSubnets((await acquire(store)).subnets), "10.5.2.0/24");
    assert.equal(store.keys()[`${SUBNETS}10.5.1.0-24`], valueOf("192.0.2.2"), "the winner keeps it");
  });
  test("unless every race is lost, or nothing is left", async () => {
    const store = memoryStore();
    const lose = (key: string): void => {
      store.put(key, valueOf("192.0.2.2"));
      store.beforeWrite = lose;
    };
    store.beforeWrite = lose;
    await assert.rejects(acquire(store), (error) => error instanceof LeaseFailure && error.code === "lost-every-race");
    const full = memoryStore();
    full.put(`${SUBNETS}10.5.0.0-16`, valueOf("192.0.2.2"));
    await assert.rejects(acquire(full), (error) => error instanceof LeaseFailure && error.code === "no-subnet-left");
  });
});

/** Time that passes when it is told to. */
function fakeClock(): Clock & { pass(milliseconds: number): Promise<void> } {
  let time = 1_000_000;
  let sleepers: { until: number; wake: () => void }[] = [];
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 30; turn += 1) await Promise.resolve();
  };
  return {
    now: () => time,
    random: first,
    sleep(milliseconds, signal) {
      return new Promise((resolve) => {
        if (signal.aborted) return resolve();
        const wake = (): void => {
          signal.removeEventListener("abort", wake);
          resolve();
        };
        sleepers.push({ until: time + milliseconds, wake });
        signal.addEventListener("abort", wake);
      });
    },
    async pass(milliseconds) {
      const end = time + milliseconds;
      for (;;) {
        await settle();
        const next = sleepers.toSorted((a, b) => a.until - b.until)[0];
        if (next === undefined || next.until > end) break;
        sleepers = sleepers.filter((each) => each !== next);
        time = Math.max(time, next.until);
        next.wake();
      }
      time = end;
      await settle();
    },
  };
}

interface World {
  readonly store: MemoryStore;
  readonly clock: ReturnType<typeof fakeClock>;
  readonly manager: SubnetManager;
  readonly peers: string[][];
  readonly moved: string[];
  readonly problems: string[];
  readonly end: () => Promise<void>;
}

const MINUTE = 60_000;

async function startNode(renewMarginMinutes = 60): Promise<World> {
  const store = memoryStore();
  const clock = fakeClock();
  const manager = etcdManager({ store, prefix: PREFIX, renewMarginMinutes, clock });
  await manager.acquire(config, own, undefined);
  const peers: string[][] = [];
  const moved: string[] = [];
  const problems: string[] = [];
  const stopped = new AbortController();
  const text = ({ subnets }: Lease): string => describeSubnets(subnets);
  const following = manager.follow(
    {
      peers: (leases) => void peers.push(leases.map(text)),
      moved: (lease) => void moved.push(text(lease)),
      problem: (sentence) => void problems.push(sentence),
    },
    stopped.signal,
  );
  await clock.pass(0);
  return {
    store,
    clock,
    manager,
    peers,
    moved,
    problems,
    async end() {
      stopped.abort();
      await following;
    },
  };
}

describe("a lease is kept", () => {
  test("the store in memory does what a store does", async () => {
    await checkStore(memoryStore());
  });

  test("peers come and go", async () => {
    const { store, clock, peers, end } = await startNode();
    store.put(`${SUBNETS}10.5.9.0-24`, valueOf("192.0.2.9"));
    await clock.pass(0);
    store.put(`${SUBNETS}junk`, "x");
    store.put(`${SUBNETS}10.5.10.0-24`, "junk");
    await clock.pass(0);
    store.expire(`${SUBNETS}10.5.9.0-24`);
    await clock.pass(0);
    assert.deepEqual(peers, [[], ["10.5.9.0/24"], []]);
    await end();
  });

  test("renewed an hour before its end, with a new day to live", async () => {
    const { store, clock, problems, end } = await startNode();
    const key = `${SUBNETS}10.5.1.0-24`;
    const before = await store.get(key);
    await clock.pass(23 * 60 * MINUTE - 1);
    assert.equal((await store.get(key))?.revision, before?.revision);
    await clock.pass(2);
    const after = await store.get(key);
    assert.notEqual(after?.revision, before?.revision);
    await clock.pass(23 * 60 * MINUTE + 2);
    assert.notEqual((await store.get(key))?.revision, after?.revision);
    assert.deepEqual(problems, []);
    await end();
  });

  test("a renewal that fails is tried again after a minute", async () => {
    const { store, clock, problems, end } = await startNode();
    const key = `${SUBNETS}10.5.1.0-24`;
    const before = (await store.get(key))?.revision;
    store.setDown(true);
    await clock.pass(23 * 60 * MINUTE + 30_000);
    assert.match(problems.join("\n"), /could not be renewed/);
    store.setDown(false);
    await clock.pass(MINUTE);
    assert.notEqual((await store.get(key))?.revision, before);
    await end();
  });

  test("lost, it is taken again at once", async () => {
    const { store, clock, moved, problems, end } = await startNode();
    store.expire(`${SUBNETS}10.5.1.0-24`);
    await clock.pass(0);
    assert.deepEqual(Object.keys(store.keys()), [`${SUBNETS}10.5.1.0-24`]);
    assert.deepEqual(moved, []);
    assert.match(problems[0] ?? "", /was lost, and is taken again/);
    await end();
  });

  test("lost to another node, the node moves", async () => {
    const { store, clock, moved, peers, end } = await startNode();
    store.put(`${SUBNETS}10.5.1.0-24`, valueOf("192.0.2.9"));
    await clock.pass(0);
    assert.deepEqual(moved, ["10.5.2.0/24"]);
    assert.deepEqual(peers.at(-1), ["10.5.1.0/24"]);
    assert.equal(store.keys()[`${SUBNETS}10.5.1.0-24`], valueOf("192.0.2.9"));
    await end();
  });

  test("a renewal does not overwrite who has it now", async () => {
    const { store, clock, moved, end } = await startNode();
    store.setDown(true);
    await clock.pass(20_000);
    store.put(`${SUBNETS}10.5.1.0-24`, valueOf("192.0.2.9"));
    store.setDown(false);
    await clock.pass(24 * 60 * MINUTE);
    assert.equal(store.keys()[`${SUBNETS}10.5.1.0-24`], valueOf("192.0.2.9"));
    assert.deepEqual(moved, ["10.5.2.0/24"]);
    await end();
  });

  test("while the store is away peers stay, and afterwards all is learned anew", async () => {
    const { store, clock, peers, problems, end } = await startNode();
    store.put(`${SUBNETS}10.5.9.0-24`, valueOf("192.0.2.9"));
    await clock.pass(0);
    store.setDown(true);
    await clock.pass(30_000);
    assert.deepEqual(peers.at(-1), ["10.5.9.0/24"]);
    store.put(`${SUBNETS}10.5.10.0-24`, valueOf("192.0.2.10"));
    store.compact();
    store.setDown(false);
    await clock.pass(5000);
    assert.deepEqual(peers.at(-1), ["10.5.10.0/24", "10.5.9.0/24"]);
    assert.ok(problems.length > 3 && problems.every((problem) => /is down/.test(problem)));
    await end();
  });

  test("what was compacted meanwhile is listed anew, and nobody is told", async () => {
    const { store, clock, peers, problems, end } = await startNode();
    // The watch has not looked since: what it would be told is forgotten.
    store.put(`${SUBNETS}10.5.9.0-24`, valueOf("192.0.2.9"));
    store.compact();
    await clock.pass(1000);
    assert.deepEqual(peers.at(-1), ["10.5.9.0/24"]);
    assert.deepEqual(problems, []);
    await end();
  });
});

describe("the network configuration in etcd", () => {
  test("is waited for, and read with the slash at the end of the prefix or without", async () => {
    const store = memoryStore();
    const clock = fakeClock();
    const waiting: string[] = [];
    const manager = etcdManager({
      store,
      prefix: `${PREFIX}/`,
      renewMarginMinutes: 60,
      clock,
      onWaiting: (reason) => void waiting.push(reason),
    });
    const asked = manager.networkConfig(new AbortController().signal);
    await clock.pass(10_000);
    assert.deepEqual(waiting, ["there is no /coreos.com/network/config in etcd yet"]);
    store.put(`${PREFIX}/config`, '{"Network":"10.5.0.0/16"}');
    await clock.pass(1000);
    assert.deepEqual(await asked, config);
  });
  test("that makes no sense ends the wait", async () => {
    const store = memoryStore();
    store.put(`${PREFIX}/config`, '{"Network":7}');
    const manager = etcdManager({ store, prefix: PREFIX, renewMarginMinutes: 60, clock: fakeClock() });
    await assert.rejects(manager.networkConfig(new AbortController().signal), /Network: expected text/);
  });
  test("what this node said before is found by its address", async () => {
    const store = memoryStore();
    const manager = etcdManager({ store, prefix: PREFIX, renewMarginMinutes: 60, clock: fakeClock() });
    assert.equal(await manager.stored(own), undefined);
    const data = { VNI: 1, VtepMAC: "02:00:00:00:00:01" };
    store.put(`${SUBNETS}10.5.9.0-24`, formatLeaseValue({ ...own, backendType: "vxlan", backendData: data }));
    assert.deepEqual((await manager.stored(own))?.backendData, data);
  });
});
