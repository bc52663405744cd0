import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parseInterfaceAddress, parsePrefix } from "../ip/prefix.ts";
import { addAddress, decodeAddress, deleteAddress, describeAddress, replaceAddress } from "./addr.ts";
import { decodeMessages, ECHO, type Message, type Request } from "./framing.ts";
import { readGolden, wireOf } from "./golden.testing.ts";
import { addLink, decodeLink, deleteLink, setLink } from "./link.ts";
import {
  addForwarding,
  addNeighbour,
  appendForwarding,
  decodeNeighbour,
  deleteForwarding,
  deleteNeighbour,
  replaceForwarding,
  replaceNeighbour,
} from "./neigh.ts";
import { addRoute, decodeRoute, deleteRoute, describeRoute, replaceRoute } from "./route.ts";
import { addRule, decodeRule, deleteRule, describeRule } from "./rule.ts";

const a = parseAddress;
const p = parsePrefix;
const i = parseInterfaceAddress;

/** Links of the captured namespace by their index. */
const LO = 1;
const BR0 = 2;
const CALI0 = 3;
const VXLAN = 4;
const VXLAN6 = 5;

/** `ip` passed the pod's namespace as this descriptor. */
const descriptorOf = (): number => 4;
const noEcho = (request: Request): Request => ({ ...request, flags: request.flags & ~ECHO });

