import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { compileFilter, NO_ATTRIBUTES } from "../bgp/filters.ts";
import { wordsOfPrefix } from "../bgp/nlri.ts";
import { PROTOCOL_AGENT, PROTOCOL_BGP } from "../dataplane/routes.ts";
import { parseAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { PROTOCOL_BOOT, PROTOCOL_KERNEL, SCOPE_GLOBAL, TABLE_MAIN, type Route } from "../netlink/route.ts";
import { NO_SERVICES, filter, machine, peer, pool } from "./bgp.testing.ts";
import { localPrefOf } from "./bgpFilters.ts";
import { routesOfOthers, textOfRoutes } from "./bgpKernelRoutes.ts";
import { planBgp, type BgpInput } from "./bgpPlan.ts";

const PROTOCOL_STATIC = 4;
const LINKS = new Map([
  [2, "eth0"],
  [3, "eth1"],
  [9, "cali1234"],
]);

function route(destination: string, change: Partial<Route> = {}): Route {
  return {
    destination: parsePrefix(destination),
    type: "unicast",
    table: TABLE_MAIN,
    protocol: PROTOCOL_STATIC,
    scope: SCOPE_GLOBAL,
    metric: 0,
    nextHops: [{ gateway: parseAddress("192.0.2.1"), device: 2 }],
    ...change,
  };
}

const othersOf = (...routes: Route[]) => routesOfOthers(routes, (device) => LINKS.get(device), ["cali"]);

describe("what other programs wrote into the kernel", () => {
  test("is what is neither the kernel's, nor a router's redirect, nor ours, nor a pod's", () => {
    const found = othersOf(
      route("10.1.0.0/16"),
      route("10.2.0.0/16", { protocol: PROTOCOL_BOOT, type: "blackhole", nextHops: [] }),
      route("10.3.0.0/16", { protocol: 186, nextHops: [{ device: 3 }, { device: 2 }], metric: 20 }),
      route("2001:db8:9::/48", { metric: 1024 }),
      route("192.0.2.0/26", { protocol: PROTOCOL_KERNEL }),
      route("10.4.0.0/16", { protocol: 1 }),
      route("10.5.0.0/26", { protocol: PROTOCOL_BGP }),
      route("10.6.0.0/26", { protocol: PROTOCOL_AGENT }),
      route("10.7.0.1/32", { protocol: PROTOCOL_BOOT, nextHops: [{ device: 9 }] }),
      route("10.8.0.0/16", { table: 100 }),
      route("10.9.0.0/16", { type: "throw", nextHops: [] }),
    );
    assert.equal(
      textOfRoutes(found),
      "10.1.0.0/16 0 eth0\n10.2.0.0/16 0 \n10.3.0.0/16 20 eth1\n2001:db8:9::/48 1024 eth0",
    );
  });

  test("is of each prefix the route with the lowest metric", () => {
    const metrics = (...list: number[]) => othersOf(...list.map((metric) => route("10.1.0.0/16", { metric })));
    for (const list of [metrics(50, 20, 30), metrics(20, 50)]) assert.equal(textOfRoutes(list), "10.1.0.0/16 20 eth0");
  });
});

describe("what becomes of it", () => {
  const base: BgpInput = {
    nodeName: "node1",
    nodes: [machine("node1", { ipv4: { address: parseAddress("192.0.2.11"), length: 26 } })],
    configurations: [],
    peers: [peer("tor", { peerIP: "192.0.2.1", asNumber: 65100, filters: ["uplinks"] })],
    filters: [],
    pools: [pool("10.244.0.0/16"), pool("10.250.0.0/16", { disableBGPExport: true })],
    blocks: [parsePrefix("10.244.9.0/26")],
    borrowed: [],
    services: NO_SERVICES,
    interfaces: [{ name: "eth0", networks: [parsePrefix("192.0.2.0/26")] }],
    kernelRoutes: othersOf(
      route("0.0.0.0/0"),
      route("10.244.200.0/24"),
      route("10.250.200.0/24"),
      route("198.51.100.0/24", { nextHops: [{ device: 3 }] }),
      route("10.244.9.5/32", { metric: 512 }),
      route("10.244.9.6/32"),
    ),
    workloadPrefixes: ["cali"],
    workloads: [],
    secret: () => undefined,
    tunnels: new Set(),
  };

  /** What the peer is told of it. */
  function told(input: Partial<BgpInput> = {}): string[] {
    const { origination, peers } = planBgp({ ...base, ...input })!;
    const compiled = compileFilter(peers[0]!.exportFilter!, 4, "eBGP");
    return origination
      .filter(({ lastResort }) => lastResort === true)
      .filter(({ prefix, attributes }) => {
        const { w0, w1, w2, w3, length } = wordsOfPrefix(prefix);
        return compiled.evaluate(w0, w1, w2, w3, length, { ...NO_ATTRIBUTES, ...attributes }, "local").accept;
      })
      .map(({ prefix }) => formatPrefix(prefix));
  }

  test("it is told where it lies in an exported pool, in a block of ours only with a better priority", () => {
    assert.deepEqual(told(), ["10.244.200.0/24", "10.244.9.5/32"]);
    const { origination } = planBgp(base)!;
    const prefOf = (text: string) =>
      origination.find(({ prefix }) => formatPrefix(prefix) === text)?.attributes?.localPref;
    assert.equal(prefOf("10.244.9.5/32"), localPrefOf(512), "its metric is its priority");
    assert.equal(prefOf("10.244.200.0/24"), localPrefOf(1024), "without a metric it has the usual one");
  });

  test("it is told where a BGPFilter lets it out, also by its interface", () => {
    const letOut = (rule: object) => ({ filters: [filter("uplinks", { exportV4: [{ action: "Accept", ...rule }] })] });
    assert.deepEqual(told(letOut({ cidr: "0.0.0.0/0", matchOperator: "Equal" })), [
      "0.0.0.0/0",
      "10.244.200.0/24",
      "10.244.9.5/32",
    ]);
    assert.deepEqual(told(letOut({ interface: "eth1" })), ["10.244.200.0/24", "198.51.100.0/24", "10.244.9.5/32"]);
    assert.deepEqual(told(letOut({ interface: "eth*" })).length, 6);
  });
});
