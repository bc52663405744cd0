import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import type { CniNode } from "../cni/node.ts";
import { macFromRandom, NODE_SYSCTLS } from "../dataplane/endpoint.ts";
import type { RouteOwnership } from "../dataplane/routes.ts";
import { createRouteTable } from "../dataplane/routeTable.io.ts";
import { writeSysctls } from "../dataplane/podInterfaces.io.ts";
import type { Datastore } from "../datastore/datastore.ts";
import { messageOf } from "../lib/errors.ts";
import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import { felixFromEnvironment, felixSettings, type FelixSettings } from "../resources/config.ts";
import { createAddressSource } from "./addresses.io.ts";
import { createAddressing } from "./addressing.io.ts";
import { createBgp } from "./bgp.io.ts";
import type { Canal } from "./canal.io.ts";
import { carryingOut } from "./carryOut.io.ts";
import { startCniServer } from "./cniServer.io.ts";
import { followCluster } from "./cluster.io.ts";
import type { AgentConfig } from "./config.ts";
import { createEndpoints } from "./endpoints.io.ts";
import { agentAnswers, startHealth } from "./health.io.ts";
import { returnIdleMemory } from "./idleMemory.io.ts";
import { watchKernel } from "./kernelWatch.io.ts";
import { createAddressPublisher } from "./nodeAddress.io.ts";
import { reportNodeStatus } from "./nodeStatus.io.ts";
import { podFacts } from "./podFacts.ts";
import { nodePolicy } from "./policy.io.ts";
import { createPathCheck } from "./pathCheck.io.ts";
import { createPodMtu } from "./podMtu.io.ts";
import { createPublisher } from "./publisher.io.ts";
import { openEndpointFiles } from "./register.io.ts";
import { ensurePools, untilDone } from "./startup.io.ts";
import { startStatusServer } from "./statusServer.io.ts";
import { createTunnels } from "./tunnels.io.ts";
import { createWorkloadLinks } from "./workloadLinks.ts";

