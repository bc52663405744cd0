import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { anyHistory, anyPacket, anyUpdate, NODES } from "./anyWorld.testing.ts";
import { prefixCovers } from "../ip/prefix.ts";
import type { EndpointChains } from "./chains.ts";
import { compiler, type CompiledState, type Compiler, type Difference } from "./compile.ts";
import type { CompiledPolicy } from "./ruleTable.ts";
import { evaluateChain } from "./evaluateChain.ts";
import { interpret, type CompiledTables } from "./interpret.ts";
import { directoryOf } from "./match.ts";
import { DIRECTIONS, parseNet, type HostInterface, type Update } from "./model.ts";
import { SETTINGS, updatesOf } from "./world.testing.ts";
import { applyUpdate, emptyWorld, type World } from "./world.ts";

/** How many worlds are tried: more for a long search (CARACAL_POLICY_RUNS=10000). */
const RUNS = Number(process.env["CARACAL_POLICY_RUNS"] ?? 200);

const INTERFACES: Record<string, readonly HostInterface[]> = {
  node1: [
    { name: "eth0", addresses: ["10.0.0.1"] },
    { name: "eth1", addresses: ["10.0.0.2", "2001:db8::1"] },
  ],
  node2: [{ name: "eth0", addresses: ["10.0.0.3"] }],
};

/** As text, with everything in one order, to compare and to show. */
function stateText(state: CompiledState): string[] {
  const lines = (name: string, map: ReadonlyMap<string, unknown>): string[] =>
    [...map].map(([key, value]) => `${name} ${key} ${JSON.stringify(value)}`);
  return [
    ...lines("endpoint", state.endpoints),
    ...lines("policy", state.policies),
    ...lines("profile", state.profiles),
    ...[...state.sets].map(([id, { kind, members }]) => `set ${id} ${kind} ${members.toSorted().join(" ")}`),
  ].sort();
}

/** The tables as a kernel has them, with the members that were told. */
function tablesOf({ policies, profiles, sets }: CompiledState): CompiledTables {
  return {
    policies,
    profiles,
    isMember(set, member) {
      const told = sets.get(set)?.members;
      assert.ok(told !== undefined, `the set ${set} is looked at, but not there`);
      if (member.includes(",")) return told.includes(member);
      return told.some((net) => prefixCovers(parseNet(net), parseNet(member)));
    },
  };
}

/** What a renderer has that follows the differences. */
function follower(): { follow: (difference: Difference) => void; state: CompiledState } {
  const endpoints = new Map<string, EndpointChains>();
  const policies = new Map<string, CompiledPolicy>();
  const profiles = new Map<string, CompiledPolicy>();
  const sets = new Map<string, { kind: "net" | "ip,port"; members: string[] }>();
  const put = <Value>(into: Map<string, Value>, from: ReadonlyMap<string, Value | undefined>): void => {
    for (const [key, value] of from) {
      if (value !== undefined) into.set(key, value);
      else assert.ok(into.delete(key), `${key} goes, but was not there`);
    }
  };
  return {
    state: { endpoints, policies, profiles, sets },
    follow(difference) {
      put(endpoints, difference.endpoints);
      put(policies, difference.policies);
      put(profiles, difference.profiles);
      for (const { id, kind, state, added, removed } of difference.sets) {
        assert.equal(sets.has(id), state !== "new", `the set ${id} is ${state}`);
        const members = new Set(sets.get(id)?.members);
        for (const member of removed) assert.ok(members.delete(member), `${member} goes, but was not in ${id}`);
        for (const member of added) {
          assert.ok(!members.has(member), `${member} comes, but was in ${id}`);
          members.add(member);
        }
        if (state === "gone") sets.delete(id);
        else sets.set(id, { kind, members: [...members] });
      }
    },
  };
}

/** A compiler that is told a world at once, in the order of its tables. */
function fresh(world: World, node: string): Compiler {
  const made = compiler(node);
  made.setInterfaces(INTERFACES[node] ?? []);
  const tables = {
    tier: world.tiers,
    profile: world.profiles,
    endpoint: world.endpoints,
    policy: world.policies,
    slice: world.slices,
  };
  for (const [kind, table] of Object.entries(tables)) {
    for (const [id, value] of table) made.update({ kind, id, value } as Update);
  }
  made.take();
  return made;
}

function worldAfter(updates: readonly Update[]): World {
  const world = emptyWorld(SETTINGS);
  for (const update of updates) applyUpdate(world, update);
  return world;
}

