import { parseArgs } from "node:util";
import { torment } from "../src/bgp/hostile.testing.ts";

/** Messages of other speakers, mutated, at length: `node bench/bgp-fuzz.ts [--messages 1000000] [--seed N]`. */
const { values } = parseArgs({
  options: {
    messages: { type: "string", default: "1000000" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
  },
});
/** A victim is new after so many, so that what is wrong is soon found, and can be found again. */
const PORTION = 50_000;
const totals = { read: 0, refused: 0, "not whole": 0 };
const start = performance.now();
for (let done = 0; done < Number(values.messages); done += PORTION) {
  const seed = Number(values.seed) + done;
  const count = Math.min(PORTION, Number(values.messages) - done);
  try {
    const outcomes = torment(count, seed);
    for (const name of ["read", "refused", "not whole"] as const) totals[name] += outcomes[name];
  } catch (thrown) {
    console.error(`with --seed ${seed}: ${String(thrown)}`);
    process.exit(1);
  }
}
const seconds = ((performance.now() - start) / 1000).toFixed(0);
console.log(`${values.messages} mutated messages in ${seconds} s from seed ${values.seed}: ${JSON.stringify(totals)}`);
