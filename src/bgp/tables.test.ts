import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parsePrefix } from "../ip/prefix.ts";
import { formatAsPath } from "./as-path.ts";
import { DEFAULT_LOCAL_PREF } from "./attribute-table.ts";
import type { PathAttributes } from "./attributes.ts";
import { exportAttributes, exportRefusal, type ExportPolicy } from "./export-policy.ts";
import { compileFilter, type FilterRules } from "./filters.ts";
import { ASN, listenerOf, path, policyOf, settle, shown, tablesWith, tell, type Listener } from "./tables.testing.ts";
import type { Tables } from "./tables.ts";
import { routeViews } from "./views.ts";

describe("learned routes", () => {
  test("are told to the kernel as they come, change and go", () => {
    const tables = tablesWith();
    const one = listenerOf(tables, 1, true);
    const two = listenerOf(tables, 2, true);
    tell(tables, one, ["10.1.0.0/16", "10.2.0.0/16"], path("192.0.2.11"));
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 via 11 from peer1", "10.2.0.0/16 via 11 from peer1"]);
    tell(tables, two, ["10.2.0.0/16"], path("192.0.2.12", [], { localPref: 200 }));
    assert.deepEqual(shown(settle(tables)), ["10.2.0.0/16 via 12 from peer2"]);
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.11"));
    assert.deepEqual(shown(settle(tables)), [], "said again, nothing changes");
    tell(tables, two, [], path("192.0.2.12"), ["10.2.0.0/16", "10.9.0.0/16"]);
    tell(tables, one, [], path("192.0.2.11"), ["10.1.0.0/16"]);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 gone", "10.2.0.0/16 via 11 from peer1"]);
    tables.removePeer(one.table.index);
    assert.deepEqual(shown(settle(tables)), ["10.2.0.0/16 gone"]);
    assert.equal(tables.sets.size, 0, "attributes that nobody uses are forgotten");
    assert.equal(tables.ribs[4].prefixes.size, 0, "and prefixes");
  });

  test("have several next hops where paths are equal, until they are not", () => {
    const tables = tablesWith();
    const one = listenerOf(tables, 1, true);
    const two = listenerOf(tables, 2, true);
    tell(tables, two, ["10.1.0.0/16"], path("192.0.2.12"));
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.11"));
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 via 11,12 from peer1"]);
    tell(tables, two, [], path("192.0.2.12"), ["10.1.0.0/16"]);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 via 11 from peer1"]);
    tell(tables, two, ["10.1.0.0/16"], path("192.0.2.11"));
    assert.deepEqual(shown(settle(tables)), [], "the same next hop twice is one");
    assert.equal(tables.learned().length, 1);
  });

  test("wait for their next hop, and follow it", () => {
    let reachable = false;
    const tables = tablesWith(() => (reachable ? { metric: 3 } : undefined));
    const one = listenerOf(tables, 1, true);
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.11"));
    assert.deepEqual(settle(tables), []);
    const reason = routeViews(tables, [], { view: "best" })[0]?.reason;
    assert.equal(reason, "its next hop cannot be reached");
    reachable = true;
    tables.recheckNextHops();
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 via 11 from peer1"]);
    tables.recheckNextHops();
    assert.deepEqual(settle(tables), []);
    reachable = false;
    tables.recheckNextHops();
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 gone"]);
  });

  test("give way to our own route to the same prefix", () => {
    const tables = tablesWith();
    tell(tables, listenerOf(tables, 1, true), ["10.1.0.0/16"], path("192.0.2.11"));
    settle(tables);
    tables.setOrigination([{ prefix: parsePrefix("10.1.0.0/16") }]);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 gone"]);
    tables.setOrigination([]);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 via 11 from peer1"]);
  });

  test("come before what other programs wrote into the kernel, which is told where there is nothing else", () => {
    const tables = tablesWith();
    const [one, other] = [listenerOf(tables, 1, false), listenerOf(tables, 2, false)];
    for (const listener of [one, other]) tables.join(listener.policy, listener);
    const asPath = (): string => formatAsPath(other.told.get("10.1.0.0/16")!.asPath);
    const foreign = { prefix: parsePrefix("10.1.0.0/16"), lastResort: true };
    tables.setOrigination([foreign]);
    assert.deepEqual(shown(settle(tables)), []);
    assert.equal(asPath(), String(ASN));
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.11", [65001]));
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 via 11 from peer1"]);
    assert.equal(asPath(), `${ASN} 65001`);
    const [loser] = routeViews(tables, [], { view: "best" }).filter(({ chosen }) => !chosen);
    assert.match(`${loser?.from}: ${loser?.reason}`, /^local: .*what others wrote into the kernel comes last$/);
    tables.setOrigination([foreign, { prefix: foreign.prefix }]);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 gone"], "our own comes before both");
    tables.setOrigination([]);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 via 11 from peer1"]);
  });

  test("are kept while their peer restarts, and swept when it has told all", () => {
    const tables = tablesWith();
    const one = listenerOf(tables, 1, true);
    tell(tables, one, ["10.1.0.0/16", "10.2.0.0/16"], path("192.0.2.11"));
    settle(tables);
    tables.ribs[4].markStale(one.table.index);
    assert.equal(tables.ribs[4].counts(one.table.index).stale, 2);
    assert.deepEqual(settle(tables), [], "stale routes go on being used");
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.11"));
    tables.ribs[4].drop(one.table.index, "stale");
    assert.deepEqual(shown(settle(tables)), ["10.2.0.0/16 gone"]);
    assert.deepEqual({ ...tables.ribs[4].counts(one.table.index) }, { received: 1, accepted: 1, stale: 0 });
  });

  test("are judged anew when the import filter changes", () => {
    const tables = tablesWith();
    const one = listenerOf(tables, 1, true);
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.11"));
    settle(tables);
    const rules: FilterRules = { rules: [{ name: "not today", match: {}, action: "reject" }], otherwise: "reject" };
    one.table.imports = { 4: { ...one.table.imports[4]!, filter: compileFilter(rules, 4, "iBGP") } };
    tables.reimport(one.table, 4);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 gone"]);
    const [view] = routeViews(tables, [], { view: "in" });
    assert.deepEqual([view?.chosen, view?.reason], [false, "import filter: not today"]);
    const softer: FilterRules = {
      rules: [{ name: "less", match: {}, action: "accept", operations: [{ type: "setLocalPref", value: 50 }] }],
      otherwise: "reject",
    };
    one.table.imports = { 4: { ...one.table.imports[4]!, filter: compileFilter(softer, 4, "iBGP") } };
    tables.reimport(one.table, 4);
    assert.equal(settle(tables)[0]?.attributes?.localPref, 50);
  });

  const refused: { name: string; attributes: PathAttributes; internal: boolean; reason: RegExp }[] = [
    { name: "our AS in the path", attributes: path("192.0.2.11", [65001, ASN]), internal: false, reason: /a loop/ },
    {
      name: "our router ID as originator",
      attributes: path("192.0.2.11", [], { originatorId: 99 }),
      internal: true,
      reason: /ORIGINATOR_ID/,
    },
    {
      name: "our cluster in the list",
      attributes: path("192.0.2.11", [], { clusterList: [99] }),
      internal: true,
      reason: /CLUSTER_LIST/,
    },
    { name: "our address as next hop", attributes: path("192.0.2.1"), internal: true, reason: /our own address/ },
  ];
  for (const { name, attributes, internal, reason } of refused) {
    test(`are refused: ${name}`, () => {
      const tables = tablesWith();
      tell(tables, listenerOf(tables, 1, internal), ["10.1.0.0/16"], attributes);
      assert.deepEqual(settle(tables), []);
      const [view] = routeViews(tables, [], { view: "in", peer: "peer1" });
      assert.match(view?.reason ?? "", reason);
    });
  }

  test("are withdrawn by a malformed announcement (RFC 7606)", () => {
    const tables = tablesWith();
    const one = listenerOf(tables, 1, true);
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.11"));
    settle(tables);
    const problems = tell(tables, one, ["10.1.0.0/16"], path("224.0.0.1"));
    assert.match(problems.join(), /routes treated as withdrawn: NEXT_HOP/);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 gone"]);
  });
});

