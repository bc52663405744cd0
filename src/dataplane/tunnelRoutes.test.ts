import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { formatAddress, parseAddress, type Address } from "../ip/address.ts";
import { formatPrefix, parseInterfaceAddress, parsePrefix, prefixContains } from "../ip/prefix.ts";
import { describeRoute } from "../netlink/route.ts";
import { clusterRoute, PROTOCOL_AGENT } from "./routes.ts";
import {
  agentPrograms,
  planTunnels,
  type TunnelBlock,
  type TunnelInput,
  type TunnelMode,
  type TunnelNode,
  type TunnelPool,
  type TunnelRoute,
} from "./tunnelRoutes.ts";

const a = parseAddress;
const p = parsePrefix;

/** node1 is this one; node2 is on its subnet, node3 is not. Each has its tunnel address first in its block. */
const node = (number: number, address: string, address6: string, fields: Partial<TunnelNode> = {}): TunnelNode => ({
  name: `node${number}`,
  address: { 4: parseInterfaceAddress(address), 6: parseInterfaceAddress(address6) },
  vtep: {
    4: { address: a(`10.65.${number}.1`), mac: `66:00:00:00:04:0${number}` },
    6: { address: a(`fd00:65:${number}::1`), mac: `66:00:00:00:06:0${number}` },
  },
  ...fields,
});
const NODE1 = node(1, "192.0.2.11/26", "2001:db8:1::11/64");
const NODE2 = node(2, "192.0.2.12/26", "2001:db8:1::12/64");
const NODE3 = node(3, "192.0.2.75/26", "2001:db8:2::11/64");

const pool = (ipip: TunnelMode, vxlan: TunnelMode, cidr = "10.65.0.0/16"): TunnelPool => ({
  prefix: p(cidr),
  ipip,
  vxlan,
});
const block = (cidr: string, holder?: string, ...borrowed: [string, string][]): TunnelBlock => ({
  prefix: p(cidr),
  ...(holder === undefined ? {} : { node: holder }),
  borrowed: borrowed.map(([address, user]) => ({ address: a(address), node: user })),
});
const BLOCKS = [block("10.65.1.0/26", "node1"), block("10.65.2.0/26", "node2"), block("10.65.3.0/26", "node3")];

const input = (fields: Partial<TunnelInput>): TunnelInput => ({
  self: NODE1,
  peers: [NODE2, NODE3],
  pools: [],
  blocks: BLOCKS,
  programs: agentPrograms("Enabled"),
  ...fields,
});

/** As `ip route` shows it. */
function text({ destination, device, gateway, onlink }: TunnelRoute): string {
  const names = {
    tunl0: "tunl0",
    underlay: "eth0",
    vxlan: destination.address.family === 4 ? "vxlan.calico" : "vxlan-v6.calico",
  };
  const route = clusterRoute(destination, { device: 1, ...(gateway && { gateway }), ...(onlink && { onlink }) });
  assert.equal(route.protocol, PROTOCOL_AGENT);
  return describeRoute({ ...route, metric: 0 }, () => names[device]);
}
const routesOf = (fields: Partial<TunnelInput>): string[] => planTunnels(input(fields)).routes.map(text);

