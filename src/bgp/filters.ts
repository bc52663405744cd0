import type { Family } from "../ip/address.ts";
import { prefixContains, type Prefix } from "../ip/prefix.ts";
import { prepend } from "./as-path.ts";
import type { LargeCommunity, PathAttributes } from "./attributes.ts";
import { wordsOfPrefix } from "./nlri.ts";

/** `in`: the prefix itself or a more specific one; bounds on the length apply to all four. */
export interface PrefixMatch {
  readonly prefix: Prefix;
  readonly operator: "equal" | "notEqual" | "in" | "notIn";
  readonly minLength?: number;
  readonly maxLength?: number;
}

/** Everything that is given must hold. */
export interface FilterMatch {
  readonly family?: Family;
  /** One of these must hold. */
  readonly prefixes?: readonly PrefixMatch[];
  /** Our own routes, or those of peers. */
  readonly source?: "local" | "peers";
  /** Of the peer that the filter stands before. */
  readonly peerType?: "iBGP" | "eBGP";
  /** All of these must be there. */
  readonly communities?: readonly number[];
  readonly largeCommunities?: readonly LargeCommunity[];
  /** The path begins with these. */
  readonly asPathPrefix?: readonly number[];
  /** LOCAL_PREF lies from `least` to `most`; a route that has none counts as `absent`. */
  readonly localPref?: { readonly least: number; readonly most: number; readonly absent: number };
  /** The next hop lies in one of these; a route of our own has none. */
  readonly nextHops?: readonly Prefix[];
}

export type FilterOperation =
  | { readonly type: "addCommunity"; readonly community: number }
  | { readonly type: "addLargeCommunity"; readonly community: LargeCommunity }
  | { readonly type: "prependAsPath"; readonly asns: readonly number[] }
  | { readonly type: "setLocalPref"; readonly value: number }
  | { readonly type: "setMed"; readonly value: number };

/** `continue` performs its operations and goes on with the next rule. */
export interface FilterRule {
  /** For people: stands in the reason why a route was refused. */
  readonly name: string;
  readonly match: FilterMatch;
  readonly action: "accept" | "reject" | "continue";
  readonly operations?: readonly FilterOperation[];
}

/** The first rule that matches decides: what BGPFilter and Calico's order of export compile to. Plain data. */
export interface FilterRules {
  readonly rules: readonly FilterRule[];
  readonly otherwise: "accept" | "reject";
}

export interface Verdict {
  readonly accept: boolean;
  /** The name of the rule that decided. */
  readonly rule: string;
  readonly operations: readonly FilterOperation[];
}

/** A route as filters see it, its prefix as numbers. */
export type Evaluate = (
  w0: number,
  w1: number,
  w2: number,
  w3: number,
  length: number,
  attributes: PathAttributes,
  source: "local" | "peers",
) => Verdict;

/** Rules made ready for the routes of one family with one kind of peer. */
export interface Filter {
  /** Equal for rules that say the same. */
  readonly key: string;
  readonly evaluate: Evaluate;
  /** What every route is told, where nothing of it is looked at. */
  readonly constant: Verdict | undefined;
  /** Without it, `NO_ATTRIBUTES` will do for any route. */
  readonly readsAttributes: boolean;
}

export const NO_ATTRIBUTES: PathAttributes = { origin: "igp", asPath: [] };
const NO_OPERATIONS: readonly FilterOperation[] = [];
/** What a match may ask for without a look at attributes. */
const OF_PREFIX_OR_PEER: ReadonlySet<string> = new Set(["family", "peerType", "prefixes", "source"]);

/** What stands in for rules that are not given: RFC 8212 wants a policy written down before eBGP says anything. */
export function defaultRules(peerType: "iBGP" | "eBGP"): FilterRules {
  if (peerType === "iBGP") return { rules: [], otherwise: "accept" };
  return {
    rules: [{ name: "no filter is configured for this eBGP peer (RFC 8212)", match: {}, action: "reject" }],
    otherwise: "reject",
  };
}

const keys = new WeakMap<FilterRules, string>();

/** The rules as text: equal for rules that say the same. Worked out once for each object, as many peers share one. */
export function filterKey(rules: FilterRules): string {
  let key = keys.get(rules);
  if (key === undefined) {
    key = JSON.stringify(rules, (_, value: unknown) => (typeof value === "bigint" ? value.toString(16) : value));
    keys.set(rules, key);
  }
  return key;
}