describe("routes told", () => {
  test("equal attributes share messages, and members the bytes", () => {
    const tables = tablesWith();
    const listeners = [1, 2, 3].map((number) => listenerOf(tables, number, true));
    for (const listener of listeners) tables.join(listener.policy, listener);
    settle(tables);
    tables.setOrigination(
      Array.from({ length: 500 }, (_, i) => ({ prefix: parsePrefix(`10.${i >> 8}.${i & 255}.0/24`) })),
    );
    settle(tables);
    assert.equal(tables.groups.size, 1);
    for (const { told, messages } of listeners) {
      assert.equal(told.size, 500);
      assert.equal(messages.length, 1);
      assert.equal(messages[0]?.buffer, listeners[0]?.messages[0]?.buffer);
    }
  });

  test("a filter that changes withdraws and announces the difference, and nothing else goes on the wire twice", () => {
    const tables = tablesWith();
    const one = listenerOf(tables, 1, true);
    tables.setOrigination(["10.1.0.0/16", "10.2.0.0/16"].map((prefix) => ({ prefix: parsePrefix(prefix) })));
    const only = (text: string): ExportPolicy =>
      policyOf(true, {
        rules: [
          { name: text, match: { prefixes: [{ prefix: parsePrefix(text), operator: "equal" }] }, action: "accept" },
        ],
        otherwise: "reject",
      });
    const before = tables.join(only("10.1.0.0/16"), one);
    settle(tables);
    assert.deepEqual([...one.told.keys()], ["10.1.0.0/16"]);
    assert.equal(before.advertised(one.peer), 1);
    const after = tables.join(only("10.2.0.0/16"), one, before);
    settle(tables);
    assert.deepEqual([...one.told.keys()], ["10.2.0.0/16"]);
    assert.equal(tables.join(only("10.2.0.0/16"), one, after), after);
    assert.deepEqual([...tables.groups.values()], [after], "a group without members is gone");
  });

  test("after a restart, learned routes are told only when it is over", () => {
    const tables = tablesWith();
    tables.defer();
    const inner = listenerOf(tables, 1, true);
    const outer = listenerOf(tables, 2, false);
    tables.join(outer.policy, outer);
    tell(tables, inner, ["10.1.0.0/16"], path("192.0.2.11"));
    tables.setOrigination([{ prefix: parsePrefix("10.2.0.0/16") }]);
    settle(tables);
    assert.deepEqual([...outer.told.keys()], ["10.2.0.0/16"]);
    tables.release();
    settle(tables);
    assert.deepEqual([...outer.told.keys()].toSorted(), ["10.1.0.0/16", "10.2.0.0/16"]);
  });

  const NO_EXPORT = 0xffffff01;
  const NO_ADVERTISE = 0xffffff02;
  const kept: { name: string; internal: boolean; attributes: PathAttributes; reason: RegExp }[] = [
    { name: "iBGP to iBGP", internal: true, attributes: path("192.0.2.11"), reason: /not passed on in iBGP/ },
    {
      name: "NO_EXPORT to eBGP",
      internal: false,
      attributes: path("192.0.2.11", [], { communities: [NO_EXPORT] }),
      reason: /NO_EXPORT/,
    },
    {
      name: "NO_ADVERTISE",
      internal: false,
      attributes: path("192.0.2.11", [], { communities: [NO_ADVERTISE] }),
      reason: /NO_ADVERTISE/,
    },
  ];
  for (const { name, internal, attributes, reason } of kept) {
    test(`are kept back: ${name}`, () => {
      const tables = tablesWith();
      const from = listenerOf(tables, 1, true);
      const to = listenerOf(tables, 2, internal);
      const group = tables.join(to.policy, to);
      tell(tables, from, ["10.1.0.0/16"], attributes);
      settle(tables);
      assert.equal(to.told.size, 0);
      const [view] = routeViews(tables, [{ index: to.peer, name: "peer2", groups: { 4: group } }], { view: "out" });
      assert.match(view?.reason ?? "", reason);
    });
  }

  test("in eBGP our AS comes first, the next hop is ours, and what is internal stays inside", () => {
    const tables = tablesWith();
    const from = listenerOf(tables, 1, true);
    const to = listenerOf(tables, 2, false);
    tables.join(to.policy, to);
    tell(tables, from, ["10.1.0.0/16"], path("192.0.2.11", [65001], { med: 5, localPref: 300 }));
    settle(tables);
    assert.deepEqual(to.told.get("10.1.0.0/16"), path("192.0.2.1", [ASN, 65001]));
  });
});

