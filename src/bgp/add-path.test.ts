import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { PathAttributes } from "./attributes.ts";
import { exportAttributes, exportRefusal } from "./export-policy.ts";
import { compileFilter, type FilterRules } from "./filters.ts";
import { wordsOfPrefix } from "./nlri.ts";
import { listenerOf, path, settle, shown, tablesWith, tell, type Listener } from "./tables.testing.ts";
import { routeViews } from "./views.ts";
import { parsePrefix } from "../ip/prefix.ts";

const ALL: FilterRules = { rules: [], otherwise: "accept" };
const NOT_ONE: FilterRules = {
  rules: [
    {
      name: "not one",
      match: { prefixes: [{ prefix: parsePrefix("10.1.0.0/16"), operator: "equal" }] },
      action: "reject",
    },
  ],
  otherwise: "accept",
};

/** What a peer knows, without the identifiers: prefix to the sorted list of its paths. */
function known(told: ReadonlyMap<string, PathAttributes>): Map<string, string[]> {
  const paths = new Map<string, string[]>();
  for (const [key, attributes] of told) {
    const prefix = key.split(" ")[0]!;
    paths.set(prefix, [...(paths.get(prefix) ?? []), textOf(attributes)].toSorted());
  }
  return paths;
}

function textOf(attributes: PathAttributes): string {
  return JSON.stringify(attributes, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value));
}

describe("add-path (RFC 7911)", () => {
  test("several paths of one peer to one prefix stand side by side, and are several next hops", () => {
    const tables = tablesWith();
    const one = listenerOf(tables, 1, true, { addPath: true });
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.11"), [], 5);
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.12"), [], 3);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 via 12,11 from peer1"]);
    const views = routeViews(tables, [], { view: "in" }).map(({ pathId, chosen }) => [pathId, chosen]);
    assert.deepEqual(new Map(views as [number, boolean][]), new Map([3, 5].map((pathId) => [pathId, true])));
    tell(tables, one, [], path("192.0.2.12"), ["10.1.0.0/16"], 3);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 via 11 from peer1"]);
    tell(tables, one, [], path("192.0.2.12"), ["10.1.0.0/16"], 5);
    assert.deepEqual(shown(settle(tables)), ["10.1.0.0/16 gone"]);
  });

  test("a peer is told every usable path but its own, and only what changes goes on the wire", () => {
    const tables = tablesWith();
    const [one, two, three] = [1, 2, 3].map((number) =>
      listenerOf(tables, number, true, { client: true, addPath: true }),
    ) as [Listener, Listener, Listener];
    for (const listener of [one, two, three]) listener.group = tables.join(listener.policy, listener);
    tell(tables, one, ["10.1.0.0/16"], path("192.0.2.11", [], { localPref: 200 }));
    tell(tables, two, ["10.1.0.0/16"], path("192.0.2.12"));
    settle(tables);
    assert.deepEqual([one.told.size, two.told.size, three.told.size], [1, 1, 2]);
    assert.deepEqual(new Set(three.told.values().map(({ originatorId }) => originatorId)), new Set([1, 2]));
    assert.equal(three.group?.advertised(three.peer), 2);
    const before = [one, two, three].map(({ messages }) => messages.length);
    tell(tables, two, ["10.1.0.0/16"], path("192.0.2.12", [], { localPref: 50 }));
    settle(tables);
    assert.deepEqual(
      [one, two, three].map(({ messages }, index) => messages.length - before[index]!),
      [1, 0, 1],
      "the path of the second, to the others",
    );
    const views = routeViews(tables, [{ index: three.peer, name: "peer3", groups: { 4: three.group! } }], {
      view: "out",
    });
    assert.equal(views.filter(({ chosen, pathId }) => chosen && pathId !== undefined).length, 2);
  });
});

