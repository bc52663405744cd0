import { connect } from "node:net";
import { openProber, type Prober } from "../dataplane/pathProbe.io.ts";
import { formatAddress, type Address } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import { TABLE_MAIN } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import type { BlockChange, Cluster } from "./cluster.io.ts";
import { examine, type Finding, type Path, type PathKind } from "./pathCheck.ts";
import { createCheckPlan } from "./pathCheckPlan.ts";
import { pathsTo, podAddresses, whereabouts } from "./pathCheckTargets.ts";
import { tunnelNode } from "./tunnelFacts.ts";

/** Tries out, now and then, whether packets of full size get from this node to every other by the way that pods' packets take. */
export interface PathCheck {
  /** Where pods are. */
  observe(change: BlockChange): void;
  /** Nodes have changed, or how their pods are reached. To be called first when the node has joined the cluster. */
  changed(kind: string): void;
  status(): PathsStatus;
  close(): void;
}

export interface PathsStatus {
  /** How often a node is looked at; 0: never. */
  readonly intervalMs: number;
  readonly peers: readonly PathReport[];
}

/** One way to one node, as it was found. */
export interface PathReport extends Finding {
  readonly node: string;
  readonly kind: PathKind;
  readonly device: string;
  readonly target: string;
  /** Bytes of the largest packet that pods send there. */
  readonly mtu: number;
  /** Milliseconds since 1970. */
  readonly checkedAt: number;
}

export interface PathCheckOptions {
  readonly nodeName: string;
  readonly cluster: () => Cluster;
  readonly rtnetlink: Rtnetlink;
  /** What a pod's interface has. Bytes. */
  readonly podMtu: () => number;
  /** Whether flannel carries pods' packets between the nodes' podCIDRs. */
  readonly usesPodCidrs: boolean;
  /** 0: never. */
  readonly intervalMs: number;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

/** How many nodes are looked at at the same time: one that does not answer takes seconds. */
const AT_A_TIME = 4;
/** Ports that even a host with a policy of its own answers at; a refusal is an answer. */
const TCP_PORTS = [179, 22, 10_250];
const TCP_ANSWER_MS = 600;

export function createPathCheck(options: PathCheckOptions): PathCheck {
  const { nodeName, cluster, intervalMs, log } = options;
  const plan = createCheckPlan({ intervalMs, random: Math.random });
  const pods = podAddresses();
  const reports = new Map<string, readonly PathReport[]>();
  /** What was last logged of a way. */
  const told = new Map<string, string>();
  const prober: Prober = openProber();
  let running = 0;
  let dirty = false;
  /** Goes up when the ways to all nodes may be others than before. */
  let epoch = 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = intervalMs === 0;

  const world = { self: nodeName, echo: (asked: Parameters<Prober["echo"]>[0]) => prober.echo(asked), answersTcp };

  function paths(node: string): Path[] {
    const object = cluster().get("Node", node);
    if (object === undefined) return [];
    const routes = options.rtnetlink.routes({ table: TABLE_MAIN });
    const all = pods.of(node);
    // Another each time: one that nobody has any more must not be taken for a path that is blocked.
    const start = Math.floor(Math.random() * all.length);
    return pathsTo(
      {
        node: tunnelNode(object),
        subnets: options.usesPodCidrs ? (object.spec.podCIDRs ?? []) : [],
        pods: [...all.slice(start), ...all.slice(0, start)],
      },
      { routes, link: (index) => options.rtnetlink.link(index), podMtu: options.podMtu() },
    );
  }

  async function lookAt(node: string): Promise<void> {
    const found = await Promise.all(
      paths(node).map(async (path): Promise<PathReport> => {
        const { kind, device, target, mtu } = path;
        const finding = await examine(world, path);
        return { node, kind, device, target: formatAddress(target), mtu, ...finding, checkedAt: Date.now() };
      }),
    );
    if (closed) return;
    for (const report of found) tell(report);
    reports.set(node, found);
  }

  /** What is wrong is logged when it was found twice: a node that starts is not there yet, and packets may be lost. */
  function tell({ node, device, verdict, text }: PathReport): void {
    const key = `${node} ${device}`;
    const before = reports.get(node)?.find((report) => report.device === device);
    if (before?.verdict !== verdict || told.get(key) === text) return;
    if (text === "" && !told.has(key)) return;
    if (text === "") told.delete(key);
    else told.set(key, text);
    if (text === "") log("info", "the way to a node carries packets of full size again", { peer: node, device });
    else log("warn", "the way to a node is not as it should be", { peer: node, device, verdict, reason: text });
  }

  function work(): void {
    clearTimeout(timer);
    timer = undefined;
    if (closed) return;
    if (dirty) readNodes();
    while (running < AT_A_TIME) {
      const node = plan.take(performance.now());
      if (node === undefined) break;
      running += 1;
      lookAt(node)
        .catch((error: unknown) => log("warn", "a path cannot be tried out", { peer: node, reason: messageOf(error) }))
        .finally(() => {
          running -= 1;
          const isWell = (reports.get(node) ?? []).every(({ verdict }) => verdict === "reachable");
          plan.done(node, isWell, performance.now());
          schedule();
        });
    }
    schedule();
  }

  function schedule(): void {
    const next = plan.nextAt();
    if (closed || next === undefined || running >= AT_A_TIME) return;
    clearTimeout(timer);
    timer = setTimeout(work, Math.max(1, next - performance.now())).unref();
  }

  function readNodes(): void {
    dirty = false;
    const nodes = cluster()
      .items("Node")
      .filter(({ metadata }) => metadata.name !== nodeName)
      .map((node) => [node.metadata.name, `${epoch} ${whereabouts(tunnelNode(node))}`] as const);
    plan.setNodes(new Map(nodes), performance.now());
    const names = new Set(nodes.map(([name]) => name));
    for (const name of reports.keys()) if (!names.has(name)) reports.delete(name);
  }

  return {
    observe(change) {
      if (closed) return;
      if (change.type === "sync") {
        pods.keepOnly(new Set(change.blocks.map(({ metadata }) => metadata.name)));
        for (const block of change.blocks) pods.put(block);
      } else if (change.type === "put") pods.put(change.block);
      else pods.drop(change.block.metadata.name);
    },
    changed(kind) {
      if (kind === "IPPool") epoch += 1;
      if (closed || dirty || (kind !== "Node" && kind !== "IPPool")) return;
      dirty = true;
      clearTimeout(timer);
      timer = setTimeout(work, NODES_SETTLE_MS).unref();
    },
    status: () => ({ intervalMs, peers: [...reports.values()].flat().toSorted(byNode) }),
    close() {
      closed = true;
      clearTimeout(timer);
      prober.close();
    },
  };
}

/** Nodes say something all the time: their changes gather. */
const NODES_SETTLE_MS = 500;

const byNode = (a: PathReport, b: PathReport): number => a.node.localeCompare(b.node, "en", { numeric: true });

async function answersTcp(address: Address): Promise<boolean> {
  const tries = TCP_PORTS.map(
    (port) =>
      new Promise<boolean>((resolve) => {
        const socket = connect({ host: formatAddress(address), port });
        const end = (answered: boolean): void => {
          clearTimeout(timer);
          socket.destroy();
          resolve(answered);
        };
        const timer = setTimeout(() => end(false), TCP_ANSWER_MS);
        socket.once("connect", () => end(true));
        socket.once("error", (error: NodeJS.ErrnoException) => end(error.code === "ECONNREFUSED"));
      }),
  );
  return (await Promise.all(tries)).includes(true);
}
