import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { crowdedAddress, crowdedPrefix } from "../ip/address.testing.ts";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, parseInterfaceAddress, parsePrefix } from "../ip/prefix.ts";
import { naivePrefixTable } from "../ip/trie.naive.ts";
import { plan } from "../lib/reconcile.ts";
import { describeRoute, PROTOCOL_BOOT, PROTOCOL_KERNEL, TABLE_MAIN, type Route } from "../netlink/route.ts";
import {
  bestRoute,
  bgpRoute,
  blackholeRoute,
  ownerOf,
  PROTOCOL_AGENT,
  PROTOCOL_BGP,
  resolveNextHop,
  routeKey,
  sameRoute,
  sourceTowards,
  workloadRoute,
  type RouteOwner,
  type RouteOwnership,
} from "./routes.ts";

const ETH0 = 2;
const CALI = 7;
const STATIC = 4;
const a = parseAddress;
const p = parsePrefix;

/** A route as the kernel gives it. */
const route = (destination: string, fields: Partial<Route> = {}): Route => ({
  destination: p(destination),
  type: "unicast",
  table: TABLE_MAIN,
  protocol: PROTOCOL_BOOT,
  scope: 0,
  metric: 0,
  nextHops: [{ device: ETH0 }],
  ...fields,
});

describe("whose a route is", () => {
  const usual: RouteOwnership = { workloadDevices: new Set([CALI]), removeExternalRoutes: true, bgp: true };
  const onPod = { nextHops: [{ device: CALI }] };
  const rows: { name: string; route: Route; owner: RouteOwner | undefined; rules?: Partial<RouteOwnership> }[] = [
    { name: "a pod's", route: workloadRoute(a("10.65.0.1"), CALI), owner: "agent" },
    { name: "a pod's, IPv6", route: workloadRoute(a("fd00::1"), CALI), owner: "agent" },
    { name: "a local block's blackhole", route: blackholeRoute(p("10.65.0.0/26")), owner: "agent" },
    { name: "learned in BGP", route: bgpRoute(p("10.65.1.0/26"), [{ gateway: a("192.0.2.9") }]), owner: "bgp" },
    {
      name: "proto bird, where another daemon speaks BGP",
      route: bgpRoute(p("10.65.1.0/26"), [{ gateway: a("192.0.2.9") }]),
      owner: undefined,
      rules: { bgp: false },
    },
    {
      name: "somebody's on a pod's interface",
      route: route("10.9.0.0/16", { ...onPod, protocol: STATIC }),
      owner: "agent",
    },
    {
      name: "somebody's on a pod's interface, where those may stay",
      route: route("10.9.0.0/16", { ...onPod, protocol: STATIC }),
      owner: undefined,
      rules: { removeExternalRoutes: false },
    },
    {
      name: "proto boot on a pod's interface, where others' may stay",
      route: route("10.9.0.0/16", onPod),
      owner: "agent",
      rules: { removeExternalRoutes: false },
    },
    {
      name: "a pod's of another deviceRouteProtocol, where others' may stay",
      route: workloadRoute(a("10.65.0.1"), CALI, STATIC),
      owner: "agent",
      rules: { removeExternalRoutes: false, deviceRouteProtocol: STATIC },
    },
    {
      name: "on one of several next hops",
      route: route("10.9.0.0/16", { nextHops: [{ device: ETH0 }, { device: CALI }] }),
      owner: "agent",
    },
    { name: "the default route", route: route("0.0.0.0/0"), owner: undefined },
    { name: "an administrator's", route: route("10.9.0.0/16", { protocol: STATIC }), owner: undefined },
    {
      name: "the kernel's on the node's network",
      route: route("192.0.2.0/26", { protocol: PROTOCOL_KERNEL }),
      owner: undefined,
    },
    {
      name: "the kernel's on a pod's interface",
      route: route("fe80::/64", { ...onPod, protocol: PROTOCOL_KERNEL }),
      owner: undefined,
    },
    { name: "in another table", route: { ...workloadRoute(a("10.65.0.1"), CALI), table: 255 }, owner: undefined },
    {
      name: "a blackhole of another's",
      route: route("10.9.0.0/16", { type: "blackhole", nextHops: [] }),
      owner: undefined,
    },
  ];
  for (const { name, route: each, owner, rules } of rows) {
    test(`${name}: ${owner ?? "nobody's here"}`, () => assert.equal(ownerOf(each, { ...usual, ...rules }), owner));
  }
});

