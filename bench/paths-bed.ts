import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { parseDefinition, type LabDefinition } from "../src/lab/definition.ts";
import { labFiles, memberNamespace, podNamespace } from "../src/lab/files.ts";
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
 * Pairs of hosts on one segment, each with a pod, and in each pair another way between the pods: two nodes with their
 * agents and a pod of every kind of pool, and hosts that are set up by hand or by flannel. All have the same wires: a pod's
 * veth pair, and one to the segment's bridge.
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

const AGENT_PATHS = ["no encapsulation", "IPIP", "VXLAN"] as const;
const HAND_PATHS = ["plain", "VXLAN by hand"] as const;
const FLANNEL_PATHS = ["flannel udp", "flannel vxlan", "flannel host-gw"] as const;
export const PATHS = [...HAND_PATHS, ...AGENT_PATHS, ...FLANNEL_PATHS] as const;
export type PathName = (typeof PATHS)[number];

const ROOT = new URL("..", import.meta.url).pathname;
const PORT = 5201;
const STREAM_MS = 700;
const PINGS = 2000;

/** A pool of each kind, in the order in which they are made: pods get the MTU that the pools so far allow. */
const POOLS = {
  "no encapsulation": { name: "default-ipv4-ippool", cidr: "10.244.0.0/16", modes: "" },
  IPIP: { name: "ipip", cidr: "10.245.0.0/16", modes: "ipipMode: Always" },
  VXLAN: { name: "vxlan", cidr: "10.246.0.0/16", modes: "vxlanMode: Always" },
} as const;
const podNameOf = (pool: string, side: number): string => `${pool.replaceAll("default-ipv4-ippool", "plain")}${side}`;

export async function openBed(): Promise<Bed> {
  const lab = benchLabName("paths");
  await clearLabs();
  const pairs = [...HAND_PATHS, ...FLANNEL_PATHS].map((name, index) => ({ name, hosts: [`a${index}`, `b${index}`] }));
  const input = {
    kind: "Lab",
    segments: [{ subnet: "192.0.2.0/24", nodes: ["node1", "node2"], hosts: pairs.flatMap(({ hosts }) => hosts) }],
  };
  const closers: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<void> => {
    for (const each of closers.toReversed()) await each();
    await labDown(lab, () => undefined);
  };
  try {
    await labUp(lab, input, { command: PROGRAM, plugin: preparePlugin(ROOT, process.execPath) }, () => undefined);
    const definition = parseDefinition(input);
    const tool = `${labFiles(lab).directory}/stream`;
    execFileSync("gcc", ["-O2", "-o", tool, new URL("stream.c", import.meta.url).pathname, "-lpthread"]);
    const paths = new Map<PathName, { netns: string; address: string }>();
    for (const [index, { name, hosts }] of pairs.entries()) {
      const pair = hostPair(lab, definition, hosts, index);
      const end = name in FLANNEL ? await addFlannel(name as keyof typeof FLANNEL, pair) : undefined;
      if (end === undefined) addHandPath(name as (typeof HAND_PATHS)[number], pair);
      else closers.push(end);
      paths.set(name, { netns: pair.pods[0], address: pair.podAddress(2) });
      await serve(pair.pods[1], tool, closers);
    }
    for (const name of AGENT_PATHS) {
      const address = await addPods(lab, POOLS[name]);
      const pods = [1, 2].map((side) => podNamespace(lab, "default", podNameOf(POOLS[name].name, side)));
      paths.set(name, { netns: pods[0]!, address });
      await serve(pods[1]!, tool, closers);
    }
    return { paths, ...measures(paths, tool), setOffloads: (on) => setOffloads(lab, definition, on), close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function addFlannel(name: keyof typeof FLANNEL, pair: HostPair): Promise<() => Promise<void>> {
  const { startFlannelPair } = await import("./paths-flannel.ts");
  return startFlannelPair(FLANNEL[name], pair);
}

function hostPair(lab: string, definition: LabDefinition, names: readonly string[], index: number): HostPair {
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

/** A pod on each node with an address of the pool, and a policy that lets only the traffic of the benchmark in. */
async function addPods(lab: string, { name, cidr, modes }: (typeof POOLS)[keyof typeof POOLS]): Promise<string> {
  const pod = (side: number): string => `
apiVersion: v1
kind: Pod
metadata:
  name: ${podNameOf(name, side)}
  labels: { app: bench, side: side${side} }
  annotations: { cni.projectcalico.org/ipv4pools: '["${name}"]' }
spec: { nodeName: node${side}, containers: [{ name: main, image: none, ports: [{ containerPort: 80 }] }] }
---`;
  const manifest = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: bench }
spec:
  podSelector: { matchLabels: { app: bench } }
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{ podSelector: { matchLabels: { app: bench } } }]
      ports: [{ protocol: TCP, port: ${PORT} }, { protocol: TCP, port: ${PORT + 1} }]
  egress: [{ to: [{ podSelector: { matchLabels: { side: side2 } } }] }]
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: { name: ${name} }
spec: { cidr: ${cidr}, ${modes}${modes === "" ? "" : ", "}natOutgoing: false }
---`;
  for (const part of [manifest, pod(1) + pod(2)]) await caracal(["apply", "--lab", lab, "-f", "-", "--wait"], part);
  const [program = "", ...args] = PROGRAM;
  const words = ["get", "pod", podNameOf(name, 2), "--lab", lab, "-o", "json"];
  const text = execFileSync(program, [...args, ...words], { encoding: "utf8" });
  return (JSON.parse(text) as { status: { podIP: string } }).status.podIP;
}

/** Two servers: for round trips each end has a processor of its own, as on two hosts. */
async function serve(netns: string, tool: string, closers: (() => Promise<unknown>)[]): Promise<void> {
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
function setOffloads(lab: string, definition: LabDefinition, on: boolean): void {
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
