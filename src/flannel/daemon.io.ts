import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { formatAddress, sameAddress, type Family } from "../ip/address.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import { TABLE_MAIN } from "../netlink/route.ts";
import { openRtnetlink, type Rtnetlink } from "../netlink/rtnetlink.io.ts";
import type { NetworkConfig } from "./config.ts";
import { type BackendDevices, openDevices } from "./devices.io.ts";
import { chooseExternal, type ExternalChoice, type ExternalInterface } from "./external.ts";
import { openFirewall, type Firewall } from "./firewall.io.ts";
import { describeSubnets, type Lease, type LeaseAttributes, type LeasedSubnets } from "./lease.ts";
import type { FilterNetwork, FilterWish } from "./masquerade.ts";
import { type FlannelNetwork, openNetwork } from "./network.io.ts";
import { podMtu } from "./plane.ts";
import { formatSubnetEnv, parseSubnetEnv, subnetEnvOf } from "./subnetEnv.ts";
import { type Clock, keepTrying, type SubnetManager } from "./subnetManager.ts";

/** Flannel on one node, from the configuration to packets: what flanneld does, and what the agent runs in its place. */
export interface FlannelDaemon {
  status(): FlannelStatus;
  /** Ends following; the kernel keeps what it has, but for the udp backend's device. */
  stop(): Promise<void>;
}

export interface FlannelStatus {
  readonly backend: string;
  readonly subnets: string;
  readonly publicIp: string;
  readonly interface: string;
  readonly mtu: number;
  readonly peers: number;
  readonly devices: Readonly<Record<string, unknown>>;
  readonly problems: readonly string[];
}

export interface DaemonOptions {
  readonly manager: SubnetManager;
  readonly external: ExternalChoice;
  /** Path of a network namespace; the calling thread's own where absent. */
  readonly namespace?: string;
  readonly subnetFile: string;
  readonly ipMasq: boolean;
  readonly forwardRules: boolean;
  readonly resyncSeconds: number;
  readonly clock: Clock;
  readonly log: (level: "info" | "warn", message: string) => void;
  readonly signal: AbortSignal;
}