export type Log = (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;

export interface RunningAgent {
  /** Lets go of everything and changes nothing: kernel and peers keep what they have until the next agent comes. */
  stop(): Promise<void>;
}

/** Kinds that change all the time, and that concern only who says so. */
const PASSED_ON: ReadonlySet<string> = new Set(["Pod", "Service", "EndpointSlice", "CalicoNodeStatus"]);
/** Kinds that the rules of every node depend on. */
const POLICY_FACTS: ReadonlySet<string> = new Set(["FelixConfiguration", "IPPool", "Node", "BGPConfiguration"]);
/** How long the policy of a start is waited for at a time. */
const POLICY_MS = 10_000;

/**
 * The agent of one node, in the network namespace of the calling thread. It takes over what the kernel has from an
 * earlier agent, learns what should be, and only then changes what differs.
 */
export async function startAgent(config: AgentConfig, datastore: Datastore, log: Log): Promise<RunningAgent> {
  const { nodeName, runDirectory, libDirectory } = config;
  for (const directory of [runDirectory, libDirectory]) mkdirSync(directory, { recursive: true, mode: 0o755 });
  // Calico's configurations and runbooks find the node's name there.
  writeFileSync(`${libDirectory}/nodename`, nodeName);
  const environment = felixFromEnvironment(config.felix);
  for (const { path, reason } of environment.faults)
    log("warn", "a setting is passed over", { variable: path, reason });
  const speaksBgp = config.networkingBackend === "bird";
  /** Why this node cannot carry pods' traffic yet; empty when it can. */
  const waitingFor = new Set(["the datastore"]);
  let stopped = false;

  // What people configure, as far as it is known.
  let felix: FelixSettings | undefined;
  const settings = (): FelixSettings => {
    felix ??= felixSettings({
      environment: environment.settings,
      node: cluster.get("FelixConfiguration", `node.${nodeName}`),
      global: cluster.get("FelixConfiguration", "default"),
    });
    return felix;
  };
  const addressing = createAddressing(datastore, nodeName, () => cluster, log);
  const cluster = followCluster(datastore, nodeName, {
    onChange(kind) {
      if (kind === "FelixConfiguration") felix = undefined;
      if (kind === "IPPool" || kind === "Node" || kind === "FelixConfiguration") podMtu.changed();
      if (kind === "IPPool" || kind === "Node" || kind === "IPReservation" || kind === "IPAMConfiguration") {
        addressing.worldChanged();
        addressing.tidy();
      }
      if (kind === "IPPool" || kind === "Node" || kind === "FelixConfiguration") tunnels.changed();
      if (POLICY_FACTS.has(kind)) policy.factsChanged();
      paths.changed(kind);
      const concernsBgp = speaksBgp && bgp.changed(kind);
      if (concernsBgp || !PASSED_ON.has(kind)) carryOut.soon();
    },
    onBlocks(change) {
      const [own, others] = [addressing.observe(change), tunnels.observe(change)];
      paths.observe(change);
      if (own || others) carryOut.soon();
    },
    policy: {
      put: (kind, object) => policy.listener.put(kind, object),
      idOf: (kind, object) => policy.listener.idOf(kind, object),
      gone: (kind, id) => policy.listener.gone(kind, id),
    },
  });

  // The kernel, as an earlier agent has left it: taken over before anything else is known.
  const rtnetlink = openRtnetlink();
  writeSysctls(NODE_SYSCTLS);
  const interfacePrefixes = environment.settings.interfacePrefix ?? ["cali"];
  const isWorkloadInterface = (name: string): boolean => interfacePrefixes.some((prefix) => name.startsWith(prefix));
  const workloadLinks = createWorkloadLinks(isWorkloadInterface);
  const ownership = (): RouteOwnership => {
    const { removeExternalRoutes, deviceRouteProtocol } = settings();
    return { workloadDevices: workloadLinks.indexes, removeExternalRoutes, deviceRouteProtocol, bgp: speaksBgp };
  };
  const routeTable = createRouteTable({
    rtnetlink,
    ownership,
    onChange: (added, removed) => health.metrics?.routesChanged(added, removed),
    onProblem({ destination, reason }) {
      health.metrics?.failed();
      log("warn", "the kernel refused a route", { destination, reason });
    },
  });
  const publisher = createPublisher(datastore, (message) => log("warn", message, {}));
  const policy = nodePolicy({
    nodeName,
    interfacePrefix: interfacePrefixes[0] ?? "cali",
    isWorkloadInterface,
    cutForbidden: config.cutForbiddenFlows,
    ownsTables: config.ownsTables,
    families: environment.settings.ipv6Support === false ? [4] : [4, 6],
    rtnetlink,
    datastore,
    cluster: () => cluster,
    settings,
    onApplied: (milliseconds) => health.metrics?.policyApplied(milliseconds),
    onFailed: () => health.metrics?.failed(),
    log,
  });
  const endpoints = createEndpoints({
    rtnetlink,
    files: openEndpointFiles(`${runDirectory}/endpoints`, (path, reason) =>
      log("warn", "an endpoint's file cannot be read", { path, reason }),
    ),
    routeTable,
    publisher,
    policy: policy.endpoints,
    interfacePrefix: interfacePrefixes[0] ?? "cali",
    isWorkloadInterface,
    routeProtocol: () => settings().deviceRouteProtocol,
    log,
  });
  const tunnels = createTunnels({
    nodeName,
    rtnetlink,
    routeTable,
    datastore,
    allocator: addressing.allocator,
    cluster: () => cluster,
    settings,
    isWorkloadInterface,
    onDisturbance: () => carryOut.soon(),
    log,
  });
  let canal: Canal | undefined;
  const paths = createPathCheck({
    nodeName,
    cluster: () => cluster,
    rtnetlink,
    podMtu: () => podMtu.current(),
    usesPodCidrs: config.networkingBackend === "none",
    intervalMs: config.pathCheckIntervalMs,
    log,
  });
  const bgp = createBgp({
    config,
    datastore,
    cluster,
    rtnetlink,
    routeTable,
    endpoints,
    addressing,
    workloadPrefixes: interfacePrefixes,
    tunnels: tunnels.active,
    onChange: () => carryOut.soon(),
    log,
  });
  const { routing } = bgp;

  const carryOut = carryingOut({
    isReady: () => cluster.isSynced() && !stopped,
    settings,
    addressing,
    tunnels,
    routeTable,
    bgp: () => (speaksBgp ? bgp : undefined),
    log,
  });
  const podMtu = createPodMtu({
    rtnetlink,
    settings,
    pools: () => cluster.items("IPPool"),
    flannelMtu: () => canal?.status()?.mtu,
    file: `${libDirectory}/mtu`,
  });

  // What changes under our feet.
  const nodeAddress = createAddressPublisher(
    config,
    rtnetlink,
    datastore,
    () => cluster.get("Node", nodeName),
    (chosen) => log("info", "this node's address", { chosen }),
  );
  const checkAddress = (): void => {
    if (!cluster.isSynced() || stopped) return;
    nodeAddress
      .publish()
      .catch((error: unknown) =>
        log("warn", "this node's address could not be published", { reason: messageOf(error) }),
      );
  };
  const endKernelWatch = watchKernel({
    routeTable,
    workloadLinks,
    isWorkloadInterface,
    isInUse: (hostInterface) => endpoints.isInUse(hostInterface),
    isUp: (hostInterface) => rtnetlink.link(hostInterface)?.up === true,
    onAddresses: checkAddress,
    onSurroundings() {
      workloadLinks.sync(rtnetlink.links());
      podMtu.changed();
      policy.interfacesChanged();
      tunnels.kernelChanged();
      carryOut.soon();
      if (speaksBgp) bgp.kernelChanged();
    },
    onFailure(failure) {
      // Without the kernel's word this agent would be blind: the next one starts afresh.
      log("warn", "the kernel's changes cannot be followed any more; the agent ends", { reason: failure.message });
      process.exitCode = 1;
      process.kill(process.pid, "SIGTERM");
    },
  });

  workloadLinks.sync(rtnetlink.links());
  endpoints.adopt();

  // Who may ask: probes and scrapers, the command line, the container runtime.
  const health = await startHealth({
    settings: () => environment.settings,
    waitingFor: () => [
      ...waitingFor,
      ...(speaksBgp && cluster.isSynced() && !routing.settled() ? ["BGP to settle"] : []),
    ],
    endpoints: () => endpoints.list().length,
    hosts: () => cluster.items("Node").length,
    routes: () => routeTable.size(),
    blocks: () => addressing.blocks().length,
    policy: () => policy.engine.status().size,
    rules() {
      const { renderer, told, size } = policy.engine.status();
      return { renderer, sizes: policy.engine.ruleSizes(), sets: size.sets, told };
    },
    count: (kind) => cluster.count(kind),
    bgpPeers: () => routing.peers(),
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
      bgpProblems: () => bgp.problems(),
      routeTable,
      endpoints,
      policy: policy.engine,
      addressing,
      apply: () => carryOut.now(),
      rtnetlink,
      waitingFor: () => [...waitingFor],
      addressReason: () => nodeAddress.chosen(),
      tunnels: () => tunnels.status(),
      paths: () => paths.status(),
      flannel: () => canal?.status(),
    }),
  );
  const node: CniNode = {
    addresses: createAddressSource(addressing.allocator, () => cluster.get("Node", nodeName)?.spec.podCIDRs ?? []),
    interfaces: endpoints.interfaces,
    endpoints,
    notReady() {
      if (waitingFor.size > 0) return `it waits for ${[...waitingFor].join(" and ")}`;
      const isOpen = cluster.get("ClusterInformation", "default")?.spec.datastoreReady ?? true;
      return isOpen ? undefined : "the cluster's datastore is locked (ClusterInformation datastoreReady is false)";
    },
    podMtu: () => podMtu.current(),
    randomMac: () => macFromRandom(randomBytes(6)),
    podFacts: (namespace, name, uid) => podFacts(cluster, datastore, namespace, name, uid),
  };
  await policy.guard();
  const cni = await startCniServer({
    runDirectory,
    node,
    interfacePrefix: endpoints.interfacePrefix,
    onRequest: (milliseconds, ok) => health.metrics?.cniRequest(milliseconds, ok),
    onError: (message) => log("warn", message, {}),
  });

  let endStatusReports: (() => void) | undefined;
  const refreshTimers: NodeJS.Timeout[] = [];
  const every = (milliseconds: number, work: () => void): void => {
    if (milliseconds > 0) refreshTimers.push(setInterval(work, milliseconds).unref());
  };
  /** The datastore's part of the start, tried until it succeeds: pods that run need nothing of it. */
  async function join(): Promise<void> {
    await cluster.synced;
    felix = undefined; // until now only the environment was known
    addressing.worldChanged();
    waitingFor.add("this node's address").add("its policy");
    await endpoints.sweep(cluster.items("Pod"));
    policy.start();
    const takePlace = async (): Promise<void> => {
      await nodeAddress.publish();
      for (const pool of await ensurePools(datastore, config))
        log("info", "a pool is made, since there was none", { pool });
      await addressing.allocator.load();
      await tunnels.publish();
    };
    await untilDone(takePlace, {
      isWanted: () => !stopped,
      onFailure: (reason, retryMs) => log("warn", "the node cannot join the cluster yet", { reason, retryMs }),
    });
    if (stopped) return;
    if (config.flannel !== undefined) {
      waitingFor.add("flannel");
      const { startCanal } = await import("./canal.io.ts"); // flannel is much code, and few nodes have it
      canal = startCanal({ nodeName, datastore, flannel: config.flannel, log });
      void canal.ready.then(() => {
        podMtu.changed();
        waitingFor.delete("flannel");
      });
    }
    waitingFor.delete("this node's address");
    addressing.tidy();
    endpoints.republish((namespace, pod) => cluster.get("Pod", pod, namespace));
    podMtu.current();
    routeTable.allowPrune("agent");
    carryOut.now();
    waitingFor.delete("the datastore");
    if (speaksBgp) endStatusReports = reportNodeStatus(datastore, nodeName, (classes) => bgp.status(classes), log);
    while (!stopped && !(await policy.engine.settled(POLICY_MS)));
    waitingFor.delete("its policy");
    cni.workOff();
    log("info", "the node is ready for pods", { endpoints: endpoints.list().length });
    every(settings().routeRefreshInterval, () => routeTable.kick());
    every(policy.refreshInterval(), () => policy.check());
    every(config.autodetectIntervalMs, checkAddress);
    paths.changed("Node");
  }
  void join().catch((error: unknown) => log("warn", "the start failed", { reason: messageOf(error) }));
  const endMemoryReturn = returnIdleMemory(() => routing.peers().every(({ bfd }) => bfd === undefined));

  return {
    async stop() {
      stopped = true;
      for (const each of refreshTimers) clearInterval(each);
      carryOut.close();
      endKernelWatch();
      endMemoryReturn();
      cluster.stop();
      publisher.close();
      await cni.close();
      await status.close();
      await health.close();
      endStatusReports?.();
      await bgp.abandon();
      await canal?.stop();
      tunnels.close();
      paths.close();
      await endpoints.interfaces.settled();
      await policy.close();
      routeTable.close();
      rtnetlink.close();
    },
  };
}
