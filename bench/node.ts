import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { askAgent } from "../src/cli/agentClient.io.ts";
import { kubernetesDatastore, type ApiDatastore } from "../src/datastore/client.io.ts";
import { parseDefinition } from "../src/lab/definition.ts";
import { labFiles, memberNamespace, nodeFiles, podNamespace } from "../src/lab/files.ts";
import { buildNetwork, ROUTER } from "../src/lab/network.io.ts";
import { preparePlugin } from "../src/lab/plugin.io.ts";
import { isAlive, SMALL_HEAP, startProcess } from "../src/lab/process.io.ts";
import { listLabs, writeLab } from "../src/lab/state.io.ts";
import { labDown } from "../src/lab/up.io.ts";
import { createNamespace } from "../src/netlink/namespace.io.ts";

/**
 * One node as in production: an agent and the API server that it writes to, and no kubelet, so that a benchmark can be
 * the runtime. Beside it a host with no agent, for other plugins: what ours does is not in their way. Both are members
 * of a lab that nothing keeps running; `caracal lab down` takes it away after a crash.
 */
export interface BenchNode {
  readonly netns: string;
  readonly plainNetns: string;
  readonly datastore: ApiDatastore;
  /** Folder for whatever a benchmark leaves: it goes with the node. */
  readonly directory: string;
  /** `CNI_PATH`'s first: Caracal's executable is `calico` in it. */
  readonly pluginDirectory: string;
  readonly runDirectory: string;
  readonly agent: number;
  readonly apiServer: number;
  /** Makes a pod's namespace, with its loopback up, and returns its path. */
  podNetns(name: string): string;
  close(): Promise<void>;
}

const ROOT = new URL("..", import.meta.url).pathname;
// As the launcher does for every process.
process.env["NODE_COMPILE_CACHE"] ??= `${ROOT}.cache/compile`;
export const PROGRAM = [process.execPath, "--disable-warning=ExperimentalWarning", `${ROOT}src/cli/main.ts`];
export const NODE = "node1";
const READY_MS = 60_000;

/** Names of labs end with the pid of the benchmark, so that several may run, and what a dead one has left is known. */
export const benchLabName = (part: string): string => `bench-${part}-${process.pid}`;

/** Takes down this process's labs, and those of benchmarks that have died. */
export async function clearLabs(): Promise<void> {
  for (const name of listLabs()) {
    const pid = Number(/^bench-[a-z]+-(\d+)$/.exec(name)?.[1]);
    if (pid === process.pid || (pid > 0 && !isAlive(pid))) await labDown(name, () => undefined);
  }
}

export async function startNode(part: string): Promise<BenchNode> {
  await clearLabs();
  try {
    return await build(benchLabName(part));
  } catch (error) {
    await clearLabs();
    throw error;
  }
}

async function build(lab: string): Promise<BenchNode> {
  const input = { kind: "Lab", segments: [{ subnet: "192.0.2.0/24", nodes: [NODE], hosts: ["plain"] }] };
  writeLab(lab, input);
  buildNetwork(lab, parseDefinition(input));
  const files = labFiles(lab);
  const { runDirectory, libDirectory, log } = nodeFiles(lab, NODE);
  for (const path of [runDirectory, libDirectory]) mkdirSync(path, { recursive: true, mode: 0o700 });
  symlinkSync(preparePlugin(ROOT, process.execPath), `${files.pluginDirectory}/calico`);
  const apiServer = startProcess({
    netns: memberNamespace(lab, ROUTER),
    command: [...PROGRAM, "apiserver", "--data", files.dataDirectory, "--socket", files.apiSocket],
    environment: {},
    log: `${files.logDirectory}/apiserver.log`,
    detached: false,
  });
  const agent = startProcess({
    netns: memberNamespace(lab, NODE),
    command: [...PROGRAM, "agent"].toSpliced(1, 0, ...SMALL_HEAP),
    environment: {
      NODENAME: NODE,
      CARACAL_RUN_DIR: runDirectory,
      CARACAL_LIB_DIR: libDirectory,
      CARACAL_API_SOCKET: files.apiSocket,
      IP_AUTODETECTION_METHOD: "interface=eth0",
      CALICO_IPV4POOL_CIDR: "10.244.0.0/16",
      CALICO_IPV4POOL_IPIP: "Never",
    },
    log,
    detached: false,
  });
  await waitReady(`${runDirectory}/agent.sock`, log);
  const datastore = kubernetesDatastore({ socketPath: files.apiSocket });
  return {
    netns: memberNamespace(lab, NODE),
    plainNetns: memberNamespace(lab, "plain"),
    datastore,
    directory: files.directory,
    pluginDirectory: files.pluginDirectory,
    runDirectory,
    agent: agent.pid,
    apiServer: apiServer.pid,
    podNetns(name) {
      const path = podNamespace(lab, "default", name);
      createNamespace(path, { loopback: true });
      return path;
    },
    async close() {
      datastore.close();
      await labDown(lab, () => undefined);
    },
  };
}

async function waitReady(socket: string, log: string): Promise<void> {
  const deadline = performance.now() + READY_MS;
  for (;;) {
    try {
      const { ready } = (await askAgent(socket, "/status")) as { ready: boolean };
      if (ready) return;
    } catch {
      // It has not started yet.
    }
    if (performance.now() > deadline) throw new Error(`the agent is not ready: ${readFileSync(log, "utf8")}`);
    await sleep(20);
  }
}

/** A container that a runtime would attach. */
export interface Container {
  readonly id: string;
  readonly netns: string;
  /** Of a Kubernetes pod in the namespace default. */
  readonly pod?: { readonly name: string; readonly uid: string };
}

export function newContainer(netns: string, pod?: Container["pod"]): Container {
  return { id: randomBytes(32).toString("hex"), netns, ...(pod === undefined ? {} : { pod }) };
}

/** What containerd gives a plugin besides its own environment. */
export function cniEnvironment(
  node: BenchNode,
  command: string,
  { id, netns, pod }: Container,
): Record<string, string> {
  const args =
    pod === undefined
      ? "IgnoreUnknown=1"
      : `K8S_POD_UID=${pod.uid};IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${pod.name};K8S_POD_INFRA_CONTAINER_ID=${id}`;
  return {
    PATH: process.env["PATH"] ?? "",
    CNI_COMMAND: command,
    CNI_CONTAINERID: id,
    CNI_NETNS: netns,
    CNI_IFNAME: "eth0",
    CNI_PATH: `${node.pluginDirectory}:/usr/lib/cni`,
    CNI_ARGS: args,
    CARACAL_RUN_DIR: node.runDirectory,
  };
}

/** Creates the pod's object, bound to the node, as the API server has it before a kubelet sees it. */
export async function createPod(datastore: ApiDatastore, name: string): Promise<{ name: string; uid: string }> {
  const { metadata } = await datastore.create("Pod", {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: "default" },
    spec: { nodeName: NODE, serviceAccountName: "default", containers: [{ name: "main", image: "none" }] },
  });
  return { name, uid: metadata.uid ?? "" };
}

/** Processor time that a process has used so far, in milliseconds: what the scheduler counted for each of its threads. */
export function cpuOf(pid: number): number {
  let nanoseconds = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    nanoseconds += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "latin1").split(" ", 1)[0]);
  }
  return nanoseconds / 1e6;
}
