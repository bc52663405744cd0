/** Chains in the words of iptables: the options of each rule, without the chain that it is appended to. */
import type { Family } from "../ip/address.ts";
import { PROTOCOL } from "../policy/model.ts";
import {
  conditionsOf,
  fitsBeside,
  interfacePattern,
  termOptions,
  type Condition,
  type Conditions,
} from "./iptablesMatch.ts";
import { dispatchTree, type DispatchTree } from "./iptablesDispatch.ts";
import { branchName, chainName, hex, inexpressible, ruleHashes } from "./iptablesNames.ts";
import { marksOf } from "./ruleContext.ts";
import { commentOptions, isLimited, join, setMark, targetOf } from "./iptablesTarget.ts";
import type { ChainRule, Counted, DispatchMap, Layer, Match, RuleAction, RuleChain } from "./ruleset.ts";

/** One rule of iptables. */
export interface RuleLine {
  /** `-p 6 -m multiport --dports 80 -j ACCEPT` */
  readonly options: string;
  /** Its counters are those of this. */
  readonly counted?: Counted;
}

/** One chain of iptables. */
export interface RenderedChain {
  readonly layer: Layer;
  readonly name: string;
  readonly lines: readonly RuleLine[];
  /** One for each line, see `ruleHashes`. */
  readonly hashes: readonly string[];
}

export interface RenderContext {
  readonly family: Family;
  readonly layer: Layer;
  readonly scratch: ScratchMarks;
  mapOf(name: string): DispatchMap | undefined;
}

/** One bit each, by which several rules say together what one cannot. They keep nothing from one rule to the next. */
export interface ScratchMarks {
  /** All blocks held so far. */
  readonly all: number;
  /** This block held. */
  readonly block: number;
}

/** Those that the ruleset leaves free. Throws `RulesetError` where the mask has too few bits. */
export function scratchMarks(markMask: number): ScratchMarks {
  const { scratch0: all, scratch1: block } = marksOf(markMask);
  return { all, block };
}

/** The chain, then those of its dispatch trees. Throws `Failure` for what iptables cannot express. */
export function renderChain(chain: RuleChain, context: RenderContext): RenderedChain[] {
  const name = chainName(chain.name);
  const branches = new Map<string, readonly RuleLine[]>();
  const lines = renderRules(name, chain.rules, context, branches);
  return [...new Map([[name, lines], ...branches])].map(([of, all]) => rendered(chain.layer, of, all));
}

export function rendered(layer: Layer, name: string, lines: readonly RuleLine[], hashedAs = name): RenderedChain {
  const hashes = ruleHashes(
    hashedAs,
    lines.map(({ options }) => options),
  );
  return { layer, name, lines, hashes };
}

/** What stands in for a chain that was refused. iptables does not drop in `nat`: there, nothing is translated. */
export function droppingLines(layer: Layer): RuleLine[] {
  return layer === "nat" ? [] : [{ options: "-j DROP" }];
}

function renderRules(
  chain: string,
  rules: readonly ChainRule[],
  context: RenderContext,
  branches: Map<string, readonly RuleLine[]>,
): RuleLine[] {
  const at = rules.findIndex(({ actions }) => actions.some(isDispatch));
  if (at < 0) return rules.flatMap((rule) => renderRule(rule, context));
  const before = rules.slice(0, at).flatMap((rule) => renderRule(rule, context));
  const { matches, actions, ...told } = rules[at]!;
  const action = actions.at(-1)!;
  if (!isDispatch(action)) throw inexpressible("only the last action of a rule may dispatch");
  if (dependsOnItself(matches, actions)) throw inexpressible("a rule that dispatches changes what it matches");
  if (actions.length > 1 || told.counted !== undefined) {
    before.push(...renderRule({ matches, actions: actions.slice(0, -1), ...told }, context));
  }
  const rest = rules.slice(at + 1);
  if (matches.length > 0) {
    // What matches goes to a chain that has the tree and all that follows, what does not goes on here.
    const aside = branchName(chain, `at/${at}`);
    branches.set(aside, renderRules(aside, [{ matches: [], actions: [action] }, ...rest], context, branches));
    const after = renderRules(branchName(chain, `after/${at}`), rest, context, branches);
    return [...before, ...finalLines(matches, [`-g ${aside}`], {}, context, true), ...after];
  }
  const after = renderRules(branchName(chain, `after/${at}`), rest, context, branches);
  const map = context.mapOf(action.map);
  if (map === undefined) return [...before, ...after];
  const tree = dispatchTree(map.entries.keys());
  return [...before, ...treeLines(chain, tree, map, after, branches), ...after];
}

