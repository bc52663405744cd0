import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { worldOf } from "../policy/world.testing.ts";
import { pass, travelling } from "./packetPath.testing.ts";
import {
  annotated,
  HOST,
  object,
  OUT,
  packetOf,
  PODS,
  policy,
  rows,
  send,
  TO_OUTSIDE,
  X,
  Y,
} from "./packetTable.testing.ts";
import { factsOf, nodeOf, type GivenFacts } from "./ruleWorld.testing.ts";

rows("a workload", {}, [
  { name: "sends", way: `by ${X} out eth0`, packet: `10.1.0.1#1 > ${OUT}#80 TCP`, fate: "accept" },
  { name: "takes", way: `by eth0 out ${X}`, packet: `${OUT}#1 > 10.1.0.1#80 TCP`, fate: "accept" },
  {
    name: "sends from another's address: not the way back",
    way: `by ${X} out eth0`,
    packet: `10.1.0.2#1 > ${OUT}#80 TCP`,
    given: { wrongWay: true },
    fate: "drop",
  },
  {
    name: "is not known yet: nothing comes from it",
    way: "by cali0 out eth0",
    packet: `10.1.0.7#1 > ${OUT}#80 TCP`,
    fate: "drop",
  },
  { name: "… to the node neither", way: "by cali0 to here", packet: "10.1.0.7#1 > 192.0.2.1#80 TCP", fate: "drop" },
  { name: "… and nothing to it", way: "by eth0 out cali0", packet: `${OUT}#1 > 10.1.0.7#80 TCP`, fate: "drop" },
  {
    name: "… not even of a connection that was",
    way: "by cali0 out eth0",
    packet: `10.1.0.7#1 > ${OUT}#80 TCP`,
    given: { state: "established" },
    fate: "drop",
  },
  {
    name: "gets what belongs to no connection: dropped",
    way: `by eth0 out ${X}`,
    packet: `${OUT}#1 > 10.1.0.1#80 TCP`,
    given: { state: "invalid" },
    fate: "drop",
  },
  {
    name: "… unless settings say that this is not looked at",
    facts: { settings: { disableConntrackInvalidCheck: true } },
    way: `by eth0 out ${X}`,
    packet: `${OUT}#1 > 10.1.0.1#80 TCP`,
    given: { state: "invalid" },
    fate: "accept",
  },
  {
    name: "is reached by its node whatever policy says",
    objects: [policy("{selector: all(), ingress: [{action: Deny}]}")],
    way: `from here out ${X}`,
    packet: "192.0.2.1#1 > 10.1.0.1#80 TCP",
    fate: "accept",
  },
  {
    name: "answers what it was asked",
    objects: [policy("{selector: all(), types: [Egress]}")],
    way: `by ${X} out eth0`,
    packet: `10.1.0.1#80 > ${OUT}#1 TCP`,
    given: { state: "established" },
    fate: "accept",
  },
  {
    name: "is told, where settings say so, that it may not",
    objects: [policy("{selector: all(), types: [Egress]}")],
    facts: { renderer: { filterDenyAction: "Reject" } },
    way: `by ${X} out eth0`,
    packet: `10.1.0.1#80 > ${OUT}#1 TCP`,
    fate: "reject",
  },
  {
    name: "to its node, which rejects",
    facts: { settings: { defaultEndpointToHostAction: "Reject" } },
    way: `by ${X} to here`,
    packet: "10.1.0.1#1 > 192.0.2.1#80 TCP",
    fate: "reject",
  },
  {
    name: "to its node, which accepts",
    facts: { settings: { defaultEndpointToHostAction: "Accept" } },
    way: `by ${X} to here`,
    packet: "10.1.0.1#1 > 192.0.2.1#80 TCP",
    fate: "accept",
  },
  ...(["Accept", "Return"] as const).map((action) => ({
    name: `… but with ${action} not what listens to the node itself`,
    facts: { settings: { defaultEndpointToHostAction: action } },
    way: `by ${X} to here`,
    packet: "10.1.0.1#1 > 127.0.0.1#80 TCP",
    fate: "drop",
  })),
  {
    name: "… unless it answers the node",
    facts: { settings: { defaultEndpointToHostAction: "Accept" } },
    way: `by ${X} to here`,
    packet: "10.1.0.1#80 > 127.0.0.1#1 TCP",
    given: { state: "established" },
    fate: "accept",
  },
  {
    name: "with another prefix of interfaces is policed too",
    facts: { settings: { interfacePrefix: ["tap", "cali"] } },
    way: "by tap1 out eth0",
    packet: `10.1.0.7#1 > ${OUT}#80 TCP`,
    fate: "drop",
  },
]);

