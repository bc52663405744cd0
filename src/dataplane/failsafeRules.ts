/** `cali-failsafe-in` and `cali-failsafe-out`: what keeps a node reachable whatever policy of host endpoints says. */
import type { Family } from "../ip/address.ts";
import { LISTENER_REPORT_V2, NEIGHBOUR_DISCOVERY, netText, PROTOCOL } from "../policy/model.ts";
import type { PolicySettings } from "../policy/world.ts";
import { ACCEPT, from, isPort, isProtocol, ofFamily, rule, to, type RuleContext } from "./ruleContext.ts";
import type { ChainRule, Layer, Match, RuleChain, Side } from "./ruleset.ts";

type Port = PolicySettings["failsafeInboundHostPorts"][number];

/** What a router must take from its neighbours for IPv6 to work at all. */
export function neighbourDiscovery(family: Family, action: ChainRule["actions"][number]): ChainRule[] {
  return ofTypes(family, NEIGHBOUR_DISCOVERY, action);
}

function ofTypes(family: Family, types: readonly number[], action: ChainRule["actions"][number]): ChainRule[] {
  if (family === 4) return [];
  return types.map((type) => rule([isProtocol(PROTOCOL.ICMPv6), { on: "icmp", type }], [action]));
}

/**
 * Accept ends only the layer: in raw and mangle the packet goes on. In raw, which sees packets before connections are
 * tracked, replies have to be let through too.
 */
export function failsafeChains(layer: Exclude<Layer, "nat">, family: Family, context: RuleContext): RuleChain[] {
  const { failsafeInboundHostPorts: inbound, failsafeOutboundHostPorts: outbound } = context.settings;
  const isRaw = layer === "raw";
  const chain = (name: string, ports: readonly ChainRule[]): RuleChain => ({
    layer,
    name,
    origin: name,
    rules: [...ofTypes(family, [...NEIGHBOUR_DISCOVERY, LISTENER_REPORT_V2], ACCEPT), ...ports],
    // Host endpoints go on without, by their own policy.
    instead: [],
  });
  const rules = (ports: readonly Port[], port: Side, peer: Side): ChainRule[] =>
    ports.flatMap((each) => portRule(each, port, peer, family));
  return [
    chain("cali-failsafe-in", [
      ...rules(inbound, "destination", "source"),
      ...(isRaw ? rules(outbound, "source", "source") : []),
    ]),
    chain("cali-failsafe-out", [
      ...rules(outbound, "destination", "destination"),
      ...(isRaw ? rules(inbound, "source", "destination") : []),
    ]),
  ];
}

function portRule({ protocol, port, net }: Port, portSide: Side, peer: Side, family: Family): ChainRule[] {
  const matches: Match[] = [isProtocol(PROTOCOL[protocol]), isPort(portSide, port)];
  if (net === undefined || net.endsWith("/0")) {
    return net === undefined || ofFamily([net], family).length === 1 ? [rule(matches, [ACCEPT])] : [];
  }
  const nets = ofFamily([netText(net)], family);
  if (nets.length === 0) return [];
  return [rule([...matches, peer === "source" ? from(...nets) : to(...nets)], [ACCEPT])];
}
