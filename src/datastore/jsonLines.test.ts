import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { lineSplitter } from "./jsonLines.ts";

test("lines come out whole, wherever the chunks end", () => {
  const line = fc.string({ minLength: 1, maxLength: 40 }).map((text) => JSON.stringify(text));
  fc.assert(
    fc.property(fc.array(line), fc.array(fc.nat(50)), (lines, cuts) => {
      const text = lines.map((each) => `${each}\n`).join("");
      const split = lineSplitter();
      const seen: string[] = [];
      let at = 0;
      for (const cut of cuts) {
        seen.push(...split(text.slice(at, at + cut)));
        at += cut;
      }
      seen.push(...split(text.slice(at)));
      assert.deepEqual(seen, lines);
    }),
    { numRuns: 200 },
  );
});

test("what does not end in a line break is no line yet", () => {
  const split = lineSplitter();
  assert.deepEqual(split("{"), []);
  assert.deepEqual(split("}\n\n{}"), ["{}"]);
  assert.deepEqual(split("\n"), ["{}"]);
});
