/** What of a table that is kept differs from what it should be, and what goes on counting. */
import type { Element } from "../netlink/nftElement.ts";
import type { Counts } from "../netlink/nftExpression.ts";
import type { KeyRange } from "../netlink/nftKey.ts";
import type { NftSet } from "../netlink/nftSet.ts";
import type { BaseChain } from "../netlink/nftTable.ts";
import { chainUnit, type Difference, type Kept, type KeptSet, type KnownSetDifference, setUnit } from "./keptTable.ts";
import type { Draft } from "./nftRender.ts";
import type { ChainRule } from "./ruleset.ts";

/** What the kernel has of a set against what it should have. */
export function compareElements({ form, members }: KeptSet, listed: readonly Element[]): KnownSetDifference {
  const seen = new Set<string>();
  const remove: KeyRange[] = [];
  for (const element of listed) {
    const member = form.decode(element);
    if (member !== undefined && members.has(member)) seen.add(member);
    else remove.push(element);
  }
  const add = seen.size === members.size ? [] : [...members].filter((member) => !seen.has(member));
  return { add, remove };
}

/** Whether they can be made the same without being deleted. */
export function isSameKind(listed: NftSet, wanted: NftSet): boolean {
  const flags = ["interval", "dynamic", "timeouts", "anonymous", "constant", "counter"] as const;
  return (
    listed.key.join() === wanted.key.join() &&
    listed.data === wanted.data &&
    flags.every((flag) => listed[flag] === wanted[flag])
  );
}

export function isSameBase(listed: BaseChain | undefined, wanted: BaseChain | undefined): boolean {
  return listed?.type === wanted?.type && listed?.hook === wanted?.hook && listed?.priority === wanted?.priority;
}

/** The counts of rules that stay as they are, at the places of the drafts that go on counting. */
export function countsFor(
  drafts: readonly Draft[],
  before: readonly (ChainRule | undefined)[],
  counted: readonly (Counts | undefined)[],
): (Counts | undefined)[] {
  const sums = new Map<string, Counts>();
  for (const [at, rule] of before.entries()) {
    const counts = counted[at];
    if (rule === undefined || counts === undefined) continue;
    const key = JSON.stringify(rule);
    const { packets, bytes } = sums.get(key) ?? { packets: 0, bytes: 0 };
    sums.set(key, { packets: packets + counts.packets, bytes: bytes + counts.bytes });
  }
  return drafts.map(({ counts: rule }) => {
    if (rule === undefined) return undefined;
    const key = JSON.stringify(rule);
    const sum = sums.get(key);
    // Of several drafts of one rule, the first goes on.
    sums.delete(key);
    return sum;
  });
}

/** What others have changed, in words, before it is put right. */
export function describeDifference({ chains, sets, present }: Kept, difference: Difference): string[] {
  const say = (what: string, isOurs: boolean, isThere: boolean): string =>
    isThere ? (isOurs ? `${what} was changed` : `${what} was not ours`) : `${what} was gone`;
  return [
    ...[...difference.chains].map((name) => say(chainUnit(name), chains.has(name), present.chains.has(name))),
    ...[...difference.sets.keys()].map((name) => say(setUnit(name), sets.has(name), present.sets.has(name))),
  ];
}