describe("what the agent writes", () => {
  test("reads as `ip route` shows it", () => {
    const written = [
      workloadRoute(a("10.65.0.1"), CALI),
      workloadRoute(a("fd00::1"), CALI),
      blackholeRoute(p("10.65.0.0/26")),
      blackholeRoute(p("fd00::/122")),
      bgpRoute(p("10.65.1.0/26"), [{ gateway: a("192.0.2.9"), device: ETH0 }]),
    ];
    assert.deepEqual(
      written.map(
        (each) =>
          `${describeRoute(each, (device) => (device === ETH0 ? "eth0" : "cali1"))} proto ${each.protocol} scope ${each.scope}`,
      ),
      [
        "10.65.0.1/32 dev cali1 metric 1024 proto 3 scope 253",
        "fd00::1/128 dev cali1 metric 1024 proto 3 scope 0",
        "blackhole 10.65.0.0/26 proto 80 scope 0",
        "blackhole fd00::/122 metric 1024 proto 80 scope 0",
        "10.65.1.0/26 via 192.0.2.9 dev eth0 proto 12 scope 0",
      ],
    );
    assert.equal(workloadRoute(a("10.65.0.1"), CALI, 9).protocol, 9);
    assert.deepEqual([PROTOCOL_AGENT, PROTOCOL_BGP], [80, 12]);
  });
});

describe("two routes are the same", () => {
  const via = (gateway: string, weight?: number) => ({
    gateway: a(gateway),
    device: ETH0,
    ...(weight === undefined ? {} : { weight }),
  });
  const wanted = bgpRoute(p("10.65.1.0/26"), [via("192.0.2.9"), via("192.0.2.10")]);

  test("also where the kernel gives next hops in another order, with a weight", () => {
    assert.ok(sameRoute(wanted, { ...wanted, nextHops: [via("192.0.2.10", 1), via("192.0.2.9", 1)] }));
  });

  test("also where the kernel has put 1024 for IPv6's metric 0, and no scope", () => {
    const six = bgpRoute(p("fd00:1::/122"), [via("2001:db8::9")]);
    assert.equal(six.metric, 1024);
    assert.ok(sameRoute(six, { ...six, scope: 253 }));
    assert.ok(sameRoute(blackholeRoute(p("fd00::/122")), { ...blackholeRoute(p("fd00::/122")), nextHops: [] }));
  });

  const differences: { name: string; change: Partial<Route> }[] = [
    { name: "destination", change: { destination: p("10.65.1.0/27") } },
    { name: "type", change: { type: "blackhole", nextHops: [] } },
    { name: "table", change: { table: 100 } },
    { name: "protocol", change: { protocol: STATIC } },
    { name: "metric", change: { metric: 5 } },
    { name: "scope", change: { scope: 253 } },
    { name: "mtu", change: { mtu: 1400 } },
    { name: "source address", change: { source: a("192.0.2.7") } },
    { name: "gateway", change: { nextHops: [via("192.0.2.9"), via("192.0.2.11")] } },
    { name: "number of next hops", change: { nextHops: [via("192.0.2.9")] } },
    { name: "weight", change: { nextHops: [via("192.0.2.9", 3), via("192.0.2.10", 1)] } },
    { name: "device", change: { nextHops: [via("192.0.2.9"), { ...via("192.0.2.10"), device: 3 }] } },
    { name: "onlink", change: { nextHops: [via("192.0.2.9"), { ...via("192.0.2.10"), onlink: true }] } },
  ];
  for (const { name, change } of differences) {
    test(`but not with another ${name}`, () => assert.ok(!sameRoute(wanted, { ...wanted, ...change })));
  }
});

