/**
 * The incremental compiler: objects come, change and go, and what that changes in one node's kernel comes out: the chains
 * of its endpoints, the rules of the policies and profiles that these ask, the members of the address sets that those
 * look at. What no endpoint of the node asks for costs nothing but its place in the tables.
 */
import { formatSelector } from "../resources/selector.ts";
import { hostChains, policiesIn, workloadChains, type EndpointChains } from "./chains.ts";
import { INITIAL_PROFILES, INITIAL_TIERS } from "./convertPolicy.ts";
import { hostEndpointsByInterface } from "./hostEndpoints.ts";
import type { CompiledTables } from "./interpret.ts";
import { labelIndex } from "./labelIndex.ts";
import type { Endpoint, HostInterface, Policy, Profile, Rule, Tier, Update } from "./model.ts";
import { ruleTable, type CompiledPolicy, type PolicyRules } from "./ruleTable.ts";
import { addressSets, type AddressSets, type SetChange, type SetKind } from "./sets.ts";
import { tierOf } from "./world.ts";

/** What changed. Values are the new state of a whole part; undefined: it is gone. */
export interface Difference {
  /** By `chainKey`: a host endpoint may stand for several interfaces. */
  readonly endpoints: ReadonlyMap<string, EndpointChains | undefined>;
  readonly policies: ReadonlyMap<string, CompiledPolicy | undefined>;
  readonly profiles: ReadonlyMap<string, CompiledPolicy | undefined>;
  readonly sets: readonly SetChange[];
}

/** Everything that is to be in the kernel, as all differences so far add up to. */
export interface CompiledState {
  readonly endpoints: ReadonlyMap<string, EndpointChains>;
  readonly policies: ReadonlyMap<string, CompiledPolicy>;
  readonly profiles: ReadonlyMap<string, CompiledPolicy>;
  readonly sets: ReadonlyMap<string, { readonly kind: SetKind; readonly members: readonly string[] }>;
}

export interface Compiler {
  update(update: Update): void;
  /** The node's interfaces that are not workloads'. */
  setInterfaces(interfaces: readonly HostInterface[]): void;
  /** What changed since the last time. */
  take(): Difference;
  state(): CompiledState;
  /** The chains of the local endpoints, by key, and what they ask: as of the last `take`, and without a copy of the sets. */
  tables(): CompiledTables & Pick<CompiledState, "endpoints"> & Pick<AddressSets, "setsOf">;
  /** For metrics. */
  size(): CompilerSize;
}

export interface CompilerSize {
  readonly endpoints: number;
  /** Endpoints of this node. */
  readonly local: number;
  readonly policies: number;
  /** Those that apply to endpoints of this node. */
  readonly active: number;
  readonly sets: number;
  readonly tiers: number;
  readonly profiles: number;
}

/** The key of an endpoint's chains: its id, for a host endpoint also the interface. */
export function chainKey(chains: EndpointChains): string {
  return chains.kind === "host" ? `${chains.id} ${chains.interfaceName}` : chains.id;
}

/** What has changed where nothing was there before. */
export function wholeDifference({ endpoints, policies, profiles, sets }: CompiledState): Difference {
  return {
    endpoints,
    policies,
    profiles,
    sets: [...sets].map(([id, { kind, members }]) => ({ id, kind, state: "new", added: members, removed: [] })),
  };
}