/** What `ip` and `bridge` were asked, and how we ask for the same: byte for byte, but for the sequence number. */
const SAME: Record<string, Record<string, Request>> = {
  link: {
    "ip link add br0 address 66:00:00:00:00:01 type bridge mcast_snooping 0": addLink(
      { kind: "bridge", name: "br0", address: "66:00:00:00:00:01", bridge: { multicastSnooping: false } },
      descriptorOf,
    ),
    "ip link add cali0 address ee:ee:ee:ee:ee:ee mtu 1450 txqueuelen 100 type veth peer name eth0 address 02:00:00:00:00:02 mtu 1450 netns PEER":
      addLink(
        {
          kind: "veth",
          name: "cali0",
          address: "ee:ee:ee:ee:ee:ee",
          mtu: 1450,
          txQueueLength: 100,
          peer: { name: "eth0", address: "02:00:00:00:00:02", mtu: 1450, namespace: "/run/netns/PEER" },
        },
        descriptorOf,
      ),
    "ip link add vxlan.calico address 66:00:00:00:00:02 type vxlan id 4096 local 192.0.2.7 dev br0 dstport 4789 nolearning":
      addLink(
        {
          kind: "vxlan",
          name: "vxlan.calico",
          address: "66:00:00:00:00:02",
          vxlan: { id: 4096, local: a("192.0.2.7"), device: BR0, port: 4789, learning: false },
        },
        descriptorOf,
      ),
    "ip link add vxlan6 type vxlan id 4097 local 2001:db8::7 remote 2001:db8::9 dev br0 dstport 4789 noudpcsum":
      addLink(
        {
          kind: "vxlan",
          name: "vxlan6",
          vxlan: {
            id: 4097,
            local: a("2001:db8::7"),
            remote: a("2001:db8::9"),
            device: BR0,
            port: 4789,
            learning: true,
            checksum: false,
          },
        },
        descriptorOf,
      ),
    "ip link set br0 up": setLink(BR0, { up: true }, descriptorOf),
    "ip link set cali0 up": setLink(CALI0, { up: true }, descriptorOf),
    "ip link set cali0 master br0": setLink(CALI0, { master: BR0 }, descriptorOf),
    "ip link set cali0 nomaster": setLink(CALI0, { master: 0 }, descriptorOf),
    "ip link set cali0 mtu 1400": setLink(CALI0, { mtu: 1400 }, descriptorOf),
    "ip link set vxlan6 name vxlan7": setLink(VXLAN6, { name: "vxlan7" }, descriptorOf),
    "ip link set vxlan7 address 66:00:00:00:00:03": setLink(VXLAN6, { address: "66:00:00:00:00:03" }, descriptorOf),
    "ip link set vxlan.calico up": setLink(VXLAN, { up: true }, descriptorOf),
    "ip link del vxlan7": deleteLink(VXLAN6),
  },
  addr: {
    "ip addr add 192.0.2.7/26 dev br0": addAddress({ device: BR0, address: i("192.0.2.7/26") }),
    "ip addr add 192.0.2.8/26 broadcast 192.0.2.63 dev br0 noprefixroute": addAddress({
      device: BR0,
      address: i("192.0.2.8/26"),
      broadcast: a("192.0.2.63"),
      noPrefixRoute: true,
    }),
    "ip addr add 198.51.100.1 peer 198.51.100.2/32 dev br0": addAddress({
      device: BR0,
      address: i("198.51.100.1/32"),
      peer: a("198.51.100.2"),
    }),
    "ip addr add 127.0.0.2/8 scope host dev lo": addAddress({ device: LO, address: i("127.0.0.2/8"), scope: 254 }),
    "ip addr add 2001:db8::7/64 dev br0 nodad": addAddress({
      device: BR0,
      address: i("2001:db8::7/64"),
      noDuplicateDetection: true,
    }),
    "ip addr replace 192.0.2.7/26 dev br0": replaceAddress({ device: BR0, address: i("192.0.2.7/26") }),
    "ip addr del 192.0.2.8/26 dev br0": deleteAddress({ device: BR0, address: i("192.0.2.8/26") }),
  },
  route: {
    "ip route add 10.1.2.0/26 via 192.0.2.9": addRoute({
      destination: p("10.1.2.0/26"),
      nextHops: [{ gateway: a("192.0.2.9") }],
    }),
    "ip route add 10.1.3.0/26 via 192.0.2.9 dev br0 proto bird metric 50": addRoute({
      destination: p("10.1.3.0/26"),
      nextHops: [{ gateway: a("192.0.2.9"), device: BR0 }],
      protocol: 12,
      metric: 50,
    }),
    "ip route add 10.1.4.0/26 via 203.0.113.9 dev br0 onlink proto 80 mtu 1400": addRoute({
      destination: p("10.1.4.0/26"),
      nextHops: [{ gateway: a("203.0.113.9"), device: BR0, onlink: true }],
      protocol: 80,
      mtu: 1400,
    }),
    "ip route add 10.1.5.1 dev cali0 scope link proto 80": addRoute({
      destination: p("10.1.5.1/32"),
      nextHops: [{ device: CALI0 }],
      protocol: 80,
    }),
    "ip route replace blackhole 10.1.6.0/26 proto 80": replaceRoute({
      destination: p("10.1.6.0/26"),
      type: "blackhole",
      protocol: 80,
    }),
    "ip route add unreachable 10.1.7.0/26": addRoute({ destination: p("10.1.7.0/26"), type: "unreachable" }),
    "ip route add prohibit 10.1.8.0/26 table 1000": addRoute({
      destination: p("10.1.8.0/26"),
      type: "prohibit",
      table: 1000,
    }),
    "ip route add 10.1.9.0/26 table 7 src 192.0.2.7 dev br0": addRoute({
      destination: p("10.1.9.0/26"),
      table: 7,
      source: a("192.0.2.7"),
      nextHops: [{ device: BR0 }],
    }),
    "ip route add 10.1.10.0/26 nexthop via 192.0.2.9 weight 1 nexthop via 192.0.2.10 dev br0 weight 3 onlink": addRoute(
      {
        destination: p("10.1.10.0/26"),
        nextHops: [
          { gateway: a("192.0.2.9"), weight: 1 },
          { gateway: a("192.0.2.10"), device: BR0, weight: 3, onlink: true },
        ],
      },
    ),
    "ip route add 10.1.11.0/26 via inet6 2001:db8::9 dev br0": addRoute({
      destination: p("10.1.11.0/26"),
      nextHops: [{ gateway: a("2001:db8::9"), device: BR0 }],
    }),
    "ip route add default via 192.0.2.1": addRoute({
      destination: p("0.0.0.0/0"),
      nextHops: [{ gateway: a("192.0.2.1") }],
    }),
    "ip route add local 10.1.12.1 dev lo table local": addRoute({
      destination: p("10.1.12.1/32"),
      type: "local",
      table: 255,
      nextHops: [{ device: LO }],
    }),
    "ip -6 route add 2001:db8:1::/64 via 2001:db8::9 dev br0 proto bird": addRoute({
      destination: p("2001:db8:1::/64"),
      nextHops: [{ gateway: a("2001:db8::9"), device: BR0 }],
      protocol: 12,
    }),
    "ip -6 route add blackhole 2001:db8:2::/64 proto 80": addRoute({
      destination: p("2001:db8:2::/64"),
      type: "blackhole",
      protocol: 80,
    }),
    "ip -6 route add 2001:db8:3::/64 metric 7 nexthop via 2001:db8::9 nexthop via 2001:db8::a": addRoute({
      destination: p("2001:db8:3::/64"),
      metric: 7,
      nextHops: [{ gateway: a("2001:db8::9") }, { gateway: a("2001:db8::a") }],
    }),
    "ip route del 10.1.2.0/26": deleteRoute({ destination: p("10.1.2.0/26") }),
    "ip route del 10.1.3.0/26 via 192.0.2.9 proto bird metric 50": deleteRoute({
      destination: p("10.1.3.0/26"),
      nextHops: [{ gateway: a("192.0.2.9") }],
      protocol: 12,
      metric: 50,
    }),
  },
  neigh: {
    "ip neigh add 10.1.9.0 lladdr 66:00:00:00:00:09 dev vxlan.calico nud permanent": addNeighbour({
      device: VXLAN,
      address: a("10.1.9.0"),
      linkAddress: "66:00:00:00:00:09",
    }),
    "ip neigh replace 10.1.9.1 lladdr 66:00:00:00:00:0a dev vxlan.calico nud reachable": replaceNeighbour({
      device: VXLAN,
      address: a("10.1.9.1"),
      linkAddress: "66:00:00:00:00:0a",
      state: "reachable",
    }),
    "ip neigh add proxy 2001:db8::99 dev cali0": addNeighbour({
      device: CALI0,
      address: a("2001:db8::99"),
      proxy: true,
    }),
    "ip neigh del 10.1.9.1 dev vxlan.calico": deleteNeighbour({ device: VXLAN, address: a("10.1.9.1") }),
    "bridge fdb add 66:00:00:00:00:09 dev vxlan.calico dst 192.0.2.9 self permanent": addForwarding({
      device: VXLAN,
      linkAddress: "66:00:00:00:00:09",
      destination: a("192.0.2.9"),
      table: "self",
    }),
    "bridge fdb append 00:00:00:00:00:00 dev vxlan.calico dst 192.0.2.10 self permanent": appendForwarding({
      device: VXLAN,
      linkAddress: "00:00:00:00:00:00",
      destination: a("192.0.2.10"),
      table: "self",
    }),
    "bridge fdb append 00:00:00:00:00:00 dev vxlan.calico dst 192.0.2.11 port 8472 self permanent": appendForwarding({
      device: VXLAN,
      linkAddress: "00:00:00:00:00:00",
      destination: a("192.0.2.11"),
      port: 8472,
      table: "self",
    }),
    "bridge fdb replace 66:00:00:00:00:09 dev vxlan.calico dst 192.0.2.12 self permanent": replaceForwarding({
      device: VXLAN,
      linkAddress: "66:00:00:00:00:09",
      destination: a("192.0.2.12"),
      table: "self",
    }),
    "bridge fdb add 66:00:00:00:00:0b dev cali0 master static": addForwarding({
      device: CALI0,
      linkAddress: "66:00:00:00:00:0b",
      table: "master",
    }),
    "bridge fdb del 66:00:00:00:00:09 dev vxlan.calico self": deleteForwarding({
      device: VXLAN,
      linkAddress: "66:00:00:00:00:09",
      table: "self",
    }),
  },
  rule: {
    "ip rule add fwmark 0x10000/0x10000 priority 100 table 99": addRule({
      family: 4,
      priority: 100,
      action: "table",
      table: 99,
      mark: 0x10000,
      mask: 0x10000,
    }),
    "ip rule add from 10.1.0.0/16 to 10.2.0.0/16 priority 101 table 1000": addRule({
      family: 4,
      priority: 101,
      action: "table",
      table: 1000,
      from: p("10.1.0.0/16"),
      to: p("10.2.0.0/16"),
    }),
    "ip rule add not iif br0 priority 102 blackhole": addRule({
      family: 4,
      priority: 102,
      action: "blackhole",
      inputInterface: "br0",
      invert: true,
    }),
    "ip rule add oif br0 priority 103 table 99 suppress_prefixlength 0": addRule({
      family: 4,
      priority: 103,
      action: "table",
      table: 99,
      outputInterface: "br0",
      suppressPrefixLength: 0,
    }),
    "ip -6 rule add from 2001:db8::/64 priority 104 table 99 protocol 80": addRule({
      family: 6,
      priority: 104,
      action: "table",
      table: 99,
      from: p("2001:db8::/64"),
      protocol: 80,
    }),
    "ip rule del priority 103 table 99": deleteRule({ family: 4, priority: 103, action: "unspec", table: 99 }),
  },
};

