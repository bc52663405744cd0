import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { objectKey, VersionedLog, type Change, type Entry } from "./versionedLog.ts";

function entryOf(log: VersionedLog, name: string, value: number): Entry {
  const revision = log.revision + 1;
  const object = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "default", labels: { value: String(value) } },
  };
  return { kind: "Pod", key: objectKey(name, "default"), revision, object, json: JSON.stringify(object) };
}

type Step =
  | { readonly do: "put" | "drop"; readonly name: string; readonly value: number }
  | { readonly do: "publish" | "undo" | "compact" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom("put", "drop"),
      name: fc.constantFrom("a", "b", "c"),
      value: fc.nat(9),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constantFrom("publish", "undo", "compact") }) },
);

test("a log is what its published changes say, from any version that it still remembers", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const log = new VersionedLog();
      // The naive twin: every published change, for ever.
      const history: Change[] = [];
      const told: Change[] = [];
      log.subscribe("Pod", (change) => told.push(change));
      const replay = (changes: readonly Change[], onto: Map<string, string>): Map<string, string> => {
        for (const { type, entry } of changes) {
          if (type === "deleted") onto.delete(entry.key);
          else onto.set(entry.key, entry.json);
        }
        return onto;
      };
      const current = (): Map<string, string> =>
        new Map([...log.entries("Pod")].map(([key, entry]) => [key, entry.json]));
      for (const action of steps) {
        switch (action.do) {
          case "put": {
            const present = log.get("Pod", `default/${action.name}`) !== undefined;
            log.append(present ? "modified" : "added", entryOf(log, action.name, action.value), log.revision);
            break;
          }
          case "drop":
            if (log.get("Pod", `default/${action.name}`) !== undefined) {
              log.append("deleted", entryOf(log, action.name, action.value), log.revision);
            }
            break;
          case "publish":
            history.push(...log.unpublished());
            log.publish();
            break;
          case "undo":
            log.rollBack(log.published);
            assert.equal(log.revision, log.published);
            break;
          case "compact":
            history.push(...log.unpublished());
            log.publish();
            log.compact(3, Number.NEGATIVE_INFINITY);
            break;
        }
      }
      log.rollBack(log.published);
      assert.deepEqual(told, history, "subscribers are told each published change once, in order");
      assert.deepEqual(current(), replay(history, new Map()));
      for (let from = 1; from <= log.revision; from += 1) {
        const after = log.changesAfter("Pod", from);
        if (from < log.compacted) assert.equal(after, undefined, `version ${from} is forgotten`);
        else
          assert.deepEqual(
            after,
            history.filter(({ entry }) => entry.revision > from),
          );
      }
    }),
    { numRuns: 200 },
  );
});

test("changes are forgotten by number and by age", () => {
  const log = new VersionedLog();
  for (let time = 1; time <= 10; time += 1) log.append("modified", entryOf(log, "a", time), time);
  log.publish();
  assert.deepEqual(
    log.compact(8, 0).map(({ time }) => time),
    [1, 2],
  );
  assert.deepEqual(
    log.compact(8, 5).map(({ time }) => time),
    [3, 4],
  );
  assert.deepEqual(log.compact(8, 5), []);
  assert.equal(log.compacted, 5);
  assert.equal(log.changesAfter("Pod", 4), undefined);
  assert.equal(log.changesAfter("Pod", 5)?.length, 6);
});
