/** The fixed chains of filter: what the node takes, sends and forwards. */
import type { Family } from "../ip/address.ts";
import { IPIP, PROTOCOL } from "../policy/model.ts";
import { neighbourDiscovery } from "./failsafeRules.ts";
import { FROM_HEP_FORWARD, FROM_HOST_ENDPOINT, TO_HEP_FORWARD, TO_HOST_ENDPOINT } from "./hostDispatch.ts";
import type { TunnelFact } from "./nodeFacts.ts";
import {
  ACCEPT,
  allow,
  clearMark,
  comesBy,
  deny,
  DROP,
  ESTABLISHED,
  goto,
  isInSet,
  isLocal,
  isMarked,
  isPort,
  isProtocol,
  isUnmarked,
  jump,
  leavesBy,
  not,
  ofFamily,
  REJECT,
  RETURN,
  rule,
  setMark,
  to,
  type RuleContext,
  workloadsHeld,
} from "./ruleContext.ts";
import type { HostNeeds } from "./ruleNeeds.ts";
import type { ChainRule, Match, RuleChain } from "./ruleset.ts";

export const FROM_WORKLOADS = "cali-from-wl-dispatch";
export const TO_WORKLOADS = "cali-to-wl-dispatch";
const WORKLOAD_TO_HOST = "cali-wl-to-host";
const CIDR_BLOCK = "cali-cidr-block";

export function filterChains(family: Family, hosts: HostNeeds, context: RuleContext): RuleChain[] {
  const chain = (name: string, rules: readonly ChainRule[], instead?: readonly ChainRule[]): RuleChain => ({
    layer: "filter",
    name,
    rules,
    origin: name,
    ...(instead === undefined ? {} : { instead }),
  });
  const blocked = cidrBlock(family, context);
  const sent = output(family, hosts, context);
  return [
    chain("cali-INPUT", input(family, hosts, context), inputWithoutSets(family, hosts, context)),
    chain(WORKLOAD_TO_HOST, workloadToHost(family, hosts, context)),
    chain("cali-FORWARD", forward(hosts, blocked.length > 0, context), workloadsHeld(context, "in", "out")),
    ...(sent.length === 0 ? [] : [chain("cali-OUTPUT", sent, output(family, hosts, { ...context, tunnels: [] }))]),
    chain(FROM_WORKLOADS, workloadDispatch(FROM_WORKLOADS, context)),
    chain(TO_WORKLOADS, workloadDispatch(TO_WORKLOADS, context)),
    ...(blocked.length === 0 ? [] : [chain(CIDR_BLOCK, blocked, [])]),
  ];
}

/** What stands at the end of FORWARD, after others' rules. */
export function forwardEnd(hosts: HostNeeds, context: RuleContext): ChainRule[] {
  const { marks, workloadInterfaces, renderer } = context;
  const accept = (...matches: Match[]): ChainRule =>
    rule([...matches, isMarked(marks.accept)], [allow(context, "filter")], "Policy explicitly accepted packet.");
  if (hosts.any) {
    // The mark is for mangle POSTROUTING, which by this tells forwarded packets from the host's own.
    return [accept(), rule([], [setMark(marks.accept)])];
  }
  // No packet but a workload's has a mark that can be trusted: nobody else's is cleared where no host endpoint needs it.
  if (!renderer.sharesHooks) return [];
  return workloadInterfaces.flatMap((name) => [accept(comesBy(name)), accept(leavesBy(name))]);
}

function input(family: Family, hosts: HostNeeds, context: RuleContext): ChainRule[] {
  return [
    ...context.tunnels.flatMap((tunnel) => (tunnel.family === family ? tunnelIn(tunnel, context) : [])),
    ...inputBehindTunnels(
      context.workloadInterfaces.map((name) => rule([comesBy(name)], [goto(WORKLOAD_TO_HOST)])),
      hosts,
      context,
    ),
  ];
}

function inputBehindTunnels(ofWorkloads: readonly ChainRule[], hosts: HostNeeds, context: RuleContext): ChainRule[] {
  // A host endpoint that comes later has to know the connections that are there: so the kernel tracks them from the start.
  if (!hosts.any) return [...ofWorkloads, rule([ESTABLISHED], [RETURN], "Keeps connections tracked")];
  return [
    ...ofWorkloads,
    rule([isMarked(context.marks.accept)], [allow(context, "filter")]),
    ...askHostEndpoint(FROM_HOST_ENDPOINT, [], context),
  ];
}

/** Without a set of the nodes nobody may hand us packets that carry packets. */
function inputWithoutSets(family: Family, hosts: HostNeeds, context: RuleContext): ChainRule[] {
  const own = context.tunnels.filter((tunnel) => tunnel.family === family);
  const carriers = own.flatMap(({ kind }): Match[][] =>
    kind === "ipip" ? [[isProtocol(IPIP)]] : kind === "vxlan" ? [udpTo(context.settings.vxlanPort)] : [],
  );
  return [
    ...carriers.map((matches) => rule(matches, [deny(context, "filter")])),
    ...inputBehindTunnels(workloadsHeld(context, "in"), hosts, context),
  ];
}

