import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { felixSettings } from "../resources/config.ts";
import { KIND, type Kinds } from "../resources/registry.ts";
import { nodeFacts, soundFacts, type FactSources } from "./nodeFacts.ts";

const node = (name: string, annotations: Record<string, string>, internal?: string): Kinds["Node"] =>
  KIND.Node.parse({
    apiVersion: "v1",
    kind: "Node",
    metadata: { name, annotations },
    spec: {},
    ...(internal === undefined ? {} : { status: { addresses: [{ type: "InternalIP", address: internal }] } }),
  });
const pool = (name: string, spec: Record<string, unknown>): Kinds["IPPool"] =>
  KIND.IPPool.parse({ apiVersion: "projectcalico.org/v3", kind: "IPPool", metadata: { name }, spec });
const SOURCES: FactSources = {
  nodeName: "n1",
  settings: felixSettings({ environment: { externalNodesList: ["203.0.113.0/24"], nftablesMarkMask: 0xff000000 } }),
  renderer: "nft",
  nodes: [
    node("n1", {
      "projectcalico.org/IPv4Address": "192.0.2.1/24",
      "projectcalico.org/IPv6Address": "2001:db8::1/64",
      "projectcalico.org/IPv4IPIPTunnelAddr": "10.1.0.1",
      "projectcalico.org/IPv6VXLANTunnelAddr": "fd00::1",
    }),
    node("n2", {}, "192.0.2.2"),
  ],
  pools: [
    pool("b", { cidr: "10.1.0.0/16", ipipMode: "Always", natOutgoing: true }),
    pool("a", { cidr: "10.0.0.0/16", disabled: true, allowedUses: ["LoadBalancer"] }),
  ],
  bgp: KIND.BGPConfiguration.parse({
    apiVersion: "projectcalico.org/v3",
    kind: "BGPConfiguration",
    metadata: { name: "default" },
    spec: { serviceClusterIPs: [{ cidr: "10.96.0.0/12" }], serviceLoadBalancerIPs: [{ cidr: "198.51.100.0/24" }] },
  }),
};

describe("what the rules of a node depend on", () => {
  test("comes from settings, nodes, pools and what is announced", () => {
    const { settings: _, ...facts } = nodeFacts(SOURCES);
    assert.deepEqual(facts, {
      renderer: {
        markMask: 0xff000000,
        filterAllowAction: "Accept",
        filterDenyAction: "Drop",
        mangleAllowAction: "Accept",
        sharesHooks: false,
      },
      tunnels: [{ kind: "ipip", family: 4, device: "tunl0", addresses: ["10.1.0.1"] }],
      hosts: ["192.0.2.1", "192.0.2.2", "2001:db8::1", "203.0.113.0/24"],
      vxlanHosts: [],
      pools: [
        { cidr: "10.0.0.0/16", natOutgoing: false, disabled: true, isLoadBalancer: true },
        { cidr: "10.1.0.0/16", natOutgoing: true, disabled: false, isLoadBalancer: false },
      ],
      serviceCidrs: ["10.96.0.0/12", "198.51.100.0/24"],
      nflog: false,
    });
  });

  test("follows the pools' encapsulation, and the renderer's own settings", () => {
    const six = pool("six", { cidr: "fd00::/64", vxlanMode: "Always" });
    const { tunnels, vxlanHosts, renderer } = nodeFacts({ ...SOURCES, pools: [six], renderer: "iptables" });
    assert.deepEqual(tunnels, [{ kind: "vxlan", family: 6, device: "vxlan-v6.calico", addresses: ["fd00::1"] }]);
    assert.deepEqual(vxlanHosts, ["192.0.2.1", "192.0.2.2", "2001:db8::1", "203.0.113.0/24"]);
    assert.equal(renderer.markMask, 0xffff0000);
    const wireguard = felixSettings({ environment: { wireguardEnabled: true } });
    assert.deepEqual(nodeFacts({ ...SOURCES, pools: [], settings: wireguard }).tunnels, [
      { kind: "wireguard", family: 4, device: "wireguard.cali", addresses: [], port: 51820 },
    ]);
  });

  test("tells of packets where flow logs go anywhere", () => {
    const told = (environment: NonNullable<Parameters<typeof felixSettings>[0]["environment"]>): boolean =>
      nodeFacts({ ...SOURCES, settings: felixSettings({ environment }) }).nflog;
    const settings = [{}, { flowLogsLocalReporter: "Enabled" }, { flowLogsGoldmaneServer: "goldmane:7443" }] as const;
    assert.deepEqual(settings.map(told), [false, true, true]);
  });

  test("keeps the settings before where new ones make no rules, and from the start Felix's own; all else goes on", () => {
    const { nodes, renderer: _, ...sources } = SOURCES;
    const factsOf = soundFacts(({ nftablesMode }) => (nftablesMode === "Disabled" ? "iptables" : "nft"));
    const wrong = felixSettings({ environment: { nftablesMarkMask: 1, iptablesMarkMask: 1, logPrefix: "mine" } });
    const first = factsOf({ ...sources, nodes: [], settings: wrong });
    assert.equal(first.fault, "the mark mask 0x1 has 1 bits, and the rules need 5");
    assert.deepEqual([first.settings, first.facts.renderer.markMask], [felixSettings({}), 0xffff0000]);
    const good = factsOf({ ...sources, nodes: [] });
    assert.deepEqual([good.fault, good.facts.renderer.markMask], [undefined, 0xff000000]);
    const moved = { ...wrong, nftablesMode: "Disabled" } as const;
    const later = factsOf({ ...sources, nodes, settings: moved });
    assert.match(later.fault ?? "", /mark mask/);
    assert.deepEqual([later.settings, later.renderer, later.facts.hosts.length], [SOURCES.settings, "nft", 4]);
  });

  test("is known in part before the datastore is", () => {
    const { hosts, pools, serviceCidrs } = nodeFacts({ ...SOURCES, nodes: [], pools: [], bgp: undefined });
    assert.deepEqual([hosts, pools, serviceCidrs], [["203.0.113.0/24"], [], []]);
  });
});
