/** What all chains are made with: bits of the packet's mark, actions as the settings want them, words for rules. */
import type { Family } from "../ip/address.ts";
import { familyOfNet, hasFamily, type PortRange } from "../policy/model.ts";
import { RulesetError, type NodeFacts } from "./nodeFacts.ts";
import type { ChainRule, Layer, Match, RuleAction } from "./ruleset.ts";

/** Bits of the packet's mark that are ours, by Calico's names and in its order. */
export interface Marks {
  /** A policy let the packet through; from raw and mangle on it also means that host endpoints are done with it. */
  readonly accept: number;
  /** A rule said Pass: on with the next tier. */
  readonly pass: number;
  readonly drop: number;
  /** In raw PREROUTING: from a workload. Elsewhere free for renderers, as is `scratch1`. */
  readonly scratch0: number;
  readonly scratch1: number;
  readonly all: number;
}

const BITS_NEEDED = 5;
const MARK_BITS = 32;

/** Takes bits from the mask, the lowest first. Throws `RulesetError` where it has fewer than five. */
export function marksOf(mask: number): Marks {
  const bits = Array.from({ length: MARK_BITS }, (_, bit) => (1 << bit) >>> 0).filter((bit) => (mask & bit) !== 0);
  const [accept, pass, drop, scratch0, scratch1] = bits;
  if (
    accept === undefined ||
    pass === undefined ||
    drop === undefined ||
    scratch0 === undefined ||
    scratch1 === undefined
  ) {
    throw new RulesetError(
      "too-few-mark-bits",
      `the mark mask 0x${mask.toString(16)} has ${bits.length} bits, and the rules need ${BITS_NEEDED}`,
    );
  }
  return { accept, pass, drop, scratch0, scratch1, all: (accept | pass | drop | scratch0 | scratch1) >>> 0 };
}

/** `NodeFacts` without the members of sets: when this changes, rules may. */
export type RuleFacts = Pick<NodeFacts, "settings" | "renderer" | "tunnels" | "pools" | "serviceCidrs" | "nflog">;

export interface RuleContext extends Omit<RuleFacts, "pools"> {
  readonly marks: Marks;
  /** `cali*` */
  readonly workloadInterfaces: readonly string[];
  readonly logLimit: { readonly perSecond?: number; readonly burst?: number };
  readonly natPorts: PortRange | undefined;
  /** Families of which workloads get addresses. Empty where that is not known: there are no pools. */
  readonly poolFamilies: readonly Family[];
  /** Families with pools whose addresses are translated on their way out. */
  readonly masqueradedFamilies: readonly Family[];
}

/** Throws `RulesetError` for settings that cannot be carried out. */
export function ruleContext({ settings, renderer, tunnels, pools, serviceCidrs, nflog }: RuleFacts): RuleContext {
  const inUse = pools.filter(({ disabled, isLoadBalancer }) => !disabled && !isLoadBalancer);
  const familiesOf = (some: typeof pools): Family[] =>
    ([4, 6] as const).filter((family) =>
      hasFamily(
        some.map(({ cidr }) => cidr),
        family,
      ),
    );
  return {
    settings,
    renderer,
    tunnels,
    serviceCidrs,
    nflog,
    marks: marksOf(renderer.markMask),
    workloadInterfaces: settings.interfacePrefix.map((prefix) => `${prefix}*`),
    logLimit: logLimit(settings.logActionRateLimit, settings.logActionRateLimitBurst),
    natPorts: settings.natPortRange === undefined ? undefined : portRange(String(settings.natPortRange)),
    poolFamilies: familiesOf(inUse),
    masqueradedFamilies: familiesOf(inUse.filter(({ natOutgoing }) => natOutgoing)),
  };
}

const SECONDS = { second: 1, minute: 60, hour: 3600, day: 86400 } as const;

function logLimit(text: string, burst: number): RuleContext["logLimit"] {
  if (text === "") return {};
  const parts = /^([1-9][0-9]*)(?:\/(s|sec|second|m|min|minute|h|hour|d|day))?$/.exec(text);
  if (parts === null) {
    throw new RulesetError("bad-setting", `logActionRateLimit: "${text}" is not a rate like 10/second or 100/minute`);
  }
  const unit = Object.entries(SECONDS).find(([name]) => name.startsWith(parts[2] ?? "second"));
  return { perSecond: Number(parts[1]) / (unit?.[1] ?? 1), burst };
}

