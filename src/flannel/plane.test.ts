import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, parseInterfaceAddress, parsePrefix } from "../ip/prefix.ts";
import type { Link } from "../netlink/link.ts";
import { describeForwarding, describeNeighbour } from "../netlink/neigh.ts";
import { describeRoute, type Route, TABLE_MAIN } from "../netlink/route.ts";
import { type NetworkConfig, parseNetworkConfig } from "./config.ts";
import { chooseExternal, type ExternalChoice, ExternalInterfaceError, type KernelView } from "./external.ts";
import { formatVtepData, type Lease } from "./lease.ts";
import { desiredState, podMtu, unreachablePeers } from "./plane.ts";

const NAMES: Readonly<Record<number, string>> = { 2: "eth0", 7: "flannel", 8: "flannel6" };
const nameOf = (index: number): string => NAMES[index] ?? String(index);
const external = {
  name: "eth0",
  index: 2,
  mtu: 1500,
  ipv4: parseInterfaceAddress("192.0.2.1/26"),
  ipv6: parseInterfaceAddress("2001:db8::1/64"),
};
const configOf = (backend: object, more: object = {}): NetworkConfig =>
  parseNetworkConfig(JSON.stringify({ Network: "10.5.0.0/16", Backend: backend, ...more }));
const both = { EnableIPv6: true, IPv6Network: "fc00:5::/48" };

/** Node n has 10.5.n.0/24 and fc00:5:0:n::/64; node 200 is behind a router. */
function peer(number: number, backendType: string): Lease {
  const hex = number.toString(16).padStart(2, "0");
  return {
    subnets: { ipv4: parsePrefix(`10.5.${number}.0/24`), ipv6: parsePrefix(`fc00:5:0:${number}::/64`) },
    attributes: {
      publicIp: parseAddress(`192.0.2.${number}`),
      publicIpv6: parseAddress(`2001:db8:0:${number > 100 ? 1 : 0}::${number}`),
      backendType,
      ...(backendType === "vxlan" && {
        backendData: formatVtepData({ vni: 1, mac: `02:00:00:00:04:${hex}` }),
        backendV6Data: formatVtepData({ vni: 1, mac: `02:00:00:00:06:${hex}` }),
      }),
    },
  };
}

function show(config: NetworkConfig, peers: readonly Lease[]): string[] {
  const own = peer(1, config.backend.type).subnets;
  const devices = config.backend.type === "host-gw" ? {} : { ipv4: 7, ipv6: 8 };
  const families = config.ipv6 === undefined ? { ipv4: own.ipv4! } : own;
  const state = desiredState({ config, external, own: families, peers, devices });
  return [
    ...state.addresses.map(({ address, device }) => `address ${formatPrefix(address)} dev ${nameOf(device)}`),
    ...state.neighbours.map((entry) => `neighbour ${describeNeighbour(entry, nameOf)}`),
    ...state.forwarding.map((entry) => `fdb ${describeForwarding(entry, nameOf)}`),
    ...state.routes.map((route) => `route ${describeRoute(route, nameOf)}`),
  ];
}