const SPOOFER = annotated("x", "10.1.0.1", "allowedSourcePrefixes", '["198.51.100.0/24"]');
rows("allowedSourcePrefixes", { objects: [SPOOFER] }, [
  {
    name: "count where settings allow them",
    facts: { settings: { workloadSourceSpoofing: "Any" } },
    way: `by ${X} out eth0`,
    packet: `198.51.100.7#1 > ${OUT}#80 TCP`,
    given: { wrongWay: true },
    fate: "accept",
  },
  {
    name: "do not count where they do not",
    way: `by ${X} out eth0`,
    packet: `198.51.100.7#1 > ${OUT}#80 TCP`,
    given: { wrongWay: true },
    fate: "drop",
  },
  {
    name: "are for no other address",
    facts: { settings: { workloadSourceSpoofing: "Any" } },
    way: `by ${X} out eth0`,
    packet: `198.51.101.7#1 > ${OUT}#80 TCP`,
    given: { wrongWay: true },
    fate: "drop",
  },
  {
    name: "are for no other workload",
    facts: { settings: { workloadSourceSpoofing: "Any" } },
    way: `by ${Y} out eth0`,
    packet: `198.51.100.7#1 > ${OUT}#80 TCP`,
    given: { wrongWay: true },
    fate: "drop",
  },
]);

const TUNNELS: GivenFacts = {
  hosts: ["192.0.2.1", "192.0.2.2"],
  vxlanHosts: ["192.0.2.1", "192.0.2.2"],
  tunnels: [
    { kind: "ipip", family: 4, device: "tunl0", addresses: ["10.1.0.0"] },
    { kind: "vxlan", family: 4, device: "vxlan.calico", addresses: ["10.1.0.0"] },
    { kind: "wireguard", family: 4, device: "wireguard.cali", addresses: [], port: 51820 },
  ],
};
rows("tunnels", { objects: [HOST], facts: TUNNELS }, [
  {
    name: "IPIP from a node, past the host endpoint",
    way: "by eth0 to here",
    packet: "192.0.2.2 > 192.0.2.1 4",
    fate: "accept",
  },
  { name: "IPIP from anybody else", way: "by eth1 to here", packet: `${OUT} > 192.0.2.1 4`, fate: "drop" },
  {
    name: "VXLAN from a node: no connection",
    way: "by eth0 to here",
    packet: "192.0.2.2#7 > 192.0.2.1#4789 UDP",
    fate: "accept untracked",
  },
  { name: "VXLAN from anybody else", way: "by eth1 to here", packet: `${OUT}#7 > 192.0.2.1#4789 UDP`, fate: "drop" },
  {
    name: "VXLAN where there is no such tunnel: any port",
    facts: {},
    way: "by eth1 to here",
    packet: `${OUT}#7 > 192.0.2.1#4789 UDP`,
    fate: "accept",
  },
  { name: "WireGuard from anybody", way: "by eth0 to here", packet: `${OUT}#7 > 192.0.2.1#51820 UDP`, fate: "accept" },
  { name: "IPIP to a node", way: "from here out eth0", packet: "192.0.2.1 > 192.0.2.2 4", fate: "accept" },
  {
    name: "IPIP to anybody else meets policy",
    way: "from here out eth0",
    packet: `192.0.2.1 > ${OUT} 4`,
    fate: "drop",
  },
  {
    name: "VXLAN to a node",
    way: "from here out eth0",
    packet: "192.0.2.1#7 > 192.0.2.2#4789 UDP",
    fate: "accept untracked",
  },
  { name: "IPIP of a workload", way: `by ${X} out eth0`, packet: "10.1.0.1 > 192.0.2.2 4", fate: "drop" },
  { name: "VXLAN of a workload", way: `by ${X} out eth0`, packet: "10.1.0.1#7 > 192.0.2.2#4789 UDP", fate: "drop" },
  {
    name: "VXLAN of a workload that may",
    facts: { settings: { allowVXLANPacketsFromWorkloads: true } },
    way: `by ${X} out eth0`,
    packet: "10.1.0.1#7 > 192.0.2.2#4789 UDP",
    fate: "accept",
  },
  {
    name: "the node's own into a tunnel have the tunnel's address",
    way: "from here out tunl0",
    packet: "192.0.2.1#1 > 10.1.9.9#80 TCP",
    fate: "accept from masquerade",
  },
  {
    name: "… and with VXLAN not its port",
    way: "from here out vxlan.calico",
    packet: "192.0.2.1#1 > 10.1.9.9#53 UDP",
    fate: "accept from masquerade:4790-65535",
  },
  { name: "… unless they have it", way: "from here out tunl0", packet: "10.1.0.0#1 > 10.1.9.9#80 TCP", fate: "accept" },
  {
    name: "a workload's keep theirs",
    way: `by ${X} out tunl0`,
    packet: "10.1.0.1#1 > 10.1.9.9#80 TCP",
    fate: "accept",
  },
]);

