/** The chains of policies and profiles: `cali-pi-…`, `cali-po-…`, `cali-pri-…`, `cali-pro-…`. */
import type { Family } from "../ip/address.ts";
import { isForAllFamilies, rulesForFamily, type CompiledRule, type CompiledSide } from "../policy/compileRule.ts";
import type { Direction } from "../policy/model.ts";
import type { CompiledPolicy } from "../policy/ruleTable.ts";
import { nflogRule } from "./nflogPrefix.ts";
import { commentText, deny, printable, RETURN, rule, setMark, type RuleContext } from "./ruleContext.ts";
import type { ChainRule, Layer, Match, RuleAction, RuleChain, Side } from "./ruleset.ts";

/** A policy or profile as a chain asks it: in a layer, for a direction. */
export interface RuleOwner {
  readonly kind: "policy" | "profile";
  /** A policy's id (`knp/default/web`), or a profile's name. */
  readonly id: string;
  readonly layer: Layer;
  readonly direction: Direction;
  /** Of a policy. */
  readonly tier?: string;
}

const PREFIX = {
  policy: { ingress: "cali-pi-", egress: "cali-po-" },
  profile: { ingress: "cali-pri-", egress: "cali-pro-" },
} as const;

export function ownerChainName({ kind, direction, id }: Pick<RuleOwner, "kind" | "direction" | "id">): string {
  return PREFIX[kind][direction] + id;
}

/**
 * The rules of one direction. Allow sets the accept mark and goes back to the chain that asked, Pass the pass mark; Deny
 * drops. Of a policy that is not known nothing may pass.
 */
export function ownerChain(
  owner: RuleOwner,
  compiled: CompiledPolicy | undefined,
  family: Family,
  context: RuleContext,
): RuleChain {
  const { layer, direction } = owner;
  const rules = compiled?.[direction].flatMap((any) => (isForAllFamilies(any) ? [any] : rulesForFamily(any, family)));
  return {
    layer,
    name: ownerChainName(owner),
    origin: objectId(owner),
    rules: rules?.flatMap((one) => ruleOf(one, owner, context)) ?? [rule([], [deny(context, layer)], "not known yet")],
  };
}

/** Whether its chain is the same in every family. */
export function isSameForAll({ direction }: RuleOwner, compiled: CompiledPolicy | undefined): boolean {
  return compiled === undefined || compiled[direction].every(isForAllFamilies);
}

/** As counters and refusals name it. */
function objectId({ kind, id }: RuleOwner): string {
  return kind === "profile" ? `pro/${id}` : id;
}

function ruleOf(compiled: CompiledRule, owner: RuleOwner, context: RuleContext): ChainRule[] {
  const matches = matchesOf(compiled);
  if (matches === undefined) return [];
  const { direction } = owner;
  const counted = { of: objectId(owner), direction, index: compiled.index };
  return [{ matches, actions: actionsOf(compiled, owner, context), comment: commentOf(compiled), counted }];
}

function actionsOf({ action, index }: CompiledRule, owner: RuleOwner, context: RuleContext): readonly RuleAction[] {
  const { kind, direction, id, layer } = owner;
  if (action === "log") return [{ do: "log", prefix: logPrefix(owner, context), ...context.logLimit }];
  // Untracked packets may be many, and policy for them is written where every instruction counts.
  const told = context.nflog && layer !== "raw" ? [nflogRule(action, kind, direction, index, id)] : [];
  if (action === "deny") return [...told, deny(context, layer)];
  if (told.length === 0) return verdict(action, context);
  const [mark] = verdict(action, context);
  return [mark, ...told, RETURN];
}

type Verdict = readonly [mark: RuleAction, end: RuleAction];
const verdicts = new WeakMap<RuleContext, Record<"allow" | "pass", Verdict>>();

/** Tens of thousands of rules have the same. */
function verdict(action: "allow" | "pass", context: RuleContext): Verdict {
  let known = verdicts.get(context);
  if (known === undefined) {
    const { accept, pass } = context.marks;
    known = { allow: [setMark(accept), RETURN], pass: [setMark(pass), RETURN] };
    verdicts.set(context, known);
  }
  return known[action];
}