describe("the route to each block", () => {
  const rows: { name: string; input: Partial<TunnelInput>; routes: string[] }[] = [
    {
      name: "IPIP always",
      input: { pools: [pool("Always", "Never")] },
      routes: ["10.65.2.0/26 via 192.0.2.12 dev tunl0 onlink", "10.65.3.0/26 via 192.0.2.75 dev tunl0 onlink"],
    },
    {
      name: "IPIP across subnets",
      input: { pools: [pool("CrossSubnet", "Never")] },
      routes: ["10.65.2.0/26 via 192.0.2.12 dev eth0", "10.65.3.0/26 via 192.0.2.75 dev tunl0 onlink"],
    },
    {
      name: "VXLAN always",
      input: { pools: [pool("Never", "Always")] },
      routes: [
        "10.65.2.0/26 via 10.65.2.1 dev vxlan.calico onlink",
        "10.65.3.0/26 via 10.65.3.1 dev vxlan.calico onlink",
      ],
    },
    {
      name: "VXLAN across subnets",
      input: { pools: [pool("Never", "CrossSubnet")] },
      routes: ["10.65.2.0/26 via 192.0.2.12 dev eth0", "10.65.3.0/26 via 10.65.3.1 dev vxlan.calico onlink"],
    },
    {
      name: "no encapsulation",
      input: { pools: [pool("Never", "Never")] },
      routes: ["10.65.2.0/26 via 192.0.2.12 dev eth0", "10.65.3.0/26 via 192.0.2.75 dev eth0"],
    },
    { name: "no pool", input: {}, routes: [] },
    {
      name: "the mask of this node's own address decides, not the other's",
      input: {
        self: node(1, "192.0.2.11/32", "2001:db8:1::11/64"),
        peers: [node(2, "192.0.2.12/24", "2001:db8:1::12/64")],
        pools: [pool("CrossSubnet", "Never")],
      },
      routes: ["10.65.2.0/26 via 192.0.2.12 dev tunl0 onlink"],
    },
    {
      name: "a wide mask makes one subnet of all",
      input: { self: node(1, "192.0.2.11/24", "2001:db8:1::11/64"), pools: [pool("Never", "CrossSubnet")] },
      routes: ["10.65.2.0/26 via 192.0.2.12 dev eth0", "10.65.3.0/26 via 192.0.2.75 dev eth0"],
    },
    {
      name: "several pools, each its own way",
      input: {
        pools: [pool("Always", "Never", "10.65.2.0/24"), pool("Never", "Always", "10.65.3.0/24")],
      },
      routes: ["10.65.2.0/26 via 192.0.2.12 dev tunl0 onlink", "10.65.3.0/26 via 10.65.3.1 dev vxlan.calico onlink"],
    },
    {
      name: "IPv6 in a VXLAN",
      input: {
        pools: [pool("Never", "Always", "fd00:65::/32")],
        blocks: [block("fd00:65:2::/122", "node2"), block("fd00:65:3::/122", "node3")],
      },
      routes: [
        "fd00:65:2::/122 via fd00:65:2::1 dev vxlan-v6.calico onlink",
        "fd00:65:3::/122 via fd00:65:3::1 dev vxlan-v6.calico onlink",
      ],
    },
    {
      name: "IPv6 across subnets",
      input: {
        pools: [pool("Never", "CrossSubnet", "fd00:65::/32")],
        blocks: [block("fd00:65:2::/122", "node2"), block("fd00:65:3::/122", "node3")],
      },
      routes: [
        "fd00:65:2::/122 via 2001:db8:1::12 dev eth0",
        "fd00:65:3::/122 via fd00:65:3::1 dev vxlan-v6.calico onlink",
      ],
    },
    {
      name: "an address that another node borrows",
      input: { pools: [pool("Never", "Always")], blocks: [block("10.65.2.0/26", "node2", ["10.65.2.9", "node3"])] },
      routes: [
        "10.65.2.0/26 via 10.65.2.1 dev vxlan.calico onlink",
        "10.65.2.9/32 via 10.65.3.1 dev vxlan.calico onlink",
      ],
    },
    {
      name: "an address of this node's own block that another borrows",
      input: { pools: [pool("Always", "Never")], blocks: [block("10.65.1.0/26", "node1", ["10.65.1.9", "node2"])] },
      routes: ["10.65.1.9/32 via 192.0.2.12 dev tunl0 onlink"],
    },
    {
      name: "an address that this node borrows is at home here",
      input: { pools: [pool("Always", "Never")], blocks: [block("10.65.2.0/26", "node2", ["10.65.2.9", "node1"])] },
      routes: ["10.65.2.0/26 via 192.0.2.12 dev tunl0 onlink"],
    },
    {
      name: "a block that no node holds, with one address in use",
      input: { pools: [pool("Always", "Never")], blocks: [block("10.65.4.0/26", undefined, ["10.65.4.9", "node2"])] },
      routes: ["10.65.4.9/32 via 192.0.2.12 dev tunl0 onlink"],
    },
    {
      name: "a block of one address is its user's",
      input: {
        pools: [pool("Never", "Always")],
        blocks: [
          block("10.65.2.7/32", "node2", ["10.65.2.7", "node3"]),
          block("10.65.2.8/32", "node2", ["10.65.2.8", "node1"]),
        ],
      },
      routes: ["10.65.2.7/32 via 10.65.3.1 dev vxlan.calico onlink"],
    },
    {
      name: "a block that is the other end's own address is on the link",
      input: { pools: [pool("Never", "Always")], blocks: [block("10.65.2.1/32", "node2")] },
      routes: ["10.65.2.1/32 dev vxlan.calico"],
    },
    {
      name: "a node that nobody knows, and one without an address",
      input: {
        pools: [pool("Always", "Never")],
        peers: [{ name: "node3", address: {}, vtep: {} }],
        blocks: [block("10.65.9.0/26", "node9"), block("10.65.3.0/26", "node3")],
      },
      routes: [],
    },
    {
      name: "this node has no address yet",
      input: { self: { name: "node1", address: {}, vtep: {} }, pools: [pool("Always", "Never")] },
      routes: [],
    },
    {
      name: "the agent leaves IPIP to BGP",
      input: { pools: [pool("Always", "Never")], programs: agentPrograms("EnabledNoEncapOnly") },
      routes: [],
    },
    {
      name: "the agent leaves what needs no tunnel to BGP",
      input: {
        pools: [pool("Never", "Never", "10.65.2.0/24"), pool("CrossSubnet", "Never", "10.65.3.0/24")],
        programs: agentPrograms("EnabledIPIPOnly"),
      },
      routes: ["10.65.3.0/26 via 192.0.2.75 dev tunl0 onlink"],
    },
    {
      name: "VXLAN is always the agent's",
      input: { pools: [pool("Never", "Always")], programs: agentPrograms("Disabled"), peers: [NODE2] },
      routes: ["10.65.2.0/26 via 10.65.2.1 dev vxlan.calico onlink"],
    },
  ];
  for (const { name, input: fields, routes } of rows) test(name, () => assert.deepEqual(routesOf(fields), routes));
});