const SERVICES = ["10.96.0.0/12", "fd00:96::/108"];
rows("an address of a service that nobody translates", { facts: { serviceCidrs: SERVICES } }, [
  {
    name: "is not sent back to where it came from",
    way: "by eth0 out eth0",
    packet: `${OUT}#1 > 10.96.0.1#80 TCP`,
    fate: "drop",
  },
  { name: "IPv6 neither", way: "by eth0 out eth0", packet: "2001:db8::9#1 > fd00:96::1#80 TCP", fate: "drop" },
  {
    name: "is rejected",
    facts: { serviceCidrs: SERVICES, settings: { serviceLoopPrevention: "Reject" } },
    way: "by eth0 out eth0",
    packet: `${OUT}#1 > 10.96.0.1#80 TCP`,
    fate: "reject",
  },
  {
    name: "goes on where settings say so",
    facts: { serviceCidrs: SERVICES, settings: { serviceLoopPrevention: "Disabled" } },
    way: "by eth0 out eth0",
    packet: `${OUT}#1 > 10.96.0.1#80 TCP`,
    fate: "accept",
  },
]);

describe("who listens", () => {
  const listened = (objects: string[], packet: string, facts: GivenFacts = {}): readonly string[] =>
    send({ name: "", objects, facts: { nflog: true, ...facts }, way: `by ${X} out ${Y}`, packet, fate: "" }).noted;
  const TCP = "10.1.0.1#1 > 10.1.0.2#80 TCP";

  test("hears of each rule, and counts it", () => {
    const log = policy(
      "{selector: app == 'y', ingress: [{action: Log}, {action: Allow, protocol: UDP}, {action: Pass, protocol: TCP}]}",
    );
    assert.deepEqual(listened([log], TCP, { settings: { logPrefix: "%k/%p of %t" } }), [
      "pro/kns.a egress 0",
      "nflog ARE0|kns.a",
      "gnp/p ingress 0",
      "log gnp/p of default: ",
      "gnp/p ingress 2",
      "nflog PPI2|gnp/p",
      "pro/kns.a ingress 0",
      "nflog ARI0|kns.a",
    ]);
  });

  test("hears of ends of tiers, and of profiles that say nothing", () => {
    const udp = (action: string, tier = ""): string =>
      policy(`{${tier} selector: app == 'y', ingress: [{action: ${action}, protocol: UDP}]}`, action.toLowerCase());
    const lenient = object("Tier", "lenient", "{order: 1, defaultAction: Pass}");
    const quiet = "pod a/y 10.1.0.2 app=y sa=nobody";
    assert.deepEqual(listened([lenient, udp("Deny", "tier: lenient,"), udp("Allow")], TCP).slice(2), [
      "tier/lenient ingress end",
      "nflog PPI|lenient",
      "tier/default ingress end",
      "nflog DPI|default",
    ]);
    const kept = [
      object("Profile", "kns.a", "{egress: [{action: Allow}]}"),
      object("Profile", "ksa.a.nobody", "{}"),
      quiet,
    ];
    assert.deepEqual(listened(kept, TCP).slice(2), ["profiles ingress end", "nflog DRI"]);
  });

  test("hears of long names by their beginning, a hash and their end, 63 characters in all", () => {
    const of = (name: string): string =>
      listened([policy("{selector: app == 'y', ingress: [{action: Deny}]}", name)], TCP).at(-1) ?? "";
    assert.equal(of("n".repeat(53)), `nflog DPI0|gnp/${"n".repeat(53)}`);
    const long = of("n".repeat(54));
    assert.match(long, /^nflog DPI0\|gnp\/n_[\w-]{41}_n{10}$/);
    assert.equal(long.length, "nflog ".length + 63);
    assert.notEqual(of("n".repeat(55)), long);
  });

  test("hears nothing where nobody listens", () => {
    assert.deepEqual(listened([], TCP, { nflog: false }), ["pro/kns.a egress 0", "pro/kns.a ingress 0"]);
  });
});

