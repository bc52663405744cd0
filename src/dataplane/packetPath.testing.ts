/** A kernel in miniature: one packet through hooks, chains, maps and sets of a ruleset, and what became of it. */
import assert from "node:assert/strict";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { prefixContains } from "../ip/prefix.ts";
import type { Packet } from "../policy/match.ts";
import { icmpOf, parseNet } from "../policy/model.ts";
import { portMember } from "../policy/sets.ts";
import type { ChainRule, Hook, Layer, Match, RuleAction, Side } from "./ruleset.ts";
import type { Ruleset } from "./ruleset.testing.ts";

/** A packet on its way, with what the kernel notes about it. */
export interface Travelling {
  packet: Packet;
  in?: string;
  out?: string;
  mark: number;
  state: "new" | "established" | "related" | "invalid" | "untracked";
  isDnat: boolean;
  /** Its source as it leaves, where it is translated: an address, or `masquerade`, with ports where given. */
  translated?: string;
  /** Texts of log and NFLOG rules that it met, and counters as `<of> <direction> <index>`. */
  readonly noted: string[];
}

export interface Surroundings {
  /** Addresses of this host. */
  readonly local: readonly string[];
  /** Whether the way back to the source is by the interface that the packet came from. */
  readonly isReversePath: boolean;
}

export type Fate = "accept" | "drop" | "reject";

/** The kernel's order of layers in each of its hooks (linux/netfilter_ipv4.h). */
const ORDER: Readonly<Record<Hook, readonly Layer[]>> = {
  PREROUTING: ["raw", "mangle", "nat"],
  INPUT: ["mangle", "filter"],
  FORWARD: ["mangle", "filter"],
  OUTPUT: ["raw", "mangle", "nat", "filter"],
  POSTROUTING: ["mangle", "nat"],
};

export function travelling(packet: Packet, given: Partial<Travelling> = {}): Travelling {
  return { packet, mark: 0, state: "new", isDnat: false, noted: [], ...given };
}

/** Through one hook. What is translated is changed in place. */
export function passHook(ruleset: Ruleset, hook: Hook, one: Travelling, surroundings: Surroundings): Fate {
  for (const layer of ORDER[hook]) {
    // Connections are translated once, by their first packet.
    if (layer === "nat" && one.state !== "new") continue;
    const machine: Machine = { ruleset, layer, one, surroundings, steps: 0 };
    const own = ruleset.hooks.filter((of) => of.layer === layer && of.hook === hook);
    const inOrder = [...own.filter(({ place }) => place === "first"), ...own.filter(({ place }) => place === "last")];
    const fate = runRules(
      machine,
      inOrder.map(({ rule }) => rule),
    );
    if (fate === "drop" || fate === "reject") return fate;
  }
  return "accept";
}

/** Through several hooks, as long as it lives. Interfaces are set before. */
export function pass(ruleset: Ruleset, hooks: readonly Hook[], one: Travelling, surroundings: Surroundings): Fate {
  for (const hook of hooks) {
    const fate = passHook(ruleset, hook, one, surroundings);
    if (fate !== "accept") return fate;
  }
  return "accept";
}

interface Machine {
  readonly ruleset: Ruleset;
  readonly layer: Layer;
  readonly one: Travelling;
  readonly surroundings: Surroundings;
  steps: number;
}

/** `end`: the rules are through, or a rule said return. */
type Outcome = Fate | "end";
const STEPS_MAX = 100_000;

function runRules(machine: Machine, rules: readonly ChainRule[]): Outcome {
  for (const rule of rules) {
    machine.steps += 1;
    assert.ok(machine.steps < STEPS_MAX, "the packet goes round in circles");
    if (!rule.matches.every((match) => matches(machine, match) !== (match.negated ?? false))) continue;
    const { counted } = rule;
    if (counted) machine.one.noted.push(`${counted.of} ${counted.direction} ${counted.index ?? "end"}`);
    for (const action of rule.actions) {
      const outcome = act(machine, action);
      if (outcome !== undefined) return outcome;
    }
  }
  return "end";
}

