import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { formatPrefix, parsePrefix, prefixCovers, samePrefix } from "../ip/prefix.ts";
import { formatAsPath } from "./as-path.ts";
import type { PathAttributes } from "./attributes.ts";
import { prefixArbitrary } from "./bgp.testing.ts";
import {
  applyOperations,
  compileFilter,
  defaultRules,
  exportBlocks,
  filterKey,
  importPools,
  type FilterMatch,
  type FilterRules,
  type PrefixMatch,
} from "./filters.ts";
import { wordsOfPrefix } from "./nlri.ts";

const PLAIN: PathAttributes = {
  origin: "igp",
  asPath: [{ type: "sequence", asns: [65001, 65002] }],
  communities: [0xfde80001],
};

function judge(
  rules: FilterRules,
  prefix: string,
  attributes = PLAIN,
  source: "local" | "peers" = "peers",
  type: "iBGP" | "eBGP" = "iBGP",
) {
  const parsed = parsePrefix(prefix);
  const { w0, w1, w2, w3, length } = wordsOfPrefix(parsed);
  return compileFilter(rules, parsed.address.family, type).evaluate(w0, w1, w2, w3, length, attributes, source);
}
const accepting = (match: FilterMatch): FilterRules => ({
  rules: [{ name: "wanted", match, action: "accept" }],
  otherwise: "reject",
});

describe("what a node tells and believes", () => {
  const blocks = ["10.244.1.0/26", "10.244.7.64/26", "2001:db8:0:1::/122"].map(parsePrefix);
  const told = exportBlocks(blocks, [parsePrefix("10.96.0.0/12")]);
  const cases: { prefix: string; source: "local" | "peers"; accept: boolean; rule: RegExp }[] = [
    { prefix: "10.244.1.0/26", source: "local", accept: true, rule: /a block of this node/ },
    { prefix: "2001:db8:0:1::/122", source: "local", accept: true, rule: /a block of this node/ },
    { prefix: "10.244.1.5/32", source: "local", accept: false, rule: /inside a block/ },
    { prefix: "10.244.1.0/26", source: "peers", accept: false, rule: /inside a block/ },
    { prefix: "10.244.1.64/26", source: "local", accept: false, rule: /no rule accepts it/ },
    { prefix: "10.96.0.10/32", source: "local", accept: true, rule: /advertised range/ },
    { prefix: "192.0.2.0/24", source: "local", accept: false, rule: /no rule accepts it/ },
  ];
  for (const { prefix, source, accept, rule } of cases) {
    test(`${source} ${prefix} is ${accept ? "told" : "not told"}`, () => {
      const verdict = judge(told, prefix, PLAIN, source);
      assert.equal(verdict.accept, accept);
      assert.match(verdict.rule, rule);
    });
  }

  test("routes within the pools are believed, of either family", () => {
    const believed = importPools(["10.244.0.0/16", "2001:db8::/32"].map(parsePrefix));
    const accepted = (prefix: string): boolean => judge(believed, prefix).accept;
    assert.deepEqual(["10.244.9.0/26", "10.244.0.0/16", "2001:db8:9::/64"].map(accepted), [true, true, true]);
    assert.deepEqual(["10.0.0.0/8", "10.245.0.0/26", "2001:db9::/64", "0.0.0.0/0"].map(accepted), [
      false,
      false,
      false,
      false,
    ]);
  });

  test("without rules, iBGP says and believes all, eBGP nothing (RFC 8212)", () => {
    assert.equal(judge(defaultRules("iBGP"), "10.0.0.0/8").accept, true);
    const verdict = judge(defaultRules("eBGP"), "10.0.0.0/8", PLAIN, "peers", "eBGP");
    assert.equal(verdict.accept, false);
    assert.match(verdict.rule, /RFC 8212/);
  });
});

