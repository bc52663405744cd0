import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  blockAffinityName,
  blockName,
  configurationName,
  defaultName,
  handleName,
  hostInterfaceName,
  labelKey,
  labelName,
  labelValue,
  portName,
  serviceName,
  subdomainName,
  workloadEndpointName,
} from "./names.ts";

const rules: { rule: (name: string) => string; good: string[]; bad: string[] }[] = [
  {
    rule: subdomainName,
    good: ["a", "0", "a-b.c", "10-0-0-0-26", `${"a".repeat(63)}.${"b".repeat(63)}`, "a".repeat(253)],
    bad: ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a.", "a b", "ä", "a\n", "a".repeat(254)],
  },
  { rule: labelName, good: ["a", "0a", "a".repeat(63)], bad: ["", "a.b", "A", "a".repeat(64), "-"] },
  { rule: serviceName, good: ["a", "a0"], bad: ["0a", "a.b", "", "a".repeat(64)] },
  { rule: portName, good: ["http", "a1", "1a", "metrics-9091"], bad: ["", "80", "a--b", "-a", "Http", "a".repeat(16)] },
  {
    rule: labelKey,
    good: ["a", "A_b.c-d", "projectcalico.org/IPv4Address", "a/b", "0", `${"a".repeat(253)}/b`],
    bad: ["", "/a", "a/", "a/b/c", "-a", "a_", "A b", "a b/c", "_/a", "a".repeat(64), `${"a".repeat(254)}/b`],
  },
  { rule: labelValue, good: ["", "a", "A_b.c-d", "1"], bad: [" ", "-", "a/b", "a:b", "a_", "a".repeat(64)] },
  {
    rule: configurationName,
    good: ["default", "node.a", "node.rack1-host1.example"],
    bad: ["", "node", "node.", "nodea", "node.A"],
  },
  { rule: defaultName, good: ["default"], bad: ["", "Default", "x"] },
];
for (const { rule, good, bad } of rules) {
  describe(rule.name, () => {
    for (const name of good) test(`takes ${JSON.stringify(name.slice(0, 30))}`, () => assert.equal(rule(name), name));
    for (const name of bad) {
      test(`refuses ${JSON.stringify(name.slice(0, 30))}`, () => {
        assert.throws(() => rule(name), { code: "bad-name" });
      });
    }
  });
}

test("a host interface is named by the first 11 hex digits of SHA-1 over namespace.pod", () => {
  // printf default.nginx | sha1sum
  assert.equal(hostInterfaceName("default", "nginx", "cali"), "calic440f455693");
  assert.equal(hostInterfaceName("kube-system", "coredns-5d78c9869d-abcde", "tap"), "tap4d5f75c480c");
});

test("a workload endpoint is named by its parts, in which dashes are doubled", () => {
  assert.equal(workloadEndpointName("node1", "frontend-5gs43", "eth0"), "node1-k8s-frontend--5gs43-eth0");
  assert.equal(workloadEndpointName("rack1-host1", "a", "eth0"), "rack1--host1-k8s-a-eth0");
});

test("no two endpoints share a name", () => {
  const part = fc.stringMatching(/^[a-z]([a-z-]{0,6}[a-z])?$/);
  const parts = fc.tuple(part, part, part);
  fc.assert(
    fc.property(parts, parts, (a, b) => {
      const same = a.every((value, index) => value === b[index]);
      assert.equal(workloadEndpointName(...a) === workloadEndpointName(...b), same);
    }),
    { numRuns: 500 },
  );
});

test("blocks, affinities and handles are named by what they are", () => {
  assert.equal(blockName("10.244.9.0/26"), "10-244-9-0-26");
  assert.equal(blockName("fd00:10::/122"), "fd00-10---122");
  assert.equal(blockAffinityName("node1", "10.244.9.0/26"), "node1-10-244-9-0-26");
  assert.equal(handleName("k8s-pod-network.0F1E"), "k8s-pod-network.0f1e");
});

test("an affinity's name that is too long is cut, and stays different", () => {
  const host = "n".repeat(253);
  const [first, second] = [blockAffinityName(host, "10.0.0.0/26"), blockAffinityName(host, "10.0.0.64/26")];
  assert.equal(first.length, 253);
  assert.notEqual(first, second);
  assert.match(first, /^n{188}-[0-9a-f]{64}$/);
});
