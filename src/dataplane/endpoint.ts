import { type Address, type Family, parseAddress } from "../ip/address.ts";
import { hostPrefix, parsePrefix, samePrefix, type Prefix } from "../ip/prefix.ts";
import { SCOPE_GLOBAL, SCOPE_LINK, type RouteSpec } from "../netlink/route.ts";

/** A pod's attachment: the veth pair between its namespace and the node, and what the node must do for it. */
export interface Endpoint {
  readonly containerId: string;
  /** Of Kubernetes pods; absent for bare containers. */
  readonly namespace?: string;
  readonly pod?: string;
  readonly podUid?: string;
  /** Name of the pod's end, in its namespace. */
  readonly podInterface: string;
  /** Name of the node's end: `cali` and eleven hex digits. */
  readonly hostInterface: string;
  /** Of the pod's end. */
  readonly mac: string;
  readonly mtu: number;
  readonly addresses: readonly Address[];
  /** Path of the pod's network namespace at ADD. */
  readonly netns: string;
  /** The network's name in the CNI configuration: first half of the IPAM handle. */
  readonly network: string;
}

/** What a veth pair is made from. */
export interface PodLink {
  readonly hostInterface: string;
  readonly podInterface: string;
  /** Of the pod's end. */
  readonly mac: string;
  readonly mtu: number;
  /** Path of the pod's network namespace. */
  readonly netns: string;
}

/** A route inside the pod that the network configuration or an IPAM plugin asks for. */
export interface PodRoute {
  readonly destination: Prefix;
  readonly gateway?: Address;
}

/** How the pod's side is set up. */
export interface PodSettings {
  readonly allowIpForwarding: boolean;
  /** In the place of the default route. */
  readonly routes: readonly PodRoute[];
  /** Whether the default route is made as well when `routes` are given. */
  readonly includeDefaultRoutes: boolean;
}

/** The node's end has the same MAC for every pod, so that what pods have learned stays true when a node is replaced. */
export const HOST_MAC = "ee:ee:ee:ee:ee:ee";

/** The pods' IPv4 gateway, which no interface has: proxy ARP on the node's end answers for it. */
export const GATEWAY_V4: Address = parseAddress("169.254.1.1");

/** The link-local address that the node's end derives from HOST_MAC (RFC 4291 appendix A): the pods' IPv6 gateway. */
export const GATEWAY_V6: Address = parseAddress("fe80::ecee:eeff:feee:eeee");

export interface Sysctl {
  /** Below /proc/sys/net, with slashes. */
  readonly key: string;
  readonly value: string;
  /** Whether a kernel that lacks it (one without IPv6) needs nothing in its place. */
  readonly optional?: true;
}

/**
 * The node's end, before it goes up: packets are forwarded, ARP is answered at once for whatever the pod asks for, and
 * no router advertisement of a pod is believed. `rpFilter` is the node's own default.
 */
export function hostSysctls(hostInterface: string, families: readonly Family[], rpFilter: string): Sysctl[] {
  const v4 = `ipv4/conf/${hostInterface}`;
  const v6 = `ipv6/conf/${hostInterface}`;
  const rows: Sysctl[] = [{ key: `${v6}/accept_ra`, value: "0", optional: true }];
  if (families.includes(4)) {
    rows.push(
      { key: `${v4}/route_localnet`, value: "1" },
      { key: `ipv4/neigh/${hostInterface}/proxy_delay`, value: "0" },
      { key: `${v4}/proxy_arp`, value: "1" },
      { key: `${v4}/forwarding`, value: "1" },
      { key: `${v4}/rp_filter`, value: rpFilter },
    );
  }
  if (families.includes(6)) {
    rows.push(
      { key: `${v6}/disable_ipv6`, value: "0" },
      { key: `${v6}/accept_dad`, value: "0" },
      { key: `${v6}/proxy_ndp`, value: "1" },
      { key: `${v6}/forwarding`, value: "1" },
    );
  }
  return rows;
}

/** Inside the pod. Forwarding is off unless the network configuration allows it. */
export function podSysctls(podInterface: string, families: readonly Family[], allowForwarding: boolean): Sysctl[] {
  const forwarding = allowForwarding ? "1" : "0";
  const rows: Sysctl[] = [{ key: "ipv4/ip_forward", value: forwarding }];
  if (families.includes(6)) {
    rows.push(
      // The pod's own too: it was born with the default, which `all` only changes when it is itself changed.
      ...["all", "default", "lo", podInterface].map((name) => ({ key: `ipv6/conf/${name}/disable_ipv6`, value: "0" })),
      { key: "ipv6/conf/all/forwarding", value: forwarding },
      { key: `ipv6/conf/${podInterface}/accept_dad`, value: "0" },
    );
  }
  return rows;
}

/** What the whole node needs in order to forward packets. */
export const NODE_SYSCTLS: readonly Sysctl[] = [
  { key: "ipv4/ip_forward", value: "1" },
  { key: "ipv6/conf/all/forwarding", value: "1", optional: true },
];

export function familiesOf(addresses: readonly Address[]): Family[] {
  return ([4, 6] as const).filter((family) => addresses.some((address) => address.family === family));
}

/** A unicast, locally administered MAC from six random bytes (IEEE 802: bit 0 off, bit 1 on). */
export function macFromRandom(bytes: Uint8Array): string {
  const octets = Array.from(bytes.subarray(0, 6));
  octets[0] = (octets[0]! & 0xfe) | 0x02;
  return octets.map((octet) => octet.toString(16).padStart(2, "0")).join(":");
}

/**
 * Where the pod's packets go: all of them, or those that `routes` name, to a gateway that only proxy ARP answers for
 * (IPv4), or to the node's end (IPv6). Whatever gateway an IPAM plugin names, there is no other neighbour.
 */
export function waysOut(
  families: readonly Family[],
  { routes, includeDefaultRoutes }: Pick<PodSettings, "routes" | "includeDefaultRoutes">,
): Required<PodRoute>[] {
  const wanted = routes.map(({ destination }) => destination);
  if (wanted.length === 0 || includeDefaultRoutes) wanted.push(...families.map((family) => DEFAULT_ROUTE[family]));
  return wanted
    .filter(({ address }) => families.includes(address.family))
    .filter((destination, index, all) => all.findIndex((other) => samePrefix(other, destination)) === index)
    .map((destination) => ({ destination, gateway: destination.address.family === 4 ? GATEWAY_V4 : GATEWAY_V6 }));
}

/** The routes inside the pod. `device` is the index of the pod's end. */
export function podRoutes(addresses: readonly Address[], settings: PodSettings, device: number): RouteSpec[] {
  const families = familiesOf(addresses);
  const gateway = { destination: hostPrefix(GATEWAY_V4), scope: SCOPE_LINK, nextHops: [{ device }] };
  const ways = waysOut(families, settings).map(({ destination, gateway }) => ({
    destination,
    scope: SCOPE_GLOBAL,
    nextHops: [{ device, gateway }],
  }));
  return families.includes(4) ? [gateway, ...ways] : ways;
}

const DEFAULT_ROUTE: { readonly [F in Family]: Prefix } = {
  4: parsePrefix("0.0.0.0/0"),
  6: parsePrefix("::/0"),
};