test("a VXLAN waits for both ends; nobody is sent there before", () => {
  const without = { ...NODE2, vtep: {} };
  const pools = [pool("Never", "Always")];
  const { routes, pending } = planTunnels(input({ pools, peers: [without, NODE3] }));
  assert.deepEqual(routes.map(text), ["10.65.3.0/26 via 10.65.3.1 dev vxlan.calico onlink"]);
  assert.deepEqual(pending.map(formatPrefix), ["10.65.2.0/26"]);
  const alone = planTunnels(input({ pools, self: { ...NODE1, vtep: {} } }));
  assert.deepEqual([alone.routes, alone.pending.map(formatPrefix)], [[], ["10.65.2.0/26", "10.65.3.0/26"]]);
});

test("the IPIP tunnel carries every destination of its pools, whoever writes the routes", () => {
  for (const setting of ["Enabled", "Disabled"] as const) {
    const pools = [pool("CrossSubnet", "Never"), pool("Never", "Always", "10.66.0.0/16")];
    const blocks = [
      ...BLOCKS,
      block("10.66.2.0/26", "node2"),
      block("10.65.2.64/26", "node2", ["10.65.2.70", "node3"]),
    ];
    const { ipipDestinations } = planTunnels(input({ pools, blocks, programs: agentPrograms(setting) }));
    assert.deepEqual(
      ipipDestinations.map((each) => `${formatPrefix(each.destination)} ${formatAddress(each.node)}`),
      ["10.65.2.0/26 192.0.2.12", "10.65.2.64/26 192.0.2.12", "10.65.2.70/32 192.0.2.75", "10.65.3.0/26 192.0.2.75"],
    );
  }
});

test("every address in use has one way, and it is its user's", () => {
  const name = fc.constantFrom("node1", "node2", "node3");
  const modes = fc.constantFrom<[TunnelMode, TunnelMode]>(
    ["Never", "Never"],
    ["Always", "Never"],
    ["CrossSubnet", "Never"],
    ["Never", "Always"],
    ["Never", "CrossSubnet"],
  );
  const blocks = fc.uniqueArray(
    fc.record({
      at: fc.integer({ min: 0, max: 7 }),
      holder: fc.option(name, { nil: undefined }),
      users: fc.uniqueArray(fc.tuple(fc.integer({ min: 0, max: 3 }), name), {
        selector: ([ordinal]) => ordinal,
        maxLength: 4,
      }),
    }),
    { selector: ({ at }) => at, maxLength: 6 },
  );
  fc.assert(
    fc.property(blocks, modes, (list, [ipip, vxlan]) => {
      const made = list.map(({ at, holder, users }) =>
        block(
          `10.65.${at}.0/30`,
          holder,
          ...users
            .filter(([, user]) => user !== holder)
            .map(([ordinal, user]): [string, string] => [`10.65.${at}.${ordinal}`, user]),
        ),
      );
      const { routes, ipipDestinations } = planTunnels(input({ pools: [pool(ipip, vxlan)], blocks: made }));
      const nodeOf = (address: Address): string | undefined =>
        routes
          .filter(({ destination }) => prefixContains(destination, address))
          .toSorted((x, y) => y.destination.length - x.destination.length)[0]?.node;
      for (const { at, holder, users } of list) {
        for (let ordinal = 0; ordinal < 4; ordinal += 1) {
          const user = users.find(([place]) => place === ordinal)?.[1] ?? holder;
          const found = nodeOf(a(`10.65.${at}.${ordinal}`));
          // What is this node's has a route of its pod's own, which is longer than any of these.
          if (user !== "node1") assert.equal(found, user);
        }
      }
      if (ipip === "Never") assert.equal(ipipDestinations.length, 0);
      else
        assert.deepEqual(
          ipipDestinations.map((each) => formatPrefix(each.destination)),
          routes.map((each) => formatPrefix(each.destination)),
        );
    }),
  );
});