/** Only other nodes may hand us packets that carry packets: what is inside has passed their policy. */
function tunnelIn({ kind, port }: TunnelFact, context: RuleContext): ChainRule[] {
  const accept = [allow(context, "filter")];
  const toHere = isLocal("destination");
  if (kind === "ipip") {
    return [
      rule(
        [isProtocol(IPIP), isInSet("source", "all-hosts-net"), toHere],
        accept,
        "Allow IPIP packets from Calico hosts",
      ),
      rule([isProtocol(IPIP)], [deny(context, "filter")], "Drop IPIP packets from non-Calico hosts"),
    ];
  }
  if (kind === "wireguard") {
    // No drop: whoever has no key gets nothing through.
    return port === undefined ? [] : [rule([...udpTo(port), toHere], accept, "Allow incoming Wireguard packets")];
  }
  const vxlan = udpTo(context.settings.vxlanPort);
  return [
    rule([...vxlan, isInSet("source", "all-vxlan-net"), toHere], accept, "Allow VXLAN packets from allowed hosts"),
    rule([...vxlan, toHere], [deny(context, "filter")], "Drop VXLAN packets from non-allowed hosts"),
  ];
}

const udpTo = (port: number): Match[] => [isProtocol(PROTOCOL.UDP), isPort("destination", port)];

/** Policy of the interface; what it allows is done with. */
function askHostEndpoint(chain: string, matches: readonly Match[], context: RuleContext): ChainRule[] {
  const { marks } = context;
  return [
    rule([], [clearMark(marks.all)]),
    rule(matches, [jump(chain)]),
    rule([isMarked(marks.accept)], [allow(context, "filter")], "Host endpoint policy accepted packet."),
  ];
}

/** The workload's own policy comes first, then what settings say of workloads and their host. */
function workloadToHost(family: Family, hosts: HostNeeds, context: RuleContext): ChainRule[] {
  const comment = "Configured DefaultEndpointToHostAction";
  // Workloads' interfaces route to 127.0.0.0/8 for what the node translates to them; what listens there is the node's own.
  const toLoopback = [to("127.0.0.0/8"), not({ on: "dnat" })];
  const loopbackHeld = family === 4 ? [rule(toLoopback, [DROP], "Drop packets to the host's loopback addresses")] : [];
  const endings = {
    Accept: () => [...loopbackHeld, rule([], [ACCEPT], comment)],
    Drop: () => [rule([], [DROP], comment)],
    Reject: () => [rule([], [REJECT], comment)],
    // Back to others' rules, once the host endpoint for every interface has had its say.
    Return: () => [...loopbackHeld, ...(hosts.any ? askHostEndpoint(FROM_HOST_ENDPOINT, [], context) : [])],
  };
  return [
    ...neighbourDiscovery(family, allow(context, "filter")),
    rule([], [jump(FROM_WORKLOADS)]),
    ...endings[context.settings.defaultEndpointToHostAction](),
  ];
}

function forward(hosts: HostNeeds, hasBlocked: boolean, context: RuleContext): ChainRule[] {
  const { marks, workloadInterfaces } = context;
  const allButAccept = (marks.all & ~marks.accept) >>> 0;
  const fromHosts = [rule([], [clearMark(allButAccept)]), rule([isUnmarked(marks.accept)], [jump(FROM_HEP_FORWARD)])];
  return [
    ...(hosts.any ? fromHosts : []),
    ...workloadInterfaces.map((name) => rule([comesBy(name)], [jump(FROM_WORKLOADS)])),
    ...workloadInterfaces.map((name) => rule([leavesBy(name)], [jump(TO_WORKLOADS)])),
    ...(hosts.any ? [rule([], [jump(TO_HEP_FORWARD)])] : []),
    ...(hasBlocked ? [rule([], [jump(CIDR_BLOCK)])] : []),
  ];
}

function output(family: Family, hosts: HostNeeds, context: RuleContext): ChainRule[] {
  const { marks, workloadInterfaces, renderer } = context;
  const accept = [allow(context, "filter")];
  const toHosts = tunnelOut(family, context);
  // Where nobody else's rules stand behind ours, there is nothing that these would have to be passed by.
  if (!hosts.any) return renderer.sharesHooks ? toHosts : [];
  return [
    rule([isMarked(marks.accept)], accept),
    // A host may reach its own workloads: health probes do, and a host that is not to be trusted could change the rules.
    ...workloadInterfaces.map((name) => rule([leavesBy(name)], [RETURN])),
    ...toHosts,
    // What the host translated may leave by another interface than is known here: mangle POSTROUTING asks for that.
    ...askHostEndpoint(TO_HOST_ENDPOINT, [not({ on: "dnat" })], context),
  ];
}

function tunnelOut(family: Family, context: RuleContext): ChainRule[] {
  const accept = [allow(context, "filter")];
  const has = (kind: TunnelFact["kind"]): boolean =>
    context.tunnels.some((of) => of.kind === kind && of.family === family);
  const fromHere = isLocal("source");
  const ipip = [isProtocol(IPIP), isInSet("destination", "all-hosts-net"), fromHere];
  const vxlan = [...udpTo(context.settings.vxlanPort), isInSet("destination", "all-vxlan-net"), fromHere];
  return [
    ...(has("ipip") ? [rule(ipip, accept, "Allow IPIP packets to other Calico hosts")] : []),
    ...(has("vxlan") ? [rule(vxlan, accept, "Allow VXLAN packets to other allowed hosts")] : []),
  ];
}

/** A workload's interface that no endpoint is known for carries nothing. */
function workloadDispatch(map: string, context: RuleContext): ChainRule[] {
  return [rule([], [{ do: "dispatch", map }]), rule([], [deny(context, "filter")], "Unknown interface")];
}

/** Addresses of services that nobody has translated would go round between us and the router that sends them here. */
function cidrBlock(family: Family, { serviceCidrs, settings }: RuleContext): ChainRule[] {
  const { serviceLoopPrevention } = settings;
  if (serviceLoopPrevention === "Disabled") return [];
  const action = serviceLoopPrevention === "Reject" ? REJECT : DROP;
  return ofFamily(serviceCidrs, family).map((cidr) => rule([to(cidr)], [action]));
}
