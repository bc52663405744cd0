import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import fc from "fast-check";
import { formatAddress, parseAddress } from "../ip/address.ts";
import type { Allocator } from "./allocator.ts";
import { allocationsOf, hostOf } from "./block.ts";
import { blockFaults } from "./check.ts";
import { findGarbage, NO_SUSPICIONS, type Facts, type KnownPod, type Suspicions } from "./garbage.ts";
import { memoryBlockStore } from "./store.testing.ts";
import { sweep } from "./sweep.ts";
import { nodeOf, pool, texts, world } from "./world.testing.ts";

/**
 * A cluster of nodes that assign and release addresses of small pools, and a collector of garbage. Every operation on
 * the store waits twice, before and after it takes place, and the schedule decides who goes on next, and who crashes:
 * then nothing that it had begun goes on. What the schedule does follows from its seed alone.
 */

/** mulberry32: small, seeded, good enough to draw schedules. */
function dice(seed: number): (sides: number) => number {
  let state = seed;
  return (sides) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % sides;
  };
}

interface Waiting {
  readonly who: Member;
  readonly go: () => void;
}

interface Member {
  readonly name: string;
  allocator: Allocator;
}

type Pod = { readonly node: string; readonly handle: string; addresses: readonly string[]; state: "starting" | "live" };

const COLLECTOR = "collector";
const GRACE_MS = 1000;

function createCluster(seed: number) {
  const roll = dice(seed);
  const chance = (percent: number): boolean => roll(100) < percent;
  const pick = <Item>(items: readonly Item[]): Item | undefined => items[roll(Math.max(1, items.length))];

  const clock = { now: 1_700_000_000_000 };
  const cooldownSeconds = chance(30) ? 1 : 0;
  const config = { strictAffinity: chance(30), maxBlocksPerHost: 1 + roll(4), cooldownSeconds };
  const pools = [pool("10.0.0.0/28", { blockSize: 30 }), pool("fd00::/125", { blockSize: 127 })];
  const settings = { world: world(pools, { config, reserved: ["10.0.0.5/32"] }) };
  const store = memoryBlockStore(() => Promise.resolve());

  let waiting: Waiting[] = [];
  const pods = new Map<string, Pod>();
  const members = new Map<string, Member>();
  let created = 0;

  function start(name: string): void {
    const member: Member = { name, allocator: undefined as unknown as Allocator };
    // A member that crashed is not in the map any more: its pauses never end.
    const pause = (): Promise<void> =>
      new Promise((go) => {
        if (members.get(name) === member) waiting.push({ who: member, go });
      });
    member.allocator = nodeOf(name, store.client(pause), settings, clock, () => roll(1000) / 1000);
    members.set(name, member);
    if (name !== COLLECTOR) void member.allocator.tidy().catch(() => undefined);
  }

  function crash(name: string): void {
    waiting = waiting.filter(({ who }) => who.name !== name);
    for (const [handle, pod] of pods) if (pod.node === name && pod.state === "starting") pods.delete(handle);
    sweeping = name === COLLECTOR ? false : sweeping;
    start(name);
  }

  function add(node: Member): void {
    created += 1;
    const handle = `net.c${created}`;
    const pod: Pod = { node: node.name, handle, addresses: [], state: "starting" };
    pods.set(handle, pod);
    const attributes = { namespace: "default", pod: `c${created}` };
    const addresses = chance(10) ? [parseAddress(`10.0.0.${roll(16)}`)] : undefined;
    const families = chance(30) ? ([4, 6] as const) : ([4] as const);
    node.allocator.assign({ handle, attributes, families, addresses }).then(
      (given) => {
        pods.set(handle, { ...pod, addresses: texts(given), state: "live" });
        assertUnique();
      },
      () => pods.delete(handle),
    );
  }

  function remove(node: Member): void {
    const pod = pick(
      [...pods.values()].filter((candidate) => candidate.node === node.name && candidate.state === "live"),
    );
    if (pod === undefined) return;
    pods.delete(pod.handle);
    // Some deletions never reach the agent: the collector must find what they leave.
    if (chance(80)) void node.allocator.release([pod.handle, `default.${pod.handle}`]).catch(() => undefined);
  }

  const facts = (): Facts => ({
    nodes: new Set([...members.keys()].filter((name) => name !== COLLECTOR)),
    pods: new Map(
      [...pods].map(([handle, { node, addresses }]): [string, KnownPod] => [
        `default/${handle.slice(4)}`,
        { node, addresses },
      ]),
    ),
  });

  let suspicions: Suspicions = NO_SUSPICIONS;
  let sweeping = false;

  /** One round of the collector. What it knows of the pods may be old when it acts. */
  async function collect(): Promise<void> {
    const member = members.get(COLLECTOR);
    if (member === undefined || sweeping) return;
    sweeping = true;
    const client = store.client(() => new Promise<void>((go) => void waiting.push({ who: member, go })));
    const seen = facts();
    const cluster = { blocks: await client.listBlocks(), affinities: await client.listAffinities(), facts: seen };
    const cooldown = { now: clock.now, seconds: cooldownSeconds };
    const findings = findGarbage(cluster, suspicions, { cooldown, graceMs: GRACE_MS });
    suspicions = findings.suspicions;
    await sweep(client, findings, cooldown, () => Promise.resolve(facts()));
    sweeping = false;
  }

  /** No two live pods have one address, and the store agrees about whose it is. */
  function assertUnique(): void {
    const owners = new Map<string, string>();
    for (const { value } of store.blocks.values()) {
      for (const { address, holder } of allocationsOf(value)) owners.set(formatAddress(address), holder.handle ?? "");
    }
    const seen = new Map<string, string>();
    for (const { handle, addresses, state } of pods.values()) {
      if (state !== "live") continue;
      for (const address of addresses) {
        assert.equal(seen.get(address), undefined, `${address} was given to ${handle} and ${seen.get(address)}`);
        seen.set(address, handle);
        assert.equal(owners.get(address), handle, `${address} of live pod ${handle} is not its own in the store`);
      }
    }
  }

  async function step(withFaults: boolean): Promise<void> {
    const dieRoll = roll(100);
    const node = pick([...members.values()].filter(({ name }) => name !== COLLECTOR));
    if (node !== undefined && withFaults && dieRoll < 12) add(node);
    else if (node !== undefined && withFaults && dieRoll < 18) remove(node);
    else if (withFaults && dieRoll < 21) crash(pick([...members.keys()]) ?? "");
    else if (dieRoll < 24) void collect();
    else if (dieRoll < 27) clock.now += roll(2) === 0 ? 600 : 61_000;
    else if (node !== undefined && dieRoll < 29) void node.allocator.tidy().catch(() => undefined);
    else if (waiting.length > 0) waiting.splice(roll(waiting.length), 1)[0]?.go();
    await setImmediate();
    assertUnique();
  }

  /** Lets everything that waits go on until nothing does. */
  async function settle(): Promise<void> {
    await setImmediate();
    for (let turn = 0; turn < 20_000 && waiting.length > 0; turn += 1) {
      waiting.splice(roll(waiting.length), 1)[0]?.go();
      await setImmediate();
    }
    assert.equal(waiting.length, 0, "the cluster does not come to rest");
  }

  async function quiesce(): Promise<void> {
    await settle();
    for (let round = 0; round < 4; round += 1) {
      clock.now += GRACE_MS + 60_000;
      const done = collect();
      await settle();
      await done;
    }
    for (const { name, allocator } of members.values()) {
      if (name === COLLECTOR) continue;
      const done = allocator.tidy();
      await settle();
      await done;
    }
  }

  for (const name of ["node1", "node2", "node3", COLLECTOR]) start(name);
  return { store, pods, members, step, quiesce, crash, assertUnique, cooldown: { now: 0, seconds: cooldownSeconds } };
}

