import { mkdirSync, readFileSync } from "node:fs";
import { createBlockStore } from "../agent/blockStore.ts";
import { runController } from "../controller/gc.io.ts";
import type { Datastore } from "../datastore/datastore.ts";
import { kubernetesDatastore } from "../datastore/client.io.ts";
import { mirror, type Timers } from "../datastore/mirror.ts";
import { formatAddress } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import type { Pod } from "../resources/workload.ts";
import { membersOf, type LabDefinition, type Member } from "./definition.ts";
import { labFiles, memberNamespace, nodeFiles } from "./files.ts";
import { createKubelet } from "./kubelet.io.ts";
import { ROUTER } from "./network.io.ts";
import { announceRouter, describeNodes, switchMeshOff } from "./objects.io.ts";
import { chooseNode } from "./pods.ts";
import { canalEnvironment, givePodCidrs } from "./canal.io.ts";
import { endProcesses, SMALL_HEAP, startProcess } from "./process.io.ts";
import type { CniRuntime, ConfigList } from "./runtime.io.ts";
import { runRouter } from "./router.io.ts";
import { readLab } from "./state.io.ts";

/**
 * Keeps a lab running: starts the API server and the agents and starts them again when they end (as systemd or a
 * DaemonSet does), schedules pods and runs them (as the kubelets do), and is the segments' router (`router.io.ts`). It
 * lives in the router's namespace.
 */

/** A process that has ended comes back after this; one that keeps ending, after longer and longer. */
const RESTART_MS = { first: 200, longest: 5000, healthy: 10_000 };
const timers: Timers = {
  now: () => performance.now(),
  setTimeout,
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout),
};

/** Runs until SIGTERM. `program` starts another caracal: the pinned Node and the command line's entry point. */
export async function keepLab(lab: string, program: readonly string[]): Promise<void> {
  const { definition } = readLab(lab);
  const files = labFiles(lab);
  const ended = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => ended.abort());
  const pids = new Set<number>();

  const supervisors = [
    supervise(pids, ended.signal, {
      netns: memberNamespace(lab, ROUTER),
      command: [...program, "apiserver", "--data", files.dataDirectory, "--socket", files.apiSocket],
      environment: {},
      log: `${files.logDirectory}/apiserver.log`,
    }),
    ...membersOf(definition, "node").map((node) => {
      const { name } = node;
      const { runDirectory, libDirectory, log } = nodeFiles(lab, name);
      mkdirSync(runDirectory, { recursive: true, mode: 0o700 });
      mkdirSync(libDirectory, { recursive: true, mode: 0o700 });
      return supervise(pids, ended.signal, {
        netns: memberNamespace(lab, name),
        command: [...program, "agent"].toSpliced(1, 0, ...SMALL_HEAP),
        environment: agentEnvironment(lab, node, definition),
        log,
      });
    }),
  ];
  const datastore = kubernetesDatastore({ socketPath: files.apiSocket });
  if (definition.backend === "canal") void givePodCidrs(definition, datastore, ended.signal);
  const writing = { datastore, signal: ended.signal, note };
  if (!definition.mesh) void switchMeshOff(writing);
  void describeNodes(definition, writing);
  const stopRouter = definition.router === "bgp" ? await runRouter(definition, note) : undefined;
  const stopPods = runPods(lab, definition, datastore);
  const controller = runController(
    datastore,
    {
      store: createBlockStore(datastore),
      log: (level, message, fields) => note(`${level}: ${message} ${JSON.stringify(fields)}`),
    },
    ended.signal,
  );
  if (definition.router === "bgp") void announceRouter(definition, writing);
  await new Promise<void>((resolve) => ended.signal.addEventListener("abort", () => resolve(), { once: true }));
  stopPods();
  await stopRouter?.();
  await controller.catch(() => undefined);
  datastore.close();
  await endProcesses([...pids], 3000);
  await Promise.all(supervisors);
}

function note(message: string): void {
  process.stdout.write(`${new Date().toISOString()} ${message}\n`);
}

interface Supervised {
  readonly netns: string;
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly log: string;
}

async function supervise(pids: Set<number>, signal: AbortSignal, spec: Supervised): Promise<void> {
  let pause = RESTART_MS.first;
  while (!signal.aborted) {
    const began = performance.now();
    const { pid, ended } = startProcess({ ...spec, detached: false });
    pids.add(pid);
    const reason = await ended;
    pids.delete(pid);
    if (signal.aborted) return;
    if (performance.now() - began > RESTART_MS.healthy) pause = RESTART_MS.first;
    note(
      `${spec.command.slice(2, 3).join(" ")} (pid ${pid}, log ${spec.log}) ended: ${reason}; it is started again in ${pause} ms`,
    );
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, RESTART_MS.longest);
  }
}

