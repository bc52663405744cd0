import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Family } from "../ip/address.ts";
import { worldOf } from "../policy/world.testing.ts";
import { annotated, HOST, object, PODS, policy } from "./packetTable.testing.ts";
import { rulesetBuilder } from "./rulesetBuilder.ts";
import { factsOf, nodeOf, type GivenFacts } from "./ruleWorld.testing.ts";

const pool = (cidr: string, more: { natOutgoing?: boolean; disabled?: boolean; isLoadBalancer?: boolean } = {}) => ({
  cidr,
  natOutgoing: true,
  disabled: false,
  isLoadBalancer: false,
  ...more,
});
const ALWAYS = ["raw PREROUTING", "filter INPUT", "filter FORWARD"];
const NAT = ["nat PREROUTING", "nat OUTPUT", "nat POSTROUTING"];
const HOSTS = ["raw OUTPUT", "mangle POSTROUTING", "filter OUTPUT"];
const early = (stage: string): string => policy(`{selector: has(hep), ${stage}: true, applyOnForward: true}`, "early");

interface Row {
  readonly name: string;
  readonly objects?: readonly string[];
  readonly facts?: GivenFacts;
  readonly family?: Family;
  /** Besides those that are always there. */
  readonly hooks: readonly string[];
}
const rows: Row[] = [
  { name: "pods alone", hooks: [] },
  { name: "a pool whose addresses are translated", facts: { pools: [pool("10.1.0.0/16")] }, hooks: NAT },
  { name: "… of the other family", facts: { pools: [pool("2001:db8::/64")] }, hooks: [] },
  { name: "… which IPv6 has", facts: { pools: [pool("2001:db8::/64")] }, family: 6, hooks: NAT },
  {
    name: "pools whose addresses are not",
    facts: {
      pools: [
        pool("10.1.0.0/16", { natOutgoing: false }),
        pool("10.2.0.0/16", { disabled: true }),
        pool("10.3.0.0/16", { isLoadBalancer: true }),
      ],
    },
    hooks: [],
  },
  {
    name: "a floating address",
    objects: [annotated("x", "10.1.0.1", "floatingIPs", '["203.0.113.1"]')],
    facts: { settings: { floatingIPs: "Enabled" } },
    hooks: NAT,
  },
  {
    name: "… where settings do not allow it",
    objects: [annotated("x", "10.1.0.1", "floatingIPs", '["203.0.113.1"]')],
    hooks: [],
  },
  {
    name: "VXLAN: it is not tracked, and the node's own packets get the tunnel's address",
    facts: { tunnels: [{ kind: "vxlan", family: 4, device: "vxlan.calico", addresses: ["10.1.0.0"] }] },
    hooks: ["raw OUTPUT", ...NAT],
  },
  {
    name: "… before the tunnel has an address",
    facts: { tunnels: [{ kind: "vxlan", family: 4, device: "vxlan.calico", addresses: [] }] },
    hooks: ["raw OUTPUT"],
  },
  {
    name: "… where others' rules have to be passed by",
    facts: {
      tunnels: [{ kind: "vxlan", family: 4, device: "vxlan.calico", addresses: [] }],
      renderer: { sharesHooks: true },
    },
    hooks: ["raw OUTPUT", "filter OUTPUT"],
  },
  { name: "a host endpoint", objects: [HOST], hooks: HOSTS },
  {
    name: "… for every interface",
    objects: [object("HostEndpoint", "all", "{node: node1, interfaceName: '*'}")],
    hooks: HOSTS,
  },
  {
    name: "… of another node",
    objects: [object("HostEndpoint", "h", "{node: node2, interfaceName: eth0}")],
    hooks: [],
  },
  { name: "… with preDNAT policy", objects: [HOST, early("preDNAT")], hooks: [...HOSTS, "mangle PREROUTING"] },
  { name: "… with untracked policy", objects: [HOST, early("doNotTrack")], hooks: HOSTS },
];

describe("a hook is there as long as something needs it", () => {
  for (const { name, objects = [], facts = {}, family = 4, hooks } of rows) {
    test(name, () => {
      const { rulesets } = nodeOf(
        worldOf([...PODS, ...objects], { interfaces: { node1: [{ name: "eth0", addresses: ["192.0.2.1"] }] } }),
        "node1",
        factsOf(facts),
      );
      const found = new Set(rulesets[family].hooks.map(({ layer, hook }) => `${layer} ${hook}`));
      assert.deepEqual([...found].sort(), [...ALWAYS, ...hooks].sort());
    });
  }

  test("packets are led to host endpoints before they are tracked only where a policy wants that", () => {
    const asks = (...objects: string[]): boolean => {
      const { rulesets } = nodeOf(
        worldOf([...PODS, HOST, ...objects], { interfaces: { node1: [{ name: "eth0", addresses: [] }] } }),
        "node1",
        factsOf(),
      );
      return rulesets[4].chains.has("raw/cali-from-host-endpoint");
    };
    assert.deepEqual([asks(), asks(early("preDNAT")), asks(early("doNotTrack"))], [false, false, true]);
  });

  test("what addresses are translated by stays, as connections are translated as they began", () => {
    const builder = rulesetBuilder([4]);
    const hooksAfter = (facts: GivenFacts): string[] | undefined => {
      builder.setFacts(factsOf(facts));
      const changes = builder.take();
      assert.ok(changes.length <= 1, "chains and hooks come in one change");
      return changes[0]?.hooks?.filter(({ layer }) => layer === "nat").map(({ hook }) => hook);
    };
    const translated = { pools: [pool("10.1.0.0/16")] };
    assert.deepEqual(hooksAfter({}), []);
    assert.deepEqual(hooksAfter(translated), ["PREROUTING", "OUTPUT", "POSTROUTING"]);
    assert.equal(hooksAfter({ pools: [pool("10.1.0.0/16", { natOutgoing: false })] }), undefined);
  });
});