/** Resolves when pods may be started: the lease is there, the kernel is set up, and subnet.env is written. */
export async function startFlannel(options: DaemonOptions): Promise<FlannelDaemon> {
  const { manager, namespace, log } = options;
  const stopped = new AbortController();
  const signal = AbortSignal.any([options.signal, stopped.signal]);
  const config = await manager.networkConfig(signal);
  const rtnetlink = openRtnetlink(namespace);
  const opened: { close(): Promise<void> | void }[] = [rtnetlink];
  const closeAll = async (): Promise<void> => {
    for (const each of opened.toReversed()) await each.close();
  };
  try {
    const external = findExternal(options.external, config, rtnetlink);
    const { publicIp, publicIpv6 } = external;
    refuseNat(config, external);
    log("info", `other nodes are reached by ${external.name} (${ownAddresses(external)})`);
    const own: LeaseAttributes = {
      backendType: config.backend.type,
      ...(publicIp !== undefined && { publicIp }),
      ...(publicIpv6 !== undefined && { publicIpv6 }),
    };
    const stored = await insist(options, signal, () => manager.stored(own));
    let onLoss = (): void => undefined;
    const devices = openDevices({
      config,
      external,
      rtnetlink,
      stored,
      ...(namespace !== undefined && { namespace }),
      onLoss(reason) {
        log("warn", `the backend's device is made anew: ${reason}`);
        onLoss();
      },
    });
    opened.push(devices);
    const attributes: LeaseAttributes = { ...own, ...devices.attributes };
    const previous = readPrevious(options.subnetFile);
    const lease = await insist(options, signal, () => manager.acquire(config, attributes, previous));
    log("info", `this node has ${describeSubnets(lease.subnets)}`);
    const network = openNetwork({
      config,
      external,
      rtnetlink,
      devices,
      ...(namespace !== undefined && { namespace }),
      onProblem: (sentence) => log("warn", sentence),
    });
    opened.push(network);
    onLoss = network.kick;
    const firewall = openFirewall(config.nftables, namespace);
    opened.push(firewall);
    const node = createNode(options, config, external, devices, network, firewall);
    await node.settle(lease);
    const stopChecking = node.keepRules();
    const following = manager.follow(
      {
        peers: (leases) => network.setPeers(leases),
        moved: (moved) => void node.settle(moved).catch((error: unknown) => log("warn", messageOf(error))),
        problem: (sentence) => log("warn", sentence),
      },
      signal,
    );
    return {
      status: node.status,
      async stop() {
        stopped.abort();
        stopChecking();
        await following.catch(() => undefined);
        await closeAll();
      },
    };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** What this node's lease has set up. */
function createNode(
  { subnetFile, ipMasq, forwardRules, resyncSeconds, log }: DaemonOptions,
  config: NetworkConfig,
  external: ExternalInterface,
  devices: BackendDevices,
  network: FlannelNetwork,
  firewall: Firewall,
) {
  const mtu = podMtu(config, external);
  let subnets: LeasedSubnets = {};
  /** What is done to the rules, one after another. */
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn = (work: () => Promise<void>): Promise<void> => {
    const done = turn.then(work);
    turn = done.catch(() => undefined);
    return done;
  };

  return {
    async settle(lease: Lease): Promise<void> {
      ({ subnets } = lease);
      network.setSubnets(subnets);
      network.reconcile();
      if (ipMasq || forwardRules) {
        // Pods reach each other without them: a host without iptables is no reason to have no network.
        await inTurn(() => firewall.apply(filterWish(config, subnets, ipMasq, forwardRules))).catch((error: unknown) =>
          log("warn", messageOf(error)),
        );
      }
      // Last: a runtime that finds it starts pods.
      writeSubnetFile(subnetFile, formatSubnetEnv(subnetEnvOf(config, subnets, mtu, ipMasq)));
      log("info", `${subnetFile} is written`);
    },
    keepRules(): () => void {
      const timer = setInterval(() => {
        inTurn(async () => {
          if (await firewall.check()) log("info", "flannel's rules in the firewall were put right");
        }).catch((error: unknown) => log("warn", messageOf(error)));
      }, resyncSeconds * 1000);
      timer.unref();
      return () => clearInterval(timer);
    },
    status: (): FlannelStatus => ({
      backend: config.backend.type,
      subnets: describeSubnets(subnets),
      publicIp: ownAddresses(external),
      interface: external.name,
      mtu,
      peers: network.peers().length,
      devices: devices.status(),
      problems: network.problems(),
    }),
  };
}

function findExternal(choice: ExternalChoice, config: NetworkConfig, rtnetlink: Rtnetlink): ExternalInterface {
  const families: Family[] = [...(config.ipv4 ? ([4] as const) : []), ...(config.ipv6 ? ([6] as const) : [])];
  const view = {
    links: rtnetlink.links(),
    addresses: rtnetlink.addresses(),
    routes: rtnetlink.routes({ table: TABLE_MAIN }),
  };
  return chooseExternal(choice, families, view);
}

/** Routes and raw IPIP lead to the interface's own address only: behind a NAT there is no such way. */
function refuseNat({ backend }: NetworkConfig, { ipv4, publicIp }: ExternalInterface): void {
  if (backend.type !== "host-gw" && backend.type !== "ipip") return;
  if (ipv4 === undefined || publicIp === undefined || sameAddress(ipv4.address, publicIp)) return;
  throw new Failure(
    "behind-nat",
    `the backend ${backend.type} cannot send to ${formatAddress(publicIp)}, since the interface has ${formatAddress(ipv4.address)}`,
  );
}

/** Until it works, or the daemon is to end. */
async function insist<Result>(
  { clock, log }: DaemonOptions,
  signal: AbortSignal,
  work: () => Promise<Result>,
): Promise<Result> {
  const done = new AbortController();
  let result: { readonly value: Result } | undefined;
  await keepTrying(
    clock,
    AbortSignal.any([signal, done.signal]),
    async () => {
      result = { value: await work() };
      done.abort();
    },
    (error) => log("warn", messageOf(error)),
  );
  if (result !== undefined) return result.value;
  throw new Failure("stopped", "flannel was told to end before it was ready");
}

function filterWish(config: NetworkConfig, subnets: LeasedSubnets, masquerade: boolean, forward: boolean): FilterWish {
  const networks = (["ipv4", "ipv6"] as const).flatMap((family): FilterNetwork[] => {
    const network = config[family]?.network;
    const subnet = subnets[family];
    return network === undefined || subnet === undefined ? [] : [{ network, subnet }];
  });
  return { networks, masquerade, forward };
}

function ownAddresses({ publicIp, publicIpv6 }: ExternalInterface): string {
  return [publicIp, publicIpv6]
    .flatMap((address) => (address === undefined ? [] : [formatAddress(address)]))
    .join(", ");
}

/** What this node had before; undefined where there is no such file, or none that can be read. */
function readPrevious(file: string): LeasedSubnets | undefined {
  try {
    return parseSubnetEnv(readFileSync(file, "utf8")).subnets;
  } catch {
    return undefined;
  }
}

/** Whole or not at all: a runtime may read it at any time. */
function writeSubnetFile(file: string, text: string): void {
  const directory = dirname(file);
  const temporary = `${directory}/.${basename(file)}`;
  try {
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    writeFileSync(temporary, text, { mode: 0o644 });
    renameSync(temporary, file);
  } catch (error) {
    throw new Failure("subnet-file", `Cannot write ${file}: ${messageOf(error)}`, error);
  }
}
