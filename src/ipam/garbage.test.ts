import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { hostOf, newBlock, nextSequenceNumber, takeExactly, type Allocation, type Block } from "./block.ts";
import { findGarbage, judge, NO_SUSPICIONS, type Facts, type Findings, type Suspicions } from "./garbage.ts";
import { memoryBlockStore, type MemoryBlockStore } from "./store.testing.ts";
import type { Stored } from "./store.ts";
import { sweep } from "./sweep.ts";
import { address } from "./world.testing.ts";

const NOW = 1_700_000_000_000;
const MINUTE = 60_000;
const GRACE_MS = 15 * MINUTE;

const pods = (...known: [name: string, node: string, ...addresses: string[]][]): Facts["pods"] =>
  new Map(known.map(([name, node, ...addresses]) => [name, { node, addresses }]));
const facts = (changes: Partial<Facts> = {}): Facts => ({ nodes: new Set(["node1"]), pods: new Map(), ...changes });

const web = { node: "node1", namespace: "default", pod: "web" };
const allocation = (attributes: Record<string, string>): Allocation => ({
  block: parsePrefix("10.0.0.0/30"),
  ordinal: 1,
  address: address("10.0.0.1"),
  holder: { handle: "a", attributes },
  sequenceNumber: 1,
});

const judgements: { name: string; attributes: Record<string, string>; facts: Facts; expected: string }[] = [
  {
    name: "its pod has it",
    attributes: web,
    facts: facts({ pods: pods(["default/web", "node1", "fd00::1", "10.0.0.1"]) }),
    expected: "live",
  },
  {
    name: "its pod reports no address yet",
    attributes: web,
    facts: facts({ pods: pods(["default/web", "node1"]) }),
    expected: "live",
  },
  {
    name: "its pod is not scheduled yet",
    attributes: web,
    facts: facts({ pods: pods(["default/web", ""]) }),
    expected: "unknown",
  },
  {
    name: "its pod has another",
    attributes: web,
    facts: facts({ pods: pods(["default/web", "node1", "10.0.0.2"]) }),
    expected: "pod default/web has 10.0.0.2 instead",
  },
  {
    name: "its pod is elsewhere",
    attributes: web,
    facts: facts({ pods: pods(["default/web", "node2", "10.0.0.1"]) }),
    expected: "pod default/web is on node node2, not on node1",
  },
  { name: "there is no such pod", attributes: web, facts: facts(), expected: "pod default/web does not exist" },
  {
    name: "nor such a node",
    attributes: web,
    facts: facts({ nodes: new Set() }),
    expected: "pod default/web does not exist, nor does node node1 (at once)",
  },
  {
    name: "the node is gone, the pod not yet",
    attributes: web,
    facts: facts({ nodes: new Set(), pods: pods(["default/web", "node1", "10.0.0.1"]) }),
    expected: "live",
  },
  {
    name: "the node's agent has an endpoint with it",
    attributes: web,
    facts: facts({ endpoints: new Map([["node1", new Set(["10.0.0.1"])]]) }),
    expected: "live",
  },
  {
    name: "a tunnel of a node",
    attributes: { node: "node1", type: "vxlanTunnelAddress" },
    facts: facts(),
    expected: "live",
  },
  {
    name: "a tunnel of no node",
    attributes: { node: "node2", type: "ipipTunnelAddress" },
    facts: facts(),
    expected: "node node2 does not exist (at once)",
  },
  { name: "no pod is named", attributes: { node: "node1" }, facts: facts(), expected: "unknown" },
  { name: "no node is named", attributes: { namespace: "default", pod: "web" }, facts: facts(), expected: "unknown" },
];
for (const { name, attributes, facts: known, expected } of judgements) {
  test(`whether an address is in use: ${name}`, () => {
    const judgement = judge(allocation(attributes), known);
    const said =
      judgement.verdict === "leaked"
        ? `${judgement.reason}${judgement.nodeGone ? " (at once)" : ""}`
        : judgement.verdict;
    assert.equal(said, expected);
  });
}

