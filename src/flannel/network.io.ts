import { formatAddress } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import { plan } from "../lib/reconcile.ts";
import { routeKey, sameRoute } from "../dataplane/routes.ts";
import type { LinkAddressSpec } from "../netlink/addr.ts";
import { openMonitor } from "../netlink/monitor.io.ts";
import type { ForwardingEntry, ForwardingSpec, Neighbour, NeighbourSpec } from "../netlink/neigh.ts";
import type { Notification } from "../netlink/notification.ts";
import { PROTOCOL_KERNEL, type Route, TABLE_MAIN } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import type { NetworkConfig } from "./config.ts";
import type { BackendDevices } from "./devices.io.ts";
import type { ExternalInterface } from "./external.ts";
import type { Lease, LeasedSubnets } from "./lease.ts";
import { desiredState, type Devices, type KernelState, PROTOCOL_FLANNEL, unreachablePeers } from "./plane.ts";

/** Keeps the kernel as the leases want it: whatever somebody else deletes or changes is put right within a second. */
export interface FlannelNetwork {
  setSubnets(own: LeasedSubnets): void;
  /** The first call allows to remove what an earlier daemon has left: before it, nobody knows what is stale. */
  setPeers(peers: readonly Lease[]): void;
  /** Looks again soon. */
  readonly kick: () => void;
  /** Compares and writes now. Returns what did not work. */
  reconcile(): readonly string[];
  problems(): readonly string[];
  peers(): readonly Lease[];
  close(): void;
}

export interface NetworkOptions {
  readonly config: NetworkConfig;
  readonly external: ExternalInterface;
  readonly rtnetlink: Rtnetlink;
  readonly namespace?: string;
  readonly devices: BackendDevices;
  readonly onProblem: (sentence: string) => void;
}

/** How long changes gather; how long after a failure it is tried again; and how often it is looked at in any case. */
const SETTLE_MS = 50;
const RETRY_MS = { first: 200, longest: 10_000 };
const RESYNC_MS = 10_000;

