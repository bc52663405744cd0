import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import type { CniNode } from "../cni/node.ts";
import { macFromRandom, NODE_SYSCTLS } from "../dataplane/endpoint.ts";
import { hostMtu, podMtu, type Encapsulation } from "../dataplane/mtu.ts";
import { bestRoute, blackholeRoute, type RouteOwnership } from "../dataplane/routes.ts";
import { createRouteTable } from "../dataplane/routeTable.io.ts";
import { writeSysctls } from "../dataplane/podInterfaces.io.ts";
import type { Datastore } from "../datastore/datastore.ts";
import type { Address } from "../ip/address.ts";
import { isHostPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import { TABLE_MAIN } from "../netlink/route.ts";
import { openRtnetlink } from "../netlink/rtnetlink.io.ts";
import { felixFromEnvironment, felixSettings, type FelixSettings } from "../resources/config.ts";
import type { IPPool } from "../resources/ippool.ts";
import { nodeNetwork } from "../resources/nodeNetwork.ts";
import { createAddressSource } from "./addresses.io.ts";
import { createAddressing } from "./addressing.io.ts";
import { announcedBlocks, planBgp } from "./bgpPeers.ts";
import { startCniServer } from "./cniServer.io.ts";
import { followCluster } from "./cluster.io.ts";
import type { AgentConfig } from "./config.ts";
import { createEndpoints } from "./endpoints.io.ts";
import { agentAnswers, startHealth } from "./health.io.ts";
import { watchKernel } from "./kernelWatch.io.ts";
import { createAddressPublisher } from "./nodeAddress.io.ts";
import { podFacts } from "./podFacts.ts";
import { createPublisher } from "./publisher.io.ts";
import { openEndpointFiles } from "./register.io.ts";
import { createRouting, routerIdOf } from "./routing.io.ts";
import { ensurePools } from "./startup.io.ts";
import { startStatusServer } from "./statusServer.io.ts";
import { createWorkloadLinks } from "./workloadLinks.ts";

export type Log = (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;

export interface RunningAgent {
  /** Lets go of everything and changes nothing: kernel and peers keep what they have until the next agent comes. */
  stop(): Promise<void>;
}

/** How long changes gather before they are carried out together. */
const SETTLE_MS = 5;
/** Pauses between tries to join the cluster. */
const JOIN_RETRY_MS = { first: 200, longest: 10_000 };

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
      if (kind === "FelixConfiguration") felix = mtu = undefined;
      if (kind === "IPPool" || kind === "Node" || kind === "IPReservation" || kind === "IPAMConfiguration") {
        addressing.worldChanged();
        addressing.tidy();
        mtu = undefined;
      }
      if (kind !== "Pod") applySoon();
    },
    onBlocks(change) {
      if (addressing.observe(change)) applySoon();
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
      health.metrics?.routeProblem();
      log("warn", "the kernel refused a route", { destination, reason });
    },
  });
  const publisher = createPublisher(datastore, (message) => log("warn", message, {}));
  const endpoints = createEndpoints({
    rtnetlink,
    files: openEndpointFiles(`${runDirectory}/endpoints`, (path, reason) =>
      log("warn", "an endpoint's file cannot be read", { path, reason }),
    ),
    routeTable,
    publisher,
    interfacePrefix: interfacePrefixes[0] ?? "cali",
    isWorkloadInterface,
    routeProtocol: () => settings().deviceRouteProtocol,
    log,
  });
  const routing = createRouting({ rtnetlink, routeTable, log });

  // From what is known to what the kernel and the peers should have.
  let timer: NodeJS.Timeout | undefined;
  function applySoon(): void {
    if (cluster.isSynced() && !stopped) timer ??= setTimeout(apply, SETTLE_MS);
  }
  function apply(): void {
    clearTimeout(timer);
    timer = undefined;
    if (!cluster.isSynced() || stopped) return;
    try {
      const blocks = addressing.blocks().filter((block) => !isHostPrefix(block));
      routeTable.want("blocks", "agent", blocks.map(blackholeRoute));
      if (speaksBgp) applyBgp();
      routeTable.reconcile();
    } catch (error) {
      log("warn", "the node's state could not be brought up to date", { reason: messageOf(error) });
    }
  }
  function applyBgp(): void {
    const pools = cluster.items("IPPool");
    const blocks = addressing.blocks();
    const plan = planBgp({
      nodeName,
      pools,
      blocks,
      nodes: cluster.items("Node"),
      configurations: cluster.items("BGPConfiguration"),
      peers: cluster.items("BGPPeer"),
    });
    if (plan === undefined) return;
    const self = cluster.get("Node", nodeName);
    const ipv4 = self === undefined ? undefined : nodeNetwork(self).ipv4?.address;
    const announced = announcedBlocks([...blocks, ...addressing.borrowed()], pools);
    routing.apply(plan, routerIdOf(config.routerId, nodeName, ipv4), announced);
  }

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
  let mtu: number | undefined;
  const endKernelWatch = watchKernel({
    routeTable,
    workloadLinks,
    isWorkloadInterface,
    isInUse: (hostInterface) => endpoints.isInUse(hostInterface),
    isUp: (hostInterface) => rtnetlink.link(hostInterface)?.up === true,
    onAddresses: checkAddress,
    onSurroundings() {
      workloadLinks.sync(rtnetlink.links());
      mtu = undefined;
      routing.kernelChanged();
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
  function currentPodMtu(): number {
    if (mtu !== undefined) return mtu;
    const links = rtnetlink.links().map(({ name, mtu: size, operState }) => ({
      name,
      mtu: size,
      up: operState === "up" || operState === "unknown",
    }));
    mtu = podMtu(hostMtu(links, settings().mtuIfacePattern), encapsulations(cluster.items("IPPool")));
    // For configurations that have runtimes or other plugins read it, as Calico's do.
    writeFileSync(`${libDirectory}/mtu`, `${mtu}\n`);
    return mtu;
  }

  /** Whether the kernel has a way to the address that is more than the default route. */
  function reaches(address: Address): boolean {
    const best = bestRoute(address, rtnetlink.routes({ family: address.family, table: TABLE_MAIN }));
    return best !== undefined && best.type === "unicast" && best.destination.length > 0;
  }

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
      apply,
      reaches,
      waitingFor: () => [...waitingFor],
      addressReason: () => nodeAddress.chosen(),
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
    podMtu: currentPodMtu,
    randomMac: () => macFromRandom(randomBytes(6)),
    podFacts: (namespace, name, uid) => podFacts(cluster, datastore, namespace, name, uid),
  };
  const cni = await startCniServer({
    runDirectory,
    node,
    interfacePrefix: endpoints.interfacePrefix,
    onRequest: (milliseconds, ok) => health.metrics?.cniRequest(milliseconds, ok),
    onError: (message) => log("warn", message, {}),
  });

  const refreshTimers: NodeJS.Timeout[] = [];
  const every = (milliseconds: number, work: () => void): void => {
    if (milliseconds > 0) refreshTimers.push(setInterval(work, milliseconds).unref());
  };
  /** The datastore's part of the start, tried until it succeeds: pods that run need nothing of it. */
  async function join(): Promise<void> {
    await cluster.synced;
    felix = undefined; // until now only the environment was known
    addressing.worldChanged();
    waitingFor.add("this node's address");
    for (let pause = JOIN_RETRY_MS.first; !stopped; pause = Math.min(pause * 2, JOIN_RETRY_MS.longest)) {
      try {
        await nodeAddress.publish();
        for (const pool of await ensurePools(datastore, config))
          log("info", "a pool is made, since there was none", { pool });
        await addressing.allocator.load();
        break;
      } catch (error) {
        log("warn", "the node cannot join the cluster yet", { reason: messageOf(error), retryMs: pause });
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
    if (stopped) return;
    waitingFor.delete("this node's address");
    addressing.tidy();
    await endpoints.sweep(cluster.items("Pod"));
    endpoints.republish((namespace, pod) => cluster.get("Pod", pod, namespace));
    currentPodMtu();
    routeTable.allowPrune("agent");
    apply();
    waitingFor.delete("the datastore");
    cni.workOff();
    log("info", "the node is ready for pods", { endpoints: endpoints.list().length });
    every(settings().routeRefreshInterval, () => routeTable.kick());
    every(config.autodetectIntervalMs, checkAddress);
  }
  void join().catch((error: unknown) => log("warn", "the start failed", { reason: messageOf(error) }));

  return {
    async stop() {
      stopped = true;
      for (const each of refreshTimers) clearInterval(each);
      clearTimeout(timer);
      endKernelWatch();
      cluster.stop();
      publisher.close();
      await cni.close();
      await status.close();
      await health.close();
      await routing.abandon();
      await endpoints.interfaces.settled();
      routeTable.close();
      rtnetlink.close();
    },
  };
}

/** The tunnels that pods' packets may have to fit through. */
function encapsulations(pools: readonly IPPool[]): Encapsulation[] {
  const enabled = new Set<Encapsulation>();
  for (const { spec } of pools) {
    if (spec.ipipMode !== "Never") enabled.add("ipip");
    if (spec.vxlanMode !== "Never") enabled.add(spec.cidr.includes(":") ? "vxlanV6" : "vxlan");
  }
  return [...enabled];
}