/** What a peer should know, worked out from nothing but who said what last. */
function expectedFor(
  listener: Listener,
  said: ReadonlyMap<string, ReadonlyMap<Listener, PathAttributes>>,
  own: ReadonlySet<string>,
  tables: Tables,
) {
  const expected = new Map<string, PathAttributes>();
  for (const prefix of new Set([...said.keys(), ...own])) {
    const paths = [...(said.get(prefix) ?? [])].toSorted(([a, x], [b, y]) => {
      const prefer = (y.localPref ?? DEFAULT_LOCAL_PREF) - (x.localPref ?? DEFAULT_LOCAL_PREF);
      return (
        prefer ||
        (x.asPath[0]?.asns.length ?? 0) - (y.asPath[0]?.asns.length ?? 0) ||
        Number(a.table.internal) - Number(b.table.internal) ||
        a.peer - b.peer
      );
    });
    const best = own.has(prefix) ? undefined : paths[0];
    if (best !== undefined && best[0] === listener) continue;
    const source = best?.[0].table ?? tables.peer(0);
    const attributes: PathAttributes = best?.[1] ?? { origin: "igp", asPath: [] };
    if (exportRefusal(attributes, source, listener.policy) !== undefined) continue;
    expected.set(prefix, exportAttributes(attributes, source, listener.policy, []));
  }
  return expected;
}

