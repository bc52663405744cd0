import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { openAlarm } from "./alarm.io.ts";

test("it goes off at the soonest of the times asked for, once, and not when it is cleared or closed", async () => {
  let rung = 0;
  const alarm = openAlarm(() => (rung += 1));
  alarm.within(60_000);
  alarm.within(1);
  alarm.within(60_000);
  const deadline = performance.now() + 5000;
  while (rung === 0 && performance.now() < deadline) await sleep(2);
  assert.equal(rung, 1);

  alarm.within(1);
  alarm.clear();
  await sleep(20);
  assert.equal(rung, 1);
  alarm.close();
  alarm.within(1);
  await sleep(20);
  assert.equal(rung, 1);
});