export function openNetwork(options: NetworkOptions): FlannelNetwork {
  const { config, external, rtnetlink, namespace, devices, onProblem } = options;
  let own: LeasedSubnets = {};
  let peers: readonly Lease[] = [];
  let synced = false;
  let wanted: KernelState = { addresses: [], routes: [], neighbours: [], forwarding: [] };
  let wantedRoutes: ReadonlySet<string> = new Set();
  let ours: ReadonlySet<number> = new Set();
  let problems: readonly string[] = [];
  let retryMs = RETRY_MS.first;
  let timer: NodeJS.Timeout | undefined;
  let due = 0;
  let closed = false;

  function reconcile(): readonly string[] {
    const found: string[] = [];
    const attempt = (work: () => void): void => {
      try {
        work();
      } catch (error) {
        found.push(messageOf(error));
      }
    };
    attempt(() => {
      const made: Devices = devices.ensure(own, synced ? peers : undefined);
      ours = new Set([made.ipv4, made.ipv6].filter((index) => index !== undefined));
      wanted = desiredState({ config, external, own, peers, devices: made });
      wantedRoutes = new Set(wanted.routes.map(routeKey));
    });
    writeAddresses(attempt);
    // Ways before what uses them, and the other way round when they go.
    const entries = planEntries();
    for (const { kind, item } of entries.forwarding)
      if (kind !== "remove") attempt(() => rtnetlink.replaceForwarding(item));
    for (const { kind, item } of entries.neighbours)
      if (kind !== "remove") attempt(() => rtnetlink.replaceNeighbour(item));
    writeRoutes(found);
    if (synced) {
      for (const { kind, item } of entries.neighbours)
        if (kind === "remove") attempt(() => rtnetlink.deleteNeighbour(item));
      for (const { kind, item } of entries.forwarding)
        if (kind === "remove") attempt(() => rtnetlink.deleteForwarding(item));
    }
    report(found);
    return problems;
  }

  function writeAddresses(attempt: (work: () => void) => void): void {
    // Link-local addresses are the kernel's own.
    const present = rtnetlink.addresses().filter(({ device, scope }) => ours.has(device) && scope === 0);
    const changes = plan(keyed(wanted.addresses, addressKey), keyed<LinkAddressSpec>(present, addressKey), () => true);
    for (const { kind, item } of changes) {
      attempt(() => void (kind === "remove" ? rtnetlink.deleteAddress(item) : rtnetlink.addAddress(item)));
    }
  }

  function planEntries() {
    const neighbours = rtnetlink.neighbours().filter(({ device, state }) => ours.has(device) && state === "permanent");
    const forwarding = rtnetlink.forwarding().filter((entry) => ours.has(entry.device) && entry.self === true);
    return {
      neighbours: plan<NeighbourSpec>(
        keyed(wanted.neighbours, neighbourKey),
        keyed<Neighbour>(neighbours, neighbourKey),
        (a, b) => a.linkAddress === b.linkAddress,
      ),
      forwarding: plan<ForwardingSpec>(
        keyed(wanted.forwarding, forwardingKey),
        keyed(forwarding.map(specOf), forwardingKey),
        (a, b) => addressText(a.destination) === addressText(b.destination),
      ),
    };
  }

  function writeRoutes(found: string[]): void {
    const actual = rtnetlink.routes({ table: TABLE_MAIN });
    const mine = actual.filter(({ protocol }) => protocol === PROTOCOL_FLANNEL);
    const changes = plan(keyed(wanted.routes, routeKey), keyed(mine, routeKey), sameRoute)
      .filter(({ kind }) => kind !== "remove" || synced)
      // What an earlier flannel has written (`proto boot`) is taken over, not added beside.
      .map(({ kind, item }) => ({ kind: kind === "add" ? ("replace" as const) : kind, route: item }));
    const failures = rtnetlink.applyRoutes(changes);
    for (const failure of failures) if (failure !== undefined) found.push(failure.message);
  }

  function report(found: readonly string[]): void {
    const known = new Set(problems);
    const now = [...found, ...unreachablePeers({ config, external, peers })];
    for (const problem of now) if (!known.has(problem)) onProblem(problem);
    problems = now;
    if (found.length === 0) {
      retryMs = RETRY_MS.first;
      schedule(RESYNC_MS);
    } else {
      schedule(retryMs);
      retryMs = Math.min(retryMs * 2, RETRY_MS.longest);
    }
  }

  /** The sooner of what is asked for counts. */
  function schedule(milliseconds: number): void {
    const time = performance.now() + milliseconds;
    if (closed || (timer !== undefined && due <= time)) return;
    clearTimeout(timer);
    due = time;
    timer = setTimeout(() => {
      timer = undefined;
      try {
        reconcile();
      } catch (error) {
        report([messageOf(error)]);
      }
    }, milliseconds);
    timer.unref();
  }

  /** Whether it may be about what is ours. Our own writes come back too, and find nothing to do. */
  function concerns({ change, item }: Notification): boolean {
    switch (item.kind) {
      case "link":
        return item.link.index === external.index || ours.has(item.link.index);
      case "address":
        return ours.has(item.address.device);
      case "neighbour":
        return ours.has(item.neighbour.device);
      case "forwarding":
        return ours.has(item.entry.device);
      case "route":
        return isOurRoute(item.route) && (change === "deleted" || item.route.protocol !== PROTOCOL_FLANNEL);
      default:
        return false;
    }
  }

  const isOurRoute = (route: Route): boolean =>
    route.protocol !== PROTOCOL_KERNEL &&
    route.table === TABLE_MAIN &&
    (route.protocol === PROTOCOL_FLANNEL || wantedRoutes.has(routeKey(route)));

  const kick = (): void => schedule(SETTLE_MS);
  const stopWatching = openMonitor(
    {
      ...(namespace !== undefined && { namespace }),
      groups: ["link", "neighbour", "address4", "address6", "route4", "route6"],
    },
    {
      event(notification) {
        if (concerns(notification)) kick();
      },
      overrun: kick,
      failed: (failure) =>
        onProblem(`${failure.message}; what others change is found out within ${RESYNC_MS / 1000} s`),
    },
  );

  return {
    setSubnets(subnets) {
      own = subnets;
      kick();
    },
    setPeers(leases) {
      peers = leases;
      synced = true;
      kick();
    },
    kick,
    reconcile,
    problems: () => problems,
    peers: () => peers,
    close() {
      closed = true;
      clearTimeout(timer);
      stopWatching();
    },
  };
}

const keyed = <Item>(items: readonly Item[], keyOf: (item: Item) => string): Map<string, Item> =>
  new Map(items.map((item) => [keyOf(item), item]));

const addressText = (address: ForwardingSpec["destination"]): string =>
  address === undefined ? "" : formatAddress(address);
const addressKey = ({ device, address }: LinkAddressSpec): string => `${device} ${formatPrefix(address)}`;
const neighbourKey = ({ device, address }: NeighbourSpec): string => `${device} ${formatAddress(address)}`;
const forwardingKey = ({ device, linkAddress }: ForwardingSpec): string => `${device} ${linkAddress}`;

function specOf({ device, linkAddress, destination }: ForwardingEntry): ForwardingSpec {
  return { device, linkAddress, table: "self", ...(destination !== undefined && { destination }) };
}
