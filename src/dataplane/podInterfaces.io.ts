import { formatAddress, sameAddress, type Address } from "../ip/address.ts";
import { formatPrefix, hostPrefix, samePrefix } from "../ip/prefix.ts";
import { codeOf, Failure } from "../lib/errors.ts";
import { isIpv4Setting, type Ipv4Settings } from "../netlink/ipv4Settings.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import type { Link } from "../netlink/link.ts";
import type { Route } from "../netlink/route.ts";
import { openRtnetlink, type Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { readSysctl, setSysctl } from "../netlink/sysctl.io.ts";
import {
  familiesOf,
  HOST_MAC,
  hostSysctls,
  podRoutes,
  podSysctls,
  type Endpoint,
  type PodLink,
  type PodSettings,
  type Sysctl,
} from "./endpoint.ts";
import { sameRoute, workloadRoute } from "./routes.ts";

/** The veth pairs of pods: made, looked at and taken away. */
export interface PodInterfaces {
  createLink(link: PodLink): Promise<void>;
  configure(endpoint: Endpoint, settings: PodSettings): void;
  removeLink(hostInterface: string): Promise<void>;
  differences(endpoint: Endpoint): string[];
  /** Resolves when the kernel has taken away every pair that `removeLink` has put out of use. */
  settled(): Promise<void>;
}

export interface PodInterfacesOptions {
  /** Of the node's own namespace. */
  readonly rtnetlink: Rtnetlink;
  /** Felix's `deviceRouteProtocol`. */
  readonly routeProtocol: () => number;
  /** Told of the routes that `configure` writes and `removeLink` ends, so that the route table agrees. */
  readonly onRoutes: (hostInterface: string, routes: readonly Route[]) => void;
  readonly onError: (error: unknown) => void;
}

export function createPodInterfaces({
  rtnetlink,
  routeProtocol,
  onRoutes,
  onError,
}: PodInterfacesOptions): PodInterfaces {
  /** Pairs on their way out, by the name of the node's end: its successor has to wait for them. */
  const leaving = new Map<string, Promise<void>>();
  /** Of pairs that are made and not yet configured: the index of each end. */
  const made = new Map<string, Ends>();
  const rpFilter = readSysctl("ipv4/conf/default/rp_filter");

  /**
   * The kernel takes 15 to 20 ms to end a pair (it waits for every processor to let go of it), and none to take it down.
   * So the pair goes down at once, with its routes, and ends in the background.
   */
  function startRemoval(hostInterface: string): void {
    const link = rtnetlink.link(hostInterface);
    if (link === undefined || leaving.has(hostInterface)) return;
    try {
      rtnetlink.setLink(link.index, { up: false });
    } catch (error) {
      if (codeOf(error) === "ENODEV") return; // its pod's namespace has ended meanwhile, and took it along
      throw error;
    }
    const gone = rtnetlink
      .deleteLinkInBackground(link.index)
      .then(() => undefined, onError)
      .finally(() => leaving.delete(hostInterface));
    leaving.set(hostInterface, gone);
  }

  return {
    async createLink({ hostInterface, podInterface, mac, mtu, netns }) {
      const make = (): void => {
        const { index, parent } = rtnetlink.addLink({
          kind: "veth",
          name: hostInterface,
          address: HOST_MAC,
          mtu,
          queues: 1,
          peer: { name: podInterface, address: mac, mtu, queues: 1, namespace: netns },
        });
        if (parent !== undefined) made.set(hostInterface, { host: index, pod: parent });
      };
      // The kernel keeps this thread for a millisecond: what was begun before (the pod's address, on its way to the
      // datastore) is sent first, and is done meanwhile.
      await new Promise(setImmediate);
      const inTheWay = leaving.get(hostInterface);
      if (inTheWay !== undefined) await inTheWay;
      try {
        make();
      } catch (error) {
        if (!(error instanceof Failure) || error.code !== "EEXIST") throw error;
        startRemoval(hostInterface); // nobody's: its owner would be known
        await leaving.get(hostInterface);
        make();
      }
    },

    configure(endpoint, settings) {
      const { hostInterface, podInterface, addresses, netns } = endpoint;
      const ends = made.get(hostInterface);
      made.delete(hostInterface);
      if (ends === undefined) throw new Failure("ENODEV", `Cannot set up ${hostInterface}: the interface is not there`);
      configurePod(netns, podInterface, ends.pod, addresses, settings);
      setHostEnd(rtnetlink, ends.host, hostInterface, hostSysctls(hostInterface, familiesOf(addresses), rpFilter));
      // Last: with both ends up the pair has a carrier, and the kernel is busy telling everyone.
      rtnetlink.setLink(ends.host, { up: true });
      const routes = addresses.map((address) => workloadRoute(address, ends.host, routeProtocol()));
      for (const route of routes) addHostRoute(rtnetlink, route);
      onRoutes(hostInterface, routes);
    },

    // oxlint-disable-next-line require-await -- what the kernel refuses must reject, not throw
    async removeLink(hostInterface) {
      made.delete(hostInterface);
      onRoutes(hostInterface, []);
      startRemoval(hostInterface);
    },

    differences(endpoint) {
      const found: string[] = [];
      const link = rtnetlink.link(endpoint.hostInterface);
      if (link === undefined || leaving.has(endpoint.hostInterface)) return [`${endpoint.hostInterface} is not there`];
      if (!link.up) found.push(`${endpoint.hostInterface} is down`);
      if (link.address !== HOST_MAC)
        found.push(`${endpoint.hostInterface} has the MAC ${link.address}, not ${HOST_MAC}`);
      found.push(...mtuDifference(link, endpoint));
      for (const { key, value, optional } of hostSysctls(link.name, familiesOf(endpoint.addresses), rpFilter)) {
        const present = readSysctlOr(key, optional === true ? value : "absent");
        if (present !== value) found.push(`net/${key} is ${present}, not ${value}`);
      }
      const routes = rtnetlink.routes({ device: link.index });
      for (const address of endpoint.addresses) {
        const wanted = workloadRoute(address, link.index, routeProtocol());
        if (!routes.some((route) => sameRoute(route, wanted)))
          found.push(`the route to ${formatAddress(address)} is missing`);
      }
      return [...found, ...podDifferences(endpoint)];
    },

    async settled() {
      while (leaving.size > 0) await Promise.all(leaving.values());
    },
  };
}

/** Indexes of a pair's ends, each in its own namespace. */
interface Ends {
  readonly host: number;
  readonly pod: number;
}

/** Writes settings of the calling thread's namespace. */
export function writeSysctls(rows: readonly Sysctl[]): void {
  for (const { key, value, optional } of rows) {
    try {
      setSysctl(key, value);
    } catch (error) {
      if (optional !== true || codeOf(error) !== "ENOENT") throw error;
    }
  }
}

/** The settings of the node's end, as many as can be in one message. */
function setHostEnd(rtnetlink: Rtnetlink, index: number, hostInterface: string, rows: readonly Sysctl[]): void {
  const directory = `ipv4/conf/${hostInterface}/`;
  const settings: { -readonly [Name in keyof Ipv4Settings]: number } = {};
  const files = rows.filter(({ key, value }) => {
    const name = key.startsWith(directory) ? key.slice(directory.length) : "";
    if (!isIpv4Setting(name)) return true;
    settings[name] = Number(value);
    return false;
  });
  if (files.length < rows.length) rtnetlink.setIpv4(index, settings);
  writeSysctls(files);
}

function configurePod(
  netns: string,
  podInterface: string,
  device: number,
  addresses: readonly Address[],
  settings: PodSettings,
): void {
  const pod = inNamespace(netns, () => {
    writeSysctls(podSysctls(podInterface, familiesOf(addresses), settings.allowIpForwarding));
    return openRtnetlink();
  });
  try {
    pod.setLink(device, { up: true });
    for (const address of addresses) {
      pod.addAddress({ device, address: hostPrefix(address), noDuplicateDetection: address.family === 6 });
    }
    const refused = pod
      .applyRoutes(podRoutes(addresses, settings, device).map((route) => ({ kind: "add", route })))
      .find((failure) => failure !== undefined);
    if (refused !== undefined) throw refused;
  } finally {
    pod.close();
  }
}

/** A route that is there already is good if it is the same; anyone else's address is not taken away from them. */
function addHostRoute(rtnetlink: Rtnetlink, route: Route): void {
  try {
    rtnetlink.addRoute(route);
  } catch (error) {
    if (!(error instanceof Failure) || error.code !== "EEXIST") throw error;
    const present = rtnetlink
      .routes({ family: route.destination.address.family, table: route.table })
      .find((other) => samePrefix(other.destination, route.destination) && other.metric === route.metric);
    if (present !== undefined && sameRoute(present, route)) return;
    const device = present?.nextHops[0]?.device;
    const name = device === undefined ? undefined : rtnetlink.link(device)?.name;
    throw new Failure(
      "EEXIST",
      `Cannot add the route to ${formatPrefix(route.destination)}: it leads to ${name ?? "somewhere else"} already`,
      error,
    );
  }
}

function mtuDifference({ name, mtu }: Link, endpoint: Endpoint): string[] {
  return mtu === endpoint.mtu ? [] : [`${name} has the MTU ${mtu}, not ${endpoint.mtu}`];
}

function readSysctlOr(key: string, otherwise: string): string {
  try {
    return readSysctl(key);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return otherwise;
    throw error;
  }
}

function podDifferences(endpoint: Endpoint): string[] {
  const { netns, podInterface, mac, addresses } = endpoint;
  const pod = openRtnetlink(netns);
  try {
    const link = pod.link(podInterface);
    if (link === undefined) return [`${podInterface} is not in ${netns}`];
    const found: string[] = [];
    if (!link.up) found.push(`${podInterface} is down`);
    // Of a pod that was set up by Calico its MAC is not known.
    if (mac !== "" && link.address !== mac) found.push(`${podInterface} has the MAC ${link.address}, not ${mac}`);
    found.push(...mtuDifference(link, endpoint));
    const present = pod.addresses().filter(({ device }) => device === link.index);
    for (const address of addresses) {
      const has = present.some((other) => sameAddress(other.address.address, address));
      if (!has) found.push(`${podInterface} has lost the address ${formatAddress(address)}`);
    }
    const routes = pod.routes({ device: link.index });
    for (const family of familiesOf(addresses)) {
      const hasWayOut = routes.some(
        ({ destination, nextHops }) =>
          destination.address.family === family && nextHops.some(({ gateway }) => gateway !== undefined),
      );
      if (!hasWayOut) found.push(`${podInterface} has no IPv${family} route out`);
    }
    return found;
  } finally {
    pod.close();
  }
}
