import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, parseInterfaceAddress, parsePrefix } from "../ip/prefix.ts";
import { MalformedBytes } from "../lib/bytes.ts";
import { codeOf } from "../lib/errors.ts";
import { decodeLink, deleteLink, getLink, listLinks } from "./link.ts";
import { inside, temporaryNamespace } from "./namespace.testing.ts";
import { describeForwarding, describeNeighbour } from "./neigh.ts";
import { describeRoute, type RouteSpec } from "./route.ts";
import { describeRule, type Rule } from "./rule.ts";
import { NETLINK_ROUTE, openNetlink } from "./socket.io.ts";
import { openRtnetlink, type RouteChange, type Rtnetlink } from "./rtnetlink.io.ts";

const a = parseAddress;
const p = parsePrefix;
const code = (expected: string) => (error: unknown) => codeOf(error) === expected;

/** A namespace with a bridge `br0` that has 192.0.2.7/26 and 2001:db8::7/64, and a socket to it. */
function bridged(): { name: string; path: string; rtnetlink: Rtnetlink; br0: number; [Symbol.dispose](): void } {
  const { name, path, [Symbol.dispose]: end } = temporaryNamespace();
  const rtnetlink = openRtnetlink(path);
  const br0 = rtnetlink.addLink({ kind: "bridge", name: "br0", up: true }).index;
  rtnetlink.addAddress({ device: br0, address: parseInterfaceAddress("192.0.2.7/26") });
  rtnetlink.addAddress({ device: br0, address: parseInterfaceAddress("2001:db8::7/64"), noDuplicateDetection: true });
  const dispose = (): void => {
    rtnetlink.close();
    end();
  };
  return { name, path, rtnetlink, br0, [Symbol.dispose]: dispose };
}

const json = (name: string, ...command: string[]): unknown => JSON.parse(inside(name, ...command));

