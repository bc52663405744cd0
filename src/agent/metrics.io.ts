import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { PeerStatus } from "../bgp/config.ts";
import { registerBgpMetrics } from "./bgpMetrics.ts";
import type { CompilerSize } from "../policy/compile.ts";
import type { Followed } from "./cluster.io.ts";
import { registerRuleMetrics, type RulesInKernel } from "./policyMetrics.ts";

/** What an agent counts. Names are Felix's where Felix counts the same, so that people's dashboards go on working. */
export interface Metrics {
  readonly cniRequest: (milliseconds: number, ok: boolean) => void;
  readonly routesChanged: (added: number, removed: number) => void;
  /** The kernel refused a change of routes or of policy. */
  readonly failed: () => void;
  readonly policyApplied: (milliseconds: number) => void;
  text(): Promise<string>;
}

export interface MetricsSource {
  readonly endpoints: () => number;
  readonly hosts: () => number;
  readonly routes: () => number;
  readonly blocks: () => number;
  readonly bgpPeers: () => readonly PeerStatus[];
  readonly policy: () => CompilerSize;
  readonly rules: () => RulesInKernel;
  /** How many objects of the kind the cluster has. */
  readonly count: (kind: Followed) => number;
  readonly inSync: () => boolean;
}

export function createMetrics(source: MetricsSource): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(read());
      },
    });
  };
  registerRuleMetrics(registers, source.rules);
  gauge("felix_active_local_endpoints", "Endpoints on this node.", source.endpoints);
  gauge("felix_active_local_policies", "Policies that apply to endpoints of this node.", () => source.policy().active);
  gauge("felix_active_local_selectors", "Address sets that these look at.", () => source.policy().sets);
  gauge(
    "felix_label_index_num_endpoints",
    "Endpoints and sets of the cluster that selectors are held against.",
    () => source.policy().endpoints,
  );
  gauge(
    "felix_label_index_num_active_selectors",
    "Selectors that rules of this node look at.",
    () => source.policy().sets,
  );
  gauge("felix_cluster_num_policies", "Policies in the cluster.", () => source.policy().policies);
  gauge("felix_cluster_num_profiles", "Profiles in the cluster.", () => source.policy().profiles);
  gauge("felix_cluster_num_tiers", "Tiers in the cluster.", () => source.policy().tiers);
  gauge("felix_cluster_num_workload_endpoints", "Pods with addresses in the cluster.", () => source.count("Pod"));
  gauge("felix_cluster_num_host_endpoints", "Host endpoints in the cluster.", () => source.count("HostEndpoint"));
  gauge("felix_cluster_num_hosts", "Nodes in the cluster.", source.hosts);
  gauge("felix_route_table_num_routes", "Routes that this node wants in the kernel.", source.routes);
  gauge("felix_resync_state", "3 when this node is in sync with the datastore, 1 while it waits for it.", () =>
    source.inSync() ? 3 : 1,
  );
  gauge("ipam_blocks_per_node", "Address blocks that this node holds.", source.blocks);
  gauge(
    "caracal_bgp_peers_established",
    "BGP sessions that are established.",
    () => source.bgpPeers().filter(({ state }) => state === "established").length,
  );
  registerBgpMetrics(registers, source.bgpPeers, Date.now);
  // Not the library's own process metrics: they keep a timer running a hundred times a second.
  gauge("process_resident_memory_bytes", "Resident memory size in bytes.", () => process.memoryUsage.rss());
  gauge("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  const cni = new Histogram({
    name: "caracal_cni_request_seconds",
    help: "Time that the agent took for a CNI request.",
    labelNames: ["result"],
    buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5],
    registers,
  });
  const routes = new Counter({
    name: "caracal_route_changes_total",
    help: "Routes written or deleted.",
    labelNames: ["change"],
    registers,
  });
  const failures = new Counter({
    name: "felix_int_dataplane_failures",
    help: "Times that the kernel refused a change.",
    registers,
  });
  const applied = new Histogram({
    name: "felix_int_dataplane_apply_time_seconds",
    help: "Time that a change of policy took into the kernel.",
    buckets: [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1, 10],
    registers,
  });
  return {
    policyApplied: (milliseconds) => applied.observe(milliseconds / 1000),
    cniRequest: (milliseconds, ok) => cni.observe({ result: ok ? "ok" : "error" }, milliseconds / 1000),
    routesChanged(added, removed) {
      routes.inc({ change: "written" }, added);
      routes.inc({ change: "deleted" }, removed);
    },
    failed: () => failures.inc(),
    text: () => registry.metrics(),
  };
}
