import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { newBlock, releaseOrdinals, takeExactly, type Block } from "./block.ts";
import { checkIpam, type CheckInput, type Use } from "./check.ts";
import { reservationsOf } from "./reservations.ts";
import { borrowedOf, stateOf, usageOf } from "./show.ts";
import { pool } from "./world.testing.ts";

const NOW = 1_700_000_000_000;
const COOLDOWN = { now: NOW, seconds: 60 };
const NONE = reservationsOf([]);

function blockWith(cidr: string, node: string, held: Record<number, Record<string, string>>): Block {
  let block = newBlock(parsePrefix(cidr), `host:${node}`, NOW);
  for (const [ordinal, attributes] of Object.entries(held)) {
    const handle = `net.${attributes["pod"] ?? attributes["type"] ?? ""}`;
    block = takeExactly(block, Number(ordinal), { handle, attributes }) ?? block;
  }
  return block;
}

const pod = (name: string, node = "node1"): Record<string, string> => ({ namespace: "default", pod: name, node });
const use = (address: string, owner: string, kind: Use["kind"] = "workload"): Use => ({
  address: parseAddress(address),
  owner,
  kind,
});

describe("usage", () => {
  test("of pools, blocks, and blocks that no pool covers", () => {
    const first = blockWith("10.0.0.0/30", "node1", { 0: pod("a"), 1: pod("b"), 2: pod("c") });
    const blocks = [blockWith("192.0.2.0/31", "node1", { 0: pod("old") }), releaseOrdinals(first, [1], COOLDOWN)];
    const reservations = reservationsOf([parsePrefix("10.0.0.0/31"), parsePrefix("10.0.0.6/31")]);
    const usage = usageOf([pool("10.0.0.0/29", { name: "pods" })], blocks, reservations, COOLDOWN);
    const counts = { total: 8n, inUse: 2n, coolingDown: 1n, reserved: 2n, free: 3n };
    assert.deepEqual(usage, [
      {
        name: "pods",
        cidr: "10.0.0.0/29",
        ...counts,
        blocks: [
          { cidr: "10.0.0.0/30", owner: "node1", total: 4n, inUse: 2n, coolingDown: 1n, reserved: 0n, free: 1n },
        ],
      },
      {
        cidr: "",
        total: 2n,
        inUse: 1n,
        coolingDown: 0n,
        reserved: 0n,
        free: 1n,
        blocks: [
          { cidr: "192.0.2.0/31", owner: "node1", total: 2n, inUse: 1n, coolingDown: 0n, reserved: 0n, free: 1n },
        ],
      },
    ]);
  });

  test("of borrowed addresses, and of one address", () => {
    const block = blockWith("10.0.0.0/30", "node1", { 0: pod("a"), 3: pod("b", "node2") });
    assert.deepEqual(borrowedOf([block]), [
      { address: "10.0.0.3", node: "node2", block: "10.0.0.0/30", owner: "node1", type: "pod", holder: "default/b" },
    ]);
    const state = (address: string, stored: Block): string => stateOf(parseAddress(address), [stored], COOLDOWN).state;
    assert.equal(state("10.0.0.0", block), "in-use");
    assert.equal(state("10.0.0.1", block), "free");
    assert.equal(state("10.0.0.4", block), "free");
    assert.equal(state("10.0.0.0", releaseOrdinals(block, [0], COOLDOWN)), "cooling-down");
  });
});

describe("check", () => {
  const sound: CheckInput = {
    pools: [pool("10.0.0.0/16")],
    blocks: [blockWith("10.0.0.0/30", "node1", { 0: pod("web"), 1: { node: "node1", type: "ipipTunnelAddress" } })],
    affinities: [{ node: "node1", type: "host", prefix: parsePrefix("10.0.0.0/30"), state: "confirmed" }],
    uses: [use("10.0.0.0", "pod default/web"), use("10.0.0.1", "node node1 (ipipTunnel)", "tunnel")],
    facts: { nodes: new Set(["node1"]), pods: new Map([["default/web", { node: "node1", addresses: ["10.0.0.0"] }]]) },
    handles: ["net.web"],
  };

  test("a sound cluster has no problems", () => {
    assert.deepEqual(checkIpam(sound), {
      blocks: [{ cidr: "10.0.0.0/30", affinity: "host:node1", allocations: 2 }],
      allocations: 2,
      coolingDown: 0,
      activePools: ["10.0.0.0/16"],
      tunnelAddresses: 1,
      workloadAddresses: 1,
      handles: 1,
      nodes: [{ node: "node1", allocations: 2 }],
      problems: [],
    });
  });

  const [block] = sound.blocks;
  assert.ok(block);
  const problems: { name: string; change: Partial<CheckInput>; messages: string[] }[] = [
    {
      name: "a leak",
      change: { uses: sound.uses.slice(1), facts: { ...sound.facts, pods: new Map() } },
      messages: ["leaked: 10.0.0.0 is allocated to default/web, but not in use: pod default/web does not exist"],
    },
    {
      name: "an address that is not allocated",
      change: { uses: [...sound.uses, use("10.0.0.2", "pod default/db")] },
      messages: ["not-allocated: 10.0.0.2 is in use by pod default/db, but not allocated"],
    },
    {
      name: "an address of no active pool",
      change: {
        pools: [pool("10.0.0.0/16"), pool("10.1.0.0/16", { disabled: true })],
        uses: [...sound.uses, use("10.1.0.2", "pod default/db")],
      },
      messages: ["not-in-active-pool: 10.1.0.2 is in use by pod default/db, but in no active IP pool"],
    },
    {
      name: "an address that two have",
      change: { uses: [...sound.uses, use("10.0.0.0", "pod default/db")] },
      messages: ["multiple-owners: 10.0.0.0 is in use by pod default/web and by pod default/db"],
    },
    {
      name: "a damaged block",
      change: { blocks: [{ ...block, unallocated: [2] }] },
      messages: ["invalid-block: block 10.0.0.0/30 lists 10.0.0.3 neither as free nor as allocated"],
    },
    {
      name: "affinities that do not agree with blocks",
      change: {
        affinities: [
          { node: "node2", type: "host", prefix: block.prefix, state: "pending" },
          { node: "node3", type: "host", prefix: parsePrefix("10.0.9.0/30"), state: "confirmed" },
        ],
      },
      messages: [
        "affinity: node node2 has a pending affinity to block 10.0.0.0/30, which belongs to node1",
        "affinity: node node3 has a confirmed affinity to block 10.0.9.0/30, which does not exist",
        "affinity: block 10.0.0.0/30 belongs to node node1, which has no affinity to it",
      ],
    },
    {
      name: "a handle that Calico left",
      change: { handles: ["net.web", "net.old"] },
      messages: ["empty-handle: handle net.old has no addresses"],
    },
  ];
  for (const { name, change, messages } of problems) {
    test(`finds ${name}`, () => {
      const found = checkIpam({ ...sound, ...change }).problems.map(({ kind, message }) => `${kind}: ${message}`);
      assert.deepEqual(found, messages);
    });
  }
});

test("nothing is reserved where there are no reservations", () => {
  assert.equal(NONE.countIn(parsePrefix("0.0.0.0/0")), 0n);
});
