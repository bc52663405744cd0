/** What a kernel would do with the compiled form: a small machine that knows addresses, sets and ports, and no labels. */
import assert from "node:assert/strict";
import { formatAddress } from "../ip/address.ts";
import { prefixContains } from "../ip/prefix.ts";
import type { Chains, EndpointChains } from "./chains.ts";
import type { CompiledState } from "./compile.ts";
import { rulesForFamily, type CompiledPorts, type CompiledRule, type CompiledSide } from "./compileRule.ts";
import type { ChainStage } from "./evaluateChain.ts";
import type { Packet } from "./match.ts";
import { parseNet, type Direction } from "./model.ts";
import type { CompiledPolicy } from "./ruleTable.ts";
import { portMember } from "./sets.ts";

type Verdict = "allow" | "deny" | "continue";

/** The verdict of the endpoint's chain of the stage. */
export function interpret(
  state: CompiledState,
  endpoint: EndpointChains,
  direction: Direction,
  stage: ChainStage,
  packet: Packet,
): Verdict {
  const chains: Chains | undefined = endpoint.kind === "host" ? endpoint[stage] : endpoint.normal;
  for (const { policies, end } of chains[direction]) {
    const action = firstHit(policies, state.policies, direction, state, packet) ?? end;
    if (action !== "pass") return action;
  }
  if (stage !== "normal") return stage === "forward" && chains[direction].length === 0 ? "allow" : "continue";
  for (const profile of endpoint.profiles) {
    const action = firstHit([profile], state.profiles, direction, state, packet);
    if (action === "allow" || action === "deny") return action;
  }
  return "deny";
}

function firstHit(
  ids: readonly string[],
  from: ReadonlyMap<string, CompiledPolicy>,
  direction: Direction,
  state: CompiledState,
  packet: Packet,
): "allow" | "deny" | "pass" | undefined {
  for (const id of ids) {
    const policy = from.get(id);
    assert.ok(policy !== undefined, `${id} is asked, but not there`);
    for (const rule of policy[direction].flatMap((any) => rulesForFamily(any, packet.family))) {
      if (rule.action !== "log" && ruleMatches(rule, packet, state)) return rule.action;
    }
  }
  return undefined;
}

function ruleMatches(rule: CompiledRule, packet: Packet, state: CompiledState): boolean {
  const { family, protocol, notProtocols = [], icmp, notIcmp } = rule;
  assert.equal(family, packet.family);
  if (protocol !== undefined && protocol !== packet.protocol) return false;
  if (notProtocols.includes(packet.protocol)) return false;
  const isMessage = ({ type, code }: NonNullable<typeof icmp>): boolean =>
    (type === undefined || type === packet.icmp?.type) && (code === undefined || code === packet.icmp?.code);
  if (icmp !== undefined && !isMessage(icmp)) return false;
  if (notIcmp !== undefined && isMessage(notIcmp)) return false;
  return (
    sideMatches(rule.source, packet.source, packet.sourcePort, packet, state) &&
    sideMatches(rule.destination, packet.destination, packet.destinationPort, packet, state)
  );
}

function sideMatches(
  { nets, notNets, sets = [], notSets = [], ports, notPorts, portSets = [] }: CompiledSide,
  address: Packet["source"],
  port: number | undefined,
  packet: Packet,
  state: CompiledState,
): boolean {
  const isInNets = (list: readonly string[]): boolean => list.some((net) => prefixContains(parseNet(net), address));
  const membersOf = (id: string): readonly string[] => {
    const set = state.sets.get(id);
    assert.ok(set !== undefined, `the set ${id} is looked at, but not there`);
    return set.members;
  };
  const member = port === undefined ? "" : portMember(formatAddress(address), packet.protocol, port);
  const hasPort = (of: CompiledPorts): boolean =>
    (port !== undefined && of.ranges.some(({ first, last }) => first <= port && port <= last)) ||
    of.sets.some((id) => membersOf(id).includes(member));
  return (
    (nets === undefined || isInNets(nets)) &&
    (notNets === undefined || !isInNets(notNets)) &&
    sets.every((id) => isInNets(membersOf(id))) &&
    !notSets.some((id) => isInNets(membersOf(id))) &&
    (ports === undefined || hasPort(ports)) &&
    (notPorts === undefined || !hasPort(notPorts)) &&
    portSets.every((id) => membersOf(id).includes(member))
  );
}