function portRange(text: string): PortRange {
  const [first, last = first] = text.split(":").map(Number);
  if (first === undefined || last === undefined || !(first >= 1 && first <= last && last <= 65535)) {
    throw new RulesetError("bad-setting", `natPortRange: "${text}" is not a range of ports like 32768:60999`);
  }
  return { first, last };
}

/** What the kernel's comments have room for (NFTNL_UDATA_COMMENT_MAXLEN, libnftnl). */
const COMMENT_MAX = 120;

export function rule(matches: readonly Match[], actions: readonly RuleAction[], comment?: string): ChainRule {
  return comment === undefined ? { matches, actions } : { matches, actions, comment: commentText(comment) };
}

export function commentText(comment: string): string {
  return printable(comment).slice(0, COMMENT_MAX);
}

/** A line break in what people wrote must not cost them the rule. */
export function printable(text: string): string {
  return NOT_PRINTABLE.test(text) ? text.replaceAll(/[^ -~]+/g, " ") : text;
}
const NOT_PRINTABLE = /[^ -~]/;

export const ACCEPT: RuleAction = { do: "accept" };
export const DROP: RuleAction = { do: "drop" };
export const REJECT: RuleAction = { do: "reject" };
export const RETURN: RuleAction = { do: "return" };
export const NOTRACK: RuleAction = { do: "notrack" };
export const jump = (chain: string): RuleAction => ({ do: "jump", chain });
export const goto = (chain: string): RuleAction => ({ do: "goto", chain });
export const setMark = (bits: number): RuleAction => ({ do: "mark", value: bits, mask: bits });
export const clearMark = (bits: number): RuleAction => ({ do: "mark", value: 0, mask: bits });

/** All of the bits are set. */
export const isMarked = (bits: number): Match => ({ on: "mark", value: bits, mask: bits });
/** None of the bits is set. */
export const isUnmarked = (bits: number): Match => ({ on: "mark", value: 0, mask: bits });
export const comesBy = (name: string): Match => ({ on: "interface", way: "in", name });
export const leavesBy = (name: string): Match => ({ on: "interface", way: "out", name });
export const isProtocol = (...protocols: number[]): Match => ({ on: "protocol", protocols });
export const from = (...nets: string[]): Match => ({ on: "address", side: "source", nets });
export const to = (...nets: string[]): Match => ({ on: "address", side: "destination", nets });
export const isInSet = (side: "source" | "destination", set: string): Match => ({ on: "set", side, set });
export const isLocal = (side: "source" | "destination"): Match => ({ on: "local", side });
export const isPort = (side: "source" | "destination", port: number): Match => ({
  on: "ports",
  side,
  ranges: [{ first: port, last: port }],
  sets: [],
});
export const not = (match: Match): Match => ({ ...match, negated: true });
export const ESTABLISHED: Match = { on: "connection", states: ["established", "related"] };
export const INVALID: Match = { on: "connection", states: ["invalid"] };

/** What ends the way of a packet that may not pass: the sender is told only where `filter` is asked to. */
export function deny({ renderer }: RuleContext, layer: Layer): RuleAction {
  return layer === "filter" && renderer.filterDenyAction === "Reject" ? REJECT : DROP;
}

/** What ends the way through the layer of a packet that may pass: others' rules are asked where settings want it. */
export function allow({ renderer }: RuleContext, layer: Layer): RuleAction {
  const action = layer === "filter" ? renderer.filterAllowAction : renderer.mangleAllowAction;
  return layer !== "raw" && action === "Return" ? RETURN : ACCEPT;
}

/**
 * For the place of a chain that the kernel refuses and that the node's own packets meet too: nothing passes by workloads'
 * interfaces, and the node stays within reach.
 */
export function workloadsHeld({ workloadInterfaces }: RuleContext, ...ways: readonly ("in" | "out")[]): ChainRule[] {
  return ways.flatMap((way) =>
    workloadInterfaces.map((name) => rule([{ on: "interface", way, name }], [DROP], "Refused by the kernel")),
  );
}

/** The networks of one family. */
export function ofFamily(nets: readonly string[], family: Family): string[] {
  return nets.filter((net) => familyOfNet(net) === family);
}
