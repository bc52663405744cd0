import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { naiveMembers, type Members } from "./members.naive.ts";
import { members } from "./members.ts";

const IMPLEMENTATIONS: Record<string, () => Members> = { naive: naiveMembers, fast: members };

for (const [name, make] of Object.entries(IMPLEMENTATIONS)) {
  describe(`the ${name} members of a set`, () => {
    test("are there until everybody has removed them", () => {
      const set = make();
      set.add("10.0.0.1");
      set.add("10.0.0.1");
      assert.deepEqual(set.take(), { added: ["10.0.0.1"], removed: [] });
      set.remove("10.0.0.1");
      assert.deepEqual(set.take(), { added: [], removed: [] });
      set.remove("10.0.0.1");
      assert.deepEqual(set.take(), { added: [], removed: ["10.0.0.1"] });
    });
    test("that come and go between two looks are not told", () => {
      const set = make();
      set.add("10.0.0.1,tcp:80");
      set.remove("10.0.0.1,tcp:80");
      assert.deepEqual(set.take(), { added: [], removed: [] });
    });
    test("give way to a network that holds them, and come back when it goes", () => {
      const set = make();
      for (const member of ["10.1.0.0/16", "10.1.2.3", "10.2.0.1", "2001:db8::1"]) set.add(member);
      assert.deepEqual(set.take().added.sort(), ["10.1.0.0/16", "10.2.0.1", "2001:db8::1"]);
      set.add("10.0.0.0/8");
      assert.deepEqual(set.take(), { added: ["10.0.0.0/8"], removed: ["10.1.0.0/16", "10.2.0.1"] });
      set.add("10.2.0.2");
      assert.deepEqual(set.take(), { added: [], removed: [] });
      set.remove("10.0.0.0/8");
      const change = set.take();
      assert.deepEqual(change.removed, ["10.0.0.0/8"]);
      assert.deepEqual(change.added.sort(), ["10.1.0.0/16", "10.2.0.1", "10.2.0.2"]);
      assert.deepEqual(set.told().sort(), ["10.1.0.0/16", "10.2.0.1", "10.2.0.2", "2001:db8::1"]);
    });
  });
}

const V4 = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3", "10.1.2.4", "10.2.0.1", "0.0.0.0/0"];
const V6 = ["2001:db8::/32", "2001:db8::1", "::/0"];
const member = fc.constantFrom(...V4, ...V6);
const step = fc.oneof(
  { weight: 5, arbitrary: fc.tuple(fc.constantFrom("add", "remove"), member) },
  fc.constant(["take", ""]),
);

test("the fast members of a set tell what the naive ones tell", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const [fast, naive] = [members(), naiveMembers()];
      const counts = new Map<string, number>();
      for (const [what = "", of = ""] of [...steps, ["take", ""]]) {
        const count = counts.get(of) ?? 0;
        if (what === "take") {
          const [left, right] = [fast.take(), naive.take()];
          assert.deepEqual([left.added.sort(), left.removed.sort()], [right.added.sort(), right.removed.sort()]);
          assert.deepEqual(fast.told().sort(), naive.told().toSorted());
        } else if (what === "add" || count > 0) {
          counts.set(of, what === "add" ? count + 1 : count - 1);
          for (const set of [fast, naive]) set[what === "add" ? "add" : "remove"](of);
        }
      }
    }),
    { numRuns: 200 },
  );
});
