import type { PrefixEntry, PrefixTable } from "./trie.ts";
import { comparePrefixes, formatPrefix, prefixContains, prefixCovers } from "./prefix.ts";

/** What a prefix table means, looking through all of it each time: the trie must never differ from it. */
export function naivePrefixTable<Value>(): PrefixTable<Value> {
  const byText = new Map<string, PrefixEntry<Value>>();
  const sorted = (): PrefixEntry<Value>[] =>
    [...byText.values()].toSorted((a, b) => comparePrefixes(a.prefix, b.prefix));
  return {
    get size() {
      return byText.size;
    },
    get: (prefix) => byText.get(formatPrefix(prefix))?.value,
    set(prefix, value) {
      byText.set(formatPrefix(prefix), { prefix, value });
    },
    delete: (prefix) => byText.delete(formatPrefix(prefix)),
    longestMatch: (address) =>
      sorted()
        .filter((entry) => prefixContains(entry.prefix, address))
        .toSorted((a, b) => b.prefix.length - a.prefix.length)[0],
    covering: (prefix) =>
      sorted()
        .filter((entry) => prefixCovers(entry.prefix, prefix))
        .toSorted((a, b) => a.prefix.length - b.prefix.length),
    covered: (prefix) => sorted().filter((entry) => prefixCovers(prefix, entry.prefix)),
    entries: sorted,
  };
}