describe("what a backend wants in the kernel", () => {
  test("udp: one route for all", () => {
    assert.deepEqual(show(configOf({}), [peer(2, "udp"), peer(3, "udp")]), [
      "address 10.5.1.0/32 dev flannel",
      "route 10.5.0.0/16 dev flannel",
    ]);
  });
  test("vxlan: neighbour, forwarding entry and route of each peer, in both families", () => {
    assert.deepEqual(
      show(configOf({ Type: "vxlan" }, both), [peer(2, "vxlan"), peer(3, "host-gw")]),
      [
        "address 10.5.1.0/32 dev flannel",
        "address fc00:5:0:1::/128 dev flannel6",
        "neighbour 10.5.2.0 lladdr 02:00:00:00:04:02 dev flannel",
        "neighbour fc00:5:0:2:: lladdr 02:00:00:00:06:02 dev flannel6",
        "fdb 02:00:00:00:04:02 dst 192.0.2.2 dev flannel",
        "fdb 02:00:00:00:06:02 dst 2001:db8::2 dev flannel6",
        "route 10.5.2.0/24 via 10.5.2.0 dev flannel onlink",
        "route fc00:5:0:2::/64 via fc00:5:0:2:: dev flannel6 metric 1024 onlink",
      ].toSorted((a, b) => order(a) - order(b)),
    );
  });
  test("vxlan with direct routing: without the tunnel where no router is between", () => {
    const lines = show(configOf({ Type: "vxlan", DirectRouting: true }), [peer(2, "vxlan"), peer(200, "vxlan")]);
    assert.deepEqual(
      lines.filter((line) => line.startsWith("route")),
      ["route 10.5.2.0/24 via 192.0.2.2 dev eth0", "route 10.5.200.0/24 via 10.5.200.0 dev flannel onlink"],
    );
    assert.equal(lines.filter((line) => line.startsWith("fdb")).length, 1);
  });
  test("host-gw: a route by each peer itself", () => {
    assert.deepEqual(show(configOf({ Type: "host-gw" }, both), [peer(2, "host-gw")]), [
      "route 10.5.2.0/24 via 192.0.2.2 dev eth0",
      "route fc00:5:0:2::/64 via 2001:db8::2 dev eth0 metric 1024",
    ]);
  });
  test("ipip: through the tunnel, or without it", () => {
    const peers = [peer(2, "ipip"), peer(200, "ipip")];
    assert.deepEqual(show(configOf({ Type: "ipip" }), peers), [
      "address 10.5.1.0/32 dev flannel",
      "route 10.5.2.0/24 via 192.0.2.2 dev flannel onlink",
      "route 10.5.200.0/24 via 192.0.2.200 dev flannel onlink",
    ]);
    assert.deepEqual(show(configOf({ Type: "ipip", DirectRouting: true }), peers).slice(1), [
      "route 10.5.2.0/24 via 192.0.2.2 dev eth0",
      "route 10.5.200.0/24 via 192.0.2.200 dev flannel onlink",
    ]);
  });
  test("a peer that does not say its MAC address has no way", () => {
    const { subnets, attributes } = peer(2, "vxlan");
    const mute = { subnets, attributes: { ...attributes, backendData: undefined, backendV6Data: null } };
    assert.deepEqual(show(configOf({ Type: "vxlan" }), [mute]), ["address 10.5.1.0/32 dev flannel"]);
  });
  test("the MTU is the underlay's less what goes around a packet", () => {
    const backends = [{}, { Type: "vxlan" }, { Type: "vxlan", MTU: 9000 }, { Type: "host-gw" }, { Type: "ipip" }];
    const mtus = backends.map((backend) => podMtu(configOf(backend), external));
    assert.deepEqual(mtus, [1472, 1450, 8950, 1500, 1480]);
    assert.equal(podMtu(configOf({ Type: "vxlan" }, both), external), 1430);
  });
  test("peers that cannot be reached are named", () => {
    const config = configOf({ Type: "host-gw" });
    const problems = unreachablePeers({
      config,
      external,
      peers: [peer(2, "host-gw"), peer(3, "vxlan"), peer(200, "host-gw")],
    });
    assert.equal(problems.length, 2);
    assert.match(problems[0]!, /10\.5\.3\.0\/24 at 192\.0\.2\.3 has the backend vxlan, this one has host-gw/);
    assert.match(problems[1]!, /10\.5\.200\.0\/24 at 192\.0\.2\.200 is not on the segment of eth0/);
  });
});

/** All neighbours, then all forwarding entries, as `show` has them. */
function order(line: string): number {
  return ["address", "neighbour", "fdb", "route"].findIndex((word) => line.startsWith(word));
}

