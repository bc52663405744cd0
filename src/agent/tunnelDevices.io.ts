import { IPIP_DEVICE } from "../dataplane/ipip.ts";
import { createIpipTunnel, type IpipStatus } from "../dataplane/ipip.io.ts";
import { hostMtu, tunnelMtu, type Encapsulation } from "../dataplane/mtu.ts";
import { givenMtus, ipipUnderlays, mtuLinks } from "../dataplane/tunnelDevices.ts";
import type { TunnelPlan } from "../dataplane/tunnelRoutes.ts";
import { VXLAN_DEVICE, type VxlanPeer } from "../dataplane/vxlan.ts";
import { applyVxlan, removeVxlan } from "../dataplane/vxlan.io.ts";
import { formatAddress, type Family } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import type { Link } from "../netlink/link.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import type { FelixSettings } from "../resources/config.ts";
import type { KnownNode, TunnelId } from "./tunnelFacts.ts";
import { createOffloadKeeper, type OffloadVerdict } from "./tunnelOffload.io.ts";

/** The devices of this node's tunnels: made, kept as they are wanted, and taken away when nobody needs them any more. */
export interface TunnelDevices {
  apply(wish: DevicesWish): void;
  /** Index of a device that is there and as it should be. */
  indexOf(device: string): number | undefined;
  /** Whether a device that is not wanted is to stay a while yet. */
  isLingering(device: string): boolean;
  /** What could not be done, in sentences. */
  problems(): string[];
  status(): DevicesStatus;
  /** Lets go: what is in the kernel stays and works. */
  close(): void;
}

export interface DevicesWish {
  readonly self: KnownNode;
  readonly peers: readonly KnownNode[];
  readonly ipipDestinations: TunnelPlan["ipipDestinations"];
  readonly links: readonly Link[];
  /** Of each family the index of the link that has this node's own address. */
  readonly underlays: { readonly [F in Family]: number | undefined };
}

export interface DevicesStatus {
  readonly ipip: (IpipStatus & DeviceStatus) | null;
  readonly vxlan: readonly (DeviceStatus & { readonly checksumOffload: OffloadVerdict | null })[];
}

export interface DeviceStatus {
  readonly device: string;
  readonly address: string | null;
  readonly mtu: number;
  /** Other nodes at the tunnel's other ends. */
  readonly peers: number;
}

