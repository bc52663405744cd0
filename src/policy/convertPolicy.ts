/** Calico's policies, their drafts, tiers and profiles to the model. */
import type { Kinds } from "../resources/registry.ts";
import { BUILT_IN_TIERS } from "../resources/policy.ts";
import type { Selector } from "../resources/selector.ts";
import { convertRules } from "./convertRule.ts";
import type { Direction, Policy, PolicyKind, Profile, Rule, Stage, Tier } from "./model.ts";
import { allOf, anyServiceAccount, inNamespace, namespaces, parsed, serviceAccounts } from "./selectors.ts";

/** Tiers that are there whatever the datastore says. */
export const INITIAL_TIERS: readonly Tier[] = Object.entries(BUILT_IN_TIERS).map(
  ([name, { order, defaultAction }]) => ({
    name,
    order,
    defaultAction: defaultAction === "Pass" ? "pass" : "deny",
  }),
);

const anything = (origin: string): Rule => ({ action: "allow", source: {}, destination: {}, origin });
export const ALLOW_ALL: Pick<Profile, "ingress" | "egress"> = {
  ingress: [anything("ingress[0]")],
  egress: [anything("egress[0]")],
};
/** The profile of automatic host endpoints, and of containers that are no pods. */
export const DEFAULT_ALLOW = "projectcalico-default-allow";
export const INITIAL_PROFILES: readonly Profile[] = [{ name: DEFAULT_ALLOW, labels: {}, ...ALLOW_ALL, problems: [] }];

export function convertTier({ metadata, spec }: Kinds["Tier"]): Tier {
  return {
    name: metadata.name,
    order: spec.order ?? Infinity,
    defaultAction: spec.defaultAction === "Pass" ? "pass" : "deny",
  };
}

export function convertProfile({ metadata, spec }: Kinds["Profile"]): Profile {
  const ingress = convertRules(spec.ingress ?? [], "ingress", undefined);
  const egress = convertRules(spec.egress ?? [], "egress", undefined);
  return {
    name: metadata.name,
    labels: spec.labelsToApply ?? {},
    ingress: ingress.rules,
    egress: egress.rules,
    problems: [...ingress.problems, ...egress.problems],
  };
}

export function policyId(kind: PolicyKind, name: string, namespace?: string): string {
  return namespace === undefined ? `${kind}/${name}` : `${kind}/${namespace}/${name}`;
}

type NamespacedSpec = Kinds["CalicoNetworkPolicy"]["spec"];
type GlobalSpec = Kinds["GlobalNetworkPolicy"]["spec"];

/** What `kind` and `name` say of a policy, before its spec is looked at. */
export function identity(
  kind: PolicyKind,
  { name, namespace }: { name: string; namespace?: string },
): Pick<Policy, "id" | "kind" | "namespace" | "name"> {
  return { id: policyId(kind, name, namespace), kind, ...(namespace === undefined ? {} : { namespace }), name };
}

function convertSpec(
  kind: PolicyKind,
  metadata: { name: string; namespace?: string },
  spec: NamespacedSpec | GlobalSpec,
  selector: Selector | undefined,
): Policy {
  const { namespace } = metadata;
  const ingress = convertRules(spec.ingress ?? [], "ingress", namespace);
  const egress = convertRules(spec.egress ?? [], "egress", namespace);
  return {
    ...identity(kind, metadata),
    tier: spec.tier,
    order: spec.order ?? Infinity,
    selector: selector ?? { op: "all" },
    directions: directionsOf(spec.types),
    ingress: ingress.rules,
    egress: egress.rules,
    stage: stageOf(spec),
    // A namespaced policy can select no host endpoint; Calico counts it as applied on forward all the same.
    applyOnForward: namespace !== undefined || ("applyOnForward" in spec && spec.applyOnForward === true),
    problems: [...ingress.problems, ...egress.problems],
  };
}

export function directionsOf(types: readonly ("Ingress" | "Egress")[]): Direction[] {
  const directions: Direction[] = [];
  if (types.includes("Ingress")) directions.push("ingress");
  if (types.includes("Egress")) directions.push("egress");
  return directions;
}

function stageOf(spec: Partial<GlobalSpec>): Stage {
  if (spec.doNotTrack === true) return "untracked";
  return spec.preDNAT === true ? "preDNAT" : "normal";
}

/** `selector` and `serviceAccountSelector` within the policy's own namespace. */
function namespacedSelector(spec: NamespacedSpec, namespace: string): Selector | undefined {
  const ofAccounts = parsed(spec.serviceAccountSelector);
  return allOf(
    allOf(parsed(spec.selector), inNamespace(namespace)),
    ofAccounts === undefined ? undefined : serviceAccounts(ofAccounts),
  );
}

function globalSelector(spec: GlobalSpec): Selector | undefined {
  const ofNamespaces = parsed(spec.namespaceSelector);
  const ofAccounts = parsed(spec.serviceAccountSelector);
  return allOf(
    allOf(parsed(spec.selector), ofNamespaces === undefined ? undefined : namespaces(ofNamespaces)),
    ofAccounts === undefined ? undefined : anyServiceAccount(ofAccounts),
  );
}

export function convertNetworkPolicy({ metadata, spec }: Kinds["CalicoNetworkPolicy"]): Policy {
  return convertSpec("np", metadata, spec, namespacedSelector(spec, metadata.namespace ?? "default"));
}

export function convertGlobalNetworkPolicy({ metadata, spec }: Kinds["GlobalNetworkPolicy"]): Policy {
  return convertSpec("gnp", metadata, spec, globalSelector(spec));
}

/** A draft with another action than Set and Delete is nobody's business but the user's. */
export function convertStagedNetworkPolicy({ metadata, spec }: Kinds["StagedNetworkPolicy"]): Policy | undefined {
  const draft = draftOf(spec.stagedAction, policyId("np", metadata.name, metadata.namespace));
  if (draft === undefined) return undefined;
  return { ...convertSpec("snp", metadata, spec, namespacedSelector(spec, metadata.namespace ?? "default")), draft };
}

export function convertStagedGlobalNetworkPolicy({
  metadata,
  spec,
}: Kinds["StagedGlobalNetworkPolicy"]): Policy | undefined {
  const draft = draftOf(spec.stagedAction, policyId("gnp", metadata.name));
  return draft === undefined ? undefined : { ...convertSpec("sgnp", metadata, spec, globalSelector(spec)), draft };
}

export function draftOf(action: "Set" | "Delete" | "Learn" | "Ignore", replaces: string): Policy["draft"] {
  if (action === "Set") return { action: "set", replaces };
  return action === "Delete" ? { action: "delete", replaces } : undefined;
}
