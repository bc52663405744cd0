/** What a kernel does with the compiled form: a small machine that knows addresses, sets and ports, and no labels. */
import { formatAddress } from "../ip/address.ts";
import { prefixContains } from "../ip/prefix.ts";
import type { Chains, EndpointChains } from "./chains.ts";
import { rulesForFamily, type CompiledPorts, type CompiledRule, type CompiledSide } from "./compileRule.ts";
import type { ChainStage } from "./evaluateChain.ts";
import type { Packet } from "./match.ts";
import { parseNet, type Direction } from "./model.ts";
import type { CompiledPolicy } from "./ruleTable.ts";
import { portMember } from "./sets.ts";

export type Verdict = "allow" | "deny" | "continue";

/** What it reads: a compiler has it. */
export interface CompiledTables {
  readonly policies: ReadonlyMap<string, CompiledPolicy>;
  readonly profiles: ReadonlyMap<string, CompiledPolicy>;
  /** Whether the set has the member, or a network that the address is in. */
  isMember(set: string, member: string): boolean;
}

/** The verdict of the endpoint's chain of the stage. */
export function interpret(
  tables: CompiledTables,
  endpoint: EndpointChains,
  direction: Direction,
  stage: ChainStage,
  packet: Packet,
): Verdict {
  const chains: Chains | undefined = endpoint.kind === "host" ? endpoint[stage] : endpoint.normal;
  for (const { policies, end } of chains[direction]) {
    const action = firstHit(policies, tables.policies, direction, tables, packet) ?? end;
    if (action !== "pass") return action;
  }
  if (stage !== "normal") return stage === "forward" && chains[direction].length === 0 ? "allow" : "continue";
  for (const profile of endpoint.profiles) {
    const action = firstHit([profile], tables.profiles, direction, tables, packet);
    if (action === "allow" || action === "deny") return action;
  }
  return "deny";
}

function firstHit(
  ids: readonly string[],
  from: ReadonlyMap<string, CompiledPolicy>,
  direction: Direction,
  tables: CompiledTables,
  packet: Packet,
): "allow" | "deny" | "pass" | undefined {
  for (const id of ids) {
    for (const rule of (from.get(id)?.[direction] ?? []).flatMap((any) => rulesForFamily(any, packet.family))) {
      if (rule.action !== "log" && ruleMatches(rule, packet, tables)) return rule.action;
    }
  }
  return undefined;
}

function ruleMatches(rule: CompiledRule, packet: Packet, tables: CompiledTables): boolean {
  const { family, protocol, notProtocols = [], icmp, notIcmp } = rule;
  if (family !== packet.family) return false;
  if (protocol !== undefined && protocol !== packet.protocol) return false;
  if (notProtocols.includes(packet.protocol)) return false;
  const isMessage = ({ type, code }: NonNullable<typeof icmp>): boolean =>
    (type === undefined || type === packet.icmp?.type) && (code === undefined || code === packet.icmp?.code);
  if (icmp !== undefined && !isMessage(icmp)) return false;
  if (notIcmp !== undefined && isMessage(notIcmp)) return false;
  return (
    sideMatches(rule.source, packet.source, packet.sourcePort, packet, tables) &&
    sideMatches(rule.destination, packet.destination, packet.destinationPort, packet, tables)
  );
}

function sideMatches(
  { nets, notNets, sets = [], notSets = [], ports, notPorts, portSets = [] }: CompiledSide,
  address: Packet["source"],
  port: number | undefined,
  packet: Packet,
  tables: CompiledTables,
): boolean {
  const isInNets = (list: readonly string[]): boolean => list.some((net) => prefixContains(parseNet(net), address));
  const text = formatAddress(address);
  const isInSet = (id: string): boolean => tables.isMember(id, text);
  const isPortInSet = (id: string): boolean =>
    port !== undefined && tables.isMember(id, portMember(text, packet.protocol, port));
  const hasPort = (of: CompiledPorts): boolean =>
    (port !== undefined && of.ranges.some(({ first, last }) => first <= port && port <= last)) ||
    of.sets.some(isPortInSet);
  return (
    (nets === undefined || isInNets(nets)) &&
    (notNets === undefined || !isInNets(notNets)) &&
    sets.every(isInSet) &&
    !notSets.some(isInSet) &&
    (ports === undefined || hasPort(ports)) &&
    (notPorts === undefined || !hasPort(notPorts)) &&
    portSets.every(isPortInSet)
  );
}
