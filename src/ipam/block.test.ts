import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import {
  addressAt,
  allocationsOf,
  countFree,
  endCooldowns,
  isEmpty,
  newBlock,
  nextSequenceNumber,
  ordinalOf,
  ordinalsOfHandle,
  releaseOrdinals,
  takeExactly,
  takeFree,
  type Block,
  type Holder,
} from "./block.ts";
import { blockFaults } from "./check.ts";
import { reservationsOf } from "./reservations.ts";

const NOW = 1_700_000_000_000;
const PREFIX = parsePrefix("10.0.0.0/29");
const NONE = reservationsOf([]);

/** The naive twin: a queue of free addresses, a map of held ones, and a list of those that rest. */
interface Twin {
  free: number[];
  held: Map<number, string>;
  resting: { ordinal: number; releasedAt: number }[];
}

const cool = (twin: Twin, now: number, seconds: number): void => {
  const over = twin.resting.filter(({ releasedAt }) => releasedAt + seconds * 1000 <= now);
  over.sort((a, b) => a.releasedAt - b.releasedAt || a.ordinal - b.ordinal);
  twin.free.push(...over.map(({ ordinal }) => ordinal));
  twin.resting = twin.resting.filter((rest) => !over.includes(rest));
};

const action = fc.oneof(
  fc.record({ type: fc.constant("take" as const), handle: fc.constantFrom("a", "b", "c") }),
  fc.record({ type: fc.constant("exactly" as const), handle: fc.constantFrom("a", "b"), ordinal: fc.nat(7) }),
  fc.record({ type: fc.constant("release" as const), handle: fc.constantFrom("a", "b", "c") }),
  fc.record({ type: fc.constant("wait" as const), seconds: fc.nat(8) }),
);

test("a block does what its naive twin does", () => {
  fc.assert(
    fc.property(
      fc.array(action, { maxLength: 60 }),
      fc.constantFrom(0, 5),
      fc.uniqueArray(fc.nat(7), { maxLength: 3 }),
      (actions, seconds, reserved) => {
        const reservations = reservationsOf(reserved.map((ordinal) => parsePrefix(`10.0.0.${ordinal}/32`)));
        let block = newBlock(PREFIX, "host:node1", NOW);
        let now = NOW;
        const twin: Twin = { free: [0, 1, 2, 3, 4, 5, 6, 7], held: new Map(), resting: [] };
        for (const next of actions) {
          if (next.type === "wait") now += next.seconds * 1000;
          const cooldown = { now, seconds };
          block = endCooldowns(block, cooldown);
          cool(twin, now, seconds);
          if (next.type === "take") {
            const expected = twin.free.find((ordinal) => !reserved.includes(ordinal));
            const taken = takeFree(block, { handle: next.handle, attributes: { pod: next.handle } }, reservations);
            assert.equal(taken?.ordinal, expected);
            block = taken?.block ?? block;
            if (expected !== undefined) {
              twin.free = twin.free.filter((ordinal) => ordinal !== expected);
              twin.held.set(expected, next.handle);
            }
          } else if (next.type === "exactly") {
            const taken = takeExactly(block, next.ordinal, { handle: next.handle, attributes: {} });
            assert.equal(taken === undefined, twin.held.has(next.ordinal));
            if (taken !== undefined) {
              block = taken;
              twin.free = twin.free.filter((ordinal) => ordinal !== next.ordinal);
              twin.resting = twin.resting.filter(({ ordinal }) => ordinal !== next.ordinal);
              twin.held.set(next.ordinal, next.handle);
            }
          } else if (next.type === "release") {
            const ordinals = [...twin.held]
              .flatMap(([ordinal, handle]) => (handle === next.handle ? [ordinal] : []))
              .sort((a, b) => a - b);
            assert.deepEqual(ordinalsOfHandle(block, next.handle), ordinals);
            block = releaseOrdinals(block, ordinals, cooldown);
            for (const ordinal of ordinals) twin.held.delete(ordinal);
            if (seconds === 0) twin.free.push(...ordinals);
            else twin.resting.push(...ordinals.map((ordinal) => ({ ordinal, releasedAt: now })));
          }
          assert.deepEqual(block.unallocated, twin.free);
          assert.deepEqual(
            allocationsOf(block).map(({ ordinal, holder }) => [ordinal, holder.handle]),
            [...twin.held].sort(([a], [b]) => a - b),
          );
          assert.equal(
            countFree(block, reservations, cooldown),
            twin.free.filter((ordinal) => !reserved.includes(ordinal)).length,
          );
          assert.equal(isEmpty(block, cooldown), twin.held.size === 0 && twin.resting.length === 0);
          assert.deepEqual(blockFaults(block), []);
          assert.equal(
            new Set(block.allocations).size - (block.allocations.includes(null) ? 1 : 0),
            block.holders.length,
          );
        }
      },
    ),
    { numRuns: 200 },
  );
});

