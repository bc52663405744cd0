import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { Failure } from "../lib/errors.ts";
import type { LinkAddress } from "../netlink/addr.ts";
import type { Link } from "../netlink/link.ts";
import { createIpipTunnel, type IpipKernel } from "./ipip.io.ts";
import type { IpipWish } from "./ipip.ts";

/** A kernel that has the ipip module, as far as the tunnel asks it. It brings `tunl0` when the module is loaded. */
function kernelWithIpip(loaded: boolean): IpipKernel & { shown(): string } {
  let link: Link | undefined;
  let addresses: LinkAddress[] = [];
  const load = (): void => {
    link ??= {
      index: 7,
      name: "tunl0",
      kind: "ipip",
      up: false,
      carrier: true,
      loopback: false,
      operState: "unknown",
      mtu: 1480,
      address: "",
      txQueueLength: 1000,
    };
  };
  if (loaded) load();
  return {
    link: () => link,
    addLink(spec) {
      assert.deepEqual(spec, { kind: "ipip", name: "tunl0" });
      load();
      throw new Failure("EEXIST", "Cannot add ipip tunl0: file exists");
    },
    setLink(_, changes) {
      link = { ...link!, ...(changes.mtu && { mtu: changes.mtu }), ...(changes.up && { up: true }) };
    },
    deleteLink: () => assert.fail("the kernel's own device stays"),
    addresses: () => addresses,
    addAddress({ device, address }) {
      addresses.push({ device, address, scope: 0 } as LinkAddress);
    },
    deleteAddress({ address }) {
      addresses = addresses.filter((each) => each.address.address.value !== address.address.value);
      return true;
    },
    shown: () =>
      `mtu ${link?.mtu} ${link?.up === true ? "up" : "down"} ${addresses.map((each) => formatPrefix(each.address)).join(" ")}`,
  };
}

const wish = (address: string | undefined, mtu = 1480): IpipWish => ({
  local: parseAddress("192.0.2.11"),
  ...(address === undefined ? {} : { address: parseAddress(address) }),
  mtu,
  destinations: [],
  peers: [],
  networks: [],
  underlays: [2],
});

describe("where the kernel has ipip, its own device is used", () => {
  for (const loaded of [true, false]) {
    test(loaded ? "that is there" : "that comes with its module", () => {
      const kernel = kernelWithIpip(loaded);
      const tunnel = createIpipTunnel(kernel);
      assert.equal(tunnel.status(), undefined);
      assert.equal(tunnel.apply(wish("10.65.0.1")), 7);
      assert.deepEqual(tunnel.status(), { kind: "kernel" });
      assert.equal(kernel.shown(), "mtu 1480 up 10.65.0.1/32");
      tunnel.apply(wish("10.65.0.9", 1400));
      assert.equal(kernel.shown(), "mtu 1400 up 10.65.0.9/32");
      tunnel.apply(wish(undefined, 1400));
      assert.equal(kernel.shown(), "mtu 1400 up ");
      tunnel.apply(wish("10.65.0.9", 1400));
      tunnel.remove();
      assert.equal(kernel.shown(), "mtu 1400 up ", "it stays, without an address");
      tunnel.close();
    });
  }
});

test("a device of another name takes packets for this node's address, and is made anew where the address is another", () => {
  const links = new Map<string, Link>();
  let made = 0;
  const kernel: IpipKernel = {
    link: (name) => links.get(String(name)),
    addLink(spec) {
      assert.ok(spec.kind === "ipip");
      made += 1;
      const link = {
        index: made,
        kind: "ipip",
        up: false,
        carrier: true,
        loopback: false,
        operState: "unknown",
      } as const;
      links.set(spec.name, { ...link, ...spec, mtu: 1480, address: "", txQueueLength: 1000 });
      return links.get(spec.name)!;
    },
    setLink: () => undefined,
    deleteLink: (index) => [...links].some(([name, link]) => link.index === index && links.delete(name)),
    addresses: () => [],
    addAddress: () => undefined,
    deleteAddress: () => true,
  };
  const local = (): string => formatAddress(links.get("flannel.ipip")!.ipip!.local!);
  for (let agent = 0; agent < 2; agent += 1) {
    createIpipTunnel(kernel, undefined, "flannel.ipip").apply(wish("10.65.0.1"));
    assert.deepEqual([local(), made], ["192.0.2.11", 1]);
  }
  const moved = { ...wish("10.65.0.1"), local: parseAddress("192.0.2.12") };
  createIpipTunnel(kernel, undefined, "flannel.ipip").apply(moved);
  assert.deepEqual([local(), made], ["192.0.2.12", 2]);
});