function agentEnvironment(lab: string, { name, ...node }: Member, definition: LabDefinition): Record<string, string> {
  const { runDirectory, libDirectory } = nodeFiles(lab, name);
  const { backend, encapsulation, environment } = definition;
  return {
    NODENAME: name,
    CARACAL_RUN_DIR: runDirectory,
    CARACAL_LIB_DIR: libDirectory,
    CARACAL_API_SOCKET: labFiles(lab).apiSocket,
    IP: node.address === undefined ? "none" : "autodetect",
    IP_AUTODETECTION_METHOD: "interface=eth0",
    ...(node.address6 === undefined ? {} : { IP6: "autodetect", IP6_AUTODETECTION_METHOD: "interface=eth0" }),
    ...(node.asNumber === undefined ? {} : { AS: String(node.asNumber) }),
    ...(backend === "canal"
      ? canalEnvironment(definition, labFiles(lab).directory, runDirectory)
      : { CALICO_NETWORKING_BACKEND: backend, ...poolEnvironment(definition) }),
    CALICO_IPV4POOL_IPIP: encapsulation.ipip,
    CALICO_IPV4POOL_VXLAN: encapsulation.vxlan,
    CALICO_IPV6POOL_VXLAN: encapsulation.vxlan6,
    ...environment,
  };
}

/** The pools that the first agent makes. */
function poolEnvironment({ podSubnet, podSubnet6 }: LabDefinition): Record<string, string> {
  return {
    CALICO_IPV4POOL_CIDR: formatPrefix(podSubnet),
    ...(podSubnet6 !== undefined && { CALICO_IPV6POOL_CIDR: formatPrefix(podSubnet6) }),
  };
}

/** `host-local` keeps its leases in files, which are each node's own: a lab's nodes share the machine's. */
function withOwnLeases(list: ConfigList, directory: string): ConfigList {
  const plugins = list.plugins.map((plugin) => ({
    ...plugin,
    ipam: { ...(plugin["ipam"] as object), dataDir: `${directory}/networks` },
  }));
  return { ...list, plugins };
}

function runPods(lab: string, definition: LabDefinition, datastore: Datastore): () => void {
  const files = labFiles(lab);
  const conflist = JSON.parse(readFileSync(files.conflist, "utf8")) as ConfigList;
  const addresses = new Map(
    membersOf(definition).flatMap(({ name, address, address6 }) => {
      const own = address ?? address6;
      return own === undefined ? [] : [[name, formatAddress(own.address)] as const];
    }),
  );
  const kubelet = createKubelet({
    lab,
    datastore,
    nodeAddress: (node) => addresses.get(node),
    runtimeOf: (node): CniRuntime => ({
      nodeNetns: memberNamespace(lab, node),
      pluginDirectories: [files.pluginDirectory, "/opt/cni/bin", "/usr/lib/cni"],
      conflist: definition.backend === "canal" ? withOwnLeases(conflist, nodeFiles(lab, node).libDirectory) : conflist,
      environment: { CARACAL_RUN_DIR: nodeFiles(lab, node).runDirectory },
      timeoutMs: 100_000,
    }),
    log: note,
  });
  const options = { timers, random: Math.random };
  const nodes = mirror(datastore, "Node", options, { onChange: () => scheduleAll(), onSync: () => scheduleAll() });
  /** Nodes of pods whose binding is on its way, by the pod's key. */
  const binding = new Map<string, string>();
  const pods = mirror(datastore, "Pod", options, {
    onSync: (items) => {
      for (const pod of items.values()) see(pod);
    },
    onChange: (change) => (change.type === "deleted" ? kubelet.gone(change.object) : see(change.object)),
  });
  function see(pod: Pod): void {
    if (pod.spec.nodeName === undefined) schedule(pod);
    else kubelet.pod(pod);
  }
  function scheduleAll(): void {
    for (const pod of pods?.items.values() ?? []) if (pod.spec.nodeName === undefined) schedule(pod);
  }
  /** Binds the pod to a node. Bindings on their way count as if they were done. */
  function schedule(pod: Pod): void {
    const key = `${pod.metadata.namespace}/${pod.metadata.name}`;
    if (binding.has(key)) return;
    const podsOn = new Map<string, number>();
    for (const other of pods.items.values()) {
      const node = other.spec.nodeName ?? binding.get(`${other.metadata.namespace}/${other.metadata.name}`);
      if (node !== undefined) podsOn.set(node, (podsOn.get(node) ?? 0) + 1);
    }
    const node = chooseNode(pod, [...nodes.items.values()], podsOn);
    if (node === undefined) return;
    binding.set(key, node);
    datastore
      .patch("Pod", pod.metadata.name, pod.metadata.namespace, { spec: { nodeName: node } })
      .catch((error: unknown) => note(`pod ${key} cannot be bound to ${node}: ${messageOf(error)}`))
      .finally(() => binding.delete(key));
  }
  return () => {
    nodes.stop();
    pods.stop();
    kubelet.close();
  };
}
