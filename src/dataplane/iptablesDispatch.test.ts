import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { dispatchTree, type DispatchTree } from "./iptablesDispatch.ts";

/** What is compared on the way to the name, and where that leads. */
function look(tree: DispatchTree, name: string): { readonly found: boolean; readonly steps: number } {
  let steps = 0;
  for (const { prefix, tree: below } of tree.branches) {
    steps += 1;
    if (!name.startsWith(prefix)) continue;
    // A branch is gone to: there is no way back to the next.
    const there = look(below, name);
    return { found: there.found, steps: steps + there.steps };
  }
  const at = tree.names.indexOf(name);
  return { found: at >= 0, steps: steps + (at < 0 ? tree.names.length : at + 1) };
}

describe("the dispatch tree", () => {
  test("is Felix's: by the character that follows what all names have in common", () => {
    const tree = dispatchTree(["cali12", "cali1", "cali13", "cali2", "cali31", "cali32"]);
    assert.deepEqual(tree, {
      names: ["cali2"],
      branches: [
        { prefix: "cali1", path: "1", tree: { names: ["cali1", "cali12", "cali13"], branches: [] } },
        { prefix: "cali3", path: "3", tree: { names: ["cali31", "cali32"], branches: [] } },
      ],
    });
  });

  test("of none and of one is no tree", () => {
    assert.deepEqual(dispatchTree([]), { names: [], branches: [] });
    assert.deepEqual(dispatchTree(["eth0"]), { names: ["eth0"], branches: [] });
  });

  test("finds every name, and nothing else", () => {
    const name = fc.string({ unit: fc.constantFrom("a", "b", "0", "1", "."), minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(fc.array(name, { maxLength: 120 }), fc.array(name), (names, others) => {
        const tree = dispatchTree(names);
        for (const one of [...names, ...others]) assert.equal(look(tree, one).found, names.includes(one), one);
      }),
    );
  });

  test("has paths that differ from each other", () => {
    const paths = (tree: DispatchTree): string[] =>
      tree.branches.flatMap(({ path, tree: below }) => [path, ...paths(below)]);
    const name = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 12 });
    fc.assert(
      fc.property(fc.array(name, { minLength: 100, maxLength: 200 }), (names) => {
        const all = paths(dispatchTree(names));
        assert.equal(new Set(all).size, all.length);
      }),
    );
  });

  test("is shallow", () => {
    const names = Array.from(
      { length: 500 },
      (_, at) => `cali${((at * 2654435761) >>> 0).toString(16).padStart(8, "0")}`,
    );
    const tree = dispatchTree(names);
    assert.ok(Math.max(...names.map((name) => look(tree, name).steps)) <= 60);
  });
});