export function compileFilter(filter: FilterRules, family: Family, peerType: "iBGP" | "eBGP"): Filter {
  const rules = filter.rules
    .filter(({ match }) => (match.family ?? family) === family && (match.peerType ?? peerType) === peerType)
    .map((rule) => {
      const verdict = verdictOf(rule);
      return {
        rule,
        verdict,
        matches: compileMatch(rule.match, family),
        alone: { verdict, then: new Map() } as Joined,
      };
    });
  const otherwise: Verdict = {
    accept: filter.otherwise === "accept",
    rule: filter.otherwise === "accept" ? "no rule refuses it" : "no rule accepts it",
    operations: NO_OPERATIONS,
  };
  const evaluate: Evaluate = (w0, w1, w2, w3, length, attributes, source) => {
    let before: Joined | undefined;
    for (const { rule, matches, verdict, alone } of rules) {
      if (!matches(w0, w1, w2, w3, length, attributes, source)) continue;
      const sofar: Joined = before === undefined ? alone : joinedTo(before, verdict);
      if (rule.action !== "continue") return sofar.verdict;
      before = sofar;
    }
    return before === undefined ? otherwise : joinedTo(before, otherwise).verdict;
  };
  return {
    key: `${family} ${peerType} ${filterKey(filter)}`,
    evaluate,
    constant: rules.length === 0 ? otherwise : undefined,
    readsAttributes: rules.some(({ rule }) => Object.keys(rule.match).some((name) => !OF_PREFIX_OR_PEER.has(name))),
  };
}

/** The attributes after the operations of a verdict, in their order; the same object where there are none. */
export function applyOperations(attributes: PathAttributes, operations: readonly FilterOperation[]): PathAttributes {
  let result = attributes;
  for (const operation of operations) result = applyOperation(result, operation);
  return result;
}

function applyOperation(attributes: PathAttributes, operation: FilterOperation): PathAttributes {
  switch (operation.type) {
    case "addCommunity": {
      const { communities = [] } = attributes;
      if (communities.includes(operation.community)) return attributes;
      return { ...attributes, communities: [...communities, operation.community] };
    }
    case "addLargeCommunity": {
      const { largeCommunities = [] } = attributes;
      if (largeCommunities.some((other) => sameLarge(other, operation.community))) return attributes;
      return { ...attributes, largeCommunities: [...largeCommunities, operation.community] };
    }
    case "prependAsPath":
      return {
        ...attributes,
        asPath: operation.asns.reduceRight((path, asn) => prepend(path, asn), attributes.asPath),
      };
    case "setLocalPref":
      return { ...attributes, localPref: operation.value };
    case "setMed":
      return { ...attributes, med: operation.value };
  }
}

/**
 * What a node tells its peers: each of its blocks as a whole, nothing more specific inside one (a block is announced
 * once, not pod by pod), then whatever else of its own lies within `also` (service ranges).
 */
export function exportBlocks(blocks: readonly Prefix[], also: readonly Prefix[] = []): FilterRules {
  const rules: FilterRule[] = [
    { name: "a block of this node", match: { source: "local", prefixes: every(blocks, "equal") }, action: "accept" },
    { name: "lies inside a block of this node", match: { prefixes: every(blocks, "in") }, action: "reject" },
    { name: "an advertised range", match: { source: "local", prefixes: every(also, "in") }, action: "accept" },
  ];
  return { rules, otherwise: "reject" };
}

/** What a node believes: routes within the pools that are in use. */
export function importPools(pools: readonly Prefix[]): FilterRules {
  return {
    rules: [{ name: "within an enabled pool", match: { prefixes: every(pools, "in") }, action: "accept" }],
    otherwise: "reject",
  };
}

function every(prefixes: readonly Prefix[], operator: "equal" | "in"): PrefixMatch[] {
  return prefixes.map((prefix) => ({ prefix, operator }));
}

function verdictOf(rule: FilterRule): Verdict {
  return { accept: rule.action === "accept", rule: rule.name, operations: rule.operations ?? NO_OPERATIONS };
}

/** A verdict with the operations of the rules before it, and those that came of it: equal ways give the same object. */
interface Joined {
  readonly verdict: Verdict;
  readonly then: Map<Verdict, Joined>;
}

function joinedTo(before: Joined, verdict: Verdict): Joined {
  let joined = before.then.get(verdict);
  if (joined === undefined) {
    const operations = [...before.verdict.operations, ...verdict.operations];
    joined = {
      verdict: { ...verdict, operations: operations.length === 0 ? NO_OPERATIONS : operations },
      then: new Map(),
    };
    before.then.set(verdict, joined);
  }
  return joined;
}

