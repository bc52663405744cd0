import { writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, release } from "node:os";
import { parseArgs } from "node:util";
import { CANDIDATES, versionOf, type Candidate } from "./bgp-daemons.ts";
import { measureAtOnce, measureIdle, measureLatency, measureReflector, measureTable, type Phase } from "./bgp-parts.ts";
import { PROFILES, type Profile } from "../src/bgp/traffic.testing.ts";
import { formatTable, median, quantile, type Bar, type BenchTable } from "./table.ts";

/**
 * What a BGP speaker costs, ours beside BIRD, FRR, OpenBGPD and GoBGP with the same neighbours, each in a namespace of its
 * own, in turns. `npm run bench:bgp` measures everything and writes bgp-results.md (half an hour); parts and options print:
 *
 *   bgp.ts [table] [reflector] [at-once] [latency] [idle]
 *          [--daemons caracal,bird] [--prefixes 100000,1000000] [--rounds 3] [--profile 0] [--quick]
 */

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    daemons: { type: "string", default: CANDIDATES.join() },
    prefixes: { type: "string" },
    rounds: { type: "string" },
    profile: { type: "string" },
    quick: { type: "boolean", default: false },
  },
});
const RESULTS = new URL("bgp-results.md", import.meta.url).pathname;
const DAEMONS = options.daemons.split(",") as Candidate[];
const ROUNDS = Number(options.rounds ?? (options.quick ? 1 : 3));
const SIZES = (options.prefixes ?? (options.quick ? "100000" : "100000,500000,1000000")).split(",").map(Number);
const CHOSEN = options.profile === undefined ? PROFILES : [PROFILES[Number(options.profile)] ?? PROFILES[0]];
const IDLE = { peers: 200, seconds: options.quick ? 15 : 60 };
/** At least so many where a round is short, and what else runs on the machine counts for more. */
const SHORT_ROUNDS = options.quick ? 1 : 5;
/** A round that took a daemon longer, in seconds, is its only one. */
const LONG = 30;

type Row = Readonly<Record<string, string>>;
interface Result {
  readonly table: BenchTable;
  readonly bars: readonly Bar[];
}

/** The results of each daemon that gave one, of several rounds in turns. */
async function inTurns<One>(
  what: string,
  measure: (host: Candidate) => Promise<One>,
  rounds = ROUNDS,
): Promise<Map<Candidate, One[]>> {
  const results = new Map<Candidate, One[]>();
  const finished = new Set<Candidate>();
  for (let round = 0; round < rounds; round += 1) {
    for (const host of DAEMONS) {
      if (finished.has(host)) continue;
      const start = performance.now();
      try {
        const result = await measure(host);
        results.set(host, [...(results.get(host) ?? []), result]);
        process.stderr.write(`bench: ${what}: ${host}: ${JSON.stringify(result).slice(0, 200)}\n`);
      } catch (thrown) {
        process.stderr.write(`bench: ${what}: ${host}: ${String(thrown)}\n`);
        finished.add(host);
      }
      if (performance.now() - start > LONG * 1000) finished.add(host);
    }
  }
  return results;
}

/** The median of what rounds say, with a mark where one of them did not come to its end. */
function middle<One>(rounds: readonly One[], of: (one: One) => number, phase?: (one: One) => Phase): string {
  const value = median(rounds.map(of));
  const cut = phase !== undefined && rounds.some((one) => !phase(one).finished);
  return `${cut ? "> " : ""}${value < 10 ? value.toFixed(2) : value.toFixed(0)}`;
}

const ratio = (own: number, other: number): string => (other === 0 ? "" : (own / other).toFixed(2));

/** Whether ours is less than that of each of them, with those that were not measured left out. */
function bar<One>(
  what: string,
  results: ReadonlyMap<Candidate, readonly One[]>,
  of: (one: One) => number,
  factors: Partial<Record<Candidate, number>>,
  unit: string,
): Bar[] {
  const middleOf = (host: Candidate): number | undefined => {
    const rounds = results.get(host);
    return rounds === undefined ? undefined : median(rounds.map(of));
  };
  const own = middleOf("caracal");
  if (own === undefined) return [];
  const others = Object.entries(factors).flatMap(([host, factor]) => {
    const value = middleOf(host as Candidate);
    return value === undefined ? [] : [{ host, factor, value }];
  });
  if (others.length === 0) return [];
  const words = others.map(
    ({ host, factor, value }) => `${factor === 1 ? "" : `${factor} × `}${host} ${value.toFixed(2)}`,
  );
  return [
    {
      what,
      bar: `less than ${words.join(", ")} ${unit}`,
      measured: `${own.toFixed(2)} ${unit}`,
      met: others.every(({ factor, value }) => own <= factor * value),
    },
  ];
}

/** The size that the bars are about. */
const MILLION = 1_000_000;
const ALL_FOUR = { bird: 1, frr: 1, openbgpd: 1, gobgp: 1 } as const;

