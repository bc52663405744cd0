import { matchesBy, type Labels, type Selector } from "../resources/selector.ts";
import { hashLabels, hashText } from "./labelHash.ts";
import type { LabelIndex, MatchListener } from "./labelIndex.naive.ts";
import { addTo, each, removeFrom, sizeOf, under, type Multimap } from "./multimap.ts";
import { isCoarse, restrictionsOf, type Restriction } from "./restriction.ts";

/**
 * The naive index beside it says what the methods mean. Here a change costs what it touches: items with the same labels
 * and parents form a class, and matching is done per class; selectors are filed under one label that they demand, so that
 * a class is only compared with selectors that one of its labels calls for, and a new selector only with classes that have
 * its label. Labels are indexed by key as selectors ask for keys: the first to ask for one pays a look at all classes.
 */
export function labelIndex<Item>(
  listener: MatchListener<Item>,
  { hashOf = hashLabels, places = new Map() }: LabelIndexOptions<Item> = {},
): LabelIndex<Item> {
  /** By hash of labels and parents; classes with the same hash form a list. */
  const classes = new Map<number, LabelClass<Item>>();
  const parents = new Map<string, Parent<Item>>();
  const families = new Map<string, Family<Item>>();
  /** By the very list of names, which many items have in common. */
  const familyOfList = new WeakMap<readonly string[], Family<Item>>();
  const queries = new Map<string, Query>();
  const keys = new Map<string, KeyIndex<Item>>();
  /** Those that demand nothing. */
  const unfiled = new Set<Query>();
  let classCount = 0;

  function parentNamed(name: string): Parent<Item> {
    let parent = parents.get(name);
    if (parent === undefined) {
      parent = { name, labels: NO_LABELS, families: new Set(), isSet: false };
      parents.set(name, parent);
    }
    return parent;
  }

  function familyOf(names: readonly string[]): Family<Item> {
    const known = familyOfList.get(names);
    if (known?.isThere === true) return known;
    const key = names.join("\n");
    let family = families.get(key);
    if (family === undefined) {
      family = { key, hash: hashText(key), parents: names.map(parentNamed), classes: new Set(), isThere: true };
      families.set(key, family);
      for (const parent of family.parents) parent.families.add(family);
    }
    familyOfList.set(names, family);
    return family;
  }

  function leaveFamily(group: LabelClass<Item>): void {
    const { family } = group;
    family.classes.delete(group);
    if (family.classes.size > 0) return;
    families.delete(family.key);
    family.isThere = false;
    for (const parent of family.parents) {
      parent.families.delete(family);
      if (parent.families.size === 0 && !parent.isSet) parents.delete(parent.name);
    }
  }

  function* allClasses(): Generator<LabelClass<Item>> {
    for (const first of classes.values()) {
      for (let at: LabelClass<Item> | undefined = first; at !== undefined; at = at.next) yield at;
    }
  }

  /** The index of a key, made when it is asked for. */
  function keyIndex(key: string): KeyIndex<Item> {
    const known = keys.get(key);
    if (known !== undefined) return known;
    const index: KeyIndex<Item> = {
      count: 0,
      anyValue: new Set(),
      queries: new Map(),
      classes: new Map(),
      parents: new Map(),
    };
    keys.set(key, index);
    for (const group of allClasses()) {
      if (Object.hasOwn(group.labels, key)) addTo(index.classes, group.labels[key]!, group);
    }
    for (const parent of parents.values()) {
      if (Object.hasOwn(parent.labels, key)) addTo(index.parents, parent.labels[key]!, parent);
    }
    return index;
  }

  /** Every class that may meet the restriction, some perhaps twice. */
  function* candidates(restriction: Restriction | undefined): Generator<LabelClass<Item>> {
    if (restriction === undefined) return yield* allClasses();
    const index = keyIndex(restriction.key);
    const { values } = restriction;
    for (const found of under(values, index.classes)) yield* found;
    for (const found of under(values, index.parents)) {
      for (const parent of found) for (const family of parent.families) yield* family.classes;
    }
  }

  /** The restriction under which a selector is filed: where the fewest others are, and the fewest classes. */
  function choose(selector: Selector): Restriction | undefined {
    const all = restrictionsOf(selector);
    const fine = all.filter((restriction) => !isCoarse(restriction));
    let best = fine[0] ?? all[0];
    let least = Infinity;
    for (const restriction of fine) {
      const index = keys.get(restriction.key);
      let cost = 0;
      for (const value of restriction.values ?? []) {
        cost += sizeOf(index?.queries.get(value)) + sizeOf(index?.classes.get(value));
        for (const parent of each(index?.parents.get(value))) {
          for (const { classes: ofFamily } of parent.families) cost += ofFamily.size;
        }
      }
      if (cost < least) [best, least] = [restriction, cost];
    }
    return best;
  }

  function file(query: Query): void {
    const { restriction } = query;
    if (restriction === undefined) return void unfiled.add(query);
    const index = keyIndex(restriction.key);
    index.count += 1;
    if (restriction.values === undefined) index.anyValue.add(query);
    else for (const value of restriction.values) addTo(index.queries, value, query);
  }

  function unfile(query: Query): void {
    const { restriction } = query;
    if (restriction === undefined) return void unfiled.delete(query);
    const index = keyIndex(restriction.key);
    index.count -= 1;
    if (index.count === 0) return void keys.delete(restriction.key);
    index.anyValue.delete(query);
    for (const value of restriction.values ?? []) removeFrom(index.queries, value, query);
  }

  /** The selectors that match the class, found by its labels. */
  function matching(group: LabelsAndFamily<Item>): readonly Query[] {
    const label = (key: string): string | undefined => labelIn(group, key);
    const found = new Set<Query>();
    const consider = (query: Query): void => {
      if (!found.has(query) && matchesBy(query.selector, label)) found.add(query);
    };
    const look = (key: string, value: string): void => {
      const index = keys.get(key);
      if (index === undefined) return;
      index.anyValue.forEach(consider);
      for (const query of each(index.queries.get(value))) consider(query);
    };
    if (keys.size > 0) {
      for (const key in group.labels) look(key, group.labels[key]!);
      for (const { labels } of group.family.parents) for (const key in labels) look(key, labels[key]!);
    }
    unfiled.forEach(consider);
    return found.size === 0 ? NO_QUERIES : [...found];
  }

  function tell(items: readonly Item[], before: readonly Query[], after: readonly Query[]): void {
    if (before === after) return;
    const [old, now] = [new Set(before), new Set(after)];
    for (const query of before) {
      if (!now.has(query)) for (const item of items) listener.stopped(item, query.id);
    }
    for (const query of after) {
      if (!old.has(query)) for (const item of items) listener.started(item, query.id);
    }
  }

  /** The item's class, the item in it. */
  function join(item: Item, labels: Labels, names: readonly string[]): LabelClass<Item> {
    const family = familyOf(names);
    // 30 bits, to stay a small integer.
    const hash = (hashOf(labels) + family.hash) & 0x3fffffff;
    const first = classes.get(hash);
    for (let at = first; at !== undefined; at = at.next) {
      if (at.family !== family || !sameLabels(at.labels, labels)) continue;
      (at.others ??= []).push(item);
      return at;
    }
    const matches = matching({ labels, family });
    const made: LabelClass<Item> = { hash, labels, family, first: item, others: undefined, matches, next: first };
    classes.set(hash, made);
    classCount += 1;
    family.classes.add(made);
    for (const [key, index] of indexed(labels)) addTo(index.classes, labels[key]!, made);
    return made;
  }

  /** The keys of the labels that are indexed. */
  function* indexed(labels: Labels): Generator<[string, KeyIndex<Item>]> {
    for (const key in labels) {
      const index = keys.get(key);
      if (index !== undefined) yield [key, index];
    }
  }

  function leave(item: Item, group: LabelClass<Item>): void {
    const last = group.others?.pop();
    if (group.others?.length === 0) group.others = undefined;
    if (last !== undefined) {
      if (group.first === item) group.first = last;
      else if (last !== item) group.others![group.others!.indexOf(item)] = last;
      return;
    }
    classCount -= 1;
    const first = classes.get(group.hash);
    if (first === group && group.next === undefined) classes.delete(group.hash);
    else if (first === group) classes.set(group.hash, group.next!);
    else
      for (let before = first; before !== undefined; before = before.next)
        if (before.next === group) before.next = group.next;
    leaveFamily(group);
    for (const [key, index] of indexed(group.labels)) removeFrom(index.classes, group.labels[key]!, group);
  }

  return {
    set(item, labels, names) {
      const before = places.get(item);
      const after = join(item, labels, names);
      // Joined before it leaves, so that a class of its own need not be made anew.
      if (before !== undefined) leave(item, before);
      if (before === after) return;
      places.set(item, after);
      tell([item], before?.matches ?? NO_QUERIES, after.matches);
    },
    delete(item) {
      const before = places.get(item);
      if (before === undefined) return;
      places.delete(item);
      leave(item, before);
      tell([item], before.matches, NO_QUERIES);
    },
    setParent(name, labels) {
      const parent = parentNamed(name);
      for (const [key, index] of indexed(parent.labels)) removeFrom(index.parents, parent.labels[key]!, parent);
      parent.labels = labels ?? NO_LABELS;
      parent.isSet = labels !== undefined;
      for (const [key, index] of indexed(parent.labels)) addTo(index.parents, parent.labels[key]!, parent);
      for (const family of parent.families) {
        for (const group of family.classes) {
          const before = group.matches;
          group.matches = matching(group);
          tell(itemsIn(group), before, group.matches);
        }
      }
      if (!parent.isSet && parent.families.size === 0) parents.delete(name);
    },
    addSelector(id, selector) {
      if (queries.has(id)) return;
      const query: Query = { id, selector, restriction: choose(selector) };
      queries.set(id, query);
      file(query);
      for (const group of candidates(query.restriction)) {
        if (group.matches.includes(query) || !matchesBy(selector, (key) => labelIn(group, key))) continue;
        group.matches = [...group.matches, query];
        for (const item of itemsIn(group)) listener.started(item, id);
      }
    },
    removeSelector(id) {
      const query = queries.get(id);
      if (query === undefined) return;
      queries.delete(id);
      for (const group of candidates(query.restriction)) {
        if (!group.matches.includes(query)) continue;
        group.matches = group.matches.length === 1 ? NO_QUERIES : group.matches.filter((other) => other !== query);
      }
      unfile(query);
    },
    matchesOf: (item) => (places.get(item)?.matches ?? NO_QUERIES).map(({ id }) => id),
    itemsOf(id) {
      const query = queries.get(id);
      if (query === undefined) return [];
      const found = new Set<LabelClass<Item>>();
      for (const group of candidates(query.restriction)) if (group.matches.includes(query)) found.add(group);
      return [...found].flatMap(itemsIn);
    },
    size: () => ({ items: places.size, classes: classCount, families: families.size }),
  };
}

