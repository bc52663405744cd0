/** A rule's conditions in the options of iptables: which fit into one rule, and which need alternatives. */
import type { Family } from "../ip/address.ts";
import { icmpOf, PROTOCOL, type PortRange } from "../policy/model.ts";
import { addressText, hex, inexpressible, quoted, setName } from "./iptablesNames.ts";
import type { Match } from "./ruleset.ts";

/** An option that a rule can have once. */
type Slot = "-p" | "-s" | "-d" | "-i" | "-o";

/** One alternative of a condition, as options of one rule. */
export interface Term {
  readonly options: string;
  /** The options that hold where it does not. Absent: iptables has none. */
  readonly inverse?: string;
  readonly slot?: Slot;
  /** It can hold for this protocol only, and iptables wants to see it named in the rule. */
  readonly protocol?: number;
}

/** One of the terms holds; `negated`: none of them. */
export interface Condition {
  readonly anyOf: readonly Term[];
  readonly negated: boolean;
}

export interface Conditions {
  /** What stands in every rule. */
  readonly inline: string;
  readonly slots: ReadonlySet<Slot>;
  /** The protocol that `inline` names. */
  readonly protocol: number | undefined;
  readonly blocks: readonly Condition[];
}

/** XT_MULTI_PORTS (linux/netfilter/xt_multiport.h); a range takes two. */
const MULTIPORT_MAX = 15;
/** A rule of iptables-restore has no more than 255 words: so many alternatives are excluded in one, more by marks. */
const INVERSES_MAX = 8;
/** The protocols whose ports are matched: see `Packet` in policy/match.ts. */
const WITH_PORTS: readonly number[] = [PROTOCOL.TCP, PROTOCOL.UDP, PROTOCOL.SCTP];

/** Undefined where the matches can never hold together. Throws `Failure` for what iptables cannot express. */
export function conditionsOf(matches: readonly Match[], family: Family): Conditions | undefined {
  const protocols = protocolsOf(matches, family);
  const conditions: Condition[] = [];
  for (const match of matches) {
    if (match.on === "protocol") continue;
    const { anyOf, negated } = conditionOf(match, family);
    const possible = anyOf.filter(({ protocol }) => protocol === undefined || protocols.includes(protocol));
    if (possible.length > 0) conditions.push({ anyOf: possible, negated });
    else if (!negated) return undefined;
  }
  const condition = protocols.condition();
  if (condition !== undefined) {
    if (condition.anyOf.length === 0) return undefined;
    conditions.unshift(condition);
  }
  return placed(conditions);
}

/** Puts into the rule itself what has room there, and leaves the others as blocks. */
function placed(conditions: readonly Condition[]): Conditions {
  const slots = new Set<Slot>();
  const inline: string[] = [];
  const blocks: Condition[] = [];
  let protocol: number | undefined;
  for (const condition of conditions) {
    const { anyOf, negated } = condition;
    const [only, second] = anyOf;
    const isFree = (term: Term, taken: ReadonlySet<Slot>): boolean =>
      (term.slot === undefined || !taken.has(term.slot)) &&
      (term.protocol === undefined || term.protocol === protocol || (!taken.has("-p") && !negated));
    if (!negated && only !== undefined && second === undefined && isFree(only, slots)) {
      if (only.protocol !== undefined && only.protocol !== protocol) {
        protocol = only.protocol;
        slots.add("-p");
        inline.unshift(`-p ${protocol}`);
      }
      if (only.slot !== undefined) slots.add(only.slot);
      if (only.options !== "") inline.push(only.options);
      continue;
    }
    const after = new Set(slots);
    const inverses = anyOf.map((term) => {
      if (!isFree(term, after)) return undefined;
      if (term.slot !== undefined) after.add(term.slot);
      return term.inverse;
    });
    if (negated && inverses.length <= INVERSES_MAX && inverses.every((inverse) => inverse !== undefined)) {
      for (const slot of after) slots.add(slot);
      inline.push(...inverses);
    } else {
      blocks.push(condition);
    }
  }
  return { inline: [...new Set(inline)].join(" "), slots, protocol, blocks };
}

/** The options of a term in a rule whose protocol is `named`, or open. */
export function termOptions({ options, protocol }: Term, named?: number): string {
  return [protocol === undefined || protocol === named ? "" : `-p ${protocol}`, options].filter(Boolean).join(" ");
}

/** Whether the term can stand in one rule with what stands there already. */
export function fitsBeside({ slot, protocol }: Term, { slots, protocol: named }: Conditions): boolean {
  return (slot === undefined || !slots.has(slot)) && (protocol === undefined || protocol === named || !slots.has("-p"));
}

interface Protocols {
  includes(protocol: number): boolean;
  condition(): Condition | undefined;
}

/** What all matches together leave of the protocols. */
function protocolsOf(matches: readonly Match[], family: Family): Protocols {
  let only: readonly number[] | undefined;
  const excluded = new Set<number>();
  for (const match of matches) {
    if (match.on === "icmp" && match.negated !== true) only = meet(only, [icmpOf(family)]);
    if (match.on !== "protocol") continue;
    // `-p 0` would be any protocol.
    if (match.protocols.includes(0)) throw inexpressible("iptables cannot match protocol 0");
    if (match.negated === true) for (const protocol of match.protocols) excluded.add(protocol);
    else only = meet(only, match.protocols);
  }
  const left = only?.filter((protocol) => !excluded.has(protocol));
  return {
    includes: (protocol) => left?.includes(protocol) ?? !excluded.has(protocol),
    condition() {
      if (left !== undefined) return { anyOf: left.map((protocol) => ({ options: "", protocol })), negated: false };
      if (excluded.size === 0) return undefined;
      const anyOf = [...excluded].map((protocol): Term => ({
        options: `-p ${protocol}`,
        inverse: `! -p ${protocol}`,
        slot: "-p",
      }));
      return { anyOf, negated: true };
    },
  };
}

