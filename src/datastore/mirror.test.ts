import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Kinds } from "../resources/registry.ts";
import { aPool } from "./datastore.testing.ts";
import { DatastoreError, type Datastore } from "./datastore.ts";
import { memoryDatastore } from "./memory.ts";
import { mirror, type MirrorChange, type MirrorHandlers, type Timers } from "./mirror.ts";

type Pool = Kinds["IPPool"];

function memory(history = 10_000): Datastore {
  let uids = 0;
  return memoryDatastore({ now: () => 1_800_000_000_000, uid: () => String((uids += 1)).padStart(36, "0"), history });
}

/** Time that passes at once: a timer is due as soon as everything else has run, and is written down. */
function hurriedTimers(): Timers & { readonly delays: number[] } {
  let now = 0;
  const delays: number[] = [];
  return {
    delays,
    now: () => now,
    setTimeout(callback, milliseconds) {
      delays.push(milliseconds);
      return setImmediate(() => {
        now += milliseconds;
        callback();
      });
    },
    clearTimeout: (timer) => clearImmediate(timer as NodeJS.Immediate),
  };
}

/** Waits until the condition holds, for as long as other things still run. */
async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 2000; turn += 1) {
    if (condition()) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.fail("what was waited for did not happen");
}

/** A datastore whose lists and watches fail as told. */
function faulty(inner: Datastore) {
  const faults = { down: false, gone: false, cut: Number.POSITIVE_INFINITY };
  const datastore: Pick<Datastore, "list" | "watch"> = {
    list: async (kind, selection) => {
      if (faults.down) throw new DatastoreError("unavailable", "Cannot list: connection refused");
      return await inner.list(kind, selection);
    },
    async *watch(kind, options) {
      if (faults.down) throw new DatastoreError("unavailable", "Cannot watch: connection refused");
      if (faults.gone) {
        faults.gone = false;
        throw new DatastoreError("gone", "too old resource version");
      }
      for await (const event of inner.watch(kind, options)) {
        yield event;
        faults.cut -= 1;
        if (faults.cut <= 0 || faults.down) {
          faults.cut = Number.POSITIVE_INFINITY;
          throw new DatastoreError("unavailable", "Cannot watch: connection reset");
        }
      }
    },
  };
  return { faults, datastore };
}

const summary = (change: MirrorChange<Pool>): string => `${change.type} ${change.key}`;

/** A mirror that writes down what it is told, until `ending` is aborted. */
function start(ending: AbortSignal, datastore: Pick<Datastore, "list" | "watch">, handlers: MirrorHandlers<Pool> = {}) {
  const timers = hurriedTimers();
  const changes: string[] = [];
  const errors: unknown[] = [];
  let syncs = 0;
  const copy = mirror(
    datastore,
    "IPPool",
    { timers, random: () => 1 },
    {
      onSync: (items) => {
        syncs += 1;
        assert.equal(changes.length, 0, "nothing is told before the first complete state");
        handlers.onSync?.(items);
      },
      onChange: (change) => {
        assert.equal(syncs, 1);
        changes.push(summary(change));
        handlers.onChange?.(change);
      },
      onError: (error) => errors.push(error),
    },
  );
  ending.addEventListener("abort", () => copy.stop());
  return { copy, timers, changes, errors, syncs: () => syncs };
}

