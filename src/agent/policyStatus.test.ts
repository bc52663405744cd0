import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { RuleCount } from "../dataplane/ruleset.ts";
import { updatesOf } from "../policy/world.testing.ts";
import { policyProblems } from "./policyProblems.ts";
import { policyCounts, problemsOf } from "./policyStatus.ts";

describe("why a policy is in force otherwise than it was written", () => {
  test("is told of the object that people know, by kind and name", () => {
    const problems = policyProblems();
    const [update] = updatesOf(
      "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: all}, spec: {selector: all()}}",
    );
    assert.ok(update?.kind === "policy" && update.value !== undefined);
    problems.told({ ...update, value: { ...update.value, problems: ["ingress[0] is left out"] } });
    assert.deepEqual(problemsOf(problems, "GlobalNetworkPolicy", ["other", "all"]), [
      "GlobalNetworkPolicy all: ingress[0] is left out",
    ]);
    assert.deepEqual(problemsOf(problems, "NetworkPolicy", ["all", "a/all"]), []);
    assert.deepEqual(problemsOf(problems, "Namespace", ["all"]), []);
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
    assert.deepEqual(problemsOf(problems, "CalicoNetworkPolicy", ["a/web"]), [
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
    assert.deepEqual(problemsOf(problems, "HostEndpoint", ["h1"]), ["HostEndpoint h1: the kernel refused it: EINVAL"]);
    assert.deepEqual(problemsOf(problems, "Profile", ["p"]), ["Profile p: the kernel refused it: EINVAL"]);
    assert.deepEqual(problems.refusals("hep/h1"), ["the kernel refused it: EINVAL"]);
    problems.compiled({ ...none, policies: new Map([["np/a/web", undefined]]) });
    assert.deepEqual(problemsOf(problems, "CalicoNetworkPolicy", ["a/web"]), []);
    problems.startOver();
    assert.deepEqual(problems.refusals("hep/h1"), []);
  });
});

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
