import { randomBytes } from "node:crypto";
import { FLANNEL_IPIP_DEVICE } from "../dataplane/ipip.ts";
import { createIpipTunnel } from "../dataplane/ipip.io.ts";
import { ipipUnderlays } from "../dataplane/tunnelDevices.ts";
import { type Family, sameAddress } from "../ip/address.ts";
import { Failure } from "../lib/errors.ts";
import type { Link } from "../netlink/link.ts";
import { currentNamespace, inNamespace } from "../netlink/namespace.io.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { writeSysctl } from "../netlink/sysctl.io.ts";
import { deviceMtu, type Devices } from "./plane.ts";
import type { NetworkConfig, VxlanConfig } from "./config.ts";
import type { ExternalInterface } from "./external.ts";
import {
  formatVtepData,
  type Lease,
  type LeaseAttributes,
  type LeasedSubnets,
  parseVtepData,
  type VtepData,
} from "./lease.ts";
import { openUdpTunnel, type UdpTunnel } from "./udpTunnel.io.ts";

/** The devices of each backend: made where they are missing, mended where they differ, kept where they are right. */
export interface BackendDevices {
  /** What other nodes need to know of them. */
  readonly attributes: Pick<LeaseAttributes, "backendData" | "backendV6Data">;
  /**
   * Makes sure of them, for the subnets that this node has now. `peers` are undefined while nobody knows them yet: what an
   * earlier daemon has told a device of them stays. Throws `Failure` where the kernel refuses.
   */
  ensure(own: LeasedSubnets, peers: readonly Lease[] | undefined): Devices;
  /** Names, and how they do: for people. */
  status(): Readonly<Record<string, unknown>>;
  /** Lets go: what the kernel has stays and works, but the udp backend's device, whose relay this is. */
  close(): Promise<void>;
}

export interface DeviceInput {
  readonly config: NetworkConfig;
  readonly external: ExternalInterface;
  readonly rtnetlink: Rtnetlink;
  /** Path of the network namespace of `rtnetlink`; the calling thread's own where absent. */
  readonly namespace?: string;
  /** What this node said of itself before. */
  readonly stored: LeaseAttributes | undefined;
  /** A device has ended by itself, and is to be made anew. */
  readonly onLoss: (reason: string) => void;
}

export function openDevices(input: DeviceInput): BackendDevices {
  const { backend } = input.config;
  switch (backend.type) {
    case "vxlan":
      return vxlanDevices(input, backend);
    case "udp":
      return udpDevice(input, backend.port);
    case "ipip":
      return ipipDevice(input);
    case "host-gw":
      return { attributes: {}, ensure: () => ({}), status: () => ({}), close: () => Promise.resolve() };
  }
}

const FAMILIES = { ipv4: 4, ipv6: 6 } as const satisfies Record<string, Family>;
const QUEUE_LENGTH = 5000;

function vxlanDevices(
  { config, external, rtnetlink, namespace, stored }: DeviceInput,
  backend: VxlanConfig,
): BackendDevices {
  const nameOf = (family: Family): string => `flannel${family === 6 ? "-v6" : ""}.${backend.vni}`;
  const macs = new Map<Family, string>();
  const families = Object.values(FAMILIES).filter((family) => (family === 4 ? config.ipv4 : config.ipv6) !== undefined);

  /** Routes, FDB and address of a device that is kept stay as well: peers notice nothing of a restart. */
  function ensure(family: Family): Link {
    const name = nameOf(family);
    const mtu = deviceMtu(backend, external, family);
    const local = (family === 4 ? external.ipv4 : external.ipv6)?.address;
    const wanted = {
      id: backend.vni,
      ...(local !== undefined && { local }),
      device: external.index,
      port: backend.port ?? KERNEL_PORT,
      learning: backend.learning,
    };
    let link = rtnetlink.link(name);
    if (link !== undefined && !isAsWanted(link, wanted)) {
      rtnetlink.deleteLink(link.index);
      link = undefined;
    }
    const storedMac = parseVtepData(family === 4 ? stored?.backendData : stored?.backendV6Data)?.mac;
    const mac = macs.get(family) ?? link?.address ?? storedMac ?? randomMac();
    link ??= rtnetlink.addLink({ kind: "vxlan", name, mtu, address: mac, vxlan: wanted });
    if (link.address !== mac) rtnetlink.setLink(link.index, { address: mac });
    if (link.mtu !== mtu) rtnetlink.setLink(link.index, { mtu });
    if (!link.up) {
      // Before it is up: no router there has anything to tell.
      inNamespace(namespace ?? currentNamespace(), () => acceptNoAdvertisements(name));
      rtnetlink.setLink(link.index, { up: true });
    }
    macs.set(family, mac);
    return link;
  }

  // Other nodes are told of the MAC address before this one has a subnet.
  const data = new Map<Family, VtepData>();
  for (const family of families) {
    const { address: mac } = ensure(family);
    data.set(family, { vni: backend.vni, mac: macs.get(family) ?? mac });
  }
  const [v4, v6] = [data.get(4), data.get(6)];
  return {
    attributes: {
      ...(v4 !== undefined && { backendData: formatVtepData(v4) }),
      ...(v6 !== undefined && { backendV6Data: formatVtepData(v6) }),
    },
    ensure() {
      const entries = Object.entries(FAMILIES).filter(([, family]) => families.includes(family));
      return Object.fromEntries(entries.map(([name, family]) => [name, ensure(family).index]));
    },
    status: () => ({ devices: families.map(nameOf) }),
    close: () => Promise.resolve(),
  };
}

