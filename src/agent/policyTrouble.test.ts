import assert from "node:assert/strict";
import { test } from "node:test";
import { policyTrouble } from "./policyTrouble.ts";

test("what cannot be put right is told until a look finds all as it should be", async () => {
  const waiting: (() => void)[] = [];
  const timers = {
    now: () => 0,
    setTimeout: (callback: () => void) => waiting.push(callback),
    clearTimeout: () => void waiting.splice(0),
  };
  const pass = async (): Promise<void> => {
    waiting.shift()?.();
    for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
  };
  let outcome: () => Promise<unknown> = () => Promise.reject(new Error("the table is another's"));
  const trouble = policyTrouble(() => outcome(), timers);
  assert.equal(trouble.reason(), undefined);
  trouble.failed("EPERM");
  trouble.failed("EPERM once more");
  assert.deepEqual([trouble.reason(), waiting.length], ["EPERM once more", 1]);
  await pass();
  assert.deepEqual([trouble.reason(), waiting.length], ["the table is another's", 1]);
  outcome = () => {
    trouble.failed("while it looked");
    return Promise.resolve();
  };
  await pass();
  assert.deepEqual([trouble.reason(), waiting.length], ["while it looked", 1]);
  outcome = () => Promise.resolve();
  await pass();
  assert.deepEqual([trouble.reason(), waiting.length], [undefined, 0]);
  trouble.failed("again");
  trouble.close();
  assert.equal(waiting.length, 0);
});
