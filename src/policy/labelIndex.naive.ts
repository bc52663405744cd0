import { matchesBy, type Labels, type Selector } from "../resources/selector.ts";

/**
 * Which selectors match which items, kept up to date. An item has labels of its own and those of its parents (profiles)
 * where it does not have the key itself, of several parents those of the first. Changes are told to the listener as they
 * happen.
 */
export interface LabelIndex<Item> {
  /** Adds the item, or gives it other labels. */
  set(item: Item, labels: Labels, parents: readonly string[]): void;
  /** Tells that every selector that matched it does so no longer. */
  delete(item: Item): void;
  /** Undefined: the parent has no labels any more. Items may name parents that are not there. */
  setParent(name: string, labels: Labels | undefined): void;
  /** Tells what it matches. Adding an id that is there already does nothing. */
  addSelector(id: string, selector: Selector): void;
  /** Tells nothing. */
  removeSelector(id: string): void;
  /** The ids of the selectors that match. */
  matchesOf(item: Item): readonly string[];
  /** The items that the selector matches. */
  itemsOf(id: string): readonly Item[];
  /** How many items there are, how many distinct pairs of labels and parents they have, how many lists of parents. */
  size(): { readonly items: number; readonly classes: number; readonly families: number };
}

export interface MatchListener<Item> {
  started(item: Item, selectorId: string): void;
  stopped(item: Item, selectorId: string): void;
}

/** Looks at everything after every change. */
export function naiveLabelIndex<Item>(listener: MatchListener<Item>): LabelIndex<Item> {
  const items = new Map<Item, { labels: Labels; parents: readonly string[] }>();
  const parents = new Map<string, Labels>();
  const selectors = new Map<string, Selector>();
  let told = new Map<Item, ReadonlySet<string>>();

  const labelOf = (item: Item, key: string): string | undefined => {
    const own = items.get(item);
    const places = [own?.labels ?? {}, ...(own?.parents ?? []).map((name) => parents.get(name) ?? {})];
    return places.find((labels) => Object.hasOwn(labels, key))?.[key];
  };
  const update = (): void => {
    const now = new Map<Item, ReadonlySet<string>>();
    for (const item of items.keys()) {
      const matching = [...selectors].filter(([, selector]) => matchesBy(selector, (key) => labelOf(item, key)));
      now.set(item, new Set(matching.map(([id]) => id)));
    }
    for (const [item, ids] of told) {
      for (const id of ids) if (selectors.has(id) && !now.get(item)?.has(id)) listener.stopped(item, id);
    }
    for (const [item, ids] of now) for (const id of ids) if (!told.get(item)?.has(id)) listener.started(item, id);
    told = now;
  };
  return {
    set(item, labels, of) {
      items.set(item, { labels, parents: of });
      update();
    },
    delete(item) {
      items.delete(item);
      update();
    },
    setParent(name, labels) {
      if (labels === undefined) parents.delete(name);
      else parents.set(name, labels);
      update();
    },
    addSelector(id, selector) {
      selectors.set(id, selector);
      update();
    },
    removeSelector(id) {
      selectors.delete(id);
      update();
    },
    matchesOf: (item) => [...(told.get(item) ?? [])],
    itemsOf: (id) => [...told].filter(([, ids]) => ids.has(id)).map(([item]) => item),
    size: () => ({
      classes: new Set([...items.values()].map(({ labels, parents: of }) => JSON.stringify([sorted(labels), of]))).size,
      families: new Set([...items.values()].map(({ parents: of }) => JSON.stringify(of))).size,
      items: items.size,
    }),
  };
}

function sorted(labels: Labels): [string, string][] {
  return Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
}
