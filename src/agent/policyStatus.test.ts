import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { RuleCount } from "../dataplane/ruleset.ts";
import { compiler } from "../policy/compile.ts";
import { updatesOf } from "../policy/world.testing.ts";
import { policyProblems } from "./policyProblems.ts";
import { policyCounts, problemsOf } from "./policyStatus.ts";

const NOTHING = () => compiler("node1").tables();

describe("why a policy is in force otherwise than it was written", () => {
  test("is told of the object that people know, by kind and name", () => {
    const problems = policyProblems();
    const [update] = updatesOf(
      "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: all}, spec: {selector: all()}}",
    );
    assert.ok(update?.kind === "policy" && update.value !== undefined);
    problems.told({ ...update, value: { ...update.value, problems: ["ingress[0] is left out"] } });
    assert.deepEqual(problemsOf(problems, "GlobalNetworkPolicy", ["other", "all"], NOTHING), [
      "GlobalNetworkPolicy all: ingress[0] is left out",
    ]);
    assert.deepEqual(problemsOf(problems, "NetworkPolicy", ["all", "a/all"], NOTHING), []);
    assert.deepEqual(problemsOf(problems, "Namespace", ["all"], NOTHING), []);
    problems.told({ ...update, value: { ...update.value, problems: [] } });
    assert.deepEqual(problems.list(), []);
  });

  test("is what the compiler says, where the policy applies; and what the kernel says of profiles and host endpoints", () => {
    const problems = policyProblems();
    const none = { endpoints: new Map(), policies: new Map(), profiles: new Map(), sets: [] };
    const compiled = (id: string, reasons: string[]) => ({ id, ingress: [], egress: [], problems: reasons });
    problems.compiled({
      ...none,
      policies: new Map([["np/a/web", compiled("np/a/web", ["egress[1] is left out"])]]),
      profiles: new Map([
        ["kns.a", compiled("kns.a", ["there is no profile kns.a: everything is denied"])],
        ["ksa.a.default", compiled("ksa.a.default", ["there is no profile ksa.a.default: everything is denied"])],
      ]),
    });
    assert.deepEqual(problemsOf(problems, "CalicoNetworkPolicy", ["a/web"], NOTHING), [
      "CalicoNetworkPolicy a/web: egress[1] is left out",
    ]);
    assert.deepEqual(
      problems.list().map(({ id }) => id),
      ["np/a/web", "kns.a"],
    );
    const refusals = [
      { origin: "hep/h1", reason: "EINVAL" },
      { origin: "pro/p", reason: "EINVAL" },
    ];
    assert.deepEqual(problems.refused(4, refusals.slice(0, 1)), refusals.slice(0, 1));
    assert.deepEqual(problems.refused(4, refusals), refusals.slice(1));
    assert.deepEqual(problemsOf(problems, "HostEndpoint", ["h1"], NOTHING), [
      "HostEndpoint h1: the kernel refused it: EINVAL",
    ]);
    assert.deepEqual(problemsOf(problems, "Profile", ["p"], NOTHING), ["Profile p: the kernel refused it: EINVAL"]);
    assert.deepEqual(problems.refusals("hep/h1"), ["the kernel refused it: EINVAL"]);
    problems.compiled({ ...none, policies: new Map([["np/a/web", undefined]]) });
    assert.deepEqual(problemsOf(problems, "CalicoNetworkPolicy", ["a/web"], NOTHING), []);
    problems.startOver();
    assert.deepEqual(problems.refusals("hep/h1"), []);
  });

  test("is what the kernel refuses of anything that the object has a part in", () => {
    const made = compiler("node1");
    for (const update of updatesOf(WORLD)) made.update(update);
    made.setInterfaces([{ name: "eth0", addresses: [] }]);
    made.take();
    const found = (origin: string): string[] => {
      const problems = policyProblems();
      problems.refused(4, [{ origin, reason: "EINVAL" }]);
      return OBJECTS.filter(([kind, name]) => problemsOf(problems, kind, [name], () => made.tables()).length > 0).map(
        (one) => one.join(" "),
      );
    };
    const [pod] = [...made.tables().endpoints.values()].filter(({ kind }) => kind === "workload");
    // The host endpoint too is of no namespace, and in the set that the policy looks at.
    const ofWeb = ["CalicoNetworkPolicy a/web", "Tier t", "HostEndpoint h1", "GlobalNetworkSet bad"];
    assert.deepEqual(found("np/a/web"), ofWeb);
    assert.deepEqual(found("gnp/other"), ["GlobalNetworkPolicy other", "HostEndpoint h1"]);
    assert.deepEqual(found(pod?.id ?? ""), ["CalicoNetworkPolicy a/web", "Tier t", "Namespace a"]);
    assert.deepEqual(found("tier t: np/a/first to np/a/last"), ofWeb);
    assert.deepEqual(found("pro/kns.a"), ["Namespace a"]);
    for (const shared of ["cali-FORWARD", "filter-FORWARD"])
      assert.deepEqual(
        found(shared),
        OBJECTS.slice(0, -1).map((one) => one.join(" ")),
      );
    const problems = policyProblems();
    problems.refused(6, [{ origin: "np/a/web", reason: "set s has 9 members, more than 2" }]);
    assert.deepEqual(
      problemsOf(problems, "GlobalNetworkSet", ["bad"], () => made.tables()),
      ["GlobalNetworkSet bad: np/a/web: the kernel refused it: set s has 9 members, more than 2"],
    );
  });
});