describe("planning", () => {
  const table = (...routes: Route[]): Map<string, Route> => new Map(routes.map((each) => [routeKey(each), each]));
  const text = (desired: Map<string, Route>, actual: Map<string, Route>): string[] =>
    plan(desired, actual, sameRoute).map(({ kind, item }) => `${kind} ${describeRoute(item)}`);

  test("writes nothing where the kernel has it all", () => {
    const routes = [blackholeRoute(p("10.65.0.0/26")), workloadRoute(a("10.65.0.1"), CALI)];
    assert.deepEqual(text(table(...routes), table(...routes.toReversed())), []);
  });

  test("adds before it removes, and replaces where there is one to the same destination and metric", () => {
    const before = [blackholeRoute(p("10.65.0.0/26")), bgpRoute(p("10.65.1.0/26"), [{ device: ETH0 }])];
    const after = [
      bgpRoute(p("10.65.0.0/26"), [{ gateway: a("192.0.2.9"), device: ETH0 }]),
      workloadRoute(a("10.65.2.1"), CALI),
    ];
    assert.deepEqual(text(table(...after), table(...before)), [
      "replace 10.65.0.0/26 via 192.0.2.9 dev 2",
      "add 10.65.2.1/32 dev 7 metric 1024",
      "remove 10.65.1.0/26 dev 2",
    ]);
  });

  test("tells routes apart as the kernel does: by destination, table and metric", () => {
    const one = route("10.0.0.0/8");
    for (const other of [route("10.0.0.0/9"), { ...one, metric: 1 }, { ...one, table: 100 }, route("::/8")]) {
      assert.notEqual(routeKey(one), routeKey(other));
    }
    assert.equal(routeKey(one), routeKey({ ...one, protocol: STATIC, type: "blackhole", nextHops: [] }));
  });
});

describe("the route that packets take", () => {
  test("is the longest prefix, as the naive table finds it, and the lowest metric", () => {
    const rows = fc.array(fc.tuple(crowdedPrefix, fc.nat(3)), { maxLength: 20 });
    fc.assert(
      fc.property(rows, crowdedAddress, (entries, address) => {
        const routes = entries.map(([prefix, metric]) => ({ ...route(formatPrefix(prefix)), metric }));
        const table = naivePrefixTable<number>();
        for (const { destination, metric } of routes) {
          table.set(destination, Math.min(metric, table.get(destination) ?? metric));
        }
        const best = bestRoute(address, routes);
        const expected = table.longestMatch(address);
        assert.equal(best && formatPrefix(best.destination), expected && formatPrefix(expected.prefix));
        assert.equal(best?.metric, expected?.value);
      }),
    );
  });
});

