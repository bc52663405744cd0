/**
 * Long lists of policies in chains of their own, `cali-gi-…` and `cali-go-…`, which all endpoints with the same policies
 * share: a thousand policies on each of five hundred pods are then no million rules.
 */
import { createHash } from "node:crypto";
import type { Direction } from "../policy/model.ts";
import { ownerChainName } from "./policyRules.ts";
import { isUnmarked, jump, not, RETURN, rule, type RuleContext } from "./ruleContext.ts";
import type { ChainRule, Layer, RuleChain } from "./ruleset.ts";

/** Policies of one tier that stand next to each other there. */
export interface PolicyGroup {
  readonly layer: Layer;
  readonly direction: Direction;
  readonly tier: string;
  readonly policies: readonly string[];
}

/** So few are asked by the endpoint's own chain. */
const INLINE_MAX = 4;
/** A group ends after a policy whose hash has so many low bits clear: after one in sixteen. */
const BOUNDARY_MASK = 15;
/** After so many policies a packet that one of them decided about leaves the group. */
const RETURN_STRIDE = 5;

/**
 * The list in pieces, each of them one policy or a group. Where a group ends depends only on the policies themselves, so
 * that lists which differ in one policy have all other groups in common.
 */
export function grouped(policies: readonly string[]): (readonly string[])[] {
  if (policies.length <= INLINE_MAX) return policies.map((id) => [id]);
  const groups: string[][] = [[]];
  for (const id of policies) {
    groups.at(-1)?.push(id);
    if ((hashOf(id) & BOUNDARY_MASK) === 0) groups.push([]);
  }
  return groups.filter(({ length }) => length > 0);
}

/** FNV-1a, with its bits mixed (MurmurHash3's end): it alone changes little between names that are numbered. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

export function groupChainName({ direction, tier, policies }: PolicyGroup): string {
  const hash = createHash("sha224")
    .update([tier, ...policies].join("\n"))
    .digest("base64url");
  return `cali-g${direction === "ingress" ? "i" : "o"}-${hash.slice(0, 16)}`;
}

export function groupChain(group: PolicyGroup, { marks }: RuleContext): RuleChain {
  const { layer, direction, tier, policies } = group;
  const undecided = isUnmarked((marks.accept | marks.pass) >>> 0);
  const rules = policies.flatMap((id, at): ChainRule[] => {
    const ask = jump(ownerChainName({ kind: "policy", direction, id }));
    const isFirst = at % RETURN_STRIDE === 0;
    if (!isFirst) return [rule([undecided], [ask])];
    return [...(at === 0 ? [] : [rule([not(undecided)], [RETURN], "Return on verdict")]), rule([], [ask])];
  });
  const origin = `tier ${tier}: ${policies[0]} to ${policies.at(-1)}`;
  return { layer, name: groupChainName(group), rules, origin };
}
