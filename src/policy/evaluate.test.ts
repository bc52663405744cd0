import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { evaluate } from "./evaluate.ts";
import { EVALUATION, gnp, named, PLACES, tier, TO_X } from "./evaluation.testing.ts";
import { ETH0, HOST_EVALUATION, HOSTS, ON_HOST } from "./hostEvaluation.testing.ts";
import { ask, expectFlows, flowOf, worldOf } from "./world.testing.ts";

for (const { title, table } of [...EVALUATION, ...HOST_EVALUATION]) {
  describe(title, () => {
    for (const { name, objects, flows, settings } of table) {
      test(name, () => expectFlows(worldOf([...PLACES, ...objects], settings), flows));
    }
  });
}

describe("the trail", () => {
  const objects = [
    tier("t", "{order: 1}"),
    gnp(
      `{tier: t, order: 1, ${TO_X}, ingress: [{action: Deny, protocol: TCP, destination: {ports: [1]}}, {action: Pass}]}`,
      "first",
    ),
    gnp(`{order: 1, ${TO_X}, ingress: [{action: Allow, protocol: UDP}]}`, "second"),
    gnp(`{order: 2, ${TO_X}, types: [Egress]}`, "other-way"),
    gnp(`{order: 3, selector: app == 'y', ingress: [{action: Allow}]}`, "others"),
  ];

  test("lists every tier, policy and rule that was looked at, and why each did not match", () => {
    const { allowed, ingress } = ask(worldOf([...PLACES, ...objects]), "b/z", "a/x", "TCP/2");
    assert.equal(allowed, false);
    assert.deepEqual(ingress?.decision, { by: "end of tier", tier: "default", policy: "gnp/second" });
    const text = ingress?.tiers.flatMap((of) => [
      `${of.tier}: ${of.verdict}`,
      ...of.policies.flatMap((policy) => [
        `  ${policy.policy}${policy.skipped === undefined ? "" : `: ${policy.skipped}`}`,
        ...policy.rules.map((rule) => `    ${rule.origin} ${rule.action}: ${rule.mismatch ?? "matched"}`),
      ]),
    ]);
    assert.deepEqual(text, [
      "t: pass",
      "  gnp/first",
      "    ingress[0] deny: destination port 2 is not 1",
      "    ingress[1] pass: matched",
      "kube-admin: pass",
      "default: deny",
      "  gnp/second",
      "    ingress[0] allow: the protocol is TCP, not UDP",
      "  gnp/other-way: it does not govern ingress",
      '  gnp/others: its selector app == "y" does not select wep/a/node1-k8s-x-eth0',
    ]);
  });

  test("names the rule that decided, and the profile", () => {
    const world = worldOf([...PLACES, ...objects]);
    assert.deepEqual(ask(world, "b/z", "a/x", "TCP/1").ingress?.decision, {
      by: "rule",
      tier: "t",
      policy: "gnp/first",
      index: 0,
      origin: "ingress[0]",
    });
    assert.deepEqual(ask(world, "b/z", "a/y", "TCP/1").egress?.decision, {
      by: "profile",
      profile: "kns.b",
      index: 0,
      origin: "egress[0]",
    });
  });

  test("shows what drafts would change, and what they would replace", () => {
    const draft = named(
      "StagedGlobalNetworkPolicy",
      `{stagedAction: Set, order: 1, ${TO_X}, ingress: [{action: Allow}]}`,
      "second",
    );
    const removal = named("StagedGlobalNetworkPolicy", "{stagedAction: Delete}", "second");
    const ignored = named(
      "StagedGlobalNetworkPolicy",
      `{stagedAction: Ignore, ${TO_X}, ingress: [{action: Allow}]}`,
      "second",
    );
    const verdicts = [draft, removal, ignored].map((object) => {
      const evaluation = ask(worldOf([...PLACES, ...objects, object]), "b/z", "a/x", "TCP/2");
      return [evaluation.allowed, evaluation.withDrafts?.allowed];
    });
    assert.deepEqual(verdicts, [
      [false, true],
      [false, true],
      [false, undefined],
    ]);
  });

  test("a draft of a Kubernetes policy takes the place of the one with its name", () => {
    const kubernetes = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: a}, spec: {podSelector: {}, ingress: [{}]}}`;
    const draft = named("StagedKubernetesNetworkPolicy", "{podSelector: {}}", "p", "a");
    const evaluation = ask(worldOf([...PLACES, kubernetes, draft]), "b/z", "a/x", "TCP/2");
    assert.deepEqual([evaluation.allowed, evaluation.withDrafts?.allowed], [true, false]);
  });

  test("before address translation the packet counts as it was sent", () => {
    const world = worldOf(
      [
        ...PLACES,
        ETH0,
        gnp(
          `{${ON_HOST}, preDNAT: true, applyOnForward: true, ingress: [{action: Deny, protocol: TCP, destination: {ports: [30080]}}]}`,
        ),
      ],
      HOSTS,
    );
    const flow = flowOf(world, "198.51.100.1", "a/y", "TCP/8080");
    assert.equal(evaluate(world, flow).allowed, true);
    const evaluation = evaluate(world, { ...flow, sentTo: { address: "192.0.2.12", port: 30080 } });
    assert.equal(evaluation.allowed, false);
    assert.equal(evaluation.steps.at(-1)?.stage, "preDNAT");
  });

  test("what a node sends to a service meets untracked policy as it was sent, and other policy as it leaves", () => {
    const untracked = `{${ON_HOST}, doNotTrack: true, applyOnForward: true, types: [Egress], egress: [
      {action: Deny, protocol: TCP, destination: {nets: [10.96.0.0/16]}}]}`;
    const world = worldOf([...PLACES, ETH0, gnp(untracked), gnp(`{${ON_HOST}, egress: [{action: Allow}]}`)], HOSTS);
    const flow = flowOf(world, "@node2", "198.51.100.1", "TCP/8080");
    assert.equal(evaluate(world, flow).allowed, true);
    const evaluation = evaluate(world, { ...flow, sentTo: { address: "10.96.0.1" } });
    assert.deepEqual([evaluation.allowed, evaluation.steps.at(-1)?.stage], [false, "untracked"]);
    // The node of a client has translated before the packet gets here.
    const ingress = `{${ON_HOST}, preDNAT: true, applyOnForward: true, ingress: [
      {action: Deny, destination: {nets: [10.96.0.0/16]}}]}`;
    const other = worldOf([...PLACES, ETH0, gnp(ingress)], HOSTS);
    const between = { ...flowOf(other, "a/x", "a/y", "TCP/8080"), sentTo: { address: "10.96.0.1" } };
    assert.equal(evaluate(other, between).allowed, true);
  });

  test("a workload has nothing to do with families that it has no address of", () => {
    const world = worldOf([...PLACES, "pod b/w 10.0.1.2"]);
    const flow = { protocol: 6, destinationPort: 80, family: 6 } as const;
    const [from, to] = [
      {
        ...flow,
        source: { endpoint: "wep/b/node1-k8s-w-eth0", address: "fe80::9" },
        destination: { address: "2001:db8:9::9" },
      },
      {
        ...flow,
        source: { address: "2001:db8:9::9" },
        destination: { endpoint: "wep/b/node1-k8s-w-eth0", address: "fe80::9" },
      },
    ].map((each) => evaluate(world, each));
    assert.deepEqual([from?.allowed, from?.egress?.decision], [false, { by: "family" }]);
    assert.deepEqual([to?.allowed, to?.ingress?.decision], [false, { by: "family" }]);
  });

  test("a workload does not get at what listens to its node alone, unless the node translates to it", () => {
    const world = worldOf(PLACES, { settings: { defaultEndpointToHostAction: "Accept" } });
    const flow = {
      protocol: 6,
      destinationPort: 80,
      source: { endpoint: "wep/a/node1-k8s-x-eth0" },
      destination: { node: "node1", address: "127.0.0.1" },
    };
    assert.deepEqual(evaluate(world, flow).steps.at(-1)?.decision, { by: "loopback" });
    assert.equal(evaluate(world, { ...flow, destination: { node: "node1", address: "192.0.2.11" } }).allowed, true);
    assert.equal(evaluate(world, { ...flow, sentTo: { address: "192.0.2.11" } }).allowed, true);
  });

  test("the interface of a flow picks the host endpoint", () => {
    const world = worldOf([...PLACES, ETH0], HOSTS);
    const flow = flowOf(world, "198.51.100.1", "@node2", "TCP/1");
    assert.equal(evaluate(world, { ...flow, interfaces: { in: "eth1" } }).allowed, true);
  });

  test("an endpoint that does not exist, and sides without a common family, are errors", () => {
    const world = worldOf(PLACES);
    const flow = { protocol: 6, source: { endpoint: "wep/no" }, destination: { address: "10.0.0.1" } };
    assert.throws(() => evaluate(world, flow), { code: "unknown-endpoint", message: "there is no endpoint wep/no" });
    assert.throws(() => evaluate(world, { ...flow, source: { address: "2001:db8::9" } }), { code: "no-address" });
  });
});