async function benchTable(profile: Profile, count: number, skip: Set<Candidate>): Promise<Result> {
  const what = `${count.toLocaleString("en")} prefixes in and out again: ${profile.name}`;
  const results = await inTurns(what, (host) =>
    skip.has(host) ? Promise.reject(new Error("not tried: fewer took too long")) : measureTable(host, profile, count),
  );
  const total = ({ in: first, out }: { in: Phase; out: Phase }): number => first.cpu + out.cpu;
  const ours = results.get("caracal");
  const own = ours === undefined ? 0 : median(ours.map(total));
  const rows: Row[] = [...results].map(([host, rounds]) => {
    if (rounds.some((round) => !round.in.finished || !round.out.finished)) skip.add(host);
    return {
      daemon: host,
      rounds: String(rounds.length),
      "in: wall s": middle(
        rounds,
        (round) => round.in.wall,
        (round) => round.in,
      ),
      "in: CPU s": middle(
        rounds,
        (round) => round.in.cpu,
        (round) => round.in,
      ),
      "out: wall s": middle(
        rounds,
        ({ out }) => out.wall,
        ({ out }) => out,
      ),
      "out: CPU s": middle(
        rounds,
        ({ out }) => out.cpu,
        ({ out }) => out,
      ),
      "CPU s in all": middle(rounds, total, ({ in: first, out }) => (first.finished ? out : first)),
      "MB before": middle(rounds, ({ before }) => before),
      "MB at most": middle(rounds, ({ peak }) => peak),
      "MB at rest": middle(rounds, ({ rest }) => rest),
      "Caracal's CPU against it": ratio(own, median(rounds.map(total))),
    };
  });
  if (count < MILLION || ours === undefined) return { table: { title: what, rows }, bars: [] };
  const most = median(ours.map(({ peak }) => peak));
  const bars = [
    ...bar(`${what}: CPU`, results, total, { bird: 1.5, frr: 1, openbgpd: 1, gobgp: 1 }, "s"),
    { what: `${what}: memory`, bar: "450 MB at most", measured: `${most.toFixed(0)} MB`, met: most <= 450 },
  ];
  return { table: { title: what, rows }, bars };
}

async function benchReflector(clients: number, routes: number): Promise<Result> {
  const what = `reflector, ${clients} clients × ${routes} routes, warm`;
  const rounds = options.rounds === undefined ? Math.max(ROUNDS, SHORT_ROUNDS) : ROUNDS;
  const results = await inTurns(what, (host) => measureReflector(host, clients, routes), rounds);
  const rows = phaseRows(results, ({ rest }) => ({ "MB at rest": rest.toFixed(0) }));
  const isBar = clients === 200 && routes === 200;
  const bars = isBar
    ? [
        ...bar(`${what}: CPU`, results, ({ cpu }) => cpu, ALL_FOUR, "s"),
        ...bar(`${what}: convergence`, results, ({ wall }) => wall, ALL_FOUR, "s"),
      ]
    : [];
  return { table: { title: what, rows }, bars };
}

async function benchAtOnce(clients: number, routes: number): Promise<Result> {
  const what = `reflector, ${clients} clients connect at once, ${routes} routes each`;
  const results = await inTurns(what, (host) => measureAtOnce(host, clients, routes));
  const bars = bar(`${what}: convergence`, results, ({ wall }) => wall, ALL_FOUR, "s");
  return { table: { title: what, rows: phaseRows(results, () => ({})) }, bars };
}

function phaseRows<One extends Phase>(results: ReadonlyMap<Candidate, readonly One[]>, more: (one: One) => Row): Row[] {
  const own = results.get("caracal");
  const ownCpu = own === undefined ? 0 : median(own.map(({ cpu }) => cpu));
  return [...results].map(([host, rounds]) => ({
    daemon: host,
    rounds: String(rounds.length),
    "wall s": middle(
      rounds,
      ({ wall }) => wall,
      (one) => one,
    ),
    "CPU s": middle(
      rounds,
      ({ cpu }) => cpu,
      (one) => one,
    ),
    ...more(rounds[0]!),
    "Caracal's CPU against it": ratio(ownCpu, median(rounds.map(({ cpu }) => cpu))),
  }));
}

async function benchLatency(): Promise<Result> {
  const what = "one route through";
  const count = options.quick ? 300 : 3000;
  const results = await inTurns(what, async (host) => ({
    atOnce: await measureLatency(host, count, 0),
    spaced: await measureLatency(host, count / 6, 10),
  }));
  const rows = [...results].map(([host, rounds]) => ({
    daemon: host,
    "p50 ms": middle(rounds, ({ atOnce }) => quantile(atOnce, 0.5)),
    "p90 ms": middle(rounds, ({ atOnce }) => quantile(atOnce, 0.9)),
    "10 ms apart: p50 ms": middle(rounds, ({ spaced }) => quantile(spaced, 0.5)),
    "p90 ms ": middle(rounds, ({ spaced }) => quantile(spaced, 0.9)),
  }));
  const own = results.get("caracal");
  const ms = own === undefined ? undefined : median(own.map(({ atOnce }) => quantile(atOnce, 0.5)));
  const bars =
    ms === undefined ? [] : [{ what: `${what}, median`, bar: "1 ms", measured: `${ms.toFixed(2)} ms`, met: ms <= 1 }];
  const how =
    "Announced or withdrawn by one neighbour, heard by another: as soon as the last has arrived, and 10 ms apart.";
  return { table: { title: what, how, rows }, bars };
}

