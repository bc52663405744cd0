import assert from "node:assert/strict";
import { type KeyChange, type KeyStore, type StoredKey, StoreError } from "./store.ts";

/** A store in memory, with the faults that etcd has; and the suite that every store passes. */
export interface MemoryStore extends KeyStore {
  /** Puts a key whatever is there; `ttl` false: it stays for good. */
  put(key: string, value: string, leased?: boolean): void;
  /** The lease of the key ends. */
  expire(key: string): void;
  /** Nothing is answered from now on, and watches break; or all is well again. */
  setDown(down: boolean): void;
  /** Forgets what was before: watches from older revisions are refused. */
  compact(): void;
  /** Called before each write takes place: what another node may do meanwhile. */
  beforeWrite: ((key: string) => void) | undefined;
  keys(): Record<string, string>;
}

export function memoryStore(): MemoryStore {
  const items = new Map<string, StoredKey>();
  const log: { revision: number; change: KeyChange }[] = [];
  let wake = new Set<() => void>();
  let revision = 1;
  let compacted = 0;
  let down = false;

  function tell(): void {
    const waiting = wake;
    wake = new Set();
    for (const each of waiting) each();
  }
  function write(key: string, value: string, leased: boolean): string {
    revision += 1;
    const item = { key, value, revision: String(revision), leased };
    items.set(key, item);
    log.push({ revision, change: { type: "put", item } });
    tell();
    return item.revision;
  }
  function erase(key: string): void {
    if (!items.delete(key)) return;
    revision += 1;
    log.push({ revision, change: { type: "deleted", key } });
    tell();
  }
  function check(): void {
    if (down) throw new StoreError("unavailable", "the store is down");
  }
  /** As over a network: nothing happens within the call. */
  async function answer<Result>(work: () => Result): Promise<Result> {
    await Promise.resolve();
    check();
    return work();
  }
  function before(key: string): void {
    const hook = store.beforeWrite;
    store.beforeWrite = undefined;
    hook?.(key);
  }

  const store: MemoryStore = {
    beforeWrite: undefined,
    get: (key) => answer(() => items.get(key)),
    list: (prefix) =>
      answer(() => ({
        items: [...items.values()]
          .filter(({ key }) => key.startsWith(prefix))
          .toSorted((a, b) => (a.key < b.key ? -1 : 1)),
        revision: String(revision),
      })),
    create: (key, value, ttl) =>
      answer(() => {
        before(key);
        return items.has(key) ? undefined : write(key, value, ttl !== undefined);
      }),
    replace: (key, value, at, ttl) =>
      answer(() => {
        before(key);
        return items.get(key)?.revision === at ? write(key, value, ttl !== undefined) : undefined;
      }),
    remove: (key, at) =>
      answer(() => {
        before(key);
        const there = items.get(key)?.revision === at;
        if (there) erase(key);
        return there;
      }),
    async *watch(prefix, after, signal) {
      let seen = Number(after);
      while (!signal.aborted) {
        check();
        if (seen < compacted) throw new StoreError("compacted", `revision ${seen} is forgotten`);
        const next = log.filter((entry) => entry.revision > seen);
        seen = revision;
        const changes = next
          .map(({ change }) => change)
          .filter((change) => (change.type === "put" ? change.item.key : change.key).startsWith(prefix));
        if (changes.length > 0) yield changes;
        else
          await new Promise<void>((resolve) => {
            wake.add(resolve);
            signal.addEventListener("abort", () => resolve(), { once: true });
          });
      }
    },
    put: (key, value, leased = true) => void write(key, value, leased),
    expire: erase,
    setDown(now) {
      down = now;
      tell();
    },
    compact() {
      compacted = revision;
      log.length = 0;
    },
    keys: () => Object.fromEntries([...items.values()].map(({ key, value }) => [key, value])),
  };
  return store;
}

/** What every store does. The store is empty. */
export async function checkStore(store: KeyStore): Promise<void> {
  const prefix = "/coreos.com/network/subnets/";
  assert.equal(await store.get("/nothing"), undefined);
  const { revision: start } = await store.list(prefix);

  const first = await store.create(`${prefix}a`, "1", 60);
  assert.ok(first !== undefined);
  assert.equal(await store.create(`${prefix}a`, "2"), undefined, "what is there is not created again");
  assert.deepEqual(await store.get(`${prefix}a`), { key: `${prefix}a`, value: "1", revision: first, leased: true });
  const second = await store.replace(`${prefix}a`, "é", first);
  assert.ok(second !== undefined);
  assert.equal(await store.replace(`${prefix}a`, "3", first), undefined, "it has moved on");
  assert.equal((await store.get(`${prefix}a`))?.leased, false, "without a time to live it stays");
  assert.equal(await store.remove(`${prefix}a`, first), false);
  await store.create("/coreos.com/network/subnetsX", "beside the prefix");
  await store.create(`${prefix}b`, "b");
  assert.deepEqual(
    (await store.list(prefix)).items.map(({ key, value }) => [key.slice(prefix.length), value]),
    [
      ["a", "é"],
      ["b", "b"],
    ],
  );
  assert.equal(await store.remove(`${prefix}a`, second), true);
  assert.equal(await store.get(`${prefix}a`), undefined);

  const seen: string[] = [];
  const ended = new AbortController();
  for await (const changes of store.watch(prefix, start, ended.signal)) {
    for (const change of changes) {
      seen.push(change.type === "put" ? `${change.item.key.slice(prefix.length)}=${change.item.value}` : "-");
    }
    if (seen.length >= 4) ended.abort();
  }
  assert.deepEqual(seen, ["a=1", "a=é", "b=b", "-"]);
}
