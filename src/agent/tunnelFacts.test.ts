import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix } from "../ip/prefix.ts";
import { KIND, type Kinds } from "../resources/registry.ts";
import { addressPools, tunnelBlock, tunnelEnabled, tunnelNode, tunnelPools, TUNNELS } from "./tunnelFacts.ts";

const CALICO = "projectcalico.org/v3";

const pool = (name: string, spec: object): Kinds["IPPool"] =>
  KIND.IPPool.parse({ apiVersion: CALICO, kind: "IPPool", metadata: { name }, spec });
const ipip = pool("ipip", { cidr: "10.1.0.0/16", ipipMode: "CrossSubnet" });
const vxlan = pool("vxlan", { cidr: "10.2.0.0/16", vxlanMode: "Always" });
const vxlan6 = pool("vxlan6", { cidr: "fd00:2::/48", vxlanMode: "Always" });
const plain = pool("plain", { cidr: "10.3.0.0/16" });
const SETTINGS = { ipipEnabled: undefined, vxlanEnabled: undefined, ipv6Support: true };

describe("which tunnels a node has an end of", () => {
  const rows = [
    { pools: [plain], settings: {}, tunnels: [] },
    { pools: [ipip], settings: {}, tunnels: ["ipip 4"] },
    { pools: [vxlan, vxlan6], settings: {}, tunnels: ["vxlan 4", "vxlan 6"] },
    { pools: [vxlan6], settings: {}, tunnels: ["vxlan 6"] },
    { pools: [ipip, vxlan], settings: { ipipEnabled: false }, tunnels: ["vxlan 4"] },
    { pools: [vxlan, vxlan6], settings: { vxlanEnabled: false }, tunnels: [] },
    { pools: [plain], settings: { ipipEnabled: true, vxlanEnabled: true }, tunnels: ["ipip 4", "vxlan 4"] },
    { pools: [vxlan6], settings: { ipv6Support: false }, tunnels: [] },
  ];
  for (const { pools, settings, tunnels } of rows) {
    test(`${pools.map(({ metadata }) => metadata.name).join(", ")} ${JSON.stringify(settings)}`, () => {
      const enabled = TUNNELS.filter((tunnel) => tunnelEnabled(tunnel, pools, { ...SETTINGS, ...settings }));
      assert.deepEqual(
        enabled.map(({ kind, family }) => `${kind} ${family}`),
        tunnels,
      );
    });
  }
});

describe("pools from which a tunnel's address may come", () => {
  const tunnel = { kind: "vxlan", family: 4 } as const;
  const cidr = "10.2.0.0/16";
  const rows: { name: string; spec: object; present?: string; fits: boolean }[] = [
    { name: "of this tunnel", spec: { vxlanMode: "CrossSubnet" }, fits: true },
    { name: "of another tunnel", spec: { ipipMode: "Always" }, fits: false },
    { name: "for this node", spec: { vxlanMode: "Always", nodeSelector: "rack == 'a'" }, fits: true },
    { name: "for other nodes", spec: { vxlanMode: "Always", nodeSelector: "rack == 'b'" }, fits: false },
    { name: "not for tunnels", spec: { vxlanMode: "Always", allowedUses: ["Workload"] }, fits: false },
    { name: "disabled", spec: { vxlanMode: "Always", disabled: true }, fits: false },
    {
      name: "disabled, where the node's address is from",
      spec: { vxlanMode: "Always", disabled: true },
      present: "10.2.0.7",
      fits: true,
    },
    {
      name: "disabled, and the node's address is from another",
      spec: { vxlanMode: "Always", disabled: true },
      present: "10.9.0.7",
      fits: false,
    },
  ];
  for (const { name, spec, present, fits } of rows) {
    test(name, () => {
      const found = addressPools(
        tunnel,
        [pool("p", { cidr, ...spec })],
        { rack: "a" },
        present === undefined ? undefined : parseAddress(present),
      );
      assert.deepEqual(
        found.map(({ name: found, prefix }) => `${found} ${formatPrefix(prefix)}`),
        fits ? [`p ${cidr}`] : [],
      );
    });
  }
});

test("a node's ends: the MAC is worked out from its name, unless it says another", () => {
  const annotations = (more: Record<string, string>): Kinds["Node"] =>
    KIND.Node.parse({
      apiVersion: "v1",
      kind: "Node",
      metadata: { name: "node1", annotations: { "projectcalico.org/IPv4Address": "192.0.2.11/26", ...more } },
    });
  const bare = annotations({});
  assert.deepEqual(tunnelNode(bare).vtep, {});
  assert.equal(tunnelNode(bare), tunnelNode(bare), "an object is read once");
  const both = tunnelNode(
    annotations({
      "projectcalico.org/IPv4VXLANTunnelAddr": "10.2.0.1",
      "projectcalico.org/IPv6VXLANTunnelAddr": "fd00:2::1",
      "projectcalico.org/VXLANTunnelMACAddrV6": "66:00:00:00:00:09",
    }),
  );
  assert.deepEqual(
    [both.vtep[4], both.vtep[6]].map((end) => end && `${formatAddress(end.address)} ${end.mac}`),
    ["10.2.0.1 66:f9:37:c3:7e:94", "fd00:2::1 66:00:00:00:00:09"],
  );
});

test("pools are read with both modes", () => {
  assert.deepEqual(
    tunnelPools([ipip, vxlan, plain]).map((each) => `${formatPrefix(each.prefix)} ${each.ipip} ${each.vxlan}`),
    ["10.1.0.0/16 CrossSubnet Never", "10.2.0.0/16 Never Always", "10.3.0.0/16 Never Never"],
  );
});

test("a block: its holder, and those who have addresses of it elsewhere", () => {
  const block = (spec: object): Kinds["IPAMBlock"] =>
    KIND.IPAMBlock.parse({
      apiVersion: CALICO,
      kind: "IPAMBlock",
      metadata: { name: "10-2-0-0-30" },
      spec: {
        cidr: "10.2.0.0/30",
        allocations: [0, 1, 2, null],
        unallocated: [3],
        attributes: [
          { handle_id: "a", secondary: { node: "node1" } },
          { handle_id: "b", secondary: { node: "node2" } },
          { handle_id: "c", secondary: { node: "node3" }, releasedAt: "2026-11-22T07:00:00Z" },
        ],
        ...spec,
      },
    });
  const text = (item: Kinds["IPAMBlock"]): string[] => {
    const { prefix, node, borrowed } = tunnelBlock(item);
    return [
      `${formatPrefix(prefix)} ${node ?? "nobody"}`,
      ...borrowed.map(({ address, node: user }) => `${formatAddress(address)} ${user}`),
    ];
  };
  assert.deepEqual(text(block({ affinity: "host:node1" })), ["10.2.0.0/30 node1", "10.2.0.1 node2"]);
  assert.deepEqual(text(block({})), ["10.2.0.0/30 nobody", "10.2.0.0 node1", "10.2.0.1 node2"]);
  assert.deepEqual(text(block({ affinity: "virtual:load-balancer" })), [
    "10.2.0.0/30 nobody",
    "10.2.0.0 node1",
    "10.2.0.1 node2",
  ]);
});