async function benchIdle(): Promise<Result> {
  const what = `a mesh of ${IDLE.peers} peers, idle`;
  const results = await inTurns(
    what,
    async (host) => {
      const none = await measureIdle(host, 0, 1);
      const mesh = await measureIdle(host, IDLE.peers, IDLE.seconds);
      return { share: mesh.share, rest: mesh.rest, more: mesh.rest - none.rest };
    },
    1,
  );
  const rows = [...results].map(([host, rounds]) => ({
    daemon: host,
    "% of a core": middle(rounds, ({ share }) => share),
    "MB resident": middle(rounds, ({ rest }) => rest),
    "MB more than with none": middle(rounds, ({ more }) => more),
  }));
  const bars = (results.get("caracal") ?? []).flatMap(({ share, more }): Bar[] => [
    { what: `${what}: CPU`, bar: "1 % of a core", measured: `${share.toFixed(2)} %`, met: share <= 1 },
    { what: `${what}: memory`, bar: "60 MB more than with none", measured: `${more.toFixed(0)} MB`, met: more <= 60 },
  ]);
  const how = `Hold time 90 s, so that every peer says and hears a keepalive each 30 s; over ${IDLE.seconds} s.`;
  return { table: { title: what, how, rows }, bars };
}

const PARTS: Readonly<Record<string, () => AsyncGenerator<Result>>> = {
  async *table() {
    for (const profile of CHOSEN) {
      const skip = new Set<Candidate>();
      for (const count of SIZES) yield await benchTable(profile, count, skip);
    }
  },
  async *reflector() {
    yield await benchReflector(200, 200);
    if (!options.quick) yield await benchReflector(50, 200);
  },
  async *"at-once"() {
    yield await benchAtOnce(200, 20);
  },
  async *latency() {
    yield await benchLatency();
  },
  async *idle() {
    yield await benchIdle();
  },
};

const HOW = [
  "Two neighbours or more in one process, the same for all daemons, on one bridge with the daemon, which is in a network",
  "namespace of its own and alone on the machine. CPU is user and system time of all processes of the daemon from",
  "/proc/PID/stat, memory VmHWM (at most) and VmRSS. Nobody writes routes into the kernel. Medians of the rounds, in which",
  "the daemons take turns; a round longer than half a minute is its only one, and `>` marks what was cut off after a minute.",
].join("\n");

function circumstances(began: Date, loadBefore: number): string {
  const model = cpus()[0]?.model ?? "unknown processor";
  return [
    `One run of \`npm run bench:bgp\` on ${began.toISOString().slice(0, 10)}: Linux ${release()}, ${availableParallelism()} cores (${model});`,
    `load average ${loadBefore.toFixed(1)} before and ${loadavg()[0]?.toFixed(1)} after.`,
    `${DAEMONS.map(versionOf).join(", ")}.`,
    "",
    HOW,
  ].join("\n");
}

const formatBars = (bars: readonly Bar[]): string =>
  formatTable({
    title: "The bars",
    rows: bars.map(({ what, bar: least, measured, met }) => ({ what, bar: least, measured, met: met ? "yes" : "no" })),
  });

const unknown = [
  ...positionals.filter((name) => !Object.hasOwn(PARTS, name)),
  ...DAEMONS.filter((name) => !CANDIDATES.includes(name)),
];
if (unknown.length > 0) {
  process.stderr.write(
    `bench: unknown: ${unknown.join()}; parts are ${Object.keys(PARTS).join()}, daemons ${CANDIDATES.join()}\n`,
  );
  process.exit(2);
}
// Their daemons and namespaces go with the process, by its "exit".
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

const began = new Date();
const loadBefore = loadavg()[0] ?? 0;
const tables: BenchTable[] = [];
const bars: Bar[] = [];
for (const part of positionals.length === 0 ? Object.keys(PARTS) : positionals) {
  for await (const result of PARTS[part]!()) {
    console.log(formatTable(result.table));
    tables.push(result.table);
    bars.push(...result.bars);
  }
}
if (bars.length > 0) console.log(formatBars(bars));
const whole = positionals.length === 0 && !options.quick && DAEMONS.length === CANDIDATES.length;
if (whole) {
  const parts = [
    "# BGP beside others",
    "",
    circumstances(began, loadBefore),
    "",
    formatBars(bars),
    ...tables.map(formatTable),
  ];
  writeFileSync(RESULTS, parts.join("\n"));
}
process.exit(0);
