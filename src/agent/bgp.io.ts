import { readFileSync } from "node:fs";
import { PROTOCOL_BGP } from "../dataplane/routes.ts";
import type { RouteTable } from "../dataplane/routeTable.io.ts";
import type { Datastore } from "../datastore/datastore.ts";
import type { Family } from "../ip/address.ts";
import { formatPrefix, networkOf } from "../ip/prefix.ts";
import { SCOPE_GLOBAL, TABLE_MAIN } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { namespaceToProfile, podToEndpoint } from "../policy/convertEndpoint.ts";
import { nodeNetwork } from "../resources/nodeNetwork.ts";
import type { Addressing } from "./addressing.io.ts";
import type { Log } from "./agent.io.ts";
import type { NodeInterface } from "./bgpFilters.ts";
import type { LocalWorkload } from "./bgpPeers.ts";
import { routesOfOthers, textOfRoutes, type KernelRoute } from "./bgpKernelRoutes.ts";
import { isLogged, planBgp, type BgpPlan } from "./bgpPlan.ts";
import { createBgpSecrets } from "./bgpSecrets.io.ts";
import type { Cluster } from "./cluster.io.ts";
import type { AgentConfig } from "./config.ts";
import type { Endpoints } from "./endpoints.io.ts";
import { nodeStatusOf, type NodeStatus, type StatusClass } from "./nodeStatus.ts";
import { routerIdOf } from "./routerId.ts";
import { createRouting, type Routing } from "./routing.io.ts";
import { announcesServices, serviceRoutes } from "./serviceRoutes.ts";

/** This node's BGP, kept as the datastore, the kernel's interfaces and the passwords say. */
export interface Bgp {
  readonly routing: Routing;
  /** Objects of the kind have changed; says whether that concerns BGP. */
  changed(kind: string): boolean;
  /** Works out what has changed since the last time, and carries it out. */
  apply(): void;
  /** Interfaces, addresses or others' routes have changed. */
  kernelChanged(): void;
  /** What in the configuration has no effect, in words. */
  problems(): readonly string[];
  /** For a CalicoNodeStatus; undefined while this node has no address. */
  status(classes: readonly StatusClass[]): NodeStatus | undefined;
  /** Ends the sessions without a word. */
  abandon(): Promise<void>;
}

export interface BgpOptions {
  readonly config: AgentConfig;
  readonly datastore: Datastore;
  readonly cluster: Cluster;
  readonly rtnetlink: Rtnetlink;
  readonly routeTable: RouteTable;
  readonly endpoints: Endpoints;
  readonly addressing: Addressing;
  /** What names of pods' interfaces begin with. */
  readonly workloadPrefixes: readonly string[];
  /** Tunnels that the agent makes itself. */
  readonly tunnels: ReadonlySet<"ipip" | "vxlan">;
  /** Something that only BGP follows has changed: `apply` is due. */
  readonly onChange: () => void;
  readonly log: Log;
}

const CONFIGURED: ReadonlySet<string> = new Set(["Node", "IPPool", "BGPConfiguration", "BGPPeer", "BGPFilter"]);

