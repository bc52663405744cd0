import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import { inNamespace } from "../src/netlink/namespace.io.ts";
import { HOST_MAC } from "../src/dataplane/endpoint.ts";
import { hostInterfaceName } from "../src/resources/names.ts";
import { openNamespaces, startWorker, type Namespaces } from "./policy-processes.ts";
import { localClientPod, SERVER_PORTS } from "./policy-scenes.ts";
import { type BenchResult, median, quantile } from "./table.ts";

/**
 * What policy costs the packets of two pods of one node. Each number of policies has a node of its own, with its rules in
 * the kernel and no agent running; one more has no table at all, and one nothing but the kernel's connection tracking, which
 * all policy stands on. They are measured in many short rounds, shuffled, so that all meet the same noise, and compared
 * within each round.
 */
const PODS = 500;
const POLICIES = [1, 100, 1000, 10_000];
type Rules = "no table" | "connection tracking" | number;
const RULES: readonly Rules[] = ["no table", "connection tracking", ...POLICIES];
/** Nothing leads to it: that a rule asks for connections is enough for the kernel to track them. */
const TRACKING = "table ip bench {\n chain none {\n ct state established accept\n }\n}\n";
const ROUNDS = 100;
const PINGS = 1000;
const CONNECTS = 200;
/** Throughput is measured in each so-manieth round, for so many milliseconds. */
const STREAM_EVERY = 5;
const STREAM_MS = 120;
const POD_MAC = "02:00:00:00:00:01";

interface Path {
  readonly name: string;
  readonly client: string;
  readonly server: string;
  readonly took: { readonly ping: number[]; readonly connect: number[]; readonly stream: number[] };
}

const ROOT = new URL("..", import.meta.url).pathname;
const PROGRAM = `${ROOT}build/bench-stream`;

export async function benchPath(): Promise<BenchResult> {
  mkdirSync(`${ROOT}build`, { recursive: true });
  execFileSync("gcc", ["-O2", "-Wall", "-pthread", "-o", PROGRAM, `${ROOT}bench/stream.c`]);
  const namespaces = openNamespaces("path");
  const servers: ChildProcess[] = [];
  try {
    const paths: Path[] = [];
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    for (const rules of RULES) paths.push(await buildPath(namespaces, servers, rules));
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const path of shuffled(paths)) {
        path.took.ping.push(client(path, "ping", [String(PINGS)]));
        path.took.connect.push(client(path, "connect", [String(CONNECTS)]));
        if (round % STREAM_EVERY === 0) path.took.stream.push(client(path, "send", ["1", String(STREAM_MS)]));
      }
    }
    return result(paths);
  } finally {
    for (const server of servers) server.kill("SIGKILL");
    namespaces.close();
  }
}

/** @param rules what the node has, or the number of its policies */
async function buildPath(namespaces: Namespaces, servers: ChildProcess[], rules: Rules): Promise<Path> {
  const id = `${RULES.indexOf(rules)}`;
  const node = namespaces.make(`${id}-node`);
  const pods = [0, 1].map((at) => {
    const pod = localClientPod(at);
    const ip = pod.status?.podIPs?.[0]?.ip ?? "";
    const host = hostInterfaceName(pod.metadata.namespace ?? "", pod.metadata.name, "cali");
    return { ip, host, netns: namespaces.make(`${id}-pod${at}`) };
  });
  for (const { ip, host, netns } of pods) {
    const name = netns.slice(netns.lastIndexOf("/") + 1);
    // Neighbours are known: nothing of the node answers for its pods' gateway without a route that leads out.
    ip4(node, [
      `link add ${host} address ${HOST_MAC} type veth peer name eth0 address ${POD_MAC} netns ${name}`,
      `link set ${host} up`,
      `route add ${ip} dev ${host}`,
      `neigh add ${ip} lladdr ${POD_MAC} dev ${host}`,
    ]);
    ip4(netns, [
      "link set eth0 up",
      `addr add ${ip}/32 dev eth0`,
      "route add 169.254.1.1 dev eth0 scope link",
      "route add default via 169.254.1.1",
      `neigh add 169.254.1.1 lladdr ${HOST_MAC} dev eth0`,
    ]);
  }
  inNamespace(node, () => execFileSync("sysctl", ["-q", "-w", "net.ipv4.ip_forward=1"]));
  if (rules === "connection tracking") run(node, ["nft", "-f", "-"], TRACKING);
  if (typeof rules === "number") {
    const worker = await startWorker(node, "nft", { of: "servers", pods: PODS, policies: rules });
    await worker.close();
  }
  // The first pod has the most policies; the second asks it.
  const [server, other] = pods;
  if (server === undefined || other === undefined) throw new Error("there are two pods");
  servers.push(await serve(server.netns));
  const name =
    typeof rules === "number" ? `${rules.toLocaleString("en")} ${rules === 1 ? "policy" : "policies"}` : rules;
  return { name, client: other.netns, server: server.ip, took: { ping: [], connect: [], stream: [] } };
}

