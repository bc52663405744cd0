import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { anyHistory, anyUpdate, NODES } from "../policy/anyWorld.testing.ts";
import { compiler } from "../policy/compile.ts";
import type { HostInterface, Update } from "../policy/model.ts";
import { updatesOf } from "../policy/world.testing.ts";
import { applyUpdate, emptyWorld } from "../policy/world.ts";
import type { NodeFacts } from "./nodeFacts.ts";
import type { Layer } from "./ruleset.ts";
import { printRuleset, type Ruleset } from "./ruleset.testing.ts";
import { factsOf, nodeOf, ruleNode, type GivenFacts, type RuleNode } from "./ruleWorld.testing.ts";

/** How many histories are tried: more for a long search (CARACAL_POLICY_RUNS=10000). */
const RUNS = Number(process.env["CARACAL_POLICY_RUNS"] ?? 60);

const INTERFACES: readonly HostInterface[] = [
  { name: "eth0", addresses: ["10.0.0.1"] },
  { name: "eth1", addresses: ["10.0.0.2", "2001:db8::1"] },
];
const [NODE = ""] = NODES;

const textOf = ({ rulesets }: RuleNode): string => printRuleset(rulesets[4]) + printRuleset(rulesets[6]);

/** Once addresses were translated, there are chains for it: connections are translated as they began. */
function forgetNat(ruleset: Ruleset, fresh: Ruleset): void {
  const isNat = ({ layer }: { readonly layer: Layer }): boolean => layer === "nat";
  if (fresh.hooks.some(isNat)) return;
  ruleset.hooks = ruleset.hooks.filter((hook) => !isNat(hook));
  for (const [key, chain] of ruleset.chains) if (isNat(chain)) ruleset.chains.delete(key);
}

const anyFacts: fc.Arbitrary<NodeFacts> = fc
  .record({
    nflog: fc.boolean(),
    hosts: fc.uniqueArray(fc.constantFrom("192.0.2.1", "192.0.2.2", "192.0.2.0/24", "2001:db8::9")),
    vxlanHosts: fc.uniqueArray(fc.constantFrom("192.0.2.1", "2001:db8::9")),
    serviceCidrs: fc.uniqueArray(fc.constantFrom("10.96.0.0/12", "fd00::/108")),
    pools: fc.uniqueArray(
      fc.record({
        cidr: fc.constantFrom("10.0.0.0/16", "10.1.0.0/16", "2001:db8::/64"),
        natOutgoing: fc.boolean(),
        disabled: fc.boolean(),
        isLoadBalancer: fc.boolean(),
      }),
      { selector: ({ cidr }) => cidr },
    ),
    tunnels: fc.constantFrom<NodeFacts["tunnels"]>(
      [],
      [{ kind: "vxlan", family: 4, device: "vxlan.calico", addresses: ["10.0.9.9"] }],
    ),
    settings: fc.record({
      interfacePrefix: fc.constantFrom(["wep"], ["wep", "eth"]),
      floatingIPs: fc.constantFrom("Enabled", "Disabled"),
      workloadSourceSpoofing: fc.constantFrom("Any", "Disabled"),
      defaultEndpointToHostAction: fc.constantFrom("Accept", "Return"),
      chainInsertMode: fc.constantFrom("Insert", "Append"),
      logPrefix: fc.constantFrom("p", "%t %k %p %n"),
    }),
    renderer: fc.record({ filterAllowAction: fc.constantFrom("Accept", "Return"), sharesHooks: fc.boolean() }),
  })
  .map((facts) => factsOf(facts as GivenFacts));

/** Some workloads have what only their own node knows. */
const withLocal = (update: Update, die: number): Update => {
  if (update.kind !== "endpoint" || update.value?.kind !== "workload" || die > 3) return update;
  const [internal] = update.value.nets.filter((net) => !net.includes(":"));
  const floatingIPs = internal === undefined ? [] : [{ internal, external: `198.51.100.${die % 2}` }];
  return { ...update, value: { ...update.value, local: { floatingIPs, allowedSourcePrefixes: [`10.${die}.0.0/16`] } } };
};

