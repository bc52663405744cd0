/** A ruleset as a renderer has it that follows the changes, and as text that a person can read. */
import assert from "node:assert/strict";
import type { Family } from "../ip/address.ts";
import { familyOfNet } from "../policy/model.ts";
import type { SetKind } from "../policy/sets.ts";
import {
  setsOf,
  type ChainRule,
  type DispatchMap,
  type HookRule,
  type Match,
  type RuleAction,
  type RuleChain,
  type RulesetChange,
} from "./ruleset.ts";

/** All that is in the kernel of one family. */
export interface Ruleset {
  readonly family: Family;
  readonly chains: Map<string, RuleChain>;
  readonly maps: Map<string, DispatchMap>;
  hooks: readonly HookRule[];
  readonly sets: Map<string, { readonly kind: SetKind; readonly members: Set<string> }>;
}

export function emptyRuleset(family: Family): Ruleset {
  return { family, chains: new Map(), maps: new Map(), hooks: [], sets: new Map() };
}

/** Carries a change out. Fails where it does not fit, or leaves something that points to nothing or that nobody needs. */
export function follow(ruleset: Ruleset, change: RulesetChange): void {
  assert.equal(change.family, ruleset.family);
  put("chain", ruleset.chains, change.chains);
  put("map", ruleset.maps, change.maps);
  ruleset.hooks = change.hooks ?? ruleset.hooks;
  const changed = new Set<string>();
  for (const { id, kind, state, added, removed } of change.sets) {
    assert.ok(!changed.has(id), `the set ${id} is changed twice at once`);
    changed.add(id);
    assert.equal(ruleset.sets.has(id), state !== "new", `the set ${id} is ${state}`);
    const members = ruleset.sets.get(id)?.members ?? new Set<string>();
    for (const member of removed) assert.ok(members.delete(member), `${member} goes, but was not in ${id}`);
    for (const member of added) {
      assert.ok(!members.has(member), `${member} comes, but was in ${id}`);
      members.add(member);
    }
    if (state === "gone") ruleset.sets.delete(id);
    else ruleset.sets.set(id, { kind, members });
  }
  checkPointers(ruleset);
}

function put<Value>(what: string, into: Map<string, Value>, from: ReadonlyMap<string, Value | undefined>): void {
  for (const [key, value] of from) {
    if (value !== undefined) into.set(key, value);
    else assert.ok(into.delete(key), `the ${what} ${key} goes, but was not there`);
  }
}

function checkPointers({ chains, maps, hooks, sets }: Ruleset): void {
  const reached = new Set<string>();
  const reach = (layer: string, name: string, by: string): void => {
    if (!chains.has(`${layer}/${name}`)) assert.fail(`${by} goes to ${layer}/${name}, which is not there`);
    reached.add(`${layer}/${name}`);
  };
  const look = (layer: string, { matches, actions }: ChainRule, by: string): void => {
    for (const match of matches) {
      const kind = match.on === "set" ? "net" : "ip,port";
      for (const set of setsOf(match)) assert.equal(sets.get(set)?.kind, kind, `${by} looks at the set ${set}`);
    }
    for (const [at, action] of actions.entries()) {
      const isLast = at === actions.length - 1;
      const goesOn = ["mark", "log", "nflog", "notrack"].includes(action.do);
      if (!isLast && !goesOn) assert.fail(`${by}: ${action.do} is not last`);
      if (action.do === "jump" || action.do === "goto") reach(layer, action.chain, by);
      if (action.do === "dispatch") assert.ok(maps.has(`${layer}/${action.map}`), `${by} has no map ${action.map}`);
    }
    if (actions.length === 0) assert.fail(`${by} does nothing`);
  };
  for (const { layer, hook, rule } of hooks) look(layer, rule, `hook ${layer} ${hook}`);
  for (const [key, chain] of chains) {
    assert.equal(key, `${chain.layer}/${chain.name}`);
    for (const rule of [...chain.rules, ...(chain.instead ?? [])]) look(chain.layer, rule, key);
  }
  for (const [key, map] of maps) {
    assert.equal(key, `${map.layer}/${map.name}`);
    for (const chain of map.entries.values()) reach(map.layer, chain, key);
  }
  for (const key of chains.keys()) {
    if (!reached.has(key) && !WAITING.test(key)) assert.fail(`nothing goes to ${key}`);
  }
}

