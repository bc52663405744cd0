import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { type Bed, openBed, type PathName, PATHS } from "./paths-bed.ts";
import { formatTable, median, quantile, type Bar, type BenchTable } from "./table.ts";

/**
 * `npm run bench:paths [-- ROUNDS [PATH…]]`: TCP throughput and round trips between two pods by every way that there is, in
 * ratios to the kernel's plain routing in the same round. Twice: over veth pairs as they are, by which packets of 64 KB
 * cross the wire, and with offloads off, so that packets of 1,500 bytes do. All paths in ten rounds write paths-results.md.
 */

const ROUNDS = 10;
const RESULTS = new URL("paths-results.md", import.meta.url).pathname;

const MEASURES = {
  "1 stream": { unit: "Gbit/s", of: (bed: Bed, path: PathName) => bed.throughput(path, 1) / 1e9 },
  "8 streams": { unit: "Gbit/s", of: (bed: Bed, path: PathName) => bed.throughput(path, 8) / 1e9 },
  "ping-pong": { unit: "µs", of: (bed: Bed, path: PathName) => bed.roundTrip(path) },
} as const;
type Measure = keyof typeof MEASURES;
const UNDERLAYS = ["veth", "1,500 bytes"] as const;
type Underlay = (typeof UNDERLAYS)[number];

/** Plain routing a second time is the control: what it differs by is noise. */
const CONTROL = "plain, again";
type Run = PathName | typeof CONTROL;

/** By underlay, measure and run, one figure for each round. */
type Figures = Map<string, number[]>;
const keyOf = (underlay: Underlay, measure: Measure, run: Run): string => `${underlay}/${measure}/${run}`;

async function measure(bed: Bed, rounds: number, runs: readonly Run[]): Promise<Figures> {
  const figures: Figures = new Map();
  for (const underlay of UNDERLAYS) {
    bed.setOffloads(underlay === "veth");
    await sleep(200);
    for (const path of bed.paths.keys()) bed.throughput(path, 1); // warm
    for (let round = 0; round < rounds; round += 1) {
      for (const name of Object.keys(MEASURES) as Measure[]) {
        for (const run of shuffled(runs)) {
          const value = MEASURES[name].of(bed, run === CONTROL ? "plain" : run);
          const key = keyOf(underlay, name, run);
          figures.set(key, [...(figures.get(key) ?? []), value]);
        }
      }
      // The agents and relays that live in this process have their turn.
      await sleep(10);
    }
  }
  return figures;
}

function shuffled<Item>(items: readonly Item[]): Item[] {
  return items
    .map((item) => ({ item, place: Math.random() }))
    .toSorted((a, b) => a.place - b.place)
    .map(({ item }) => item);
}

/** Of each round, to the mean of the two runs of plain routing in it; or to another path. */
function ratios(figures: Figures, underlay: Underlay, name: Measure, run: Run, to?: PathName): number[] {
  const of = (which: Run): number[] => figures.get(keyOf(underlay, name, which)) ?? [];
  const base = to === undefined ? of("plain").map((value, at) => (value + of(CONTROL)[at]!) / 2) : of(to);
  return of(run).map((value, at) => value / base[at]!);
}

function tableOf(figures: Figures, underlay: Underlay, rounds: number, runs: readonly Run[]): BenchTable {
  const rows = runs.map((run) => {
    const cells = (Object.keys(MEASURES) as Measure[]).flatMap((name) => {
      const { unit } = MEASURES[name];
      const all = ratios(figures, underlay, name, run);
      const [low, high] = [quantile(all, 0.25), quantile(all, 0.75)];
      const absolute = median(figures.get(keyOf(underlay, name, run)) ?? []);
      return [
        [`${name}, ${unit}`, absolute.toFixed(1)],
        [`${name}, ratio`, `${median(all).toFixed(2)} (${low.toFixed(2)}–${high.toFixed(2)})`],
      ] as const;
    });
    return { path: run, ...Object.fromEntries(cells) };
  });
  const how =
    `Medians of ${rounds} rounds; ratios are of one round to the mean of its two runs of plain routing, with the quartiles ` +
    "in brackets. What the control differs by is noise.";
  const title = underlay === "veth" ? "veth as it is" : "offloads off: packets of 1,500 bytes on the wire";
  return { title, how, rows };
}

