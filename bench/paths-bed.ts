import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { parseDefinition, type LabDefinition } from "../src/lab/definition.ts";
import { memberNamespace, podNamespace } from "../src/lab/files.ts";
import { portName, ROUTER } from "../src/lab/network.io.ts";
import { preparePlugin } from "../src/lab/plugin.io.ts";
import { labDown, labUp } from "../src/lab/up.io.ts";
import { formatAddress } from "../src/ip/address.ts";
import { createNamespace, inNamespace } from "../src/netlink/namespace.io.ts";
import { writeSysctl } from "../src/netlink/sysctl.io.ts";
import { benchLabName, clearLabs, PROGRAM } from "./node.ts";
import { caracal } from "./lab.ts";
import { addHandPath, FLANNEL, type HostPair } from "./paths-hosts.ts";

/**
 * Pairs of hosts on one segment with a pod each, and in each pair another way between the pods: hosts that are set up by
 * hand or by flannel, and clusters of two nodes with their agents, a lab for each, so that no cluster pays for what another
 * needs. All have the same wires: a pod's veth pair, and one to the segment's bridge.
 */
export interface Bed {
  /** By the name of the path: where the traffic comes from, and the address that it goes to. */
  readonly paths: ReadonlyMap<PathName, { readonly netns: string; readonly address: string }>;
  /** Bits per second that arrive. */
  throughput(path: PathName, streams: number): number;
  /** Median round trip of one byte in each direction, in microseconds. */
  roundTrip(path: PathName): number;
  /** Whether packets of 64 KB cross the wires, or what a network card without offloads sends. */
  setOffloads(on: boolean): void;
  close(): Promise<void>;
}

/** Clusters by the mode of their pool. The last one is as people have it: tunnels for elsewhere, and translation. */
const AGENT_PATHS = {
  "no encapsulation": { part: "pathsplain", natOutgoing: false, modes: {} },
  IPIP: { part: "pathsipip", natOutgoing: false, modes: { ipip: "Always" } },
  VXLAN: { part: "pathsvxlan", natOutgoing: false, modes: { vxlan: "Always" } },
  "CrossSubnet, natOutgoing": { part: "pathscross", natOutgoing: true, modes: { vxlan: "CrossSubnet" } },
} as const;
type AgentPath = keyof typeof AGENT_PATHS;
const HAND_PATHS = ["plain", "VXLAN by hand"] as const;
const FLANNEL_PATHS = ["flannel udp", "flannel vxlan", "flannel host-gw"] as const;
export const PATHS = [...HAND_PATHS, ...(Object.keys(AGENT_PATHS) as AgentPath[]), ...FLANNEL_PATHS] as const;
export type PathName = (typeof PATHS)[number];

const ROOT = new URL("..", import.meta.url).pathname;
const PORT = 5201;
const STREAM_MS = 700;
const PINGS = 2000;

/** What is taken away at the end, the last first. */
type Closers = (() => Promise<unknown>)[];

/** A lab that is up. */
interface UpLab {
  readonly name: string;
  readonly definition: LabDefinition;
}

