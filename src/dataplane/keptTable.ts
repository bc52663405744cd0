/**
 * A table of nf_tables that is kept as it should be: what belongs in it, and which transactions make it so. Chains and
 * sets are known by the names that the kernel knows them by.
 */
import { messageOf } from "../lib/errors.ts";
import type { Element } from "../netlink/nftElement.ts";
import type { Counts } from "../netlink/nftExpression.ts";
import type { KeyRange } from "../netlink/nftKey.ts";
import type { NftChange } from "../netlink/nftables.ts";
import type { BaseChain, Chain, Table, TableName } from "../netlink/nftTable.ts";
import { DROPS, type Draft, type NextId, ruleChanges, setsOf } from "./nftRender.ts";
import type { SetForm } from "./nftSets.ts";

export interface KeptChain {
  readonly base?: BaseChain;
  /** Who is told where the kernel refuses it. */
  readonly origin: string;
  /** Its rules, as they are now. Throws `Failure` where one cannot be expressed. */
  drafts(): readonly Draft[];
  /** What stands in their place where they are refused. Absent: it drops. */
  instead?(): readonly Draft[];
}

export interface KeptSet {
  readonly form: SetForm;
  /** As they are now: whoever keeps the table changes this, and tells of it in `TableChange`. */
  readonly members: ReadonlySet<string>;
}

/** What changed; undefined: it is gone. */
export interface TableChange {
  readonly chains: ReadonlyMap<string, KeptChain | undefined>;
  readonly sets: ReadonlyMap<string, KeptSetChange | undefined>;
}

export interface KeptSetChange {
  readonly set: KeptSet;
  /** Members that are new, and those that are gone; a new set's are all added. */
  readonly added: readonly string[];
  readonly removed: readonly string[];
}

/** What of a set differs from the kernel. */
export interface KnownSetDifference {
  readonly add: readonly string[];
  readonly remove: readonly KeyRange[];
}
/** `all`: none of its members are there; `unknown`: it must be listed. */
export type SetDifference = KnownSetDifference | "all" | "unknown";

/** What the kernel does not have as it should. */
export interface Difference {
  readonly chains: Set<string>;
  readonly sets: Map<string, SetDifference>;
}

export const noDifference = (): Difference => ({ chains: new Set(), sets: new Map() });

/** What is known of a set stays as it is. */
export function mergeDifference(more: Difference, into: Difference): void {
  for (const name of more.chains) into.chains.add(name);
  for (const [name, what] of more.sets) if (!into.sets.has(name)) into.sets.set(name, what);
}

/** A chain or a set: `chain filter-cali-FORWARD`. */
export type Unit = `chain ${string}` | `set ${string}`;
export const chainUnit = (name: string): Unit => `chain ${name}`;
export const setUnit = (name: string): Unit => `set ${name}`;
export const nameOf = (unit: Unit): string => unit.slice(unit.indexOf(" ") + 1);

export interface RefusedUnit {
  readonly reason: string;
  /** What was to stand in a chain's place is refused too. */
  readonly withoutStandIn?: true;
  /** The set for whose sake a chain is refused. */
  readonly because?: string;
}

export interface Kept {
  readonly table: TableName;
  /** How it is made. */
  form: Table;
  readonly chains: Map<string, KeptChain>;
  readonly sets: Map<string, KeptSet>;
  /** What the kernel did not take, and what is as if it had not: a chain drops, a set is not there. */
  readonly refused: Map<Unit, RefusedUnit>;
  /** Names that are in the kernel, as far as is known. */
  readonly present: { readonly chains: Set<string>; readonly sets: Set<string> };
  /** Sets with more members are refused. */
  readonly maxMembers: number;
}

/** A change of a transaction, and what it is for. */
export interface Item {
  readonly unit: Unit;
  readonly change: NftChange;
}

/** The rules of a chain, or those that stand in their place; notes a chain that cannot be expressed as refused. */
export function draftsOf(kept: Kept, name: string): readonly Draft[] {
  const chain = kept.chains.get(name);
  const unit = chainUnit(name);
  if (chain === undefined) return [];
  const known = kept.refused.get(unit);
  if (known !== undefined) return standIn(chain, known);
  try {
    const drafts = chain.drafts();
    const missing = missingSet(kept, drafts);
    if (missing === undefined) return drafts;
    const reason = kept.refused.get(setUnit(missing))?.reason ?? `there is no set ${missing}`;
    kept.refused.set(unit, { reason, because: missing });
  } catch (error) {
    kept.refused.set(unit, { reason: messageOf(error) });
  }
  return standIn(chain, kept.refused.get(unit));
}

function standIn(chain: KeptChain, refused: RefusedUnit | undefined): readonly Draft[] {
  if (chain.instead === undefined || refused?.withoutStandIn === true) return DROPS;
  try {
    return chain.instead();
  } catch {
    return DROPS;
  }
}

/** The kernel does not take the chain. Returns whether there is something else to try in its place. */
export function refuseChain(kept: Kept, name: string, reason: string): boolean {
  const unit = chainUnit(name);
  const known = kept.refused.get(unit);
  if (known === undefined) kept.refused.set(unit, { reason });
  else if (known.withoutStandIn === true || kept.chains.get(name)?.instead === undefined) return false;
  else kept.refused.set(unit, { ...known, withoutStandIn: true });
  return true;
}

function missingSet(kept: Kept, drafts: readonly Draft[]): string | undefined {
  for (const name of setsOf(drafts)) {
    if (!kept.sets.has(name) || kept.refused.has(setUnit(name))) return name;
  }
  return undefined;
}

