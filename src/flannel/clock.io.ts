import { randomInt } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "./subnetManager.ts";

/** The machine's own time and chance. */
export const systemClock: Clock = {
  now: () => Date.now(),
  random: (bound) => (bound > 0 ? randomInt(bound) : 0),
  async sleep(milliseconds, signal) {
    try {
      // Longer ones would end at once: a timer holds 31 bits.
      await sleep(Math.min(milliseconds, 2 ** 31 - 1), undefined, { signal });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  },
};