function ip4(netns: string, commands: readonly string[]): void {
  run(netns, ["ip", "-batch", "-"], `${commands.join("\n")}\n`);
}

function run(netns: string, [program = "", ...args]: readonly string[], input: string): void {
  inNamespace(netns, () => execFileSync(program, args, { input }));
}

async function serve(netns: string): Promise<ChildProcess> {
  const child = inNamespace(netns, () =>
    spawn(PROGRAM, ["serve", String(SERVER_PORTS[0])], { stdio: ["ignore", "pipe", "inherit"] }),
  );
  await once(child.stdout!, "data");
  return child;
}

/** The first number that the program prints. */
function client({ client: netns, server }: Path, what: string, args: readonly string[]): number {
  const command = [what, server, String(SERVER_PORTS[0]), ...args];
  const text = inNamespace(netns, () => execFileSync(PROGRAM, command, { encoding: "utf8" }));
  return Number(text.split(" ")[0]);
}

function shuffled<Item>(items: readonly Item[]): Item[] {
  return items
    .map((item) => ({ item, key: Math.random() }))
    .toSorted((a, b) => a.key - b.key)
    .map(({ item }) => item);
}

/** The median of the ratios within each round, and between which values half of them lie. */
function ratio(of: readonly number[], to: readonly number[]): { median: number; text: string } {
  const ratios = of.map((value, at) => value / to[at]!);
  const percent = (share: number): string => `${((quantile(ratios, share) - 1) * 100).toFixed(1)}`;
  return { median: median(ratios), text: `${percent(0.5)} % (${percent(0.25)} to ${percent(0.75)})` };
}

function result(paths: readonly Path[]): BenchResult {
  const [plain, tracking, one] = paths;
  const most = paths.at(-1);
  if (plain === undefined || tracking === undefined || one === undefined || most === undefined) {
    throw new Error("nothing was measured");
  }
  const toOne = ratio(most.took.ping, one.took.ping);
  const toNone = ratio(most.took.ping, plain.took.ping);
  return {
    tables: [
      {
        title: `Packets between two of ${PODS} pods of a node`,
        how:
          `${ROUNDS} shuffled rounds of ${PINGS} round trips of one byte over TCP, and of ${CONNECTS} connections; ` +
          "each figure is the median of the rounds' medians, each ratio that of the ratios within the rounds (with " +
          "their quartiles). Policies are spread evenly over the pods; the one that lets the connection in is the last " +
          "of the server's. No table: no rules, and no connection tracking; connection tracking: that alone.",
        rows: paths.map(({ name, took }) => ({
          rules: name,
          "round trip, µs": median(took.ping).toFixed(1),
          "against no table": ratio(took.ping, plain.took.ping).text,
          "against connection tracking": ratio(took.ping, tracking.took.ping).text,
          "against one policy": ratio(took.ping, one.took.ping).text,
          "connect, µs": median(took.connect).toFixed(1),
          "Gbit/s": (median(took.stream) / 1e9).toFixed(1),
          "throughput against no table": ratio(took.stream, plain.took.stream).text,
        })),
      },
    ],
    bars: [
      {
        what: "(c) round trip with 10,000 policies, against one policy",
        bar: "within 10 %",
        measured: toOne.text,
        met: toOne.median <= 1.1,
      },
      {
        what: "(c) round trip with 10,000 policies, against no table",
        bar: "aim: within 5 %",
        measured: toNone.text,
        met: toNone.median <= 1.05,
      },
    ],
  };
}
