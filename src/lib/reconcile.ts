export type Change<Item> =
  | { readonly kind: "add" | "replace"; readonly key: string; readonly item: Item }
  | { readonly kind: "remove"; readonly key: string; readonly item: Item };

/** Adds come before removes, so that traffic always has somewhere to go. `actual` holds only what is ours. */
export function plan<Item>(
  desired: ReadonlyMap<string, Item>,
  actual: ReadonlyMap<string, Item>,
  same: (a: Item, b: Item) => boolean,
): Change<Item>[] {
  const changes: Change<Item>[] = [];
  for (const [key, item] of desired) {
    const present = actual.get(key);
    if (present === undefined) changes.push({ kind: "add", key, item });
    else if (!same(present, item)) changes.push({ kind: "replace", key, item });
  }
  for (const [key, item] of actual) if (!desired.has(key)) changes.push({ kind: "remove", key, item });
  return changes;
}
