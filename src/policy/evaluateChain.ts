/** The verdict of all policies that apply to one endpoint in one direction, with everything that was looked at. */
import { formatSelector } from "../resources/selector.ts";
import {
  compareTiers,
  sortPolicies,
  type Action,
  type Direction,
  type Endpoint,
  type Policy,
  type Rule,
} from "./model.ts";
import { mismatch, selects, type Directory, type Packet } from "./match.ts";
import { tierOf } from "./world.ts";

/** Which of an endpoint's policies: a host endpoint has four places on a packet's path, a workload only `normal`. */
export type ChainStage = "normal" | "untracked" | "preDNAT" | "forward";

export interface RuleTrail {
  /** Its place among the policy's rules of the direction, as counters and logs number them. */
  readonly index: number;
  /** Its place in the object that the user wrote. */
  readonly origin: string;
  readonly action: Action;
  /** Undefined: it matched. */
  readonly mismatch?: string;
}

export interface PolicyTrail {
  readonly policy: string;
  /** Why its rules were not looked at. */
  readonly skipped?: string;
  /** The rules that were looked at; the last one decided, if any did. */
  readonly rules: readonly RuleTrail[];
}

export interface TierTrail {
  readonly tier: string;
  readonly verdict: "allow" | "deny" | "pass";
  readonly policies: readonly PolicyTrail[];
}

/** What decided. */
export type Decision =
  | {
      readonly by: "rule";
      readonly tier: string;
      readonly policy: string;
      readonly index: number;
      readonly origin: string;
    }
  /** No rule of the tier matched. `policy`, the last that applies, is why there was anything to fall through. */
  | { readonly by: "end of tier"; readonly tier: string; readonly policy: string }
  | { readonly by: "profile"; readonly profile: string; readonly index: number; readonly origin: string }
  | { readonly by: "missing profile"; readonly profile: string }
  | { readonly by: "no profile" }
  | { readonly by: "no policy" }
  | { readonly by: "failsafe"; readonly port: number }
  | { readonly by: "encapsulation" }
  /** A workload asked for one of its node's loopback addresses. */
  | { readonly by: "loopback" }
  /** The workload has no address of the packet's family. */
  | { readonly by: "family" }
  | { readonly by: "setting"; readonly setting: "defaultEndpointToHostAction"; readonly value: string }
  | { readonly by: "neighbour discovery" };

export interface ChainResult {
  /** `continue`: undecided, which lets the packet go on to what comes next on its path. */
  readonly verdict: "allow" | "deny" | "continue";
  readonly decision: Decision;
  readonly tiers: readonly TierTrail[];
  /** As the policies of a tier; only after all tiers. */
  readonly profiles: readonly PolicyTrail[];
}

export function evaluateChain(
  directory: Directory,
  endpoint: Endpoint,
  direction: Direction,
  stage: ChainStage,
  packet: Packet,
): ChainResult {
  const tiers: TierTrail[] = [];
  let applying = 0;
  const { world } = directory;
  const names = new Set([...world.tiers.keys(), ...[...world.policies.values()].map(({ tier }) => tier)]);
  for (const tier of [...names].map((name) => tierOf(world, name)).sort(compareTiers)) {
    const members = [...world.policies.values()].filter((policy) => policy.tier === tier.name);
    const trail: PolicyTrail[] = [];
    const end = (verdict: TierTrail["verdict"]): void => void tiers.push({ tier: tier.name, verdict, policies: trail });
    let last: Policy | undefined;
    let hit: Hit | undefined;
    for (const policy of sortPolicies(members)) {
      const skipped = hit === undefined ? whyNot(directory, policy, endpoint, direction, stage) : "already decided";
      const looked = skipped === undefined ? evaluateRules(policy[direction], packet, directory) : { rules: [] };
      trail.push({ policy: policy.id, ...(skipped === undefined ? {} : { skipped }), rules: looked.rules });
      if (skipped !== undefined) continue;
      last = policy;
      hit = looked.hit;
      applying += 1;
    }
    if (hit !== undefined && hit.action !== "pass" && last !== undefined) {
      end(hit.action);
      const { index, origin } = hit;
      const decision = { by: "rule", tier: tier.name, policy: last.id, index, origin } as const;
      return { verdict: hit.action, decision, tiers, profiles: [] };
    }
    const drops = stage === "normal" || stage === "forward";
    if (hit === undefined && last !== undefined && drops && tier.defaultAction === "deny") {
      end("deny");
      return {
        verdict: "deny",
        decision: { by: "end of tier", tier: tier.name, policy: last.id },
        tiers,
        profiles: [],
      };
    }
    end("pass");
  }
  if (stage === "normal") return { ...evaluateProfiles(directory, endpoint, direction, packet), tiers };
  // What a host endpoint forwards is free unless a policy that governs it applies.
  const isFree = stage === "forward" && applying === 0;
  return { verdict: isFree ? "allow" : "continue", decision: { by: "no policy" }, tiers, profiles: [] };
}

/** Why a policy has nothing to say here; undefined where it applies. */
function whyNot(
  { world }: Directory,
  policy: Policy,
  endpoint: Endpoint,
  direction: Direction,
  stage: ChainStage,
): string | undefined {
  if (policy.draft !== undefined) return "it is a draft";
  if (!policy.directions.includes(direction)) return `it does not govern ${direction}`;
  if (stage === "forward" ? policy.stage !== "normal" || !policy.applyOnForward : policy.stage !== stage) {
    return stage === "normal"
      ? `it is for ${policy.stage} traffic of host endpoints`
      : `it is not for ${stage} traffic`;
  }
  if (!selects(world, policy.selector, endpoint)) {
    return `its selector ${formatSelector(policy.selector)} does not select ${endpoint.id}`;
  }
  return undefined;
}

interface Hit {
  readonly action: Exclude<Action, "log">;
  readonly index: number;
  readonly origin: string;
}

function evaluateRules(
  rules: readonly Rule[],
  packet: Packet,
  directory: Directory,
): { rules: RuleTrail[]; hit?: Hit } {
  const trail: RuleTrail[] = [];
  for (const [index, rule] of rules.entries()) {
    const why = mismatch(rule, packet, directory);
    const { action, origin } = rule;
    trail.push({ index, origin, action, ...(why === undefined ? {} : { mismatch: why }) });
    if (why === undefined && action !== "log") return { rules: trail, hit: { action, index, origin } };
  }
  return { rules: trail };
}

/** In the order in which the endpoint names them. One that does not exist denies. */
function evaluateProfiles(
  directory: Directory,
  endpoint: Endpoint,
  direction: Direction,
  packet: Packet,
): Omit<ChainResult, "tiers"> {
  const profiles: PolicyTrail[] = [];
  for (const name of endpoint.profiles) {
    const profile = directory.world.profiles.get(name);
    if (profile === undefined) {
      profiles.push({ policy: name, skipped: "it does not exist", rules: [] });
      return { verdict: "deny", decision: { by: "missing profile", profile: name }, profiles };
    }
    const { rules, hit } = evaluateRules(profile[direction], packet, directory);
    profiles.push({ policy: name, rules });
    if (hit === undefined || hit.action === "pass") continue;
    const { index, origin } = hit;
    return { verdict: hit.action, decision: { by: "profile", profile: name, index, origin }, profiles };
  }
  return { verdict: "deny", decision: { by: "no profile" }, profiles };
}