/** A host endpoint has chains in these layers from the start; packets are led there with the first policy for them. */
const WAITING = /^(raw|mangle)\/cali-(failsafe-|[ft]h-)/;

/** One rule a line. Chains, maps and sets whose keys do not match `only` are left out, and then hooks too. */
export function printRuleset({ family, chains, maps, hooks, sets }: Ruleset, only?: RegExp): string {
  const isAsked = (key: string): boolean => only === undefined || only.test(key);
  const lines = [`family ${family}`];
  if (only === undefined) {
    lines.push("hooks");
    for (const { layer, hook, place, rule } of hooks) lines.push(`  ${layer} ${hook} ${place}: ${printRule(rule)}`);
  }
  for (const [key, chain] of sorted(chains)) {
    if (!isAsked(key)) continue;
    lines.push(`chain ${key}${chain.origin === chain.name ? "" : ` (${chain.origin})`}`);
    for (const rule of chain.rules) lines.push(`  ${printRule(rule)}`);
  }
  for (const [key, { by, entries }] of sorted(maps)) {
    if (!isAsked(key)) continue;
    lines.push(`map ${key} by ${by}`);
    for (const [name, chain] of sorted(entries)) lines.push(`  ${name} -> ${chain}`);
  }
  for (const [id, { kind, members }] of sorted(sets)) {
    if (!isAsked(id)) continue;
    const own = [...members].filter((member) => familyOfNet(member.replace(/,.*/, "")) === family);
    lines.push(`set ${id} ${kind}: ${own.sort().join(" ")}`);
  }
  return `${lines.join("\n")}\n`;
}

function sorted<Value>(map: ReadonlyMap<string, Value>): [string, Value][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}

function printRule({ matches, actions, comment, counted }: ChainRule): string {
  const words = [
    ...matches.map((match) => `${match.negated ? "not " : ""}${printMatch(match)}`),
    `=> ${actions.map(printAction).join(", ")}`,
  ];
  if (counted !== undefined) {
    const { of, direction, index, interfaceName } = counted;
    words.push(`[${[of, direction, index, interfaceName].filter((part) => part !== undefined).join(" ")}]`);
  }
  if (comment !== undefined) words.push(`# ${comment}`);
  return words.join(" ");
}

const hex = (value: number): string => `0x${value.toString(16)}`;
const range = ({ first, last }: { first: number; last: number }): string =>
  first === last ? String(first) : `${first}-${last}`;

function printMatch(match: Match): string {
  switch (match.on) {
    case "interface":
      return `${match.way} ${match.name}`;
    case "protocol":
      return `protocol ${match.protocols.join(",")}`;
    case "address":
      return `${match.side} ${match.nets.join(",")}`;
    case "set":
      return `${match.side} in ${match.set}`;
    case "ports":
      return `${match.side} port ${[...match.ranges.map(range), ...match.sets.map((set) => `in ${set}`)].join(",")}`;
    case "icmp":
      return `icmp ${match.type ?? "*"}/${match.code ?? "*"}`;
    case "connection":
      return `ct ${match.states.join(",")}`;
    case "mark":
      return `mark ${hex(match.value)}/${hex(match.mask)}`;
    case "local":
      return `${match.side} local`;
    case "dnat":
    case "reversePath":
      return match.on;
  }
}

function printAction(action: RuleAction): string {
  switch (action.do) {
    case "jump":
    case "goto":
      return `${action.do} ${action.chain}`;
    case "dispatch":
      return `dispatch ${action.map}`;
    case "mark":
      return `mark ${hex(action.value)}/${hex(action.mask)}`;
    case "log":
      return `log "${action.prefix}"${action.perSecond === undefined ? "" : ` ${action.perSecond}/s burst ${action.burst}`}`;
    case "nflog":
      return `nflog ${action.group} "${action.prefix}"`;
    case "dnat":
      return `dnat ${action.to}`;
    case "snat":
      return `snat ${action.to}${action.ports === undefined ? "" : ` ports ${range(action.ports)}`}`;
    case "masquerade":
      return `masquerade${action.ports === undefined ? "" : ` ports ${range(action.ports)}`}`;
    default:
      return action.do;
  }
}
