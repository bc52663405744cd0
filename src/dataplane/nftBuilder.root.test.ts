import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Family } from "../ip/address.ts";
import { anyHistory, NODES } from "../policy/anyWorld.testing.ts";
import { compiler } from "../policy/compile.ts";
import type { Update } from "../policy/model.ts";
import { content } from "./nftListing.testing.ts";
import { generation, rulesNode, type RulesNode } from "./nftNode.testing.ts";
import { openNftKernelRules } from "./nftRules.io.ts";
import { rulesetBuilder } from "./rulesetBuilder.ts";
import type { KernelRules, RulesetChange } from "./ruleset.ts";
import { factsOf } from "./ruleWorld.testing.ts";

const [NODE = ""] = NODES;

const FACTS = factsOf({
  nflog: true,
  hosts: ["192.0.2.1", "192.0.2.2", "2001:db8::9"],
  vxlanHosts: ["192.0.2.1", "2001:db8::9"],
  serviceCidrs: ["10.96.0.0/12", "fd00::/108"],
  pools: [{ cidr: "10.0.0.0/16", natOutgoing: true, disabled: false, isLoadBalancer: false }],
  tunnels: [{ kind: "vxlan", family: 4, device: "vxlan.calico", addresses: ["10.0.9.9"] }],
  settings: { floatingIPs: "Enabled", logActionRateLimit: "100/minute", natPortRange: "32768:60999" },
});

/** A node from policy's events to the rulesets of both families. */
function builderOf(): { update(updates: readonly Update[]): readonly RulesetChange[] } {
  const policy = compiler(NODE);
  policy.setInterfaces([{ name: "eth0", addresses: ["10.0.0.1", "2001:db8::1"] }]);
  const builder = rulesetBuilder();
  builder.setFacts(FACTS);
  return {
    update(updates) {
      for (const update of updates) policy.update(update);
      builder.update(policy.take());
      return builder.take();
    },
  };
}

function bothFamilies(node: RulesNode): Record<Family, KernelRules> & Disposable {
  const six = openNftKernelRules({ family: 6, namespace: node.path });
  return { 4: node.rules, 6: six, [Symbol.dispose]: () => six.close() };
}

async function apply(rules: Record<Family, KernelRules>, changes: readonly RulesetChange[]): Promise<void> {
  for (const change of changes) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    assert.deepEqual(await rules[change.family].apply(change), []);
  }
}

describe("nodes as they are compiled and built", () => {
  test("any way of changes ends in the kernel as all at once, and is found again as it was left", async () => {
    await fc.assert(
      fc.asyncProperty(anyHistory, fc.integer({ min: 1, max: 6 }), async (history, count) => {
        using node = rulesNode();
        using rules = bothFamilies(node);
        const made = builderOf();
        const size = Math.ceil(history.length / count);
        for (let at = 0; at === 0 || at < history.length; at += size) {
          // oxlint-disable-next-line no-await-in-loop -- one after the other
          await apply(rules, made.update(history.slice(at, at + size)));
        }
        for (const family of [4, 6] as const) {
          // oxlint-disable-next-line no-await-in-loop
          assert.deepEqual(await rules[family].check(), []);
        }

        using other = rulesNode();
        using fresh = bothFamilies(other);
        const whole = builderOf().update(history);
        await apply(fresh, whole);
        assert.deepEqual(content(node.name), content(other.name));

        const before = generation(other.path);
        other.again();
        using again = bothFamilies(other);
        await apply(again, whole);
        assert.equal(generation(other.path), before);
      }),
      { numRuns: 12 },
    );
  });
});
