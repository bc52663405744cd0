import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { SetChange } from "../policy/sets.ts";
import type { KeptSetChange } from "./keptTable.ts";
import { nftAddressSets } from "./nftAddressSets.ts";
import { setName } from "./nftNames.ts";

const POOLS = "network-ip-pools";
const empty = (id: string, kind: SetChange["kind"] = "net"): SetChange => ({
  id,
  kind,
  state: "new",
  added: [],
  removed: [],
});
const changed = (id: string, added: readonly string[], removed: readonly string[] = []): SetChange => ({
  ...empty(id),
  state: "changed",
  added,
  removed,
});

/** What the kernel has after the changes: the members of each set, by its name. */
function kernelAfter(family: 4 | 6, ...changes: readonly SetChange[]) {
  const sets = nftAddressSets(family);
  const told = new Map<string, KeptSetChange | undefined>();
  const reshaped = changes.flatMap((change) => {
    const own = sets.change(change, told) ? [change.id] : [];
    return [...own, ...sets.followPools(told)];
  });
  const present = [...told].flatMap(([name, one]) =>
    one === undefined ? [] : [[name, [...one.set.members]] as const],
  );
  return { sets, reshaped, present: new Map(present) };
}

describe("an empty address set", () => {
  test("is there where the family has pools, or where nobody has said which there are", () => {
    const withPools = kernelAfter(4, changed(POOLS, ["10.0.0.0/8"]), empty("s:a"));
    assert.deepEqual(withPools.present.get(setName(4, "s:a")), []);
    assert.deepEqual(kernelAfter(4, empty("s:a")).present.get(setName(4, "s:a")), []);
  });

  test("is left out where the family has none, until it has a member", () => {
    const without = kernelAfter(6, changed(POOLS, ["10.0.0.0/8"]), empty("s:a"), empty("n:b", "ip,port"));
    assert.deepEqual([...without.present.keys()], []);
    assert.deepEqual(without.sets.shapeOf("s:a"), { hosts: false, nets: false });

    const told = new Map<string, KeptSetChange | undefined>();
    assert.equal(without.sets.change(changed("s:a", ["fd00::1"]), told), true);
    assert.deepEqual(told.get(setName(6, "s:a"))?.added, ["fd00::1"]);
    assert.deepEqual(without.sets.shapeOf("s:a"), { hosts: true, nets: false });
  });

  test("comes and goes with the family's first and last pool", () => {
    const come = kernelAfter(6, empty(POOLS), empty("s:a"), changed(POOLS, ["fd00::/8"]));
    assert.deepEqual(come.present.get(setName(6, "s:a")), []);
    assert.ok(come.reshaped.includes("s:a"), "rules that look at it are written anew");
    const gone = kernelAfter(6, changed(POOLS, ["fd00::/8"]), empty("s:a"), changed(POOLS, [], ["fd00::/8"]));
    assert.equal(gone.present.has(setName(6, "s:a")), false);
    assert.ok(gone.reshaped.includes("s:a"));
  });
});
