import { prefixTrie, type PrefixTable } from "../ip/trie.ts";
import type { Members } from "./members.naive.ts";
import { parseNet } from "./model.ts";

/**
 * The naive twin beside it says what the methods mean. Here single addresses, of which there may be hundreds of thousands,
 * cost one entry of a table each; only when networks come or go is every member looked at, once per `take`.
 */
export function members(): Members {
  const counts = new Map<string, number>();
  /** Members that are networks. */
  let networks: PrefixTable<true> | undefined;
  let networksChanged = false;
  /** Members that lie within another one, and so were not told. */
  let hidden: Set<string> | undefined;
  /** What came or went since the last `take`, and whether it was told before. Before the first, nothing was. */
  let touched: Map<string, boolean> | undefined;

  const isTold = (member: string): boolean => counts.has(member) && hidden?.has(member) !== true;

  function touch(member: string): void {
    if (touched?.has(member) === false) touched.set(member, isTold(member));
  }

  function* untold(): Generator<[string, boolean]> {
    for (const member of counts.keys()) yield [member, false];
  }

  function count(member: string, change: 1 | -1): void {
    const before = counts.get(member) ?? 0;
    const after = before + change;
    if (before === 0 || after === 0) {
      touch(member);
      if (member.includes("/")) {
        networks ??= prefixTrie();
        networksChanged = true;
        if (after === 0) networks.delete(parseNet(member));
        else networks.set(parseNet(member), true);
      }
    }
    if (after === 0) counts.delete(member);
    else counts.set(member, after);
  }

  function isCovered(member: string): boolean {
    if (networks === undefined || networks.size === 0 || member.includes(",")) return false;
    const prefix = parseNet(member);
    const widest = networks.covering(prefix)[0]?.prefix;
    return widest !== undefined && widest.length < prefix.length;
  }

  return {
    add: (member) => count(member, 1),
    remove: (member) => count(member, -1),
    take() {
      if (networksChanged) for (const member of counts.keys()) touch(member);
      networksChanged = false;
      const added: string[] = [];
      const removed: string[] = [];
      for (const [member, before] of touched ?? untold()) {
        const isThere = counts.has(member);
        const isHidden = isThere && isCovered(member);
        if (isHidden) (hidden ??= new Set()).add(member);
        else hidden?.delete(member);
        const after = isThere && !isHidden;
        if (after && !before) added.push(member);
        if (before && !after) removed.push(member);
      }
      touched = new Map();
      if (hidden?.size === 0) hidden = undefined;
      return { added, removed };
    },
    covers: (member) => counts.has(member) || isCovered(member),
    told() {
      if (touched === undefined) return [];
      const untouched = [...counts.keys()].filter((member) => touched?.has(member) !== true && isTold(member));
      const changed = [...touched].filter(([, before]) => before).map(([member]) => member);
      return [...untouched, ...changed];
    },
  };
}
