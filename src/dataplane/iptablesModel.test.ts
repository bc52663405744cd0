import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { iptablesModel, type IptablesModel } from "./iptablesModel.ts";
import { scratchMarks } from "./iptablesRender.ts";
import type { ChainRule, DispatchMap, HookRule, Layer, Match, RuleChain, RulesetChange } from "./ruleset.ts";

const chain = (name: string, rules: readonly ChainRule[]): RuleChain => ({
  layer: "filter",
  name,
  rules,
  origin: `of ${name}`,
});
const accepting = (...matches: Match[]): ChainRule => ({ matches, actions: [{ do: "accept" }] });
const DISPATCH: ChainRule = { matches: [], actions: [{ do: "dispatch", map: "cali-map" }] };
const BAD: Match = { on: "interface", way: "in", name: "eth+" };
const SET: Match = { on: "set", side: "source", set: "s:one" };

function changeOf(
  chains: readonly (RuleChain | string)[],
  more: Partial<Pick<RulesetChange, "maps" | "hooks" | "sets">> = {},
): RulesetChange {
  const entries = chains.map((each) =>
    typeof each === "string" ? ([`filter/${each}`, undefined] as const) : ([`filter/${each.name}`, each] as const),
  );
  return { family: 4, chains: new Map(entries), maps: new Map(), sets: [], ...more };
}

function mapTo(entries: Record<string, string>): RulesetChange["maps"] {
  const map: DispatchMap = { layer: "filter", name: "cali-map", by: "in", entries: new Map(Object.entries(entries)) };
  return new Map([["filter/cali-map", map]]);
}

const modelOf = (): IptablesModel => iptablesModel(4, scratchMarks(0xffff0000));
const optionsOf = (model: IptablesModel, name: string, layer: Layer = "filter"): string[] | undefined =>
  model.tables[layer].chains.get(name)?.lines.map(({ options }) => options);
const changedIn = (model: IptablesModel): string[] => [...(model.takeChanged().get("filter") ?? [])].sort();