function meet(a: readonly number[] | undefined, b: readonly number[]): readonly number[] {
  return [...new Set(a === undefined ? b : a.filter((protocol) => b.includes(protocol)))];
}

function conditionOf(match: Exclude<Match, { on: "protocol" }>, family: Family): Condition {
  return { anyOf: termsOf(match, family), negated: match.negated === true };
}

const LETTER = { source: "s", destination: "d" } as const;
const WORD = { source: "src", destination: "dst" } as const;
const WAY = { in: "-i", out: "-o" } as const;

function termsOf(match: Exclude<Match, { on: "protocol" }>, family: Family): Term[] {
  switch (match.on) {
    case "interface": {
      const slot = WAY[match.way];
      return match.name === "*" ? [{ options: "" }] : [slotTerm(slot, interfacePattern(match.name))];
    }
    case "address":
      return match.nets.map((net) => slotTerm(`-${LETTER[match.side]}`, addressText(net)));
    case "set":
      return [setTerm(match.set, WORD[match.side], family)];
    case "ports": {
      const flag = `--${LETTER[match.side]}ports`;
      const { ranges, sets, side } = match;
      return [
        ...chunks(ranges).flatMap((chunk) => WITH_PORTS.map((protocol) => portsTerm(flag, chunk, protocol))),
        ...sets.map((set) => setTerm(set, `${WORD[side]},${WORD[side]}`, family)),
      ];
    }
    case "icmp":
      return icmpTerms(match.type, match.code, family);
    case "connection":
      return [term("-m conntrack", `--ctstate ${match.states.join(",").toUpperCase()}`)];
    case "dnat":
      return [term("-m conntrack", "--ctstate DNAT")];
    case "mark":
      return [term("-m mark", `--mark ${hex(match.value)}/${hex(match.mask)}`)];
    case "local":
      return [term("-m addrtype", `--${WORD[match.side]}-type LOCAL`)];
    case "reversePath":
      return [{ options: "-m rpfilter --validmark", inverse: "-m rpfilter --validmark --invert" }];
  }
}

/** `cali*` as iptables writes it; `eth0`. Throws `Failure` for names that it would take for something else. */
export function interfacePattern(name: string): string {
  const isPattern = name.endsWith("*");
  const plain = isPattern ? name.slice(0, -1) : name;
  // A `+` at the end is a pattern to iptables, and there is no way to say otherwise.
  if (!/^[^\s/!+-][^\s/]{0,14}$/.test(plain) || plain.endsWith("+")) {
    throw inexpressible(`iptables cannot match an interface called "${name}"`);
  }
  return quotedUnlessPlain(plain) + (isPattern ? "+" : "");
}

function quotedUnlessPlain(text: string): string {
  return /^[\w.:@-]+$/.test(text) ? text : quoted(text);
}

function slotTerm(slot: Slot, value: string): Term {
  return { options: `${slot} ${value}`, inverse: `! ${slot} ${value}`, slot };
}

function term(module: string, option: string): Term {
  return { options: `${module} ${option}`, inverse: `${module} ! ${option}` };
}

function setTerm(set: string, dimensions: string, family: Family): Term {
  return term("-m set", `--match-set ${quotedUnlessPlain(setName(family, set))} ${dimensions}`);
}

function portsTerm(flag: string, ranges: readonly PortRange[], protocol: number): Term {
  const list = ranges.map(({ first, last }) => (first === last ? first : `${first}:${last}`)).join(",");
  return { ...term("-m multiport", `${flag} ${list}`), protocol };
}

/** As many as one match takes. */
function chunks(ranges: readonly PortRange[]): PortRange[][] {
  const all: PortRange[][] = [];
  let room = 0;
  for (const range of ranges) {
    const size = range.first === range.last ? 1 : 2;
    if (size > room) {
      all.push([]);
      room = MULTIPORT_MAX;
    }
    all.at(-1)?.push(range);
    room -= size;
  }
  return all;
}

/** The kernel's wildcard (`icmp_type_code_match` in ip_tables.c), which is no type of IPv4's ICMP. */
const ANY_ICMP_TYPE = 255;

function icmpTerms(type: number | undefined, code: number | undefined, family: Family): Term[] {
  const protocol = icmpOf(family);
  const [module, flag] = family === 4 ? ["-m icmp", "--icmp-type"] : ["-m icmp6", "--icmpv6-type"];
  const one = (text: string): Term => ({ ...term(module, `${flag} ${text}`), protocol });
  if (type !== undefined) {
    if (family === 4 && type === ANY_ICMP_TYPE) throw inexpressible("iptables cannot match ICMP type 255");
    return [one(code === undefined ? String(type) : `${type}/${code}`)];
  }
  if (code === undefined) return [{ options: "", protocol }];
  // A code stands only beside a type: so all of them.
  return Array.from({ length: family === 4 ? ANY_ICMP_TYPE : 256 }, (_, each) => one(`${each}/${code}`));
}
