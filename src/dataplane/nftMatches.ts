/** A rule's conditions as expressions of nf_tables. */
import type { Family } from "../ip/address.ts";
import { type Prefix, prefixCovers } from "../ip/prefix.ts";
import type { Expression } from "../netlink/nftExpression.ts";
import { type KeyRange, type KeyType, portRange, prefixRange, protocolBytes } from "../netlink/nftKey.ts";
import {
  addressIs,
  addressTypeIs,
  type Field,
  icmpIs,
  inSet,
  interfaceIs,
  loadField,
  markIs,
  noRouteBack,
  portIs,
  protocolIs,
  stateIs,
  stateIsNot,
  statusIs,
  statusIsNot,
} from "../netlink/nftMatch.ts";
import { hasPorts, icmpOf, parseNet, PROTOCOL, type PortRange } from "../policy/model.ts";
import { netsName, setName } from "./nftNames.ts";
import { recurring } from "./nftRecurring.ts";
import { addressType, type SetShape } from "./nftSets.ts";
import type { Match, Side } from "./ruleset.ts";

/**
 * A step of a rule: an expression, or a look into a set of the rule's own (`{ 80, 443 }`), which the kernel makes and
 * forgets with the rule.
 */
export type Step = Expression | Among;

export interface Among {
  readonly kind: "among";
  /** Loads the key. */
  readonly load: Expression;
  readonly key: KeyType;
  readonly elements: readonly KeyRange[];
  readonly not: boolean;
}

/**
 * What a condition needs as rules, of which at most one holds for any packet: one where none is, several where it takes
 * an "or".
 */
export type Alternatives = readonly (readonly Step[])[];

const ALWAYS: Alternatives = [[]];
const NEVER: Alternatives = [];

export interface MatchContext {
  readonly family: Family;
  /** Throws where there is no such set. */
  readonly shapeOf: (set: string) => SetShape;
}

/** What costs least is asked first, and the protocol before what depends on it. */
const ORDER: Readonly<Record<Match["on"], number>> = {
  mark: 0,
  interface: 1,
  protocol: 2,
  icmp: 3,
  connection: 4,
  dnat: 5,
  address: 6,
  ports: 7,
  set: 8,
  local: 9,
  reversePath: 10,
};

/** All of the conditions. */
export function allOf(matches: readonly Match[], context: MatchContext): Alternatives {
  const protocols = positiveProtocols(matches);
  let all: Step[][] = [[]];
  for (const match of matches.length > 1 ? matches.toSorted(byCost) : matches) {
    const alternatives = alternativesOf(match, context, protocols);
    const [only] = alternatives;
    if (only === undefined) return NEVER;
    // Most conditions have one, and there are tens of thousands of them at a start.
    if (alternatives.length === 1) for (const steps of all) steps.push(...only);
    else all = both(all, alternatives);
  }
  return all;
}

const byCost = (a: Match, b: Match): number => ORDER[a.on] - ORDER[b.on];

function positiveProtocols(matches: readonly Match[]): readonly number[] | undefined {
  for (const match of matches) if (match.on === "protocol" && match.negated === undefined) return match.protocols;
  return undefined;
}

function both(one: Alternatives, other: Alternatives): Step[][] {
  return one.flatMap((steps) => other.map((more) => [...steps, ...more]));
}

/** @param protocols of which the packet is one, where the rule says so */
function alternativesOf(match: Match, context: MatchContext, protocols: readonly number[] | undefined): Alternatives {
  const { family } = context;
  const not = match.negated === true;
  switch (match.on) {
    case "interface":
      return interfaceMatch(match, not);
    case "protocol":
      if (match.protocols.length === 0) return not ? ALWAYS : NEVER;
      return [amongProtocols(match.protocols, not)];
    case "address":
      return addresses(match.side, match.nets.map(parseNet), family, not);
    case "set":
      return inAddressSet(match.side, match.set, context, not);
    case "ports":
      return portsMatch(match, context, protocols, not);
    case "icmp":
      return within([icmpOf(family)], protocols, not, icmpMessage(match, not));
    case "connection":
      return [not ? stateIsNot(...match.states) : stateIs(...match.states)];
    case "dnat":
      // What is of no connection has no status that could be asked for.
      return not ? [stateIs("invalid", "untracked"), statusIsNot("dnat")] : [statusIs("dnat")];
    case "mark":
      return [
        recurring(`${not ? "not marked" : "marked"} ${match.value} ${match.mask}`, () =>
          markIs(match.value, match.mask, { not }),
        ),
      ];
    case "local":
      return [addressTypeIs(match.side, "local", { not })];
    case "reversePath":
      return [noRouteBack({ mark: true, not: !not })];
  }
}

function interfaceMatch({ way, name }: Extract<Match, { on: "interface" }>, not: boolean): Alternatives {
  if (name === "*") return not ? NEVER : ALWAYS;
  return [interfaceIs(way === "in" ? "input" : "output", name, { not })];
}

function amongProtocols(protocols: readonly number[], not: boolean): Step[] {
  const [only, ...others] = protocols;
  if (only !== undefined && others.length === 0) return protocolIs(only, { not });
  const elements = [...new Set(protocols)].map((protocol) => ({ key: protocolBytes(protocol) }));
  return [{ kind: "among", load: loadField("protocol", 4), key: "inet_proto", elements, not }];
}