describe("a next hop is resolved", () => {
  const via = (gateway: string): Partial<Route> => ({ nextHops: [{ gateway: a(gateway), device: ETH0 }] });
  const table = [
    route("0.0.0.0/0", via("192.0.2.1")),
    route("192.0.2.0/26", { protocol: PROTOCOL_KERNEL }),
    route("198.51.100.0/24", {
      nextHops: [
        { gateway: a("192.0.2.2"), device: ETH0 },
        { gateway: a("192.0.2.3"), device: 3 },
      ],
    }),
    route("203.0.113.0/24", { type: "unreachable", nextHops: [] }),
    route("10.1.0.0/16", { nextHops: [{ gateway: a("192.0.2.9") }] }),
    { ...bgpRoute(p("192.0.2.0/28"), [{ gateway: a("192.0.2.40"), device: ETH0 }]) },
    route("2001:db8::/64", { protocol: PROTOCOL_KERNEL }),
    { ...route("192.0.2.32/27", via("192.0.2.5")), table: 100 },
  ];
  const rows: { address: string; hop: string }[] = [
    { address: "192.0.2.9", hop: "192.0.2.9 dev 2" }, // on the link, and not by the route that BGP taught
    { address: "192.0.2.40", hop: "192.0.2.40 dev 2" }, // another table does not count
    { address: "8.8.8.8", hop: "192.0.2.1 dev 2" },
    { address: "198.51.100.7", hop: "192.0.2.2 dev 2" },
    { address: "203.0.113.7", hop: "none" },
    { address: "10.1.0.7", hop: "none" },
    { address: "2001:db8::9", hop: "2001:db8::9 dev 2" },
    { address: "2001:db9::9", hop: "none" },
  ];
  for (const { address, hop } of rows) {
    test(`${address}: ${hop}`, () => {
      const found = resolveNextHop(a(address), table);
      const text = found === undefined ? "none" : describeRoute({ destination: p("0.0.0.0/0"), nextHops: [found] });
      assert.equal(text.replace("0.0.0.0/0 via ", ""), hop);
    });
  }
});

describe("this machine's packets leave with", () => {
  const own = (device: number, text: string, scope = 0) => ({ device, address: parseInterfaceAddress(text), scope });
  const addresses = [
    own(ETH0, "192.0.2.7/26"),
    own(ETH0, "198.51.100.7/24"),
    own(ETH0, "fe80::7/64", 253),
    own(ETH0, "2001:db8:1::7/64"),
    own(ETH0, "2001:db8:2::7/64"),
    own(3, "203.0.113.7/24"),
  ];
  const by = (gateway: string, device = ETH0): Partial<Route> => ({ nextHops: [{ gateway: a(gateway), device }] });
  const routes = [
    route("192.0.2.0/26", { protocol: PROTOCOL_KERNEL, source: a("192.0.2.7") }),
    route("0.0.0.0/0", by("198.51.100.1")),
    route("10.1.0.0/16", by("192.0.2.1")),
    route("10.2.0.0/16", { ...by("192.0.2.1"), source: a("203.0.113.7") }),
    route("10.3.0.0/16", by("172.16.0.1", 3)),
    route("10.4.0.0/16", { type: "unreachable", nextHops: [] }),
    route("10.5.0.0/16", { nextHops: [{ device: 9 }] }),
    route("198.51.100.0/24"),
    route("::/0", by("fe80::1")),
    route("2001:db8:2::/64"),
  ];
  const rows: { destination: string; source: string | undefined; why: string }[] = [
    { destination: "192.0.2.9", source: "192.0.2.7", why: "the route says so" },
    { destination: "198.51.100.9", source: "198.51.100.7", why: "it is in the destination's network" },
    { destination: "9.9.9.9", source: "198.51.100.7", why: "it is in the gateway's network" },
    { destination: "10.1.0.1", source: "192.0.2.7", why: "it is in the gateway's network" },
    { destination: "10.2.0.1", source: "203.0.113.7", why: "the route says so" },
    { destination: "10.3.0.1", source: "203.0.113.7", why: "it is the link's first" },
    { destination: "10.4.0.1", source: undefined, why: "there is no way" },
    { destination: "10.5.0.1", source: undefined, why: "the link has none" },
    { destination: "2001:db8:9::9", source: "2001:db8:1::7", why: "it is the first that is valid beyond the link" },
    { destination: "2001:db8:2::9", source: "2001:db8:2::7", why: "it is in the destination's network" },
  ];
  for (const { destination, source, why } of rows) {
    test(`${source ?? "nothing"} to ${destination}, since ${why}`, () => {
      const found = sourceTowards(a(destination), routes, addresses);
      assert.equal(found && formatAddress(found), source);
    });
  }

  test("nothing where there is no route at all", () => {
    assert.equal(sourceTowards(a("9.9.9.9"), [], addresses), undefined);
  });
});
