import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { inNamespace } from "../netlink/namespace.io.ts";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";

/**
 * A switch with etcd beside it and three nodes on it, each with a pod, in namespaces that are joined to nothing else.
 * Nodes 1 and 3 run ours; node 2 is set up by hand, of the facts alone.
 */
export interface Cluster {
  /** Names of the namespaces. */
  readonly nodes: readonly string[];
  readonly pods: readonly string[];
  readonly directory: string;
  etcdctl(...args: string[]): string;
  startEtcd(): Promise<void>;
  stopEtcd(): Promise<void>;
  /** Starts `caracal flannel` on the node (1 to 3), with these flags more. Resolves when subnet.env is there. */
  startFlannel(node: number, ...flags: string[]): Promise<ChildProcess>;
  /** The same with more in its environment. */
  startFlannelWith(
    environment: Readonly<Record<string, string>>,
    node: number,
    ...flags: string[]
  ): Promise<ChildProcess>;
  /** What the node's daemon says at /status. */
  status(node: number): { backend: string; problems: string[]; peers: number };
  subnetFile(node: number): string;
  /** Gives the node's pod the second usable address of the subnet (`10.5.1.0/24`), the node itself the first. */
  attachPod(node: number, subnet: string, mtu: number): void;
  detachPods(): void;
  start(namespace: string, ...command: string[]): ChildProcess;
  stop(child: ChildProcess): Promise<void>;
  log(node: number): string;
  /** One ping from a node's pod; says whether an answer came, and with which TTL. */
  ping(from: number, to: string, ...options: string[]): Promise<number | undefined>;
  /** An echo every 20 ms from a node's pod until it is told to stop, and how many of them had no answer. */
  startPing(from: number, to: string): { stop(): Promise<{ sent: number; lost: number }> };
  close(): Promise<void>;
}

const MAIN = new URL("../cli/main.ts", import.meta.url).pathname;
export const NODE = [process.execPath, "--disable-warning=ExperimentalWarning"];
export const ETCD = "192.0.2.254";
export const nodeAddress = (node: number): string => `192.0.2.${node}`;
export const podAddress = (subnet: string): string => subnet.replace(/0\/24$/, "2");

