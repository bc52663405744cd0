/** From interfaces to the chains of their host endpoints, in each layer that asks them. */
import { EVERY_INTERFACE } from "../policy/hostEndpoints.ts";
import type { Direction } from "../policy/model.ts";
import { hostChainName, onlyFailsafe } from "./endpointRules.ts";
import { comesBy, goto, leavesBy, RETURN, rule, type RuleContext } from "./ruleContext.ts";
import type { HostNeeds } from "./ruleNeeds.ts";
import type { ChainRule, Layer, RuleChain } from "./ruleset.ts";

export interface HostDispatch {
  readonly layer: Layer;
  readonly name: string;
  readonly direction: Direction;
  readonly isForward: boolean;
}

const dispatch = (layer: Layer, name: string, direction: Direction, isForward = false): HostDispatch => ({
  layer,
  name,
  direction,
  isForward,
});

export const FROM_HOST_ENDPOINT = "cali-from-host-endpoint";
export const TO_HOST_ENDPOINT = "cali-to-host-endpoint";
export const FROM_HEP_FORWARD = "cali-from-hep-forward";
export const TO_HEP_FORWARD = "cali-to-hep-forward";

export const HOST_DISPATCHES: readonly HostDispatch[] = [
  dispatch("raw", FROM_HOST_ENDPOINT, "ingress"),
  dispatch("raw", TO_HOST_ENDPOINT, "egress"),
  dispatch("mangle", FROM_HOST_ENDPOINT, "ingress"),
  dispatch("mangle", TO_HOST_ENDPOINT, "egress"),
  dispatch("filter", FROM_HOST_ENDPOINT, "ingress"),
  dispatch("filter", TO_HOST_ENDPOINT, "egress"),
  dispatch("filter", FROM_HEP_FORWARD, "ingress", true),
  dispatch("filter", TO_HEP_FORWARD, "egress", true),
];

export function hostDispatchChains(hosts: HostNeeds, context: RuleContext): RuleChain[] {
  return HOST_DISPATCHES.filter((of) => isAsked(of, hosts)).map((of) => hostDispatchChain(of, hosts.every, context));
}

/** The early stages are asked only where one of them has something to say. */
function isAsked({ layer, direction }: HostDispatch, { any, untracked, preDNAT }: HostNeeds): boolean {
  if (layer === "raw") return untracked[direction];
  return layer === "mangle" && direction === "ingress" ? preDNAT : any;
}

/** @param hasEvery there is a host endpoint for every interface that has none of its own */
function hostDispatchChain(of: HostDispatch, hasEvery: boolean, context: RuleContext): RuleChain {
  const { layer, name, direction, isForward } = of;
  const every = rule([], [goto(hostChainName(direction, EVERY_INTERFACE, isForward))]);
  const rules = [rule([], [{ do: "dispatch", map: name }]), ...(hasEvery ? [...notOfHosts(of, context), every] : [])];
  if (isForward) return { layer, name, rules, origin: name };
  const instead = [...notOfHosts(of, context), ...onlyFailsafe(context, layer, direction)];
  return { layer, name, rules, origin: name, instead };
}

/** What the host endpoint for every interface has no say in. */
function notOfHosts({ direction, isForward }: HostDispatch, { workloadInterfaces }: RuleContext): ChainRule[] {
  if (isForward) return [];
  const isEgress = direction === "egress";
  // What the host itself sends to its own workloads is nobody's business, what it forwards to them is.
  const toWorkloads = workloadInterfaces.map((name) =>
    rule([leavesBy(name)], [RETURN], "Skip egress WHEP policy for traffic to local workload"),
  );
  return [rule([(isEgress ? leavesBy : comesBy)("lo")], [RETURN]), ...(isEgress ? toWorkloads : [])];
}