export function createBgp(options: BgpOptions): Bgp {
  const { config, datastore, cluster, rtnetlink, routeTable, endpoints, addressing } = options;
  const { nodeName } = config;
  const log: Log = (level, ...line) => {
    if (isLogged(level, plan?.logSeverity ?? "Info")) options.log(level, ...line);
  };
  const routing = createRouting({ rtnetlink, routeTable, log });
  const secrets = createBgpSecrets({
    datastore,
    namespace: config.secretNamespace,
    onChange() {
      stale = true;
      options.onChange();
    },
    log,
  });
  let plan: BgpPlan | undefined;
  let stale = true;
  let heldBlocks = "";
  let interfaces: readonly NodeInterface[] | undefined;
  let kernelRoutes: readonly KernelRoute[] | undefined;
  let told: readonly string[] = [];
  const started = new Date();
  let configured = started;
  let version: string | undefined;

  const general = () => cluster.get("BGPConfiguration", "default")?.spec;
  const followsPods = (): boolean =>
    cluster.items("BGPPeer").some(({ spec }) => spec.localWorkloadSelector !== undefined);

  function nodeInterfaces(): readonly NodeInterface[] {
    if (interfaces !== undefined) return interfaces;
    const names = new Map(rtnetlink.links().map(({ index, name }) => [index, name]));
    const networks = new Map<string, NodeInterface["networks"][number][]>();
    for (const { device, address, scope } of rtnetlink.addresses()) {
      const name = names.get(device);
      if (name === undefined || scope !== SCOPE_GLOBAL) continue;
      const list = networks.get(name) ?? [];
      networks.set(name, list);
      list.push(networkOf(address.address, address.length));
    }
    interfaces = [...networks].map(([name, list]) => ({ name, networks: list }));
    return interfaces;
  }

  function routesInKernel(): readonly KernelRoute[] {
    if (kernelRoutes !== undefined) return kernelRoutes;
    const names = new Map(rtnetlink.links().map(({ index, name }) => [index, name]));
    kernelRoutes = routesOfOthers(routing.otherRoutes(), (device) => names.get(device), options.workloadPrefixes);
    return kernelRoutes;
  }

  /** What BGP goes by of the kernel, as text. */
  const surroundings = (): string =>
    [
      ...nodeInterfaces().map(({ name, networks }) => `${name} ${networks.map(formatPrefix).join(" ")}`),
      textOfRoutes(routesInKernel()),
    ].join("\n");

  /** Pods of this node with the labels by which a BGPPeer may select them. */
  function workloads(): LocalWorkload[] {
    if (!followsPods()) return [];
    return endpoints.list().flatMap(({ namespace, pod: name, hostInterface, addresses }): LocalWorkload[] => {
      const pod = name === undefined || namespace === undefined ? undefined : cluster.get("Pod", name, namespace);
      const endpoint = pod && podToEndpoint(pod, { node: nodeName, interfacePrefix: "" }, ["0.0.0.0/32"]);
      if (endpoint === undefined) return [];
      const home = cluster.get("Namespace", namespace ?? "");
      const inherited = home === undefined ? {} : namespaceToProfile(home).labels;
      return [{ labels: { ...inherited, ...endpoint.labels }, addresses, hostInterface }];
    });
  }

  function workOut(): BgpPlan | undefined {
    const configuration = general();
    const self = cluster.get("Node", nodeName);
    const isAnnouncing = announcesServices(configuration);
    return planBgp({
      nodeName,
      nodes: cluster.items("Node"),
      configurations: cluster.items("BGPConfiguration"),
      peers: cluster.items("BGPPeer"),
      filters: cluster.items("BGPFilter"),
      pools: cluster.items("IPPool"),
      blocks: addressing.blocks(),
      borrowed: addressing.borrowed(),
      services: serviceRoutes({
        nodeName,
        labels: self?.metadata.labels ?? {},
        configuration,
        services: isAnnouncing ? cluster.items("Service") : [],
        slices: isAnnouncing ? cluster.items("EndpointSlice") : [],
      }),
      interfaces: nodeInterfaces(),
      kernelRoutes: routesInKernel(),
      workloadPrefixes: options.workloadPrefixes,
      workloads: workloads(),
      secret: (name, key) => secrets.value(name, key),
      tunnels: options.tunnels,
    });
  }

  return {
    routing,
    changed(kind) {
      const concerned =
        CONFIGURED.has(kind) ||
        ((kind === "Service" || kind === "EndpointSlice") && announcesServices(general())) ||
        ((kind === "Pod" || kind === "Namespace") && followsPods());
      if (concerned) stale = true;
      return concerned;
    },
    apply() {
      const blocks = [...addressing.blocks(), ...addressing.borrowed()].map(formatPrefix).join(" ");
      if (!stale && blocks === heldBlocks) return;
      const found = workOut();
      if (found === undefined) return;
      secrets.follow(found.secrets);
      // Sessions that would wait for a Secret that is on its way are not begun without it: others would take the node
      // for settled, and the kernel would lose what these have to say.
      if (plan === undefined && !secrets.known()) return;
      stale = false;
      heldBlocks = blocks;
      plan = found;
      configured = new Date();
      for (const problem of found.problems) if (!told.includes(problem)) log("warn", "BGP configuration", { problem });
      told = found.problems;
      const self = cluster.get("Node", nodeName);
      const ipv4 = self === undefined ? undefined : nodeNetwork(self).ipv4?.address;
      routing.apply(found, routerIdOf(config.routerId, nodeName, ipv4));
    },
    kernelChanged() {
      const before = surroundings();
      interfaces = undefined;
      kernelRoutes = undefined;
      routing.kernelChanged();
      if (before === surroundings()) return;
      stale = true;
      options.onChange();
    },
    problems: () => told,
    status(classes) {
      if (plan === undefined) return undefined;
      const self = cluster.get("Node", nodeName);
      const { ipv4, ipv6 } = self === undefined ? {} : nodeNetwork(self);
      const families: Family[] = [
        ...(ipv4 === undefined ? [] : [4 as const]),
        ...(ipv6 === undefined ? [] : [6 as const]),
      ];
      const names = new Map(rtnetlink.links().map(({ index, name }) => [index, name]));
      return nodeStatusOf({
        classes,
        now: new Date(),
        version: (version ??= ownVersion()),
        routerId: routerIdOf(config.routerId, nodeName, ipv4?.address),
        started,
        configured,
        isReady: routing.settled(),
        families,
        peers: routing.peers(),
        routes: () => routing.routes({ view: "best" }),
        kernelRoutes: () => rtnetlink.routes({ table: TABLE_MAIN }).filter(({ protocol }) => protocol !== PROTOCOL_BGP),
        interfaceName: (index) => names.get(index) ?? String(index),
      });
    },
    async abandon() {
      secrets.stop();
      await routing.abandon();
    },
  };
}

function ownVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}
