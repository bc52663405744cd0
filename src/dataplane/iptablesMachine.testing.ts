/** What iptables does with a packet, by its options: as its manual pages have them, and strict about what it refuses. */
import assert from "node:assert/strict";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { prefixContains } from "../ip/prefix.ts";
import { icmpOf, parseNet } from "../policy/model.ts";
import { portMember } from "../policy/sets.ts";
import type { RenderedChain, RuleLine } from "./iptablesRender.ts";
import type { Fate, Surroundings, Travelling } from "./packetPath.testing.ts";

/** One table. Sets by the kernel's names. */
export interface Machine {
  readonly chains: ReadonlyMap<string, RenderedChain>;
  readonly sets: ReadonlyMap<string, ReadonlySet<string>>;
  readonly surroundings: Surroundings;
}

/** Notes in the packet what it meets, as `packetPath.testing.ts` does. `end`: the rules are through. */
export function runLines(machine: Machine, lines: readonly RuleLine[], one: Travelling): Fate | "end" {
  for (const { options, counted } of lines) {
    const words = wordsOf(options);
    // MAX_ARGC of iptables/xshared.h, less the program, the table, the chain and the mark's comment.
    assert.ok(words.length <= 245, `${options} is too long for one rule`);
    const at = words.findIndex((word) => word === "-j" || word === "-g");
    if (!holds(machine, at < 0 ? words : words.slice(0, at), one)) continue;
    if (counted) one.noted.push(`${counted.of} ${counted.direction} ${counted.index ?? "end"}`);
    if (at < 0) continue;
    const outcome = act(machine, words.slice(at), one);
    if (outcome !== undefined) return outcome;
  }
  return "end";
}

/** Undefined: on with the next rule. */
function act(
  machine: Machine,
  [way, target = "", ...rest]: readonly string[],
  one: Travelling,
): Fate | "end" | undefined {
  const argument = (option: string): string => rest[rest.indexOf(option) + 1] ?? "";
  switch (target) {
    case "ACCEPT":
    case "DROP":
    case "REJECT":
      return target.toLowerCase() as Fate;
    case "RETURN":
      return "end";
    case "MARK": {
      const [value = 0, mask = 0] = argument("--set-mark").split("/").map(Number);
      one.mark = ((one.mark & ~mask) | value) >>> 0;
      return undefined;
    }
    case "LOG":
    case "NFLOG":
      one.noted.push(`${target.toLowerCase()} ${argument(`--${target.toLowerCase()}-prefix`)}`);
      return undefined;
    case "NOTRACK":
      one.state = "untracked";
      return undefined;
    case "DNAT":
      one.packet = { ...one.packet, destination: parseAddress(argument("--to-destination")) };
      one.isDnat = true;
      return "accept";
    case "SNAT":
      one.translated = argument("--to-source");
      return "accept";
    case "MASQUERADE":
      one.translated = rest.includes("--to-ports") ? `masquerade:${argument("--to-ports")}` : "masquerade";
      return "accept";
    default: {
      const chain = machine.chains.get(target);
      assert.ok(chain !== undefined, `${target} is gone to, but not there`);
      const outcome = runLines(machine, chain.lines, one);
      return way === "-j" && outcome === "end" ? undefined : outcome;
    }
  }
}

function wordsOf(options: string): string[] {
  return [...options.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(
    ([, inQuotes, plain]) => inQuotes?.replaceAll(/\\(.)/g, "$1") ?? plain ?? "",
  );
}

const MODULES = ["comment", "set", "multiport", "icmp", "icmp6", "conntrack", "mark", "addrtype", "rpfilter", "limit"];
/** Options with as many words behind them, where that is not one. */
const WORDS: Readonly<Record<string, number>> = { "--match-set": 2, "--validmark": 0, "--invert": 0 };
/** Options that a rule may have several times. */
const REPEATED = /^(-m|--.*)$/;

function holds(machine: Machine, words: readonly string[], one: Travelling): boolean {
  let isNegated = false;
  let protocol = "";
  let all = true;
  const seen = new Set<string>();
  for (let at = 0; at < words.length;) {
    const option = words[at]!;
    at += 1;
    if (option === "!") {
      isNegated = true;
      continue;
    }
    const values = words.slice(at, at + (WORDS[option] ?? 1));
    at += values.length;
    const [value = "", direction = ""] = values;
    assert.ok(REPEATED.test(option) || !seen.has(option), `${option} stands twice in one rule`);
    seen.add(option);
    if (option === "-m") assert.ok(MODULES.includes(value), `${value} is no module`);
    if (option === "-p" && !isNegated) protocol = value;
    if (option.endsWith("ports")) assert.match(protocol, /^(6|17|132)$/, `${option} without a protocol that has ports`);
    if (option.startsWith("--icmp")) assert.equal(protocol, String(icmpOf(one.packet.family)));
    if (option === "-m" && value === "rpfilter") {
      all &&= machine.surroundings.isReversePath !== words.slice(at, at + 2).includes("--invert");
    } else if (!/^(-m|--comment|--limit|--limit-burst|--validmark|--invert)$/.test(option)) {
      all &&= optionHolds(machine, option, value, direction, one) !== isNegated;
    }
    isNegated = false;
  }
  return all;
}

function optionHolds(machine: Machine, option: string, value: string, direction: string, one: Travelling): boolean {
  const { packet } = one;
  const isInterface = (name = ""): boolean =>
    value.endsWith("+") ? name.startsWith(value.slice(0, -1)) : name === value;
  const isIn = (net: string, side: "source" | "destination"): boolean => prefixContains(parseNet(net), packet[side]);
  const isLocal = (side: "source" | "destination"): boolean =>
    machine.surroundings.local.includes(formatAddress(packet[side]));
  switch (option) {
    case "-p":
      assert.notEqual(value, "0", "0 is any protocol");
      return Number(value) === packet.protocol;
    case "-s":
      return isIn(value, "source");
    case "-d":
      return isIn(value, "destination");
    case "-i":
      return isInterface(one.in);
    case "-o":
      return isInterface(one.out);
    case "--sports":
      return isOneOf(value, packet.sourcePort);
    case "--dports":
      return isOneOf(value, packet.destinationPort);
    case "--icmp-type":
    case "--icmpv6-type": {
      const [type, code] = value.split("/").map(Number);
      return packet.icmp?.type === type && (code === undefined || packet.icmp?.code === code);
    }
    case "--ctstate":
      return value === "DNAT" ? one.isDnat : value.toLowerCase().split(",").includes(one.state);
    case "--mark": {
      const [mark, mask = 0] = value.split("/").map(Number);
      return (one.mark & mask) >>> 0 === mark;
    }
    case "--src-type":
      return isLocal("source");
    case "--dst-type":
      return isLocal("destination");
    case "--match-set": {
      const members = machine.sets.get(value);
      assert.ok(members !== undefined, `the set ${value} is looked at, but not there`);
      const side = direction.startsWith("src") ? "source" : "destination";
      if (!direction.includes(",")) return [...members].some((net) => isIn(net, side));
      const port = side === "source" ? packet.sourcePort : packet.destinationPort;
      return port !== undefined && members.has(portMember(formatAddress(packet[side]), packet.protocol, port));
    }
  }
  return assert.fail(`${option} is no option that the machine knows`);
}

function isOneOf(list: string, port: number | undefined): boolean {
  const ranges = list.split(",").map((range) => range.split(":").map(Number));
  assert.ok(ranges.flat().length <= 15, `${list} is too much for one match`);
  return port !== undefined && ranges.some(([first = 0, last = first]) => first <= port && port <= last);
}