describe("links", () => {
  test("a veth is born whole: its peer in the pod's namespace, with name, MAC and MTU", () => {
    using node = bridged();
    using pod = temporaryNamespace();
    const made = node.rtnetlink.addLink({
      kind: "veth",
      name: "cali0",
      address: "ee:ee:ee:ee:ee:ee",
      mtu: 1450,
      txQueueLength: 100,
      up: true,
      peer: { name: "eth0", address: "02:00:00:00:00:02", mtu: 1450, namespace: pod.path },
    });
    const partial = (text: string): unknown => JSON.parse(text)[0];
    assert.partialDeepStrictEqual(partial(inside(node.name, "ip", "-j", "-d", "link", "show", "cali0")), {
      ifindex: made.index,
      flags: ["NO-CARRIER", "BROADCAST", "MULTICAST", "UP"],
      mtu: 1450,
      txqlen: 100,
      address: "ee:ee:ee:ee:ee:ee",
      linkinfo: { info_kind: "veth" },
    });
    assert.partialDeepStrictEqual(partial(inside(pod.name, "ip", "-j", "-d", "link", "show", "eth0")), {
      mtu: 1450,
      address: "02:00:00:00:00:02",
      linkinfo: { info_kind: "veth" },
    });
    assert.deepEqual(node.rtnetlink.link("cali0")?.kind, "veth");
    assert.equal(node.rtnetlink.link(made.index)?.name, "cali0");

    const inPod = openRtnetlink(pod.path);
    try {
      const eth0 = inPod.link("eth0");
      assert.equal(eth0?.index, made.parent);
      assert.equal(eth0?.parent, made.index);
      inPod.setLink(eth0?.index ?? 0, { up: true });
      assert.equal(node.rtnetlink.link("cali0")?.carrier, true);
    } finally {
      inPod.close();
    }
    assert.equal(node.rtnetlink.deleteLink(made.index), true);
    assert.equal(node.rtnetlink.deleteLink(made.index), false);
    assert.equal(node.rtnetlink.link("cali0"), undefined);
  });

  test("vxlan and bridge, with their options, as `ip -d` shows them", () => {
    using node = bridged();
    const { rtnetlink, br0 } = node;
    const made = rtnetlink.addLink({
      kind: "vxlan",
      name: "vxlan.calico",
      address: "66:00:00:00:00:01",
      mtu: 1400,
      vxlan: { id: 4096, local: a("192.0.2.7"), device: br0, port: 4789, learning: false },
    });
    const six = rtnetlink.addLink({
      kind: "vxlan",
      name: "vxlan-v6.calico",
      vxlan: { id: 4097, local: a("2001:db8::7"), remote: a("2001:db8::9"), port: 4789 },
    });
    rtnetlink.addLink({
      kind: "bridge",
      name: "br1",
      bridge: { stp: true, multicastSnooping: false },
    });
    const shown = json(node.name, "ip", "-j", "-d", "link") as { ifname: string }[];
    const of = (name: string) => shown.find(({ ifname }) => ifname === name);
    assert.partialDeepStrictEqual(of("vxlan.calico"), {
      mtu: 1400,
      linkinfo: { info_data: { id: 4096, local: "192.0.2.7", link: "br0", port: 4789, learning: false } },
    });
    assert.partialDeepStrictEqual(of("vxlan-v6.calico"), {
      linkinfo: { info_data: { id: 4097, local6: "2001:db8::7", remote6: "2001:db8::9", port: 4789, learning: true } },
    });
    assert.partialDeepStrictEqual(of("br1"), {
      linkinfo: { info_data: { stp_state: 1, mcast_snooping: 0 } },
    });
    assert.deepEqual(made.vxlan?.local, a("192.0.2.7"));
    assert.deepEqual([six.vxlan?.local, six.vxlan?.remote], [a("2001:db8::7"), a("2001:db8::9")]);
  });

  test("every change of a link", () => {
    using node = bridged();
    using pod = temporaryNamespace();
    const { rtnetlink, br0 } = node;
    const { index } = rtnetlink.addLink({ kind: "veth", name: "v0", peer: { name: "v1" } });
    rtnetlink.setLink(index, {
      name: "v2",
      mtu: 1300,
      address: "02:00:00:00:00:07",
      txQueueLength: 7,
      master: br0,
      up: true,
    });
    assert.partialDeepStrictEqual(rtnetlink.link("v2"), {
      index,
      mtu: 1300,
      address: "02:00:00:00:00:07",
      txQueueLength: 7,
      master: br0,
      up: true,
    });
    rtnetlink.setLink(index, { master: 0, up: false, alias: "moved" });
    const after = rtnetlink.link(index);
    assert.deepEqual([after?.master, after?.up, after?.alias], [undefined, false, "moved"]);
    rtnetlink.setLink(index, { namespace: pod.path });
    assert.equal(rtnetlink.link("v2"), undefined);
    assert.match(inside(pod.name, "ip", "link"), /v2@/);
  });

  test("what `ip` makes is read", () => {
    using node = bridged();
    inside(node.name, "ip", "link", "add", "w0", "mtu", "1280", "type", "veth", "peer", "name", "w1");
    inside(node.name, "ip", "link", "set", "w0", "master", "br0", "up");
    const shown = json(node.name, "ip", "-j", "link") as { ifname: string; mtu: number; operstate: string }[];
    const ours = node.rtnetlink.links();
    assert.deepEqual(
      ours.map(({ name, mtu, operState }) => [name, mtu, operState.toUpperCase()]),
      shown.map(({ ifname, mtu, operstate }) => [ifname, mtu, operstate]),
    );
    assert.equal(ours.find(({ name }) => name === "w0")?.master, node.br0);
  });

  test("links that leave in the background, one and many", async () => {
    using node = bridged();
    const { rtnetlink } = node;
    const indexes = ["x0", "x1", "x2", "x3"].map(
      (name) => rtnetlink.addLink({ kind: "veth", name, up: true, peer: { name: `${name}p` } }).index,
    );
    const [first = 0, ...rest] = indexes;
    await rtnetlink.deleteLinkInBackground(first);
    assert.equal(rtnetlink.link("x0"), undefined);
    await Promise.all([...rest, first, 9999].map((index) => rtnetlink.deleteLinkInBackground(index)));
    assert.deepEqual(
      rtnetlink.links().map(({ name }) => name),
      ["lo", "br0"],
    );
  });
});

