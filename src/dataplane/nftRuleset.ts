/** From what should be in the packet filter, as the agent says it, to the chains and sets of nf_tables' one table. */
import type { Family } from "../ip/address.ts";
import { Failure } from "../lib/errors.ts";
import { addTo, each, type Multimap, removeFrom } from "../policy/multimap.ts";
import type { KeptChain, KeptSetChange, TableChange } from "./keptTable.ts";
import { nftAddressSets } from "./nftAddressSets.ts";
import { baseChain, baseChainName, chainName } from "./nftNames.ts";
import { draftsOf, type RenderContext } from "./nftRender.ts";
import { dispatchForm, dispatchMember } from "./nftSets.ts";
import {
  type ChainKey,
  chainKeyOf,
  type ChainRule,
  type DispatchMap,
  type HookRule,
  type Layer,
  type RuleChain,
  type RulesetChange,
  setsOf,
} from "./ruleset.ts";

/** Takes changes in, and says what they mean for the kernel. */
export type NftRuleset = (change: RulesetChange) => TableChange;

interface NamedChain {
  readonly name: string;
  readonly chain: KeptChain;
  /** Ids of the address sets that its rules look at. */
  readonly sets: readonly string[];
}

function setsIn(rules: readonly ChainRule[]): readonly string[] {
  const sets = new Set<string>();
  for (const { matches } of rules) for (const match of matches) for (const id of setsOf(match)) sets.add(id);
  return [...sets];
}

interface Dispatch {
  readonly by: DispatchMap["by"];
  readonly entries: ReadonlyMap<string, string>;
  readonly members: Set<string>;
}

export function nftRuleset(family: Family): NftRuleset {
  const addressSets = nftAddressSets(family);
  const maps = new Map<ChainKey, Dispatch>();
  const chains = new Map<string, NamedChain>();
  const users: Multimap<NamedChain> = new Map();
  let hooks: readonly string[] = [];

  const context: RenderContext = {
    family,
    shapeOf: (id) => addressSets.shapeOf(id) ?? missing(`set ${id}`),
    dispatchBy: (layer, name) => maps.get(chainKeyOf({ layer, name }))?.by ?? missing(`map ${layer}/${name}`),
  };

  function put(name: string, next: NamedChain | undefined): KeptChain | undefined {
    const before = chains.get(name);
    if (before !== undefined) for (const id of before.sets) removeFrom(users, id, before);
    if (next === undefined) chains.delete(name);
    else {
      chains.set(name, next);
      for (const id of next.sets) addTo(users, id, next);
    }
    return next?.chain;
  }

  function make(
    name: string,
    layer: Layer,
    { rules, instead, origin, base }: Pick<RuleChain, "rules" | "instead"> & Pick<KeptChain, "base" | "origin">,
  ): NamedChain {
    const drafts = (of: readonly ChainRule[]) => () => draftsOf(of, layer, context);
    // In nat, only a connection's first packet would be dropped, and those of the node itself too.
    const other = instead ?? (layer === "nat" ? [] : undefined);
    const chain: KeptChain = {
      origin,
      drafts: drafts(rules),
      ...(base === undefined ? {} : { base }),
      ...(other === undefined ? {} : { instead: drafts(other) }),
    };
    return { name, chain, sets: setsIn(rules) };
  }

  function changeMap(key: ChainKey, map: DispatchMap | undefined, into: Map<string, KeptSetChange | undefined>): void {
    const before = maps.get(key);
    if (map === undefined) {
      maps.delete(key);
      const slash = key.indexOf("/");
      // A key begins with a layer.
      into.set(chainName(key.slice(0, slash) as Layer, key.slice(slash + 1)), undefined);
      return;
    }
    const form = dispatchForm(family, map);
    const members = before?.members ?? new Set<string>();
    const { added, removed } = entryChanges(before?.entries ?? new Map<string, string>(), map);
    for (const member of removed) members.delete(member);
    for (const member of added) members.add(member);
    maps.set(key, { by: map.by, entries: new Map(map.entries), members });
    if (before === undefined || added.length + removed.length > 0) {
      into.set(form.nft.name, { set: { form, members }, added, removed });
    }
  }

  function changeHooks(rules: readonly HookRule[], into: Map<string, KeptChain | undefined>): void {
    const byChain = Map.groupBy(rules, ({ layer, hook }) => baseChainName(layer, hook));
    for (const name of hooks) if (!byChain.has(name)) into.set(name, put(name, undefined));
    hooks = [...byChain.keys()];
    for (const [name, all] of byChain) {
      const [{ layer, hook }] = all as [HookRule];
      const ordered = (["first", "last"] as const).flatMap((place) => all.filter((one) => one.place === place));
      const rules = ordered.map(({ rule }) => rule);
      const instead = ordered.flatMap((one) => one.instead ?? []);
      into.set(name, put(name, make(name, layer, { rules, instead, base: baseChain(layer, hook), origin: name })));
    }
  }

  return (change) => {
    const sets = new Map<string, KeptSetChange | undefined>();
    const changed = new Map<string, KeptChain | undefined>();
    const reshaped = change.sets.filter((one) => addressSets.change(one, sets)).map(({ id }) => id);
    reshaped.push(...addressSets.followPools(sets));
    for (const [key, map] of change.maps) changeMap(key, map, sets);
    for (const [key, chain] of change.chains) {
      const slash = key.indexOf("/");
      const name = chainName(key.slice(0, slash) as Layer, key.slice(slash + 1));
      changed.set(name, put(name, chain && make(name, chain.layer, chain)));
    }
    if (change.hooks !== undefined) changeHooks(change.hooks, changed);
    for (const id of reshaped) {
      for (const { name, chain } of each(users.get(id))) if (!changed.has(name)) changed.set(name, chain);
    }
    return { chains: changed, sets };
  };
}

function missing(what: string): never {
  throw new Failure("missing", `there is no ${what}`);
}

function entryChanges(
  before: ReadonlyMap<string, string>,
  { layer, entries }: DispatchMap,
): { added: string[]; removed: string[] } {
  const added: string[] = [];
  const removed: string[] = [];
  for (const [name, chain] of before) {
    if (entries.get(name) !== chain) removed.push(dispatchMember(layer, name, chain));
  }
  for (const [name, chain] of entries) {
    if (before.get(name) !== chain) added.push(dispatchMember(layer, name, chain));
  }
  return { added, removed };
}
