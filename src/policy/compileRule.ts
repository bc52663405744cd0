/**
 * Rules in the form that a kernel can carry out: addresses, address sets, protocols and ports, nothing that has to be
 * looked up. What differs between renderers (how many ports fit in one match, how a set is named) is left to them.
 */
import type { Family } from "../ip/address.ts";
import {
  familyOfNet,
  formatNet,
  hasPorts,
  icmpOf,
  type Action,
  type Entity,
  type IcmpMatch,
  type PortMatch,
  type PortRange,
  type Rule,
} from "./model.ts";
import type { SetSpec } from "./sets.ts";

/** All that is given must hold. Lists of nets and ports hold where one of them does. */
export interface CompiledRule {
  readonly action: Action;
  readonly family?: Family;
  readonly protocol?: number;
  readonly notProtocols?: readonly number[];
  readonly icmp?: IcmpMatch;
  readonly notIcmp?: IcmpMatch;
  readonly source: CompiledSide;
  readonly destination: CompiledSide;
  /** Its number among the policy's rules of the direction, for counters and logs. */
  readonly index: number;
  /** Its place in the object that the user wrote. */
  readonly origin: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface CompiledSide {
  /** Canonical text, see `netText`. */
  readonly nets?: readonly string[];
  readonly notNets?: readonly string[];
  /** Ids of sets of addresses: the address is in each of them. */
  readonly sets?: readonly string[];
  /** … and in none of these. */
  readonly notSets?: readonly string[];
  readonly ports?: CompiledPorts;
  readonly notPorts?: CompiledPorts;
  /** Ids of sets of addresses with protocol and port: this side's are in each of them. */
  readonly portSets?: readonly string[];
}

/** One of the ranges has the port, or one of the sets the address with protocol and port. */
export interface CompiledPorts {
  readonly ranges: readonly PortRange[];
  readonly sets: readonly string[];
}

export interface CompiledRules {
  readonly rules: readonly CompiledRule[];
  /** Rules that cannot be expressed, and what was done instead. */
  readonly problems: readonly string[];
}

/** @param retain notes that the set is needed, and returns its id */
export function compileRules(rules: readonly Rule[], retain: (spec: SetSpec) => string): CompiledRules {
  const compiled: CompiledRule[] = [];
  const problems: string[] = [];
  for (const [index, rule] of rules.entries()) {
    const { origin } = rule;
    const problem = inexpressible(rule);
    if (problem === undefined) {
      compiled.push(compileRule(rule, index, retain));
      continue;
    }
    // What lets packets through is left out, in place of anything else everything is denied.
    const isDropped = rule.action === "allow" || rule.action === "log";
    problems.push(`${origin}: ${problem}; ${isDropped ? "it is left out" : "everything is denied in its place"}`);
    if (!isDropped) compiled.push({ action: "deny", source: {}, destination: {}, index, origin });
  }
  return { rules: compiled, problems };
}

function inexpressible({ protocol, source, destination }: Rule): string | undefined {
  for (const [side, { ports, notPorts }] of Object.entries({ source, destination })) {
    if ((ports ?? notPorts) !== undefined && !hasPorts(protocol)) return `ports of the ${side} need TCP, UDP or SCTP`;
  }
  return undefined;
}

function compileRule(rule: Rule, index: number, retain: (spec: SetSpec) => string): CompiledRule {
  const { action, family, protocol, notProtocol, icmp, notIcmp, origin, annotations } = rule;
  const source = compileSide(rule.source, "net", protocol, retain);
  const destination = compileSide(rule.destination, "ip,port", protocol, retain);
  // Most rules have no more; there may be 50,000 of them, and what is put together from parts takes twice the memory.
  const more = family ?? protocol ?? notProtocol ?? icmp ?? notIcmp ?? annotations;
  if (more === undefined) return { action, source, destination, index, origin };
  return {
    action,
    ...(family === undefined ? {} : { family }),
    ...(protocol === undefined ? {} : { protocol }),
    ...(notProtocol === undefined ? {} : { notProtocols: [notProtocol] }),
    ...(icmp === undefined ? {} : { icmp }),
    ...(notIcmp === undefined ? {} : { notIcmp }),
    source,
    destination,
    index,
    origin,
    ...(annotations === undefined ? {} : { annotations }),
  };
}

const ANY: CompiledSide = {};

function compileSide(
  { nets, notNets, selector, notSelector, ports, notPorts, service }: Entity,
  serviceKind: "net" | "ip,port",
  protocol: number | undefined,
  retain: (spec: SetSpec) => string,
): CompiledSide {
  if ((nets ?? notNets ?? notSelector ?? ports ?? notPorts ?? service) === undefined) {
    return selector === undefined ? ANY : { sets: [retain({ of: "selector", selector })] };
  }
  const named = (port: string): string =>
    retain({ of: "named port", selector: selector ?? { op: "all" }, protocol: protocol ?? 0, port });
  const compilePorts = (matches: readonly PortMatch[]): CompiledPorts => ({
    ranges: matches.filter((match) => "first" in match),
    sets: matches.flatMap((match) => ("name" in match ? [named(match.name)] : [])),
  });
  // A named port's set holds only what the selector means, so that another look at the address would be wasted.
  const isImplied = ports !== undefined && ports.every((match) => "name" in match);
  const sets = [
    ...(selector === undefined || isImplied ? [] : [retain({ of: "selector", selector })]),
    ...(service !== undefined && serviceKind === "net" ? [retain({ of: "service", service, kind: "net" })] : []),
  ];
  return {
    ...(nets === undefined ? {} : { nets: nets.map(formatNet) }),
    ...(notNets === undefined ? {} : { notNets: notNets.map(formatNet) }),
    ...(sets.length === 0 ? {} : { sets }),
    ...(notSelector === undefined ? {} : { notSets: [retain({ of: "selector", selector: notSelector })] }),
    ...(ports === undefined ? {} : { ports: compilePorts(ports) }),
    ...(notPorts === undefined ? {} : { notPorts: compilePorts(notPorts) }),
    ...(service === undefined || serviceKind === "net"
      ? {}
      : { portSets: [retain({ of: "service", service, kind: "ip,port" })] }),
  };
}

/**
 * What the rule means for packets of one family: nothing where it can match none, and two rules where it says what ICMP
 * message it does not mean, and no protocol: one for ICMP, one for all else. In the result `icmp` and `notIcmp` stand
 * only beside the family's own ICMP, and nets are of the family.
 */
export function rulesForFamily(rule: CompiledRule, family: Family): readonly CompiledRule[] {
  if (rule.family !== undefined && rule.family !== family) return [];
  const source = sideForFamily(rule.source, family);
  const destination = sideForFamily(rule.destination, family);
  if (source === undefined || destination === undefined) return [];
  const { icmp, notIcmp, ...rest } = { ...rule, family, source, destination };
  const own = icmpOf(family);
  const { protocol, notProtocols = [] } = rule;
  const isNever = (protocol !== undefined && notProtocols.includes(protocol)) || isContradiction(icmp, notIcmp);
  if (isNever) return [];
  if (icmp !== undefined) {
    if ((protocol ?? own) !== own || notProtocols.includes(own)) return [];
    const both = { ...rest, protocol: own, ...(isAny(icmp) ? {} : { icmp }) };
    return isNothing(notIcmp) ? [] : [{ ...both, ...(notIcmp === undefined ? {} : { notIcmp }) }];
  }
  if (notIcmp === undefined || (protocol !== undefined && protocol !== own) || notProtocols.includes(own))
    return [rest];
  const asIcmp = isNothing(notIcmp) ? [] : [{ ...rest, protocol: own, notIcmp }];
  return protocol === own ? asIcmp : [...asIcmp, { ...rest, notProtocols: [...notProtocols, own] }];
}

const isAny = ({ type, code }: IcmpMatch): boolean => type === undefined && code === undefined;
/** "Not any ICMP message at all" holds for no ICMP message. */
const isNothing = (notIcmp: IcmpMatch | undefined): boolean => notIcmp !== undefined && isAny(notIcmp);
/** The message that is meant is the one that is not. */
const isContradiction = (icmp: IcmpMatch | undefined, notIcmp: IcmpMatch | undefined): boolean =>
  icmp !== undefined && notIcmp !== undefined && icmp.type === notIcmp.type && icmp.code === notIcmp.code;

/** Whether the rule means the same for packets of every family: nothing of it is of one family alone. */
export function isForAllFamilies({ family, notProtocols, icmp, notIcmp, source, destination }: CompiledRule): boolean {
  const ofSides = source.nets ?? source.notNets ?? destination.nets ?? destination.notNets;
  return (family ?? notProtocols ?? icmp ?? notIcmp ?? ofSides) === undefined;
}

/** Undefined where no packet of the family can match. */
function sideForFamily(side: CompiledSide, family: Family): CompiledSide | undefined {
  const { nets, notNets, ...rest } = side;
  const ofFamily = (list: readonly string[] | undefined): readonly string[] =>
    (list ?? []).filter((net) => familyOfNet(net) === family);
  const [own, not] = [ofFamily(nets), ofFamily(notNets)];
  if (nets !== undefined && own.length === 0) return undefined;
  if (not.some((net) => net.endsWith("/0"))) return undefined;
  const matchesAll = nets === undefined || own.some((net) => net.endsWith("/0"));
  return { ...rest, ...(matchesAll ? {} : { nets: own }), ...(not.length === 0 ? {} : { notNets: not }) };
}

/**
 * Port ranges in blocks of at most `size` numbers, a range counting as two: what fits in one match of iptables'
 * multiport (15).
 */
export function portBlocks(ranges: readonly PortRange[], size: number): PortRange[][] {
  const blocks: PortRange[][] = [];
  let room = 0;
  for (const range of ranges) {
    const cost = range.first === range.last ? 1 : 2;
    if (cost > room) {
      blocks.push([]);
      room = size;
    }
    blocks.at(-1)!.push(range);
    room -= cost;
  }
  return blocks;
}