describe("addresses", () => {
  test("are written and read as `ip` does", () => {
    using node = bridged();
    const { rtnetlink, br0 } = node;
    rtnetlink.addAddress({
      device: br0,
      address: parseInterfaceAddress("192.0.2.8/26"),
      broadcast: a("192.0.2.63"),
      noPrefixRoute: true,
    });
    rtnetlink.addAddress({ device: br0, address: parseInterfaceAddress("198.51.100.1/32"), peer: a("198.51.100.2") });
    rtnetlink.replaceAddress({ device: br0, address: parseInterfaceAddress("192.0.2.7/26") });
    inside(node.name, "ip", "addr", "add", "203.0.113.5/24", "dev", "br0", "scope", "link", "label", "br0:x");
    const [link] = json(node.name, "ip", "-j", "-4", "addr", "show", "dev", "br0") as [
      { addr_info: { local: string }[] },
    ];
    const shown = (local: string): object | undefined => link.addr_info.find((one) => one.local === local);
    assert.partialDeepStrictEqual(shown("192.0.2.7"), { prefixlen: 26, scope: "global" });
    assert.partialDeepStrictEqual(shown("192.0.2.8"), { prefixlen: 26, broadcast: "192.0.2.63", noprefixroute: true });
    assert.partialDeepStrictEqual(shown("198.51.100.1"), { prefixlen: 32, address: "198.51.100.2" });
    const ours = rtnetlink.addresses().filter(({ device, address }) => device === br0 && address.address.family === 4);
    assert.deepEqual(
      ours.map(({ address }) => formatAddress(address.address)),
      link.addr_info.map(({ local }) => local),
    );
    const own = (text: string) => ours.find(({ address }) => formatAddress(address.address) === text);
    assert.partialDeepStrictEqual(own("203.0.113.5"), { scope: 253, label: "br0:x" });
    assert.partialDeepStrictEqual(own("192.0.2.8"), { broadcast: a("192.0.2.63"), noPrefixRoute: true });
    assert.deepEqual(own("198.51.100.1")?.peer, a("198.51.100.2"));

    assert.equal(rtnetlink.deleteAddress({ device: br0, address: parseInterfaceAddress("192.0.2.8/26") }), true);
    assert.equal(rtnetlink.deleteAddress({ device: br0, address: parseInterfaceAddress("192.0.2.8/26") }), false);
    assert.throws(
      () => rtnetlink.addAddress({ device: br0, address: parseInterfaceAddress("192.0.2.7/26") }),
      /Cannot add address 192\.0\.2\.7\/26 dev br0: file already exists \(EEXIST\)/,
    );
  });
});