describe("the incremental builder", () => {
  test("ends where a fresh one ends, whatever came before and however it was taken", () => {
    const step = fc.oneof(
      { weight: 8, arbitrary: fc.tuple(anyUpdate, fc.nat(9)).map(([update, die]) => withLocal(update, die)) },
      { weight: 2, arbitrary: fc.constant("compile" as const) },
      { weight: 2, arbitrary: fc.constant("take" as const) },
      { weight: 1, arbitrary: anyFacts },
    );
    fc.assert(
      fc.property(anyHistory, fc.array(step, { maxLength: 40 }), anyFacts, (history, steps, lastFacts) => {
        const made = ruleNode();
        const policy = compiler(NODE);
        policy.setInterfaces(INTERFACES);
        const world = emptyWorld(lastFacts.settings);
        world.interfaces.set(NODE, INTERFACES);
        for (const next of [...history, ...steps, lastFacts, "compile", "take"] as const) {
          if (next === "compile") made.builder.update(policy.take());
          else if (next === "take") made.refresh();
          else if ("settings" in next) made.builder.setFacts(next);
          else {
            policy.update(next);
            applyUpdate(world, next);
          }
        }
        const fresh = nodeOf(world, NODE, lastFacts);
        for (const family of [4, 6] as const) forgetNat(made.rulesets[family], fresh.rulesets[family]);
        assert.equal(textOf(made), textOf(fresh));
      }),
      { numRuns: RUNS },
    );
  });

  test("says nothing before it knows the node, and then all at once", () => {
    const { builder } = ruleNode();
    builder.update({ endpoints: new Map(), policies: new Map(), profiles: new Map(), sets: [] });
    assert.deepEqual(builder.take(), []);
    builder.setFacts(factsOf());
    assert.deepEqual(
      builder.take().map(({ family, hooks, sets }) => [family, hooks?.length, sets.length]),
      [
        [4, 3, 4],
        [6, 3, 4],
      ],
    );
    builder.setFacts(factsOf());
    assert.deepEqual(builder.take(), []);
  });

  test("of a set that goes and comes again before anybody took it, makes changes that follow each other", () => {
    const made = ruleNode();
    const { builder, rulesets } = made;
    const nothing = { endpoints: new Map(), policies: new Map(), profiles: new Map() };
    const set = (state: "new" | "changed" | "gone", added: string[], removed: string[] = []) =>
      builder.update({ ...nothing, sets: [{ id: "s:x", kind: "net", state, added, removed }] });
    const members = (): string[] | undefined => {
      made.refresh();
      const found = rulesets[4].sets.get("s:x");
      return found && [...found.members].sort();
    };
    builder.setFacts(factsOf());
    set("new", ["10.0.0.1", "10.0.0.2"]);
    set("changed", ["10.0.0.3"], ["10.0.0.1"]);
    set("changed", ["10.0.0.1"], ["10.0.0.2"]);
    assert.deepEqual(members(), ["10.0.0.1", "10.0.0.3"]);
    set("gone", []);
    set("new", ["10.0.0.4"]);
    assert.equal(builder.take().length, 4);
    set("gone", []);
    set("new", ["10.0.0.5"]);
    set("gone", []);
    set("new", ["10.0.0.6"]);
    const changes = builder.take();
    assert.deepEqual(
      changes.filter(({ family }) => family === 4).map(({ sets }) => sets.map(({ state }) => state)),
      [["gone"], ["new"]],
    );
  });

  test("leaves out families that the node does not have", () => {
    const families = (given?: readonly (4 | 6)[]): number[] => {
      const { builder } = ruleNode(given);
      builder.setFacts(factsOf());
      return builder.take().map(({ family }) => family);
    };
    assert.deepEqual([families(), families([4])], [[4, 6], [4]]);
  });
});

