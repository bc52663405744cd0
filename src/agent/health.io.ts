import { bestRoute } from "../dataplane/routes.ts";
import type { RouteTable } from "../dataplane/routeTable.io.ts";
import { formatAddress, parseAddress, type Address } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import { TABLE_MAIN } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import type { FelixSettings } from "../resources/config.ts";
import { nodeNetwork } from "../resources/nodeNetwork.ts";
import type { Addressing } from "./addressing.io.ts";
import { bgpAnswers } from "./bgpAnswers.io.ts";
import type { FlannelStatus } from "../flannel/daemon.io.ts";
import type { Log } from "./agent.io.ts";
import type { Cluster } from "./cluster.io.ts";
import type { AgentConfig } from "./config.ts";
import type { Endpoints } from "./endpoints.io.ts";
import type { Metrics, MetricsSource } from "./metrics.io.ts";
import type { PathsStatus } from "./pathCheck.io.ts";
import type { NodePolicy } from "./policy.io.ts";
import { policyCounts, policyStatus, problemsOf } from "./policyStatus.ts";
import type { Routing } from "./routing.io.ts";
import { startHttpServer, type Answer, type StatusServer } from "./statusServer.io.ts";
import type { TunnelsStatus } from "./tunnels.io.ts";

/** What probes and scrapers see: `/liveness` and `/readiness` on Felix's port 9099, `/metrics` on 9091 where it is asked for. */
export interface Health {
  /** Absent unless metrics are on. */
  readonly metrics: Metrics | undefined;
  close(): Promise<void>;
}

export interface HealthOptions extends MetricsSource {
  readonly settings: () => Partial<FelixSettings>;
  /** What stands between this node and its pods' traffic. */
  readonly waitingFor: () => readonly string[];
  readonly log: Log;
}

export async function startHealth(options: HealthOptions): Promise<Health> {
  const { healthEnabled = true, healthHost = "localhost", healthPort = 9099 } = options.settings();
  const {
    prometheusMetricsEnabled = false,
    prometheusMetricsHost = "",
    prometheusMetricsPort = 9091,
  } = options.settings();
  const servers: StatusServer[] = [];
  const open = async (
    what: string,
    host: string,
    port: number,
    answers: Readonly<Record<string, Answer>>,
  ): Promise<void> => {
    try {
      servers.push(await startHttpServer(host === "" ? "::" : host, port, answers));
    } catch (error) {
      options.log("warn", `${what} cannot be served`, { host, port, reason: messageOf(error) });
    }
  };
  if (healthEnabled) {
    await open("health", healthHost, healthPort, {
      "/liveness": () => Promise.resolve({ status: 200, body: { live: true } }),
      "/readiness": () => {
        const reasons = options.waitingFor();
        return Promise.resolve({
          status: reasons.length === 0 ? 200 : 503,
          body: { ready: reasons.length === 0, waitingFor: reasons },
        });
      },
    });
  }
  let metrics: Metrics | undefined;
  if (prometheusMetricsEnabled) {
    const { createMetrics } = await import("./metrics.io.ts");
    const made = createMetrics(options);
    metrics = made;
    await open("metrics", prometheusMetricsHost, prometheusMetricsPort, {
      "/metrics": async () => ({ status: 200, body: await made.text() }),
    });
  }
  return {
    metrics,
    async close() {
      await Promise.all(servers.map((server) => server.close()));
    },
  };
}

export interface AgentParts {
  readonly nodeName: string;
  readonly config: AgentConfig;
  readonly cluster: Cluster;
  readonly routing: Routing;
  /** What in the BGP configuration has no effect. */
  readonly bgpProblems: () => readonly string[];
  readonly routeTable: RouteTable;
  readonly endpoints: Endpoints;
  readonly policy: NodePolicy["engine"];
  readonly addressing: Addressing;
  readonly waitingFor: () => readonly string[];
  readonly apply: () => void;
  readonly addressReason: () => string;
  readonly rtnetlink: Pick<Rtnetlink, "routes">;
  readonly tunnels: () => TunnelsStatus;
  readonly paths: () => PathsStatus;
  readonly flannel: () => FlannelStatus | undefined;
}

/** Longest that one question about what is in force may wait. */
const IN_FORCE_MS = 60_000;