describe("a mirror", () => {
  test("has what is there, then follows", async (t) => {
    const store = memory();
    await store.create("IPPool", aPool("a"));
    const { copy, changes } = start(t.signal, store);
    await copy.synced;
    assert.deepEqual([...copy.items.keys()], ["a"]);
    await store.create("IPPool", aPool("b"));
    await store.patch("IPPool", "a", undefined, { spec: { disabled: true } });
    const last = await store.delete("IPPool", "b");
    assert.equal(await copy.waitFor(last?.metadata.resourceVersion ?? "", 1000), true);
    assert.deepEqual(changes, ["added b", "modified a", "deleted b"]);
    assert.equal(copy.get("a")?.spec.disabled, true);
  });

  test("waits for an API server that is not there yet, longer each time", async (t) => {
    const store = memory();
    const { faults, datastore } = faulty(store);
    faults.down = true;
    const { copy, timers, errors, syncs } = start(t.signal, datastore);
    await until(() => errors.length === 12);
    assert.equal(syncs(), 0);
    assert.deepEqual(timers.delays.slice(0, 9), [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    await store.create("IPPool", aPool("a"));
    faults.down = false;
    await copy.synced;
    assert.deepEqual([...copy.items.keys()], ["a"]);
  });

  test("takes up a broken watch where it was", async (t) => {
    const store = memory();
    const { faults, datastore } = faulty(store);
    const { copy, changes, syncs } = start(t.signal, datastore);
    await copy.synced;
    faults.cut = 1;
    for (const name of ["a", "b", "c"]) await store.create("IPPool", aPool(name));
    await until(() => changes.length === 3);
    faults.down = true;
    await store.delete("IPPool", "a");
    await store.delete("IPPool", "b");
    faults.down = false;
    await until(() => changes.length === 5);
    assert.deepEqual(changes, ["added a", "added b", "added c", "deleted a", "deleted b"]);
    assert.equal(syncs(), 1);
  });

  test("lists anew when its version is gone, and tells only what differs", async (t) => {
    const store = memory();
    const { faults, datastore } = faulty(store);
    for (const name of ["kept", "changed", "removed", "replaced"]) await store.create("IPPool", aPool(name));
    const { copy, changes } = start(t.signal, datastore);
    await copy.synced;
    faults.down = true;
    await store.patch("IPPool", "changed", undefined, { spec: { disabled: true } });
    await store.delete("IPPool", "removed");
    await store.delete("IPPool", "replaced");
    await store.create("IPPool", aPool("replaced"));
    await store.create("IPPool", aPool("new"));
    faults.gone = true;
    faults.down = false;
    await until(() => changes.length >= 5);
    assert.deepEqual(changes.toSorted(), [
      "added new",
      "added replaced",
      "deleted removed",
      "deleted replaced",
      "modified changed",
    ]);
  });

  test("goes on after a handler that throws", async (t) => {
    const store = memory();
    const { copy, changes, errors } = start(t.signal, store, {
      onChange: () => {
        throw new Error("handler");
      },
    });
    await copy.synced;
    await store.create("IPPool", aPool("a"));
    await store.create("IPPool", aPool("b"));
    await until(() => changes.length === 2);
    assert.deepEqual(errors.map(String), ["Error: handler", "Error: handler"]);
  });

  test("tells nothing once it is stopped, and lets nobody wait", async (t) => {
    const store = memory();
    const { copy, changes } = start(t.signal, store);
    await copy.synced;
    const waiting = copy.waitFor("999999", 1_000_000);
    copy.stop();
    await store.create("IPPool", aPool("a"));
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(await waiting, false);
    assert.deepEqual(changes, []);
  });

  test("does not wait for ever", async (t) => {
    const { copy } = start(t.signal, memory());
    await copy.synced;
    assert.equal(await copy.waitFor("999999", 10), false);
  });

  type Step =
    | { readonly do: "put" | "drop"; readonly name: string }
    | { readonly do: "cut" | "gone" | "down" | "up" | "rest" };
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constantFrom("put", "drop"), name: fc.constantFrom("a", "b", "c") }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("cut", "gone", "down", "up", "rest") }) },
  );

  test("whatever breaks, ends up as the datastore is, by changes that follow from each other", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const store = memory(4);
        const { faults, datastore } = faulty(store);
        const twin = new Map<string, string | undefined>();
        const ending = new AbortController();
        const { copy } = start(ending.signal, datastore, {
          onSync: (items) => items.forEach((item, key) => twin.set(key, item.metadata.resourceVersion)),
          onChange: (change) => {
            const { key, object } = change;
            assert.equal(twin.has(key), change.type !== "added", summary(change));
            if (change.type === "modified")
              assert.notEqual(object.metadata.resourceVersion, twin.get(key), "told twice");
            if (change.type === "deleted") twin.delete(key);
            else twin.set(key, object.metadata.resourceVersion);
          },
        });
        try {
          for (const [turn, action] of steps.entries()) {
            if (action.do === "put") {
              if ((await store.get("IPPool", action.name)) === undefined)
                await store.create("IPPool", aPool(action.name));
              else
                await store.patch("IPPool", action.name, undefined, { metadata: { labels: { turn: String(turn) } } });
            } else if (action.do === "drop") {
              if ((await store.get("IPPool", action.name)) !== undefined) await store.delete("IPPool", action.name);
            } else if (action.do === "cut") faults.cut = 1;
            else if (action.do === "gone") faults.gone = true;
            else if (action.do === "rest") await new Promise((resolve) => setImmediate(resolve));
            else faults.down = action.do === "down";
          }
          faults.down = false;
          const present = (): string =>
            [...twin]
              .map((pair) => pair.join(" "))
              .toSorted()
              .join();
          const { items } = await store.list("IPPool");
          const expected = items
            .map(({ metadata }) => `${metadata.name} ${metadata.resourceVersion}`)
            .toSorted()
            .join();
          await until(() => present() === expected);
          assert.deepEqual([...copy.items.keys()].toSorted(), [...twin.keys()].toSorted());
        } finally {
          ending.abort();
        }
      }),
      { numRuns: 60 },
    );
  });
});