type Test = (...route: Parameters<Evaluate>) => boolean;

function compileMatch(match: FilterMatch, family: Family): Test {
  const tests: Test[] = [];
  const { source, prefixes, communities, largeCommunities, asPathPrefix, localPref, nextHops } = match;
  if (source !== undefined) tests.push((_0, _1, _2, _3, _length, _attributes, from) => from === source);
  if (prefixes !== undefined) tests.push(compilePrefixes(prefixes, family));
  if (communities !== undefined) {
    tests.push((_0, _1, _2, _3, _length, attributes) =>
      communities.every((wanted) => attributes.communities?.includes(wanted) ?? false),
    );
  }
  if (largeCommunities !== undefined) {
    tests.push((_0, _1, _2, _3, _length, attributes) =>
      largeCommunities.every((wanted) => attributes.largeCommunities?.some((has) => sameLarge(has, wanted)) ?? false),
    );
  }
  if (asPathPrefix !== undefined) {
    tests.push((_0, _1, _2, _3, _length, attributes) => {
      const path = attributes.asPath.flatMap(({ asns }) => asns);
      return asPathPrefix.every((asn, index) => path[index] === asn);
    });
  }
  if (localPref !== undefined) {
    const { least, most, absent } = localPref;
    tests.push((_0, _1, _2, _3, _length, attributes) => {
      const value = attributes.localPref ?? absent;
      return value >= least && value <= most;
    });
  }
  if (nextHops !== undefined) {
    tests.push((_0, _1, _2, _3, _length, { nextHop }) => {
      return nextHop !== undefined && nextHops.some((network) => prefixContains(network, nextHop));
    });
  }
  const [only] = tests;
  if (tests.length === 1 && only !== undefined) return only;
  return (...route) => tests.every((test) => test(...route));
}

/** Exact matches are looked up, as a node may have many blocks; the others are tried one after the other. */
function compilePrefixes(prefixes: readonly PrefixMatch[], family: Family): Test {
  const exact = new Set<string | number>();
  const others: ((w0: number, w1: number, w2: number, w3: number, length: number) => boolean)[] = [];
  for (const { prefix, operator, minLength = 0, maxLength = 128 } of prefixes) {
    const fits = (length: number): boolean => length >= minLength && length <= maxLength;
    // A prefix of the other family covers nothing of this one, so only the two negations hold of it.
    if (prefix.address.family !== family) {
      if (operator === "notEqual" || operator === "notIn") others.push((_0, _1, _2, _3, length) => fits(length));
      continue;
    }
    const { w0, w1, w2, w3, length: wanted } = wordsOfPrefix(prefix);
    if (operator === "equal") {
      if (fits(wanted)) exact.add(exactKey(w0, w1, w2, w3, wanted));
      continue;
    }
    const isExact = operator === "notEqual";
    const negated = operator !== "in";
    const [m0, m1, m2, m3] = [0, 1, 2, 3].map((index) => maskWord(wanted - 32 * index)) as [
      number,
      number,
      number,
      number,
    ];
    others.push((a0, a1, a2, a3, length) => {
      if (!fits(length)) return false;
      const covered =
        ((a0 ^ w0) & m0) === 0 && ((a1 ^ w1) & m1) === 0 && ((a2 ^ w2) & m2) === 0 && ((a3 ^ w3) & m3) === 0;
      return (covered && (isExact ? length === wanted : length >= wanted)) !== negated;
    });
  }
  return (w0, w1, w2, w3, length) => {
    if (exact.size > 0 && exact.has(exactKey(w0, w1, w2, w3, length))) return true;
    for (const matches of others) if (matches(w0, w1, w2, w3, length)) return true;
    return false;
  };
}

/** A number for IPv4 (address × 64 + length fits a double), text for IPv6. */
function exactKey(w0: number, w1: number, w2: number, w3: number, length: number): string | number {
  return length <= 32 && (w1 | w2 | w3) === 0 ? w0 * 64 + length : `${w0}:${w1}:${w2}:${w3}/${length}`;
}

function maskWord(bits: number): number {
  return bits <= 0 ? 0 : bits >= 32 ? -1 : -1 << (32 - bits);
}

function sameLarge(a: LargeCommunity, b: LargeCommunity): boolean {
  return a.global === b.global && a.local1 === b.local1 && a.local2 === b.local2;
}
