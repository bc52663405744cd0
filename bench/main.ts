import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release } from "node:os";
import { benchCni } from "./cni.ts";
import { benchIdle } from "./idle.ts";
import { benchLab } from "./lab.ts";
import { clearLabs } from "./node.ts";
import { benchPods } from "./pods.ts";
import { benchLinks, benchRoutes } from "./routes.ts";
import { formatTable, type Bar, type BenchResult } from "./table.ts";

/** `npm run bench` measures everything and writes results.md; `npm run bench -- PART…` prints some parts. */

const PARTS: Readonly<Record<string, () => Promise<BenchResult>>> = {
  cni: benchCni,
  pods: benchPods,
  routes: async () => ({ tables: [await benchRoutes(), await benchLinks()], bars: [] }),
  idle: benchIdle,
  lab: benchLab,
};
const RESULTS = new URL("results.md", import.meta.url).pathname;

const formatBars = (bars: readonly Bar[]): string =>
  formatTable({
    title: "The bars",
    rows: bars.map(({ what, bar, measured, met }) => ({ what, bar, measured, met: met ? "yes" : "no" })),
  });

/** Which machine, when, and how busy with other things. */
function circumstances(began: Date, loadBefore: number): string {
  const model = cpus()[0]?.model ?? "unknown processor";
  const memory = /^MemTotal: +(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1];
  return [
    `One run of \`npm run bench\` on ${began.toISOString().slice(0, 10)}: Linux ${release()}, ${availableParallelism()} cores`,
    `(${model}), ${(Number(memory) / 2 ** 20).toFixed(0)} GiB, Node ${process.versions.node}; load average`,
    `${loadBefore.toFixed(1)} before and ${loadavg()[0]?.toFixed(1)} after. Absolute figures are this machine's, and move with`,
    "whatever else it does; what is compared was measured in turns within the run, so that ratios hold.",
  ].join("\n");
}

async function run(names: readonly string[]): Promise<BenchResult> {
  const tables: BenchResult["tables"][number][] = [];
  const bars: Bar[] = [];
  for (const name of names) {
    process.stderr.write(`bench: ${name}\n`);
    const result = await PARTS[name]!();
    for (const table of result.tables) console.log(formatTable(table));
    tables.push(...result.tables);
    bars.push(...result.bars);
  }
  if (bars.length > 0) console.log(formatBars(bars));
  return { tables, bars };
}

const chosen = process.argv.slice(2);
const unknown = chosen.find((name) => !Object.hasOwn(PARTS, name));
if (unknown !== undefined) {
  process.stderr.write(`bench: there is no part "${unknown}"; there are ${Object.keys(PARTS).join(", ")}\n`);
  process.exit(2);
}
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    void clearLabs().finally(() => process.exit(130));
  });
}
const began = new Date();
const loadBefore = loadavg()[0] ?? 0;
const { tables, bars } = await run(chosen.length === 0 ? Object.keys(PARTS) : chosen);
if (chosen.length === 0) {
  const text = ["# Benchmarks", "", circumstances(began, loadBefore), "", formatBars(bars), ...tables.map(formatTable)];
  writeFileSync(RESULTS, text.join("\n"));
}