describe("the incremental compiler", () => {
  test("ends where a fresh compile of the same world ends, whatever came before and however it was taken", () => {
    const take = fc.constant("take" as const);
    const step = fc.oneof({ weight: 4, arbitrary: anyUpdate }, { weight: 1, arbitrary: take });
    fc.assert(
      fc.property(anyHistory, fc.array(step, { maxLength: 30 }), (history, steps) => {
        const all = [...history, "take" as const, ...steps];
        const updates = all.filter((of) => of !== "take");
        const [node = ""] = NODES;
        const made = compiler(node);
        const { follow, state } = follower();
        made.setInterfaces(INTERFACES[node] ?? []);
        for (const next of all) {
          if (next === "take") follow(made.take());
          else made.update(next);
        }
        follow(made.take());
        assert.deepEqual(stateText(made.state()), stateText(state));
        assert.deepEqual(stateText(state), stateText(fresh(worldAfter(updates), node).state()));
      }),
      { numRuns: RUNS },
    );
  });

  test("says what the evaluator says, of every endpoint, in both directions and at every stage", () => {
    fc.assert(
      fc.property(anyHistory, fc.array(anyPacket, { minLength: 8, maxLength: 8 }), (history, packets) => {
        const world = worldAfter(history);
        const directory = directoryOf(world);
        for (const node of NODES) {
          const made = fresh(world, node);
          const state = made.state();
          for (const chains of state.endpoints.values()) {
            const endpoint = world.endpoints.get(chains.id);
            assert.ok(endpoint !== undefined);
            const stages =
              chains.kind === "host" ? (["normal", "forward", "preDNAT", "untracked"] as const) : (["normal"] as const);
            for (const packet of packets) {
              for (const direction of DIRECTIONS) {
                for (const stage of stages) {
                  if (stage === "preDNAT" && direction === "egress") continue;
                  const { verdict, decision } = evaluateChain(directory, endpoint, direction, stage, packet);
                  const where = `${chains.id} ${direction} ${stage}: ${JSON.stringify(decision)}`;
                  assert.equal(interpret(tablesOf(state), chains, direction, stage, packet), verdict, where);
                  assert.equal(interpret(made.tables(), chains, direction, stage, packet), verdict, where);
                }
              }
            }
          }
        }
      }),
      { numRuns: RUNS },
    );
  });

  test("has chains for all workloads and host endpoints of its node, and no others", () => {
    fc.assert(
      fc.property(anyHistory, (history) => {
        const world = worldAfter(history);
        for (const node of NODES) {
          const known = new Set([...fresh(world, node).state().endpoints.values()].map(({ id }) => id));
          for (const { id, kind, node: of } of world.endpoints.values()) {
            // A host endpoint may find no interface, or another one in its place.
            if (kind === "workload") assert.equal(known.has(id), of === node, id);
            else if (of !== node || kind === "set") assert.equal(known.has(id), false, id);
          }
        }
      }),
      { numRuns: Math.ceil(RUNS / 4) },
    );
  });
});