async function play(seed: number, steps: number): Promise<ReturnType<typeof createCluster>> {
  const cluster = createCluster(seed);
  for (let index = 0; index < steps; index += 1) await cluster.step(true);
  for (const name of cluster.members.keys()) cluster.crash(name);
  await cluster.quiesce();
  return cluster;
}

test("whatever crashes when: no address has two owners, nothing live is released, nothing leaks", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer(), async (seed) => {
      const cluster = await play(seed, 250);
      cluster.assertUnique();
      const live = [...cluster.pods.values()].flatMap(({ addresses }) => addresses).sort();
      const blocks = [...cluster.store.blocks.values()].map(({ value }) => value);
      const allocated = blocks
        .flatMap((block) => allocationsOf(block).map(({ address }) => formatAddress(address)))
        .sort();
      assert.deepEqual(allocated, live, "what is allocated is not what is in use");
      assert.deepEqual(blocks.flatMap(blockFaults), []);
      const claimed = [...cluster.store.affinities.values()].map(
        ({ value }) => `${value.node} ${value.state} ${formatAddress(value.prefix.address)}`,
      );
      const owned = blocks.flatMap((block) =>
        hostOf(block) === undefined ? [] : `${hostOf(block)} confirmed ${formatAddress(block.prefix.address)}`,
      );
      assert.deepEqual(claimed.sort(), owned.sort(), "affinities and blocks do not agree");
    }),
    { numRuns: 40 },
  );
});
