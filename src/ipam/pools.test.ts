import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix, prefixContains, type Prefix } from "../ip/prefix.ts";
import { blocksInSearchOrder, fnv32, keepsBlocks } from "./pools.ts";
import { reservationsOf } from "./reservations.ts";
import { pool } from "./world.testing.ts";

const order = (cidr: string, blockSize: number, node: string, reserved: string[] = [], random = () => 0): string[] =>
  [...blocksInSearchOrder(pool(cidr, { blockSize }), node, reservationsOf(reserved.map(parsePrefix)), random)].map(
    formatPrefix,
  );

test("FNV-1 with 32 bits has its published values", () => {
  assert.equal(fnv32(""), 0x811c9dc5);
  assert.equal(fnv32("a"), 0x050c5d7e);
  assert.equal(fnv32("foobar"), 0x31f0b262);
});

test("a node walks once around the pool from a place of its own", () => {
  assert.deepEqual(order("10.0.0.0/24", 26, "node1"), [
    "10.0.0.192/26",
    "10.0.0.0/26",
    "10.0.0.64/26",
    "10.0.0.128/26",
  ]);
  const starts = ["node1", "node2", "node3", "node4"].map((node) => order("10.0.0.0/16", 26, node)[0]);
  assert.deepEqual(starts, ["10.0.21.192/26", "10.0.233.64/26", "10.0.79.192/26", "10.0.160.192/26"]);
  for (const node of ["node1", "worker-7.example.org"]) {
    const walked = order("10.0.0.0/20", 26, node);
    assert.equal(new Set(walked).size, 64);
    const numbers = walked.map((block) => Number(parseAddress(block.split("/")[0] ?? "").value));
    for (const [index, number] of numbers.entries()) {
      const next = numbers[(index + 1) % 64] ?? 0;
      assert.equal((next - number + 4096) % 4096, 64);
    }
  }
});

test("blocks of one address are walked from anywhere", () => {
  assert.equal(
    order("10.0.0.0/24", 32, "node1", [], () => 0.5)[0],
    order("10.0.0.0/24", 32, "node2", [], () => 0.5)[0],
  );
  assert.notEqual(
    order("10.0.0.0/24", 32, "node1", [], () => 0.3)[0],
    order("10.0.0.0/24", 32, "node1", [], () => 0.7)[0],
  );
});

test("a range that is reserved is passed over in one step, however long", () => {
  const walk = blocksInSearchOrder(
    pool("fd00::/32", { blockSize: 122 }),
    "node1",
    reservationsOf(
      ["fd00::/33", "fd00:0:8000::/34", "fd00:0:c000::/35", "fd00:0:e000::/36", "fd00:0:f000::/37"].map(parsePrefix),
    ),
    () => 0,
  );
  const first = walk.next().value;
  assert.ok(first && prefixContains(parsePrefix("fd00:0:f800::/37"), first.address));
  assert.deepEqual(order("fd00::/32", 122, "node1", ["fd00::/32"]), []);
});

test("what is passed over is what is reserved whole, also by several reservations together", () => {
  const reservation = fc.tuple(fc.nat(255), fc.integer({ min: 24, max: 32 })).map(([host, length]): Prefix => {
    const bits = BigInt(32 - length);
    return { address: { family: 4, value: ((0x0a000000n + BigInt(host)) >> bits) << bits }, length };
  });
  fc.assert(
    fc.property(
      fc.array(reservation, { maxLength: 8 }),
      fc.string(),
      fc.constantFrom(26, 28, 30),
      (reserved, node, blockSize) => {
        const reservations = reservationsOf(reserved);
        const isReserved = (value: bigint): boolean =>
          reserved.some((prefix) => prefixContains(prefix, { family: 4, value }));
        const size = 1n << BigInt(32 - blockSize);
        const expected: string[] = [];
        for (let first = 0x0a000000n; first < 0x0a000100n; first += size) {
          let free = 0;
          for (let value = first; value < first + size; value += 1n) if (!isReserved(value)) free += 1;
          if (free > 0) expected.push(formatPrefix({ address: { family: 4, value: first }, length: blockSize }));
          const prefix: Prefix = { address: { family: 4, value: first }, length: blockSize };
          assert.equal(reservations.countIn(prefix), size - BigInt(free));
          assert.equal(reservations.touches(prefix), BigInt(free) < size);
        }
        const walked = [...blocksInSearchOrder(pool("10.0.0.0/24", { blockSize }), node, reservations, () => 0)];
        assert.deepEqual(walked.map(formatPrefix).sort(), expected.sort());
        for (let value = 0x09fffff0n; value < 0x0a000110n; value += 1n) {
          assert.equal(reservations.has({ family: 4, value }), isReserved(value), formatAddress({ family: 4, value }));
        }
      },
    ),
    { numRuns: 60 },
  );
});

test("a node keeps empty blocks of pools that select it, whatever their use", () => {
  assert.equal(keepsBlocks(pool("10.0.0.0/16", { allowedUses: ["Tunnel"], automatic: false }), {}), true);
  assert.equal(keepsBlocks(pool("10.0.0.0/16", { disabled: true }), {}), false);
  assert.equal(keepsBlocks(pool("10.0.0.0/16", { selectsNode: ({ rack }) => rack === "1" }), { rack: "2" }), false);
});
