import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  branchName,
  CHAIN_NAME_MAX,
  chainName,
  isOurChain,
  isOurSet,
  limitedName,
  quoted,
  ruleHashes,
  SET_NAME_MAX,
  setName,
  temporarySetName,
} from "./iptablesNames.ts";

describe("names", () => {
  test("stand as they are where they are short, and end in a hash where they are not", () => {
    assert.equal(chainName("cali-FORWARD"), "cali-FORWARD");
    assert.equal(chainName("cali-pi-knp/default/web"), "cali-pi-knp/default/web");
    // SHA-256 of what follows the prefix, in base64url.
    assert.equal(chainName("cali-pi-knp/production/allow-from-monitoring"), "cali-pi-_kupRsXBPtAQI3SDL16H");
    assert.match(chainName("cali-pro-kns.a-namespace-with-a-long-name"), /^cali-pro-_[\w-]{18}$/);
    assert.equal(branchName("cali-from-wl-dispatch", "1"), "cali-from-wl-dispatch-1");
    assert.equal(setName(4, "masq-ipam-pools"), "cali40masq-ipam-pools");
    assert.equal(setName(6, `s:${"x".repeat(38)}`), `cali60s:${"x".repeat(23)}`);
    assert.equal(temporarySetName(6, 3), "cali6t3");
  });

  test("are never longer than the kernel takes, hold nothing that needs quotes, and are never one for two", () => {
    const suffix = fc.oneof(
      fc.string(),
      fc.string({ minLength: 15, maxLength: 40 }),
      fc.constantFrom("_", "_a", "é", "a b"),
    );
    const prefix = fc.constantFrom("cali-", "cali-pi-", "cali-pri-", "cali-fw-", "cali-fhfw-", "other");
    const name = fc.tuple(prefix, suffix).map((parts) => parts.join(""));
    fc.assert(
      fc.property(fc.uniqueArray(name, { maxLength: 20 }), (names) => {
        const chains = names.map(chainName);
        const sets = names.map((id) => setName(4, id));
        for (const one of chains) {
          assert.ok(one.length <= CHAIN_NAME_MAX && isOurChain(one) && /^[\w./:@=,-]+$/.test(one), one);
        }
        for (const one of sets) assert.ok(one.length <= SET_NAME_MAX && isOurSet(4, one) && !isOurSet(6, one), one);
        assert.equal(new Set(chains).size, names.length);
        assert.equal(new Set(sets).size, names.length);
      }),
    );
  });

  test("that look as if they were shortened are shortened", () => {
    const hashed = limitedName("cali-", "a".repeat(40), 28);
    assert.notEqual(limitedName("cali-", hashed.slice(5), 28), hashed);
  });

  test("of others are not ours", () => {
    assert.equal(isOurChain("KUBE-FORWARD"), false);
    assert.equal(isOurChain("calico"), false);
    assert.equal(isOurSet(4, "cali60masq"), false);
    assert.equal(isOurSet(4, "KUBE-CLUSTER-IP"), false);
  });
});

test("a rule's mark is that of the rules before it, too", () => {
  const [a, b, c] = ruleHashes("cali-x", ["-j ACCEPT", "-j DROP", "-j DROP"]);
  assert.match(a!, /^[\w-]{16}$/);
  assert.equal(new Set([a, b, c]).size, 3);
  assert.deepEqual(ruleHashes("cali-x", ["-j ACCEPT", "-j DROP"]), [a, b]);
  assert.notDeepEqual(ruleHashes("cali-y", ["-j ACCEPT"]), [a]);
});

test("quotes hold what iptables would read otherwise", () => {
  assert.equal(quoted(String.raw`a "b" \c`), String.raw`"a \"b\" \\c"`);
  assert.throws(() => quoted("a\nb"), /cannot read/);
});