/** Where the rule stands in its object, and what people noted there. */
function commentOf({ origin, annotations }: CompiledRule): string {
  if (annotations === undefined) return commentText(origin);
  const notes = Object.entries(annotations).map(([key, value]) => ` ${key}=${value}`);
  return commentText(`${origin}${notes.join("")}`);
}

function logPrefix(owner: RuleOwner, { settings }: RuleContext): string {
  const parts = owner.kind === "profile" ? ["pro", owner.id] : owner.id.split("/");
  const words: Record<string, string> = {
    t: owner.tier ?? "",
    k: parts[0] ?? "",
    p: parts.at(-1) ?? "",
    n: parts.length > 2 ? (parts[1] ?? "") : "",
  };
  return printable(`${settings.logPrefix.replaceAll(/%([tkpn])/g, (_, letter: string) => words[letter] ?? "")}: `);
}

/** Undefined where no packet can match. What is cheap to look at comes first. */
function matchesOf(rule: CompiledRule): readonly Match[] | undefined {
  const { protocol, notProtocols, icmp, notIcmp, source, destination } = rule;
  const [ofSource, ofDestination] = [sideMatches("source", source), sideMatches("destination", destination)];
  if (ofSource === undefined || ofDestination === undefined) return undefined;
  if ((protocol ?? notProtocols ?? icmp ?? notIcmp) === undefined) {
    if (ofDestination.length === 0) return ofSource;
    if (ofSource.length === 0) return ofDestination;
  }
  const all: Match[] = [
    ...(protocol === undefined ? [] : [{ on: "protocol", protocols: [protocol] } as const]),
    ...(notProtocols === undefined ? [] : [{ on: "protocol", protocols: notProtocols, negated: true } as const]),
    ...(icmp === undefined ? [] : [{ on: "icmp", ...icmp } as const]),
    ...(notIcmp === undefined ? [] : [{ on: "icmp", ...notIcmp, negated: true } as const]),
    ...ofSource,
    ...ofDestination,
  ];
  return all.slice(); // without the room that an array keeps for more
}

const ANY: readonly Match[] = [];

/** Most sides ask for one set, and tens of thousands of rules for the same few. */
const setMatches: Record<Side, Map<string, readonly Match[]>> = { source: new Map(), destination: new Map() };
const SET_MATCHES_MAX = 4096;

function inSet(side: Side, set: string): readonly Match[] {
  const known = setMatches[side].get(set);
  if (known !== undefined) return known;
  if (setMatches[side].size >= SET_MATCHES_MAX) setMatches[side].clear();
  const made: readonly Match[] = [{ on: "set", side, set }];
  setMatches[side].set(set, made);
  return made;
}

function sideMatches(side: Side, compiled: CompiledSide): readonly Match[] | undefined {
  const { nets, notNets, sets = [], notSets = [], ports, notPorts, portSets = [] } = compiled;
  if ((nets ?? notNets ?? ports ?? notPorts) === undefined && notSets.length + portSets.length === 0) {
    const [only, ...others] = sets;
    if (only === undefined) return ANY;
    if (others.length === 0) return inSet(side, only);
  }
  const isEmpty = ({ ranges, sets: of }: NonNullable<CompiledSide["ports"]>): boolean =>
    ranges.length + of.length === 0;
  // One of no ports is never the packet's; none of no ports always.
  if (ports !== undefined && isEmpty(ports)) return undefined;
  return [
    ...(nets === undefined ? [] : [{ on: "address", side, nets } as const]),
    ...(notNets === undefined ? [] : [{ on: "address", side, nets: notNets, negated: true } as const]),
    ...(ports === undefined ? [] : [{ on: "ports", side, ...ports } as const]),
    ...(notPorts === undefined || isEmpty(notPorts)
      ? []
      : [{ on: "ports", side, ...notPorts, negated: true } as const]),
    ...sets.map((set) => ({ on: "set", side, set }) as const),
    ...notSets.map((set) => ({ on: "set", side, set, negated: true }) as const),
    ...portSets.map((set) => ({ on: "ports", side, ranges: [], sets: [set] }) as const),
  ];
}