const isDispatch = (action: RuleAction): action is Extract<RuleAction, { do: "dispatch" }> => action.do === "dispatch";

/**
 * A branch is gone to, not jumped to, so that the end of an endpoint's chain leads back to whoever asked. So a branch
 * ends with what comes after the tree: for an interface that it does not know.
 */
function treeLines(
  chain: string,
  tree: DispatchTree,
  map: DispatchMap,
  after: readonly RuleLine[],
  chains: Map<string, readonly RuleLine[]>,
): RuleLine[] {
  const way = map.by === "in" ? "-i" : "-o";
  const lines: RuleLine[] = [];
  for (const { prefix, path, tree: below } of tree.branches) {
    const name = branchName(chain, path);
    chains.set(name, [...treeLines(chain, below, map, after, chains), ...after]);
    lines.push({ options: `${way} ${interfacePattern(`${prefix}*`)} -g ${name}` });
  }
  for (const name of tree.names) {
    const target = chainName(map.entries.get(name) ?? "");
    lines.push({ options: `${way} ${interfacePattern(name)} -g ${target}` });
  }
  return lines;
}

type Told = Pick<ChainRule, "comment" | "counted">;

/** The rules of iptables that do what the rule says. None where it can never hold. */
export function renderRule({ matches, actions, ...told }: ChainRule, context: RenderContext): RuleLine[] {
  for (const { do: does } of actions.slice(0, -1)) {
    if (GOES_ON.has(does)) continue;
    throw inexpressible(`"${does}" must be the last action of its rule`);
  }
  const ports = actions.map((action) => ("ports" in action ? action.ports : undefined)).find(Boolean);
  if (ports === undefined) {
    const targets = actions.map((action) => targetOf(action, context.layer));
    return dependsOnItself(matches, actions)
      ? keptLines(matches, targets, told, context)
      : finalLines(matches, targets, told, context, ENDS.has(actions.at(-1)?.do));
  }
  if (dependsOnItself(matches, actions)) throw inexpressible("a rule that translates ports changes what it matches");
  // Ports are translated only where the protocol is named: a rule for each that has them, and one for all others.
  const named = WITH_NAT_PORTS.map((protocol) =>
    finalLines(
      [{ on: "protocol", protocols: [protocol] }, ...matches],
      actions.map((action) => targetOf(action, context.layer, ports)),
      told,
      context,
      true,
    ),
  );
  const others: Match = { on: "protocol", protocols: WITH_NAT_PORTS, negated: true };
  const targets = actions.map((action) => targetOf(action, context.layer));
  return [...named.flat(), ...finalLines([others, ...matches], targets, told, context, true)];
}

const WITH_NAT_PORTS: readonly number[] = [PROTOCOL.TCP, PROTOCOL.UDP, PROTOCOL.SCTP];
/** After these the packet goes on with the next rule. */
const GOES_ON: ReadonlySet<RuleAction["do"]> = new Set(["mark", "log", "nflog", "notrack"]);
/** After these it never sees the chain's next rule. */
const ENDS: ReadonlySet<RuleAction["do"] | undefined> = new Set([
  "accept",
  "drop",
  "reject",
  "return",
  "goto",
  "dnat",
  "snat",
  "masquerade",
] as const);

/** Whether an action changes what the rule looks at, so that the next action's rule would not hold any more. */
function dependsOnItself(matches: readonly Match[], actions: readonly RuleAction[]): boolean {
  return actions
    .slice(0, -1)
    .some(
      (action) =>
        (action.do === "mark" && matches.some((match) => match.on === "mark" && (match.mask & action.mask) !== 0)) ||
        (action.do === "notrack" && matches.some(({ on }) => on === "connection" || on === "dnat")),
    );
}

