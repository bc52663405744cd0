/** Everything that decides about a packet, as plain tables: what the evaluator reads. */
import type { Family } from "../ip/address.ts";
import { Failure } from "../lib/errors.ts";
import type { ProtoPort } from "../resources/knob.ts";
import { INITIAL_PROFILES, INITIAL_TIERS } from "./convertPolicy.ts";
import {
  familyOfNet,
  type Endpoint,
  type HostInterface,
  type Policy,
  type Profile,
  type ServiceSlice,
  type Tier,
  type Update,
} from "./model.ts";

export class PolicyError extends Failure<"unknown-endpoint" | "no-address" | "bad-flow"> {}

export interface World {
  readonly tiers: Map<string, Tier>;
  readonly policies: Map<string, Policy>;
  readonly profiles: Map<string, Profile>;
  readonly endpoints: Map<string, Endpoint>;
  readonly slices: Map<string, ServiceSlice>;
  /** By node: its interfaces that are not workloads'. The first carries the traffic between nodes. */
  readonly interfaces: Map<string, readonly HostInterface[]>;
  readonly settings: PolicySettings;
}

/** The settings of Felix that decide about packets. */
export interface PolicySettings {
  /** For what a workload sends to its own node and its policy allows. Return: the host endpoints' policy decides. */
  readonly defaultEndpointToHostAction: "Accept" | "Drop" | "Reject" | "Return";
  readonly failsafeInboundHostPorts: readonly ProtoPort[];
  readonly failsafeOutboundHostPorts: readonly ProtoPort[];
  readonly allowVXLANPacketsFromWorkloads: boolean;
  readonly allowIPIPPacketsFromWorkloads: boolean;
  readonly vxlanPort: number;
}

/** A world with only what is there whatever the datastore says. */
export function emptyWorld(settings: PolicySettings): World {
  return {
    tiers: new Map(INITIAL_TIERS.map((tier) => [tier.name, tier])),
    policies: new Map(),
    profiles: new Map(INITIAL_PROFILES.map((profile) => [profile.name, profile])),
    endpoints: new Map(),
    slices: new Map(),
    interfaces: new Map(),
    settings,
  };
}

export function applyUpdate(world: World, update: Update): void {
  switch (update.kind) {
    case "tier":
      return put(world.tiers, update.id, update.value ?? INITIAL_TIERS.find(({ name }) => name === update.id));
    case "policy":
      return put(world.policies, update.id, update.value);
    case "profile":
      return put(world.profiles, update.id, update.value ?? INITIAL_PROFILES.find(({ name }) => name === update.id));
    case "endpoint":
      return put(world.endpoints, update.id, update.value);
    case "slice":
      return put(world.slices, update.id, update.value);
  }
}

function put<Value>(map: Map<string, Value>, id: string, value: Value | undefined): void {
  if (value === undefined) map.delete(id);
  else map.set(id, value);
}

/** The value of a label of an endpoint: its own, or else of the first of its profiles that has the key. */
export function labelOf(world: Pick<World, "profiles">, endpoint: Endpoint, key: string): string | undefined {
  if (Object.hasOwn(endpoint.labels, key)) return endpoint.labels[key];
  for (const name of endpoint.profiles) {
    const labels = world.profiles.get(name)?.labels ?? {};
    if (Object.hasOwn(labels, key)) return labels[key];
  }
  return undefined;
}

/** The world as it would be with all drafts in force. */
export function withDrafts(world: World): World {
  const policies = new Map(world.policies);
  for (const policy of world.policies.values()) {
    const { draft, ...rest } = policy;
    if (draft === undefined) continue;
    policies.delete(policy.id);
    if (draft.action === "delete") policies.delete(draft.replaces);
    else policies.set(draft.replaces, { ...rest, id: draft.replaces, kind: enforcedKind(policy.kind) });
  }
  return { ...world, policies };
}

function enforcedKind(kind: Policy["kind"]): Policy["kind"] {
  if (kind === "snp") return "np";
  return kind === "sgnp" ? "gnp" : "knp";
}

/** The tier of a policy that names one which does not exist: it comes after all others, and denies. */
export function tierOf(world: Pick<World, "tiers">, name: string): Tier {
  return world.tiers.get(name) ?? { name, order: Infinity, defaultAction: "deny" };
}

/** The first address of the family that the endpoint has. */
export function endpointAddress({ nets }: Endpoint, family: Family): string | undefined {
  return nets.find((net) => !net.includes("/") && familyOfNet(net) === family);
}