/** @param names the paths that are wanted */
export async function openBed(names: readonly PathName[] = PATHS): Promise<Bed> {
  await clearLabs();
  const closers: Closers = [];
  const close = async (): Promise<void> => {
    for (const each of closers.toReversed()) await each();
  };
  const paths = new Map<PathName, { netns: string; address: string }>();
  try {
    const directory = mkdtempSync(`${tmpdir()}/caracal-bench-`);
    closers.push(() => Promise.resolve(rmSync(directory, { recursive: true, force: true })));
    const tool = `${directory}/stream`;
    execFileSync("gcc", ["-O2", "-o", tool, new URL("stream.c", import.meta.url).pathname, "-lpthread"]);
    const pairs = [...HAND_PATHS, ...FLANNEL_PATHS].filter((name) => names.includes(name));
    const hosts = pairs.flatMap((_, index) => [`a${index}`, `b${index}`]);
    const plain = await startLab("no encapsulation", hosts, closers);
    for (const [index, name] of pairs.entries()) {
      const pair = hostPair(plain, index);
      if (name in FLANNEL) closers.push(await addFlannel(name as keyof typeof FLANNEL, pair));
      else addHandPath(name as (typeof HAND_PATHS)[number], pair);
      paths.set(name, { netns: pair.pods[0], address: pair.podAddress(2) });
      await serve(pair.pods[1], tool, closers);
    }
    const labs = [plain];
    for (const name of Object.keys(AGENT_PATHS) as AgentPath[]) {
      if (!names.includes(name)) continue;
      const lab = name === "no encapsulation" ? plain : await startLab(name, [], closers);
      if (lab !== plain) labs.push(lab);
      const address = await addPods(lab.name);
      const [client, server] = PODS.map((pod) => podNamespace(lab.name, "default", pod)) as [string, string];
      paths.set(name, { netns: client, address });
      await serve(server, tool, closers);
    }
    const offloads = (on: boolean): void => labs.forEach((lab) => setOffloads(lab, on));
    return { paths, ...measures(paths, tool), setOffloads: offloads, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** @param hosts machines without agents, beside the two nodes */
async function startLab(path: AgentPath, hosts: readonly string[], closers: Closers): Promise<UpLab> {
  const { part, natOutgoing, modes } = AGENT_PATHS[path];
  const name = benchLabName(part);
  const input = {
    kind: "Lab",
    segments: [{ subnet: "192.0.2.0/24", nodes: ["node1", "node2"], hosts }],
    environment: { CALICO_IPV4POOL_NAT_OUTGOING: String(natOutgoing) },
    ...modes,
  };
  closers.push(() => labDown(name, () => undefined));
  await labUp(name, input, { command: PROGRAM, plugin: preparePlugin(ROOT, process.execPath) }, () => undefined);
  return { name, definition: parseDefinition(input) };
}

async function addFlannel(name: keyof typeof FLANNEL, pair: HostPair): Promise<() => Promise<void>> {
  const { startFlannelPair } = await import("./paths-flannel.ts");
  return startFlannelPair(FLANNEL[name], pair);
}

function hostPair({ name: lab, definition }: UpLab, index: number): HostPair {
  const names = [`a${index}`, `b${index}`];
  const [a = "", b = ""] = names.map((name) => memberNamespace(lab, name));
  const [pod1, pod2] = names.map((name) => podNamespace(lab, "bench", name)) as [string, string];
  const nodeAddress = (side: 1 | 2): string => {
    const member = definition.segments[0]!.members.find((each) => each.name === names[side - 1])!;
    return formatAddress(member.address!.address);
  };
  const pair: HostPair = {
    hosts: [a, b],
    pods: [pod1, pod2],
    nodeAddress,
    network: `10.${100 + index}.0.0/16`,
    podAddress: (side) => `10.${100 + index}.${side}.2`,
    gateway: (side) => `10.${100 + index}.${side}.1`,
  };
  for (const side of [1, 2] as const) {
    const [host, pod] = [pair.hosts[side - 1]!, pair.pods[side - 1]!];
    createNamespace(pod, { loopback: true });
    inNamespace(host, () => {
      writeSysctl("ipv4/ip_forward", 1);
      const ip = (...args: string[]): void => void execFileSync("ip", args);
      ip("link", "add", "cali0", "type", "veth", "peer", "name", "eth0", "netns", pod.slice(pod.lastIndexOf("/") + 1));
      ip("address", "add", `${pair.gateway(side)}/24`, "dev", "cali0");
      ip("link", "set", "cali0", "up");
    });
    inNamespace(pod, () => {
      execFileSync("ip", ["address", "add", `${pair.podAddress(side)}/24`, "dev", "eth0"]);
      execFileSync("ip", ["link", "set", "eth0", "up"]);
    });
  }
  return pair;
}

const PODS = ["client", "server"] as const;

/** A pod on each node, and a policy that lets only the traffic of the benchmark in. Returns the server's address. */
async function addPods(lab: string): Promise<string> {
  const pod = (name: string, node: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, labels: { app: bench, role: ${name} } }
spec: { nodeName: ${node}, containers: [{ name: main, image: none, ports: [{ containerPort: 80 }] }] }
---`;
  const policy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: bench }
spec:
  podSelector: { matchLabels: { app: bench } }
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{ podSelector: { matchLabels: { app: bench } } }]
      ports: [{ protocol: TCP, port: ${PORT} }, { protocol: TCP, port: ${PORT + 1} }]
  egress: [{ to: [{ podSelector: { matchLabels: { role: server } } }] }]
---`;
  const manifest = policy + pod("client", "node1") + pod("server", "node2");
  await caracal(["apply", "--lab", lab, "-f", "-", "--wait"], manifest);
  const [program = "", ...args] = PROGRAM;
  const words = ["get", "pod", "server", "--lab", lab, "-o", "json"];
  const text = execFileSync(program, [...args, ...words], { encoding: "utf8" });
  return (JSON.parse(text) as { status: { podIP: string } }).status.podIP;
}

/** Two servers: for round trips each end has a processor of its own, as on two hosts. */
async function serve(netns: string, tool: string, closers: Closers): Promise<void> {
  const servers = [
    [tool, "serve", String(PORT)],
    ["taskset", "-c", "1", tool, "serve", String(PORT + 1)],
  ];
  for (const [program = "", ...args] of servers) {
    const child = inNamespace(netns, () => spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] }));
    closers.push(async () => {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    });
    await once(child.stdout, "data");
  }
}

function measures(paths: Bed["paths"], tool: string): Pick<Bed, "throughput" | "roundTrip"> {
  const run = (path: PathName, work: (address: string) => readonly string[]): string => {
    const { netns, address } = paths.get(path)!;
    const [program = "", ...args] = work(address);
    return inNamespace(netns, () => execFileSync(program, args, { encoding: "utf8", timeout: 30_000 }));
  };
  return {
    throughput: (path, streams) =>
      Number(run(path, (address) => [tool, "send", address, String(PORT), String(streams), String(STREAM_MS)])),
    roundTrip: (path) =>
      Number(
        run(path, (address) => ["taskset", "-c", "0", tool, "ping", address, String(PORT + 1), String(PINGS)]).split(
          " ",
        )[0],
      ),
  };
}

/**
 * Off: senders cut into segments, the bridge carries these, and receivers put them together again as a network card's driver
 * does. A veth end does that only where its other end, the bridge's port, cannot carry more (veth_skb_is_eligible_for_gro).
 */
function setOffloads({ name: lab, definition }: UpLab, on: boolean): void {
  const word = on ? "on" : "off";
  const sending = ["tso", word, "gso", word, "tx-udp-segmentation", word];
  const ethtool = (member: string, device: string, features: readonly string[]): void => {
    const namespace = memberNamespace(lab, member).split("/").at(-1) ?? "";
    execFileSync("ip", ["netns", "exec", namespace, "ethtool", "-K", device, ...features]);
  };
  for (const member of definition.segments.flatMap(({ members }) => members)) {
    ethtool(member.name, "eth0", [...sending, "gro", on ? "off" : "on"]);
    ethtool(ROUTER, portName(member), sending);
  }
}
