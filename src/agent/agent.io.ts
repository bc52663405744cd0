import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import type { CniNode, PodFacts } from "../cni/node.ts";
import { macFromRandom, NODE_SYSCTLS } from "../dataplane/endpoint.ts";
import { hostMtu, podMtu, type Encapsulation } from "../dataplane/mtu.ts";
import { bestRoute, blackholeRoute, type RouteOwnership } from "../dataplane/routes.ts";
import { createRouteTable } from "../dataplane/routeTable.io.ts";
import type { Datastore } from "../datastore/datastore.ts";
import type { Address } from "../ip/address.ts";
import { formatPrefix, isHostPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import { openMonitor } from "../netlink/monitor.io.ts";
import type { Notification } from "../netlink/notification.ts";
import { TABLE_MAIN } from "../netlink/route.ts";
import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import { writeSysctl } from "../netlink/sysctl.io.ts";
import { felixFromEnvironment, felixSettings, type FelixSettings } from "../resources/config.ts";
import { nodeNetwork, nodeNetworkPatch } from "../resources/nodeNetwork.ts";
import type { Pod } from "../resources/workload.ts";
import { createAddressSource } from "./addresses.io.ts";
import { createAddressing } from "./addressing.io.ts";
import { announcedBlocks, planBgp } from "./bgpPeers.ts";
import { startCniServer } from "./cniServer.io.ts";
import { followCluster } from "./cluster.io.ts";
import type { AgentConfig } from "./config.ts";
import { createEndpoints } from "./endpoints.io.ts";
import { agentAnswers, startHealth } from "./health.io.ts";
import { findNodeAddress } from "./nodeAddress.io.ts";
import { createPublisher } from "./publisher.io.ts";
import { openEndpointFiles } from "./register.io.ts";
import { createRouting, routerIdOf } from "./routing.io.ts";
import { ensureNode, ensurePools } from "./startup.io.ts";
import { startStatusServer } from "./statusServer.io.ts";

export type Log = (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;

export interface RunningAgent {
  /** Lets go of everything and changes nothing: kernel and peers keep what they have until the next agent comes. */
  stop(): Promise<void>;
}

/** How long changes gather before they are carried out together. */
const SETTLE_MS = 5;
/** First of the pauses after a datastore that did not answer at the start. */
const START_RETRY_MS = 200;

/**
 * The agent of one node, in the network namespace of the calling thread. It takes over what the kernel has from an
 * earlier agent, learns what should be, and only then changes what differs.
 */
export async function startAgent(config: AgentConfig, datastore: Datastore, log: Log): Promise<RunningAgent> {
  const { nodeName, runDirectory, libDirectory } = config;
  for (const directory of [runDirectory, libDirectory]) mkdirSync(directory, { recursive: true, mode: 0o755 });
  const environment = felixFromEnvironment(config.felix);
  for (const { path, reason } of environment.faults)
    log("warn", "a setting is passed over", { variable: path, reason });
  let stopped = false;
  /** Why this node cannot carry pods' traffic yet; empty when it can. */
  const waitingFor = new Set(["the datastore"]);

  // The kernel: as it is, before anything is known.
  const rtnetlink = openRtnetlink();
  for (const { key, value } of NODE_SYSCTLS) writeSysctl(key, value);
  let workloadDevices: ReadonlySet<number> | undefined;
  const ownership = (): RouteOwnership => {
    workloadDevices ??= new Set(
      rtnetlink
        .links()
        .filter(({ name }) => endpoints.isWorkloadInterface(name))
        .map(({ index }) => index),
    );
    return {
      workloadDevices,
      removeExternalRoutes: settings().removeExternalRoutes,
      bgp: config.networkingBackend === "bird",
    };
  };
  let felix: FelixSettings | undefined;
  const settings = (): FelixSettings => {
    felix ??= felixSettings({
      environment: environment.settings,
      node: cluster.get("FelixConfiguration", `node.${nodeName}`),
      global: cluster.get("FelixConfiguration", "default"),
    });
    return felix;
  };
  const routeTable = createRouteTable({
    rtnetlink,
    ownership,
    onChange: (added, removed) => health.metrics?.routesChanged(added, removed),
    onProblem: ({ destination, reason }) => {
      health.metrics?.routeProblem();
      log("warn", "the kernel refused a route", { destination, reason });
    },
  });
  const addressing = createAddressing(datastore, nodeName, () => cluster, log);
  const cluster = followCluster(datastore, nodeName, {
    onChange: (kind) => {
      if (kind === "FelixConfiguration") felix = undefined;
      if (kind === "IPPool" || kind === "Node" || kind === "IPReservation" || kind === "IPAMConfiguration") {
        addressing.worldChanged();
        addressing.tidy();
      }
      if (kind !== "Pod") applySoon();
    },
    onBlocks: (change) => {
      addressing.observe(change);
      applySoon();
    },
  });
  const publisher = createPublisher(datastore, (message) => log("warn", message, {}));
  const files = openEndpointFiles(`${runDirectory}/endpoints`, (path, reason) =>
    log("warn", "an endpoint's file cannot be read", { path, reason }),
  );
  const endpoints = createEndpoints({
    rtnetlink,
    files,
    routeTable,
    publisher,
    interfacePrefixes: environment.settings.interfacePrefix ?? ["cali"],
    routeProtocol: () => settings().deviceRouteProtocol,
    log,
  });
  endpoints.adopt();
  const routing = createRouting({ rtnetlink, routeTable, log });

  /** Works out what should be, and has it written where it differs. */
  let timer: NodeJS.Timeout | undefined;
  function applySoon(): void {
    if (!cluster.isSynced() || stopped) return;
    timer ??= setTimeout(apply, SETTLE_MS);
  }
  function apply(): void {
    clearTimeout(timer);
    timer = undefined;
    if (!cluster.isSynced() || stopped) return;
    try {
      const blocks = addressing.blocks();
      routeTable.want("blocks", "agent", blocks.filter((block) => !isHostPrefix(block)).map(blackholeRoute));
      if (config.networkingBackend === "bird") applyBgp();
      routeTable.reconcile();
    } catch (error) {
      log("warn", "the node's state could not be brought up to date", { reason: messageOf(error) });
    }
  }
  function applyBgp(): void {
    const pools = cluster.items("IPPool");
    const announced = announcedBlocks([...addressing.blocks(), ...addressing.borrowed()], pools);
    const plan = planBgp({
      nodeName,
      pools,
      nodes: cluster.items("Node"),
      configurations: cluster.items("BGPConfiguration"),
      peers: cluster.items("BGPPeer"),
      blocks: addressing.blocks(),
    });
    if (plan === undefined) return;
    const self = cluster.get("Node", nodeName);
    const ipv4 = self === undefined ? undefined : nodeNetwork(self).ipv4?.address;
    routing.apply(plan, routerIdOf(config.routerId, nodeName, ipv4), announced);
  }

  /** Whether the kernel has a way to the address that is more than the default route. */
  function reaches(address: Address): boolean {
    const best = bestRoute(address, rtnetlink.routes({ family: address.family, table: TABLE_MAIN }));
    return best !== undefined && best.type === "unicast" && best.destination.length > 0;
  }

  let chosen = "";
  /** Finds the node's addresses and writes them onto its Node, where they differ. */
  async function publishAddresses(): Promise<void> {
    const node = cluster.get("Node", nodeName) ?? (await ensureNode(datastore, nodeName));
    const ipv4 = findNodeAddress(config.address[4], 4, rtnetlink, node);
    const ipv6 = findNodeAddress(config.address[6], 6, rtnetlink, node);
    const change = {
      ipv4: ipv4?.address ?? null,
      ipv6: ipv6?.address ?? null,
      ...(config.asNumber === undefined ? {} : { asNumber: config.asNumber }),
    };
    const patch = nodeNetworkPatch(change);
    const present = node.metadata.annotations ?? {};
    const differs = Object.entries(patch.metadata.annotations).some(
      ([name, value]) => (present[name] ?? null) !== value,
    );
    if (differs) await datastore.patch("Node", nodeName, undefined, patch);
    const text = [ipv4, ipv6]
      .flatMap((found) => (found === undefined ? [] : [`${formatPrefix(found.address)}: ${found.reason}`]))
      .join("; ");
    if (text !== chosen) log("info", "this node's address", { chosen: text });
    chosen = text;
  }

  // What the kernel says while we run.
  let kernelTimer: NodeJS.Timeout | undefined;
  function kernelChanged(): void {
    kernelTimer ??= setTimeout(() => {
      kernelTimer = undefined;
      if (stopped) return;
      workloadDevices = undefined;
      routing.kernelChanged();
      routeTable.kick();
    }, 50);
  }
  function onKernelEvent({ change, item }: Notification): void {
    if (item.kind === "route") {
      if (item.route.table === TABLE_MAIN && routeTable.observe(change, item.route) === "foreign") kernelChanged();
    } else if (item.kind === "address") {
      kernelChanged();
      if (cluster.isSynced())
        void publishAddresses().catch((error: unknown) =>
          log("warn", "this node's address could not be found", { reason: messageOf(error) }),
        );
    } else if (item.kind === "link") {
      const { name, up } = item.link;
      if (endpoints.isWorkloadInterface(name)) {
        workloadDevices = undefined;
        if (endpoints.findByHostInterface(name) !== undefined && (change === "deleted" || !up)) routeTable.kick();
      } else kernelChanged();
    }
  }
  const closeMonitor = openMonitor(
    { groups: ["link", "address4", "address6", "route4", "route6"] },
    {
      event: onKernelEvent,
      overrun: () => kernelChanged(),
      failed: (failure) => {
        // Without the kernel's word this agent would be blind: the next one starts afresh.
        log("warn", "the kernel's changes cannot be followed any more; the agent ends", { reason: failure.message });
        process.exitCode = 1;
        process.kill(process.pid, "SIGTERM");
      },
    },
  );

  const hostLinks = () =>
    rtnetlink
      .links()
      .map(({ name, mtu, operState }) => ({ name, mtu, up: operState === "up" || operState === "unknown" }));
  let mtu: number | undefined;
  function currentPodMtu(): number {
    const enabled = new Set<Encapsulation>();
    for (const { spec } of cluster.items("IPPool")) {
      if (spec.ipipMode !== "Never") enabled.add("ipip");
      if (spec.vxlanMode !== "Never") enabled.add(spec.cidr.includes(":") ? "vxlanV6" : "vxlan");
    }
    const next = podMtu(hostMtu(hostLinks(), settings().mtuIfacePattern), [...enabled]);
    // For plugins that are configured to read it: the kubelet's, the operator's.
    if (next !== mtu) writeFileSync(`${libDirectory}/mtu`, `${next}\n`);
    mtu = next;
    return next;
  }

  const node: CniNode = {
    addresses: createAddressSource(addressing.allocator, () => cluster.get("Node", nodeName)?.spec.podCIDRs ?? []),
    interfaces: endpoints.interfaces,
    endpoints,
    notReady() {
      if (waitingFor.size > 0) return `it waits for ${[...waitingFor].join(" and ")}`;
      const ready = cluster.get("ClusterInformation", "default")?.spec.datastoreReady ?? true;
      return ready ? undefined : "the cluster's datastore is locked (ClusterInformation datastoreReady is false)";
    },
    podMtu: currentPodMtu,
    randomMac: () => macFromRandom(randomBytes(6)),
    async podFacts(namespace, name, uid) {
      let pod: Pod | undefined = cluster.get("Pod", name, namespace);
      // The watch may be a moment behind the runtime, which has the pod from the same API server.
      if (pod === undefined || (uid !== undefined && pod.metadata.uid !== uid))
        pod = await datastore.get("Pod", name, namespace);
      return pod === undefined ? undefined : podFacts(pod, cluster.get("Namespace", namespace));
    },
  };

  const health = await startHealth({
    settings: () => environment.settings,
    waitingFor: () => [
      ...waitingFor,
      ...(config.networkingBackend === "bird" && cluster.isSynced() && !routing.settled() ? ["BGP to settle"] : []),
    ],
    endpoints: () => endpoints.list().length,
    hosts: () => cluster.items("Node").length,
    routes: () => routeTable.size(),
    blocks: () => addressing.blocks().length,
    peersEstablished: () => routing.peers().filter(({ state }) => state === "established").length,
    inSync: () => cluster.isSynced(),
    log,
  });
  const status = await startStatusServer(
    `${runDirectory}/agent.sock`,
    agentAnswers({
      nodeName,
      config,
      cluster,
      routing,
      routeTable,
      endpoints,
      addressing,
      waitingFor: () => [...waitingFor],
      apply,
      addressReason: () => chosen,
      reaches,
    }),
  );
  const cni = await startCniServer({
    runDirectory,
    node,
    interfacePrefix: endpoints.interfacePrefix,
    onRequest: (milliseconds, ok) => health.metrics?.cniRequest(milliseconds, ok),
    onError: (message) => log("warn", message, {}),
  });

  const refreshTimers: NodeJS.Timeout[] = [];
  /** The datastore's part of the start, tried until it succeeds: pods that run need nothing of it. */
  async function join(): Promise<void> {
    await cluster.synced;
    for (let pause = START_RETRY_MS; !stopped; pause = Math.min(pause * 2, 10_000)) {
      try {
        waitingFor.add("this node's address");
        await publishAddresses();
        waitingFor.delete("this node's address");
        for (const pool of await ensurePools(datastore, config))
          log("info", "a pool is made, since there was none", { pool });
        break;
      } catch (error) {
        log("warn", "the node cannot join the cluster yet", { reason: messageOf(error), retryMs: pause });
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
    if (stopped) return;
    await addressing.allocator.load();
    addressing.tidy();
    await endpoints.sweep(cluster.items("Pod"));
    endpoints.republish((namespace, pod) => cluster.get("Pod", pod, namespace));
    currentPodMtu();
    routeTable.allowPrune("agent");
    apply();
    waitingFor.delete("the datastore");
    cni.workOff();
    log("info", "the node is ready for pods", { node: nodeName, endpoints: endpoints.list().length });
    const every = (milliseconds: number, work: () => void): void => {
      if (milliseconds > 0) refreshTimers.push(setInterval(work, milliseconds).unref());
    };
    every(settings().routeRefreshInterval, () => routeTable.kick());
    every(config.autodetectIntervalMs, () => void publishAddresses().catch(() => undefined));
  }
  void join().catch((error: unknown) => log("warn", "the start failed", { reason: messageOf(error) }));

  return {
    async stop() {
      stopped = true;
      for (const each of refreshTimers) clearInterval(each);
      clearTimeout(timer);
      clearTimeout(kernelTimer);
      cluster.stop();
      publisher.close();
      await cni.close();
      await status.close();
      await health.close();
      await routing.abandon();
      await endpoints.interfaces.settled();
      routeTable.close();
      closeMonitor();
      rtnetlink.close();
    },
  };
}

function podFacts(
  pod: Pod,
  namespace: { metadata: { labels?: Record<string, string>; annotations?: Record<string, string> } } | undefined,
): PodFacts {
  return {
    uid: pod.metadata.uid ?? "",
    annotations: pod.metadata.annotations ?? {},
    namespaceName: pod.metadata.namespace ?? "default",
    namespaceLabels: namespace?.metadata.labels ?? {},
    namespaceAnnotations: namespace?.metadata.annotations ?? {},
  };
}
