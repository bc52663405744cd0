/** From what a table of iptables holds to what it is to hold, in the words of iptables-restore. */
import { isOurChain } from "./iptablesNames.ts";
import type { DesiredTable, HookedRules } from "./iptablesModel.ts";
import type { RenderedChain } from "./iptablesRender.ts";
import type { SavedTable } from "./iptablesSave.ts";
import type { Layer } from "./ruleset.ts";

/** A table as far as it concerns us. */
export interface ActualTable {
  /** Of our chains, the marks of their rules; empty for a rule that is not ours. */
  readonly chains: Map<string, readonly string[]>;
  /** Of all other chains, all rules. */
  readonly others: Map<string, readonly PlacedRule[]>;
}

export interface PlacedRule {
  readonly options: string;
  readonly hash: string;
}

export interface TablePlan {
  readonly layer: Layer;
  readonly writes: readonly RenderedChain[];
  readonly hooks: readonly HookPlan[];
  /** Names of chains. */
  readonly removals: readonly string[];
}

export interface HookPlan {
  readonly hook: string;
  /** Options of our rules that are there now. */
  readonly removed: readonly string[];
  readonly rules: HookedRules;
}

export type InsertMode = "insert" | "append";

export function actualTable(saved: SavedTable): ActualTable {
  const chains = new Map<string, readonly string[]>();
  const others = new Map<string, readonly PlacedRule[]>();
  for (const [name, rules] of saved) {
    if (isOurChain(name))
      chains.set(
        name,
        rules.map(({ hash }) => hash),
      );
    else others.set(name, rules);
  }
  return { chains, others };
}

/** @param names chains that may differ, our own and others' */
export function planTable(
  layer: Layer,
  desired: DesiredTable,
  actual: ActualTable,
  names: Iterable<string>,
  mode: InsertMode,
): TablePlan {
  const writes: RenderedChain[] = [];
  const hooks: HookPlan[] = [];
  const removals: string[] = [];
  for (const name of names) {
    if (isOurChain(name)) {
      const chain = desired.chains.get(name);
      const present = actual.chains.get(name);
      if (chain === undefined) {
        if (present !== undefined) removals.push(name);
      } else if (present === undefined || !isSame(present, chain.hashes)) {
        writes.push(chain);
      }
      continue;
    }
    const rules = desired.hooks.get(name) ?? nothingIn(layer, name);
    const present = actual.others.get(name) ?? [];
    if (isInPlace(present, rules, mode)) continue;
    hooks.push({ hook: name, removed: present.filter(isOurs).map(({ options }) => options), rules });
  }
  return { layer, writes, hooks, removals };
}

/** Everything that may differ: what is desired, and what of ours is there. */
export function allNames(desired: DesiredTable, actual: ActualTable): Set<string> {
  const others = [...actual.others].filter(([, rules]) => rules.some(isOurs)).map(([name]) => name);
  return new Set([...desired.chains.keys(), ...actual.chains.keys(), ...desired.hooks.keys(), ...others]);
}

export function isEmpty({ writes, hooks, removals }: TablePlan): boolean {
  return writes.length + hooks.length + removals.length === 0;
}

/** Notes that the plan was carried out. */
export function noteDone({ writes, hooks, removals }: TablePlan, actual: ActualTable, mode: InsertMode): void {
  for (const { name, hashes } of writes) actual.chains.set(name, hashes);
  for (const name of removals) actual.chains.delete(name);
  for (const { hook, rules } of hooks) {
    const others = (actual.others.get(hook) ?? []).filter((rule) => !isOurs(rule));
    const [first, last] = [placedRules(rules.first), placedRules(rules.last)];
    actual.others.set(hook, mode === "insert" ? [...first, ...others, ...last] : [...others, ...first, ...last]);
  }
}

/**
 * One transaction. All chains that are written or removed are emptied first, so that a rule may name any of them; lines
 * of others' are not touched.
 */
export function restoreText({ layer, writes, hooks, removals }: TablePlan, mode: InsertMode): string {
  const lines = [`*${layer}`];
  for (const { name } of writes) lines.push(`:${name} - [0:0]`);
  for (const name of removals) lines.push(`:${name} - [0:0]`);
  for (const chain of writes) for (const rule of placedRules(chain)) lines.push(`-A ${chain.name} ${rule.options}`);
  for (const { hook, removed, rules } of hooks) {
    for (const options of removed) lines.push(`-D ${hook} ${options}`);
    for (const [index, { options }] of placedRules(rules.first).entries()) {
      lines.push(mode === "insert" ? `-I ${hook} ${index + 1} ${options}` : `-A ${hook} ${options}`);
    }
    for (const { options } of placedRules(rules.last)) lines.push(`-A ${hook} ${options}`);
  }
  for (const name of removals) lines.push(`-X ${name}`);
  return `${lines.join("\n")}\nCOMMIT\n`;
}

/** What others changed, in words: the plan that puts it right says so. */
export function describePlan({ layer, writes, hooks, removals }: TablePlan, actual: ActualTable): string[] {
  return [
    ...writes.map(({ name }) => `${layer}: chain ${name} was ${actual.chains.has(name) ? "changed" : "removed"}`),
    ...hooks.map(({ hook }) => `${layer}: our rules in ${hook} were changed or moved`),
    ...removals.map((name) => `${layer}: chain ${name} is not wanted`),
  ];
}

function placedRules({ lines, hashes }: RenderedChain): PlacedRule[] {
  return lines.map(({ options }, index) => {
    const hash = hashes[index] ?? "";
    return { options: `-m comment --comment "cali:${hash}" ${options}`, hash };
  });
}

function isInPlace(present: readonly PlacedRule[], { first, last }: HookedRules, mode: InsertMode): boolean {
  const hashes = present.map(({ hash }) => hash);
  if (!isSame(hashes.filter(Boolean), [...first.hashes, ...last.hashes])) return false;
  if (mode === "insert" && !isSame(hashes.slice(0, first.hashes.length), first.hashes)) return false;
  return isSame(hashes.slice(hashes.length - last.hashes.length), last.hashes);
}

const isOurs = ({ hash }: PlacedRule): boolean => hash !== "";

function nothingIn(layer: Layer, name: string): HookedRules {
  const none: RenderedChain = { layer, name, lines: [], hashes: [] };
  return { first: none, last: none };
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((text, at) => text === b[at]);
}
