import { execFileSync } from "node:child_process";
import { parsePrefix } from "../src/ip/prefix.ts";
import { createNamespace, deleteNamespace } from "../src/netlink/namespace.io.ts";
import { openRtnetlink, type RouteChange, type Rtnetlink } from "../src/netlink/rtnetlink.io.ts";
import { formatTable, median, type BenchTable } from "./table.ts";

const ROUTES = 5000;
const PAIRS = 16;
const ROUNDS = 7;

interface Candidate {
  readonly name: string;
  /** Does the work once and returns how long it took, in milliseconds. */
  readonly run: () => number | Promise<number>;
}

/** Routes written per second: ours one by one and in batches, and `ip -batch`, in a namespace of their own. */
export async function benchRoutes(): Promise<BenchTable> {
  const name = `caracal-bench-${process.pid}`;
  const path = `/run/netns/${name}`;
  createNamespace(path, { loopback: true });
  const rtnetlink = openRtnetlink(path);
  try {
    const changes = Array.from({ length: ROUTES }, (_, at): RouteChange => {
      const destination = parsePrefix(`10.${at >> 8}.${at & 255}.0/24`);
      return { kind: "add", route: { destination, nextHops: [{ device: 1 }], protocol: 80 } };
    });
    const lines = changes.map((_, at) => `route add 10.${at >> 8}.${at & 255}.0/24 dev lo proto 80\n`).join("");
    const empty = (): void => {
      check(rtnetlink.applyRoutes(changes.map(({ route }) => ({ kind: "remove", route }))));
      if (rtnetlink.routes({ protocol: 80 }).length > 0) throw new Error("routes of the last round are left");
    };
    const writing = (write: () => void): Candidate["run"] => {
      return () => {
        const took = time(write);
        const written = rtnetlink.routes({ protocol: 80 }).length;
        if (written !== ROUTES) throw new Error(`${written} of ${ROUTES} routes were written`);
        empty();
        return took;
      };
    };
    const medians = await interleave([
      { name: "`ip -batch -`, one process", run: writing(() => ip(name, lines)) },
      {
        name: "netlink, each acknowledged",
        run: writing(() => {
          for (const { route } of changes) rtnetlink.addRoute(route);
        }),
      },
      { name: "netlink, in batches", run: writing(() => check(rtnetlink.applyRoutes(changes))) },
    ]);
    const [reference = 1] = medians.values();
    const rows = [...medians].map(([how, took]) => ({
      how,
      "routes per second": Math.round((ROUTES / took) * 1000).toLocaleString("en"),
      "µs per route": ((took / ROUTES) * 1000).toFixed(1),
      "speed against `ip -batch`": `${(reference / took).toFixed(2)}×`,
    }));
    return { title: `Routes written (${ROUTES} each, median of ${ROUNDS} interleaved rounds)`, rows };
  } finally {
    rtnetlink.close();
    deleteNamespace(path);
  }
}

/** What a pod's pair of interfaces costs to make, and to take away in each of the ways there are. */
export async function benchLinks(): Promise<BenchTable> {
  const path = `/run/netns/caracal-bench-${process.pid}`;
  const pods = Array.from({ length: PAIRS }, (_, at) => `${path}-${at}`);
  const rtnetlink = ((): Rtnetlink => {
    for (const one of [path, ...pods]) createNamespace(one);
    return openRtnetlink(path);
  })();
  try {
    const make = (): number[] => pods.map((pod, at) => makePair(rtnetlink, pod, at));
    const removing = (remove: (indexes: number[]) => void | Promise<void>): Candidate["run"] => {
      return async () => {
        const indexes = make();
        const started = performance.now();
        await remove(indexes);
        const took = performance.now() - started;
        if (rtnetlink.links().length !== 1) throw new Error("links are left");
        return took;
      };
    };
    const medians = await interleave([
      {
        name: "make: peer born in the pod's namespace",
        run: async () => {
          const started = performance.now();
          const indexes = make();
          const took = performance.now() - started;
          await Promise.all(indexes.map((index) => rtnetlink.deleteLinkInBackground(index)));
          return took;
        },
      },
      {
        name: "take down (no packet passes any more)",
        run: async () => {
          const indexes = make();
          const took = time(() => {
            for (const index of indexes) rtnetlink.setLink(index, { up: false });
          });
          await Promise.all(indexes.map((index) => rtnetlink.deleteLinkInBackground(index)));
          return took;
        },
      },
      {
        name: "delete, one after another",
        run: removing((indexes) => {
          for (const index of indexes) rtnetlink.deleteLink(index);
        }),
      },
      {
        name: "delete in the background, all asked for at once",
        run: removing(async (indexes) => {
          await Promise.all(indexes.map((index) => rtnetlink.deleteLinkInBackground(index)));
        }),
      },
    ]);
    const rows = [...medians].map(([what, took]) => ({ what, "ms per pair": (took / PAIRS).toFixed(2) }));
    return { title: `veth pairs (${PAIRS} each, median of ${ROUNDS} interleaved rounds)`, rows };
  } finally {
    rtnetlink.close();
    for (const one of [path, ...pods]) deleteNamespace(one);
  }
}

function makePair(rtnetlink: Rtnetlink, pod: string, at: number): number {
  const peer = { name: "eth0", mtu: 1450, namespace: pod };
  return rtnetlink.addLink({ kind: "veth", name: `cali${at}`, address: "ee:ee:ee:ee:ee:ee", mtu: 1450, up: true, peer })
    .index;
}

/** Each candidate once per round, in another order each time; the median of what each took. */
async function interleave(candidates: readonly Candidate[]): Promise<Map<string, number>> {
  const took = new Map(candidates.map(({ name }): [string, number[]] => [name, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (let turn = 0; turn < candidates.length; turn += 1) {
      const { name, run } = candidates[(turn + round) % candidates.length]!;
      took.get(name)?.push(await run());
    }
  }
  return new Map([...took].map(([name, times]) => [name, median(times)]));
}

function time(work: () => void): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}

function ip(namespace: string, lines: string): void {
  execFileSync("ip", ["-n", namespace, "-batch", "-"], { input: lines });
}

function check(results: readonly (Error | undefined)[]): void {
  const failed = results.find((result) => result !== undefined);
  if (failed !== undefined) throw failed;
}

if (import.meta.main) {
  for (const bench of [benchRoutes, benchLinks]) console.log(formatTable(await bench()));
}
