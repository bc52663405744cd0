import { setTimeout as sleep } from "node:timers/promises";
import { openCaller, type Call, type Caller } from "./caller.ts";
import { cniEnvironment, cpuOf, createPod, newContainer, startNode, type BenchNode, type Container } from "./node.ts";
import { formatTable, median, quantile, type Bar, type BenchResult } from "./table.ts";

const PODS = 60;
/** After each call, so that what a plugin leaves the kernel or its agent to do is not in the next one's way. */
const PAUSE_MS = 25;

interface Plugin {
  readonly name: string;
  readonly caller: Caller;
  readonly file: string;
  readonly config: Readonly<Record<string, unknown>>;
  /** Whether the containers are Kubernetes pods, whose objects are in the API server. */
  readonly kubernetes: boolean;
  /** Processes whose processor time counts as well. */
  readonly servants: readonly number[];
}

interface Measured {
  readonly plugin: Plugin;
  readonly containers: Attached[];
  /** ADDs that claimed an address block first, which one pod in 64 has to. */
  readonly claiming: Timing[];
  readonly adds: Timing[];
  readonly dels: Timing[];
}

interface Attached {
  readonly container: Container;
  readonly result: unknown;
}

interface Timing {
  readonly milliseconds: number;
  readonly cpu: number;
}

/** Calico's own configuration, less what a benchmark has no use for. */
export const CALICO = {
  name: "k8s-pod-network",
  type: "calico",
  ipam: { type: "calico-ipam" },
  policy: { type: "k8s" },
} as const;

/** What a node's host-local gives addresses from. */
export function hostLocal(node: BenchNode, subnet: string): object {
  return { type: "host-local", dataDir: `${node.directory}/host-local`, subnet, routes: [{ dst: "0.0.0.0/0" }] };
}

/** What a runtime waits for at ADD and DEL, against Debian's plugins, in turns. */
export async function benchCni(): Promise<BenchResult> {
  const node = await startNode("cni");
  const callers = [openCaller(node.netns), openCaller(node.plainNetns)] as const;
  try {
    const all = pluginsOf(node, ...callers).map((plugin): Measured => ({
      plugin,
      containers: [],
      claiming: [],
      adds: [],
      dels: [],
    }));
    await addAll(node, all);
    await deleteAll(node, all);
    const parts = await measureParts(node, callers[0]);
    return report(all, parts);
  } finally {
    for (const caller of callers) caller.close();
    await node.close();
  }
}

function pluginsOf(node: BenchNode, ours: Caller, plain: Caller): Plugin[] {
  const calico = {
    caller: ours,
    file: `${node.pluginDirectory}/calico`,
    config: CALICO,
    servants: [node.agent, node.apiServer],
  };
  const debian = { caller: plain, kubernetes: false, servants: [] };
  return [
    { ...calico, name: "Caracal, Kubernetes pod", kubernetes: true },
    { ...calico, name: "Caracal, bare container", kubernetes: false },
    {
      ...debian,
      name: "ptp + host-local",
      file: "/usr/lib/cni/ptp",
      config: { name: "ptp", type: "ptp", ipam: hostLocal(node, "10.20.0.0/16") },
    },
    {
      ...debian,
      name: "bridge + host-local",
      file: "/usr/lib/cni/bridge",
      config: {
        name: "bridge",
        type: "bridge",
        bridge: "cni0",
        isGateway: true,
        ipam: hostLocal(node, "10.30.0.0/16"),
      },
    },
  ];
}

/** Each plugin once per round, in another order each time. */
async function inTurns<Item>(
  items: readonly Item[],
  work: (item: Item, round: number) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < PODS; round += 1) {
    for (let turn = 0; turn < items.length; turn += 1) await work(items[(turn + round) % items.length]!, round);
  }
}

async function addAll(node: BenchNode, all: readonly Measured[]): Promise<void> {
  const blocks = new Set<string>();
  const pods = new Map<string, { name: string; uid: string }>();
  for (let at = 0; at < PODS; at += 1) pods.set(`pod-${at}`, await createPod(node.datastore, `pod-${at}`));
  await inTurns(all, async ({ plugin, containers, adds, claiming }, round) => {
    const name = `pod-${round}`;
    const netns = node.podNetns(`${all.findIndex((each) => each.plugin === plugin)}-${name}`);
    const container = newContainer(netns, plugin.kubernetes ? pods.get(name) : undefined);
    const { output, timing } = await timed(node, plugin, "ADD", container);
    const result = JSON.parse(output) as { ips?: { address: string }[] };
    const address = result.ips?.[0]?.address;
    if (address === undefined) throw new Error(`${plugin.name} gave no address: ${output}`);
    containers.push({ container, result });
    const block = blockOf(address);
    const claims = plugin.servants.length > 0 && !blocks.has(block);
    blocks.add(block);
    (claims ? claiming : adds).push(timing);
  });
}

/** The /26 of an address: Caracal's block. */
function blockOf(address: string): string {
  const [a, b, c, d] = address.split(/[./]/);
  return `${a}.${b}.${c}.${Number(d) & 0xc0}`;
}