test("whatever peers say, miss and in whatever order, each knows in the end what it should", () => {
  const PREFIXES = Array.from({ length: 12 }, (_, i) => `10.${i}.0.0/16`);
  const peer = fc.nat(4);
  const prefixes = fc.subarray(PREFIXES, { minLength: 1 });
  const operation = fc.oneof(
    fc.record({
      type: fc.constant("announce" as const),
      peer,
      prefixes,
      asns: fc.constantFrom([], [65001], [65001, 65002]),
      pref: fc.constantFrom(100, 200),
    }),
    fc.record({ type: fc.constant("withdraw" as const), peer, prefixes }),
    fc.record({ type: fc.constant("originate" as const), prefixes: fc.subarray(PREFIXES) }),
    fc.record({ type: fc.constantFrom("toggle" as const, "rejoin" as const, "drop" as const), peer }),
    fc.record({ type: fc.constant("flush" as const) }),
  );
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      const tables = tablesWith();
      const listeners = [true, true, false, false, false].map((internal, index) =>
        listenerOf(tables, index + 1, internal),
      );
      for (const listener of listeners) listener.group = tables.join(listener.policy, listener);
      const said = new Map<string, Map<Listener, PathAttributes>>();
      let own = new Set<string>();
      for (const step of operations) {
        const listener = "peer" in step ? listeners[step.peer]! : listeners[0]!;
        switch (step.type) {
          case "announce": {
            const attributes = path(
              `192.0.2.${10 + step.peer}`,
              step.asns,
              listener.table.internal ? { localPref: step.pref } : {},
            );
            tell(tables, listener, step.prefixes, attributes);
            for (const prefix of step.prefixes) said.set(prefix, new Map(said.get(prefix)).set(listener, attributes));
            break;
          }
          case "withdraw":
            tell(tables, listener, [], path("192.0.2.9"), step.prefixes);
            for (const prefix of step.prefixes) said.get(prefix)?.delete(listener);
            break;
          case "drop":
            tables.ribs[4].drop(listener.peer, "all");
            for (const paths of said.values()) paths.delete(listener);
            break;
          case "originate":
            own = new Set(step.prefixes);
            tables.setOrigination(step.prefixes.map((prefix) => ({ prefix: parsePrefix(prefix) })));
            break;
          case "toggle":
            listener.open = !listener.open;
            break;
          case "rejoin":
            tables.leave(listener.group!, listener);
            listener.told.clear();
            listener.complete = false;
            listener.group = tables.join(listener.policy, listener);
            break;
          case "flush":
            tables.flush(true);
            break;
        }
      }
      for (const listener of listeners) listener.open = true;
      settle(tables);
      for (const [prefix, paths] of said) if (paths.size === 0) said.delete(prefix);
      for (const listener of listeners) {
        const expected = expectedFor(listener, said, own, tables);
        assert.deepEqual(listener.told, expected);
        assert.equal(listener.group?.advertised(listener.peer), expected.size);
        assert.ok(listener.complete);
      }
      assert.equal(tables.ribs[4].prefixes.size, new Set([...said.keys(), ...own]).size);
    }),
    { numRuns: 300 },
  );
});
