import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parsePrefix } from "../ip/prefix.ts";
import { assertGolden } from "../lib/golden.testing.ts";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";
import { openFirewall } from "./firewall.io.ts";
import type { FilterWish } from "./masquerade.ts";

/** Flannel's rules, as the tools that people have list them. */

const GOLDEN = `${import.meta.dirname}/golden`;
const wish: FilterWish = {
  networks: [
    { network: parsePrefix("10.5.0.0/16"), subnet: parsePrefix("10.5.34.0/24") },
    { network: parsePrefix("fc00:5:6::/48"), subnet: parsePrefix("fc00:5:6:1::/64") },
  ],
  masquerade: true,
  forward: true,
};

describe("flannel's rules", () => {
  test("by iptables: written, put right, and nobody else's touched", async () => {
    using namespace = temporaryNamespace();
    const run = (...command: string[]): string => inside(namespace.name, ...command);
    const list = (): string =>
      ["iptables", "ip6tables"]
        .flatMap((tool) =>
          ["filter", "nat"].map((table) => `# ${tool} -t ${table} -S\n${run(tool, "-t", table, "-S")}`),
        )
        .join("\n");
    run("iptables", "-A", "FORWARD", "-s", "192.0.2.9", "-j", "DROP");
    const firewall = openFirewall(false, namespace.path);
    await firewall.apply(wish);
    assertGolden(`${GOLDEN}/iptables.txt`, list());
    const right = list();
    assert.equal(await firewall.check(), false);
    for (const damage of [
      ["-t", "nat", "-F", "FLANNEL-POSTRTG"],
      ["-D", "FORWARD", "2"],
      ["-t", "nat", "-F"],
      ["-I", "FLANNEL-FWD", "-j", "DROP"],
    ]) {
      run("iptables", ...damage);
      assert.equal(await firewall.check(), true, damage.join(" "));
      assert.equal(list(), right, damage.join(" "));
    }
    await firewall.apply({ ...wish, masquerade: false });
    assert.doesNotMatch(list(), /MASQUERADE/);
    firewall.close();
  });

  test("by nf_tables: written, and put right", async () => {
    using namespace = temporaryNamespace();
    const run = (...command: string[]): string => inside(namespace.name, ...command);
    const firewall = openFirewall(true, namespace.path);
    await firewall.apply(wish);
    const right = run("nft", "list", "ruleset");
    assertGolden(`${GOLDEN}/flannel.nft`, right);
    assert.equal(await firewall.check(), false);
    for (const damage of [
      "flush ruleset",
      "flush chain ip flannel-ipv4 postrtg",
      "insert rule ip flannel-ipv4 forward drop",
    ]) {
      run("nft", damage);
      assert.equal(await firewall.check(), true, damage);
      assert.equal(run("nft", "list", "ruleset"), right, damage);
    }
    firewall.close();
  });
});