describe("a workload has chains in the families that it has addresses of", () => {
  const pod = (ips: string): Update[] =>
    updatesOf(
      `{apiVersion: v1, kind: Pod, metadata: {name: one, namespace: a}, spec: {nodeName: node1, containers: [{name: c}]},
        status: {podIPs: [${ips}]}}`,
    );
  const ingress =
    "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a}, spec: {podSelector: {}}}";
  const V4 = "{ip: 10.1.0.1}";
  const V6 = '{ip: "2001:db8::1"}';

  /** The families in which there are chains of the pod and ways to them, and chains of its policy, after each step. */
  function familiesAfter(steps: readonly (readonly Update[] | GivenFacts)[]): string[] {
    const made = ruleNode();
    const policy = compiler(NODE);
    made.builder.setFacts(factsOf());
    for (const update of updatesOf(ingress)) policy.update(update);
    return steps.map((step) => {
      if ("forEach" in step) step.forEach((update) => policy.update(update));
      else made.builder.setFacts(factsOf(step));
      made.builder.update(policy.take());
      made.refresh();
      const has = (test: (ruleset: RuleNode["rulesets"][4]) => boolean): string =>
        ([4, 6] as const).filter((family) => test(made.rulesets[family])).join("") || "-";
      const [chains, ways, policies] = [
        has((ruleset) => [...ruleset.chains.keys()].some((key) => key.startsWith("filter/cali-tw-cali"))),
        has((ruleset) => (ruleset.maps.get("filter/cali-to-wl-dispatch")?.entries.size ?? 0) > 0),
        has((ruleset) => ruleset.chains.has("filter/cali-pi-knp/a/p")),
      ];
      assert.deepEqual([ways, policies], [chains, chains]);
      return chains;
    });
  }

  test("and loses them with these", () => {
    const steps = [pod(V4), pod(`${V4}, ${V6}`), pod(V6), pod(V4)];
    assert.deepEqual(familiesAfter(steps), ["4", "46", "6", "4"]);
  });

  test("before it has addresses in those of the pools that are in use, and in all where there are none", () => {
    const [known] = pod(V4);
    assert.ok(known?.kind === "endpoint" && known.value !== undefined);
    const draft: Update = { ...known, value: { ...known.value, nets: [] } };
    const pool = (cidr: string, disabled = false) => ({ cidr, natOutgoing: true, disabled, isLoadBalancer: false });
    const four = { pools: [pool("10.1.0.0/16"), pool("2001:db8::/64", true)] };
    const both = { pools: [pool("10.1.0.0/16"), pool("2001:db8::/64")] };
    assert.deepEqual(familiesAfter([[draft], four, both, four, pod(V4)]), ["46", "4", "46", "4", "4"]);
  });

  test("and of which it may send", () => {
    const [known] = pod(V4);
    assert.ok(known?.kind === "endpoint" && known.value !== undefined);
    const local = { floatingIPs: [], allowedSourcePrefixes: ["2001:db8:9::/64"] };
    assert.deepEqual(familiesAfter([[{ ...known, value: { ...known.value, local } }]]), ["46"]);
  });
});