function runChain(machine: Machine, name: string): Outcome {
  const chain = machine.ruleset.chains.get(`${machine.layer}/${name}`);
  assert.ok(chain !== undefined, `${machine.layer}/${name} is not there`);
  return runRules(machine, chain.rules);
}

/** Undefined: on with the next rule. */
function act(machine: Machine, action: RuleAction): Outcome | undefined {
  const { one, ruleset, layer } = machine;
  switch (action.do) {
    case "accept":
    case "drop":
    case "reject":
      return action.do;
    case "return":
      return "end";
    case "jump": {
      const outcome = runChain(machine, action.chain);
      return outcome === "end" ? undefined : outcome;
    }
    case "goto":
      return runChain(machine, action.chain);
    case "dispatch": {
      const map = ruleset.maps.get(`${layer}/${action.map}`);
      assert.ok(map !== undefined, `the map ${action.map} is not there`);
      const chain = map.entries.get((map.by === "in" ? one.in : one.out) ?? "");
      return chain === undefined ? undefined : runChain(machine, chain);
    }
    case "mark":
      one.mark = ((one.mark & ~action.mask) | (action.value & action.mask)) >>> 0;
      return undefined;
    case "log":
    case "nflog":
      one.noted.push(`${action.do} ${action.prefix}`);
      return undefined;
    case "notrack":
      assert.equal(layer, "raw");
      one.state = "untracked";
      return undefined;
    case "dnat":
      one.packet = { ...one.packet, destination: parseAddress(action.to) };
      one.isDnat = true;
      return "accept";
    case "snat":
    case "masquerade": {
      const address = action.do === "snat" ? action.to : "masquerade";
      one.translated = action.ports === undefined ? address : `${address}:${action.ports.first}-${action.ports.last}`;
      return "accept";
    }
  }
}

function matches(machine: Machine, match: Match): boolean {
  const { one, surroundings, ruleset } = machine;
  const { packet } = one;
  const isIn = (side: Side, nets: Iterable<string>): boolean =>
    [...nets].some((net) => prefixContains(parseNet(net), packet[side]));
  const membersOf = (id: string): ReadonlySet<string> => {
    const set = ruleset.sets.get(id);
    assert.ok(set !== undefined, `the set ${id} is not there`);
    return set.members;
  };
  switch (match.on) {
    case "interface": {
      const name = (match.way === "in" ? one.in : one.out) ?? "";
      return match.name.endsWith("*") ? name.startsWith(match.name.slice(0, -1)) : name === match.name;
    }
    case "protocol":
      return match.protocols.includes(packet.protocol);
    case "address":
      return isIn(match.side, match.nets);
    case "set":
      return isIn(match.side, membersOf(match.set));
    case "ports": {
      const port = match.side === "source" ? packet.sourcePort : packet.destinationPort;
      if (port === undefined) return false;
      const member = portMember(formatAddress(packet[match.side]), packet.protocol, port);
      const isInRange = match.ranges.some(({ first, last }) => first <= port && port <= last);
      return isInRange || match.sets.some((set) => membersOf(set).has(member));
    }
    case "icmp": {
      const { type, code } = match;
      if (packet.protocol !== icmpOf(packet.family) || packet.icmp === undefined) return false;
      return (type ?? packet.icmp.type) === packet.icmp.type && (code ?? packet.icmp.code) === packet.icmp.code;
    }
    case "connection":
      return (match.states as readonly string[]).includes(one.state);
    case "dnat":
      return one.isDnat;
    case "mark":
      return (one.mark & match.mask) >>> 0 === (match.value & match.mask) >>> 0;
    case "local":
      return surroundings.local.includes(formatAddress(packet[match.side]));
    case "reversePath":
      return surroundings.isReversePath;
  }
}