/** A block in which these ordinals are held, each by a pod of its name on the block's node. */
function blockWith(cidr: string, node: string, held: Record<number, { handle: string; pod: string }>): Block {
  let block = newBlock(parsePrefix(cidr), `host:${node}`, NOW);
  for (const [ordinal, { handle, pod }] of Object.entries(held)) {
    const holder = { handle, attributes: { node, namespace: "default", pod } };
    block = takeExactly(block, Number(ordinal), holder) ?? block;
    block = { ...block, sequenceNumber: nextSequenceNumber(block.sequenceNumber) };
  }
  return block;
}

async function storeWith(...blocks: Block[]): Promise<MemoryBlockStore> {
  const store = memoryBlockStore(() => Promise.resolve());
  for (const block of blocks) {
    await store.createBlock(block);
    await store.createAffinity({ node: hostOf(block) ?? "", type: "host", prefix: block.prefix, state: "confirmed" });
  }
  return store;
}

function round(store: MemoryBlockStore, known: Facts, previous: Suspicions, minutes: number): Findings {
  const cooldown = { now: NOW + minutes * MINUTE, seconds: 0 };
  const cluster = { blocks: [...store.blocks.values()], affinities: [...store.affinities.values()], facts: known };
  return findGarbage(cluster, previous, { cooldown, graceMs: GRACE_MS });
}

const leaked = ({ leaks }: Findings): string[] => leaks.flat().map((leak) => formatAddress(leak.address));
const blocksOf = (blocks: readonly Stored<Block>[]): string[] => blocks.map(({ value }) => formatPrefix(value.prefix));

describe("what looks leaked", () => {
  test("must do so twice, with the grace period in between", async () => {
    const store = await storeWith(blockWith("10.0.0.0/30", "node1", { 1: { handle: "a", pod: "web" } }));
    const first = round(store, facts(), NO_SUSPICIONS, 0);
    assert.deepEqual(leaked(first), []);
    const second = round(store, facts(), first.suspicions, 14);
    assert.deepEqual(leaked(second), []);
    assert.deepEqual(leaked(round(store, facts(), second.suspicions, 15)), ["10.0.0.1"]);
    const seen = round(store, facts({ pods: pods(["default/web", "node1", "10.0.0.1"]) }), second.suspicions, 15);
    assert.deepEqual(leaked(round(store, facts(), seen.suspicions, 20)), []);
    assert.deepEqual(leaked(round(store, facts(), NO_SUSPICIONS, 100)), []);
  });

  test("goes at once with its node", async () => {
    const store = await storeWith(blockWith("10.0.0.0/30", "node2", { 1: { handle: "a", pod: "web" } }));
    assert.deepEqual(leaked(round(store, facts(), NO_SUSPICIONS, 0)), ["10.0.0.1"]);
  });

  test("stays as long as another address of the handle is in use, in whatever block", async () => {
    const store = await storeWith(
      blockWith("10.0.0.0/30", "node1", { 1: { handle: "a", pod: "gone" } }),
      blockWith("10.0.0.4/30", "node1", { 2: { handle: "a", pod: "web" } }),
    );
    const alive = facts({ pods: pods(["default/web", "node1", "10.0.0.6"]) });
    const first = round(store, alive, NO_SUSPICIONS, 0);
    assert.deepEqual(leaked(round(store, alive, first.suspicions, 20)), []);
    const third = round(store, facts(), first.suspicions, 20);
    assert.deepEqual(leaked(round(store, facts(), third.suspicions, 40)).sort(), ["10.0.0.1", "10.0.0.6"]);
  });

  test("begins anew when the address was given out again", async () => {
    const store = await storeWith(blockWith("10.0.0.0/30", "node1", { 1: { handle: "a", pod: "web" } }));
    const first = round(store, facts(), NO_SUSPICIONS, 0);
    const again = {
      ...blockWith("10.0.0.0/30", "node1", { 0: { handle: "x", pod: "x" }, 1: { handle: "a", pod: "web" } }),
    };
    store.blocks.set("10.0.0.0/30", { value: again, version: "9" });
    assert.deepEqual(leaked(round(store, facts(), first.suspicions, 20)), []);
  });
});

