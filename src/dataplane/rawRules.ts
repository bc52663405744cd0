/** The fixed chains that see packets first, and last: raw and mangle. */
import type { Family } from "../ip/address.ts";
import { PROTOCOL } from "../policy/model.ts";
import { FROM_HOST_ENDPOINT, TO_HOST_ENDPOINT } from "./hostDispatch.ts";
import {
  ACCEPT,
  allow,
  clearMark,
  comesBy,
  DROP,
  ESTABLISHED,
  from,
  isInSet,
  isMarked,
  isPort,
  isProtocol,
  isUnmarked,
  jump,
  not,
  NOTRACK,
  RETURN,
  rule,
  setMark,
  type RuleContext,
  workloadsHeld,
} from "./ruleContext.ts";
import type { AllowedSources, HostNeeds, RuleNeeds } from "./ruleNeeds.ts";
import type { ChainRule, Match, RuleAction, RuleChain } from "./ruleset.ts";

export function rawChains(family: Family, needs: RuleNeeds, context: RuleContext): RuleChain[] {
  const chain = (name: string, rules: readonly ChainRule[], instead: readonly ChainRule[]): RuleChain => ({
    layer: "raw",
    name,
    rules,
    origin: name,
    instead,
  });
  const { hosts, sources } = needs;
  const tunnelled = untrackedTunnel(family, context, "destination");
  const { asked, accepted } = untrackedOut(hosts, context);
  const leaving = [...asked, ...tunnelled, ...accepted];
  return [
    chain("cali-PREROUTING", arriving(family, needs, context), arrivingWithout(hosts, context)),
    ...(sources.length === 0 ? [] : [chain(RPF_SKIP, rpfSkip(sources), [])]),
    ...(leaving.length === 0 ? [] : [chain("cali-OUTPUT", leaving, [...asked, ...accepted])]),
  ];
}

const RPF_SKIP = "cali-rpf-skip";

/**
 * A workload's packet whose source is not its own is dropped here, before conntrack could take it for part of another's
 * connection.
 */
function arriving(family: Family, { hosts, sources }: RuleNeeds, context: RuleContext): ChainRule[] {
  const { marks, workloadInterfaces } = context;
  const fromWorkload = marks.scratch0;
  const ofWorkloads = (matches: readonly Match[], action: RuleAction, comment?: string): ChainRule[] =>
    workloadInterfaces.map((name) => rule([comesBy(name), ...matches], [action], comment));
  return [
    ...(hosts.any ? [rule([], [clearMark(marks.all)])] : []),
    ...untrackedTunnel(family, context, "source"),
    ...(sources.length === 0 ? [] : ofWorkloads([], jump(RPF_SKIP))),
    ...ofWorkloads([not({ on: "reversePath" })], DROP, "Drop packets with a source that is not the workload's"),
    ...(hosts.untracked.ingress
      ? [
          ...ofWorkloads([], setMark(fromWorkload)),
          rule([isUnmarked(fromWorkload)], [jump(FROM_HOST_ENDPOINT)]),
          rule([isMarked(marks.accept)], [ACCEPT]),
        ]
      : []),
  ];
}

function arrivingWithout(hosts: HostNeeds, context: RuleContext): ChainRule[] {
  const { marks } = context;
  return [
    ...(hosts.any ? [rule([], [clearMark(marks.all)])] : []),
    ...workloadsHeld(context, "in"),
    ...(hosts.untracked.ingress
      ? [rule([], [jump(FROM_HOST_ENDPOINT)]), rule([isMarked(marks.accept)], [ACCEPT])]
      : []),
  ];
}

function untrackedOut(hosts: HostNeeds, { marks }: RuleContext): Record<"asked" | "accepted", ChainRule[]> {
  if (!hosts.any) return { asked: [], accepted: [] };
  const asks = hosts.untracked.egress;
  return {
    asked: [rule([], [clearMark(marks.all)]), ...(asks ? [rule([], [jump(TO_HOST_ENDPOINT)])] : [])],
    accepted: asks ? [rule([isMarked(marks.accept)], [ACCEPT])] : [],
  };
}

/**
 * VXLAN has another source port each way, so that every tunnel would be two connections without a reply. Only nodes'
 * packets are meant: a reply from elsewhere to a port of ours that happens to be the same has to find its connection.
 */
function untrackedTunnel(
  family: Family,
  { tunnels, settings }: RuleContext,
  peer: "source" | "destination",
): ChainRule[] {
  if (!tunnels.some(({ kind, family: of }) => kind === "vxlan" && of === family)) return [];
  return [
    rule(
      [isProtocol(PROTOCOL.UDP), isPort("destination", settings.vxlanPort), isInSet(peer, "all-vxlan-net")],
      [NOTRACK],
    ),
  ];
}

function rpfSkip(sources: readonly AllowedSources[]): ChainRule[] {
  return sources.map(({ interfaceName, nets }) => rule([comesBy(interfaceName), from(...nets)], [ACCEPT]));
}

export function mangleChains(hosts: HostNeeds, context: RuleContext): RuleChain[] {
  const { marks } = context;
  const accept = allow(context, "mangle");
  const arrived = [
    rule([ESTABLISHED], [accept]),
    rule([isMarked(marks.accept)], [accept]),
    rule([], [jump(FROM_HOST_ENDPOINT)]),
    rule([isMarked(marks.accept)], [accept], "Host endpoint policy accepted packet."),
  ];
  // filter FORWARD marks what it lets through, so that this is what the host itself sent. The interface by which
  // packets leave that it translated is known only here.
  const leaving = [
    rule([isMarked(marks.accept)], [RETURN]),
    rule([], [clearMark(marks.all)]),
    rule([{ on: "dnat" }], [jump(TO_HOST_ENDPOINT)]),
    rule([isMarked(marks.accept)], [RETURN], "Host endpoint policy accepted packet."),
  ];
  const chain = (name: string, rules: readonly ChainRule[], instead: readonly ChainRule[]): RuleChain => ({
    layer: "mangle",
    name,
    rules,
    origin: name,
    instead,
  });
  return [
    // Host endpoints have filter's rules still.
    ...(hosts.preDNAT ? [chain("cali-PREROUTING", arrived, workloadsHeld(context, "in"))] : []),
    ...(hosts.any ? [chain("cali-POSTROUTING", leaving, [])] : []),
  ];
}
