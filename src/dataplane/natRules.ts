/** Address translation: floating addresses in and out, and the node's address for what leaves the pools. */
import { familyOfNet, PROTOCOL, type PortRange } from "../policy/model.ts";
import type { Family } from "../ip/address.ts";
import type { TunnelFact } from "./nodeFacts.ts";
import { from, isInSet, isLocal, isProtocol, jump, leavesBy, not, rule, to, type RuleContext } from "./ruleContext.ts";
import type { FloatingIP, RuleNeeds } from "./ruleNeeds.ts";
import type { ChainRule, Match, RuleAction, RuleChain } from "./ruleset.ts";

const FIP_DNAT = "cali-fip-dnat";
const FIP_SNAT = "cali-fip-snat";
const NAT_OUTGOING = "cali-nat-outgoing";

/** Whether there is anything to translate. */
export function needsNat(family: Family, { floating }: RuleNeeds, context: RuleContext): boolean {
  return floating.length > 0 || context.masqueradedFamilies.includes(family) || intoTunnels(family, context).length > 0;
}

export function natChains(family: Family, { floating }: RuleNeeds, context: RuleContext): RuleChain[] {
  const chain = (name: string, rules: readonly ChainRule[]): RuleChain => ({ layer: "nat", name, rules, origin: name });
  const { dnat, snat } = floatingRules(floating, context);
  return [
    chain("cali-PREROUTING", [rule([], [jump(FIP_DNAT)])]),
    chain("cali-OUTPUT", [rule([], [jump(FIP_DNAT)])]),
    chain("cali-POSTROUTING", [
      rule([], [jump(FIP_SNAT)]),
      rule([], [jump(NAT_OUTGOING)]),
      ...intoTunnels(family, context),
    ]),
    chain(NAT_OUTGOING, natOutgoing(family, context)),
    chain(FIP_DNAT, dnat),
    chain(FIP_SNAT, snat),
  ];
}

function intoTunnels(family: Family, context: RuleContext): ChainRule[] {
  return context.tunnels.flatMap((tunnel) => (tunnel.family === family ? intoTunnel(tunnel, context) : []));
}

/** From an address of a pool that wants it, to an address of no pool. */
function natOutgoing(family: Family, context: RuleContext): ChainRule[] {
  const { settings, natPorts } = context;
  const { natOutgoingAddress, iptablesNATOutgoingInterfaceFilter } = settings;
  const device = iptablesNATOutgoingInterfaceFilter.replace(/\+$/, "*");
  const matches = [
    isInSet("source", "masq-ipam-pools"),
    ...beyondPools(context),
    ...(device === "" ? [] : [leavesBy(device)]),
  ];
  const translate = (ports?: PortRange): RuleAction => {
    const withPorts = ports === undefined ? {} : { ports };
    return natOutgoingAddress !== "" && familyOfNet(natOutgoingAddress) === family
      ? { do: "snat", to: natOutgoingAddress, ...withPorts }
      : { do: "masquerade", ...withPorts };
  };
  const ported = (protocol: number, ports: PortRange): ChainRule =>
    rule([isProtocol(protocol), ...matches], [translate(ports)]);
  return [
    ...(natPorts === undefined ? [] : [ported(PROTOCOL.TCP, natPorts), ported(PROTOCOL.UDP, natPorts)]),
    rule(matches, [translate()]),
  ];
}

function beyondPools({ settings }: RuleContext): Match[] {
  return [
    not(isInSet("destination", "network-ip-pools")),
    ...(settings.natOutgoingExclusions === "IPPoolsAndHostIPs" ? [not(isInSet("destination", "all-hosts-net"))] : []),
  ];
}

/**
 * What the node itself sends into a tunnel with another address than the tunnel's, as to a service whose pods are behind
 * it: only the tunnel's address finds its way back through the tunnel.
 */
function intoTunnel({ kind, device, addresses }: TunnelFact, { settings }: RuleContext): ChainRule[] {
  if (addresses.length === 0) return [];
  const matches = [leavesBy(device), not(from(...addresses)), isLocal("source")];
  const plain = rule(matches, [{ do: "masquerade" }]);
  if (kind !== "vxlan") return [plain];
  const ports = besides(settings.vxlanPort);
  return [rule([isProtocol(PROTOCOL.UDP), ...matches], [{ do: "masquerade", ports }]), plain];
}

/** Ports beyond the well-known ones and without the tunnel's own: replies to that would be taken for the tunnel's. */
function besides(port: number): PortRange {
  const [lowest, highest] = [1024, 65535];
  const isLow = port - lowest < highest - port;
  return isLow ? { first: Math.max(lowest, port + 1), last: highest } : { first: lowest, last: port - 1 };
}

/**
 * In by the floating address, out by it too: to beyond the pools, and to the workload itself, whose answers would not
 * pass here otherwise. Of several that want one address the first by its own gets it.
 */
function floatingRules(
  floating: readonly FloatingIP[],
  context: RuleContext,
): Record<"dnat" | "snat", readonly ChainRule[]> {
  const own = floating.toSorted((a, b) => compare(a.external, b.external) || compare(a.internal, b.internal));
  const inside = firstOf(own, ({ external }) => external);
  const outside = firstOf(inside, ({ internal }) => internal);
  const snat = ({ external }: FloatingIP): RuleAction => ({ do: "snat", to: external });
  return {
    dnat: inside.map(({ internal, external }) => rule([to(external)], [{ do: "dnat", to: internal }])),
    snat: [
      ...outside.map((each) => rule([from(each.internal), to(each.internal)], [snat(each)])),
      ...outside.map((each) => rule([from(each.internal), ...beyondPools(context)], [snat(each)])),
    ],
  };
}

function firstOf<Item>(items: readonly Item[], key: (item: Item) => string): Item[] {
  const seen = new Set<string>();
  return items.filter((item) => !seen.has(key(item)) && seen.add(key(item)));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
