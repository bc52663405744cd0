/**
 * The chains of endpoints: `cali-tw-…` and `cali-fw-…` of workloads, `cali-th-…`, `cali-fh-…`, `cali-thfw-…` and
 * `cali-fhfw-…` of host endpoints. They are the same in both address families.
 */
import type { EndpointChains, TierChain } from "../policy/chains.ts";
import type { ChainStage } from "../policy/evaluateChain.ts";
import { EVERY_INTERFACE } from "../policy/hostEndpoints.ts";
import { IPIP, PROTOCOL, type Direction } from "../policy/model.ts";
import { nflogNoProfile, nflogTierEnd } from "./nflogPrefix.ts";
import { grouped, groupChainName, type PolicyGroup } from "./policyGroups.ts";
import { ownerChainName, type RuleOwner } from "./policyRules.ts";
import {
  allow,
  clearMark,
  deny,
  ESTABLISHED,
  INVALID,
  isMarked,
  isPort,
  isProtocol,
  isUnmarked,
  jump,
  NOTRACK,
  RETURN,
  rule,
  setMark,
  type RuleContext,
} from "./ruleContext.ts";
import type { ChainRule, Layer, RuleChain } from "./ruleset.ts";

/** A chain that others jump to, and that is there as long as one of them does. */
export type ChainUse = { readonly owner: RuleOwner } | { readonly group: PolicyGroup };

export interface EndpointRules {
  readonly chains: readonly RuleChain[];
  readonly uses: readonly ChainUse[];
}

type Workload = Extract<EndpointChains, { kind: "workload" }>;
type Host = Extract<EndpointChains, { kind: "host" }>;

export const workloadChainName = (direction: Direction, interfaceName: string): string =>
  `cali-${direction === "ingress" ? "t" : "f"}w-${interfaceName}`;

/** Calico's name for the interface of a host endpoint that stands for all. */
const ANY_INTERFACE = "any-interface-at-all";

export function hostChainName(direction: Direction, interfaceName: string, isForward = false): string {
  // "To" a host endpoint is what leaves by its interface: the host's own egress.
  const way = direction === "egress" ? "t" : "f";
  return `cali-${way}h${isForward ? "fw" : ""}-${interfaceName === EVERY_INTERFACE ? ANY_INTERFACE : interfaceName}`;
}

export function workloadRules(endpoint: Workload, context: RuleContext): EndpointRules {
  const parts = (["ingress", "egress"] as const).map((direction) =>
    chainOf(context, {
      layer: "filter",
      name: workloadChainName(direction, endpoint.interfaceName),
      endpoint,
      direction,
      stage: "normal",
      before: direction === "egress" ? encapsulation(context) : [],
    }),
  );
  return merged(parts);
}

/** Tunnels of a workload would carry its packets past every policy of their inner addresses. */
function encapsulation(context: RuleContext): ChainRule[] {
  const { allowVXLANPacketsFromWorkloads, allowIPIPPacketsFromWorkloads, vxlanPort } = context.settings;
  const drop = [deny(context, "filter")];
  return [
    ...(allowVXLANPacketsFromWorkloads
      ? []
      : [
          rule(
            [isProtocol(PROTOCOL.UDP), isPort("destination", vxlanPort)],
            drop,
            "Drop VXLAN encapped packets originating in workloads",
          ),
        ]),
    ...(allowIPIPPacketsFromWorkloads
      ? []
      : [rule([isProtocol(IPIP)], drop, "Drop IPinIP encapped packets originating in workloads")]),
  ];
}

/** Where each stage of a host endpoint is asked. Packets of the node itself that were translated meet it in mangle. */
const HOST_CHAINS: readonly { layer: Layer; stage: ChainStage; direction: Direction }[] = [
  { layer: "raw", stage: "untracked", direction: "ingress" },
  { layer: "raw", stage: "untracked", direction: "egress" },
  { layer: "mangle", stage: "preDNAT", direction: "ingress" },
  { layer: "mangle", stage: "normal", direction: "egress" },
  { layer: "filter", stage: "normal", direction: "ingress" },
  { layer: "filter", stage: "normal", direction: "egress" },
  { layer: "filter", stage: "forward", direction: "ingress" },
  { layer: "filter", stage: "forward", direction: "egress" },
];

export function hostRules(endpoint: Host, context: RuleContext): EndpointRules {
  return merged(
    HOST_CHAINS.map(({ layer, stage, direction }) => {
      const name = hostChainName(direction, endpoint.interfaceName, stage === "forward");
      const chain: ChainPlan = { layer, name, endpoint, direction, stage, before: [] };
      return hasNothingToSay(endpoint, stage, direction) ? freeChain(chain, context) : chainOf(context, chain);
    }),
  );
}

/** No policy of the stage applies, and then the stage decides nothing. */
function hasNothingToSay(endpoint: Host, stage: ChainStage, direction: Direction): boolean {
  return stage !== "normal" && endpoint[stage][direction].length === 0;
}

/** Its being there keeps the packets of this interface from the host endpoint that stands for all. */
function freeChain({ layer, name, stage, endpoint }: ChainPlan, { marks }: RuleContext): EndpointRules {
  const rules = stage === "forward" ? [rule([], [setMark(marks.accept)], "Allow forwarded traffic by default")] : [];
  return { chains: [{ layer, name, rules, origin: endpoint.id, instead: [] }], uses: [] };
}

