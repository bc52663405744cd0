import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { compareAddresses, parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { openMonitor } from "../netlink/monitor.io.ts";
import { describeRoute, TABLE_MAIN, type NextHop, type Route } from "../netlink/route.ts";
import { testNode, type TestNode } from "./node.testing.ts";
import {
  bgpRoute,
  blackholeRoute,
  clusterRoute,
  PROTOCOL_AGENT,
  PROTOCOL_BGP,
  workloadRoute,
  type RouteOwnership,
} from "./routes.ts";
import { createRouteTable, type RouteProblem, type RouteTable } from "./routeTable.io.ts";

interface Bench {
  readonly node: TestNode;
  readonly table: RouteTable;
  /** Index of `cali1`, a pod's interface. */
  readonly cali: number;
  /** What `onChange` and `onProblem` were told. */
  readonly changes: [added: number, removed: number][];
  readonly problems: RouteProblem[];
  readonly via: (gateway: string) => NextHop;
  /** The routes of the main table that are in question, as `ip route` writes them. */
  routes(): string[];
  /** Waits until the routes are these. */
  until(expected: readonly string[]): Promise<void>;
  [Symbol.dispose](): void;
}

function bench(rules: Partial<RouteOwnership> = {}): Bench {
  const node = testNode();
  node.ip("link", "add", "cali1", "type", "veth", "peer", "name", "pod1");
  for (const name of ["cali1", "pod1"]) node.ip("link", "set", name, "up", "addrgenmode", "none");
  const cali = node.rtnetlink.link("cali1")!.index;
  const changes: [number, number][] = [];
  const problems: RouteProblem[] = [];
  const table = createRouteTable({
    rtnetlink: node.rtnetlink,
    ownership: () => ({ workloadDevices: new Set([cali]), removeExternalRoutes: true, bgp: true, ...rules }),
    onChange: (added, removed) => changes.push([added, removed]),
    onProblem: (problem) => problems.push(problem),
  });
  // Less what a node has anyhow: its network, the way out, link-local and multicast.
  const own = /^(192\.0\.2\.0\/26 |2001:db8::\/64 |0\.0\.0\.0\/0 |::\/0 |fe80::\/64 |ff00::\/8 )/;
  const names = new Map(node.rtnetlink.links().map(({ index, name }) => [index, name]));
  // The kernel keeps next hops in the order in which they came, which means nothing.
  const sorted = (route: Route): Route => ({
    ...route,
    nextHops: route.nextHops.toSorted((a, b) => (a.gateway && b.gateway ? compareAddresses(a.gateway, b.gateway) : 0)),
  });
  const routes = (): string[] =>
    node.rtnetlink
      .routes({ table: TABLE_MAIN })
      .map(sorted)
      .map(
        (route) => `${describeRoute(route, (device) => names.get(device) ?? String(device))} proto ${route.protocol}`,
      )
      .filter((line) => !own.test(line))
      .toSorted((a, b) => (a < b ? -1 : 1));
  return {
    node,
    table,
    cali,
    changes,
    problems,
    via: (gateway) => ({ gateway: parseAddress(gateway), device: node.br0 }),
    routes,
    async until(expected) {
      const deadline = performance.now() + 3000;
      while (performance.now() < deadline && routes().join("\n") !== expected.join("\n")) await sleep(5);
      assert.deepEqual(routes(), expected);
    },
    [Symbol.dispose]() {
      table.close();
      node[Symbol.dispose]();
    },
  };
}

const p = parsePrefix;

/** Something of everything, as the agent writes it; sorted as `routes()` has it. */
function everything({ via, cali }: Bench): { bgp: Route[]; agent: Route[]; pods: Route[]; lines: string[] } {
  return {
    bgp: [
      bgpRoute(p("10.65.1.0/26"), [via("192.0.2.9")]),
      bgpRoute(p("10.65.2.0/26"), [via("192.0.2.9"), via("192.0.2.10")]),
      bgpRoute(p("fd00:1::/122"), [via("2001:db8::9")]),
      bgpRoute(p("fd00:2::/122"), [via("2001:db8::9"), via("2001:db8::a")]),
    ],
    agent: [blackholeRoute(p("10.65.0.0/26")), blackholeRoute(p("fd00::/122"))],
    pods: [workloadRoute(parseAddress("10.65.0.1"), cali), workloadRoute(parseAddress("fd00::1"), cali)],
    lines: [
      "10.65.0.1/32 dev cali1 metric 1024 proto 3",
      "10.65.1.0/26 via 192.0.2.9 dev br0 proto 12",
      "10.65.2.0/26 nexthop via 192.0.2.9 dev br0 weight 1 nexthop via 192.0.2.10 dev br0 weight 1 proto 12",
      "blackhole 10.65.0.0/26 proto 80",
      "blackhole fd00::/122 metric 1024 proto 80",
      "fd00:1::/122 via 2001:db8::9 dev br0 metric 1024 proto 12",
      "fd00:2::/122 metric 1024 nexthop via 2001:db8::9 dev br0 weight 1 nexthop via 2001:db8::a dev br0 weight 1 proto 12",
      "fd00::1/128 dev cali1 metric 1024 proto 3",
    ],
  };
}

function wantEverything(it: Bench): string[] {
  const { bgp, agent, pods, lines } = everything(it);
  it.table.want("bgp", "bgp", bgp);
  it.table.want("blocks", "agent", agent);
  it.table.want("pods", "agent", pods);
  return lines;
}

/** Written with `ip`, as Calico's own daemons would have left it. */
function leaveEverything({ node }: Bench): void {
  const add = (...words: string[]): string =>
    node.ip(...(words[0]!.includes(":") || words[1]?.includes(":") ? ["-6"] : []), "route", "add", ...words);
  add("10.65.1.0/26", "via", "192.0.2.9", "dev", "br0", "proto", "bird");
  add(
    "10.65.2.0/26",
    "proto",
    "bird",
    "nexthop",
    "via",
    "192.0.2.10",
    "dev",
    "br0",
    "nexthop",
    "via",
    "192.0.2.9",
    "dev",
    "br0",
  );
  add("fd00:1::/122", "via", "2001:db8::9", "dev", "br0", "proto", "bird");
  add(
    "fd00:2::/122",
    "proto",
    "bird",
    "nexthop",
    "via",
    "2001:db8::a",
    "dev",
    "br0",
    "nexthop",
    "via",
    "2001:db8::9",
    "dev",
    "br0",
  );
  add("blackhole", "10.65.0.0/26", "proto", "80");
  add("blackhole", "fd00::/122", "proto", "80");
  add("10.65.0.1/32", "dev", "cali1", "scope", "link", "metric", "1024", "proto", "boot");
  add("fd00::1/128", "dev", "cali1", "metric", "1024", "proto", "boot");
}

describe("the route table", () => {
  test("writes what is wanted, of both families, with several next hops, and blackholes", () => {
    using it = bench();
    const lines = wantEverything(it);
    assert.deepEqual(it.table.reconcile(), []);
    assert.deepEqual(it.routes(), lines);
    assert.deepEqual(it.changes, [[8, 0]]);
    assert.equal(it.table.size(), 8);
    assert.deepEqual(it.table.reconcile(), []);
    assert.deepEqual(it.changes, [[8, 0]]);
  });

  test("adopts what is there, and writes nothing where it is as it should be", async () => {
    using it = bench();
    leaveEverything(it);
    const heard: string[] = [];
    const stop = openMonitor(
      { namespace: it.node.path, groups: ["route4", "route6"] },
      {
        event: ({ change, item }) =>
          heard.push(`${change} ${item.kind === "route" ? describeRoute(item.route) : item.kind}`),
        overrun: (reason) => heard.push(reason),
        failed: (failure) => heard.push(failure.message),
      },
    );
    try {
      wantEverything(it);
      it.table.allowPrune("agent");
      it.table.allowPrune("bgp");
      assert.deepEqual(it.table.reconcile(), []);
      it.node.ip("route", "add", "203.0.113.0/24", "via", "192.0.2.1"); // the mark behind which the monitor has heard it all
      while (!heard.some((line) => line.includes("203.0.113.0/24"))) await sleep(1);
    } finally {
      stop();
    }
    assert.deepEqual(heard, [`new 203.0.113.0/24 via 192.0.2.1 dev ${it.node.br0}`]);
    assert.deepEqual(it.changes, []);
  });

  test("changes only what differs", () => {
    using it = bench();
    leaveEverything(it);
    it.node.ip("route", "replace", "10.65.1.0/26", "via", "192.0.2.11", "dev", "br0", "proto", "bird");
    it.node.ip("route", "del", "blackhole", "10.65.0.0/26");
    it.node.ip("route", "add", "10.65.9.0/26", "via", "192.0.2.11", "dev", "br0", "proto", "bird");
    const lines = wantEverything(it);
    it.table.allowPrune("bgp");
    assert.deepEqual(it.table.reconcile(), []);
    assert.deepEqual(it.routes(), lines);
    assert.deepEqual(it.changes, [[2, 1]]);
  });

  test("removes nothing of an owner before that may be pruned", () => {
    using it = bench();
    leaveEverything(it);
    const before = it.routes();
    it.table.want("bgp", "bgp", [bgpRoute(p("10.65.1.0/26"), [it.via("192.0.2.9")])]);
    it.table.reconcile();
    assert.deepEqual(it.routes(), before);
    it.table.allowPrune("agent");
    it.table.reconcile();
    assert.deepEqual(
      it.routes(),
      before.filter((line) => line.endsWith(`proto ${PROTOCOL_BGP}`)),
    );
    it.table.allowPrune("bgp");
    it.table.reconcile();
    assert.deepEqual(it.routes(), ["10.65.1.0/26 via 192.0.2.9 dev br0 proto 12"]);
  });

  test("prunes by itself soon after that is allowed", async () => {
    using it = bench();
    leaveEverything(it);
    it.table.allowPrune("agent");
    it.table.allowPrune("bgp");
    await it.until([]);
  });

  test("never touches what is not its own", () => {
    using it = bench({ bgp: false, removeExternalRoutes: false });
    const foreign = [
      ["10.1.0.0/16", "via", "192.0.2.1"],
      ["10.2.0.0/16", "via", "192.0.2.1", "proto", "static"],
      ["10.3.0.0/16", "via", "192.0.2.1", "proto", "bird"],
      ["10.4.0.0/16", "dev", "cali1", "proto", "static", "metric", "5"],
      ["blackhole", "10.5.0.0/16", "proto", "static"],
      ["10.6.0.0/16", "via", "192.0.2.1", "table", "100", "proto", "80"],
    ];
    for (const words of foreign) it.node.ip("route", "add", ...words);
    it.node.ip("-6", "route", "add", "fd06::/16", "via", "2001:db8::1", "proto", "static");
    const all = (): string =>
      it.node.ip("route", "show", "table", "all") + it.node.ip("-6", "route", "show", "table", "all");
    const before = all();
    it.table.allowPrune("agent");
    it.table.allowPrune("bgp");
    it.table.want("blocks", "agent", [blackholeRoute(p("10.65.0.0/26"))]);
    it.table.reconcile();
    it.table.want("blocks", "agent", []);
    it.table.reconcile();
    assert.equal(all(), before);
    assert.deepEqual(it.changes, [
      [1, 0],
      [0, 1],
    ]);
  });

  test("takes what others put on a pod's interface for its own, where Felix would", () => {
    using it = bench();
    it.node.ip("route", "add", "10.4.0.0/16", "dev", "cali1", "proto", "static", "metric", "5");
    it.table.allowPrune("agent");
    it.table.reconcile();
    assert.deepEqual(it.routes(), []);
  });

  test("makes one kind of route into another", () => {
    using it = bench();
    for (const [block, gateway] of [
      ["10.65.3.0/26", "192.0.2.9"],
      ["fd00:3::/122", "2001:db8::9"],
    ] as const) {
      it.table.want("x", "bgp", [bgpRoute(p(block), [it.via(gateway)])]);
      assert.deepEqual(it.table.reconcile(), []);
      // The block comes to this node.
      it.table.want("x", "bgp", []);
      it.table.want("y", "agent", [blackholeRoute(p(block))]);
      assert.deepEqual(it.table.reconcile(), []);
      assert.match(it.routes().join(), /^blackhole .* proto 80$/);
      const second = gateway.includes(":") ? "2001:db8::a" : "192.0.2.10";
      for (const hops of [[gateway, second], [second], [second, gateway]]) {
        it.table.want("y", "agent", []);
        it.table.want("x", "bgp", [bgpRoute(p(block), hops.map(it.via))]);
        assert.deepEqual(it.table.reconcile(), []);
        assert.equal(it.routes().length, 1);
        assert.equal([...it.routes().join().matchAll(/ via /g)].length, hops.length);
      }
      it.table.allowPrune("bgp");
      it.table.want("x", "bgp", []);
      it.table.reconcile();
      assert.deepEqual(it.routes(), []);
    }
  });

  test("puts the agent's own route before a learned one", () => {
    using it = bench();
    it.table.want("blocks", "agent", [blackholeRoute(p("10.65.0.0/26"))]);
    it.table.want("bgp", "bgp", [bgpRoute(p("10.65.0.0/26"), [it.via("192.0.2.9")])]);
    it.table.reconcile();
    assert.deepEqual(it.routes(), ["blackhole 10.65.0.0/26 proto 80"]);
    it.table.want("blocks", "agent", []);
    it.table.reconcile();
    assert.deepEqual(it.routes(), ["10.65.0.0/26 via 192.0.2.9 dev br0 proto 12"]);
  });
});

describe("what others change", () => {
  /** The agent's ear. */
  function listening(it: Bench): { foreign: string[]; [Symbol.dispose](): void } {
    const foreign: string[] = [];
    const stop = openMonitor(
      { namespace: it.node.path, groups: ["route4", "route6"] },
      {
        event({ change, item }) {
          if (item.kind !== "route" || item.route.table !== TABLE_MAIN) return;
          if (it.table.observe(change, item.route) === "foreign")
            foreign.push(`${change} ${describeRoute(item.route)}`);
        },
        overrun: () => it.table.kick(),
        failed: (failure) => assert.fail(failure.message),
      },
    );
    return { foreign, [Symbol.dispose]: stop };
  }

  test("is put right: routes deleted, altered and added", async () => {
    using it = bench();
    const lines = wantEverything(it);
    it.table.allowPrune("agent");
    it.table.allowPrune("bgp");
    it.table.reconcile();
    using _ear = listening(it);
    const deeds = [
      ["route", "del", "10.65.1.0/26"],
      ["-6", "route", "del", "fd00:1::/122"],
      ["route", "del", "blackhole", "10.65.0.0/26"],
      ["-6", "route", "del", "fd00::1/128"],
      ["route", "replace", "10.65.1.0/26", "via", "192.0.2.11", "dev", "br0", "proto", "bird"],
      ["route", "replace", "10.65.2.0/26", "via", "192.0.2.9", "dev", "br0", "proto", "bird"],
      ["-6", "route", "replace", "fd00:1::/122", "via", "2001:db8::b", "dev", "br0", "proto", "bird"],
      ["route", "change", "10.65.0.1/32", "dev", "cali1", "metric", "1024", "proto", "80"],
      ["route", "add", "10.65.77.0/26", "via", "192.0.2.9", "proto", "bird"],
      ["route", "add", "blackhole", "10.65.78.0/26", "proto", "80"],
      ["route", "add", "10.65.79.0/26", "dev", "cali1"],
    ];
    for (const words of deeds) {
      it.node.ip(...words);
      await it.until(lines);
    }
    assert.equal(it.changes.length, 1 + deeds.length);
  });

  test("is told where it is others' business", async () => {
    using it = bench();
    wantEverything(it);
    it.table.reconcile();
    using ear = listening(it);
    it.node.ip("route", "add", "10.1.0.0/16", "via", "192.0.2.1");
    it.node.ip("route", "del", "10.1.0.0/16");
    const words = `10.1.0.0/16 via 192.0.2.1 dev ${it.node.br0}`;
    while (ear.foreign.length < 2) await sleep(1);
    assert.deepEqual(ear.foreign, [`new ${words}`, `deleted ${words}`]);
    await sleep(50);
    assert.equal(it.changes.length, 1);
  });

  test("is found after a kick, where nobody told of it", async () => {
    using it = bench();
    const lines = wantEverything(it);
    it.table.reconcile();
    // IPv4 routes go without a word when their interface goes down.
    it.node.ip("link", "set", "br0", "down");
    it.node.ip("link", "set", "br0", "up");
    it.node.ip("addr", "add", "2001:db8::7/64", "dev", "br0", "nodad"); // which went with it
    it.table.kick();
    await it.until(lines);
  });
});

describe("what the kernel refuses", () => {
  const UNREACHABLE = "203.0.113.1";

  test("is reported once, stops nothing else, and is tried again until it succeeds", async () => {
    using it = bench();
    it.table.want("bgp", "bgp", [
      bgpRoute(p("10.65.1.0/26"), [it.via(UNREACHABLE)]),
      bgpRoute(p("10.65.2.0/26"), [it.via("192.0.2.9")]),
    ]);
    const [problem] = it.table.reconcile();
    assert.equal(problem?.destination, "10.65.1.0/26");
    assert.match(problem.reason, /^Cannot add route 10.65.1.0\/26 via 203.0.113.1 dev br0: .*(ENETUNREACH|EINVAL)/);
    assert.deepEqual(it.routes(), ["10.65.2.0/26 via 192.0.2.9 dev br0 proto 12"]);
    assert.deepEqual(it.changes, [[1, 0]]);
    it.table.reconcile();
    assert.deepEqual(it.problems, [problem]);
    assert.deepEqual(it.table.problems(), [problem]);

    it.node.ip("route", "add", `${UNREACHABLE}/32`, "dev", "br0");
    await it.until([
      "10.65.1.0/26 via 203.0.113.1 dev br0 proto 12",
      "10.65.2.0/26 via 192.0.2.9 dev br0 proto 12",
      "203.0.113.1/32 dev br0 proto 3",
    ]);
    assert.deepEqual(it.table.problems(), []);
    assert.equal(it.problems.length, 1);
  });

  test("does not keep a kick waiting for the next try", async () => {
    using it = bench();
    it.table.want("bgp", "bgp", [bgpRoute(p("10.65.1.0/26"), [it.via(UNREACHABLE)])]);
    for (let tries = 0; tries < 8; tries += 1) it.table.reconcile(); // by now the next try is 10 s off
    it.node.ip("route", "add", `${UNREACHABLE}/32`, "dev", "br0");
    const began = performance.now();
    it.table.kick();
    await it.until(["10.65.1.0/26 via 203.0.113.1 dev br0 proto 12", "203.0.113.1/32 dev br0 proto 3"]);
    assert.ok(performance.now() - began < 1000);
  });

  test("because another's route stands there: that one stays", () => {
    using it = bench();
    it.node.ip("route", "add", "10.65.1.0/26", "via", "192.0.2.1", "proto", "static");
    it.table.want("bgp", "bgp", [bgpRoute(p("10.65.1.0/26"), [it.via("192.0.2.9")])]);
    it.table.allowPrune("bgp");
    assert.match(it.table.reconcile()[0]?.reason ?? "", /Cannot add route 10.65.1.0\/26 .*EEXIST/);
    assert.deepEqual(it.routes(), ["10.65.1.0/26 via 192.0.2.1 dev br0 proto 4"]);
    it.node.ip("route", "del", "10.65.1.0/26");
    assert.deepEqual(it.table.reconcile(), []);
    assert.deepEqual(it.routes(), ["10.65.1.0/26 via 192.0.2.9 dev br0 proto 12"]);
  });

  test("is not tried again once the table is closed", async () => {
    using it = bench();
    it.table.want("bgp", "bgp", [bgpRoute(p("10.65.1.0/26"), [it.via(UNREACHABLE)])]);
    it.table.reconcile();
    it.table.close();
    it.table.kick();
    it.node.ip("route", "add", `${UNREACHABLE}/32`, "dev", "br0");
    await sleep(400);
    assert.deepEqual(it.routes(), ["203.0.113.1/32 dev br0 proto 3"]);
  });
});

describe("single changes", () => {
  const route = (last: number, via: NextHop, metric = 0): Route => bgpRoute(p(`10.65.${last}.0/26`), [via], metric);

  test("write what they say and look at nothing else", () => {
    using one = bench();
    const { table, via, changes, problems } = one;
    table.allowPrune("bgp");
    table.change("bgp", "bgp", [route(1, via("192.0.2.9")), route(2, via("192.0.2.9"))], []);
    const { rtnetlink } = one.node;
    let lists = 0;
    const list = rtnetlink.routes.bind(rtnetlink);
    rtnetlink.routes = (filter) => {
      lists += 1;
      return list(filter);
    };
    table.change("bgp", "bgp", [route(1, via("192.0.2.10")), route(3, via("192.0.2.9"))], [route(2, via("192.0.2.9"))]);
    table.change("bgp", "bgp", [route(3, via("192.0.2.9"))], []);
    rtnetlink.routes = list;
    assert.equal(lists, 0);
    assert.deepEqual(one.routes(), [
      "10.65.1.0/26 via 192.0.2.10 dev br0 proto 12",
      "10.65.3.0/26 via 192.0.2.9 dev br0 proto 12",
    ]);
    assert.deepEqual(changes, [
      [2, 0],
      [2, 1],
    ]);
    assert.deepEqual(problems, []);
    assert.equal(table.size(), 2);
    assert.deepEqual(table.reconcile(), []);
    assert.equal(changes.length, 2, "the whole agrees with its parts");
  });

  test("take over what an earlier agent left, and remove nothing before they may", async () => {
    using one = bench();
    const { table, via, node, problems } = one;
    for (const last of [1, 2, 3]) node.rtnetlink.addRoute(route(last, via("192.0.2.9")));
    table.change("bgp", "bgp", [route(1, via("192.0.2.9"))], []);
    table.change("bgp", "bgp", [route(2, via("192.0.2.10")), route(4, via("192.0.2.9"))], []);
    table.change("bgp", "bgp", [], [route(4, via("192.0.2.9"))]);
    table.change("bgp", "bgp", [route(4, via("192.0.2.10"))], []);
    table.change("bgp", "bgp", [], [route(4, via("192.0.2.10"))]);
    const kept = [
      "10.65.1.0/26 via 192.0.2.9 dev br0 proto 12",
      "10.65.2.0/26 via 192.0.2.10 dev br0 proto 12",
      "10.65.3.0/26 via 192.0.2.9 dev br0 proto 12",
      "10.65.4.0/26 via 192.0.2.10 dev br0 proto 12",
    ];
    assert.deepEqual(one.routes(), kept);
    assert.deepEqual(problems, []);
    table.allowPrune("bgp");
    await one.until(kept.slice(0, 2));
    table.change("bgp", "bgp", [], [route(1, via("192.0.2.9"))]);
    assert.deepEqual(one.routes(), kept.slice(1, 2));
  });

  test("give way to the agent's own routes, and come back when these go", () => {
    using one = bench();
    const { table, via } = one;
    for (const owner of ["agent", "bgp"] as const) table.allowPrune(owner);
    table.want("blocks", "agent", [blackholeRoute(p("10.65.1.0/26"))]);
    table.change("bgp", "bgp", [route(1, via("192.0.2.9"))], []);
    assert.deepEqual(one.routes(), ["blackhole 10.65.1.0/26 proto 80"]);
    table.want("blocks", "agent", []);
    table.reconcile();
    assert.deepEqual(one.routes(), ["10.65.1.0/26 via 192.0.2.9 dev br0 proto 12"]);
  });

  test("that another's route stands in the way of are reported, and tried again when it is gone", async () => {
    using one = bench();
    const { table, via, node, problems } = one;
    table.change("bgp", "bgp", [route(1, via("192.0.2.9"))], []);
    node.rtnetlink.addRoute({ ...route(2, via("192.0.2.10")), protocol: 4 });
    table.change("bgp", "bgp", [route(2, via("192.0.2.9")), route(3, via("192.0.2.9"))], []);
    assert.deepEqual(
      problems.map(({ destination }) => destination),
      ["10.65.2.0/26"],
    );
    assert.equal(table.problems().length, 1);
    node.rtnetlink.deleteRoute({ ...route(2, via("192.0.2.10")), protocol: 4 });
    await one.until([1, 2, 3].map((last) => `10.65.${last}.0/26 via 192.0.2.9 dev br0 proto 12`));
    assert.deepEqual(table.problems(), []);
  });

  test("of a large table take several turns of the event loop, and end as they should", async () => {
    using one = bench();
    const { table, via, node } = one;
    table.allowPrune("bgp");
    table.change("bgp", "bgp", [route(1, via("192.0.2.9"))], []);
    const many = Array.from({ length: 9000 }, (_, index) =>
      bgpRoute(p(`10.${70 + (index >> 12)}.${(index >> 4) & 255}.${(index & 15) * 16}/28`), [via("192.0.2.9")]),
    );
    const count = (): number => node.rtnetlink.routes({ protocol: PROTOCOL_BGP }).length;
    table.change("bgp", "bgp", many, []);
    assert.ok(count() < 3000, "not all at once");
    table.change("bgp", "bgp", [], many.slice(0, 8000));
    const deadline = performance.now() + 5000;
    let longest = 0;
    for (let last = performance.now(); performance.now() < deadline && count() !== 1001;) {
      await new Promise((resolve) => setImmediate(resolve));
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }
    assert.equal(count(), 1001);
    assert.ok(longest < 1000, `a turn took ${longest} ms`);
  });

  test("are known again when the kernel tells of them", async () => {
    using one = bench();
    const { table, via, node, changes } = one;
    table.allowPrune("bgp");
    table.change("bgp", "bgp", [route(1, via("192.0.2.9"))], []);
    let heard = 0;
    const close = openMonitor(
      { namespace: node.path, groups: ["route4"] },
      {
        event({ change, item }) {
          if (item.kind !== "route" || item.route.table !== TABLE_MAIN) return;
          heard += 1;
          assert.equal(table.observe(change, item.route), "ours");
        },
        overrun: () => undefined,
        failed: (failure) => assert.fail(failure.message),
      },
    );
    try {
      table.observe("new", route(1, via("192.0.2.9")));
      // Quicker than the kernel tells: what it tells is not what is wanted any more.
      for (const last of [9, 10, 9, 10, 9]) table.change("bgp", "bgp", [route(1, via(`192.0.2.${last}`))], []);
      const deadline = performance.now() + 2000;
      while (heard < 4 && performance.now() < deadline) await sleep(5);
      await sleep(60);
      assert.ok(heard >= 4);
      assert.equal(changes.length, 5, "nothing was put right that was not wrong");
      node.rtnetlink.deleteRoute(route(1, via("192.0.2.9")));
      await one.until(["10.65.1.0/26 via 192.0.2.9 dev br0 proto 12"]);
    } finally {
      close();
    }
  });
});

test("an IPv6 route through a tunnel takes the place of one that leads to the tunnel's other end by another link", async () => {
  using one = bench();
  const { table, node, cali, problems } = one;
  const block = parsePrefix("fd10:244::/122");
  const device = node.rtnetlink.link("br0")!.index;
  table.allowPrune("bgp");
  table.want("learned", "bgp", [bgpRoute(block, [{ gateway: parseAddress("2001:db8::9"), device }])]);
  table.reconcile();
  await one.until(["fd10:244::/122 via 2001:db8::9 dev br0 metric 1024 proto 12"]);
  table.want("tunnels", "agent", [clusterRoute(block, { gateway: block.address, device: cali, onlink: true })]);
  table.reconcile();
  await one.until(["fd10:244::/122 via fd10:244:: dev cali1 metric 1024 onlink proto 80"]);
  assert.deepEqual(problems, []);
});

test("the agent's and BGP's marks are Felix's and BIRD's", () => {
  assert.deepEqual([PROTOCOL_AGENT, PROTOCOL_BGP], [80, 12]);
});