describe("routes", () => {
  const written: { add: (br0: number) => RouteSpec; shown: string }[] = [
    {
      add: () => ({ destination: p("10.1.2.0/26"), nextHops: [{ gateway: a("192.0.2.9") }], protocol: 12 }),
      shown: "10.1.2.0/26 via 192.0.2.9 dev br0 proto bird",
    },
    {
      add: (device) => ({ destination: p("10.1.3.1/32"), nextHops: [{ device }], protocol: 80 }),
      shown: "10.1.3.1 dev br0 proto 80 scope link",
    },
    {
      add: (device) => ({
        destination: p("10.1.4.0/26"),
        nextHops: [{ gateway: a("203.0.113.1"), device, onlink: true }],
      }),
      shown: "10.1.4.0/26 via 203.0.113.1 dev br0 onlink",
    },
    {
      add: (device) => ({ destination: p("10.1.5.0/26"), nextHops: [{ gateway: a("2001:db8::9"), device }] }),
      shown: "10.1.5.0/26 via inet6 2001:db8::9 dev br0",
    },
    {
      add: () => ({ destination: p("10.1.6.0/26"), type: "blackhole", protocol: 80 }),
      shown: "blackhole 10.1.6.0/26 proto 80",
    },
    {
      add: () => ({ destination: p("10.1.7.0/26"), type: "unreachable", metric: 9 }),
      shown: "unreachable 10.1.7.0/26 metric 9",
    },
    {
      add: (device) => ({ destination: p("10.1.8.0/26"), nextHops: [{ device }], mtu: 1400, source: a("192.0.2.7") }),
      shown: "10.1.8.0/26 dev br0 scope link src 192.0.2.7 mtu 1400",
    },
    {
      add: () => ({ destination: p("0.0.0.0/0"), nextHops: [{ gateway: a("192.0.2.1") }] }),
      shown: "default via 192.0.2.1 dev br0",
    },
    {
      add: (device) => ({
        destination: p("10.1.9.0/26"),
        nextHops: [{ gateway: a("192.0.2.9") }, { gateway: a("192.0.2.10"), device, weight: 3 }],
      }),
      shown: "10.1.9.0/26 nexthop via 192.0.2.9 dev br0 weight 1 nexthop via 192.0.2.10 dev br0 weight 3",
    },
    {
      add: () => ({ destination: p("2001:db8:1::/64"), nextHops: [{ gateway: a("2001:db8::9") }], protocol: 12 }),
      shown: "2001:db8:1::/64 via 2001:db8::9 dev br0 proto bird metric 1024 pref medium",
    },
    {
      add: (device) => ({ destination: p("2001:db8:2::1/128"), nextHops: [{ device }], metric: 5 }),
      shown: "2001:db8:2::1 dev br0 metric 5 pref medium",
    },
    {
      add: () => ({ destination: p("2001:db8:3::/64"), type: "blackhole" }),
      shown: "blackhole 2001:db8:3::/64 dev lo metric 1024 pref medium",
    },
    {
      add: () => ({
        destination: p("2001:db8:4::/64"),
        nextHops: [{ gateway: a("2001:db8::9") }, { gateway: a("2001:db8::a") }],
      }),
      shown:
        "2001:db8:4::/64 metric 1024 pref medium nexthop via 2001:db8::9 dev br0 weight 1 nexthop via 2001:db8::a dev br0 weight 1",
    },
  ];
  test("`ip` shows what we wrote, and we read it back; a removal removes it", () => {
    using node = bridged();
    const { rtnetlink, br0, name } = node;
    for (const { add } of written) rtnetlink.addRoute(add(br0));
    const lines = (inside(name, "ip", "route") + inside(name, "ip", "-6", "route"))
      .replaceAll("\n\t", " ")
      .replaceAll(/ linkdown/g, "")
      .split("\n")
      .map((line) => line.replaceAll(/ +/g, " ").trim());
    for (const { shown } of written) assert.ok(lines.includes(shown), `${shown}\nis not in\n${lines.join("\n")}`);
    const ours = rtnetlink.routes();
    for (const { add } of written) {
      const spec = add(br0);
      const read = ours.find(({ destination }) => formatPrefix(destination) === formatPrefix(spec.destination));
      assert.ok(read);
      assert.partialDeepStrictEqual(read, { ...spec, nextHops: [] });
      assert.partialDeepStrictEqual(read.nextHops, spec.nextHops ?? []);
      assert.equal(rtnetlink.deleteRoute(read), true, describeRoute(spec));
      assert.equal(rtnetlink.deleteRoute(read), false, describeRoute(spec));
    }
    assert.deepEqual(rtnetlink.routes({ protocol: 12 }), []);
  });

  test("tables and filters", () => {
    using node = bridged();
    const { rtnetlink, br0 } = node;
    assert.deepEqual(rtnetlink.routes({ table: 1000 }), []);
    rtnetlink.addRoute({ destination: p("10.1.0.0/16"), nextHops: [{ device: br0 }], table: 1000, protocol: 80 });
    rtnetlink.addRoute({ destination: p("10.2.0.0/16"), type: "blackhole", protocol: 80 });
    rtnetlink.addRoute({ destination: p("10.3.0.0/16"), type: "blackhole", protocol: 12 });
    rtnetlink.addRoute({ destination: p("2001:db8:3::/64"), nextHops: [{ device: br0 }], protocol: 80 });
    const said = (...filter: Parameters<Rtnetlink["routes"]>): string[] =>
      rtnetlink.routes(...filter).map((route) => describeRoute(route, () => "br0"));
    assert.deepEqual(said({ table: 1000 }), ["10.1.0.0/16 dev br0 table 1000"]);
    assert.deepEqual(said({ protocol: 80, table: 254 }), [
      "blackhole 10.2.0.0/16",
      "2001:db8:3::/64 dev br0 metric 1024",
    ]);
    assert.deepEqual(said({ type: "blackhole" }), ["blackhole 10.2.0.0/16", "blackhole 10.3.0.0/16"]);
    assert.deepEqual(said({ device: br0, protocol: 80, family: 6 }), ["2001:db8:3::/64 dev br0 metric 1024"]);
    assert.match(
      inside(node.name, "ip", "route", "show", "table", "1000"),
      /^10\.1\.0\.0\/16 dev br0 proto 80 scope link/,
    );
  });

  test("a replaced route is one route", () => {
    using node = bridged();
    const { rtnetlink } = node;
    const to = (gateway: string): RouteSpec => ({ destination: p("10.1.0.0/16"), nextHops: [{ gateway: a(gateway) }] });
    rtnetlink.replaceRoute(to("192.0.2.9"));
    rtnetlink.replaceRoute(to("192.0.2.10"));
    assert.match(
      inside(node.name, "ip", "route", "show", "10.1.0.0/16"),
      /^10\.1\.0\.0\/16 via 192\.0\.2\.10 dev br0 *(linkdown *)?\n$/,
    );
  });

  test("a refusal says what was to be done, on what, and why, in the kernel's words", () => {
    using node = bridged();
    const { rtnetlink, br0 } = node;
    assert.throws(
      () => rtnetlink.addRoute({ destination: p("10.1.2.0/26"), nextHops: [{ gateway: a("203.0.113.1") }] }),
      (error) =>
        codeOf(error) === "ENETUNREACH" &&
        error instanceof Error &&
        error.message ===
          "Cannot add route 10.1.2.0/26 via 203.0.113.1: network is unreachable (ENETUNREACH): Nexthop has invalid gateway",
    );
    assert.throws(
      () =>
        rtnetlink.addRoute({
          destination: p("192.0.2.0/26"),
          nextHops: [{ device: br0 }],
          protocol: 2,
          source: a("192.0.2.7"),
        }),
      /Cannot add route 192\.0\.2\.0\/26 dev br0: file already exists \(EEXIST\)/,
    );
    assert.throws(
      () => rtnetlink.addLink({ kind: "bridge", name: "a-name-that-is-too-long" }),
      /Cannot add bridge a-name-that-is-too-long: .*\((ERANGE|EINVAL)\)/,
    );
    assert.throws(() => rtnetlink.addLink({ kind: "bridge", name: "br0" }), code("EEXIST"));
    assert.throws(
      () => rtnetlink.addLink({ kind: "veth", name: "v", peer: { name: "p", namespace: "/run/netns/none-such" } }),
      /Cannot open network namespace \/run\/netns\/none-such/,
    );
    assert.throws(() => rtnetlink.setLink(br0, { mtu: 1 }), /Cannot set mtu 1 on link br0: .*\(EINVAL\): .*mtu/i);
  });

  test("one refusal in a batch hides neither which it was nor the others", () => {
    using node = bridged();
    const { rtnetlink } = node;
    // More than one write's worth, with refusals at both ends of writes.
    const refusedAt = new Set([0, 3, 254, 255, 256, 599]);
    const changes = Array.from({ length: 600 }, (_, at): RouteChange => {
      const gateway = a(refusedAt.has(at) ? "203.0.113.1" : "192.0.2.9");
      return {
        kind: "replace",
        route: { destination: p(`10.${at >> 8}.${at & 255}.0/24`), nextHops: [{ gateway }], protocol: 80 },
      };
    });
    const results = rtnetlink.applyRoutes(changes);
    for (const [at, result] of results.entries()) {
      if (refusedAt.has(at)) {
        assert.equal(result?.code, "ENETUNREACH");
        assert.match(
          result.message,
          new RegExp(
            `Cannot replace route 10\\.${at >> 8}\\.${at & 255}\\.0/24 via 203\\.0\\.113\\.1: .*Nexthop has invalid gateway`,
          ),
        );
      } else assert.equal(result, undefined);
    }
    assert.equal(rtnetlink.routes({ protocol: 80 }).length, 600 - refusedAt.size);
    assert.equal(
      inside(node.name, "ip", "route", "show", "proto", "80").trim().split("\n").length,
      600 - refusedAt.size,
    );
    // What is not there does not fail to go.
    const removals = rtnetlink.applyRoutes(
      changes.map(({ route }) => ({ kind: "remove", route: { destination: route.destination } })),
    );
    assert.deepEqual(
      removals.filter((result) => result !== undefined),
      [],
    );
    assert.deepEqual(rtnetlink.routes({ protocol: 80 }), []);
  });

  test("a batch of refusals only", () => {
    using node = bridged();
    const refused = Array.from({ length: 300 }, (_, at): RouteChange => ({
      kind: "add",
      route: { destination: p(`10.0.${at & 255}.0/24`), nextHops: [{ gateway: a("203.0.113.1") }] },
    }));
    assert.equal(node.rtnetlink.applyRoutes(refused).filter((result) => result?.code === "ENETUNREACH").length, 300);
    assert.deepEqual(node.rtnetlink.applyRoutes([]), []);
  });

  test("a list of many pieces is whole", () => {
    using node = bridged();
    const changes = Array.from({ length: 5000 }, (_, at): RouteChange => ({
      kind: "add",
      route: { destination: p(`10.${at >> 8}.${at & 255}.0/24`), type: "blackhole", protocol: 80 },
    }));
    assert.ok(node.rtnetlink.applyRoutes(changes).every((result) => result === undefined));
    assert.equal(node.rtnetlink.routes({ protocol: 80 }).length, 5000);
  });
});