rows("a workload without an address of the packet's family", { objects: ["pod a/y 10.1.0.2 app=y"] }, [
  { name: "sends nothing out", way: `by ${Y} out eth0`, packet: "fe80::2#1 > 2001:db8:9::9#80 TCP", fate: "drop" },
  { name: "nor to its node", way: `by ${Y} to here`, packet: "fe80::2#1 > fe80::1#80 TCP", fate: "drop" },
  { name: "but neighbour discovery", way: `by ${Y} to here`, packet: "fe80::2 > fe80::1 ICMP 135/0", fate: "accept" },
  { name: "gets nothing", way: `by ${X} out ${Y}`, packet: "2001:db8:1::1#1 > 2001:db8:1::2#80 TCP", fate: "drop" },
  { name: "but from its node", way: `from here out ${Y}`, packet: "fe80::1#1 > fe80::2#80 TCP", fate: "accept" },
  {
    name: "goes on with the other family",
    way: `by ${Y} out eth0`,
    packet: `10.1.0.2#1 > ${OUT}#80 TCP`,
    fate: "accept",
  },
]);

describe("settings that cannot be carried out", () => {
  const wrong: { name: string; facts: GivenFacts; code: string; message: RegExp }[] = [
    {
      name: "too few bits of the mark",
      facts: { renderer: { markMask: 0xf0000 } },
      code: "too-few-mark-bits",
      message: /0xf0000 has 4 bits, and the rules need 5/,
    },
    {
      name: "no rate",
      facts: { settings: { logActionRateLimit: "often" } },
      code: "bad-setting",
      message: /"often" is not/,
    },
    { name: "no ports", facts: { settings: { natPortRange: "9:5" } }, code: "bad-setting", message: /"9:5" is not/ },
  ];
  for (const { name, facts, code, message } of wrong) {
    test(name, () => assert.throws(() => nodeOf(worldOf([]), "node1", factsOf(facts)), { code, message }));
  }

  test("any five bits will do, the lowest first", () => {
    const { rulesets } = nodeOf(worldOf([...PODS, HOST]), "node1", factsOf({ renderer: { markMask: 0x80000f0e } }));
    const one = travelling(packetOf(TO_OUTSIDE.packet), { in: X, out: "eth0", mark: 0x7000_00f1 });
    const fate = pass(rulesets[4], ["PREROUTING", "FORWARD", "POSTROUTING"], one, { local: [], isReversePath: true });
    assert.deepEqual([fate, one.mark & ~0xf0e, one.mark & 0x2], ["accept", 0x7000_00f1, 2]);
  });
});
