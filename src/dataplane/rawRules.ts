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
  ofFamily,
  RETURN,
  rule,
  setMark,
  type RuleContext,
  workloadsHeld,
} from "./ruleContext.ts";
import type { ChainRule, RuleChain } from "./ruleset.ts";

export function rawChains(family: Family, context: RuleContext): RuleChain[] {
  return [prerouting(family, context), output(family, context)];
}

function prerouting(family: Family, context: RuleContext): RuleChain {
  const { marks, workloadInterfaces } = context;
  const fromWorkload = marks.scratch0;
  const rules = [
    rule([], [clearMark(marks.all)]),
    ...untrackedTunnel(family, context, "source"),
    ...workloadInterfaces.map((name) => rule([comesBy(name)], [setMark(fromWorkload)])),
    rule([isMarked(fromWorkload)], [jump("cali-rpf-skip")]),
    rule(
      [isMarked(fromWorkload), not({ on: "reversePath" })],
      [DROP],
      "Drop packets with a source that is not the workload's",
    ),
    rule([isUnmarked(fromWorkload)], [jump(FROM_HOST_ENDPOINT)]),
    rule([isMarked(marks.accept)], [ACCEPT]),
  ];
  const instead = [
    rule([], [clearMark(marks.all)]),
    ...workloadsHeld(context, "in"),
    rule([], [jump(FROM_HOST_ENDPOINT)]),
    rule([isMarked(marks.accept)], [ACCEPT]),
  ];
  return { layer: "raw", name: "cali-PREROUTING", rules, origin: "cali-PREROUTING", instead };
}

function output(family: Family, context: RuleContext): RuleChain {
  const { marks } = context;
  const asked = [rule([], [clearMark(marks.all)]), rule([], [jump(TO_HOST_ENDPOINT)])];
  const accepted = rule([isMarked(marks.accept)], [ACCEPT]);
  const rules = [...asked, ...untrackedTunnel(family, context, "destination"), accepted];
  return { layer: "raw", name: "cali-OUTPUT", rules, origin: "cali-OUTPUT", instead: [...asked, accepted] };
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

/** Networks from which a workload may send besides its own addresses. */
export interface AllowedSources {
  readonly interfaceName: string;
  readonly nets: readonly string[];
}

export function rpfSkipChain(family: Family, allowed: readonly AllowedSources[]): RuleChain {
  const rules = allowed.flatMap(({ interfaceName, nets }) => {
    const own = ofFamily(nets, family);
    return own.length === 0 ? [] : [rule([comesBy(interfaceName), from(...own)], [ACCEPT])];
  });
  return { layer: "raw", name: "cali-rpf-skip", rules, origin: "cali-rpf-skip", instead: [] };
}

export function mangleChains(context: RuleContext): RuleChain[] {
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
    chain("cali-PREROUTING", arrived, workloadsHeld(context, "in")),
    chain("cali-POSTROUTING", leaving, []),
  ];
}
