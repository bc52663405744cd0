/** Calico's policies, the tiers that order them, and the drafts (Staged) of them. */
import { CALICO, defineKind, type ItemOf } from "./define.ts";
import { selector } from "./fields.ts";
import { labelName } from "./names.ts";
import { networkPolicyFields, policyTypesOf } from "./networkPolicy.ts";
import { egressRules, ingressRules } from "./rule.ts";
import {
  anything,
  arrayOf,
  boolean,
  derive,
  number,
  object,
  oneOf,
  optional,
  refine,
  text,
  withDefault,
  type Check,
  type Infer,
} from "./schema.ts";

export const DEFAULT_TIER = "default";

/** Tiers that exist in every cluster; their order cannot be changed. */
export const BUILT_IN_TIERS: Readonly<
  Record<string, { readonly order: number; readonly defaultAction: "Deny" | "Pass" }>
> = {
  "kube-admin": { order: 1000, defaultAction: "Pass" },
  default: { order: 1_000_000, defaultAction: "Deny" },
  "kube-baseline": { order: 10_000_000, defaultAction: "Pass" },
};

const direction = oneOf("Ingress", "Egress");
export type Direction = Infer<typeof direction>;

const tierName = text("the name of a tier", labelName);

const common = {
  tier: withDefault(tierName, DEFAULT_TIER),
  /** Lower comes first; absent comes last. */
  order: optional(number),
  ingress: optional(ingressRules),
  egress: optional(egressRules),
  selector: withDefault(selector, "all()"),
  types: withDefault(arrayOf(direction), []),
  serviceAccountSelector: optional(selector),
  performanceHints: optional(arrayOf(oneOf("AssumeNeededOnEveryNode"))),
};
const namespacedFields = object(common);
const globalFields = object({
  ...common,
  namespaceSelector: optional(selector),
  /** Before connection tracking, on host endpoints. */
  doNotTrack: optional(boolean),
  /** Before destination NAT, on host endpoints. */
  preDNAT: optional(boolean),
  /** Also to traffic that the host forwards. */
  applyOnForward: optional(boolean),
});

interface Directed {
  ingress?: readonly unknown[];
  egress?: readonly unknown[];
  types: Direction[];
}

/** The directions that a policy governs: where it does not say, those of its rules, and Ingress where it has none. */
function typesOf({ types, ingress = [], egress = [] }: Directed): Direction[] {
  if (types.length > 0) return types;
  if (egress.length === 0) return ["Ingress"];
  return ingress.length === 0 ? ["Egress"] : ["Ingress", "Egress"];
}

const checkTypes: Check<Directed> = ({ types }, fault) => {
  for (const [i, type] of types.entries())
    if (types.indexOf(type) < i) fault(`${type} stands there twice`, `types[${i}]`);
};

const checkGlobal: Check<Infer<typeof globalFields>> = (spec, fault) => {
  checkTypes(spec, fault);
  if (spec.doNotTrack === true && spec.preDNAT === true) fault("cannot be true, because doNotTrack is", "preDNAT");
  if (spec.preDNAT === true) {
    if ((spec.egress ?? []).length > 0) fault("must be absent, because preDNAT is true", "egress");
    if (spec.types.includes("Egress")) fault("cannot hold Egress, because preDNAT is true", "types");
  }
  for (const field of ["doNotTrack", "preDNAT"] as const) {
    if (spec[field] === true && spec.applyOnForward !== true)
      fault(`must be true, because ${field} is`, "applyOnForward");
  }
  // A service has no namespace to default to where the policy has none.
  for (const [list, side] of [
    ["ingress", "source"],
    ["egress", "destination"],
  ] as const) {
    for (const [i, rule] of (spec[list] ?? []).entries()) {
      const { services } = rule[side];
      if (services !== undefined && services.namespace === undefined) {
        fault("is required in a policy without a namespace", `${list}[${i}].${side}.services.namespace`);
      }
    }
  }
};

const columns = [
  { heading: "TIER", text: ({ spec }: { spec: { tier: string } }) => spec.tier },
  { heading: "ORDER", text: ({ spec }: { spec: { order?: number } }) => String(spec.order ?? "") },
  { heading: "SELECTOR", text: ({ spec }: { spec: { selector: string } }) => spec.selector },
];

/** Policy for the workloads of one namespace. */
export const calicoNetworkPolicy = defineKind({
  kind: "NetworkPolicy",
  id: "CalicoNetworkPolicy",
  group: CALICO,
  version: "v3",
  plural: "networkpolicies",
  shortNames: ["np", "policy", "policies", "pol", "caliconetworkpolicy", "caliconetworkpolicies"],
  namespaced: true,
  fields: { spec: derive(refine(namespacedFields, checkTypes), (spec) => ({ ...spec, types: typesOf(spec) })) },
  columns,
});
export type CalicoNetworkPolicy = ItemOf<typeof calicoNetworkPolicy>;

