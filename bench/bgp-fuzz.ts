import { writeFileSync } from "node:fs";
import { availableParallelism, cpus, release } from "node:os";
import { parseArgs } from "node:util";
import { captured, OUTCOMES, torment, type Outcome } from "../src/bgp/hostile.testing.ts";
import { formatTable, type BenchTable } from "./table.ts";

/**
 * Messages of other speakers, mutated, at length: `node bench/bgp-fuzz.ts [--messages 1000000] [--seed N]`. A run of a
 * million or more that nothing was wrong with is written to bgp-fuzz-results.md.
 */
const { values } = parseArgs({
  options: {
    messages: { type: "string", default: "1000000" },
    seed: { type: "string", default: String(Date.now() % 2 ** 31) },
  },
});
const MESSAGES = Number(values.messages);
const SEED = Number(values.seed);
const RESULTS = new URL("bgp-fuzz-results.md", import.meta.url).pathname;
/** As many as make a run worth writing down. */
const WHOLE = 1_000_000;
/** A victim is new after so many, so that what is wrong is soon found, and can be found again. */
const PORTION = 50_000;

const MEANINGS: Readonly<Record<Outcome, string>> = {
  read: "read as they stand",
  forgiven: "wrong, and cost no more than a route or an attribute (RFC 7606)",
  refused: "ended the session, as RFC 7606 and RFC 4271 ask or allow",
  "not whole": "a length said that more is to come",
};

/** The whole run in a table. */
function report(totals: Readonly<Record<Outcome, number>>, seconds: number): BenchTable {
  const said = OUTCOMES.reduce((sum, name) => sum + totals[name], 0);
  const rows = OUTCOMES.map((name) => ({
    messages: totals[name].toLocaleString("en"),
    "%": ((100 * totals[name]) / said).toFixed(1),
    outcome: MEANINGS[name],
  }));
  const victims = Math.ceil(MESSAGES / PORTION);
  return {
    title: `${MESSAGES.toLocaleString("en")} mutated messages, seed ${SEED}`,
    how: [
      `${seconds.toFixed(0)} s; ${victims} speakers, one after the other, each of which heard the ${captured().length} captured messages first.`,
      "None crashed or hung, ended a session where RFC 7606 asks for less, kept one that it says must end, read a message",
      "in its fast form otherwise than in its clear one, told others what they cannot read, or had anything left in its",
      "tables when its sessions had ended.",
    ].join("\n"),
    rows,
  };
}

const totals: Record<Outcome, number> = { read: 0, forgiven: 0, refused: 0, "not whole": 0 };
const start = performance.now();
for (let done = 0; done < MESSAGES; done += PORTION) {
  const seed = SEED + done;
  const count = Math.min(PORTION, MESSAGES - done);
  try {
    const outcomes = torment(count, seed);
    for (const name of OUTCOMES) totals[name] += outcomes[name];
  } catch (thrown) {
    console.error(`with --seed ${seed}: ${String(thrown)}`);
    process.exit(1);
  }
}
const table = formatTable(report(totals, (performance.now() - start) / 1000));
console.log(table);
if (MESSAGES >= WHOLE) {
  const when = `One run of \`node bench/bgp-fuzz.ts --messages ${MESSAGES} --seed ${SEED}\` on ${new Date().toISOString().slice(0, 10)}:`;
  const where = `Node ${process.versions.node}, Linux ${release()}, ${availableParallelism()} cores (${cpus()[0]?.model ?? "unknown processor"}).`;
  const words = [
    "Messages that BIRD, FRR, GoBGP, OpenBGPD and ExaBGP have said (`src/bgp/golden/captured.txt`), with bytes, lengths and",
    "attributes changed, cut, repeated and put together with others' (`src/bgp/mutation.testing.ts`), said to a speaker's",
    "tables, and judged by a second, plain reading of RFC 7606 (`src/bgp/hostile.testing.ts`).",
  ].join("\n");
  writeFileSync(RESULTS, ["# BGP and hostile input", "", when, where, "", words, "", table].join("\n"));
}