export async function startCluster(): Promise<Cluster> {
  const hub = temporaryNamespace();
  const nodes = [1, 2, 3].map(() => temporaryNamespace());
  const pods = [1, 2, 3].map(() => temporaryNamespace());
  const directory = mkdtempSync(`${tmpdir()}/caracal-flannel-${process.pid}-`);
  const children = new Set<ChildProcess>();
  let etcd: ChildProcess | undefined;
  const ip = (namespace: string, ...args: string[]): string => inside(namespace, "ip", ...args);
  const logOf = (name: string): string => `${directory}/${name}.log`;

  function start(namespace: string, ...command: string[]): ChildProcess {
    const log = openSync(logOf(namespace), "a");
    const [file, ...args] = command;
    const child = inNamespace(`/run/netns/${namespace}`, () => spawn(file!, args, { stdio: ["ignore", log, log] }));
    closeSync(log);
    children.add(child);
    return child;
  }
  async function stop(child: ChildProcess): Promise<void> {
    children.delete(child);
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 3000);
    await ended;
    clearTimeout(timer);
  }
  const etcdctl = (...args: string[]): string => inside(hub.name, "env", "ETCDCTL_API=3", "etcdctl", ...args);

  const cluster: Cluster = {
    nodes: nodes.map(({ name }) => name),
    pods: pods.map(({ name }) => name),
    directory,
    etcdctl,
    async startEtcd() {
      etcd = start(
        hub.name,
        "etcd",
        `--data-dir=${directory}/etcd`,
        `--listen-client-urls=http://127.0.0.1:2379,http://${ETCD}:2379`,
        `--advertise-client-urls=http://${ETCD}:2379`,
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--heartbeat-interval=50",
        "--election-timeout=250",
      );
      await until("etcd answers", () => etcdctl("endpoint", "health").length >= 0);
    },
    async stopEtcd() {
      if (etcd !== undefined) await stop(etcd);
      etcd = undefined;
    },
    startFlannel: (node, ...flags) => cluster.startFlannelWith({}, node, ...flags),
    async startFlannelWith(environment, node, ...flags) {
      const file = cluster.subnetFile(node);
      const child = start(
        nodes[node - 1]!.name,
        "env",
        ...Object.entries(environment).map(([name, value]) => `${name}=${value}`),
        ...NODE,
        MAIN,
        "flannel",
        `-etcd-endpoints=http://${ETCD}:2379`,
        "-iface=eth0",
        `-subnet-file=${file}`,
        "-healthz-ip=127.0.0.1",
        "-healthz-port=8471",
        ...flags,
      );
      try {
        await until(`node ${node} is ready`, () => child.exitCode === null && readFileSync(file, "utf8").length > 0);
      } catch (error) {
        throw new Error(`node ${node} does not get ready:\n${cluster.log(node)}`, { cause: error });
      }
      return child;
    },
    status(node) {
      const text = inside(nodes[node - 1]!.name, ...NODE, "-e", STATUS);
      return JSON.parse(text) as ReturnType<Cluster["status"]>;
    },
    subnetFile: (node) => `${directory}/subnet${node}.env`,
    attachPod(node, subnet, mtu) {
      const host = nodes[node - 1]!.name;
      const pod = pods[node - 1]!.name;
      const own = subnet.replace(/0\/24$/, "1/24");
      ip(
        host,
        "link",
        "add",
        "pod0",
        "mtu",
        String(mtu),
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "mtu",
        String(mtu),
        "netns",
        pod,
      );
      ip(host, "address", "add", own, "dev", "pod0");
      ip(host, "link", "set", "pod0", "up");
      ip(pod, "address", "add", `${podAddress(subnet)}/24`, "dev", "eth0");
      ip(pod, "link", "set", "eth0", "up");
      ip(pod, "route", "add", "default", "via", own.replace("/24", ""));
    },
    detachPods() {
      for (const { name } of nodes) {
        try {
          ip(name, "link", "delete", "pod0");
        } catch {
          // It has none.
        }
      }
    },
    start,
    stop,
    log: (node) => readFileSync(logOf(nodes[node - 1]!.name), "utf8"),
    ping: (from, to, ...options) =>
      new Promise((resolve) => {
        const args = ["netns", "exec", pods[from - 1]!.name, "ping", "-n", "-c1", "-W1", ...options, to];
        execFile("ip", args, { encoding: "utf8" }, (error, output) => {
          const ttl = /ttl=(\d+)/.exec(output)?.[1];
          resolve(error === null && ttl !== undefined ? Number(ttl) : undefined);
        });
      }),
    startPing(from, to) {
      const args = ["netns", "exec", pods[from - 1]!.name, "ping", "-n", "-q", "-i0.02", "-w60", to];
      const child = spawn("ip", args, { stdio: ["ignore", "pipe", "inherit"] });
      let output = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
      const ended = new Promise((resolve) => child.once("close", resolve));
      return {
        async stop() {
          child.kill("SIGINT");
          await ended;
          const counts = /(\d+) packets transmitted, (\d+) received/.exec(output);
          if (counts === null) throw new Error(`ping said nothing that is understood: ${output}`);
          const [sent, received] = [Number(counts[1]), Number(counts[2])];
          // The last one may still have been on its way.
          return { sent, lost: Math.max(0, sent - received - 1) };
        },
      };
    },
    async close() {
      await Promise.all([...children].map(stop));
      for (const each of [hub, ...nodes, ...pods]) each[Symbol.dispose]();
      rmSync(directory, { recursive: true, force: true });
    },
  };

  try {
    ip(hub.name, "link", "add", "br0", "type", "bridge");
    ip(hub.name, "link", "set", "br0", "up");
    ip(hub.name, "address", "add", `${ETCD}/24`, "dev", "br0");
    for (const [at, { name }] of nodes.entries()) {
      const port = `n${at + 1}`;
      ip(hub.name, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name);
      ip(hub.name, "link", "set", port, "master", "br0", "up");
      ip(name, "address", "add", `${nodeAddress(at + 1)}/24`, "dev", "eth0");
      ip(name, "link", "set", "eth0", "up");
      ip(name, "address", "add", `2001:db8::${at + 1}/64`, "dev", "eth0", "nodad");
      inside(name, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1");
    }
    await cluster.startEtcd();
    return cluster;
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

const STATUS = 'fetch("http://127.0.0.1:8471/status").then((r) => r.text()).then((t) => console.log(t))';

/** Tries until it is true, and throws nothing; at most so many milliseconds. Returns how many it took. */
export async function until(
  what: string,
  work: () => boolean | Promise<boolean>,
  milliseconds = 10_000,
): Promise<number> {
  const began = performance.now();
  let last: unknown = "it was never so";
  while (performance.now() - began < milliseconds) {
    try {
      if (await work()) return performance.now() - began;
    } catch (error) {
      last = error;
    }
    await sleep(20);
  }
  throw new Error(`${what}: not within ${milliseconds} ms`, { cause: last });
}

/** Sends so many bytes from one pod to another, and says whether they came as they were. */
export async function transfer(from: string, to: string, address: string, bytes: number): Promise<boolean> {
  const script = (text: string): string[] => ["netns", "exec", text === RECEIVE ? to : from, ...NODE, "-e", text];
  const receiver = spawn("ip", script(RECEIVE), { stdio: ["ignore", "pipe", "inherit"] });
  const answers = receiver.stdout.setEncoding("utf8")[Symbol.asyncIterator]() as AsyncIterator<string>;
  await answers.next();
  const sent = execFileSync("ip", [...script(SEND), address, String(bytes)], { encoding: "utf8", timeout: 20_000 });
  const received = (await answers.next()).value as string;
  return received.trim() === sent.trim();
}

const RECEIVE = `
const hash = require("crypto").createHash("sha256");
const server = require("net").createServer((socket) => socket.on("data", (data) => hash.update(data)).on("end", () => {
  console.log(hash.digest("hex"));
  socket.end();
  server.close();
})).listen(9000, () => console.log("ready"));`;
const SEND = `
const [address, bytes] = process.argv.slice(1);
const data = require("crypto").randomBytes(Number(bytes));
console.log(require("crypto").createHash("sha256").update(data).digest("hex"));
require("net").connect(9000, address).end(data).resume();`;
