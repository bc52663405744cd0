import type { Element } from "../netlink/nftElement.ts";
import type { Counts } from "../netlink/nftExpression.ts";
import type { NftParts } from "../netlink/nftParts.io.ts";
import type { NftSet } from "../netlink/nftSet.ts";
import type { NftChange } from "../netlink/nftables.ts";
import { compareElements, countsFor, isSameBase, isSameKind } from "./keptDifference.ts";
import {
  type Difference,
  draftsOf,
  isWanted,
  type Kept,
  type KnownSetDifference,
  noDifference,
  setUnit,
} from "./keptTable.ts";
import { type Draft, sameRules } from "./nftRender.ts";
import type { ChainRule } from "./ruleset.ts";

/** What is known of the kernel's side of a table that is kept, and how it is compared with what should be. */
export interface KernelTable {
  /** Whether the table is there, as far as is known. */
  exists(): boolean;
  /** Reads the table, and its chains and sets by name. */
  survey(): Survey;
  /** Adds to the difference what the chain's rules, or the set's elements, are not as they should be. */
  inspectChain(name: string, difference: Difference): void;
  inspectSet(name: string, difference: Difference): void;
  /** Undefined for a set that is not there. */
  compareSet(name: string): KnownSetDifference | undefined;
  /** The kernel has carried these out. */
  note(changes: readonly NftChange[]): void;
  /** The chain has these rules. */
  noteRules(name: string, drafts: readonly Draft[]): void;
  /** What the chain's rules have counted, at the places of the drafts that are to go on. */
  countsFor(name: string, drafts: readonly Draft[]): readonly (Counts | undefined)[];
  /** Chains whose rules count, and what each has counted; undefined for a chain that others have changed. */
  counting(): string[];
  counted(name: string): readonly (readonly [ChainRule, Counts])[] | undefined;
  /** Nothing is there any more. */
  forget(): void;
}

export interface Survey {
  /** What is missing, too much, or of another policy. */
  readonly difference: Difference;
  /** The names that are there are not those that we knew of. */
  readonly isSurprise: boolean;
  /** Something has a name of ours, and cannot become what it should be. */
  readonly isHopeless: boolean;
}

