import type { RouteQuery } from "../bgp/config.ts";
import type { RouteTable } from "../dataplane/routeTable.io.ts";
import { formatAddress, parseAddress, type Address } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import type { FelixSettings } from "../resources/config.ts";
import type { KindId } from "../resources/registry.ts";
import { nodeNetwork } from "../resources/nodeNetwork.ts";
import type { Addressing } from "./addressing.io.ts";
import type { Log } from "./agent.io.ts";
import type { Cluster } from "./cluster.io.ts";
import type { AgentConfig } from "./config.ts";
import type { Endpoints } from "./endpoints.io.ts";
import type { Metrics, MetricsSource } from "./metrics.io.ts";
import type { Routing } from "./routing.io.ts";
import { startHttpServer, type Answer, type StatusServer } from "./statusServer.io.ts";

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
  readonly routeTable: RouteTable;
  readonly endpoints: Endpoints;
  readonly addressing: Addressing;
  readonly waitingFor: () => readonly string[];
  readonly apply: () => void;
  readonly addressReason: () => string;
  readonly reaches: (address: Address) => boolean;
}

/** Longest that one question about what is in force may wait. */
const IN_FORCE_MS = 60_000;

/** Kinds that ask for packets to be dropped, which nothing here does yet. */
const NOT_ENFORCED: ReadonlySet<string> = new Set<KindId>([
  "NetworkPolicy",
  "CalicoNetworkPolicy",
  "GlobalNetworkPolicy",
  "ClusterNetworkPolicy",
  "HostEndpoint",
]);

/** What the command line may ask an agent. */
export function agentAnswers(parts: AgentParts): Record<string, Answer> {
  const { cluster, routing, routeTable, endpoints, addressing } = parts;
  return {
    "/status": () => Promise.resolve({ status: 200, body: statusOf(parts) }),
    "/bgp/peers": () => Promise.resolve({ status: 200, body: routing.peers() }),
    "/bgp/routes": (query) => {
      const view = query.get("view") ?? "best";
      if (view !== "in" && view !== "best" && view !== "out") {
        return Promise.resolve({ status: 400, body: { error: `view "${view}" is not in, best or out` } });
      }
      const peer = query.get("peer");
      const wanted: RouteQuery = peer === null ? { view } : { view, peer };
      return Promise.resolve({ status: 200, body: routing.routes(wanted).map(printRoute) });
    },
    "/endpoints": () =>
      Promise.resolve({
        status: 200,
        body: endpoints.list().map((endpoint) => ({ ...endpoint, addresses: endpoint.addresses.map(formatAddress) })),
      }),
    /** Which of the addresses the kernel has no way to but the default route, if that. */
    "/reaches": (query) => {
      const missing = (query.get("addresses") ?? "")
        .split(",")
        .filter((text) => text !== "" && !parts.reaches(parseAddress(text)));
      return Promise.resolve({ status: 200, body: { missing } });
    },
    /** Whether what the datastore said at a version is carried out here. */
    "/in-force": async (query) => {
      const kind = query.get("kind") ?? "";
      // Said at once, and loudly: a policy that is merely stored holds nobody back.
      if (NOT_ENFORCED.has(kind)) {
        return {
          status: 200,
          body: { inForce: false, final: true, reason: `${kind} is stored, but not enforced by this version` },
        };
      }
      const version = query.get("resourceVersion") ?? "";
      const timeout = Math.min(Number(query.get("timeoutMs") ?? "10000"), IN_FORCE_MS);
      if (cluster.follows(kind) && !(await cluster.waitFor(kind, version, timeout))) {
        return {
          status: 200,
          body: { inForce: false, reason: cluster.trouble() ?? `the agent has not seen version ${version} of ${kind}` },
        };
      }
      parts.apply();
      addressing.tidy();
      const [problem] = routeTable.problems();
      return {
        status: 200,
        body: problem === undefined ? { inForce: true } : { inForce: false, reason: problem.reason },
      };
    },
  };
}

function statusOf({
  nodeName,
  config,
  cluster,
  routing,
  routeTable,
  endpoints,
  addressing,
  waitingFor,
  addressReason,
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
    bgp: { settled: routing.settled(), peers: routing.peers() },
  };
}

/** Addresses as text: a route's attributes hold them as numbers, which JSON has no form for. */
function printRoute(route: ReturnType<Routing["routes"]>[number]): unknown {
  return JSON.parse(
    JSON.stringify(route, (_, value: unknown) => {
      if (
        typeof value === "object" &&
        value !== null &&
        "family" in value &&
        "value" in value &&
        typeof value.value === "bigint"
      ) {
        return formatAddress({ family: value.family === 4 ? 4 : 6, value: value.value });
      }
      return value;
    }),
  ) as unknown;
}