describe("the interface by which other nodes are reached", () => {
  const link = (index: number, name: string): Link => ({
    index,
    name,
    up: true,
    carrier: true,
    loopback: false,
    operState: "up",
    mtu: 1500,
    address: "",
    txQueueLength: 1000,
  });
  const address = (device: number, text: string, scope = 0) => ({
    device,
    address: parseInterfaceAddress(text),
    scope,
  });
  const route = (destination: string, device: number, gateway?: string): Route => ({
    destination: parsePrefix(destination),
    type: "unicast",
    table: TABLE_MAIN,
    protocol: 3,
    scope: 0,
    metric: 0,
    nextHops: [{ device, ...(gateway !== undefined && { gateway: parseAddress(gateway) }) }],
  });
  const view: KernelView = {
    links: [link(1, "lo"), link(2, "eth0"), link(3, "eth1")],
    addresses: [
      address(1, "127.0.0.1/8", 254),
      address(2, "192.0.2.1/26"),
      address(2, "192.0.2.9/26"),
      address(3, "198.51.100.1/24"),
      address(3, "fe80::1/64", 253),
      address(3, "2001:db8::1/64"),
    ],
    routes: [route("0.0.0.0/0", 2, "192.0.2.62"), route("::/0", 3, "fe80::2"), route("198.51.100.0/24", 3)],
  };
  const choose = (choice: Partial<ExternalChoice>, families: (4 | 6)[] = [4]): string => {
    const found = chooseExternal({ interfaces: [], patterns: [], ...choice }, families, view);
    const own = [found.ipv4, found.ipv6].flatMap((each) => (each === undefined ? [] : [formatPrefix(each)]));
    const told = [found.publicIp, found.publicIpv6].flatMap((each) =>
      each === undefined ? [] : [formatAddress(each)],
    );
    return `${found.name} ${own.join(" ")} as ${told.join(" ")}`;
  };
  const chosen: { choice: Partial<ExternalChoice>; families?: (4 | 6)[]; expected: string }[] = [
    { choice: {}, expected: "eth0 192.0.2.1/26 as 192.0.2.1" },
    { choice: {}, families: [6], expected: "eth1 2001:db8::1/64 as 2001:db8::1" },
    {
      choice: { interfaces: ["nope", "eth1"] },
      families: [4, 6],
      expected: "eth1 198.51.100.1/24 2001:db8::1/64 as 198.51.100.1 2001:db8::1",
    },
    { choice: { interfaces: ["192.0.2.9"] }, expected: "eth0 192.0.2.9/26 as 192.0.2.9" },
    { choice: { patterns: ["^eth[1-9]$"] }, expected: "eth1 198.51.100.1/24 as 198.51.100.1" },
    { choice: { patterns: ["198\\.51"] }, expected: "eth1 198.51.100.1/24 as 198.51.100.1" },
    { choice: { canReach: "198.51.100.77" }, expected: "eth1 198.51.100.1/24 as 198.51.100.1" },
    { choice: { publicIp: parseAddress("198.51.100.1") }, expected: "eth1 198.51.100.1/24 as 198.51.100.1" },
    { choice: { publicIp: parseAddress("203.0.113.5") }, expected: "eth0 192.0.2.1/26 as 203.0.113.5" },
  ];
  for (const { choice, families, expected } of chosen) {
    test(expected, () => assert.equal(choose(choice, families), expected));
  }
  const refused: { name: string; choice: Partial<ExternalChoice>; families?: (4 | 6)[]; reason: RegExp }[] = [
    { name: "a name that nothing has", choice: { interfaces: ["nope"], patterns: ["^x"] }, reason: /nope, \^x/ },
    {
      name: "no address of the family",
      choice: { interfaces: ["eth0"] },
      families: [4, 6],
      reason: /eth0 has no IPv6 address/,
    },
  ];
  for (const { name, choice, families, reason } of refused) {
    test(`refused: ${name}`, () => {
      assert.throws(
        () => choose(choice, families),
        (error) => error instanceof ExternalInterfaceError && reason.test(error.message),
      );
    });
  }
});