/** Policy for workloads of all namespaces, and for host endpoints. */
export const globalNetworkPolicy = defineKind({
  kind: "GlobalNetworkPolicy",
  group: CALICO,
  version: "v3",
  plural: "globalnetworkpolicies",
  shortNames: ["gnp", "cgnp"],
  fields: { spec: derive(refine(globalFields, checkGlobal), (spec) => ({ ...spec, types: typesOf(spec) })) },
  columns,
});
export type GlobalNetworkPolicy = ItemOf<typeof globalNetworkPolicy>;

/** Set: the policy would be so; Delete: it would not exist. Learn and Ignore are not looked at. */
const stagedAction = oneOf("Set", "Delete", "Learn", "Ignore");

/** A draft that deletes names its policy (and tier) and nothing else. */
function checkStaged<Spec extends Directed & { stagedAction: Infer<typeof stagedAction>; selector: string }>(
  check: Check<Spec>,
): Check<Spec> {
  return (spec, fault) => {
    if (spec.stagedAction !== "Delete") return check(spec, fault);
    for (const [field, value] of Object.entries(spec)) {
      if (field === "stagedAction" || field === "tier") continue;
      if (field === "types" && spec.types.length === 0) continue;
      if (field === "selector" && value === "all()") continue;
      fault("must be absent, because stagedAction is Delete", field);
    }
  };
}

const stagedTypes = <Spec extends Directed & { stagedAction: string }>(spec: Spec): Spec =>
  spec.stagedAction === "Delete" ? spec : { ...spec, types: typesOf(spec) };

const stagedFields = object({ stagedAction: withDefault(stagedAction, "Set"), ...common });
const stagedGlobalFields = object({
  stagedAction: withDefault(stagedAction, "Set"),
  ...common,
  namespaceSelector: optional(selector),
  doNotTrack: optional(boolean),
  preDNAT: optional(boolean),
  applyOnForward: optional(boolean),
});

export const stagedNetworkPolicy = defineKind({
  kind: "StagedNetworkPolicy",
  group: CALICO,
  version: "v3",
  plural: "stagednetworkpolicies",
  shortNames: ["snp"],
  namespaced: true,
  fields: { spec: derive(refine(stagedFields, checkStaged(checkTypes)), stagedTypes) },
  columns,
});
export type StagedNetworkPolicy = ItemOf<typeof stagedNetworkPolicy>;

export const stagedGlobalNetworkPolicy = defineKind({
  kind: "StagedGlobalNetworkPolicy",
  group: CALICO,
  version: "v3",
  plural: "stagedglobalnetworkpolicies",
  shortNames: ["sgnp"],
  fields: {
    spec: derive(refine(stagedGlobalFields, checkStaged<Infer<typeof stagedGlobalFields>>(checkGlobal)), stagedTypes),
  },
  columns,
});
export type StagedGlobalNetworkPolicy = ItemOf<typeof stagedGlobalNetworkPolicy>;

const stagedKubernetesFields = object({ stagedAction: withDefault(stagedAction, "Set"), ...networkPolicyFields });

const checkStagedKubernetes: Check<Infer<typeof stagedKubernetesFields>> = (spec, fault) => {
  if (spec.stagedAction !== "Delete") return;
  for (const field of ["ingress", "egress"] as const) {
    if (spec[field] !== undefined) fault("must be absent, because stagedAction is Delete", field);
  }
};

/** A draft of a Kubernetes NetworkPolicy. */
export const stagedKubernetesNetworkPolicy = defineKind({
  kind: "StagedKubernetesNetworkPolicy",
  group: CALICO,
  version: "v3",
  plural: "stagedkubernetesnetworkpolicies",
  shortNames: ["sknp"],
  namespaced: true,
  fields: {
    spec: derive(refine(stagedKubernetesFields, checkStagedKubernetes), (spec) =>
      spec.stagedAction === "Delete" ? spec : { ...spec, policyTypes: policyTypesOf(spec) },
    ),
  },
});
export type StagedKubernetesNetworkPolicy = ItemOf<typeof stagedKubernetesNetworkPolicy>;

/** A group of policies that is asked, whole, before the next one. */
export const tier = defineKind({
  kind: "Tier",
  group: CALICO,
  version: "v3",
  plural: "tiers",
  status: true,
  checkName: labelName,
  fields: {
    spec: withDefault(
      object({
        order: optional(number),
        /** For what the tier's policies select and none of them decides. */
        defaultAction: withDefault(oneOf("Deny", "Pass"), "Deny"),
      }),
      { defaultAction: "Deny" },
    ),
    status: optional(object({ conditions: optional(arrayOf(anything)) })),
  },
  check({ metadata, spec }, fault) {
    const builtIn = BUILT_IN_TIERS[metadata.name];
    if (builtIn !== undefined && spec.order !== builtIn.order) {
      fault(`must be ${builtIn.order} for the tier ${metadata.name}`, "spec.order");
    }
  },
  columns: [
    { heading: "ORDER", text: ({ spec }) => String(spec.order ?? "") },
    { heading: "DEFAULTACTION", text: ({ spec }) => spec.defaultAction },
  ],
});
export type Tier = ItemOf<typeof tier>;