describe("at the last look", () => {
  async function condemned(): Promise<{ store: MemoryBlockStore; findings: Findings }> {
    const store = await storeWith(
      blockWith("10.0.0.0/30", "node2", { 1: { handle: "a", pod: "web" } }),
      blockWith("10.0.0.4/30", "node2", { 2: { handle: "a", pod: "web" } }),
    );
    const findings = round(store, facts(), NO_SUSPICIONS, 0);
    assert.equal(leaked(findings).length, 2);
    return { store, findings };
  }
  const cooldown = { now: NOW, seconds: 0 };
  const held = (store: MemoryBlockStore): number =>
    [...store.blocks.values()].flatMap(({ value }) => value.holders).length;

  test("what is leaked still is released, all of a handle", async () => {
    const { store, findings } = await condemned();
    const report = await sweep(store, findings, cooldown, () => Promise.resolve(facts()));
    assert.deepEqual(
      report.released.map(({ reason }) => reason),
      Array(2).fill("pod default/web does not exist, nor does node node2"),
    );
    assert.equal(held(store), 0);
  });

  test("what is alive after all is kept", async () => {
    const { store, findings } = await condemned();
    const look = (): Promise<Facts> => Promise.resolve(facts({ pods: pods(["default/web", "node2", "10.0.0.6"]) }));
    const report = await sweep(store, findings, cooldown, look);
    assert.equal(report.kept.length, 2);
    assert.equal(held(store), 2);
  });

  test("what was released and given out again meanwhile is another's", async () => {
    const { store, findings } = await condemned();
    const stored = store.blocks.get("10.0.0.4/30");
    assert.ok(stored);
    const again = { ...stored.value, sequenceOf: new Map([[2, stored.value.sequenceNumber]]) };
    store.blocks.set("10.0.0.4/30", { value: again, version: "9" });
    const report = await sweep(store, findings, cooldown, () => Promise.resolve(facts()));
    assert.equal(report.released.length, 0);
    assert.equal(held(store), 2);
  });

  test("a failure is told, and does not stop the rest", async () => {
    const { store, findings } = await condemned();
    const broken = { ...store, updateBlock: () => Promise.reject(new Error("no connection")) };
    const report = await sweep(broken, findings, cooldown, () => Promise.resolve(facts()));
    assert.deepEqual(report.failures, ["Cannot release 10.0.0.1, 10.0.0.6: no connection"]);
  });
});

describe("empty blocks", () => {
  test("are given up after two looks, but never the node's last of a family", async () => {
    const store = await storeWith(
      blockWith("10.0.0.0/30", "node1", {}),
      blockWith("10.0.0.4/30", "node1", {}),
      blockWith("fd00::/126", "node1", {}),
    );
    const first = round(store, facts(), NO_SUSPICIONS, 0);
    assert.deepEqual(first.emptyBlocks, []);
    const second = round(store, facts(), first.suspicions, 15);
    assert.deepEqual(blocksOf(second.emptyBlocks), ["10.0.0.0/30"]);
    const report = await sweep(store, second, { now: NOW, seconds: 0 }, () => Promise.resolve(facts()));
    assert.deepEqual(report.blocks.map(formatPrefix), ["10.0.0.0/30"]);
    assert.deepEqual([...store.affinities.keys()], ["node1 10.0.0.4/30", "node1 fd00::/126"]);
  });

  test("of nodes that are gone go at once, and so do their affinities to nothing", async () => {
    const store = await storeWith(blockWith("10.0.0.0/30", "node2", {}));
    await store.createAffinity({ node: "node2", type: "host", prefix: parsePrefix("10.0.0.8/30"), state: "pending" });
    await store.createAffinity({ node: "node1", type: "host", prefix: parsePrefix("10.0.0.12/30"), state: "pending" });
    await store.createAffinity({
      node: "load-balancer",
      type: "virtual",
      prefix: parsePrefix("10.0.0.16/30"),
      state: "confirmed",
    });
    const findings = round(store, facts(), NO_SUSPICIONS, 0);
    await sweep(store, findings, { now: NOW, seconds: 0 }, () => Promise.resolve(facts()));
    assert.equal(store.blocks.size, 0);
    assert.deepEqual([...store.affinities.keys()], ["node1 10.0.0.12/30", "load-balancer 10.0.0.16/30"]);
  });

  test("of load balancers stay", async () => {
    const store = memoryBlockStore(() => Promise.resolve());
    await store.createBlock(newBlock(parsePrefix("10.0.0.0/30"), "virtual:load-balancer", NOW));
    const first = round(store, facts(), NO_SUSPICIONS, 0);
    assert.deepEqual(round(store, facts(), first.suspicions, 30).emptyBlocks, []);
  });
});