describe("neighbours and rules", () => {
  test("neighbours, proxies and forwarding entries", () => {
    using node = bridged();
    const { rtnetlink, br0, name } = node;
    const vxlan = rtnetlink.addLink({
      kind: "vxlan",
      name: "vxlan.calico",
      up: true,
      vxlan: { id: 1, local: a("192.0.2.7"), device: br0, port: 4789, learning: false },
    }).index;
    const nameOf = (index: number): string => (index === vxlan ? "vxlan.calico" : "br0");
    const mac = "66:00:00:00:00:09";
    rtnetlink.addNeighbour({ device: vxlan, address: a("10.1.9.0"), linkAddress: "66:00:00:00:00:08" });
    rtnetlink.replaceNeighbour({ device: vxlan, address: a("10.1.9.0"), linkAddress: mac });
    rtnetlink.addNeighbour({ device: br0, address: a("2001:db8::99"), proxy: true });
    assert.match(
      inside(name, "ip", "neigh", "show", "nud", "permanent"),
      /10\.1\.9\.0 dev vxlan\.calico lladdr 66:00:00:00:00:09 PERMANENT/,
    );
    assert.match(inside(name, "ip", "neigh", "show", "proxy"), /2001:db8::99 dev br0 +proxy/);
    const ours = rtnetlink.neighbours().filter(({ state, proxy }) => state === "permanent" || proxy === true);
    assert.deepEqual(
      ours.map((one) => describeNeighbour(one, nameOf)),
      [`10.1.9.0 lladdr ${mac} dev vxlan.calico`, "proxy 2001:db8::99 dev br0"],
    );
    assert.throws(
      () => rtnetlink.addNeighbour({ device: vxlan, address: a("10.1.9.0"), linkAddress: mac }),
      /Cannot add neighbour 10\.1\.9\.0 lladdr 66:00:00:00:00:09 dev vxlan\.calico: .*EEXIST/,
    );
    for (const one of ours) {
      assert.equal(rtnetlink.deleteNeighbour(one), true);
      assert.equal(rtnetlink.deleteNeighbour(one), false);
    }

    const entry = { device: vxlan, linkAddress: mac, destination: a("192.0.2.9"), table: "self" } as const;
    rtnetlink.addForwarding(entry);
    rtnetlink.replaceForwarding({ ...entry, destination: a("192.0.2.10") });
    const all = { ...entry, linkAddress: "00:00:00:00:00:00" };
    rtnetlink.appendForwarding(all);
    rtnetlink.appendForwarding({ ...all, destination: a("192.0.2.11") });
    const shown = inside(name, "bridge", "fdb", "show", "dev", "vxlan.calico")
      .trim()
      .split("\n")
      .map((line) => line.trim());
    const expected = ["00:00:00:00:00:00 dst 192.0.2.9", "00:00:00:00:00:00 dst 192.0.2.11", `${mac} dst 192.0.2.10`];
    assert.deepEqual(shown.toSorted(), expected.map((text) => `${text} self permanent`).toSorted());
    const read = rtnetlink.forwarding().filter(({ device }) => device === vxlan);
    assert.deepEqual(
      read.map((one) => describeForwarding({ ...one, table: "self" }, nameOf)).toSorted(),
      expected.map((text) => `${text} dev vxlan.calico`).toSorted(),
    );
    assert.equal(rtnetlink.deleteForwarding({ ...entry, destination: a("192.0.2.10") }), true);
    assert.equal(rtnetlink.deleteForwarding({ ...entry, destination: a("192.0.2.10") }), false);
  });

  test("rules", () => {
    using node = bridged();
    const { rtnetlink, name } = node;
    const rules: { rule: Rule; shown: RegExp }[] = [
      {
        rule: { family: 4, priority: 100, action: "table", table: 99, mark: 0x10000, mask: 0x10000 },
        shown: /^100:\tfrom all fwmark 0x10000\/0x10000 lookup 99/m,
      },
      {
        rule: { family: 4, priority: 101, action: "table", table: 1000, from: p("10.1.0.0/16"), to: p("10.2.0.0/16") },
        shown: /^101:\tfrom 10\.1\.0\.0\/16 to 10\.2\.0\.0\/16 lookup 1000/m,
      },
      {
        rule: { family: 4, priority: 102, action: "blackhole", inputInterface: "br0", invert: true },
        shown: /^102:\tnot from all iif br0 blackhole/m,
      },
      {
        rule: { family: 6, priority: 103, action: "table", table: 99, from: p("2001:db8::/64"), protocol: 80 },
        shown: /^103:\tfrom 2001:db8::\/64 lookup 99 proto 80/m,
      },
      {
        rule: { family: 4, priority: 104, action: "table", table: 254, suppressPrefixLength: 0 },
        shown: /^104:\tfrom all lookup main suppress_prefixlength 0/m,
      },
    ];
    for (const { rule } of rules) rtnetlink.addRule(rule);
    const text = inside(name, "ip", "rule") + inside(name, "ip", "-6", "rule");
    const ours = rtnetlink.rules();
    for (const { rule, shown } of rules) {
      assert.match(text, shown);
      assert.deepEqual(
        ours.find(({ priority }) => priority === rule.priority),
        rule,
      );
      assert.throws(
        () => rtnetlink.addRule(rule),
        new RegExp(`Cannot add rule ${rule.priority}: .*EEXIST`),
        describeRule(rule),
      );
      assert.equal(rtnetlink.deleteRule(rule), true);
      assert.equal(rtnetlink.deleteRule(rule), false);
    }
  });
});

