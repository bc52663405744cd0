/** What root tests of the iptables driver share. */
import assert from "node:assert/strict";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";
import type { Family } from "../ip/address.ts";
import { parseIpsetSave } from "./ipsetText.ts";
import type { IptablesBackend } from "./iptablesMode.ts";
import { isOurSet } from "./iptablesNames.ts";
import { LAYERS, parseIptablesSave } from "./iptablesSave.ts";
import { openIptablesKernelRules, type IptablesOptions } from "./iptablesRules.io.ts";
import {
  chainKeyOf,
  type ChainKey,
  type ChainRule,
  type KernelRules,
  type Layer,
  type RuleChain,
  type RulesetChange,
} from "./ruleset.ts";
import { emptyRuleset, type Ruleset } from "./ruleset.testing.ts";

export const BACKENDS: readonly IptablesBackend[] = ["legacy", "nft"];
export const FAMILIES: readonly Family[] = [4, 6];

export function commandOf(family: Family, backend: IptablesBackend): string {
  return `${family === 4 ? "iptables" : "ip6tables"}-${backend}`;
}

/** All rules and sets of a namespace, in an order of their own: chains and members sorted, counters left out. */
export function everything(name: string, family: Family, backend: IptablesBackend): Record<string, readonly string[]> {
  const tables = parseIptablesSave(inside(name, `${commandOf(family, backend)}-save`));
  const found: [string, readonly string[]][] = LAYERS.flatMap((layer) =>
    [...tables[layer]].map(([chain, rules]): [string, readonly string[]] => [
      `${layer}/${chain}`,
      rules.map(({ options }) => options),
    ]),
  );
  for (const [set, { kind, members }] of setsOf(name, family)) found.push([`${set} ${kind}`, [...members].sort()]);
  return Object.fromEntries(
    found.filter(([chain, rules]) => rules.length > 0 || chain.includes("cali")).sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

export function setsOf(name: string, family: Family): ReturnType<typeof parseIpsetSave> {
  return parseIpsetSave(inside(name, "ipset", "save"), (set) => isOurSet(family, set));
}

/** What leads from one ruleset to another. */
export function changeTo(after: Ruleset, before: Ruleset = emptyRuleset(after.family)): RulesetChange {
  assert.equal(after.family, before.family);
  return {
    family: after.family,
    chains: differing(after.chains, before.chains),
    maps: differing(after.maps, before.maps),
    ...(after.hooks === before.hooks ? {} : { hooks: after.hooks }),
    sets: [...new Set([...after.sets.keys(), ...before.sets.keys()])].map((id) => {
      const [now, then] = [after.sets.get(id), before.sets.get(id)];
      const kind = (now ?? then)!.kind;
      const state = now === undefined ? "gone" : then === undefined ? "new" : "changed";
      const added = [...(now?.members ?? [])].filter((member) => then?.members.has(member) !== true);
      const removed = now === undefined ? [] : [...(then?.members ?? [])].filter((member) => !now.members.has(member));
      return { id, kind, state, added, removed };
    }),
  };
}

function differing<Item>(
  after: ReadonlyMap<ChainKey, Item>,
  before: ReadonlyMap<ChainKey, Item>,
): Map<ChainKey, Item | undefined> {
  const changes = new Map<ChainKey, Item | undefined>();
  for (const [key, item] of after) if (before.get(key) !== item) changes.set(key, item);
  for (const key of before.keys()) if (!after.has(key)) changes.set(key, undefined);
  return changes;
}

/** A namespace with a driver of its own. */
export interface Bench extends Disposable {
  readonly rules: KernelRules;
  readonly family: Family;
  readonly backend: IptablesBackend;
  readonly name: string;
  readonly path: string;
  another(options?: Partial<IptablesOptions>): KernelRules;
  everything(): Record<string, readonly string[]>;
  /** `iptables ARGUMENTS` of the backend and family. */
  iptables(...words: string[]): string;
  ipset(...words: string[]): string;
}

export function bench(backend: IptablesBackend, family: Family = 4, options: Partial<IptablesOptions> = {}): Bench {
  const { name, path, [Symbol.dispose]: end } = temporaryNamespace();
  const opened: KernelRules[] = [];
  const another = (more: Partial<IptablesOptions> = {}): KernelRules => {
    const rules = openIptablesKernelRules({ family, backend, namespace: path, ...options, ...more });
    opened.push(rules);
    return rules;
  };
  return {
    rules: another(),
    family,
    backend,
    name,
    path,
    another,
    everything: () => everything(name, family, backend),
    iptables: (...words) => inside(name, commandOf(family, backend), "-w", ...words),
    ipset: (...words) => inside(name, "ipset", ...words),
    [Symbol.dispose]() {
      for (const rules of opened) rules.close();
      end();
    },
  };
}

export const chain = (name: string, rules: readonly ChainRule[], layer: Layer = "filter"): RuleChain => ({
  layer,
  name,
  rules,
  origin: `of ${name}`,
});
export const DROP: ChainRule = { matches: [], actions: [{ do: "drop" }] };
export const RETURN: ChainRule = { matches: [], actions: [{ do: "return" }] };

/** Chains that hang in FORWARD and in nat's POSTROUTING, a set, a dispatch of two interfaces. */
export function simple(family: Family = 4): Ruleset {
  const ruleset = emptyRuleset(family);
  const chains = [
    chain("cali-FORWARD", [{ matches: [], actions: [{ do: "jump", chain: "cali-from-wl-dispatch" }] }]),
    chain("cali-from-wl-dispatch", [
      { matches: [], actions: [{ do: "dispatch", map: "cali-from-wl-dispatch" }] },
      DROP,
    ]),
    chain("cali-fw-cali1", [
      { matches: [{ on: "set", side: "source", set: "s:one" }], actions: [{ do: "return" }] },
      DROP,
    ]),
    chain("cali-fw-cali2", [DROP]),
    chain("cali-POSTROUTING", [{ matches: [], actions: [{ do: "masquerade" }] }], "nat"),
  ];
  for (const each of chains) ruleset.chains.set(chainKeyOf(each), each);
  ruleset.maps.set("filter/cali-from-wl-dispatch", {
    layer: "filter",
    name: "cali-from-wl-dispatch",
    by: "in",
    entries: new Map([
      ["cali1", "cali-fw-cali1"],
      ["cali2", "cali-fw-cali2"],
      ["cali21", "cali-fw-cali2"],
    ]),
  });
  ruleset.sets.set("s:one", { kind: "net", members: new Set(["10.0.0.1", "10.1.0.0/16", "fd00::1"]) });
  ruleset.hooks = [
    {
      layer: "filter",
      hook: "FORWARD",
      place: "first",
      rule: { matches: [], actions: [{ do: "jump", chain: "cali-FORWARD" }] },
    },
    {
      layer: "nat",
      hook: "POSTROUTING",
      place: "last",
      rule: { matches: [], actions: [{ do: "jump", chain: "cali-POSTROUTING" }] },
    },
  ];
  return ruleset;
}

export const nothing = (family: Family, more: Partial<RulesetChange> = {}): RulesetChange => ({
  family,
  chains: new Map(),
  maps: new Map(),
  sets: [],
  ...more,
});
