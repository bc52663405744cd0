import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { KIND, type KindId } from "./registry.ts";
import { InvalidResource } from "./schema.ts";

/** A kind, what the object has beside its kind and a name, and every fault that it has, as `path: reason`. */
export type MalformedRow = [kind: KindId, fields: object, ...faults: string[]];

/** An object of the kind, named x unless `fields` say otherwise. */
export function objectOf(id: KindId, fields: object): Record<string, unknown> {
  const { group, version, kind } = KIND[id];
  const apiVersion = group === "" ? version : `${group}/${version}`;
  return { apiVersion, kind, metadata: { name: "x" }, ...fields };
}

/** Tests that each object is refused, with these faults and no others, in this order. */
export function testRefusals(rows: readonly MalformedRow[]): void {
  describe("a malformed object is refused with every fault", () => {
    for (const [id, fields, ...faults] of rows) {
      test(`${id}: ${faults.join("; ").slice(0, 120)}`, () => {
        assert.throws(
          () => KIND[id].parse(objectOf(id, fields)),
          (thrown) => {
            assert.ok(thrown instanceof InvalidResource);
            assert.deepEqual(
              thrown.faults.map(({ path, reason }) => `${path}: ${reason}`),
              faults,
            );
            return true;
          },
        );
      });
    }
  });
}
