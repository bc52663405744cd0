/** What iptables' tables are to hold: rendered from the ruleset, and kept up with its changes. */
import type { Family } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import { addTo, each, removeFrom, type Multimap } from "../policy/multimap.ts";
import { chainName } from "./iptablesNames.ts";
import {
  droppingLines,
  renderChain,
  rendered,
  renderRule,
  type RenderContext,
  type RenderedChain,
  type ScratchMarks,
} from "./iptablesRender.ts";
import { LAYERS } from "./iptablesSave.ts";
import {
  chainKeyOf,
  setsOf,
  type ChainKey,
  type DispatchMap,
  type HookRule,
  type Layer,
  type Refusal,
  type RuleChain,
  type RulesetChange,
} from "./ruleset.ts";

/** Our rules in one of the kernel's own chains, before and after others'. */
export interface HookedRules {
  readonly first: RenderedChain;
  readonly last: RenderedChain;
}

export interface DesiredTable {
  readonly chains: ReadonlyMap<string, RenderedChain>;
  /** By the name of the kernel's chain. */
  readonly hooks: ReadonlyMap<string, HookedRules>;
}

export interface IptablesModel {
  change(change: RulesetChange): void;
  readonly tables: Readonly<Record<Layer, DesiredTable>>;
  /** Names of chains, our own and the kernel's, that changed since this was last asked. */
  takeChanged(): Map<Layer, Set<string>>;
  /**
   * The kernel did not take the chain: until it changes or is tried again, something else stands in its place. Returns
   * whether that is new.
   */
  refuse(layer: Layer, name: string, reason: string): boolean;
  /** The set is not as it should be: so are the chains that look at it. */
  refuseSet(id: string, reason: string): void;
  /** What was refused is rendered as it should be, to be tried again. */
  retry(): void;
  /** What is refused now. */
  refusals(): Refusal[];
  /** Nothing is wanted any more. */
  clear(): void;
}

/** Why it is not as it should be. */
interface Refused {
  readonly reason: string;
  /** What was to stand in its place is refused too. */
  readonly withoutStandIn: boolean;
}

interface Table {
  readonly chains: Map<string, RenderedChain>;
  readonly hooks: Map<string, HookedRules>;
  readonly changed: Set<string>;
  /** Which chain of the ruleset a chain of iptables belongs to. */
  readonly owners: Map<string, Chain>;
}

interface Chain {
  readonly key: ChainKey;
  chain: RuleChain;
  /** Names of the chains of iptables that were made of it. */
  names: readonly string[];
}

