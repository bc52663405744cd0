/** Which policies an endpoint has, in which order, and what happens at the end of each tier. */
import type { ChainStage } from "./evaluateChain.ts";
import { compareTiers, sortPolicies, type Direction, type Endpoint, type Policy, type Tier } from "./model.ts";

/** The policies of one tier that apply to an endpoint in one direction. */
export interface TierChain {
  readonly tier: string;
  /** Ids, in the order in which they are asked. The last is the one that the end of the tier is put down to. */
  readonly policies: readonly string[];
  /** For what none of them decides: drop it, or go on. */
  readonly end: "deny" | "pass";
}

/** By direction; tiers that have nothing to say are left out. */
export interface Chains {
  readonly ingress: readonly TierChain[];
  readonly egress: readonly TierChain[];
}

/** All that one node's kernel has to know of one of its endpoints. */
export type EndpointChains =
  | {
      readonly kind: "workload";
      readonly id: string;
      readonly interfaceName: string;
      readonly addresses: readonly string[];
      readonly normal: Chains;
      /** Asked in order after the tiers; what none of them allows is dropped. */
      readonly profiles: readonly string[];
      readonly local: NonNullable<Endpoint["local"]>;
    }
  | {
      readonly kind: "host";
      readonly id: string;
      /** `*`: every interface that is not a workload's and has no other host endpoint. */
      readonly interfaceName: string;
      readonly normal: Chains;
      readonly profiles: readonly string[];
      /** Without a tier in a direction, what is forwarded that way is free; what all tiers pass is so too. */
      readonly forward: Chains;
      /** Nothing is dropped at the end. Ingress only. */
      readonly preDNAT: Chains;
      /** Nothing is dropped at the end. Allow ends the tracking of the connection. */
      readonly untracked: Chains;
    };

const PLAIN: NonNullable<Endpoint["local"]> = { floatingIPs: [], allowedSourcePrefixes: [] };

/** @param policies all that select the endpoint, in any order */
export function workloadChains(
  endpoint: Endpoint,
  interfaceName: string,
  policies: readonly Policy[],
  tierOf: (name: string) => Tier,
): EndpointChains {
  return {
    kind: "workload",
    id: endpoint.id,
    interfaceName,
    addresses: endpoint.nets,
    normal: chainsOf(policies, "normal", tierOf),
    profiles: endpoint.profiles,
    local: endpoint.local ?? PLAIN,
  };
}

export function hostChains(
  endpoint: Endpoint,
  interfaceName: string,
  policies: readonly Policy[],
  tierOf: (name: string) => Tier,
): EndpointChains {
  return {
    kind: "host",
    id: endpoint.id,
    interfaceName,
    normal: chainsOf(policies, "normal", tierOf),
    profiles: endpoint.profiles,
    forward: chainsOf(policies, "forward", tierOf),
    preDNAT: { ...chainsOf(policies, "preDNAT", tierOf), egress: [] },
    untracked: chainsOf(policies, "untracked", tierOf),
  };
}

function chainsOf(policies: readonly Policy[], stage: ChainStage, tierOf: (name: string) => Tier): Chains {
  const ofStage = policies.filter((policy) =>
    stage === "forward" ? policy.stage === "normal" && policy.applyOnForward : policy.stage === stage,
  );
  return {
    ingress: tierChains(ofStage, "ingress", stage, tierOf),
    egress: tierChains(ofStage, "egress", stage, tierOf),
  };
}

function tierChains(
  policies: readonly Policy[],
  direction: Direction,
  stage: ChainStage,
  tierOf: (name: string) => Tier,
): TierChain[] {
  const byTier = Map.groupBy(
    policies.filter(({ directions, draft }) => draft === undefined && directions.includes(direction)),
    ({ tier }) => tier,
  );
  const drops = stage === "normal" || stage === "forward";
  return [...byTier.keys()]
    .map(tierOf)
    .sort(compareTiers)
    .map(({ name, defaultAction }) => ({
      tier: name,
      policies: sortPolicies(byTier.get(name) ?? []).map(({ id }) => id),
      end: drops ? defaultAction : "pass",
    }));
}

/** The ids of all policies that the chains ask. */
export function policiesIn(chains: EndpointChains): Set<string> {
  const all =
    chains.kind === "host" ? [chains.normal, chains.forward, chains.preDNAT, chains.untracked] : [chains.normal];
  return new Set(all.flatMap(({ ingress, egress }) => [...ingress, ...egress].flatMap(({ policies }) => policies)));
}