for (const [file, requests] of Object.entries(SAME)) {
  describe(`we send what iproute2 sends: ${file}`, () => {
    const changes = readGolden(file).filter(({ sent }) => sent.length > 0);
    test("every captured command is compared", () => {
      assert.deepEqual(
        Object.keys(requests),
        changes.map(({ command }) => command),
      );
    });
    for (const { command, sent } of changes) {
      test(command, () => {
        const request = requests[command];
        assert.ok(request);
        assert.deepEqual([wireOf(noEcho(request))], sent);
      });
    }
  });
}

/** The answers that the command got. */
function answers(file: string, command: string): { messages: Message[]; printed: readonly string[] } {
  const golden = readGolden(file).find((one) => one.command === command);
  assert.ok(golden, `${command} is not in golden/${file}.hex`);
  const { answers: datagrams, printed } = golden;
  const messages = datagrams.flatMap((bytes) => decodeMessages(bytes)).filter(({ type }) => type !== 3);
  return { messages, printed };
}

const NAMES: Record<number, string> = { [LO]: "lo", [BR0]: "br0", [CALI0]: "cali0", [VXLAN]: "vxlan.calico" };
const nameOf = (index: number): string => NAMES[index] ?? "?";

describe("we read what the kernel answered, as iproute2 did", () => {
  test("ip route show table all", () => {
    const { messages, printed } = answers("route", "ip route show table all");
    const routes = messages.map((message) => decodeRoute(message)).filter((route) => route !== undefined);
    // `ip` breaks lines, writes its own defaults in other words, and adds what we have in other fields.
    const said = printed
      .join("\n")
      .replaceAll("\n\t", " ")
      .replaceAll(/ (linkdown|pref medium|proto \S+|scope \S+|src \S+|mtu \d+|inet6)(?= |$)/gm, "")
      .replaceAll(/^blackhole (\S+) dev lo/gm, "blackhole $1")
      .replaceAll(/^(.*) dev lo table local metric 0$/gm, "$1 dev lo table local")
      .replaceAll(/^(.*) dev br0 table local metric 0$/gm, "$1 dev br0 table local")
      .replaceAll("table local", "table 255")
      .replaceAll(/^(local|broadcast) ([\d.]+) /gm, "$1 $2/32 ")
      .replaceAll(/^local ([\da-f:]+) /gm, "local $1/128 ")
      .replaceAll(/^([\d.]+) /gm, "$1/32 ")
      .replaceAll(/^default /gm, "0.0.0.0/0 ")
      .replaceAll(/ onlink mtu/g, " onlink")
      .split("\n")
      .map((line) => line.trimEnd());
    assert.deepEqual(routes.map((route) => describeRoute(route, nameOf)).toSorted(), said.toSorted());
  });

  test("the fields of a route that its line leaves out", () => {
    const { messages } = answers("route", "ip route show table all");
    const routes = messages.map((message) => decodeRoute(message)).filter((route) => route !== undefined);
    const of = (prefix: string) => routes.find((route) => describeRoute({ destination: route.destination }) === prefix);
    assert.deepEqual(of("10.1.4.0/26"), {
      destination: p("10.1.4.0/26"),
      type: "unicast",
      table: 254,
      protocol: 80,
      scope: 0,
      metric: 0,
      nextHops: [{ gateway: a("203.0.113.9"), device: BR0, onlink: true }],
      mtu: 1400,
    });
    assert.deepEqual(of("10.1.9.0/26"), {
      destination: p("10.1.9.0/26"),
      type: "unicast",
      table: 7,
      protocol: 3,
      scope: 253,
      metric: 0,
      nextHops: [{ device: BR0 }],
      source: a("192.0.2.7"),
    });
    assert.deepEqual(of("10.1.11.0/26")?.nextHops, [{ gateway: a("2001:db8::9"), device: BR0 }]);
  });

  test("ip -d link", () => {
    const links = answers("list", "ip -d link").messages.map((message) => decodeLink(message));
    const base = { loopback: false, txQueueLength: 1000 };
    assert.deepEqual(links, [
      {
        index: LO,
        name: "lo",
        up: true,
        carrier: true,
        loopback: true,
        operState: "unknown",
        mtu: 65536,
        address: "00:00:00:00:00:00",
        txQueueLength: 1000,
      },
      {
        ...base,
        index: BR0,
        name: "br0",
        up: true,
        carrier: false,
        operState: "down",
        mtu: 1400,
        address: "66:00:00:00:00:01",
        kind: "bridge",
        bridge: { stp: false, multicastSnooping: false },
      },
      {
        ...base,
        index: CALI0,
        name: "cali0",
        up: true,
        carrier: false,
        operState: "lowerlayerdown",
        mtu: 1400,
        address: "ee:ee:ee:ee:ee:ee",
        txQueueLength: 100,
        master: BR0,
        parent: 2,
        parentNamespace: 0,
        kind: "veth",
      },
      {
        ...base,
        index: VXLAN,
        name: "vxlan.calico",
        up: true,
        carrier: true,
        operState: "unknown",
        mtu: 1450,
        address: "66:00:00:00:00:02",
        kind: "vxlan",
        vxlan: {
          id: 4096,
          local: a("192.0.2.7"),
          device: BR0,
          checksum: true,
          ttl: 0,
          learning: false,
          port: 4789,
        },
      },
    ]);
  });

  test("ip addr", () => {
    const read = (command: string) => answers("list", command).messages.map((message) => decodeAddress(message));
    assert.deepEqual(
      read("ip -4 addr").map((address) => address && describeAddress(address, nameOf)),
      ["127.0.0.1/8 dev lo", "127.0.0.2/8 dev lo", "192.0.2.7/26 dev br0", "198.51.100.1/32 peer 198.51.100.2 dev br0"],
    );
    assert.deepEqual(read("ip -6 addr show dev br0"), [
      { device: BR0, address: i("2001:db8::7/64"), scope: 0, noDuplicateDetection: true },
    ]);
  });

  test("ip neigh and bridge fdb", () => {
    const read = (command: string) => answers("neigh", command).messages.map((message) => decodeNeighbour(message));
    assert.deepEqual(read("ip -4 neigh show nud all"), [
      { device: VXLAN, address: a("10.1.9.0"), linkAddress: "66:00:00:00:00:09", state: "permanent" },
    ]);
    const unknown = { device: VXLAN, linkAddress: "00:00:00:00:00:00", state: "permanent", self: true };
    assert.deepEqual(read("bridge fdb show dev vxlan.calico"), [
      { ...unknown, destination: a("192.0.2.10") },
      { ...unknown, destination: a("192.0.2.11"), port: 8472 },
    ]);
  });

  test("ip rule", () => {
    const read = (command: string) =>
      answers("rule", command)
        .messages.map((message) => decodeRule(message))
        .filter((rule) => rule !== undefined)
        .map(describeRule);
    assert.deepEqual(read("ip rule"), [
      "0: table 255",
      "100: fwmark 0x10000/0x10000 table 99",
      "101: from 10.1.0.0/16 to 10.2.0.0/16 table 1000",
      "102: not iif br0 blackhole",
      "32766: table 254",
      "32767: table 253",
    ]);
    assert.deepEqual(read("ip -6 rule"), ["0: table 255", "104: from 2001:db8::/64 table 99", "32766: table 254"]);
  });
});