interface Wish {
  readonly run: PathName;
  readonly measure: Measure;
  /** Ratio to plain routing where nothing else is named. */
  readonly to?: PathName;
  readonly least?: readonly [number, number];
  readonly most?: readonly [number, number];
  readonly aim: string;
}
const WISHES: readonly Wish[] = [
  { run: "no encapsulation", measure: "1 stream", least: [0.95, 0.95], aim: "1.0" },
  { run: "VXLAN", measure: "1 stream", to: "VXLAN by hand", least: [0.95, 0.95], aim: "within noise" },
  { run: "IPIP", measure: "1 stream", to: "VXLAN", least: [1, 1], aim: "0.95 / 0.90 of plain" },
  { run: "flannel udp", measure: "1 stream", least: [0.3, 0.45], aim: "0.5 / VXLAN's" },
  { run: "flannel udp", measure: "ping-pong", most: [3, 3], aim: "2" },
];

function barsOf(figures: Figures, runs: readonly Run[]): (Bar & { readonly aim: string })[] {
  const wishes = WISHES.filter(({ run, to = run }) => runs.includes(run) && runs.includes(to));
  return wishes.flatMap(({ run, measure: name, to, least, most, aim }) =>
    UNDERLAYS.map((underlay, at) => {
      const measured = median(ratios(figures, underlay, name, run, to));
      const bound = (least ?? most)![at]!;
      return {
        what: `${run}, ${name}, ${underlay}, ratio to ${to ?? "plain"}`,
        bar: `${least === undefined ? "at most" : "at least"} ${bound}`,
        measured: measured.toFixed(2),
        met: least === undefined ? measured <= bound : measured >= bound,
        aim,
      };
    }),
  );
}

/** Which machine, when, and how busy with other things. */
function circumstances(began: Date, loadBefore: number): string {
  const model = cpus()[0]?.model ?? "unknown processor";
  const memory = /^MemTotal: +(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1];
  return [
    `One run of \`npm run bench:paths\` on ${began.toISOString().slice(0, 10)}: Linux ${release()}, ${availableParallelism()} cores`,
    `(${model}), ${(Number(memory) / 2 ** 20).toFixed(0)} GiB, Node ${process.versions.node}; load average`,
    `${loadBefore.toFixed(1)} before and ${loadavg()[0]?.toFixed(1)} after. Both hosts of a path, both ends of its traffic, and relays where there are`,
    "some, share the processors. Absolute figures are this machine's and move from run to run; only ratios count.",
    "",
    "Every path is a pair of hosts with a pod each, on the bridge of one segment. Caracal's are clusters of their own, with",
    "agents, rules and a policy that lets nothing but this traffic in; those by hand and flannel's have no rules at all, and so",
    "no connection tracking. IPIP is that of the BPF programs where the kernel has no such device. With `CrossSubnet` and",
    "`natOutgoing`, as most clusters have them, this traffic is neither encapsulated nor translated, but other traffic would be.",
  ].join("\n");
}

const [roundsText = String(ROUNDS), ...asked] = process.argv.slice(2);
const rounds = Number(roundsText);
if (!Number.isInteger(rounds) || rounds < 1) {
  process.stderr.write(`bench: "${roundsText}" is not a number of rounds\n`);
  process.exit(2);
}
const unknown = asked.find((name) => !PATHS.some((path) => path === name));
if (unknown !== undefined) {
  process.stderr.write(`bench: "${unknown}" is none of the paths: ${PATHS.join("; ")}\n`);
  process.exit(2);
}
// All others are compared with the first.
const paths = PATHS.filter((path, at) => at === 0 || asked.length === 0 || asked.includes(path));
const runs: readonly Run[] = [...paths, CONTROL];
const began = new Date();
const loadBefore = loadavg()[0] ?? 0;
const bed = await openBed(paths);
let figures: Figures;
try {
  figures = await measure(bed, rounds, runs);
} finally {
  await bed.close();
}
const bars = formatTable({
  title: "The bars",
  rows: barsOf(figures, runs).map(({ what, bar, measured, met, aim }) => ({
    what,
    bar,
    measured,
    met: met ? "yes" : "no",
    aim,
  })),
});
const tables = UNDERLAYS.map((underlay) => formatTable(tableOf(figures, underlay, rounds, runs)));
const text = ["# The ways between pods", "", circumstances(began, loadBefore), "", bars, ...tables].join("\n");
console.log(text);
if (rounds >= ROUNDS && paths.length === PATHS.length) writeFileSync(RESULTS, text);
