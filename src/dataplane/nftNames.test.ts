import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { baseChain, chainName, netsName, setName } from "./nftNames.ts";

describe("names in nf_tables", () => {
  test("of chains are Calico's behind their layer", () => {
    assert.equal(chainName("filter", "cali-pi-knp/default/web"), "filter-cali-pi-knp/default/web");
    assert.equal(chainName("nat", "cali-fip-dnat"), "nat-cali-fip-dnat");
  });

  test("that are too long, or that nft could not read, become hashes that differ as they do", () => {
    const long = `cali-pi-knp/${"n".repeat(63)}/${"p".repeat(253)}`;
    for (const [a, b] of [
      [long, `${long.slice(0, -1)}q`],
      ["cali-fh-eth0:1", "cali-fh-eth0:2"],
      ["cali-tw-wé", "cali-tw-wè"],
    ] as const) {
      const [one, other] = [chainName("filter", a), chainName("filter", b)];
      assert.match(one, /^filter-cali-[a-z]+-_[A-Za-z0-9_-]{43}$/);
      assert.notEqual(one, other);
      assert.equal(one, chainName("filter", a));
    }
    assert.equal(chainName("filter", `cali-pi-${"p".repeat(240)}`).length, 255);
    assert.ok(chainName("filter", `cali-pi-${"p".repeat(241)}`).length < 70);
  });

  test("of sets are cut as Calico cuts them", () => {
    assert.equal(setName(4, "s:2Sm2HzMbnUPWuVAjPoPiYiM0xOJq-CnyQFyoYg"), "cali40s-2Sm2HzMbnUPWuVAjPoPiYiM");
    assert.equal(setName(6, "masq-ipam-pools"), "cali60masq-ipam-pools");
    assert.equal(netsName(4, "masq-ipam-pools"), "cali40masq-ipam-pools-nets");
  });

  test("base chains have Calico's types and priorities", () => {
    const rows = [
      ["raw", "PREROUTING", "filter prerouting -300"],
      ["mangle", "OUTPUT", "route output -150"],
      ["mangle", "POSTROUTING", "filter postrouting -150"],
      ["nat", "PREROUTING", "nat prerouting -100"],
      ["nat", "INPUT", "nat input -100"],
      ["nat", "OUTPUT", "nat output 110"],
      ["nat", "POSTROUTING", "nat postrouting 110"],
      ["filter", "FORWARD", "filter forward 0"],
    ] as const;
    for (const [layer, hook, expected] of rows) {
      const { type, hook: at, priority, policy } = baseChain(layer, hook);
      assert.deepEqual([`${type} ${at} ${priority}`, policy], [expected, "accept"]);
    }
  });
});
