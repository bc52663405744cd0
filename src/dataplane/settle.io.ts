import { writeElements } from "../netlink/nftElement.ts";
import type { NftSet } from "../netlink/nftSet.ts";
import { type Accused, judge } from "./blame.io.ts";
import {
  addChain,
  contentOf,
  type Difference,
  encodeMembers,
  isDispatch,
  isWanted,
  type Item,
  type Kept,
  type KeptSet,
  type Making,
  mergeDifference,
  setUnit,
} from "./keptTable.ts";
import type { Draft } from "./nftRender.ts";
import { build, making, type Parties, send, Unaccepted } from "./tableTransaction.io.ts";

/** How a difference between the kernel and what should be there is carried out, whatever the kernel says to it. */

/** Each round sees to what the kernel refused in the one before. */
const MAX_ROUNDS = 20;
/** So many rules and elements go in one transaction. Of more, what nothing refers to yet goes ahead of it. */
const TRANSACTION_MAX = 5000;
/**
 * Elements of a transaction that goes ahead; a rule takes as much room as so many elements. Each transaction costs the
 * kernel a look at every chain there is, so that many small ones are slow; and what is made for a large one lives long
 * enough that the garbage collector takes it for something that stays.
 */
const BATCH = 8000;
const CHANGE_SIZE = 6;
/** About so many rules has a chain. */
const RULES_OF_CHAIN = 4;

/**
 * In one transaction, so that every packet meets the old rules or the new ones. What the kernel does not take of it is
 * noted in `kept.refused`, and the rest is carried out. Throws `Failure` where nothing can be.
 *
 * @param anew nothing that is there stays
 */
export function settle(parties: Parties, difference: Difference, anew = false): void {
  const isLarge = anew || weight(parties.kept, difference) > TRANSACTION_MAX;
  if (isLarge) parties.nftables.unheard(() => carryOut(parties, difference, anew));
  else carryOut(parties, difference, anew);
}

function carryOut(parties: Parties, difference: Difference, anew: boolean): void {
  const { kept, kernel } = parties;
  const accused: Accused = { sets: new Set<string>(), all: false };
  const empty = new Set<string>();
  let isAnew = anew;
  for (let round = 1; ; round += 1) {
    try {
      if (isAnew) addEverything(parties, difference);
      else if (weight(kept, difference) > TRANSACTION_MAX) goAhead(parties, difference, empty);
      listUnknown(parties, difference);
      const transaction = build(parties, difference);
      send(parties, transaction, isAnew);
      return;
    } catch (error) {
      if (!(error instanceof Unaccepted) || round >= MAX_ROUNDS) throw error;
      const survey = isAnew ? undefined : kernel.survey();
      // Others were quicker, and what was refused may be for their sake.
      if (survey?.isHopeless === true) isAnew = true;
      else if (survey?.isSurprise === true) mergeDifference(survey.difference, difference);
      else judge(parties, error.refusals, difference, accused, isAnew);
    }
  }
}

function addEverything({ kept, kernel }: Parties, difference: Difference): void {
  kernel.forget();
  for (const name of kept.chains.keys()) difference.chains.add(name);
  for (const name of kept.sets.keys()) difference.sets.set(name, "all");
}

function weight(kept: Kept, difference: Difference): number {
  let sum = difference.chains.size * RULES_OF_CHAIN;
  for (const [name, what] of difference.sets) {
    if (what === "all") sum += kept.sets.get(name)?.members.size ?? 0;
    else if (what !== "unknown") sum += what.add.length + what.remove.length;
  }
  return sum;
}

/**
 * In transactions of their own, what no packet meets: nothing leads to it before the transaction that follows.
 *
 * @param empty chains that were made so before, and have no rules yet
 */
function goAhead(parties: Parties, difference: Difference, empty: Set<string>): void {
  const { kept } = parties;
  const { present } = kept;
  const batch = openBatch(parties);
  for (const name of difference.sets.keys()) {
    const set = kept.sets.get(name);
    if (set === undefined || present.sets.has(name) || !isWanted(kept, name)) continue;
    addWithMembers(kept, name, set, batch);
    if (isDispatch(set) || kept.refused.has(setUnit(name))) continue;
    batch.add([], { done: () => difference.sets.set(name, { add: [], remove: [] }) });
  }
  batch.send();

  const chains = [...difference.chains].filter((name) => {
    const chain = kept.chains.get(name);
    return chain !== undefined && chain.base === undefined && (!present.chains.has(name) || empty.has(name));
  });
  for (const name of chains) {
    if (!empty.has(name)) batch.add([addChain(kept, name)], { size: 2, done: () => empty.add(name) });
  }
  batch.send();
  for (const name of chains) {
    const done = (): void => {
      empty.delete(name);
      difference.chains.delete(name);
    };
    batch.add(contentOf(kept, name, true, batch.making), { done });
  }
  batch.send();
}

/** A set, and its members, as they fit into transactions. A map's wait: what they lead to is not there yet. */
function addWithMembers(kept: Kept, name: string, set: KeptSet, batch: Batch): void {
  const unit = setUnit(name);
  let form: NftSet = { ...set.form.nft, id: batch.making.nextId() };
  let items: Item[] = [{ unit, change: { kind: "addSet", set: form } }];
  for (const members of isDispatch(set) ? [] : chunks(set.members, BATCH)) {
    const elements = encodeMembers(kept, name, members, (all) => writeElements(set.form.nft, all));
    if (elements === undefined) break;
    items.push({ unit, change: { kind: "addWrittenElements", set: form, elements } });
    batch.add(items, { size: elements.count });
    // What follows may be in another transaction, where the number means nothing.
    [items, form] = [[], set.form.nft];
  }
  if (items.length > 0) batch.add(items);
}

interface Batch {
  /** `size`: the number of elements. `done`: what is to be done when the kernel has taken all so far. */
  add(items: readonly Item[], options?: { readonly size?: number; readonly done?: () => unknown }): void;
  send(): void;
  readonly making: Making;
}

/** Sends a transaction whenever there is enough for one. */
function openBatch(parties: Parties): Batch {
  const begin = () => ({
    items: [] as Item[],
    made: new Map<string, readonly Draft[]>(),
    done: [] as (() => unknown)[],
  });
  let waiting = begin();
  let total = 0;
  function flush(): void {
    const { items, made, done } = waiting;
    // Nothing of it is used again: what a map held is kept alive by the emptied map that has grown old.
    waiting = begin();
    total = 0;
    send(parties, { items, made }, false);
    for (const each of done) each();
  }
  return {
    add(more, { size = more.length * CHANGE_SIZE, done } = {}) {
      for (const item of more) waiting.items.push(item);
      if (done !== undefined) waiting.done.push(done);
      total += size;
      if (total >= BATCH) flush();
    },
    send: flush,
    making: making(parties, (name, drafts) => waiting.made.set(name, drafts)),
  };
}

/** Lists the sets of which the difference is not known. */
function listUnknown({ kept, kernel }: Parties, difference: Difference): void {
  for (const [name, what] of difference.sets) {
    if (what === "unknown" && isWanted(kept, name)) difference.sets.set(name, kernel.compareSet(name) ?? "all");
  }
}

function* chunks<Value>(values: Iterable<Value>, size: number): Generator<Value[]> {
  let chunk: Value[] = [];
  for (const value of values) {
    chunk.push(value);
    if (chunk.length < size) continue;
    yield chunk;
    chunk = [];
  }
  if (chunk.length > 0) yield chunk;
}
