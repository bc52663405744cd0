import { closeSync } from "node:fs";
import { addressFromBytes, sameAddress, type Address } from "../ip/address.ts";
import { prefixContains } from "../ip/prefix.ts";
import { codeOf } from "../lib/errors.ts";
import type { Link } from "../netlink/link.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { writeSysctl } from "../netlink/sysctl.io.ts";
import { openPersistentTun } from "../netlink/tun.io.ts";
import { IPIP_DEVICE, type IpipKind, type IpipRefusal, type IpipWish } from "./ipip.ts";
import { type IpipPrograms, openIpipPrograms } from "./ipipBpf.io.ts";
import type { IpipCounter } from "./ipipMaps.ts";
import { openSlowPath, type SlowPath } from "./ipipSlowPath.io.ts";
import { setOnlyAddress } from "./vxlan.io.ts";

/**
 * This node's end of the IPIP tunnel: the kernel's own device where it has one, otherwise a TUN device of the same name
 * with our programs. Routes, MTU, address and name are the same, and so are the packets on the wire.
 */
export interface IpipTunnel {
  /** Makes it as it is wanted; returns the device's index. Throws `Failure` where the kernel refuses. */
  apply(wish: IpipWish): number;
  /** Takes away what an earlier agent or this one has made. The kernel's own device stays, without an address. */
  remove(): void;
  status(): IpipStatus | undefined;
  /** Lets go: what is in the kernel stays and works. */
  close(): void;
}

export interface IpipStatus {
  readonly kind: IpipKind;
  /** Only of the programs: the kernel's device has statistics of its own. */
  readonly counters?: Readonly<Record<IpipCounter, number>>;
  readonly slowPath?: SlowPath["counts"];
  /** Why the tunnel would end with the agent, where it would. */
  readonly notKept?: string;
}

/** What the tunnel needs of the kernel. */
export type IpipKernel = Pick<
  Rtnetlink,
  "link" | "addLink" | "setLink" | "deleteLink" | "addresses" | "addAddress" | "deleteAddress"
>;

/**
 * `namespace` is the path of a network namespace, the one of `rtnetlink`; without it the calling thread's. `name` is the
 * device's: a namespace has one such tunnel.
 */
export function createIpipTunnel(rtnetlink: IpipKernel, namespace?: string, name: string = IPIP_DEVICE): IpipTunnel {
  let programs: IpipPrograms | undefined;
  let tun: { readonly fd: number; readonly device: number; readonly slowPath: SlowPath } | undefined;
  let kind: IpipKind | undefined;
  let current: IpipWish | undefined;

  const here = <Result>(work: () => Result): Result =>
    namespace === undefined ? work() : inNamespace(namespace, work);

  function isKnown(source: Uint8Array, destination: Uint8Array): IpipRefusal | undefined {
    if (current === undefined || !sameAddress(current.local, addressFromBytes(destination))) return "not for this node";
    const from: Address = addressFromBytes(source);
    const known =
      current.peers.some((peer) => sameAddress(peer, from)) ||
      current.networks.some((network) => prefixContains(network, from));
    return known ? undefined : "unknown peer";
  }

  function closeTun(): void {
    tun?.slowPath.close();
    if (tun !== undefined) closeSync(tun.fd);
    tun = undefined;
  }

  /** The TUN device, held open; another that took its place is opened anew. */
  function tunDevice(): Link {
    const present = rtnetlink.link(name);
    if (present !== undefined && present.index === tun?.device) return present;
    closeTun();
    const fd = here(() => openPersistentTun(name));
    const link = rtnetlink.link(name)!;
    tun = { fd, device: link.index, slowPath: openSlowPath(fd, isKnown, namespace) };
    return link;
  }

  /** Undefined where the kernel has no such devices. */
  function kernelDevice({ local }: IpipWish): Link | undefined {
    // The module's own takes what no other device does; another has to say what it takes.
    const ipip = name === IPIP_DEVICE ? undefined : { local };
    const present = rtnetlink.link(name);
    if (present !== undefined && present.kind !== "ipip") return undefined;
    if (present !== undefined && isFor(present, ipip?.local)) return present;
    if (present !== undefined) rtnetlink.deleteLink(present.index);
    try {
      return rtnetlink.addLink({ kind: "ipip", name, ...(ipip !== undefined && { ipip }) });
    } catch (error) {
      // The module brings one of this name with it when it is loaded, which the attempt has done.
      if (codeOf(error) === "EEXIST") return rtnetlink.link(name);
      if (codeOf(error) === "ENOTSUP") return undefined; // EOPNOTSUPP, which libuv knows by this name
      throw error;
    }
  }

  function setUp(link: Link, wish: IpipWish): void {
    setOnlyAddress(rtnetlink, link.index, wish.address, 4);
    if (link.mtu !== wish.mtu) rtnetlink.setLink(link.index, { mtu: wish.mtu });
    if (!link.up) rtnetlink.setLink(link.index, { up: true });
  }

  return {
    apply(wish) {
      current = wish;
      const own = kernelDevice(wish);
      if (own !== undefined) {
        kind = "kernel";
        setUp(own, wish);
        return own.index;
      }
      kind = "bpf";
      const link = tunDevice();
      here(() => {
        // Nothing but IPv4 goes through, and the way to other nodes is looked up as for a packet that is forwarded.
        writeSysctl(`ipv6/conf/${name}/disable_ipv6`, 1);
        writeSysctl(`ipv4/conf/${name}/forwarding`, 1);
      });
      programs ??= openIpipPrograms(namespace);
      programs.apply(wish, link.index);
      setUp(link, wish);
      return link.index;
    },
    remove() {
      current = undefined;
      const link = rtnetlink.link(name);
      if (link?.kind === "ipip") setOnlyAddress(rtnetlink, link.index, undefined, 4);
      if (link?.kind !== "tun") return;
      closeTun();
      programs ??= openIpipPrograms(namespace);
      programs.remove();
      programs = undefined;
      rtnetlink.deleteLink(link.index);
      kind = undefined;
    },
    status() {
      if (kind === undefined) return undefined;
      if (programs === undefined || tun === undefined) return { kind };
      const notKept = programs.notKept();
      return {
        kind,
        counters: programs.counters(),
        slowPath: tun.slowPath.counts,
        ...(notKept === undefined ? {} : { notKept }),
      };
    },
    close() {
      closeTun();
      programs?.close();
      programs = undefined;
    },
  };
}

/** Whether the device takes packets for this address; for any, where it is absent. */
function isFor({ ipip }: Link, local: Address | undefined): boolean {
  return local === undefined || (ipip?.local !== undefined && sameAddress(ipip.local, local));
}