export interface LabelIndexOptions<Item> {
  /** Classes with the same hash are told apart. */
  readonly hashOf?: ((labels: Labels) => number) | undefined;
  /** Where the class of each item is kept: a map, unless the items have a field for it, which takes less room and time. */
  readonly places?: Places<Item>;
}

export type Places<Item> = Pick<Map<Item, LabelClass<Item>>, "get" | "delete" | "size"> & {
  set(item: Item, group: LabelClass<Item>): unknown;
};

const NO_LABELS: Labels = {};
const NO_QUERIES: readonly Query[] = [];

interface Query {
  readonly id: string;
  readonly selector: Selector;
  readonly restriction: Restriction | undefined;
}

/** Items with the same labels and parents. */
export interface LabelClass<Item> {
  readonly hash: number;
  readonly labels: Labels;
  readonly family: Family<Item>;
  first: Item;
  /** Absent where there is but one, as where each item has labels of its own: a list for each would take more room. */
  others: Item[] | undefined;
  matches: readonly Query[];
  next: LabelClass<Item> | undefined;
}

function itemsIn<Item>({ first, others = [] }: LabelClass<Item>): readonly Item[] {
  return [first, ...others];
}

type LabelsAndFamily<Item> = Pick<LabelClass<Item>, "labels" | "family">;

