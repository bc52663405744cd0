import { deleteNamespace } from "../src/netlink/namespace.io.ts";
import { openCaller, type Caller } from "./caller.ts";
import { CALICO, hostLocal } from "./cni.ts";
import { caracal, withLab } from "./lab.ts";
import { cniEnvironment, createPod, newContainer, startNode, type BenchNode, type Container } from "./node.ts";
import { formatTable, median, type BenchResult } from "./table.ts";

export const PODS = 100;
const ROUNDS = 3;

/** How quickly one node starts pods, one after another, and a cluster all at once. */
export async function benchPods(): Promise<BenchResult> {
  const { first, ours, ptp } = await oneAfterAnother();
  const atOnce = await withLab("pods", (lab) => applyAll(lab));
  const row = (what: string, milliseconds: number): Record<string, string> => ({
    what,
    seconds: (milliseconds / 1000).toFixed(2),
    "pods per second": (PODS / (milliseconds / 1000)).toFixed(0),
    "against ptp": (milliseconds / median(ptp)).toFixed(2),
  });
  const how =
    `${PODS} pods, each started when the one before it has its address: a network namespace is made, then the plugin is ` +
    `called as a runtime does. Medians of ${ROUNDS} rounds in turns.`;
  const seconds = first / 1000;
  const inLab = {
    what: "applied at once",
    seconds: (atOnce / 1000).toFixed(2),
    "pods per second": (PODS / (atOnce / 1000)).toFixed(0),
  };
  return {
    tables: [
      {
        title: `${PODS} pods on one node, one after another`,
        how,
        rows: [
          row("Caracal, the first on this node: address blocks are claimed", first),
          row("Caracal, after that", median(ours)),
          row("ptp + host-local", median(ptp)),
        ],
      },
      {
        title: `${PODS} pods at once on the three nodes of a lab`,
        how: "From the start of `caracal apply --wait` to its exit: every pod is Running, and every node has a route to it.",
        rows: [inLab],
      },
    ],
    bars: [
      {
        what: `${PODS} pods started on one node, one after another`,
        bar: "2 s",
        measured: `${seconds.toFixed(2)} s`,
        met: seconds <= 2,
      },
    ],
  };
}

async function oneAfterAnother(): Promise<{ first: number; ours: number[]; ptp: number[] }> {
  const node = await startNode("pods");
  const callers = [openCaller(node.netns), openCaller(node.plainNetns)] as const;
  try {
    const pods: { name: string; uid: string }[] = [];
    for (let at = 0; at < PODS; at += 1) pods.push(await createPod(node.datastore, `pod-${at}`));
    const calico = (): Promise<number> =>
      startAll(node, callers[0], `${node.pluginDirectory}/calico`, CALICO, (at, netns) =>
        newContainer(netns, pods[at]),
      );
    const config = { name: "ptp", type: "ptp", ipam: hostLocal(node, "10.20.0.0/16") };
    const ptp = (): Promise<number> =>
      startAll(node, callers[1], "/usr/lib/cni/ptp", config, (_, netns) => newContainer(netns));
    const first = await calico();
    const times = { first, ours: [] as number[], ptp: [] as number[] };
    for (let round = 0; round < ROUNDS; round += 1) {
      times.ptp.push(await ptp());
      times.ours.push(await calico());
    }
    return times;
  } finally {
    for (const caller of callers) caller.close();
    await node.close();
  }
}

/** Starts the pods, and takes them away again. Returns how long the start of all took, in milliseconds. */
async function startAll(
  node: BenchNode,
  caller: Caller,
  file: string,
  config: Readonly<Record<string, unknown>>,
  containerOf: (at: number, netns: string) => Container,
): Promise<number> {
  const input = JSON.stringify({ cniVersion: "1.0.0", ...config });
  const call = async (command: string, container: Container): Promise<void> => {
    const { exit, output } = await caller.call(file, cniEnvironment(node, command, container), input);
    if (exit !== 0) throw new Error(`${command} by ${file} failed: ${output}`);
  };
  const containers: Container[] = [];
  const began = performance.now();
  for (let at = 0; at < PODS; at += 1) {
    const container = containerOf(at, node.podNetns(`pod-${at}`));
    containers.push(container);
    await call("ADD", container);
  }
  const took = performance.now() - began;
  for (const container of containers) {
    await call("DEL", container);
    deleteNamespace(container.netns);
  }
  return took;
}

/** Applies the pods and returns how long it took until all of them run. `node` binds them to one. */
export function applyAll(lab: string, node?: string): Promise<number> {
  const items = Array.from({ length: PODS }, (_, at) => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: `pod-${at}` },
    spec: { ...(node === undefined ? {} : { nodeName: node }), containers: [{ name: "main", image: "none" }] },
  }));
  const list = { apiVersion: "v1", kind: "List", items };
  return caracal(["apply", "-f", "-", "--wait", "--lab", lab], JSON.stringify(list));
}

if (import.meta.main) for (const table of (await benchPods()).tables) console.log(formatTable(table));