async function deleteAll(node: BenchNode, all: readonly Measured[]): Promise<void> {
  await inTurns(all, async ({ plugin, containers, dels }, round) => {
    const { container, result } = containers[round]!;
    const { timing } = await timed(node, plugin, "DEL", container, result);
    dels.push(timing);
  });
}

async function timed(
  node: BenchNode,
  { name, caller, file, config, servants }: Plugin,
  command: string,
  container: Container,
  prevResult?: unknown,
): Promise<{ output: string; timing: Timing }> {
  const input = JSON.stringify({ cniVersion: "1.0.0", ...config, ...(prevResult === undefined ? {} : { prevResult }) });
  const cpu = (): number => servants.reduce((sum, pid) => sum + cpuOf(pid), 0);
  const before = cpu();
  const call = await caller.call(file, cniEnvironment(node, command, container), input);
  if (call.exit !== 0) throw new Error(`${command} by ${name} failed: ${call.output}`);
  await sleep(PAUSE_MS);
  const { milliseconds, cpuMilliseconds } = call;
  return { output: call.output, timing: { milliseconds, cpu: cpuMilliseconds + cpu() - before } };
}

/** What an ADD is made of, as far as it can be seen from outside. */
async function measureParts(node: BenchNode, caller: Caller): Promise<Record<string, string>[]> {
  const container = newContainer("");
  const input = JSON.stringify({ cniVersion: "1.0.0", name: "k8s-pod-network", type: "calico" });
  const environment = cniEnvironment(node, "VERSION", container);
  const own = { ...environment, CARACAL_RUN_DIR: "/nonexistent" };
  const calls: Record<string, () => Promise<number>> = {
    "start of the executable, with no agent to ask": async () =>
      milliseconds(await caller.call(`${node.pluginDirectory}/calico`, own, input)),
    "VERSION: start, question to the agent, answer": async () =>
      milliseconds(await caller.call(`${node.pluginDirectory}/calico`, environment, input)),
    "one write to the API server, from another process": async () => {
      const began = performance.now();
      await node.datastore.patch("Pod", "pod-0", "default", { metadata: { annotations: { bench: String(began) } } });
      return performance.now() - began;
    },
    "start of ptp, asked for its VERSION": async () =>
      milliseconds(await caller.call("/usr/lib/cni/ptp", environment, input)),
  };
  const took = new Map(Object.keys(calls).map((what): [string, number[]] => [what, []]));
  await inTurns(Object.entries(calls), async ([what, call]) => {
    took.get(what)?.push(await call());
    await sleep(5);
  });
  return [...took].map(([part, values]) => ({ part, "median ms": median(values).toFixed(2) }));
}

const milliseconds = (call: Call): number => call.milliseconds;

function report(all: readonly Measured[], parts: readonly Record<string, string>[]): BenchResult {
  const reference = all.find(({ plugin }) => plugin.name.startsWith("ptp"))!;
  const kubernetes = all.find(({ plugin }) => plugin.kubernetes)!;
  const ratio = (timings: readonly Timing[], to: readonly Timing[]): number => medianOf(timings) / medianOf(to);
  const row = (plugin: string, timings: readonly Timing[], to: readonly Timing[]): Record<string, string> => ({
    plugin,
    "median ms": medianOf(timings).toFixed(2),
    "p95 ms": quantile(wallOf(timings), 0.95).toFixed(2),
    "least ms": Math.min(...wallOf(timings)).toFixed(2),
    "CPU ms": median(timings.map(({ cpu }) => cpu)).toFixed(2),
    "median against ptp": ratio(timings, to).toFixed(2),
  });
  const claiming = all.flatMap(({ plugin, claiming: timings }) =>
    timings.length === 0
      ? []
      : [row(`${plugin.name}: a new address block first (${timings.length})`, timings, reference.adds)],
  );
  const how =
    `${PODS} containers each, in turns, from the start of the executable to its exit (posix_spawn from a small C program), ` +
    "cniVersion 1.0.0. CPU is the executable's, with its children's; for Caracal also the agent's and the API server's, " +
    "with what they do after the answer.";
  return {
    tables: [
      {
        title: "CNI ADD",
        how,
        rows: [...all.map(({ plugin, adds }) => row(plugin.name, adds, reference.adds)), ...claiming],
      },
      { title: "CNI DEL", rows: all.map(({ plugin, dels }) => row(plugin.name, dels, reference.dels)) },
      { title: "What a call is made of", rows: parts },
    ],
    bars: [
      bar("ADD median of a Kubernetes pod", ratio(kubernetes.adds, reference.adds)),
      bar("DEL median of a Kubernetes pod", ratio(kubernetes.dels, reference.dels)),
    ],
  };
}

function bar(what: string, ratio: number): Bar {
  const measured = `${ratio.toFixed(2)} of it`;
  return { what, bar: "half of `ptp` + `host-local` in the same run", measured, met: ratio <= 0.5 };
}

const wallOf = (timings: readonly Timing[]): number[] => timings.map(({ milliseconds: wall }) => wall);
const medianOf = (timings: readonly Timing[]): number => median(wallOf(timings));

if (import.meta.main) for (const table of (await benchCni()).tables) console.log(formatTable(table));