test("ordinals and addresses turn into each other", () => {
  const block = newBlock(parsePrefix("fd00::40/122"), "host:node1", NOW);
  assert.equal(formatAddress(addressAt(block, 63)), "fd00::7f");
  assert.equal(ordinalOf(block, parseAddress("fd00::7f")), 63);
  assert.equal(ordinalOf(block, parseAddress("fd00::80")), undefined);
});

describe("sequence numbers", () => {
  test("tell one allocation of an address from the next", () => {
    const holder: Holder = { handle: "a", attributes: {} };
    let block: Block = newBlock(PREFIX, "host:node1", NOW);
    const seen = new Set<number | undefined>();
    for (let round = 0; round < 3; round += 1) {
      block = takeExactly(block, 3, holder) ?? block;
      seen.add(block.sequenceOf.get(3));
      block = { ...block, sequenceNumber: nextSequenceNumber(block.sequenceNumber) };
      block = releaseOrdinals(block, [3], { now: NOW, seconds: 0 });
      assert.equal(block.sequenceOf.get(3), undefined);
    }
    assert.equal(seen.size, 3);
  });

  test("go up also where they count Calico's nanoseconds", () => {
    assert.equal(nextSequenceNumber(41), 42);
    const nanoseconds = 1_755_432_109_876 * 1_000_000;
    assert.ok(nextSequenceNumber(nanoseconds) > nanoseconds);
    assert.ok(nextSequenceNumber(nanoseconds) - nanoseconds <= 512);
  });
});

test("holders share an entry only with their equals, and handles with a line end are found", () => {
  let block = newBlock(PREFIX, "host:node1", NOW);
  for (const holder of [
    { handle: "a", attributes: { pod: "x" } },
    { handle: "a", attributes: { pod: "x" } },
    { handle: "a", attributes: { pod: "y" } },
    { handle: "b\r", attributes: {} },
  ]) {
    block = takeFree(block, holder, NONE)?.block ?? block;
  }
  assert.equal(block.holders.length, 3);
  assert.deepEqual(ordinalsOfHandle(block, "b"), [3]);
});

test("Windows' reserved addresses do not keep a block from being empty", () => {
  const block = newBlock(PREFIX, "host:node1", NOW);
  const reserved = takeExactly(block, 0, { handle: "windows-reserved-ipam-handle", attributes: {} });
  assert.ok(reserved);
  assert.equal(isEmpty(reserved, { now: NOW, seconds: 0 }), true);
});

describe("faults of a damaged block", () => {
  const block = newBlock(parsePrefix("10.0.0.0/31"), "host:node1", NOW);
  const damaged: { name: string; change: Partial<Block>; fault: RegExp }[] = [
    { name: "too few entries", change: { allocations: [null] }, fault: /has 1 allocation entries for 2 addresses/ },
    { name: "free twice", change: { unallocated: [0, 1, 1] }, fault: /10\.0\.0\.1 as free twice/ },
    { name: "outside", change: { unallocated: [0, 1, 2] }, fault: /ordinal 2 as free, which lies outside/ },
    { name: "lost", change: { unallocated: [0] }, fault: /10\.0\.0\.1 neither as free nor as allocated/ },
    {
      name: "both",
      change: { allocations: [0, null], holders: [{ handle: "a", attributes: {} }] },
      fault: /as free and as allocated/,
    },
    { name: "dangling", change: { allocations: [3, null], unallocated: [1] }, fault: /refers to attribute 3/ },
  ];
  for (const { name, change, fault } of damaged) {
    test(name, () => {
      assert.match(blockFaults({ ...block, ...change }).join("\n"), fault);
    });
  }
});
