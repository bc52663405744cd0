import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { hostMtu, OVERHEAD, podMtu, type Encapsulation, type MtuLink } from "./mtu.ts";

const link = (name: string, mtu: number, up = true): MtuLink => ({ name, mtu, up });

describe("the node's MTU", () => {
  const rows: { name: string; links: MtuLink[]; mtu: number; pattern?: string }[] = [
    { name: "the smallest of those that are up", links: [link("eth0", 9000), link("eth1", 1500)], mtu: 1500 },
    { name: "one that is down does not count", links: [link("eth0", 9000), link("eth1", 1500, false)], mtu: 9000 },
    {
      name: "nor does one of another name",
      links: [link("ens5", 9001), link("lo", 65536), link("cali12345678901", 1200), link("docker0", 1400)],
      mtu: 9001,
    },
    { name: "none that matches", links: [link("lo", 65536), link("br0", 1400)], mtu: 1460 },
    { name: "no link at all", links: [], mtu: 1460 },
    { name: "a pattern of the user's", links: [link("eth0", 9000), link("br0", 1400)], pattern: "^br", mtu: 1400 },
  ];
  for (const { name, links, mtu, pattern } of rows) {
    test(name, () => assert.equal(hostMtu(links, pattern), mtu));
  }

  test("is looked for on the names that Felix has for network cards", () => {
    const cards = ["eth0", "ens5", "enp0s3", "eno1", "enx001122334455", "wlp2s0", "wlan0", "wwan0", "ibp1s0", "slc0"];
    for (const name of cards) assert.equal(hostMtu([link(name, 1234)]), 1234, name);
    for (const name of ["bond0", "team0", "vxlan.calico", "tunl0", "end0", "veth0", "my-eth0"]) {
      assert.equal(hostMtu([link(name, 1234)]), 1460, name);
    }
  });
});

describe("the pods' MTU", () => {
  const rows: { enabled: Encapsulation[]; given?: { [E in Encapsulation]?: number }; mtu: number }[] = [
    { enabled: [], mtu: 1500 },
    { enabled: ["ipip"], mtu: 1480 },
    { enabled: ["vxlan"], mtu: 1450 },
    { enabled: ["vxlanV6"], mtu: 1430 },
    { enabled: ["wireguard"], mtu: 1440 },
    { enabled: ["wireguardV6"], mtu: 1420 },
    { enabled: ["ipip", "vxlan"], mtu: 1450 },
    { enabled: ["vxlan", "wireguard"], mtu: 1440 },
    { enabled: ["ipip"], given: { ipip: 1400 }, mtu: 1400 },
    { enabled: ["ipip", "vxlan"], given: { ipip: 0, vxlan: 1300 }, mtu: 1300 },
    { enabled: ["ipip"], given: { vxlan: 1300 }, mtu: 1480 },
    { enabled: ["vxlan"], given: { vxlan: 9000 }, mtu: 1500 },
  ];
  for (const { enabled, given = {}, mtu } of rows) {
    test(`with ${enabled.join(" and ") || "no tunnel"} ${JSON.stringify(given)}`, () =>
      assert.equal(podMtu(1500, enabled, given), mtu));
  }

  test("fits through every tunnel, and wastes nothing", () => {
    const all = Object.keys(OVERHEAD) as Encapsulation[];
    fc.assert(
      fc.property(fc.integer({ min: 1280, max: 65535 }), fc.subarray(all), (host, enabled) => {
        const mtu = podMtu(host, enabled);
        const sizes = enabled.map((each) => mtu + OVERHEAD[each]);
        assert.ok(sizes.every((size) => size <= host));
        assert.ok(sizes.length === 0 ? mtu === host : sizes.includes(host));
      }),
    );
  });
});