describe("matches", () => {
  const large = { global: 70000, local1: 1, local2: 2 };
  const cases: { name: string; match: FilterMatch; holds: boolean; attributes?: PathAttributes }[] = [
    { name: "nothing asked", match: {}, holds: true },
    { name: "the other family", match: { family: 6 }, holds: false },
    { name: "the other kind of peer", match: { peerType: "eBGP" }, holds: false },
    { name: "source", match: { source: "local" }, holds: false },
    { name: "a community that is there", match: { communities: [0xfde80001] }, holds: true },
    { name: "two, one of them missing", match: { communities: [0xfde80001, 1] }, holds: false },
    {
      name: "a large community",
      match: { largeCommunities: [large] },
      holds: true,
      attributes: { ...PLAIN, largeCommunities: [{ ...large }] },
    },
    { name: "a large community that is missing", match: { largeCommunities: [large] }, holds: false },
    { name: "how the path begins", match: { asPathPrefix: [65001] }, holds: true },
    { name: "how it goes on", match: { asPathPrefix: [65002] }, holds: false },
    { name: "two of which one fails", match: { asPathPrefix: [65001], source: "local" }, holds: false },
    { name: "one of no prefixes", match: { prefixes: [] }, holds: false },
  ];
  for (const { name, match, holds, attributes } of cases) {
    test(name, () => assert.equal(judge(accepting(match), "10.0.0.0/8", attributes).accept, holds));
  }

  test("prefixes compare as the words say", () => {
    const operator = fc.constantFrom("equal" as const, "notEqual" as const, "in" as const, "notIn" as const);
    for (const family of [4, 6] as const) {
      // Few different values, so that they meet.
      const prefix = fc.oneof(
        prefixArbitrary(family),
        fc.constantFrom(
          ...(family === 4
            ? ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "0.0.0.0/0"]
            : ["2001:db8::/32", "2001:db8::/64", "2001:db8::1/128", "::/0"]
          ).map(parsePrefix),
        ),
      );
      const length = fc.option(fc.nat(family === 4 ? 32 : 128), { nil: undefined });
      fc.assert(
        fc.property(prefix, prefix, operator, length, length, (route, wanted, how, minLength, maxLength) => {
          const match: PrefixMatch = {
            prefix: wanted,
            operator: how,
            ...(minLength !== undefined && { minLength }),
            ...(maxLength !== undefined && { maxLength }),
          };
          const relation = {
            equal: samePrefix(wanted, route),
            notEqual: !samePrefix(wanted, route),
            in: prefixCovers(wanted, route),
            notIn: !prefixCovers(wanted, route),
          }[how];
          const expected = relation && route.length >= (minLength ?? 0) && route.length <= (maxLength ?? 128);
          assert.equal(judge(accepting({ prefixes: [match] }), formatPrefix(route)).accept, expected);
        }),
        { numRuns: 400 },
      );
    }
  });
});

describe("operations", () => {
  test("are those of the rules on the way, in order; a rejected route keeps none that matter", () => {
    const rules: FilterRules = {
      rules: [
        { name: "mark", match: {}, action: "continue", operations: [{ type: "addCommunity", community: 7 }] },
        { name: "never", match: { source: "local" }, action: "reject" },
        {
          name: "prefer",
          match: {},
          action: "accept",
          operations: [
            { type: "setLocalPref", value: 200 },
            { type: "prependAsPath", asns: [1, 2] },
          ],
        },
      ],
      otherwise: "reject",
    };
    const verdict = judge(rules, "10.0.0.0/8");
    assert.equal(verdict.rule, "prefer");
    const changed = applyOperations(PLAIN, verdict.operations);
    assert.deepEqual(changed.communities, [0xfde80001, 7]);
    assert.equal(changed.localPref, 200);
    assert.equal(formatAsPath(changed.asPath), "1 2 65001 65002");
    assert.deepEqual(PLAIN.communities, [0xfde80001], "the original is untouched");
  });

  test("adding what is there changes nothing", () => {
    const large = { global: 1, local1: 2, local2: 3 };
    const marked = applyOperations(PLAIN, [
      { type: "addCommunity", community: 0xfde80001 },
      { type: "addLargeCommunity", community: large },
      { type: "addLargeCommunity", community: { ...large } },
      { type: "setMed", value: 4 },
    ]);
    assert.deepEqual(marked, { ...PLAIN, largeCommunities: [large], med: 4 });
    assert.equal(applyOperations(PLAIN, []), PLAIN);
  });

  test("rules that say the same have the same key", () => {
    const rules = (): FilterRules => importPools([parsePrefix("10.244.0.0/16")]);
    assert.equal(filterKey(rules()), filterKey(rules()));
    assert.notEqual(filterKey(rules()), filterKey(importPools([parsePrefix("10.245.0.0/16")])));
  });
});
