import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Kinds } from "../resources/registry.ts";
import { aPool } from "./datastore.testing.ts";
import { DatastoreError, type Datastore, type ListSelection } from "./datastore.ts";
import { memoryDatastore } from "./memory.ts";
import type { Timers } from "./mirror.ts";
import { relay } from "./relay.ts";

type Pool = Kinds["IPPool"];

function memory(): Datastore {
  let uids = 0;
  return memoryDatastore({ now: () => 1_800_000_000_000, uid: () => String((uids += 1)).padStart(36, "0") });
}

const timers: Timers = {
  now: () => 0,
  setTimeout: (callback) => setImmediate(callback),
  clearTimeout: (timer) => clearImmediate(timer as NodeJS.Immediate),
};

async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 2000; turn += 1) {
    if (condition()) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.fail("what was waited for did not happen");
}

/** A relay that writes down what it is told. Pools that are disabled mean nothing to it. */
function start(datastore: Pick<Datastore, "list" | "watch">, options: { mayBeMissing?: boolean } = {}) {
  const told: string[] = [];
  const errors: string[] = [];
  const idOf = ({ metadata }: Pool): string => `pool/${metadata.name}`;
  const following = relay(
    datastore,
    "IPPool",
    { timers, random: () => 0, ...options },
    {
      put(pool) {
        told.push(`+${pool.metadata.name}${pool.spec.disabled ? " off" : ""}`);
        return pool.spec.disabled ? undefined : idOf(pool);
      },
      idOf,
      gone: (id) => void told.push(`-${id}`),
      onError: (error) => void errors.push(String(error)),
    },
  );
  return { following, told, errors, taken: () => told.splice(0) };
}

describe("a relay", () => {
  test("hands on what is there, then each change; what means nothing any more is gone", async () => {
    const datastore = memory();
    await datastore.create("IPPool", aPool("a"));
    const off = aPool("off");
    await datastore.create("IPPool", { ...off, spec: { ...off.spec, cidr: "10.9.0.0/16", disabled: true } });
    const { following, taken, told } = start(datastore);
    await following.synced;
    assert.deepEqual(taken().sort(), ["+a", "+off off"]);
    assert.equal(following.size, 1);
    await datastore.patch("IPPool", "a", undefined, { spec: { disabled: true } });
    await until(() => told.length >= 2);
    assert.deepEqual(taken(), ["+a off", "-pool/a"]);
    await datastore.patch("IPPool", "a", undefined, { spec: { disabled: false } });
    await datastore.delete("IPPool", "a");
    const last = await datastore.delete("IPPool", "off");
    assert.ok(await following.waitFor(last?.metadata.resourceVersion ?? "", 1000));
    assert.deepEqual(taken(), ["+a", "-pool/a"]);
    assert.equal(following.size, 0);
    following.stop();
  });

  test("takes lists a part at a time, and begins anew when a part comes too late", async () => {
    const inner = memory();
    const names = ["a", "b", "c", "d", "e"];
    for (const [at, name] of names.entries()) {
      const pool = aPool(name);
      await inner.create("IPPool", { ...pool, spec: { ...pool.spec, cidr: `10.${at}.0.0/16` } });
    }
    const asked: string[] = [];
    let late = true;
    const datastore: Pick<Datastore, "list" | "watch"> = {
      watch: (kind, options) => inner.watch(kind, options),
      async list(kind, selection: ListSelection = {}) {
        const from = Number(selection.continue ?? "0");
        asked.push(`${from} of ${selection.limit}`);
        if (from === 4 && late) {
          late = false;
          throw new DatastoreError("gone", "the continue token is too old");
        }
        const { items, resourceVersion } = await inner.list(kind);
        const more = from + 2 < items.length ? { continue: String(from + 2) } : {};
        return { items: items.slice(from, from + 2), resourceVersion, ...more };
      },
    };
    const { following, taken } = start(datastore);
    await following.synced;
    assert.deepEqual(
      asked,
      ["0", "2", "4", "0", "2", "4"].map((from) => `${from} of 250`),
    );
    assert.deepEqual(taken(), ["+a", "+b", "+c", "+d", "+a", "+b", "+c", "+d", "+e"]);
    assert.equal(following.size, 5);
    following.stop();
  });

  test("says what went while nobody looked", async () => {
    const inner = memory();
    for (const [at, name] of ["a", "b"].entries()) {
      const pool = aPool(name);
      await inner.create("IPPool", { ...pool, spec: { ...pool.spec, cidr: `10.${at}.0.0/16` } });
    }
    let blind = true;
    const datastore: Pick<Datastore, "list" | "watch"> = {
      list: (kind, selection) => inner.list(kind, selection),
      async *watch(kind, options) {
        if (blind) {
          blind = false;
          await inner.delete("IPPool", "b");
          throw new DatastoreError("gone", "too old resource version");
        }
        yield* inner.watch(kind, options);
      },
    };
    const { following, told, taken } = start(datastore);
    await following.synced;
    await until(() => told.includes("-pool/b"));
    assert.deepEqual(taken(), ["+a", "+b", "+a", "-pool/b"]);
    following.stop();
  });

  test("of a kind that the API server does not know has nothing, until it does", async () => {
    const inner = memory();
    await inner.create("IPPool", aPool("a"));
    let known = false;
    const datastore: Pick<Datastore, "list" | "watch"> = {
      watch: (kind, options) => inner.watch(kind, options),
      list: (kind, selection) =>
        known ? inner.list(kind, selection) : Promise.reject(new DatastoreError("not-found", "no such path")),
    };
    const { following, told, errors } = start(datastore, { mayBeMissing: true });
    await following.synced;
    assert.deepEqual([told, errors, following.size], [[], [], 0]);
    known = true;
    await until(() => told.length > 0);
    assert.deepEqual(told, ["+a"]);
    following.stop();
  });

  test("outlives a handler that throws", async () => {
    const datastore = memory();
    await datastore.create("IPPool", aPool("a"));
    const errors: unknown[] = [];
    const following = relay(
      datastore,
      "IPPool",
      { timers, random: () => 0 },
      {
        put: () => {
          throw new Error("not this one");
        },
        idOf: ({ metadata }) => metadata.name,
        gone: () => undefined,
        onError: (error) => void errors.push(error),
      },
    );
    await following.synced;
    assert.match(String(errors[0]), /not this one/);
    following.stop();
  });
});