/** Whether the set is to be in the kernel; notes one that is too large as refused. */
export function isWanted(kept: Kept, name: string): boolean {
  const set = kept.sets.get(name);
  if (set === undefined || kept.refused.has(setUnit(name))) return false;
  const { size } = set.members;
  if (size <= kept.maxMembers) return true;
  kept.refused.set(setUnit(name), { reason: `set ${name} has ${size} members, more than ${kept.maxMembers}` });
  return false;
}

/** Leads packets to chains: its elements name chains. */
export const isDispatch = ({ form }: KeptSet): boolean => form.nft.data === "verdict";

/** What making a transaction needs besides. */
export interface Making {
  /** What the chain's rules go on counting from, at the places of the drafts. */
  counts(name: string, drafts: readonly Draft[]): readonly (Counts | undefined)[];
  /** The chain will have these rules. */
  made(name: string, drafts: readonly Draft[]): void;
  readonly nextId: NextId;
}

/** The chain as it should be: `isNew` where the same transaction made it. */
export function contentOf(kept: Kept, name: string, isNew: boolean, making: Making): Item[] {
  const { table } = kept;
  const drafts = draftsOf(kept, name);
  making.made(name, drafts);
  const before = isNew ? [] : making.counts(name, drafts);
  const unit = chainUnit(name);
  const items: Item[] = isNew ? [] : [{ unit, change: { kind: "flushChain", chain: { table, name } } }];
  for (const [at, draft] of drafts.entries()) {
    for (const change of ruleChanges(table, name, draft, before[at], making.nextId)) items.push({ unit, change });
  }
  return items;
}

export function addChain({ table, chains }: Kept, name: string): Item {
  const base = chains.get(name)?.base;
  const chain: Chain = { table, name, ...(base === undefined ? {} : { base }) };
  return { unit: chainUnit(name), change: { kind: "addChain", chain } };
}

function addSet(kept: Kept, name: string): Item[] {
  const set = kept.sets.get(name);
  return set === undefined ? [] : [{ unit: setUnit(name), change: { kind: "addSet", set: set.form.nft } }];
}

/** What `encode` makes of the elements for `members`; undefined where one is none: the set is noted as refused. */
export function encodeMembers<Encoded>(
  kept: Kept,
  name: string,
  members: Iterable<string>,
  encode: (elements: Iterable<Element>) => Encoded,
): Encoded | undefined {
  const set = kept.sets.get(name);
  if (set === undefined) return undefined;
  try {
    return encode(elementsFor(set, members));
  } catch (error) {
    kept.refused.set(setUnit(name), { reason: `set ${name}: ${messageOf(error)}` });
    return undefined;
  }
}

function* elementsFor({ form }: KeptSet, members: Iterable<string>): Generator<Element> {
  for (const member of members) yield form.encode(member);
}

function changeElements(kept: Kept, name: string, what: SetDifference): Item[] {
  const set = kept.sets.get(name);
  if (set === undefined || what === "unknown") return [];
  const { nft } = set.form;
  const { add, remove } = what === "all" ? { add: set.members, remove: [] } : what;
  const elements = encodeMembers(kept, name, add, (all) => [...all]);
  if (elements === undefined) return [];
  const changes: NftChange[] = [];
  if (remove.length > 0) changes.push({ kind: "deleteElements", set: nft, elements: remove });
  if (elements.length > 0) changes.push({ kind: "addElements", set: nft, elements });
  return changes.map((change) => ({ unit: setUnit(name), change }));
}

/**
 * One transaction that carries the whole difference out. Sets come before the rules that look at them, chains before
 * what leads to them, and what is gone goes last, when nothing refers to it any more.
 */
export function transactionOf(kept: Kept, difference: Difference, making: Making): Item[] {
  const { table, present } = kept;
  const sets: Item[] = [];
  const added: Item[] = [];
  const contents: Item[] = [];
  const dispatches: Item[] = [];
  const goneSets: Item[] = [];
  const goneChains: Item[] = [];
  for (const [name, what] of difference.sets) {
    const set = kept.sets.get(name);
    const wanted = isWanted(kept, name);
    const isNew = !present.sets.has(name);
    // Before the chains are looked at, as those that use it are refused with it.
    const elements = wanted ? changeElements(kept, name, isNew ? "all" : what) : [];
    if (!wanted || kept.refused.has(setUnit(name))) continue;
    if (isNew) sets.push(...addSet(kept, name));
    (set !== undefined && isDispatch(set) ? dispatches : sets).push(...elements);
  }
  for (const name of difference.chains) {
    const chain = kept.chains.get(name);
    const isNew = !present.chains.has(name);
    if (chain === undefined) {
      if (isNew) continue;
      const unit = chainUnit(name);
      contents.push({ unit, change: { kind: "flushChain", chain: { table, name } } });
      goneChains.push({ unit, change: { kind: "deleteChain", chain: { table, name } } });
      continue;
    }
    // A base chain's policy may have been changed.
    if (isNew || chain.base !== undefined) added.push(addChain(kept, name));
    contents.push(...contentOf(kept, name, isNew, making));
  }
  for (const name of difference.sets.keys()) {
    if (isWanted(kept, name) || !present.sets.has(name)) continue;
    goneSets.push({ unit: setUnit(name), change: { kind: "deleteSet", set: { table, name } } });
  }
  return [...sets, ...added, ...contents, ...dispatches, ...goneSets, ...goneChains];
}

/** Chains that look at the set, as they are now. */
export function usersOf(kept: Kept, set: string): string[] {
  return [...kept.chains].flatMap(([name, chain]) => {
    try {
      return setsOf(chain.drafts()).has(set) ? [name] : [];
    } catch {
      return []; // it is refused already
    }
  });
}
