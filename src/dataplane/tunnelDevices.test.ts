import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { checksumOffload, ipipUnderlays, mtuLinks } from "./tunnelDevices.ts";
import type { Link } from "../netlink/link.ts";

const link = (index: number, name: string, fields: Partial<Link> = {}): Link => ({
  index,
  name,
  up: true,
  carrier: true,
  loopback: false,
  operState: "up",
  mtu: 1500,
  address: "02:00:00:00:00:01",
  txQueueLength: 1000,
  ...fields,
});

test("IPIP may come by every Ethernet that is neither a pod's, a tunnel's nor a part of another", () => {
  const links = [
    link(1, "lo", { loopback: true, address: "00:00:00:00:00:00" }),
    link(2, "eth0"),
    link(3, "bond0", { kind: "bond" }),
    link(4, "eth1", { master: 3 }),
    link(5, "eth2", { up: false }),
    link(6, "cali0123", { kind: "veth" }),
    link(7, "vxlan.calico", { kind: "vxlan" }),
    link(8, "tunl0", { kind: "tun", address: "" }),
    link(9, "eth3", { kind: "veth" }),
  ];
  assert.deepEqual(
    ipipUnderlays(links, (name) => name.startsWith("cali")),
    [2, 3, 9],
  );
});

test("the host's MTU is not measured by our own tunnels", () => {
  const links = [link(2, "eth0"), link(3, "eth1", { operState: "down" }), link(4, "vxlan.calico", { mtu: 1000 })];
  assert.deepEqual(mtuLinks(links), [
    { name: "eth0", mtu: 1500, up: true },
    { name: "eth1", mtu: 1500, up: false },
  ]);
});

describe("checksums left to the device", () => {
  const rows = [
    { override: "", release: "6.18.1-cloud", choice: "test" },
    { override: "", release: "5.7.0", choice: "off" },
    { override: "", release: "5.8.0-1", choice: "test" },
    { override: "", release: "4.19.0", choice: "off" },
    { override: "ChecksumOffloadBroken=true", release: "6.18.1", choice: "off" },
    { override: "SNATFullyRandom=false, ChecksumOffloadBroken=false", release: "5.4.0", choice: "on" },
  ] as const;
  for (const { override, release, choice } of rows) {
    test(`"${override}" on ${release}: ${choice}`, () => assert.equal(checksumOffload(override, release), choice));
  }
});