test("whatever peers say and miss, each knows in the end every path that it should", () => {
  const PREFIXES = Array.from({ length: 5 }, (_, i) => `10.${i}.0.0/16`);
  const peer = fc.nat(3);
  const prefixes = fc.subarray(PREFIXES, { minLength: 1 });
  const operation = fc.oneof(
    fc.record({
      type: fc.constant("announce" as const),
      peer,
      prefixes,
      pathId: fc.nat(2),
      pref: fc.constantFrom(100, 200),
    }),
    fc.record({ type: fc.constant("withdraw" as const), peer, prefixes, pathId: fc.nat(2) }),
    fc.record({ type: fc.constant("originate" as const), prefixes: fc.subarray(PREFIXES) }),
    fc.record({
      type: fc.constantFrom("toggle" as const, "rejoin" as const, "drop" as const, "refilter" as const),
      peer,
    }),
    fc.record({ type: fc.constant("flush" as const) }),
  );
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      const tables = tablesWith();
      // Clients of a reflector, an eBGP peer, and a client that knows nothing of identifiers.
      const listeners = [
        listenerOf(tables, 1, true, { client: true, addPath: true }),
        listenerOf(tables, 2, true, { client: true, addPath: true }),
        listenerOf(tables, 3, false, { addPath: true }),
        listenerOf(tables, 4, true, { client: true }),
      ];
      const policies = new Map(listeners.map((listener) => [listener, listener.policy]));
      for (const listener of listeners) listener.group = tables.join(listener.policy, listener);
      const said = new Map<string, { from: Listener; prefix: string; attributes: PathAttributes }>();
      let own = new Set<string>();
      for (const step of operations) {
        const listener = "peer" in step ? listeners[step.peer]! : listeners[0]!;
        const pathId = "pathId" in step && listener.policy.addPath ? step.pathId : 0;
        switch (step.type) {
          case "announce": {
            const { internal } = listener.table;
            const attributes = path(`192.0.2.${20 + step.peer * 5 + pathId}`, internal ? [] : [65001], {
              ...(internal && { localPref: step.pref }),
            });
            tell(tables, listener, step.prefixes, attributes, [], pathId);
            for (const prefix of step.prefixes) {
              said.set(`${step.peer} ${pathId} ${prefix}`, { from: listener, prefix, attributes });
            }
            break;
          }
          case "withdraw":
            tell(tables, listener, [], path("192.0.2.9"), step.prefixes, pathId);
            for (const prefix of step.prefixes) said.delete(`${step.peer} ${pathId} ${prefix}`);
            break;
          case "drop":
            tables.ribs[4].drop(listener.peer, "all");
            for (const [key, { from }] of said) if (from === listener) said.delete(key);
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
            listener.group = tables.join(policies.get(listener)!, listener);
            break;
          case "refilter": {
            const before = policies.get(listener)!;
            const rules = before.filter.key.includes("not one") ? ALL : NOT_ONE;
            const policy = { ...before, filter: compileFilter(rules, 4, before.internal ? "iBGP" : "eBGP") };
            policies.set(listener, policy);
            listener.group = tables.join(policy, listener, listener.group);
            break;
          }
          case "flush":
            tables.flush(true);
            break;
        }
      }
      for (const listener of listeners) listener.open = true;
      settle(tables);
      for (const listener of listeners.slice(0, 3)) {
        const policy = policies.get(listener)!;
        const expected = new Map<string, PathAttributes>();
        const sources = [
          ...[...said.values()].map(({ from, ...rest }) => ({ ...rest, source: from.table })),
          ...[...own].map((prefix) => ({
            prefix,
            source: tables.peer(0),
            attributes: { origin: "igp", asPath: [] } as PathAttributes,
          })),
        ];
        for (const [index, { prefix, source, attributes }] of sources.entries()) {
          if (source === listener.table || exportRefusal(attributes, source, policy) !== undefined) continue;
          const { w0, length } = wordsOfPrefix(parsePrefix(prefix));
          if (!policy.filter.evaluate(w0, 0, 0, 0, length, attributes, "peers").accept) continue;
          expected.set(`${prefix} #${index}`, exportAttributes(attributes, source, policy, []));
        }
        assert.deepEqual(known(listener.told), known(expected), listener.table.name);
        assert.equal(listener.group?.advertised(listener.peer), expected.size);
      }
    }),
    { numRuns: 300 },
  );
});