export function compiler(node: string): Compiler {
  const tiers = new Map<string, Tier>(INITIAL_TIERS.map((tier) => [tier.name, tier]));
  const policies = new Map<string, Policy>();
  const profiles = new Map<string, Profile>();
  /** The workloads and host endpoints of this node. */
  const locals = new Map<string, Endpoint>();
  let interfaces: readonly HostInterface[] = [];

  const sets = addressSets();
  /** Policies by the text of their selector, and the local endpoints that it matches. */
  const bySelector = new Map<string, { readonly policies: Set<Policy>; readonly endpoints: Set<string> }>();
  const dirtyEndpoints = new Set<string>();
  let hostsDirty = false;
  const index = labelIndex<string>({
    started: (id, selector) => change(id, selector, "add"),
    stopped: (id, selector) => change(id, selector, "delete"),
  });

  function change(id: string, selector: string, what: "add" | "delete"): void {
    bySelector.get(selector)?.endpoints[what](id);
    dirtyEndpoints.add(id);
  }

  const compiledPolicies = ruleTable((id) => policies.get(id), sets);
  const compiledProfiles = ruleTable((name) => profiles.get(name) ?? missingProfile(name), sets);
  const chains = new Map<string, EndpointChains>();
  /** The keys of the chains of each endpoint. */
  const keysOf = new Map<string, readonly string[]>();

  function setPolicy(id: string, policy: Policy | undefined): void {
    const before = policies.get(id);
    compiledPolicies.dirty.add(id);
    if (before !== undefined) {
      const key = formatSelector(before.selector);
      const slot = bySelector.get(key);
      slot?.policies.delete(before);
      slot?.endpoints.forEach((endpoint) => dirtyEndpoints.add(endpoint));
      if (slot?.policies.size === 0 && (policy === undefined || formatSelector(policy.selector) !== key)) {
        index.removeSelector(key);
        bySelector.delete(key);
      }
    }
    if (policy === undefined) return void policies.delete(id);
    policies.set(id, policy);
    const key = formatSelector(policy.selector);
    const slot = bySelector.get(key);
    if (slot === undefined) {
      bySelector.set(key, { policies: new Set([policy]), endpoints: new Set() });
      index.addSelector(key, policy.selector);
      return;
    }
    slot.policies.add(policy);
    slot.endpoints.forEach((endpoint) => dirtyEndpoints.add(endpoint));
  }

  function setEndpoint(id: string, endpoint: Endpoint | undefined): void {
    sets.setEndpoint(id, endpoint);
    const isLocal = endpoint !== undefined && endpoint.node === node && endpoint.kind !== "set";
    const before = locals.get(id);
    if (before?.kind === "host" || (isLocal && endpoint.kind === "host")) hostsDirty = true;
    if (before === undefined && !isLocal) return;
    dirtyEndpoints.add(id);
    if (isLocal) {
      locals.set(id, endpoint);
      index.set(id, endpoint.labels, endpoint.profiles);
    } else {
      locals.delete(id);
      index.delete(id);
    }
  }

  function setProfile(name: string, given: Profile | undefined): void {
    const profile = given ?? INITIAL_PROFILES.find((initial) => initial.name === name);
    if (profile === undefined) profiles.delete(name);
    else profiles.set(name, profile);
    compiledProfiles.dirty.add(name);
    sets.setProfile(name, profile?.labels);
    index.setParent(name, profile?.labels);
  }
  for (const { name } of INITIAL_PROFILES) setProfile(name, undefined);

  function setTier(name: string, given: Tier | undefined): void {
    const tier = given ?? INITIAL_TIERS.find((initial) => initial.name === name);
    if (tier === undefined) tiers.delete(name);
    else tiers.set(name, tier);
    for (const id of locals.keys()) dirtyEndpoints.add(id);
  }

  const policiesOf = (id: string): Policy[] =>
    index.matchesOf(id).flatMap((selector) => [...(bySelector.get(selector)?.policies ?? [])]);

  /** The chains of a local endpoint as they should be: for a host endpoint, of each interface that it stands for. */
  function wanted(id: string, hosts: ReadonlyMap<string, Endpoint>): EndpointChains[] {
    const endpoint = locals.get(id);
    if (endpoint === undefined) return [];
    const of = (name: string): Tier => tierOf({ tiers }, name);
    if (endpoint.kind === "workload") {
      return [workloadChains(endpoint, endpoint.interfaceName ?? "", policiesOf(id), of)];
    }
    const names = [...hosts].filter(([, host]) => host.id === id).map(([name]) => name);
    return names.map((name) => hostChains(endpoint, name, policiesOf(id), of));
  }

  function updateEndpoints(): Map<string, EndpointChains | undefined> {
    const changes = new Map<string, EndpointChains | undefined>();
    if (dirtyEndpoints.size === 0 && !hostsDirty) return changes;
    const hosts = hostEndpointsByInterface(
      [...locals.values()].filter(({ kind }) => kind === "host"),
      interfaces,
    );
    // One host endpoint that comes or goes may give or take another's interface.
    if (hostsDirty) for (const { id, kind } of locals.values()) if (kind === "host") dirtyEndpoints.add(id);
    hostsDirty = false;
    for (const id of dirtyEndpoints) {
      const now = new Map(wanted(id, hosts).map((of) => [chainKey(of), of]));
      for (const key of keysOf.get(id) ?? []) {
        if (now.has(key)) continue;
        use(chains.get(key), undefined);
        chains.delete(key);
        changes.set(key, undefined);
      }
      for (const [key, of] of now) {
        const before = chains.get(key);
        if (before !== undefined && JSON.stringify(before) === JSON.stringify(of)) continue;
        use(before, of);
        chains.set(key, of);
        changes.set(key, of);
      }
      if (now.size === 0) keysOf.delete(id);
      else keysOf.set(id, [...now.keys()]);
    }
    dirtyEndpoints.clear();
    return changes;
  }
  /** Counts who asks which policies and profiles. */
  function use(before: EndpointChains | undefined, after: EndpointChains | undefined): void {
    if (after !== undefined) {
      for (const id of policiesIn(after)) compiledPolicies.retain(id);
      for (const name of new Set(after.profiles)) compiledProfiles.retain(name);
    }
    if (before === undefined) return;
    for (const id of policiesIn(before)) compiledPolicies.release(id);
    for (const name of new Set(before.profiles)) compiledProfiles.release(name);
  }

  return {
    update(update) {
      if (update.kind === "endpoint") setEndpoint(update.id, update.value);
      else if (update.kind === "policy") setPolicy(update.id, update.value);
      else if (update.kind === "profile") setProfile(update.id, update.value);
      else if (update.kind === "tier") setTier(update.id, update.value);
      else sets.setSlice(update.id, update.value);
    },
    setInterfaces(list) {
      interfaces = list;
      hostsDirty = true;
    },
    take() {
      const endpoints = updateEndpoints();
      const ofPolicies = compiledPolicies.take();
      const ofProfiles = compiledProfiles.take();
      return { endpoints, policies: ofPolicies, profiles: ofProfiles, sets: sets.take() };
    },
    state: () => ({
      endpoints: chains,
      policies: compiledPolicies.compiled,
      profiles: compiledProfiles.compiled,
      sets: sets.told(),
    }),
    tables: () => ({
      endpoints: chains,
      policies: compiledPolicies.compiled,
      profiles: compiledProfiles.compiled,
      isMember: (set, member) => sets.isMember(set, member),
      setsOf: (endpoint) => sets.setsOf(endpoint),
    }),
    size: () => ({
      endpoints: sets.size().endpoints,
      local: locals.size,
      policies: policies.size,
      active: compiledPolicies.compiled.size,
      sets: sets.size().sets,
      tiers: tiers.size,
      profiles: profiles.size,
    }),
  };
}

/** Denies all: what an endpoint with a profile that does not exist may do. */
function missingProfile(name: string): PolicyRules {
  const deny: Rule = { action: "deny", source: {}, destination: {}, origin: "missing" };
  return { ingress: [deny], egress: [deny], problems: [`there is no profile ${name}: everything is denied`] };
}