describe("of one change comes out only what it changes", () => {
  const policy = (name: string, spec: string): Update[] =>
    updatesOf(
      `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: ${name}}, spec: ${spec}}`,
    );
  const pod = (name: string, ip: string): Update[] =>
    updatesOf(
      `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: a, labels: {app: web}}, spec: {nodeName: node1,
        containers: [{name: c}]}, status: {podIP: ${ip}}}`,
    );
  const start = (): ((updates: readonly Update[], facts?: GivenFacts) => string[]) => {
    const { builder } = ruleNode();
    const policies = compiler("node1");
    policies.setInterfaces([{ name: "eth0", addresses: ["192.0.2.1"] }]);
    const after = (updates: readonly Update[], facts?: GivenFacts): string[] => {
      for (const update of updates) policies.update(update);
      if (facts !== undefined) builder.setFacts(factsOf(facts));
      builder.update(policies.take());
      const [change] = builder.take().filter(({ family }) => family === 4);
      const names = (what: string, map: ReadonlyMap<string, unknown> | undefined): string[] =>
        [...(map ?? [])].map(([key, value]) => `${value === undefined ? "-" : "+"}${what} ${key}`);
      return [
        ...names("chain", change?.chains),
        ...names("map", change?.maps),
        ...(change?.sets ?? []).map(({ id, state }) => `${state} ${id.split(":")[0]}`),
        ...(change?.hooks === undefined ? [] : ["hooks"]),
      ].sort();
    };
    after(
      [
        ...updatesOf("{apiVersion: v1, kind: Namespace, metadata: {name: a}}"),
        ...policy("p", "{selector: app == 'web', ingress: [{action: Allow, source: {selector: app == 'client'}}]}"),
        ...pod("one", "10.1.0.1"),
      ],
      {},
    );
    return after;
  };
  const ONE = "cali53bbfad27c4";

  const rows: { name: string; act: (after: ReturnType<typeof start>) => string[]; expected: string[] }[] = [
    { name: "the same again: nothing", act: (after) => after(pod("one", "10.1.0.1"), {}), expected: [] },
    {
      name: "a rule changes: its policy's chain, and what it looks at",
      act: (after) => after(policy("p", "{selector: app == 'web', ingress: [{action: Deny}]}")),
      expected: ["+chain filter/cali-pi-gnp/p", "gone s"],
    },
    {
      name: "a policy for the other direction comes: its chain, and the endpoint's of that direction",
      act: (after) => after(policy("q", "{selector: app == 'web', types: [Egress], egress: [{action: Allow}]}")),
      expected: [`+chain filter/cali-fw-${ONE}`, "+chain filter/cali-po-gnp/q"],
    },
    {
      name: "the policy goes: its chain, and the endpoint's",
      act: (after) => after([{ kind: "policy", id: "gnp/p" }]),
      expected: [`+chain filter/cali-tw-${ONE}`, "-chain filter/cali-pi-gnp/p", "gone s"],
    },
    {
      name: "a second pod comes: its chains, and the way to them",
      act: (after) => after(pod("two", "10.1.0.2")),
      expected: [
        "+chain filter/cali-fw-cali772c1c4eca5",
        "+chain filter/cali-tw-cali772c1c4eca5",
        "+map filter/cali-from-wl-dispatch",
        "+map filter/cali-to-wl-dispatch",
      ],
    },
    {
      name: "another node comes: one member",
      act: (after) => after([], { hosts: ["192.0.2.9"] }),
      expected: ["changed all-hosts-net"],
    },
    {
      name: "a setting: what it concerns",
      act: (after) => after([], { settings: { defaultEndpointToHostAction: "Accept" } }),
      expected: ["+chain filter/cali-wl-to-host"],
    },
    {
      name: "a host endpoint for all interfaces: its chains, where they are asked, and what leads there",
      act: (after) =>
        after(
          updatesOf(
            "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: node1, interfaceName: '*'}}",
          ),
        ),
      expected: [
        "+chain filter/cali-FORWARD",
        "+chain filter/cali-INPUT",
        "+chain filter/cali-OUTPUT",
        "+chain filter/cali-failsafe-in",
        "+chain filter/cali-failsafe-out",
        "+chain filter/cali-fh-any-interface-at-all",
        "+chain filter/cali-fhfw-any-interface-at-all",
        "+chain filter/cali-from-hep-forward",
        "+chain filter/cali-from-host-endpoint",
        "+chain filter/cali-th-any-interface-at-all",
        "+chain filter/cali-thfw-any-interface-at-all",
        "+chain filter/cali-to-hep-forward",
        "+chain filter/cali-to-host-endpoint",
        "+chain mangle/cali-POSTROUTING",
        "+chain mangle/cali-failsafe-in",
        "+chain mangle/cali-failsafe-out",
        "+chain mangle/cali-fh-any-interface-at-all",
        "+chain mangle/cali-th-any-interface-at-all",
        "+chain mangle/cali-to-host-endpoint",
        "+chain raw/cali-OUTPUT",
        "+chain raw/cali-PREROUTING",
        "+chain raw/cali-failsafe-in",
        "+chain raw/cali-failsafe-out",
        "+chain raw/cali-fh-any-interface-at-all",
        "+chain raw/cali-th-any-interface-at-all",
        "hooks",
      ],
    },
  ];
  for (const { name, act, expected } of rows) {
    test(name, () => assert.deepEqual(act(start()), expected));
  }
});
