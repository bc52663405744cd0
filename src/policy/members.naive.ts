import { prefixCovers } from "../ip/prefix.ts";
import { parseNet } from "./model.ts";

/** What came and went since it was last asked. */
export interface MemberChange {
  readonly added: string[];
  readonly removed: string[];
}

/**
 * The members of one address set. A member may be added several times, by several endpoints, and is there until each of
 * them has removed it. Those that lie within another member are not told: the kernel's sets of intervals refuse overlaps.
 */
export interface Members {
  add(member: string): void;
  /** Only what was added. */
  remove(member: string): void;
  take(): MemberChange;
  /** Those that were told and not taken back. */
  told(): string[];
  /** Whether it was added itself, or lies within a network that was. */
  covers(member: string): boolean;
}

/** Looks at all members each time. */
export function naiveMembers(): Members {
  const members: string[] = [];
  let told: string[] = [];
  return {
    add: (member) => void members.push(member),
    remove: (member) => void members.splice(members.indexOf(member), 1),
    take() {
      const distinct = [...new Set(members)];
      const now = distinct.filter((member) => !distinct.some((other) => other !== member && covers(other, member)));
      const change = {
        added: now.filter((member) => !told.includes(member)),
        removed: told.filter((member) => !now.includes(member)),
      };
      told = now;
      return change;
    },
    told: () => told,
    covers: (member) => members.some((other) => other === member || covers(other, member)),
  };
}

/** Members of an address and a port are alone in what they match. */
function covers(outer: string, inner: string): boolean {
  if (outer.includes(",") || inner.includes(",")) return false;
  return prefixCovers(parseNet(outer), parseNet(inner));
}