export interface TunnelDevicesOptions {
  readonly rtnetlink: Rtnetlink;
  readonly settings: () => FelixSettings;
  readonly isEnabled: (tunnel: TunnelId) => boolean;
  readonly isWorkloadInterface: (name: string) => boolean;
  /** Asks to be applied again after so many milliseconds. */
  readonly later: (milliseconds: number) => void;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

/** How long a tunnel that no pool wants any more stays, for nodes that have not heard of it yet. */
const LINGER_MS = 30_000;

export const IPIP: TunnelId = { kind: "ipip", family: 4 };
export const vxlanOf = (family: Family): TunnelId => ({ kind: "vxlan", family });
export const FAMILIES: readonly Family[] = [4, 6];

/** Name of the tunnel's device. */
export function deviceOf({ kind, family }: TunnelId): string {
  return kind === "ipip" ? IPIP_DEVICE : VXLAN_DEVICE[family];
}

export function createTunnelDevices(options: TunnelDevicesOptions): TunnelDevices {
  const { rtnetlink, settings, isEnabled, isWorkloadInterface, later, log } = options;
  const ipip = createIpipTunnel(rtnetlink);
  const offload = createOffloadKeeper({ ...options, featureDetectOverride: () => settings().featureDetectOverride });
  const devices = new Map<string, { readonly index: number; readonly status: DeviceStatus }>();
  const lingering = new Map<string, number>();
  const problems = new Map<string, string>();
  let announcedKind: string | undefined;

  function mtuOf(encapsulation: Encapsulation & keyof ReturnType<typeof givenMtus>, links: readonly Link[]): number {
    const host = hostMtu(mtuLinks(links), settings().mtuIfacePattern);
    return tunnelMtu(encapsulation, host, givenMtus(settings())[encapsulation]);
  }

  /** Does one part of the work; what fails is told once, and tried again. */
  function attempt<Result>(what: string, work: () => Result): Result | undefined {
    try {
      const result = work();
      problems.delete(what);
      return result;
    } catch (error) {
      const reason = messageOf(error);
      if (problems.get(what) !== reason) log("warn", `the ${what} is not as it should be`, { reason });
      problems.set(what, reason);
      return undefined;
    }
  }

  /** Whether a device that is not wanted is to stay a while yet. */
  function isLingering(device: string): boolean {
    const until = lingering.get(device);
    return until !== undefined && performance.now() < until;
  }

  /** Takes the device away when its time is over. */
  function retire(device: string, links: readonly Link[], remove: () => void): void {
    const present = links.find(({ name }) => name === device);
    if (present === undefined) {
      lingering.delete(device);
      devices.delete(device);
      return;
    }
    // A device that an earlier agent has left is no different from one that this one had a moment ago.
    if (!lingering.has(device)) lingering.set(device, performance.now() + LINGER_MS);
    if (isLingering(device)) {
      later(lingering.get(device)! - performance.now() + 1);
      return;
    }
    attempt(device, remove);
    devices.delete(device);
    if (!problems.has(device)) lingering.delete(device);
  }

  function applyVxlanOf(family: Family, wish: DevicesWish): void {
    const device = VXLAN_DEVICE[family];
    const { self, peers } = wish;
    if (!isEnabled(vxlanOf(family))) {
      retire(device, wish.links, () => removeVxlan(rtnetlink, family));
      return;
    }
    lingering.delete(device);
    const vtep = self.vtep[family];
    const local = self.address[family]?.address;
    const underlay = wish.underlays[family];
    if (vtep === undefined || local === undefined || underlay === undefined) {
      devices.delete(device);
      return;
    }
    const others = peers.flatMap((peer): VxlanPeer[] => {
      const end = peer.vtep[family];
      const node = peer.address[family]?.address;
      return end === undefined || node === undefined ? [] : [{ ...end, node }];
    });
    const { vxlanVNI, vxlanPort } = settings();
    const mtu = mtuOf(family === 4 ? "vxlan" : "vxlanV6", wish.links);
    const made = attempt(device, () =>
      applyVxlan(rtnetlink, { family, id: vxlanVNI, port: vxlanPort, local, underlay, ...vtep, mtu, peers: others }),
    );
    if (made === undefined) return;
    const status = { device, address: formatAddress(vtep.address), mtu, peers: others.length };
    devices.set(device, { status, index: made.device });
    if (made.made) log("info", "a VXLAN device is made", status);
    const ends = others.map((peer) => peer.address);
    attempt(`checksum offload of ${device}`, () => offload.attend(device, made.device, vtep.address, ends));
  }

  function applyIpip(wish: DevicesWish): void {
    const { self, peers, ipipDestinations: destinations } = wish;
    if (!isEnabled(IPIP)) {
      retire(IPIP_DEVICE, wish.links, () => ipip.remove());
      return;
    }
    lingering.delete(IPIP_DEVICE);
    const local = self.address[4]?.address;
    if (local === undefined) {
      devices.delete(IPIP_DEVICE);
      return;
    }
    const address = self.network.ipipTunnel;
    const mtu = mtuOf("ipip", wish.links);
    const others = peers.flatMap((peer) => (peer.address[4] === undefined ? [] : [peer.address[4].address]));
    const index = attempt(IPIP_DEVICE, () =>
      ipip.apply({
        local,
        ...(address && { address }),
        mtu,
        destinations,
        peers: others,
        networks: settings()
          .externalNodesList.filter((network) => !network.includes(":"))
          .map((network) => parsePrefix(network.includes("/") ? network : `${network}/32`)),
        underlays: ipipUnderlays(wish.links, isWorkloadInterface),
      }),
    );
    if (index === undefined) return;
    const text = address === undefined ? null : formatAddress(address);
    const status = { device: IPIP_DEVICE, address: text, mtu, peers: others.length };
    devices.set(IPIP_DEVICE, { status, index });
    const made = ipip.status();
    const kind = `${made?.kind}${made?.notKept ?? ""}`;
    if (kind !== announcedKind && made !== undefined) {
      const how = made.kind === "kernel" ? "the kernel's own device" : "BPF programs at a TUN device";
      log(made.notKept === undefined ? "info" : "warn", "the IPIP tunnel is ready", {
        ...status,
        by: how,
        ...(made.notKept !== undefined && { endsWithTheAgent: made.notKept }),
      });
    }
    announcedKind = kind;
  }

  return {
    apply(wish) {
      for (const family of FAMILIES) applyVxlanOf(family, wish);
      applyIpip(wish);
    },
    indexOf: (device) => devices.get(device)?.index,
    isLingering,
    problems: () => [...problems.values()],
    status() {
      const made = ipip.status();
      const device = devices.get(IPIP_DEVICE)?.status;
      return {
        ipip: device === undefined || made === undefined ? null : { ...device, ...made },
        vxlan: FAMILIES.flatMap((family) => {
          const status = devices.get(VXLAN_DEVICE[family])?.status;
          return status === undefined ? [] : [{ ...status, checksumOffload: offload.verdict(status.device) ?? null }];
        }),
      };
    },
    close: () => ipip.close(),
  };
}
