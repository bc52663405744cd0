import type { NftChange } from "../netlink/nftables.ts";
import { chainUnit, type Difference, nameOf, refuseChain, setUnit, usersOf } from "./keptTable.ts";
import { isTaken, type Parties, type RefusedItem } from "./tableTransaction.io.ts";

/** Who is to blame for what the kernel refuses, so that the rest can be carried out. */

/** Which sets were listed since the kernel refused a change of them, and whether everything was. */
export interface Accused {
  readonly sets: Set<string>;
  all: boolean;
}

/** Finds out what is to blame for each refusal, one kind at a time: what follows from it may be refused too. */
export function judge(
  parties: Parties,
  refusals: readonly RefusedItem[],
  difference: Difference,
  accused: Accused,
  isAnew: boolean,
): void {
  const { kept, kernel } = parties;
  const ofPath = refusals.find(({ item, code }) => PATH_FAULTS.has(code) && leadsOn(item.change));
  if (ofPath !== undefined) {
    const culprit = findCulprit(parties, difference, isAnew) ?? nameOf(ofPath.item.unit);
    if (!refuseChain(kept, culprit, ofPath.reason)) difference.chains.delete(culprit);
    return;
  }
  const ofSets = refusals.filter(({ item }) => item.unit.startsWith("set ") && item.change.kind !== "deleteSet");
  if (ofSets.length > 0) {
    for (const { item, reason } of ofSets) judgeSet(parties, nameOf(item.unit), reason, difference, accused);
    return;
  }
  const deletions = refusals.filter(({ item }) => isDeletion(item.change));
  if (deletions.length > 0 && !accused.all) {
    // A rule of somebody else's leads there.
    accused.all = true;
    for (const name of kept.chains.keys()) kernel.inspectChain(name, difference);
    return;
  }
  for (const { item } of deletions) {
    difference.chains.delete(nameOf(item.unit));
    difference.sets.delete(nameOf(item.unit));
  }
  // Of a chain several rules may be refused at once.
  const chains = new Map<string, string>();
  for (const { item, reason } of refusals) {
    const name = nameOf(item.unit);
    if (!isDeletion(item.change) && !chains.has(name)) chains.set(name, reason);
  }
  for (const [name, reason] of chains) if (!refuseChain(kept, name, reason)) difference.chains.delete(name);
}

/** Once its elements are known, it is the set that cannot be: what looks at it is refused. */
function judgeSet({ kept }: Parties, name: string, reason: string, difference: Difference, { sets }: Accused): void {
  difference.sets.set(name, "unknown");
  if (kept.present.sets.has(name) && !sets.has(name)) {
    sets.add(name);
    return;
  }
  kept.refused.set(setUnit(name), { reason });
  for (const user of usersOf(kept, name)) difference.chains.add(user);
}

/** The kernel follows all ways through the chains, and refuses the step that completes a wrong one: a circle, … */
const PATH_FAULTS: ReadonlySet<string> = new Set(["ELOOP", "EMLINK", "ENOTSUP", "EOPNOTSUPP"]);

function leadsOn(change: NftChange): boolean {
  if (change.kind === "addElements") return change.elements.some(({ data }) => data !== undefined && "verdict" in data);
  if (change.kind !== "addRule") return false;
  return change.rule.expressions.some(
    (one) => one.kind === "immediate" && "verdict" in one.data && "chain" in one.data.verdict,
  );
}

/**
 * The chain without which the kernel would take the transaction, by halves: the first of those that change, in an order
 * of their own, that has to drop with all before it. Undefined where not even all together help.
 */
function findCulprit(parties: Parties, difference: Difference, isAnew: boolean): string | undefined {
  const { kept } = parties;
  const suspects = [...difference.chains].filter((name) => {
    const chain = kept.chains.get(name);
    return chain !== undefined && chain.base === undefined && !kept.refused.has(chainUnit(name));
  });
  const wouldDo = (count: number): boolean => isTaken(parties, suspects.slice(0, count), difference, isAnew);
  if (!wouldDo(suspects.length)) return undefined;
  let [tooFew, enough] = [0, suspects.length];
  while (enough - tooFew > 1) {
    const middle = (tooFew + enough) >> 1;
    if (wouldDo(middle)) enough = middle;
    else tooFew = middle;
  }
  return suspects[enough - 1];
}

const isDeletion = ({ kind }: NftChange): boolean => kind === "deleteChain" || kind === "deleteSet";
