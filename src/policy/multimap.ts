/** Several values for a key. Most keys have one: a Set for each would take more room than all else. */
export type Multimap<Value extends object> = Map<string, Value | Set<Value>>;

export function addTo<Value extends object>(map: Multimap<Value>, key: string, value: Value): void {
  const at = map.get(key);
  if (at === undefined) map.set(key, value);
  else if (at instanceof Set) at.add(value);
  else if (at !== value) map.set(key, new Set([at, value]));
}

export function removeFrom<Value extends object>(map: Multimap<Value>, key: string, value: Value): void {
  const at = map.get(key);
  if (at === value) map.delete(key);
  else if (at instanceof Set && at.delete(value) && at.size === 0) map.delete(key);
}

/** The values of a key, as they are found in the map. */
export function each<Value extends object>(at: Value | Set<Value> | undefined): Iterable<Value> {
  if (at === undefined) return [];
  return at instanceof Set ? at : [at];
}

export function sizeOf(at: object | undefined): number {
  return at === undefined ? 0 : at instanceof Set ? at.size : 1;
}

/** What stands under each of the keys; under all, where none are given. */
export function* under<Value extends object>(
  keys: readonly string[] | undefined,
  map: Multimap<Value>,
): Generator<Iterable<Value>> {
  for (const key of keys ?? map.keys()) yield each(map.get(key));
}
