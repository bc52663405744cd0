import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { formatAddress, type Family } from "../ip/address.ts";
import { inside } from "../netlink/namespace.testing.ts";
import { clusterRoute } from "./routes.ts";
import { type BenchNode, pings, transfer, tunnelBench, type TunnelBench } from "./tunnel.testing.ts";
import { capture } from "./tunnelPackets.testing.ts";
import { VXLAN_DEVICE, vtepMac, type VxlanWish } from "./vxlan.ts";
import { applyVxlan, removeVxlan } from "./vxlan.io.ts";

const MTU = { 4: 1450, 6: 1430 };
const FAMILIES: readonly Family[] = [4, 6];

function wishOf(me: BenchNode, other: BenchNode, family: Family): VxlanWish {
  const [local, address] = family === 4 ? [me.address, me.tunnel] : [me.address6, me.tunnel6];
  const [node, theirs] = family === 4 ? [other.address, other.tunnel] : [other.address6, other.tunnel6];
  return {
    family,
    id: 4096,
    port: 4789,
    local,
    underlay: me.underlay,
    mac: vtepMac(me.name, family),
    address,
    mtu: MTU[family],
    peers: [{ address: theirs, mac: vtepMac(other.name, family), node }],
  };
}

function join(me: BenchNode, other: BenchNode, family: Family): number {
  const { device } = applyVxlan(me.rtnetlink, wishOf(me, other, family));
  const [block, gateway] = family === 4 ? [other.block, other.tunnel] : [other.block6, other.tunnel6];
  me.rtnetlink.replaceRoute(clusterRoute(block, { device, gateway, onlink: true }));
  return device;
}