export function iptablesModel(family: Family, scratch: ScratchMarks): IptablesModel {
  const chains = new Map<ChainKey, Chain>();
  const maps = new Map<ChainKey, DispatchMap>();
  const usersOfMap: Multimap<Chain> = new Map();
  const usersOfSet: Multimap<Chain> = new Map();
  const refused = new Map<Chain, Refused>();
  /** By layer and hook. */
  const refusedHooks = new Map<string, Refused>();
  let hookRules: readonly HookRule[] = [];
  const tables = Object.fromEntries(LAYERS.map((layer) => [layer, emptyTable()])) as Record<Layer, Table>;

  const contextOf = (layer: Layer): RenderContext => ({
    family,
    layer,
    scratch,
    mapOf: (name) => maps.get(chainKeyOf({ layer, name })),
  });

  function setChain(key: ChainKey, chain: RuleChain | undefined): void {
    const present = chains.get(key);
    if (present !== undefined) {
      index(present, removeFrom);
      refused.delete(present);
    }
    if (chain === undefined) {
      if (present !== undefined) place(present, []);
      chains.delete(key);
      return;
    }
    const it = present ?? { key, chain, names: [] };
    it.chain = chain;
    chains.set(key, it);
    index(it, addTo);
  }

  /** Which maps and sets the chain looks at. */
  function index(it: Chain, change: typeof addTo<Chain>): void {
    const { layer, rules } = it.chain;
    for (const { matches, actions } of rules) {
      for (const action of actions) {
        if (action.do === "dispatch") change(usersOfMap, chainKeyOf({ layer, name: action.map }), it);
      }
      for (const set of matches.flatMap(setsOf)) change(usersOfSet, set, it);
    }
  }

  /** Renders the chain, or what stands in for it. */
  function render(it: Chain): void {
    const { layer, name, instead } = it.chain;
    const known = refused.get(it);
    if (known === undefined || (instead !== undefined && !known.withoutStandIn)) {
      try {
        const chain = known === undefined ? it.chain : { ...it.chain, rules: instead ?? [] };
        return place(it, renderChain(chain, contextOf(layer)));
      } catch (error) {
        return void refuseChain(it, messageOf(error));
      }
    }
    place(it, [rendered(layer, chainName(name), droppingLines(layer))]);
  }

  function refuseChain(it: Chain, reason: string): boolean {
    const known = refused.get(it);
    if (known?.withoutStandIn === true) return false;
    const withoutStandIn = known !== undefined || it.chain.instead === undefined;
    refused.set(it, { reason: known?.reason ?? reason, withoutStandIn });
    render(it);
    return true;
  }

  function place(it: Chain, made: readonly RenderedChain[]): void {
    const { chains: placed, owners, changed } = tables[it.chain.layer];
    const names = new Set(made.map(({ name }) => name));
    for (const name of it.names) {
      if (names.has(name) || owners.get(name) !== it) continue;
      owners.delete(name);
      placed.delete(name);
      changed.add(name);
    }
    it.names = [...names];
    for (const one of made) {
      owners.set(one.name, it);
      placed.set(one.name, one);
      changed.add(one.name);
    }
  }

  function setHooks(rules: readonly HookRule[]): void {
    hookRules = rules;
    for (const layer of LAYERS) {
      const table = tables[layer];
      for (const hook of table.hooks.keys()) table.changed.add(hook);
      table.hooks.clear();
      const ofLayer = rules.filter((rule) => rule.layer === layer);
      for (const [hook, ofHook] of Map.groupBy(ofLayer, (rule) => rule.hook)) {
        setHook(layer, hook, ofHook);
      }
    }
  }

  /** All rules of the hook as they should be, or what stands in for all of them. */
  function setHook(layer: Layer, hook: string, rules: readonly HookRule[]): void {
    const known = refusedHooks.get(`${layer}/${hook}`);
    const linesAt = (at: HookRule["place"]): RenderedChain => {
      const lines = rules
        .filter(({ place: of }) => of === at)
        .flatMap(({ rule, instead = [] }) => (known === undefined ? [rule] : known.withoutStandIn ? [] : instead))
        .flatMap((rule) => renderRule(rule, contextOf(layer)));
      return rendered(layer, hook, lines, `${hook}/${at}`);
    };
    try {
      tables[layer].hooks.set(hook, { first: linesAt("first"), last: linesAt("last") });
      tables[layer].changed.add(hook);
    } catch (error) {
      refuseHook(layer, hook, messageOf(error));
    }
  }

  function refuseHook(layer: Layer, hook: string, reason: string): boolean {
    const key = `${layer}/${hook}`;
    const known = refusedHooks.get(key);
    if (known?.withoutStandIn === true) return false;
    refusedHooks.set(key, { reason: known?.reason ?? reason, withoutStandIn: known !== undefined });
    const rules = hookRules.filter((rule) => rule.layer === layer && rule.hook === hook);
    setHook(layer, hook, rules);
    return true;
  }

  return {
    tables,
    change(change) {
      const touched = new Set<Chain>();
      for (const [key, map] of change.maps) {
        if (map === undefined) maps.delete(key);
        else maps.set(key, map);
        for (const user of each(usersOfMap.get(key))) touched.add(user);
      }
      for (const { id, state } of change.sets) {
        if (state !== "new") continue;
        for (const user of each(usersOfSet.get(id))) if (refused.has(user)) touched.add(user);
      }
      for (const it of touched) refused.delete(it);
      for (const [key, chain] of change.chains) {
        setChain(key, chain);
        const it = chains.get(key);
        if (it !== undefined) touched.add(it);
      }
      for (const it of touched) if (chains.get(it.key) === it) render(it);
      if (change.hooks === undefined) return;
      refusedHooks.clear();
      setHooks(change.hooks);
    },
    takeChanged() {
      const taken = new Map(LAYERS.map((layer) => [layer, new Set(tables[layer].changed)]));
      for (const layer of LAYERS) tables[layer].changed.clear();
      return taken;
    },
    refuse(layer, name, reason) {
      const it = tables[layer].owners.get(name);
      return it === undefined ? refuseHook(layer, name, reason) : refuseChain(it, reason);
    },
    refuseSet(id, reason) {
      for (const it of each(usersOfSet.get(id))) if (!refused.has(it)) refuseChain(it, reason);
    },
    retry() {
      const again = [...refused.keys()];
      refused.clear();
      for (const it of again) render(it);
      if (refusedHooks.size === 0) return;
      refusedHooks.clear();
      setHooks(hookRules);
    },
    refusals: () => [
      ...[...refused].map(([{ chain }, { reason }]) => ({ origin: chain.origin, reason })),
      ...[...refusedHooks].map(([origin, { reason }]) => ({ origin, reason })),
    ],
    clear() {
      for (const key of chains.keys()) setChain(key, undefined);
      maps.clear();
      refusedHooks.clear();
      setHooks([]);
    },
  };
}

function emptyTable(): Table {
  return { chains: new Map(), hooks: new Map(), changed: new Set(), owners: new Map() };
}
