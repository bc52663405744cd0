import assert from "node:assert/strict";
import { test } from "node:test";
import { addressWishes } from "./wishes.ts";
import { address } from "./world.testing.ts";

const annotated = (annotations: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(annotations).map(([key, value]) => [`cni.projectcalico.org/${key}`, value]));

test("the pod comes before its namespace, and that before the configuration, key by key", () => {
  const configured = { ipv4Pools: ["conf4"], ipv6Pools: ["conf6"], assignIpv6: true };
  assert.deepEqual(addressWishes({}, {}, configured), { pools: { 4: ["conf4"], 6: ["conf6"] }, families: [4, 6] });
  const namespace = annotated({ ipv4pools: '["ns4"]', ipv6pools: '["ns6"]' });
  assert.deepEqual(addressWishes({}, namespace, configured).pools, { 4: ["ns4"], 6: ["ns6"] });
  const pod = annotated({ ipv4pools: '["pod4", "10.1.0.0/16"]', ipFamilies: '["IPv6"]' });
  assert.deepEqual(addressWishes(pod, namespace, configured), {
    pools: { 4: ["pod4", "10.1.0.0/16"], 6: ["ns6"] },
    families: [6],
  });
});

test("without a word about families, the pools decide", () => {
  assert.deepEqual(addressWishes({}, {}), { pools: { 4: undefined, 6: undefined } });
  assert.deepEqual(addressWishes({}, {}, { assignIpv4: false, assignIpv6: true }).families, [6]);
  assert.throws(() => addressWishes({}, {}, { assignIpv4: false }), { code: "bad-request", message: /both off/ });
});

test("addresses by name are the pod's own affair", () => {
  const both = annotated({ ipAddrs: '["10.0.0.1", "fd00::1"]' });
  assert.deepEqual(addressWishes(both, {}).addresses, [address("10.0.0.1"), address("fd00::1")]);
  assert.equal(addressWishes({}, both).addresses, undefined);
});

const wrong: { name: string; annotations: Record<string, string>; reason: RegExp }[] = [
  { name: "no JSON", annotations: { ipv4pools: "pool-a" }, reason: /ipv4pools: pool-a is not JSON/ },
  {
    name: "no list",
    annotations: { ipv6pools: '"pool-a"' },
    reason: /ipv6pools: "pool-a" is not a JSON list of strings/,
  },
  { name: "no family", annotations: { ipFamilies: '["v4"]' }, reason: /ipFamilies: "v4" is not IPv4 or IPv6/ },
  {
    name: "no address",
    annotations: { ipAddrs: '["10.0.0.256"]' },
    reason: /ipAddrs: "10\.0\.0\.256" is not an IP address/,
  },
  {
    name: "two of a family",
    annotations: { ipAddrs: '["10.0.0.1","10.0.0.2"]' },
    reason: /at most one IPv4 address, not 10\.0\.0\.1 and 10\.0\.0\.2/,
  },
];
for (const { name, annotations, reason } of wrong) {
  test(`a wish that cannot be read is refused with its name: ${name}`, () => {
    assert.throws(() => addressWishes(annotated(annotations), {}), { code: "bad-request", message: reason });
  });
}