const OBJECTS = [
  ["CalicoNetworkPolicy", "a/web"],
  ["GlobalNetworkPolicy", "other"],
  ["Tier", "t"],
  ["Tier", "unused"],
  ["Profile", "p"],
  ["Namespace", "a"],
  ["HostEndpoint", "h1"],
  ["GlobalNetworkSet", "bad"],
  ["NetworkSet", "a/good"],
  ["EndpointSlice", "a/s"],
] as const;
const WORLD = `
{apiVersion: v1, kind: Namespace, metadata: {name: a}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}, spec: {order: 1}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: web, namespace: a}, spec: {
  tier: t, ingress: [{action: Allow, source: {notSelector: bad == 'yes', namespaceSelector: global()}}]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: other}, spec: {
  selector: has(host), ingress: [{action: Allow, source: {selector: good == 'yes'}}]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: bad, labels: {bad: "no"}}, spec: {nets: [10.9.0.0/16]}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: good, namespace: a}, spec: {nets: [10.8.0.0/16]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h1, labels: {host: "yes"}}, spec: {node: node1, interfaceName: eth0}}
---
{apiVersion: v1, kind: Pod, metadata: {name: x, namespace: a}, spec: {nodeName: node1, containers: [{name: c}]}, status: {podIPs: [{ip: 10.1.0.1}]}}`;

test("what rules count is summed over families and interfaces", () => {
  const count = (of: string, index: number | undefined, packets: number, interfaceName?: string): RuleCount => ({
    counted: {
      of,
      direction: "ingress",
      ...(index === undefined ? {} : { index }),
      ...(interfaceName === undefined ? {} : { interfaceName }),
    },
    packets,
    bytes: packets * 100,
  });
  assert.deepEqual(
    policyCounts([
      count("knp/a/web", 0, 1),
      count("knp/a/web", 0, 2),
      count("knp/a/web", 1, 4),
      count("tier/default", undefined, 8, "cali1"),
      count("tier/default", undefined, 16, "cali2"),
    ]),
    [
      { of: "knp/a/web", direction: "ingress", rule: 0, packets: 3, bytes: 300 },
      { of: "knp/a/web", direction: "ingress", rule: 1, packets: 4, bytes: 400 },
      { of: "tier/default", direction: "ingress", packets: 24, bytes: 2400 },
    ],
  );
});
