/** The API server is killed again and again under writers and watchers: what it acknowledged stays, watches miss nothing. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startServer } from "./apiserver.testing.ts";
import { kubernetesDatastore } from "./client.io.ts";
import { aPool } from "./datastore.testing.ts";
import { compareVersions, DatastoreError, type Datastore } from "./datastore.ts";

const KILLS = 8;
const WRITERS = 4;
const WATCHERS = 3;

/** Mulberry32: the same numbers for the same seed. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Seen {
  readonly version: string;
  /** `added a 17`: what happened, to which object, with which value. */
  readonly what: string;
}

const valueOf = (item: { metadata: { name: string; labels?: Record<string, string> } }): string =>
  `${item.metadata.name} ${item.metadata.labels?.["value"]}`;

/** Follows the pools from `from` for as long as `running` says, through every break, and writes down what it sees. */
async function watchThrough(datastore: Datastore, from: string, running: AbortSignal): Promise<Seen[]> {
  const seen: Seen[] = [];
  let version = from;
  while (!running.aborted) {
    try {
      for await (const event of datastore.watch("IPPool", { resourceVersion: version, signal: running })) {
        version = event.resourceVersion;
        if (event.type !== "bookmark") seen.push({ version, what: `${event.type} ${valueOf(event.object)}` });
      }
    } catch (thrown) {
      assert.ok(thrown instanceof DatastoreError && thrown.code === "unavailable", String(thrown));
    }
    await sleep(5);
  }
  return seen;
}

/** Writes to its own pools, and returns what was acknowledged. */
async function write(
  datastore: Datastore,
  writer: number,
  random: () => number,
  running: AbortSignal,
): Promise<Seen[]> {
  const acknowledged: Seen[] = [];
  let value = 0;
  while (!running.aborted) {
    const name = `pool-${writer}-${Math.floor(random() * 3)}`;
    value += 1;
    const labels = { value: `${writer}.${value}` };
    try {
      const present = await datastore.get("IPPool", name);
      if (present === undefined) {
        const made = await datastore.create("IPPool", { ...aPool(name), metadata: { name, labels } });
        acknowledged.push({ version: made.metadata.resourceVersion!, what: `added ${valueOf(made)}` });
      } else if (random() < 0.2) {
        const last = await datastore.delete("IPPool", name);
        acknowledged.push({ version: last!.metadata.resourceVersion!, what: `deleted ${valueOf(last!)}` });
      } else if (random() < 0.5) {
        const next = await datastore.update("IPPool", { ...present, metadata: { ...present.metadata, labels } });
        acknowledged.push({ version: next.metadata.resourceVersion!, what: `modified ${valueOf(next)}` });
      } else {
        const next = await datastore.patch("IPPool", name, undefined, { metadata: { labels } });
        acknowledged.push({ version: next.metadata.resourceVersion!, what: `modified ${valueOf(next)}` });
      }
    } catch (thrown) {
      assert.ok(thrown instanceof DatastoreError && thrown.code === "unavailable", String(thrown));
      await sleep(5);
    }
  }
  return acknowledged;
}

test("no acknowledged write is lost, and no watch misses or repeats anything, however often the server is killed", async (t) => {
  const seed = Date.now() % 2 ** 31;
  t.diagnostic(`seed ${seed}`);
  const random = randomFrom(seed);
  const data = mkdtempSync(join(tmpdir(), "caracal-crash-"));
  const socketPath = join(data, "api.sock");
  const datastore = kubernetesDatastore({ socketPath });
  const writing = new AbortController();
  const watching = new AbortController();
  let server = await startServer(["--data", data]);
  try {
    const { resourceVersion: start } = await datastore.list("IPPool");
    const watchers = Array.from({ length: WATCHERS }, () => watchThrough(datastore, start, watching.signal));
    const writers = Array.from({ length: WRITERS }, (_, writer) =>
      write(datastore, writer, randomFrom(seed + writer), writing.signal),
    );
    for (let kill = 0; kill < KILLS; kill += 1) {
      await sleep(50 + random() * 200);
      await server.end("SIGKILL");
      server = await startServer(["--data", data]);
    }
    await sleep(100);
    writing.abort();
    const acknowledged = (await Promise.all(writers))
      .flat()
      .toSorted((left, right) => compareVersions(left.version, right.version));
    const { items } = await datastore.list("IPPool");
    // The last word: it tells a watcher that it has seen everything before.
    await datastore.create("IPPool", { ...aPool("last"), metadata: { name: "last", labels: { value: "0" } } });
    const reference = new AbortController();
    const history: Seen[] = [];
    for await (const event of datastore.watch("IPPool", { resourceVersion: start, signal: reference.signal })) {
      if (event.type === "bookmark") continue;
      if (event.object.metadata.name === "last") reference.abort();
      else history.push({ version: event.resourceVersion, what: `${event.type} ${valueOf(event.object)}` });
    }
    await sleep(100);
    watching.abort();

    assert.ok(acknowledged.length > 50, `only ${acknowledged.length} writes were acknowledged`);
    const told = new Map(history.map(({ version, what }) => [version, what]));
    for (const { version, what } of acknowledged)
      assert.equal(told.get(version), what, `seed ${seed}: version ${version} is lost`);
    for (const seen of await Promise.all(watchers)) {
      assert.deepEqual(
        seen.filter(({ what }) => what !== "added last 0"),
        history,
        `seed ${seed}`,
      );
    }
    const state = new Set<string>();
    for (const { what } of history) {
      const [verb, name, value] = what.split(" ");
      for (const entry of state) if (entry.startsWith(`${name} `)) state.delete(entry);
      if (verb !== "deleted") state.add(`${name} ${value}`);
    }
    assert.deepEqual(items.map(valueOf).toSorted(), [...state].toSorted(), `seed ${seed}`);
    t.diagnostic(`${acknowledged.length} acknowledged writes, ${history.length} changes, ${KILLS} kills`);
    assert.equal(await server.end("SIGTERM"), 0, "it ends cleanly when asked to");
  } finally {
    writing.abort();
    watching.abort();
    await server.end("SIGKILL");
    datastore.close();
    rmSync(data, { recursive: true });
  }
});
