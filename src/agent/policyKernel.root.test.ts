import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { changeTo, simple } from "../dataplane/iptables.testing.ts";
import { openNftKernelRules } from "../dataplane/nftRules.io.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";
import { policyKernel } from "./policyKernel.io.ts";

function heldIn(path: string): () => (4 | 6)[] {
  const kernel = policyKernel({
    ownsTables: false,
    onRepaired: (what) => assert.fail(what.join()),
    onFailure: (error) => assert.fail(String(error)),
  });
  return () => inNamespace(path, () => ([4, 6] as const).filter((family) => kernel.hasRules(family)));
}

describe("what an agent finds in the kernel", () => {
  test("holds a family back only where packets that are forwarded meet rules", async () => {
    using at = temporaryNamespace();
    const held = heldIn(at.path);
    assert.deepEqual(held(), []);
    inside(at.name, "nft", "add", "table", "ip6", "calico");
    assert.deepEqual(held(), [], "a table that somebody had only begun");
    const rules = openNftKernelRules({ family: 4, namespace: at.path });
    await rules.apply(changeTo(simple()));
    rules.close();
    assert.deepEqual(held(), [4]);
    inside(at.name, "nft", "flush", "table", "ip", "calico");
    assert.deepEqual(held(), [], "a table that somebody flushed");
  });

  test("is also what iptables has, in either of its forms", () => {
    for (const tool of ["ip6tables-nft", "ip6tables-legacy"]) {
      using at = temporaryNamespace();
      const held = heldIn(at.path);
      inside(at.name, tool, "-N", "cali-FORWARD");
      assert.deepEqual(held(), [], "a chain that nothing leads to");
      inside(
        at.name,
        tool,
        "-I",
        "FORWARD",
        "-m",
        "comment",
        "--comment",
        "cali:wUHhoiAYhphO9Mso",
        "-j",
        "cali-FORWARD",
      );
      assert.deepEqual(held(), [6], tool);
    }
  });
});