test("an answer that cannot be read does not spoil the next", () => {
  using node = temporaryNamespace();
  const socket = openNetlink(NETLINK_ROUTE, node.path);
  try {
    const unreadable = (): never => {
      throw new MalformedBytes("not this one");
    };
    for (const _ of [1, 2]) {
      assert.throws(() => socket.dump(listLinks(), () => "list", unreadable), /not this one/);
      assert.throws(() => socket.request(getLink("lo"), () => "read", unreadable), /not this one/);
    }
    assert.deepEqual(
      socket.dump(listLinks(), () => "list", decodeLink).map(({ name }) => name),
      ["lo"],
    );
  } finally {
    socket.close();
  }
});

test("a socket with a request in flight takes no other", async () => {
  using node = temporaryNamespace();
  const socket = openNetlink(NETLINK_ROUTE, node.path);
  try {
    const deleted = socket.requestInBackground(deleteLink(99), () => "delete link 99");
    assert.throws(() => socket.batch([deleteLink(98)]), /Cannot write 1 changes: .* has a request in flight/);
    await assert.rejects(deleted, /Cannot delete link 99: no such device \(ENODEV\)/);
    assert.equal(socket.batch([deleteLink(98)])[0]?.code, "ENODEV");
  } finally {
    socket.close();
  }
});

test("a closed socket says so", () => {
  using node = temporaryNamespace();
  const rtnetlink = openRtnetlink(node.path);
  rtnetlink.close();
  rtnetlink.close();
  assert.throws(() => rtnetlink.links(), /Cannot list links: the netlink socket is closed/);
});