/** One rule for each target, where the matches fit into one; else rules before them that work the rest out. */
function finalLines(
  matches: readonly Match[],
  targets: readonly string[],
  told: Told,
  context: RenderContext,
  ends: boolean,
): RuleLine[] {
  const conditions = conditionsOf(matches, context.family);
  if (conditions === undefined) return [];
  const { inline, blocks, protocol } = conditions;
  if (blocks.length === 0) return actionLines(inline, targets, told);
  const [only] = blocks;
  if (only !== undefined && ends && isShortWithoutMarks(conditions, only, targets.length)) {
    return only.anyOf.flatMap((term) => actionLines(join(inline, termOptions(term, protocol)), targets, told));
  }
  refuseScratch(matches, targets, context.scratch);
  return [
    ...blockLines(blocks, context.scratch),
    ...actionLines(join(inline, isMarked(context.scratch.all)), targets, told),
  ];
}

/** Alternatives may stand one after the other where the first that holds ends the matter. */
function isShortWithoutMarks(conditions: Conditions, only: Condition, targets: number): boolean {
  if (conditions.blocks.length > 1 || only.negated) return false;
  const count = only.anyOf.length;
  return count * targets <= count + targets + 1 && only.anyOf.every((term) => fitsBeside(term, conditions));
}

/** For actions that change what the matches look at: whether they hold is found out once, and kept in a mark. */
function keptLines(
  matches: readonly Match[],
  targets: readonly string[],
  told: Told,
  { family, scratch }: RenderContext,
): RuleLine[] {
  const conditions = conditionsOf(matches, family);
  if (conditions === undefined) return [];
  refuseScratch(matches, targets, scratch);
  const { inline, blocks } = conditions;
  return [
    ...blockLines(blocks, scratch),
    { options: setMark(0, scratch.block) },
    { options: join(inline, blocks.length === 0 ? "" : isMarked(scratch.all), setMark(scratch.block)) },
    ...actionLines(isMarked(scratch.block), targets, told),
  ];
}

/**
 * As Felix does it: `all` stays set as long as every block held so far. The first block sets it itself, where it asks for
 * one of several; later ones note in `block` whether one held.
 */
function blockLines(blocks: readonly Condition[], { all, block }: ScratchMarks): RuleLine[] {
  return blocks.flatMap(({ anyOf, negated }, index) => {
    const each = (what: string): RuleLine[] => anyOf.map((term) => ({ options: join(termOptions(term), what) }));
    if (negated) return [...(index === 0 ? [{ options: setMark(all) }] : []), ...each(setMark(0, all))];
    if (index === 0) return [{ options: setMark(0, all) }, ...each(setMark(all))];
    return [
      { options: setMark(0, block) },
      ...each(setMark(block)),
      { options: join(`-m mark ! --mark ${hex(block)}/${hex(block)}`, setMark(0, all)) },
    ];
  });
}

const isMarked = (mark: number): string => `-m mark --mark ${hex(mark)}/${hex(mark)}`;

function refuseScratch(matches: readonly Match[], targets: readonly string[], { all, block }: ScratchMarks): void {
  const isScratch = (mask: number): boolean => (mask & (all | block)) !== 0;
  const isKept = matches.some((match) => match.on === "mark" && isScratch(match.mask));
  const isWritten = targets
    .slice(0, -1)
    .some((text) => isScratch(Number(/^-j MARK --set-mark \w+\/(\w+)$/.exec(text)?.[1] ?? 0)));
  if (!isKept && !isWritten) return;
  throw inexpressible(`a rule that needs the marks ${hex(all)} and ${hex(block)} uses them otherwise`);
}

/** The counters stand at the first that counts every packet; a limit lets only some through. */
function actionLines(options: string, targets: readonly string[], { comment, counted }: Told): RuleLine[] {
  const about = comment === undefined ? "" : commentOptions(comment);
  const all = counted !== undefined && targets.every(isLimited) ? ["", ...targets] : targets;
  const countedAt = all.findIndex((text) => !isLimited(text));
  return all.map((text, index) => ({
    options: join(about, options, text),
    ...(counted !== undefined && index === countedAt ? { counted } : {}),
  }));
}