export function kernelTable(kept: Kept, parts: NftParts): KernelTable {
  const { table, present } = kept;
  /** The table's number, which no other will have; undefined where there is none. */
  let handle: number | undefined;
  /** By chain: the handles of its rules when they were last found right. No other rule of the table will have them. */
  const handles = new Map<string, readonly number[]>();
  /** By chain with rules that count: whom each rule counts for. */
  const counters = new Map<string, readonly (ChainRule | undefined)[]>();
  /** Sets without a name, which do not change. */
  let anonymous = new Map<string, NftSet>();

  function survey(): Survey {
    const found = parts.table(table);
    if (found?.handle !== handle) handles.clear();
    handle = found?.handle;
    const chains = new Map(found === undefined ? [] : parts.chains(table).map((chain) => [chain.name, chain]));
    const [unnamed, named] = found === undefined ? [[], []] : partition(parts.sets(table), isAnonymous);
    anonymous = byName(unnamed);
    const sets = byName(named);
    const isSurprise = !isSame(present.chains, chains) || !isSame(present.sets, sets);
    replace(present.chains, chains.keys());
    replace(present.sets, sets.keys());

    const difference = noDifference();
    const cannotBeOwned = found !== undefined && kept.form.owned === true && found.persistent !== true;
    let isHopeless = found?.dormant === true || cannotBeOwned;
    for (const [name, { base }] of kept.chains) {
      const listed = chains.get(name);
      if (listed === undefined || listed.base?.policy !== base?.policy) difference.chains.add(name);
      isHopeless ||= listed !== undefined && !isSameBase(listed.base, base);
    }
    for (const [name, { form }] of kept.sets) {
      const listed = sets.get(name);
      isHopeless ||= listed !== undefined && !isSameKind(listed, form.nft);
      if (listed !== undefined && kept.refused.has(setUnit(name))) difference.sets.set(name, "unknown");
      if (listed === undefined && isWanted(kept, name)) difference.sets.set(name, "all");
    }
    for (const name of chains.keys()) if (!kept.chains.has(name)) difference.chains.add(name);
    for (const name of sets.keys()) if (!kept.sets.has(name)) difference.sets.set(name, "unknown");
    return { difference, isSurprise, isHopeless };
  }

  function elementsOfAnonymous(name: string): Element[] {
    if (!anonymous.has(name)) anonymous = byName(parts.sets(table).filter(isAnonymous));
    const set = anonymous.get(name);
    return set === undefined ? [] : parts.elements(set);
  }

  function isRight(name: string): boolean {
    const known = handles.get(name);
    if (known !== undefined && known.join() === parts.handles(table, name).join()) return true;
    const rules = parts.rules(table, name);
    const drafts = draftsOf(kept, name);
    if (!sameRules(rules, drafts, elementsOfAnonymous)) return false;
    handles.set(
      name,
      rules.map((rule) => rule.handle),
    );
    noteRules(name, drafts);
    return true;
  }

  function noteRules(name: string, drafts: readonly Draft[]): void {
    const rules = drafts.map(({ counts }) => counts);
    if (rules.some((rule) => rule !== undefined)) counters.set(name, rules);
    else counters.delete(name);
  }

  function compareSet(name: string): KnownSetDifference | undefined {
    const set = kept.sets.get(name);
    return set && present.sets.has(name) ? compareElements(set, parts.elements(set.form.nft)) : undefined;
  }

  return {
    exists: () => handle !== undefined,
    survey,
    inspectChain(name, difference) {
      if (!kept.chains.has(name) || !present.chains.has(name) || difference.chains.has(name)) return;
      if (!isRight(name)) difference.chains.add(name);
    },
    inspectSet(name, difference) {
      if (difference.sets.has(name) || !isWanted(kept, name)) return;
      const found = compareSet(name);
      if (found !== undefined && found.add.length + found.remove.length > 0) difference.sets.set(name, found);
    },
    compareSet,
    note(changes) {
      // Where it was made just now.
      handle ??= parts.table(table)?.handle;
      for (const change of changes) {
        if (change.kind === "addChain") present.chains.add(change.chain.name);
        if (change.kind === "addSet" && change.set.anonymous === undefined) present.sets.add(change.set.name);
        if (change.kind === "deleteSet") present.sets.delete(change.set.name);
        if (change.kind === "flushChain") handles.delete(change.chain.name);
        if (change.kind !== "deleteChain") continue;
        present.chains.delete(change.chain.name);
        counters.delete(change.chain.name);
      }
    },
    noteRules,
    countsFor(name, drafts) {
      const rules = counters.get(name);
      if (rules === undefined) return [];
      const counts = parts.counts(table, name);
      return counts.length === rules.length ? countsFor(drafts, rules, counts) : [];
    },
    counting: () => [...counters.keys()],
    counted(name) {
      const rules = counters.get(name);
      const counts = parts.counts(table, name);
      if (rules?.length !== counts.length) return undefined;
      return rules.flatMap((rule, at) => {
        const own = counts[at];
        return rule === undefined || own === undefined ? [] : [[rule, own] as const];
      });
    },
    forget() {
      handle = undefined;
      handles.clear();
      counters.clear();
      present.chains.clear();
      present.sets.clear();
    },
  };
}

const isAnonymous = ({ anonymous }: NftSet): boolean => anonymous === true;
const byName = (sets: readonly NftSet[]): Map<string, NftSet> => new Map(sets.map((set) => [set.name, set]));

function isSame(names: ReadonlySet<string>, found: ReadonlyMap<string, unknown>): boolean {
  return names.size === found.size && [...names].every((name) => found.has(name));
}

function partition<Item>(items: readonly Item[], test: (item: Item) => boolean): [Item[], Item[]] {
  const [yes, no]: [Item[], Item[]] = [[], []];
  for (const item of items) (test(item) ? yes : no).push(item);
  return [yes, no];
}

function replace<Item>(set: Set<Item>, items: Iterable<Item>): void {
  set.clear();
  for (const item of items) set.add(item);
}
