import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import type { Link } from "../netlink/link.ts";
import { describeRoute, type Route } from "../netlink/route.ts";
import { createLearnedRoutes, type LearnedRoute } from "./learnedRoutes.io.ts";
import { routeKey } from "./routes.ts";
import type { RouteTable } from "./routeTable.io.ts";

/** A kernel with links by name, and a route table that writes down what it holds and how often it was asked. */
function bench() {
  const links = new Map([
    ["eth0", 2],
    ["eth1", 3],
  ]);
  let lookups = 0;
  const routes = new Map<string, Route>();
  const writes: [put: number, gone: number][] = [];
  const table: Pick<RouteTable, "change" | "want"> = {
    change(_source, _owner, put, gone) {
      writes.push([put.length, gone.length]);
      for (const route of put) routes.set(routeKey(route), route);
      for (const route of gone) assert.ok(routes.delete(routeKey(route)), "only what is there is taken away");
    },
    want(_source, _owner, all) {
      routes.clear();
      for (const route of all) routes.set(routeKey(route), route);
    },
  };
  const learned = createLearnedRoutes(
    {
      link(name) {
        lookups += 1;
        const index = links.get(String(name));
        return index === undefined ? undefined : ({ index } as Link);
      },
    },
    table as RouteTable,
  );
  return {
    links,
    learned,
    writes,
    lookups: () => lookups,
    lines: () => [...routes.values()].map((route) => describeRoute(route)).toSorted(),
  };
}

const said = (
  prefix: string,
  hops: readonly [nextHop: string, device?: string, gateway?: string][],
  metric?: number,
): LearnedRoute => ({
  prefix: parsePrefix(prefix),
  nextHops: hops.map(([nextHop, device, gateway]) => ({
    nextHop: parseAddress(nextHop),
    ...(device !== undefined && { interface: device }),
    ...(gateway !== undefined && { gateway: parseAddress(gateway) }),
  })),
  ...(metric !== undefined && { metric }),
});

describe("what BGP says becomes the kernel's routes", () => {
  test("by the gateway where there is one, over several next hops, and over IPv6 ones (RFC 8950)", () => {
    const { learned, lines } = bench();
    learned.apply([
      said("10.1.0.0/26", [["192.0.2.12", "eth0"]]),
      said("10.2.0.0/26", [["192.0.2.75", "eth0", "192.0.2.1"]], 1024),
      said("10.3.0.0/26", [
        ["192.0.2.12", "eth0"],
        ["198.51.100.2", "eth1"],
      ]),
      said("10.4.0.0/26", [["2001:db8::12", "eth0"]]),
      said("fd00:5::/122", [["2001:db8::12", "eth0"]]),
    ]);
    assert.deepEqual(lines(), [
      "10.1.0.0/26 via 192.0.2.12 dev 2",
      "10.2.0.0/26 via 192.0.2.1 dev 2 metric 1024",
      "10.3.0.0/26 nexthop via 192.0.2.12 dev 2 nexthop via 198.51.100.2 dev 3",
      "10.4.0.0/26 via 2001:db8::12 dev 2",
      "fd00:5::/122 via 2001:db8::12 dev 2 metric 1024",
    ]);
  });

  test("and change one by one: with another metric the old one goes", () => {
    const { learned, lines, writes, lookups } = bench();
    learned.apply([said("10.1.0.0/26", [["192.0.2.12", "eth0"]]), said("10.2.0.0/26", [["192.0.2.12", "eth0"]])]);
    learned.apply([said("10.1.0.0/26", [["192.0.2.13", "eth0"]])]);
    learned.apply([said("10.1.0.0/26", [["192.0.2.13", "eth0"]], 512)]);
    assert.deepEqual(lines(), ["10.1.0.0/26 via 192.0.2.13 dev 2 metric 512", "10.2.0.0/26 via 192.0.2.12 dev 2"]);
    learned.apply([said("10.1.0.0/26", [])]);
    assert.deepEqual(lines(), ["10.2.0.0/26 via 192.0.2.12 dev 2"]);
    learned.apply([said("10.9.0.0/26", [])]);
    assert.deepEqual(writes, [
      [2, 0],
      [1, 0],
      [1, 1],
      [0, 1],
      [0, 0],
    ]);
    assert.equal(lookups(), 1, "a link is looked up once");
    learned.clear();
    assert.deepEqual(lines(), []);
  });

  test("wait for their link, follow it to another index, and leave others alone", () => {
    const { links, learned, lines, writes } = bench();
    learned.apply([said("10.1.0.0/26", [["192.0.2.12", "eth2"]]), said("10.2.0.0/26", [["192.0.2.12", "eth0"]])]);
    assert.deepEqual(lines(), ["10.2.0.0/26 via 192.0.2.12 dev 2"]);
    links.set("eth2", 9);
    learned.linksChanged();
    assert.deepEqual(lines(), ["10.1.0.0/26 via 192.0.2.12 dev 9", "10.2.0.0/26 via 192.0.2.12 dev 2"]);
    links.set("eth0", 12);
    learned.linksChanged();
    assert.deepEqual(lines(), ["10.1.0.0/26 via 192.0.2.12 dev 9", "10.2.0.0/26 via 192.0.2.12 dev 12"]);
    links.delete("eth2");
    learned.linksChanged();
    assert.deepEqual(lines(), ["10.2.0.0/26 via 192.0.2.12 dev 12"]);
    learned.linksChanged();
    assert.deepEqual(writes, [
      [1, 0],
      [1, 0],
      [1, 0],
      [0, 1],
    ]);
  });
});