/** The kernel's own, of which flannel's are all; RFC 7348 has 4789. */
const KERNEL_PORT = 8472;

function isAsWanted({ kind, vxlan }: Link, wanted: NonNullable<Link["vxlan"]>): boolean {
  return (
    kind === "vxlan" &&
    vxlan !== undefined &&
    vxlan.id === wanted.id &&
    vxlan.device === wanted.device &&
    vxlan.port === wanted.port &&
    (vxlan.learning ?? true) === wanted.learning &&
    vxlan.local !== undefined &&
    wanted.local !== undefined &&
    sameAddress(vxlan.local, wanted.local)
  );
}

/** Locally administered, of one station (IEEE 802: the two lowest bits of the first byte). */
function randomMac(): string {
  const bytes = randomBytes(6);
  bytes[0] = (bytes[0]! | 2) & 0xfe;
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

function acceptNoAdvertisements(name: string): void {
  try {
    writeSysctl(`ipv6/conf/${name}/accept_ra`, 0);
  } catch (error) {
    // A kernel without IPv6 has no such setting.
    if (!(error instanceof Failure) || error.code !== "ENOENT") throw error;
  }
}

function udpDevice({ config, external, rtnetlink, namespace, onLoss }: DeviceInput, port: number): BackendDevices {
  const mtu = deviceMtu(config.backend, external, 4);
  let tunnel: UdpTunnel | undefined;
  let address: bigint | undefined;
  let closing: Promise<unknown> = Promise.resolve();

  function drop(): void {
    const old = tunnel;
    tunnel = undefined;
    if (old !== undefined) closing = closing.then(() => old.close());
  }

  function open(own: LeasedSubnets): UdpTunnel {
    const local = external.ipv4?.address;
    if (own.ipv4 === undefined || local === undefined) throw new Failure("EINVAL", "the udp backend needs IPv4");
    address = own.ipv4.address.value;
    const opened: UdpTunnel = openUdpTunnel({
      ...(namespace !== undefined && { namespace }),
      name: "flannel%d",
      local,
      port,
      address: own.ipv4.address,
      onEnd(reason) {
        if (tunnel !== opened) return;
        drop();
        // What the old one has is free only when both its threads have ended.
        void closing.then(() => onLoss(reason));
      },
    });
    return opened;
  }

  return {
    attributes: {},
    ensure(own, peers) {
      if (tunnel !== undefined && own.ipv4?.address.value !== address) drop();
      tunnel ??= open(own);
      tunnel.setPeers((peers ?? []).filter(({ attributes }) => attributes.backendType === "udp"));
      const link = rtnetlink.link(tunnel.name);
      // Its threads find out, and say so.
      if (link === undefined) return {};
      const { index } = link;
      if (link.mtu !== mtu) rtnetlink.setLink(index, { mtu });
      if (link.txQueueLength !== QUEUE_LENGTH) rtnetlink.setLink(index, { txQueueLength: QUEUE_LENGTH });
      if (!link.up) rtnetlink.setLink(index, { up: true });
      return { ipv4: index };
    },
    status: () => (tunnel === undefined ? {} : { devices: [tunnel.name], counters: tunnel.counters() }),
    async close() {
      drop();
      await closing;
    },
  };
}

/** The kernel's device, or where it has none, a TUN device with BPF programs: `dataplane/ipip.io.ts`. */
function ipipDevice({ config, external, rtnetlink, namespace }: DeviceInput): BackendDevices {
  const mtu = deviceMtu(config.backend, external, 4);
  const local = external.ipv4?.address;
  if (local === undefined) throw new Failure("EINVAL", "the ipip backend needs IPv4");
  const tunnel = createIpipTunnel(rtnetlink, namespace, FLANNEL_IPIP_DEVICE);
  return {
    attributes: {},
    ensure(own, peers) {
      if (peers === undefined) {
        const present = rtnetlink.link(FLANNEL_IPIP_DEVICE);
        return present === undefined ? {} : { ipv4: present.index };
      }
      const destinations = peers.flatMap(({ subnets, attributes }) =>
        subnets.ipv4 === undefined || attributes.publicIp === undefined || attributes.backendType !== "ipip"
          ? []
          : [{ destination: subnets.ipv4, node: attributes.publicIp }],
      );
      const device = tunnel.apply({
        local,
        ...(own.ipv4 !== undefined && { address: own.ipv4.address }),
        mtu,
        destinations,
        peers: destinations.map(({ node }) => node),
        networks: [],
        underlays: ipipUnderlays(rtnetlink.links(), () => false),
      });
      return { ipv4: device };
    },
    status: () => ({ devices: [FLANNEL_IPIP_DEVICE], ...tunnel.status() }),
    close() {
      tunnel.close();
      return Promise.resolve();
    },
  };
}