/** What the command line may ask an agent. */
export function agentAnswers(parts: AgentParts): Record<string, Answer> {
  const { cluster, routing, routeTable, endpoints, policy, addressing } = parts;
  return {
    "/status": () => Promise.resolve({ status: 200, body: statusOf(parts) }),
    ...bgpAnswers(routing),
    "/endpoints": () =>
      Promise.resolve({
        status: 200,
        body: endpoints.list().map((endpoint) => ({ ...endpoint, addresses: endpoint.addresses.map(formatAddress) })),
      }),
    /** Which of the addresses the kernel has no way to but the default route, if that. */
    "/reaches": (query) => {
      const missing = (query.get("addresses") ?? "")
        .split(",")
        .filter((text) => text !== "" && !reaches(parts.rtnetlink, parseAddress(text)));
      return Promise.resolve({ status: 200, body: { missing } });
    },
    /** Whether what the datastore said at a version is carried out here. */
    "/in-force": async (query) => {
      const kind = query.get("kind") ?? "";
      const version = query.get("resourceVersion") ?? "";
      const began = performance.now();
      const timeout = Math.min(Number(query.get("timeoutMs") ?? "10000"), IN_FORCE_MS);
      const no = (reason: string, final = false) => ({
        status: 200,
        body: { inForce: false, reason, ...(final ? { final } : {}) },
      });
      if (cluster.follows(kind) && !(await cluster.waitFor(kind, version, timeout)))
        return no(cluster.trouble() ?? `the agent has not seen version ${version} of ${kind}`);
      parts.apply();
      addressing.tidy();
      if (!(await policy.settled(Math.max(0, timeout - (performance.now() - began)))))
        return no(policy.status().failure ?? "the kernel does not have the policy yet");
      const problems = problemsOf(policy.problems, kind, query.getAll("object"), policy.tables);
      if (problems.length > 0) return no(problems.join("; "), true);
      const { fault, failure } = policy.status();
      if (failure !== undefined) return no(failure);
      if (kind === "FelixConfiguration" && fault !== undefined) return no(fault, true);
      const [problem] = routeTable.problems();
      return problem === undefined ? { status: 200, body: { inForce: true } } : no(problem.reason);
    },
    /** How far the objects of a kind are in force, and which of those named are so otherwise than they were written. */
    "/policy/in-force": async (query) => {
      const kind = query.get("kind") ?? "";
      const version = cluster.follows(kind) ? cluster.versionOf(kind) : undefined;
      const isSettled = await policy.settled(Math.min(Number(query.get("timeoutMs") ?? "1000"), IN_FORCE_MS));
      const { failure } = policy.status();
      if (!isSettled || failure !== undefined)
        return { status: 200, body: { reason: failure ?? "the kernel is behind", problems: {} } };
      const problems = query.getAll("object").flatMap((object) => {
        const found = problemsOf(policy.problems, kind, [object], policy.tables);
        return found.length === 0 ? [] : [[object, found] as const];
      });
      return { status: 200, body: { resourceVersion: version, problems: Object.fromEntries(problems) } };
    },
    /** Packets and bytes by policy, direction and rule. */
    "/policy/counters": async () => ({ status: 200, body: policyCounts(await policy.counts()) }),
  };
}

/** Whether the kernel has a way to the address that is more than the default route. */
function reaches(rtnetlink: AgentParts["rtnetlink"], address: Address): boolean {
  const best = bestRoute(address, rtnetlink.routes({ family: address.family, table: TABLE_MAIN }));
  return best !== undefined && best.type === "unicast" && best.destination.length > 0;
}

function statusOf({
  nodeName,
  config,
  cluster,
  routing,
  routeTable,
  endpoints,
  policy,
  addressing,
  waitingFor,
  addressReason,
  bgpProblems,
  tunnels,
  paths,
  flannel,
}: AgentParts): object {
  const node = cluster.get("Node", nodeName);
  const { ipv4, ipv6, asNumber } = node === undefined ? {} : nodeNetwork(node);
  const reasons = waitingFor();
  return {
    node: nodeName,
    ready: reasons.length === 0,
    waitingFor: reasons,
    pid: process.pid,
    ipv4: ipv4 === undefined ? null : formatPrefix(ipv4),
    ipv6: ipv6 === undefined ? null : formatPrefix(ipv6),
    addressReason: addressReason(),
    asNumber: asNumber ?? cluster.get("BGPConfiguration", "default")?.spec.asNumber ?? 64512,
    backend: config.networkingBackend,
    datastore: { synced: cluster.isSynced(), trouble: cluster.trouble() ?? null },
    endpoints: endpoints.list().length,
    blocks: addressing.blocks().map(formatPrefix),
    routes: { wanted: routeTable.size(), problems: routeTable.problems() },
    bgp: { settled: routing.settled(), peers: routing.peers(), problems: bgpProblems() },
    tunnels: tunnels(),
    paths: paths(),
    flannel: flannel() ?? null,
    policy: policyStatus(policy.status(), policy.problems),
  };
}