interface Parent<Item> {
  readonly name: string;
  labels: Labels;
  readonly families: Set<Family<Item>>;
  /** It is there, and not only named. */
  isSet: boolean;
}

/** Classes with the same parents, in the same order. */
interface Family<Item> {
  readonly key: string;
  readonly hash: number;
  readonly parents: readonly Parent<Item>[];
  readonly classes: Set<LabelClass<Item>>;
  /** It has classes, or is about to get one. */
  isThere: boolean;
}

/** Who has a label of one key, and who demands it, by value. */
interface KeyIndex<Item> {
  /** How many selectors are filed under the key. */
  count: number;
  /** Those that demand the key with any value. */
  readonly anyValue: Set<Query>;
  readonly queries: Multimap<Query>;
  readonly classes: Multimap<LabelClass<Item>>;
  readonly parents: Multimap<Parent<Item>>;
}

function labelIn<Item>({ labels, family }: LabelsAndFamily<Item>, key: string): string | undefined {
  if (Object.hasOwn(labels, key)) return labels[key];
  for (const parent of family.parents) if (Object.hasOwn(parent.labels, key)) return parent.labels[key];
  return undefined;
}

function sameLabels(a: Labels, b: Labels): boolean {
  let left = 0;
  for (const key in a) {
    if (a[key] !== b[key]) return false;
    left += 1;
  }
  for (const _ in b) left -= 1;
  return left === 0;
}