describe("what iptables' tables are to hold", () => {
  test("follows the chains, and the maps that they look at", () => {
    const model = modelOf();
    model.change(
      changeOf([chain("cali-A", [DISPATCH]), chain("cali-B", [accepting()])], { maps: mapTo({ cali1: "cali-B" }) }),
    );
    assert.deepEqual(optionsOf(model, "cali-A"), ["-i cali1 -g cali-B"]);
    assert.deepEqual(changedIn(model), ["cali-A", "cali-B"]);
    model.change(changeOf([], { maps: mapTo({ cali1: "cali-B", cali12: "cali-B", cali2: "cali-B" }) }));
    assert.deepEqual(optionsOf(model, "cali-A"), ["-i cali1+ -g cali-A-1", "-i cali2 -g cali-B"]);
    assert.deepEqual(optionsOf(model, "cali-A-1"), ["-i cali1 -g cali-B", "-i cali12 -g cali-B"]);
    assert.deepEqual(changedIn(model), ["cali-A", "cali-A-1"]);
    model.change(changeOf([], { maps: mapTo({}) }));
    assert.deepEqual(optionsOf(model, "cali-A"), []);
    assert.equal(optionsOf(model, "cali-A-1"), undefined);
    assert.deepEqual(changedIn(model), ["cali-A", "cali-A-1"]);
    model.change(changeOf(["cali-A"]));
    assert.equal(optionsOf(model, "cali-A"), undefined);
    assert.deepEqual(changedIn(model), ["cali-A"]);
    assert.deepEqual(changedIn(model), []);
  });

  test("is a chain that drops where iptables has no words, which is told as long as it is so", () => {
    const model = modelOf();
    const refusal = { origin: "of cali-A", reason: 'iptables cannot match an interface called "eth+"' };
    model.change(changeOf([chain("cali-A", [accepting(BAD)])]));
    assert.deepEqual(optionsOf(model, "cali-A"), ["-j DROP"]);
    assert.deepEqual(model.refusals(), [refusal]);
    model.retry();
    assert.deepEqual(model.refusals(), [refusal]);
    model.change(changeOf([chain("cali-A", [accepting(BAD)])]));
    assert.deepEqual(model.refusals(), [refusal]);
    model.change(changeOf([chain("cali-A", [accepting()])]));
    assert.deepEqual([optionsOf(model, "cali-A"), model.refusals()], [["-j ACCEPT"], []]);
  });

  test("is what stands in for a chain that is refused, where there is such, and drops where that is refused too", () => {
    const model = modelOf();
    const instead = [accepting({ on: "interface", way: "in", name: "eth0" })];
    model.change(changeOf([{ ...chain("cali-A", [accepting(BAD)]), instead }]));
    assert.deepEqual(optionsOf(model, "cali-A"), ["-i eth0 -j ACCEPT"]);
    model.change(changeOf([{ ...chain("cali-A", [accepting()]), instead }]));
    assert.ok(model.refuse("filter", "cali-A", "the kernel says no"));
    assert.deepEqual(optionsOf(model, "cali-A"), ["-i eth0 -j ACCEPT"]);
    assert.ok(model.refuse("filter", "cali-A", "and no again"));
    assert.deepEqual(optionsOf(model, "cali-A"), ["-j DROP"]);
    assert.equal(model.refuse("filter", "cali-A", "and again"), false);
    assert.deepEqual(model.refusals(), [{ origin: "of cali-A", reason: "the kernel says no" }]);
    model.change(changeOf([{ ...chain("cali-A", [accepting(BAD)]), instead: [accepting(BAD)] }]));
    assert.deepEqual(optionsOf(model, "cali-A"), ["-j DROP"]);
    model.retry();
    assert.deepEqual(optionsOf(model, "cali-A"), ["-j DROP"]);
  });

  test("in nat is a chain that does nothing", () => {
    const model = modelOf();
    model.change({
      ...changeOf([]),
      chains: new Map([["nat/cali-N", { ...chain("cali-N", [accepting(BAD)]), layer: "nat" }]]),
    });
    assert.deepEqual(optionsOf(model, "cali-N", "nat"), []);
  });

  test("is a chain that drops where the kernel refused it, with its branches, until it changes", () => {
    const model = modelOf();
    const all = [chain("cali-A", [DISPATCH]), chain("cali-B", [])];
    model.change(changeOf(all, { maps: mapTo({ cali1: "cali-B", cali12: "cali-B", cali2: "cali-B" }) }));
    changedIn(model);
    model.refuse("filter", "cali-A-1", "no such thing");
    assert.deepEqual(optionsOf(model, "cali-A"), ["-j DROP"]);
    assert.equal(optionsOf(model, "cali-A-1"), undefined);
    assert.deepEqual(changedIn(model), ["cali-A", "cali-A-1"]);
    assert.deepEqual(model.refusals(), [{ origin: "of cali-A", reason: "no such thing" }]);
    model.retry();
    assert.equal(optionsOf(model, "cali-A")?.length, 2);
    model.refuse("filter", "cali-A", "no such thing");
    model.change(changeOf([], { maps: mapTo({ cali1: "cali-B" }) }));
    assert.deepEqual(optionsOf(model, "cali-A"), ["-i cali1 -g cali-B"]);
  });

  test("is a chain that drops where a set that it looks at is not as it should be, until the set is made anew", () => {
    const model = modelOf();
    const ports: Match = { on: "ports", side: "source", ranges: [], sets: ["s:one"] };
    model.change(
      changeOf([
        chain("cali-A", [accepting(SET)]),
        chain("cali-B", [accepting(ports)]),
        chain("cali-C", [accepting()]),
      ]),
    );
    model.refuseSet("s:one", "it is full");
    assert.deepEqual(optionsOf(model, "cali-A"), ["-j DROP"]);
    assert.deepEqual(optionsOf(model, "cali-B"), ["-j DROP"]);
    assert.deepEqual(optionsOf(model, "cali-C"), ["-j ACCEPT"]);
    assert.equal(model.refusals().length, 2);
    const set = { id: "s:one", kind: "net", added: [], removed: [] } as const;
    model.change(changeOf([], { sets: [{ ...set, state: "changed" }] }));
    assert.deepEqual(optionsOf(model, "cali-A"), ["-j DROP"]);
    model.change(changeOf([], { sets: [{ ...set, state: "new" }] }));
    assert.deepEqual(optionsOf(model, "cali-A"), ["-m set --match-set cali40s:one src -j ACCEPT"]);
  });

  test("has the hooks' rules before and after those of others, and says what cannot be", () => {
    const model = modelOf();
    const rule = (place: "first" | "last", ...matches: Match[]): HookRule => ({
      layer: "filter",
      hook: "INPUT",
      place,
      rule: accepting(...matches),
    });
    const seen = (): unknown => {
      const { first, last } = model.tables.filter.hooks.get("INPUT") ?? {};
      return [first, last].map((of) => of?.lines.map(({ options }) => options));
    };
    model.change(changeOf([], { hooks: [rule("last", SET), rule("first")] }));
    assert.deepEqual(seen(), [["-j ACCEPT"], ["-m set --match-set cali40s:one src -j ACCEPT"]]);
    assert.deepEqual(changedIn(model), ["INPUT"]);
    model.change(changeOf([], { hooks: [rule("first", BAD)] }));
    assert.deepEqual(seen(), [[], []]);
    assert.deepEqual(model.refusals(), [
      { origin: "filter/INPUT", reason: 'iptables cannot match an interface called "eth+"' },
    ]);
    const held = { ...rule("first"), instead: [{ matches: [], actions: [{ do: "drop" }] } as const] };
    model.change(changeOf([], { hooks: [held, rule("last")] }));
    assert.ok(model.refuse("filter", "INPUT", "the kernel says no"));
    assert.deepEqual(seen(), [["-j DROP"], []]);
    assert.ok(model.refuse("filter", "INPUT", "and no again"));
    assert.deepEqual(seen(), [[], []]);
    assert.equal(model.refuse("filter", "INPUT", "and again"), false);
    assert.deepEqual(model.refusals(), [{ origin: "filter/INPUT", reason: "the kernel says no" }]);
    model.retry();
    assert.deepEqual(seen(), [["-j ACCEPT"], ["-j ACCEPT"]]);
    model.clear();
    assert.deepEqual([seen(), changedIn(model)], [[undefined, undefined], ["INPUT"]]);
  });
});
