/** Rules as nf_tables has them: what a transaction says to make them, and whether those that are listed are the same. */
import type { Family } from "../ip/address.ts";
import { drop } from "../netlink/nftStatement.ts";
import type { Element } from "../netlink/nftElement.ts";
import type { Counts, Expression } from "../netlink/nftExpression.ts";
import { keepBytes, sameExpression } from "../netlink/nftExpressionCodec.ts";
import { formatKey } from "../netlink/nftKey.ts";
import type { NftRule } from "../netlink/nftRule.ts";
import type { NftSet } from "../netlink/nftSet.ts";
import type { NftChange } from "../netlink/nftables.ts";
import type { TableName } from "../netlink/nftTable.ts";
import { actionsOf, cut } from "./nftActions.ts";
import { allOf, type Among, type MatchContext, type Step } from "./nftMatches.ts";
import type { ChainRule, DispatchMap, Layer } from "./ruleset.ts";

/** One rule of the kernel's. */
export interface Draft {
  readonly steps: readonly Step[];
  readonly comment?: string | undefined;
  /** Whose packets its counter counts; several drafts of one rule each count a part. */
  readonly counts?: ChainRule | undefined;
}

export interface RenderContext extends MatchContext {
  readonly family: Family;
  /** Throws where there is no such map. */
  readonly dispatchBy: (layer: Layer, map: string) => DispatchMap["by"];
}

/** `nft` reads comments of 128 bytes, a zero byte with them. */
const COMMENT_MAX = 127;
const COUNTER = keepBytes([{ kind: "counter", packets: 0, bytes: 0 }]);

/** Throws `Failure` for what cannot be expressed. */
export function draftsOf(rules: readonly ChainRule[], layer: Layer, context: RenderContext): Draft[] {
  const { family, dispatchBy } = context;
  const actionContext = { family, layer, dispatchBy: (map: string) => dispatchBy(layer, map) };
  const drafts: Draft[] = [];
  for (const rule of rules) {
    const alternatives = allOf(rule.matches, context);
    const { limited, others } = actionsOf(rule.actions, actionContext);
    const comment = rule.comment === undefined ? undefined : cut(rule.comment, COMMENT_MAX);
    for (const log of limited) for (const steps of alternatives) drafts.push({ steps: [...steps, ...log], comment });
    if (others.length === 0 && rule.counted === undefined) continue;
    for (const steps of alternatives) {
      if (rule.counted === undefined) drafts.push({ steps: [...steps, ...others], comment });
      else drafts.push({ steps: [...steps, ...COUNTER, ...others], comment, counts: rule });
    }
  }
  return drafts;
}

/** What stands in place of a chain that the kernel does not take. */
export const DROPS: readonly Draft[] = [{ steps: drop(), comment: "refused by the kernel" }];

/** The names of the sets and maps that the rules look at. */
export function setsOf(drafts: readonly Draft[]): Set<string> {
  const names = new Set<string>();
  for (const { steps } of drafts) for (const step of steps) if (step.kind === "lookup") names.add(step.set);
  return names;
}

/** The kernel puts a number for %d. */
const ANONYMOUS = "__set%d";

/** Gives each set without a name a number that no other of the transaction has. */
export type NextId = () => number;

/** Adds the rule at the end of the chain. */
export function ruleChanges(
  table: TableName,
  chain: string,
  { steps, comment }: Draft,
  counts: Counts | undefined,
  nextId: NextId,
): NftChange[] {
  const changes: NftChange[] = [];
  const expressions: Expression[] = [];
  for (const step of steps) {
    if (step.kind === "among") {
      const set = anonymousSet(table, step, nextId());
      changes.push({ kind: "addSet", set }, { kind: "addElements", set, elements: step.elements });
      expressions.push(step.load, lookup(step, ANONYMOUS, set.id));
    } else if (step.kind === "counter" && counts !== undefined) expressions.push({ kind: "counter", ...counts });
    else expressions.push(step);
  }
  const rule: NftRule = { table, chain, expressions };
  changes.push({ kind: "addRule", rule: comment === undefined ? rule : { ...rule, comment } });
  return changes;
}

function anonymousSet(table: TableName, { key, elements }: Among, id: number): NftSet & { readonly id: number } {
  const interval = elements.some(({ last }) => last !== undefined) ? { interval: true as const } : {};
  return { table, name: ANONYMOUS, key: [key], ...interval, anonymous: true, constant: true, id };
}

function lookup({ not }: Among, set: string, setId?: number): Expression {
  const invert = not ? { invert: true as const } : {};
  return { kind: "lookup", set, from: 0, ...(setId === undefined ? {} : { setId }), ...invert };
}

/** Whether the listed rules are what the drafts say, but for counts. */
export function sameRules(
  listed: readonly NftRule[],
  drafts: readonly Draft[],
  elementsOf: (set: string) => readonly Element[],
): boolean {
  return listed.length === drafts.length && listed.every((rule, at) => sameRule(rule, drafts[at]!, elementsOf));
}

function sameRule(
  listed: NftRule,
  { steps, comment }: Draft,
  elementsOf: (set: string) => readonly Element[],
): boolean {
  if (listed.comment !== comment) return false;
  let at = 0;
  const next = (): Expression | undefined => listed.expressions[at++];
  for (const step of steps) {
    const found = next();
    if (found === undefined) return false;
    if (step.kind !== "among") {
      if (!sameExpression(found, step)) return false;
      continue;
    }
    const looked = next();
    if (!sameExpression(found, step.load) || looked?.kind !== "lookup" || !looked.set.startsWith("__set")) return false;
    if (!sameExpression(looked, lookup(step, looked.set)) || !sameElements(step, elementsOf(looked.set))) return false;
  }
  return at === listed.expressions.length;
}

function sameElements({ key, elements }: Among, listed: readonly Element[]): boolean {
  const texts = (list: readonly Element[]): string =>
    list
      .map((one) => formatKey([key], one))
      .toSorted()
      .join();
  return elements.length === listed.length && texts(elements) === texts(listed);
}