describe("two nodes with a VXLAN of each family between them", () => {
  let bench: TunnelBench;
  before(() => {
    bench = tunnelBench();
    for (const family of FAMILIES) {
      join(bench.a, bench.b, family);
      join(bench.b, bench.a, family);
    }
  });
  after(() => bench[Symbol.dispose]());

  test("the devices are Calico's", () => {
    const shown = inside(bench.a.name, "ip", "-d", "link", "show", "vxlan.calico");
    assert.match(shown, /vxlan\.calico: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450/);
    assert.match(shown, /link\/ether 66:/);
    assert.match(shown, /vxlan id 4096 local 192\.0\.2\.11 dev eth0 srcport 0 0 dstport 4789 nolearning/);
    assert.match(inside(bench.a.name, "ip", "addr", "show", "vxlan.calico"), /inet 10\.65\.0\.1\/32 /);
    const v6 = inside(bench.a.name, "ip", "-d", "link", "show", "vxlan-v6.calico");
    assert.match(v6, /mtu 1430/);
    assert.match(v6, /vxlan id 4096 local 2001:db8::11 dev eth0 srcport 0 0 dstport 4789 nolearning/);
    assert.equal(
      inside(bench.a.name, "ip", "route", "show", "10.65.1.0/26").trim(),
      "10.65.1.0/26 via 10.65.1.1 dev vxlan.calico proto 80 onlink",
    );
    const mac = vtepMac(bench.b.name, 4);
    assert.match(
      inside(bench.a.name, "bridge", "fdb", "show", "dev", "vxlan.calico"),
      new RegExp(`^${mac} dst 192.0.2.75 self permanent\\s*$`),
    );
    assert.match(
      inside(bench.a.name, "ip", "neigh", "show", "dev", "vxlan.calico"),
      new RegExp(`10.65.1.1 lladdr ${mac} PERMANENT`),
    );
  });

  test("pods and nodes reach each other over a router that knows nothing of them", () => {
    assert.ok(pings(bench.a.pod, bench.b.pod.address));
    assert.ok(pings(bench.b.pod, bench.a.pod.address6));
    assert.ok(pings({ name: bench.a.name }, bench.b.pod.address), "from a node to a pod");
    assert.ok(pings({ name: bench.a.name }, formatAddress(bench.b.tunnel)), "from tunnel to tunnel");
  });

  test("the wire has UDP 4789 between the nodes, and nothing else of the pods", () => {
    using wire = capture(bench.router.path);
    assert.ok(pings(bench.a.pod, bench.b.pod.address));
    const seen = wire.packets();
    const tunnelled = seen.filter(({ protocol }) => protocol === 17);
    assert.ok(tunnelled.length > 0);
    for (const { source, destination, payload } of tunnelled) {
      assert.deepEqual([source, destination].toSorted(), ["192.0.2.11", "192.0.2.75"]);
      const view = new DataView(payload.buffer);
      assert.equal(view.getUint16(2), 4789);
      // RFC 7348 section 5: the I flag, then the network's number in 24 bits.
      assert.deepEqual([view.getUint32(8), view.getUint32(12) >>> 8], [0x0800_0000, 4096]);
    }
    assert.ok(!seen.some(({ destination }) => destination.startsWith("10.65.")));
  });

  test("the largest packet passes, a larger one is answered with the tunnel's MTU", () => {
    assert.ok(pings(bench.a.pod, bench.b.pod.address, "-M", "do", "-s", "1422"));
    assert.ok(pings(bench.a.pod, bench.b.pod.address6, "-M", "do", "-s", String(1430 - 48)));
    assert.throws(
      () => inside(bench.a.pod.name, "ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1423", bench.b.pod.address),
      (error: { stdout?: string }) => /mtu ?= ?1450/.test(error.stdout ?? ""),
    );
  });

  test("20 MB come whole", async () => {
    await transfer(bench.a.pod, bench.b.pod, 20_000_000);
  });

  test("what is as it is wanted is not touched", () => {
    const before = bench.a.rtnetlink.link("vxlan.calico")!.index;
    assert.deepEqual(applyVxlan(bench.a.rtnetlink, wishOf(bench.a, bench.b, 4)), { device: before, made: false });
  });

  const harms: { name: string; harm: string[] }[] = [
    {
      name: "its entries are flushed",
      harm: ["bridge", "fdb", "del", "MAC", "dev", "vxlan.calico", "dst", "192.0.2.75"],
    },
    {
      name: "its entry leads elsewhere",
      harm: ["bridge", "fdb", "replace", "MAC", "dev", "vxlan.calico", "dst", "192.0.2.99"],
    },
    { name: "the neighbour is gone", harm: ["ip", "neigh", "flush", "all", "nud", "permanent", "dev", "vxlan.calico"] },
    {
      name: "the neighbour has another MAC",
      harm: [
        "ip",
        "neigh",
        "replace",
        "10.65.1.1",
        "lladdr",
        "66:00:00:00:00:01",
        "nud",
        "permanent",
        "dev",
        "vxlan.calico",
      ],
    },
    { name: "its address is gone", harm: ["ip", "addr", "flush", "dev", "vxlan.calico"] },
    { name: "it has another MAC", harm: ["ip", "link", "set", "vxlan.calico", "address", "66:00:00:00:00:02"] },
    { name: "it is down", harm: ["ip", "link", "set", "vxlan.calico", "down"] },
    { name: "it is another network", harm: ["ip", "link", "del", "vxlan.calico"] },
  ];
  for (const { name, harm } of harms) {
    test(`put right: ${name}`, () => {
      inside(bench.a.name, ...harm.map((word) => (word === "MAC" ? vtepMac(bench.b.name, 4) : word)));
      join(bench.a, bench.b, 4);
      assert.ok(pings(bench.a.pod, bench.b.pod.address));
      assert.ok(pings({ name: bench.a.name }, formatAddress(bench.b.tunnel)));
    });
  }

  test("entries that nobody wants go; a node's new address takes the place of its old one", () => {
    const { name, rtnetlink } = bench.a;
    inside(name, "bridge", "fdb", "append", "66:00:00:00:00:07", "dev", "vxlan.calico", "dst", "192.0.2.7");
    inside(
      name,
      "ip",
      "neigh",
      "add",
      "10.65.9.1",
      "lladdr",
      "66:00:00:00:00:07",
      "nud",
      "permanent",
      "dev",
      "vxlan.calico",
    );
    const wish = wishOf(bench.a, bench.b, 4);
    const moved = { ...wish.peers[0]!, node: { family: 4 as const, value: wish.peers[0]!.node.value + 1n } };
    applyVxlan(rtnetlink, { ...wish, peers: [moved] });
    assert.equal(
      inside(name, "bridge", "fdb", "show", "dev", "vxlan.calico").trim(),
      `${moved.mac} dst 192.0.2.76 self permanent`,
    );
    assert.match(
      inside(name, "ip", "neigh", "show", "dev", "vxlan.calico", "nud", "permanent"),
      /^10\.65\.1\.1 [^\n]*\n$/,
    );
    applyVxlan(rtnetlink, wish);
    assert.ok(pings(bench.a.pod, bench.b.pod.address));
  });

  test("another port or number means another device; in the end it is taken away", () => {
    const before = bench.a.rtnetlink.link("vxlan.calico")!.index;
    const made = applyVxlan(bench.a.rtnetlink, { ...wishOf(bench.a, bench.b, 4), port: 8472, id: 7 });
    assert.ok(made.made && made.device !== before);
    assert.match(inside(bench.a.name, "ip", "-d", "link", "show", "vxlan.calico"), /vxlan id 7 .* dstport 8472/);
    for (const family of FAMILIES) {
      assert.ok(removeVxlan(bench.a.rtnetlink, family));
      assert.equal(bench.a.rtnetlink.link(VXLAN_DEVICE[family]), undefined);
    }
    assert.equal(removeVxlan(bench.a.rtnetlink, 4), false);
  });
});