/**
 * A condition that only packets of some protocols can meet. Negated it holds for all others: `matching` is then what is
 * asked of packets of these protocols.
 */
function within(
  of: readonly number[],
  protocols: readonly number[] | undefined,
  not: boolean,
  matching: Alternatives,
): Alternatives {
  if (protocols?.every((protocol) => of.includes(protocol)) === true) return matching;
  // Besides, `nft` would stumble over ports in a packet that is said to have none.
  if (protocols?.every((protocol) => !of.includes(protocol)) === true) return not ? ALWAYS : NEVER;
  const inside = both([amongProtocols(of, false)], matching);
  return not ? [amongProtocols(of, true), ...inside] : inside;
}

function addresses(side: Side, nets: readonly Prefix[], family: Family, not: boolean): Alternatives {
  if (nets.some(({ length }) => length === 0)) return not ? NEVER : ALWAYS;
  const distinct: Prefix[] = [];
  for (const net of nets.toSorted((a, b) => a.length - b.length)) {
    if (!distinct.some((wider) => prefixCovers(wider, net))) distinct.push(net);
  }
  const [only, ...others] = distinct;
  if (only === undefined) return not ? ALWAYS : NEVER;
  if (others.length === 0) return [addressIs(side, only, { not })];
  const load = loadField(`${side} address`, family);
  return [[{ kind: "among", load, key: addressType(family), elements: distinct.map(prefixRange), not }]];
}

/** An address is never in both halves of a set, since the compiler leaves out what a network of the set holds. */
function inAddressSet(side: Side, set: string, { family, shapeOf }: MatchContext, not: boolean): Alternatives {
  const { hosts, nets } = shapeOf(set);
  const field: Field = `${side} address`;
  const way = `${family} ${side} ${not ? "not in" : "in"}`;
  const halves: (readonly Expression[])[] = [];
  if (hosts) halves.push(recurring(`${way} ${set}`, () => inSet([field], family, setName(family, set), { not })));
  if (nets) halves.push(recurring(`${way} nets ${set}`, () => inSet([field], family, netsName(family, set), { not })));
  return not ? [halves.flat()] : halves;
}

const WITH_PORTS: readonly number[] = Object.values(PROTOCOL).filter(hasPorts);

function portsMatch(
  { side, ranges, sets: all }: Extract<Match, { on: "ports" }>,
  { family, shapeOf }: MatchContext,
  protocols: readonly number[] | undefined,
  not: boolean,
): Alternatives {
  const sets = all.filter((set) => shapeOf(set).hosts);
  const inRanges = (no: boolean): readonly Step[][] => (ranges.length === 0 ? [] : [amongPorts(side, ranges, no)]);
  const inOne = (set: string, no: boolean): Expression[] =>
    inSet([`${side} address`, "protocol", `${side} port`], family, setName(family, set), { not: no });
  if (not) {
    const none = [...inRanges(true).flat(), ...sets.flatMap((set) => inOne(set, true))];
    return within(WITH_PORTS, protocols, true, [none]);
  }
  // Each alternative is for what the ones before it are not.
  const some = sets.map((set, at) => [
    ...inRanges(true).flat(),
    ...sets.slice(0, at).flatMap((before) => inOne(before, true)),
    ...inOne(set, false),
  ]);
  // Sets hold protocols themselves.
  if (ranges.length === 0 && protocols === undefined) return some;
  return within(WITH_PORTS, protocols, false, [...inRanges(false), ...some]);
}

function amongPorts(side: Side, ranges: readonly PortRange[], not: boolean): Step[] {
  const merged = mergedRanges(ranges);
  const [only, ...others] = merged;
  if (only !== undefined && others.length === 0) {
    if (only.first === 0 && only.last === 65535) return not ? [...portIs(side, 0, 65535, { not })] : [];
    return portIs(side, only.first, only.last, { not });
  }
  const elements = merged.map(({ first, last }) => portRange(first, last));
  return [{ kind: "among", load: loadField(`${side} port`, 4), key: "inet_service", elements, not }];
}

/** Ascending; those that meet are one. */
function mergedRanges(ranges: readonly PortRange[]): PortRange[] {
  const merged: PortRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = merged.at(-1);
    if (before === undefined || range.first > before.last + 1) merged.push(range);
    else merged[merged.length - 1] = { first: before.first, last: Math.max(before.last, range.last) };
  }
  return merged;
}

function icmpMessage({ type, code }: Extract<Match, { on: "icmp" }>, not: boolean): Alternatives {
  if (type === undefined) return code === undefined ? (not ? NEVER : ALWAYS) : [icmpCode(code, not)];
  if (code === undefined || !not) return [icmpIs(type, code, { not })];
  return [icmpIs(type, undefined, { not }), [...icmpIs(type), ...icmpCode(code, not)]];
}

function icmpCode(code: number, not: boolean): Expression[] {
  return [
    { kind: "payload", base: "transport", offset: 1, length: 1, into: 0 },
    { kind: "cmp", from: 0, operator: not ? "neq" : "eq", value: Uint8Array.of(code) },
  ];
}