interface ChainPlan {
  readonly layer: Layer;
  readonly name: string;
  readonly endpoint: EndpointChains;
  readonly direction: Direction;
  readonly stage: ChainStage;
  /** Rules that no policy can overrule. */
  readonly before: readonly ChainRule[];
}

function chainOf(context: RuleContext, plan: ChainPlan): EndpointRules {
  const { layer, name, endpoint, direction, stage, before } = plan;
  const { accept, pass } = context.marks;
  const tiers = (endpoint.kind === "host" ? endpoint[stage] : endpoint.normal)[direction];
  const hasFailsafe = endpoint.kind === "host" && stage !== "forward";
  const uses: ChainUse[] = [];
  const rules = [
    ...connectionRules(context, layer),
    ...(hasFailsafe ? [askFailsafe(direction)] : []),
    rule([], [clearMark((accept | pass) >>> 0)]),
    ...before,
    ...tiers.flatMap((tier) => tierRules(context, plan, tier, uses)),
    ...(stage === "normal" ? profileRules(context, plan, uses) : []),
  ];
  const instead = hasFailsafe ? { instead: onlyFailsafe(context, layer, direction) } : {};
  return { chains: [{ layer, name, rules, origin: endpoint.id, ...instead }], uses };
}

const askFailsafe = (direction: Direction): ChainRule =>
  rule([], [jump(direction === "ingress" ? "cali-failsafe-in" : "cali-failsafe-out")]);

/** For the place of a host endpoint's rules that the kernel refuses: the node stays within reach. */
export function onlyFailsafe(context: RuleContext, layer: Layer, direction: Direction): ChainRule[] {
  const end = rule([], [deny(context, layer)], "Refused by the kernel");
  return [...connectionRules(context, layer), askFailsafe(direction), end];
}

/** Replies pass with what they answer; what belongs to nothing is dropped. Raw does not know connections yet. */
function connectionRules(context: RuleContext, layer: Layer): ChainRule[] {
  if (layer === "raw") return [];
  const accepted = allow(context, layer);
  const established = accepted.do === "return" ? [setMark(context.marks.accept), accepted] : [accepted];
  return [
    rule([ESTABLISHED], established),
    ...(context.settings.disableConntrackInvalidCheck ? [] : [rule([INVALID], [deny(context, layer)])]),
  ];
}

function tierRules(context: RuleContext, plan: ChainPlan, tier: TierChain, uses: ChainUse[]): ChainRule[] {
  const { layer, direction, stage, endpoint } = plan;
  const { accept, pass } = context.marks;
  const asks = grouped(tier.policies).flatMap((policies): ChainRule[] => {
    const [id = ""] = policies;
    const owner: RuleOwner = { kind: "policy", id, layer, direction, tier: tier.tier };
    const group: PolicyGroup = { layer, direction, tier: tier.tier, policies };
    const isGroup = policies.length > 1;
    uses.push(isGroup ? { group } : { owner });
    return [
      rule([isUnmarked(pass)], [jump(isGroup ? groupChainName(group) : ownerChainName(owner))]),
      rule([isMarked(accept)], [...(stage === "untracked" ? [NOTRACK] : []), RETURN], "Return if policy accepted"),
    ];
  });
  const counted = { of: `tier/${tier.tier}`, direction, interfaceName: endpoint.interfaceName };
  const told = context.nflog && stage !== "untracked" ? [nflogTierEnd(tier.end, direction, tier.tier)] : [];
  const [last, what] =
    tier.end === "deny"
      ? [deny(context, layer), "Drop if no policies passed packet"]
      : [setMark(pass), "Pass if no policies decided"];
  const end: ChainRule = {
    ...rule([isUnmarked(pass)], [...told, last], `End of tier ${tier.tier}. ${what}`),
    counted,
  };
  // The early stages decide only about what a rule of theirs matches.
  const drops = stage === "normal" || stage === "forward";
  return [rule([], [clearMark(pass)], `Start of tier ${tier.tier}`), ...asks, ...(drops ? [end] : [])];
}

function profileRules(context: RuleContext, plan: ChainPlan, uses: ChainUse[]): ChainRule[] {
  const { layer, direction, endpoint } = plan;
  const asks = endpoint.profiles.flatMap((id): ChainRule[] => {
    const owner: RuleOwner = { kind: "profile", id, layer, direction };
    uses.push({ owner });
    return [
      rule([], [jump(ownerChainName(owner))]),
      rule([isMarked(context.marks.accept)], [RETURN], "Return if profile accepted"),
    ];
  });
  const told = context.nflog ? [nflogNoProfile(direction)] : [];
  const end: ChainRule = {
    ...rule([], [...told, deny(context, layer)], "Drop if no profiles matched"),
    counted: { of: "profiles", direction, interfaceName: endpoint.interfaceName },
  };
  return [...asks, end];
}

function merged(parts: readonly EndpointRules[]): EndpointRules {
  return { chains: parts.flatMap(({ chains }) => chains), uses: parts.flatMap(({ uses }) => uses) };
}
