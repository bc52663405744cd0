import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { PathAttributes } from "../bgp/attributes.ts";
import { applyOperations, compileFilter, type FilterRules } from "../bgp/filters.ts";
import { wordsOfPrefix } from "../bgp/nlri.ts";
import { parseAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { configuration, filter, machine, NO_SERVICES, peer, pool } from "./bgp.testing.ts";
import {
  directNetworks,
  importFilter,
  kernelRefusal,
  localPrefOf,
  matchesPattern,
  priorityOf,
  userRules,
  type FilterContext,
  type NodeInterface,
} from "./bgpFilters.ts";
import { planBgp, type BgpInput, type BgpPlan } from "./bgpPlan.ts";

const PLAIN: PathAttributes = { origin: "igp", asPath: [] };
const INTERFACES: readonly NodeInterface[] = [
  { name: "eth0", networks: [parsePrefix("192.0.2.0/26"), parsePrefix("2001:db8::/64")] },
  { name: "eth1", networks: [parsePrefix("198.51.100.0/24")] },
  { name: "cali1234", networks: [parsePrefix("169.254.1.179/32")] },
];

function judge(
  rules: FilterRules | undefined,
  text: string,
  attributes: PathAttributes = PLAIN,
  source: "local" | "peers" = "peers",
  type: "iBGP" | "eBGP" = "iBGP",
) {
  const prefix = parsePrefix(text);
  const { family } = prefix.address;
  const { w0, w1, w2, w3, length } = wordsOfPrefix(prefix);
  const compiled = compileFilter(rules ?? { rules: [], otherwise: "reject" }, family, type);
  return compiled.evaluate(w0, w1, w2, w3, length, attributes, source);
}

describe("a rule of a BGPFilter", () => {
  const context: FilterContext = { interfaces: INTERFACES, priorities: { 4: 1024, 6: 1024 } };
  /** Whether the rule, which rejects, holds of the route. */
  function holds(
    rule: object,
    text: string,
    attributes?: PathAttributes,
    source?: "local" | "peers",
    type?: "iBGP" | "eBGP",
  ) {
    const field = text.includes(":") ? "importV6" : "importV4";
    const made = filter("f", { [field]: [{ action: "Reject", ...rule }] });
    return !judge(importFilter(userRules([made], "import", context)), text, attributes, source, type).accept;
  }

  const cidr = "10.0.0.0/8";
  const rows: { rule: object; of: Record<string, boolean> }[] = [
    { rule: {}, of: { "10.0.0.0/8": true, "192.0.2.0/24": true, "2001:db8::/32": true } },
    { rule: { cidr, matchOperator: "Equal" }, of: { "10.0.0.0/8": true, "10.1.0.0/16": false, "11.0.0.0/8": false } },
    { rule: { cidr, matchOperator: "NotEqual" }, of: { "10.0.0.0/8": false, "10.1.0.0/16": true, "11.0.0.0/8": true } },
    { rule: { cidr, matchOperator: "In" }, of: { "10.0.0.0/8": true, "10.1.0.0/16": true, "8.0.0.0/5": false } },
    { rule: { cidr, matchOperator: "NotIn" }, of: { "10.0.0.0/8": false, "10.1.0.0/16": false, "8.0.0.0/5": true } },
    {
      rule: { cidr, matchOperator: "In", prefixLength: { min: 16, max: 24 } },
      of: { "10.0.0.0/8": false, "10.1.0.0/16": true, "10.1.1.0/24": true, "10.1.1.0/26": false, "11.1.0.0/16": false },
    },
    {
      rule: { cidr, matchOperator: "In", prefixLength: { min: 24 } },
      of: { "10.1.0.0/16": false, "10.1.1.1/32": true },
    },
    {
      rule: { cidr, matchOperator: "In", prefixLength: { max: 16 } },
      of: { "10.1.0.0/16": true, "10.1.1.1/32": false },
    },
    {
      // The negation is of prefix and length together, as in BIRD.
      rule: { cidr, matchOperator: "NotIn", prefixLength: { min: 16, max: 24 } },
      of: { "10.1.0.0/16": false, "10.1.1.0/24": false, "10.0.0.0/8": true, "10.1.1.0/26": true, "11.1.0.0/16": true },
    },
    { rule: { cidr: "2001:db8::/32", matchOperator: "In" }, of: { "2001:db8:1::/48": true, "2001:db9::/32": false } },
  ];
  for (const { rule, of } of rows) {
    for (const [prefix, expected] of Object.entries(of)) {
      const isOfFamily = !("cidr" in rule) || String(rule.cidr).includes(":") === prefix.includes(":");
      if (!isOfFamily) continue;
      test(`${JSON.stringify(rule)} ${expected ? "holds" : "does not hold"} of ${prefix}`, () => {
        assert.equal(holds(rule, prefix), expected);
      });
    }
  }

  const route = "10.1.0.0/16";
  const path = (...asns: number[]): PathAttributes => ({ ...PLAIN, asPath: [{ type: "sequence", asns }] });
  const by = (nextHop: string): PathAttributes => ({ ...PLAIN, nextHop: parseAddress(nextHop) });
  const large: PathAttributes = { ...PLAIN, largeCommunities: [{ global: 1, local1: 2, local2: 3 }] };
  const matching: {
    name: string;
    rule: object;
    holds: boolean;
    args: Parameters<typeof judge> extends [unknown, unknown, ...infer Rest] ? Rest : never;
  }[] = [
    { name: "routes of peers", rule: { source: "RemotePeers" }, holds: true, args: [PLAIN, "peers"] },
    { name: "routes of peers, not our own", rule: { source: "RemotePeers" }, holds: false, args: [PLAIN, "local"] },
    { name: "eBGP", rule: { peerType: "eBGP" }, holds: true, args: [PLAIN, "peers", "eBGP"] },
    { name: "eBGP, not iBGP", rule: { peerType: "eBGP" }, holds: false, args: [PLAIN, "peers", "iBGP"] },
    { name: "iBGP", rule: { peerType: "iBGP" }, holds: true, args: [PLAIN, "peers", "iBGP"] },
    {
      name: "a community",
      rule: { communities: { values: ["65000:100"] } },
      holds: true,
      args: [{ ...PLAIN, communities: [65000 * 65536 + 100] }],
    },
    {
      name: "a community that is not there",
      rule: { communities: { values: ["65000:100"] } },
      holds: false,
      args: [PLAIN],
    },
    { name: "a large community", rule: { communities: { values: ["1:2:3"] } }, holds: true, args: [large] },
    { name: "another large community", rule: { communities: { values: ["1:2:4"] } }, holds: false, args: [large] },
    {
      name: "the beginning of the path",
      rule: { asPathPrefix: [65001, 65002] },
      holds: true,
      args: [path(65001, 65002, 65003)],
    },
    { name: "another beginning", rule: { asPathPrefix: [65002] }, holds: false, args: [path(65001, 65002)] },
    { name: "a priority", rule: { priority: 512 }, holds: true, args: [{ ...PLAIN, localPref: 2147483647 - 512 }] },
    {
      name: "another priority",
      rule: { priority: 512 },
      holds: false,
      args: [{ ...PLAIN, localPref: 2147483647 - 1024 }],
    },
    { name: "the usual priority, of a route without one", rule: { priority: 1024 }, holds: true, args: [PLAIN] },
    { name: "an interface, by the next hop", rule: { interface: "eth0" }, holds: true, args: [by("192.0.2.9")] },
    { name: "an interface, by an IPv6 next hop", rule: { interface: "eth*" }, holds: true, args: [by("2001:db8::9")] },
    { name: "another interface", rule: { interface: "eth1" }, holds: false, args: [by("192.0.2.9")] },
    { name: "an interface that is not there", rule: { interface: "wlan*" }, holds: false, args: [by("192.0.2.9")] },
  ];
  for (const { name, rule, holds: expected, args } of matching) {
    test(`matches ${name}`, () => assert.equal(holds(rule, route, ...args), expected));
  }

  test("matches this node's own networks by the interface that has them", () => {
    assert.equal(holds({ interface: "eth1" }, "198.51.100.0/24", PLAIN, "local"), true);
    assert.equal(holds({ interface: "eth0" }, "198.51.100.0/24", PLAIN, "local"), false);
    const both = { interface: "eth*", cidr: "192.0.2.0/24", matchOperator: "In" };
    assert.equal(holds(both, "192.0.2.0/26", PLAIN, "local"), true);
    assert.equal(holds(both, "198.51.100.0/24", PLAIN, "local"), false);
    assert.equal(holds({ ...both, source: "RemotePeers" }, "192.0.2.0/26", PLAIN, "local"), false);
  });

  test("does what it says, in its order; and the first that holds decides", () => {
    const made = filter("f", {
      exportV4: [
        { action: "Reject", cidr: "10.2.0.0/16", matchOperator: "In" },
        {
          action: "Accept",
          operations: [
            { addCommunity: { value: "65000:7" } },
            { addCommunity: { value: "1:2:3" } },
            { prependASPath: { prefix: [65001, 65002] } },
            { setPriority: { value: 256 } },
          ],
        },
        { action: "Reject" },
      ],
    });
    const rules: FilterRules = { rules: userRules([made], "export", context), otherwise: "reject" };
    const refused = judge(rules, "10.2.1.0/24");
    assert.deepEqual([refused.accept, refused.rule], [false, "BGPFilter f exportV4[0]"]);
    const accepted = judge(rules, "10.3.0.0/16");
    assert.deepEqual(applyOperations(path(65003), accepted.operations), {
      origin: "igp",
      asPath: [{ type: "sequence", asns: [65001, 65002, 65003] }],
      communities: [65000 * 65536 + 7],
      largeCommunities: [{ global: 1, local1: 2, local2: 3 }],
      localPref: 2147483647 - 256,
    });
    assert.equal(judge(rules, "2001:db8::/32").accept, false, "IPv4 rules say nothing of IPv6");
  });
});

describe("Calico's order of export", () => {
  const base: BgpInput = {
    nodeName: "node1",
    nodes: [machine("node1", { ipv4: { address: parseAddress("192.0.2.11"), length: 26 } })],
    configurations: [],
    peers: [peer("tor", { peerIP: "192.0.2.1", asNumber: 65100 })],
    filters: [],
    pools: [pool("10.244.0.0/16"), pool("10.250.0.0/16", { disableBGPExport: true })],
    blocks: ["10.244.9.0/26", "10.250.9.0/26", "172.20.0.0/26"].map(parsePrefix),
    borrowed: [parsePrefix("10.244.77.1/32")],
    services: { ...NO_SERVICES, announced: [parsePrefix("10.96.0.0/12")], external: [parsePrefix("203.0.113.0/24")] },
    interfaces: INTERFACES,
    kernelRoutes: [],
    workloadPrefixes: ["cali"],
    workloads: [],
    secret: () => undefined,
    tunnels: new Set(),
  };
  const made = (input: Partial<BgpInput> = {}): BgpPlan => planBgp({ ...base, ...input })!;
  const verdict = (
    input: Partial<BgpInput>,
    ...args: Parameters<typeof judge> extends [unknown, ...infer Rest] ? Rest : never
  ) => judge(made(input).peers[0]?.exportFilter, ...args);

  const better = { ...PLAIN, localPref: 2147483647 - 512 };
  const usual = { ...PLAIN, localPref: 2147483647 - 1024 };
  const rows: {
    name: string;
    route: string;
    of?: "local" | "peers";
    attributes?: PathAttributes;
    accept: boolean;
    rule: RegExp;
  }[] = [
    { name: "a block of its own", route: "10.244.9.0/26", of: "local", accept: true, rule: /^a block of this node$/ },
    { name: "a block outside every pool", route: "172.20.0.0/26", of: "local", accept: true, rule: /^a block/ },
    { name: "a block of a silent pool", route: "10.250.9.0/26", of: "local", accept: false, rule: /disableBGPExport/ },
    { name: "a pod of a silent pool", route: "10.250.77.1/32", of: "local", accept: false, rule: /disableBGPExport/ },
    { name: "a pod in a block of its own", route: "10.244.9.1/32", accept: false, rule: /inside a block/ },
    {
      name: "the same with the usual priority",
      route: "10.244.9.1/32",
      attributes: usual,
      accept: false,
      rule: /inside a block/,
    },
    {
      name: "the same with a better priority",
      route: "10.244.9.1/32",
      attributes: better,
      accept: true,
      rule: /better priority/,
    },
    { name: "a borrowed address", route: "10.244.77.1/32", of: "local", accept: true, rule: /exported pool/ },
    { name: "another node's block", route: "10.244.7.0/26", accept: true, rule: /exported pool/ },
    { name: "a service range", route: "10.96.0.0/12", of: "local", accept: true, rule: /service range/ },
    { name: "an address of a service, of another node", route: "10.96.0.7/32", accept: false, rule: /tells it itself/ },
    { name: "a range for route reflectors", route: "203.0.113.7/32", accept: false, rule: /no rule accepts/ },
    { name: "its own network", route: "192.0.2.0/26", of: "local", accept: false, rule: /no rule accepts/ },
    { name: "the default route of a peer", route: "0.0.0.0/0", accept: false, rule: /no rule accepts/ },
  ];
  for (const { name, route, of = "peers", attributes = PLAIN, accept, rule } of rows) {
    test(`${name}: ${accept ? "told" : "not told"}`, () => {
      const found = verdict({}, route, attributes, of, "eBGP");
      assert.equal(found.accept, accept);
      assert.match(found.rule, rule);
    });
  }

  test("a route reflector passes on ranges from outside", () => {
    const nodes = [
      machine("node1", {
        ipv4: { address: parseAddress("192.0.2.11"), length: 26 },
        routeReflectorClusterId: "1.0.0.1",
      }),
    ];
    assert.equal(verdict({ nodes }, "203.0.113.7/32").accept, true);
    assert.equal(verdict({ nodes }, "10.96.0.7/32").accept, true);
    assert.equal(verdict({}, "10.96.0.7/32", PLAIN, "peers", "iBGP").accept, true, "in iBGP only what reflects asks");
  });

  test("a peer's filters come first: they may let out what would stay, and hold back what would go", () => {
    const filters = [
      filter("first", {
        exportV4: [
          { action: "Accept", cidr: "192.0.2.0/26", matchOperator: "Equal" },
          { action: "Reject", cidr: "10.244.9.0/26", matchOperator: "Equal" },
        ],
      }),
      filter("second", {
        exportV4: [{ action: "Accept" }],
        importV4: [{ action: "Reject", cidr: "0.0.0.0/0", matchOperator: "Equal" }],
      }),
    ];
    const peers = (...names: string[]) => [peer("tor", { peerIP: "192.0.2.1", asNumber: 65100, filters: names })];
    const input = { filters, peers: peers("first") };
    assert.equal(verdict(input, "192.0.2.0/26", PLAIN, "local").rule, "BGPFilter first exportV4[0]");
    assert.equal(verdict(input, "10.244.9.0/26", PLAIN, "local").accept, false);
    assert.equal(verdict(input, "172.20.0.0/26", PLAIN, "local").accept, true);
    const both = { filters, peers: peers("first", "second") };
    assert.equal(verdict(both, "10.244.9.0/26", PLAIN, "local").accept, false, "the order is the peer's");
    assert.equal(verdict(both, "198.18.0.0/15").accept, true);
    const [only] = made(both).peers;
    assert.equal(judge(only?.importFilter, "0.0.0.0/0").accept, false);
    assert.equal(judge(only?.importFilter, "172.16.0.0/12").accept, true, "what no filter refuses is believed");
  });

  test("communities are added to what is advertised, by name or number; the node's own before the general ones", () => {
    const general = configuration("default", {
      communities: [{ name: "rack", value: "65000:100" }],
      prefixAdvertisements: [
        { cidr: "10.244.0.0/16", communities: ["rack", "65000:200:300"] },
        { cidr: "10.244.9.0/24", communities: ["65000:9"] },
      ],
    });
    const own = configuration("node.node1", {
      prefixAdvertisements: [{ cidr: "10.244.0.0/16", communities: ["1:1"] }],
    });
    const told = (configurations: BgpInput["configurations"], text: string): PathAttributes =>
      applyOperations(PLAIN, verdict({ configurations }, text, PLAIN, "local").operations);
    assert.deepEqual(told([general], "10.244.9.0/26"), {
      ...PLAIN,
      communities: [65000 * 65536 + 100, 65000 * 65536 + 9],
      largeCommunities: [{ global: 65000, local1: 200, local2: 300 }],
    });
    assert.deepEqual(told([general], "10.244.77.1/32").communities, [65000 * 65536 + 100]);
    assert.deepEqual(told([general], "172.20.0.0/26"), PLAIN);
    assert.deepEqual(told([general, own], "10.244.9.0/26").communities, [65537]);
  });

  test("what it originates: blocks, borrowed addresses, services and its networks, with the usual priority", () => {
    assert.deepEqual(
      made().origination.map(({ prefix, attributes }) => `${formatPrefix(prefix)} ${attributes?.localPref}`),
      [
        "10.244.9.0/26",
        "10.250.9.0/26",
        "172.20.0.0/26",
        "10.244.77.1/32",
        "10.96.0.0/12",
        "192.0.2.0/26",
        "2001:db8::/64",
        "198.51.100.0/24",
      ].map((text) => `${text} 2147482623`),
    );
    const configurations = [configuration("default", { ignoredInterfaces: ["eth1"], ipv4NormalRoutePriority: 2000 })];
    const texts = made({ configurations }).origination.map(
      ({ prefix, attributes }) => `${formatPrefix(prefix)} ${attributes?.localPref}`,
    );
    assert.ok(!texts.some((text) => text.startsWith("198.51.100.0/24")));
    assert.ok(texts.includes(`10.244.9.0/26 ${2147483647 - 2000}`));
  });

  test("peers with the same filters share their rules", () => {
    const filters = [filter("f", { exportV4: [{ action: "Reject" }] })];
    const one = (last: number, ...names: string[]) =>
      peer(`p${last}`, { peerIP: `192.0.2.${last}`, asNumber: 65100, filters: names });
    const { peers } = made({ filters, peers: [one(1), one(2), one(3, "f"), one(4, "f")] });
    assert.equal(peers[0]?.exportFilter, peers[1]?.exportFilter);
    assert.equal(peers[2]?.exportFilter, peers[3]?.exportFilter);
    assert.notEqual(peers[0]?.exportFilter, peers[2]?.exportFilter);
  });

  describe("what goes into the kernel", () => {
    const pools = [
      pool("10.1.0.0/16"),
      pool("10.2.0.0/16", { ipipMode: "Always" }),
      pool("10.3.0.0/16", { vxlanMode: "CrossSubnet" }),
    ];
    const services = { ...NO_SERVICES, ranges: [parsePrefix("10.96.0.0/12")] };
    const refused = (program: string | undefined, tunnels: BgpInput["tunnels"]): string[] => {
      const configurations = program === undefined ? [] : [configuration("default", { programClusterRoutes: program })];
      const { kernel } = made({ pools, services, configurations, tunnels });
      return ["10.1.9.0/26", "10.2.9.0/26", "10.3.9.0/26", "10.97.0.0/16", "10.0.0.0/8", "172.16.0.0/12"].filter(
        (text) => kernelRefusal(kernel, parsePrefix(text)) !== undefined,
      );
    };
    const all = new Set(["ipip", "vxlan"] as const);
    const cases: { program: string | undefined; tunnels: BgpInput["tunnels"]; refused: string[] }[] = [
      { program: undefined, tunnels: new Set(), refused: ["10.97.0.0/16"] },
      { program: undefined, tunnels: all, refused: ["10.2.9.0/26", "10.3.9.0/26", "10.97.0.0/16"] },
      { program: "Enabled", tunnels: all, refused: ["10.3.9.0/26", "10.97.0.0/16"] },
      { program: "EnabledIPIPOnly", tunnels: all, refused: ["10.1.9.0/26", "10.3.9.0/26", "10.97.0.0/16"] },
      { program: "Disabled", tunnels: all, refused: ["10.1.9.0/26", "10.2.9.0/26", "10.3.9.0/26", "10.97.0.0/16"] },
      { program: "Disabled", tunnels: new Set(), refused: ["10.1.9.0/26", "10.97.0.0/16"] },
    ];
    for (const { program, tunnels, refused: expected } of cases) {
      test(`programClusterRoutes ${program}, tunnels: ${[...tunnels].join(" and ") || "none"}`, () => {
        assert.deepEqual(refused(program, tunnels), expected);
      });
    }
  });
});

describe("priorities", () => {
  test("go over the wire as LOCAL_PREF and come back", () => {
    for (const priority of [1, 512, 1024, 2000]) assert.equal(priorityOf(localPrefOf(priority), 7), priority);
    assert.equal(priorityOf(undefined, 1024), 1024);
    assert.equal(priorityOf(100, 1024), 1024, "another router's preference is no priority");
    assert.equal(priorityOf(2 ** 31 - 1, 1024), 1, "the kernel's 0 is IPv6's 1024");
    assert.equal(priorityOf(2 ** 32 - 1, 1024), 1);
  });
});

describe("interfaces", () => {
  test("patterns", () => {
    assert.ok(matchesPattern("eth*", "eth0"));
    assert.ok(matchesPattern("*.cali", "bpfin.cali"));
    assert.ok(!matchesPattern("*.cali", "bpfinxcali"));
    assert.ok(!matchesPattern("eth", "eth0"));
    assert.ok(matchesPattern("*", "lo"));
  });
  test("of pods, of kube-proxy and ignored ones are left out", () => {
    const named = (name: string): NodeInterface => ({ name, networks: [] });
    const kept = directNetworks(["eth0", "cali1", "kube-ipvs0", "docker0", "lo"].map(named), ["docker*"], ["cali"]);
    assert.deepEqual(
      kept.map(({ name }) => name),
      ["eth0", "lo"],
    );
  });
});
