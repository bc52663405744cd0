import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release } from "node:os";
import { benchChange } from "./policy-change.ts";
import { benchPath } from "./policy-path.ts";
import { benchRate } from "./policy-rate.ts";
import { benchStart } from "./policy-restart.ts";
import { type Bar, type BenchResult, formatTable } from "./table.ts";

/**
 * Policy, from an object to the kernel, and what it costs packets. `npm run bench:policy` measures everything and writes
 * policy-results.md; `npm run bench:policy -- PART…` prints some parts. Everything happens in network namespaces of its own.
 */
const PARTS: Readonly<Record<string, () => Promise<BenchResult>>> = {
  a: benchChange,
  b: benchStart,
  c: benchPath,
  d: benchRate,
};
const RESULTS = new URL("policy-results.md", import.meta.url).pathname;

const formatBars = (bars: readonly Bar[]): string =>
  formatTable({
    title: "The bars",
    rows: bars.map(({ what, bar, measured, met }) => ({ what, bar, measured, met: met ? "yes" : "no" })),
  });

async function run(name: string): Promise<string> {
  process.stderr.write(`bench: policy (${name})\n`);
  const before = loadavg()[0] ?? 0;
  const { tables, bars } = await PARTS[name]!();
  const after = loadavg()[0] ?? 0;
  const load = `Load average ${before.toFixed(1)} before, ${after.toFixed(1)} after.\n`;
  const text = [...tables.map(formatTable), load, formatBars(bars)].join("\n");
  console.log(text);
  return `## (${name})\n\n${text}`;
}

const chosen = process.argv.slice(2);
const unknown = chosen.find((name) => !Object.hasOwn(PARTS, name));
if (unknown !== undefined) {
  process.stderr.write(`bench: there is no part "${unknown}"; there are ${Object.keys(PARTS).join(", ")}\n`);
  process.exit(2);
}
const began = new Date();
const texts: string[] = [];
// oxlint-disable-next-line no-await-in-loop -- they would be in each other's way
for (const name of chosen.length === 0 ? Object.keys(PARTS) : chosen) texts.push(await run(name));
if (chosen.length === 0) {
  const memory = /^MemTotal: +(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1];
  const circumstances = [
    `One run of \`npm run bench:policy\` on ${began.toISOString().slice(0, 10)}: Linux ${release()}, ${availableParallelism()} cores`,
    `(${cpus()[0]?.model ?? "unknown processor"}), ${(Number(memory) / 2 ** 20).toFixed(0)} GiB, Node ${process.versions.node}.`,
    "Absolute figures are this machine's, and move with whatever else it does; what is compared was measured in turns.",
  ].join("\n");
  writeFileSync(RESULTS, ["# Benchmarks of policy", "", circumstances, "", ...texts].join("\n"));
}
