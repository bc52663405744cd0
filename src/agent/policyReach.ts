/** Which parts of the kernel's rules an object of policy lives by: where one of them is refused, it is not in force whole. */
import { policiesIn, type EndpointChains, type TierChain } from "../policy/chains.ts";
import type { CompiledRule, CompiledSide } from "../policy/compileRule.ts";
import { policyId } from "../policy/convertPolicy.ts";
import type { PolicyKind, Update } from "../policy/model.ts";
import type { CompiledPolicy } from "../policy/ruleTable.ts";
import type { KindId } from "../resources/registry.ts";

/** As the compiler has them. */
export interface ReachTables {
  readonly endpoints: ReadonlyMap<string, EndpointChains>;
  readonly policies: ReadonlyMap<string, CompiledPolicy>;
  readonly profiles: ReadonlyMap<string, CompiledPolicy>;
  /** The address sets that hold an endpoint's addresses. */
  setsOf(endpoint: string): readonly string[];
}

/** By what the compiler knows an object. */
export interface PolicyIdentity {
  readonly kind: Exclude<Update["kind"], "slice">;
  readonly id: string;
}

const POLICY_KINDS: Readonly<Partial<Record<KindId, PolicyKind>>> = {
  NetworkPolicy: "knp",
  ClusterNetworkPolicy: "kcnp",
  CalicoNetworkPolicy: "np",
  GlobalNetworkPolicy: "gnp",
  StagedNetworkPolicy: "snp",
  StagedGlobalNetworkPolicy: "sgnp",
  StagedKubernetesNetworkPolicy: "sknp",
};

/** @param object `namespace/name` or `name`. Undefined for kinds that decide nothing. */
export function identityOf(kind: string, object: string): PolicyIdentity | undefined {
  const slash = object.indexOf("/");
  const [namespace, name] = slash < 0 ? [undefined, object] : [object.slice(0, slash), object.slice(slash + 1)];
  const policy = POLICY_KINDS[kind as KindId];
  if (policy !== undefined) return { kind: "policy", id: policyId(policy, name, namespace) };
  switch (kind) {
    case "Tier":
      return { kind: "tier", id: name };
    case "Profile":
      return { kind: "profile", id: name };
    case "Namespace":
      return { kind: "profile", id: `kns.${name}` };
    case "ServiceAccount":
      return { kind: "profile", id: `ksa.${namespace}.${name}` };
    case "HostEndpoint":
      return { kind: "endpoint", id: `hep/${name}` };
    case "NetworkSet":
      return { kind: "endpoint", id: `netset/${namespace}/${name}` };
    case "GlobalNetworkSet":
      return { kind: "endpoint", id: `gnetset/${name}` };
    default:
      return undefined;
  }
}

/** By what the builder calls origin: policies, profiles (`pro/…`) and endpoints, and the tiers whose groups they are in. */
export interface Reach {
  readonly origins: ReadonlySet<string>;
  readonly tiers: ReadonlySet<string>;
}

/** Those in whose chains the object has a part. */
export function reachOf(identity: PolicyIdentity, tables: ReachTables): Reach {
  const origins = new Set(originsOf(identity, tables));
  const tiers = new Set<string>(identity.kind === "tier" ? [identity.id] : []);
  for (const chains of tables.endpoints.values()) {
    for (const { tier, policies } of tiersIn(chains)) if (policies.some((id) => origins.has(id))) tiers.add(tier);
  }
  return { origins, tiers };
}

function originsOf({ kind, id }: PolicyIdentity, tables: ReachTables): string[] {
  switch (kind) {
    case "policy":
      return [id, ...endpointsWith(tables, (chains) => policiesIn(chains).has(id))];
    case "profile":
      return [`pro/${id}`, ...endpointsWith(tables, ({ profiles }) => profiles.includes(id))];
    case "tier": {
      const isIn = (chains: EndpointChains): boolean => tiersIn(chains).some(({ tier }) => tier === id);
      const asked = [...tables.endpoints.values()].flatMap(tiersIn).filter(({ tier }) => tier === id);
      return [...endpointsWith(tables, isIn), ...asked.flatMap(({ policies }) => policies)];
    }
    case "endpoint": {
      const own = [...tables.endpoints.values()].filter((chains) => chains.id === id);
      const asked = own.flatMap((chains) => [
        ...policiesIn(chains),
        ...chains.profiles.map((profile) => `pro/${profile}`),
      ]);
      return [id, ...asked, ...lookingAt(tables, id)];
    }
  }
}

/** Whether a chain of this origin is part of it: also those that are there whatever policy says. */
export function isReached({ origins, tiers }: Reach, origin: string): boolean {
  const group = /^tier ([^:]+): /.exec(origin);
  if (group?.[1] !== undefined) return tiers.has(group[1]);
  return origins.has(origin) || !OF_AN_OBJECT.test(origin);
}

/** The ids of policies, profiles and endpoints; the names of fixed chains and hooks are none. */
const OF_AN_OBJECT = /^(knp|kcnp|np|gnp|snp|sgnp|sknp|pro|wep|hep)\//;

function endpointsWith({ endpoints }: ReachTables, has: (chains: EndpointChains) => boolean): string[] {
  return [...endpoints.values()].filter(has).map(({ id }) => id);
}

function tiersIn(chains: EndpointChains): TierChain[] {
  const stages =
    chains.kind === "host" ? [chains.normal, chains.forward, chains.preDNAT, chains.untracked] : [chains.normal];
  return stages.flatMap(({ ingress, egress }) => [...ingress, ...egress]);
}

/** Policies and profiles with a rule that looks at a set in which the endpoint is. */
function lookingAt(tables: ReachTables, endpoint: string): string[] {
  const { policies, profiles } = tables;
  const sets = new Set(tables.setsOf(endpoint));
  if (sets.size === 0) return [];
  const looks = ({ ingress, egress }: CompiledPolicy): boolean =>
    [...ingress, ...egress].some((rule) => setsIn(rule).some((set) => sets.has(set)));
  return [
    ...[...policies.values()].filter(looks).map(({ id }) => id),
    ...[...profiles.values()].filter(looks).map(({ id }) => `pro/${id}`),
  ];
}

function setsIn({ source, destination }: CompiledRule): string[] {
  return [source, destination].flatMap(({ sets = [], notSets = [], portSets = [], ports, notPorts }: CompiledSide) => [
    ...sets,
    ...notSets,
    ...portSets,
    ...(ports?.sets ?? []),
    ...(notPorts?.sets ?? []),
  ]);
}