describe("of one change comes out only what it changes", () => {
  const OBJECTS = `
{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {env: prod}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: a}, spec: {
  podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: idle}, spec: {
  selector: app == 'nobody', ingress: [{action: Allow, source: {selector: app == 'client'}}]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h1, labels: {host: yes}}, spec: {node: node1, expectedIPs: [10.0.0.1]}}`;
  const pod = (name: string, app: string, ip: string, node = "node1"): Update[] =>
    updatesOf(
      `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: a, labels: {app: ${app}}}, spec: {nodeName: ${node},
        containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}, status: {podIP: ${ip}}}`,
    );
  const start = (): { made: Compiler; after: (updates: readonly Update[]) => string[]; first: string[] } => {
    const made = compiler("node1");
    made.setInterfaces([{ name: "eth0", addresses: ["10.0.0.1"] }]);
    const after = (updates: readonly Update[]): string[] => {
      for (const update of updates) made.update(update);
      const { endpoints, policies, profiles, sets } = made.take();
      const names = (what: string, map: ReadonlyMap<string, unknown>): string[] =>
        [...map].map(([key, value]) => `${value === undefined ? "-" : "+"}${what} ${key}`);
      return [
        ...names("endpoint", endpoints),
        ...names("policy", policies),
        ...names("profile", profiles),
        ...sets.map(({ id, state, added, removed }) =>
          [state, id.slice(0, id.indexOf(":")), ...removed.map((of) => `-${of}`), ...added.map((of) => `+${of}`)].join(
            " ",
          ),
        ),
      ].sort();
    };
    const first = after([
      ...updatesOf(OBJECTS),
      ...pod("web", "web", "10.1.0.1"),
      ...pod("c1", "client", "10.1.0.2", "node2"),
    ]);
    return { made, after, first };
  };
  const WEB = "wep/a/node1-k8s-web-eth0";

  test("at the start: the node's endpoints, what they ask, and the sets that this looks at", () => {
    const { first, made } = start();
    assert.deepEqual(first, [
      "+endpoint hep/h1 eth0",
      `+endpoint ${WEB}`,
      "+policy knp/a/web",
      "+profile kns.a",
      "+profile ksa.a.default",
      "new n +10.1.0.1,tcp:8080 +10.1.0.2,tcp:8080",
      "new s +10.1.0.2",
    ]);
    assert.partialDeepStrictEqual(made.size(), { endpoints: 3, local: 2, policies: 2, active: 1, sets: 2 });
    const chains = made.state().endpoints.get(WEB);
    assert.deepEqual(chains?.normal, {
      ingress: [{ tier: "default", policies: ["knp/a/web"], end: "deny" }],
      egress: [],
    });
    assert.match(made.state().profiles.get("ksa.a.default")?.problems[0] ?? "", /there is no profile ksa.a.default/);
  });
  const pods: { name: string; updates: () => readonly Update[]; expected: string[] }[] = [
    { name: "a remote pod that no set means: nothing", updates: () => [], expected: [] },
    {
      name: "a remote client comes: members",
      updates: () => pod("c2", "client", "10.1.0.3", "node2"),
      expected: ["changed n +10.1.0.3,tcp:8080", "changed s +10.1.0.3"],
    },
    {
      name: "a client becomes something else: one member",
      updates: () => pod("c1", "other", "10.1.0.2", "node2"),
      expected: ["changed s -10.1.0.2"],
    },
    {
      name: "an object that says the same again: nothing",
      updates: () => [...updatesOf(OBJECTS), ...pod("web", "web", "10.1.0.1")],
      expected: [],
    },
    {
      name: "a tier passes on what it does not decide: the chains",
      updates: () => [{ kind: "tier", id: "default", value: { name: "default", order: 1, defaultAction: "pass" } }],
      expected: [`+endpoint ${WEB}`],
    },
    {
      name: "the only local pod that a policy selects goes: its chains, the policy and its sets",
      updates: () => [{ kind: "endpoint", id: WEB }],
      expected: [
        "-endpoint wep/a/node1-k8s-web-eth0",
        "-policy knp/a/web",
        "-profile kns.a",
        "-profile ksa.a.default",
        "gone n",
        "gone s",
      ],
    },
    {
      name: "a host endpoint that names the interface takes it from the one that knows its address",
      updates: () =>
        updatesOf(
          "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h2}, spec: {node: node1, interfaceName: eth0}}",
        ),
      expected: ["+endpoint hep/h2 eth0", "-endpoint hep/h1 eth0"],
    },
    {
      name: "of two host endpoints that know an address, the first by name stays",
      updates: () =>
        updatesOf(
          "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h2}, spec: {node: node1, expectedIPs: [10.0.0.1]}}",
        ),
      expected: [],
    },
  ];
  for (const { name, updates, expected } of pods) {
    test(name, () => assert.deepEqual(start().after(updates()), expected));
  }

  test("the service account comes: its profile, which denied all, is replaced", () => {
    const { after, made } = start();
    const account = updatesOf("{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: a}}");
    assert.deepEqual(after(account), ["+profile ksa.a.default"]);
    assert.deepEqual(made.state().profiles.get("ksa.a.default")?.problems, []);
  });

  test("a namespace's labels change: the members that its pods are of", () => {
    const { after } = start();
    const policy =
      updatesOf(`{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: ns, namespace: a},
      spec: {selector: app == 'web', ingress: [{action: Allow, source: {namespaceSelector: env == 'prod'}}]}}`);
    assert.deepEqual(after(policy), [`+endpoint ${WEB}`, "+policy np/a/ns", "new s +10.1.0.1 +10.1.0.2"]);
    const namespace = updatesOf("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {env: dev}}}");
    assert.deepEqual(after(namespace), ["changed s -10.1.0.1 -10.1.0.2"]);
  });
});
