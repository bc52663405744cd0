/**
 * Objects that break the rules of their kind, as an API server may hand out that checks less than we do, or knows more. To
 * go on as if they were not there would let everything through that a policy denies; so what cannot be read of them is
 * replaced by what lets nothing through, and says so where it is carried out.
 */
import type { KindInfo } from "./kind.ts";
import { KIND, type KindId, type Kinds } from "./registry.ts";
import { InvalidResource, isObject, type Fault } from "./schema.ts";

type Fields = Record<string, unknown>;

/** In a rule, or a spec, of which something could not be read: what that was. */
const UNREADABLE = "caracal.dev/unreadable";

/** Why the rule or spec is not what somebody wrote; undefined where it is. */
export function unreadableIn(value: object): string | undefined {
  const why: unknown = UNREADABLE in value ? value[UNREADABLE] : undefined;
  return typeof why === "string" ? why : undefined;
}

/**
 * As the kind's `parse`, with unknown fields kept, for objects that nobody can be told to write otherwise. Throws
 * `InvalidResource` where nothing useful can be made of it.
 *
 * @param onFaults is told what of the object was replaced
 */
export function readAsFarAsPossible<K extends KindId>(
  kind: K,
  input: unknown,
  onFaults: (error: InvalidResource) => void,
): Kinds[K] {
  const info: KindInfo = KIND[kind];
  try {
    return info.parse(input, { keepUnknown: true }) as Kinds[K];
  } catch (thrown) {
    const mend = MENDERS[kind];
    if (!(thrown instanceof InvalidResource) || mend === undefined || !isObject(input)) throw thrown;
    const mended = info.parse(mend(input, thrown.faults), { keepUnknown: true }) as Kinds[K];
    onFaults(thrown);
    return mended;
  }
}

type Mender = (input: Fields, faults: readonly Fault[]) => Fields;

const specOf = (input: Fields): Fields => (isObject(input["spec"]) ? input["spec"] : {});
const reasonOf = (faults: readonly Fault[]): string =>
  faults.map(({ path, reason }) => `${path}: ${reason}`).join("; ");
const isFaulty = (faults: readonly Fault[], path: string): boolean =>
  faults.some((fault) => fault.path === path || fault.path.startsWith(`${path}.`) || fault.path.startsWith(`${path}[`));

/** What a policy needs: labels and annotations that cannot be read are nobody's loss. */
function bareMetadata({ metadata }: Fields): Fields {
  const { labels: _, annotations: __, ...rest } = isObject(metadata) ? metadata : {};
  return rest;
}

/** `spec.ingress[2].source`: the rule's direction and number. */
const OF_RULE = /^spec\.(ingress|egress)\[(\d+)\]/;

/** Where only rules are at fault these are replaced; else the policy denies all that it selects, as far as that is known. */
function policyMender(replaceRule: (rule: unknown, why: string, direction: string) => Fields, denyAll: Mender): Mender {
  return (input, faults) => {
    const metadata = bareMetadata(input);
    const ofRules = Map.groupBy(
      faults.filter(({ path }) => !path.startsWith("metadata.")),
      ({ path }) => OF_RULE.exec(path)?.[0] ?? "",
    );
    if (ofRules.has("")) return { ...input, metadata, spec: denyAll(specOf(input), faults) };
    const spec = { ...specOf(input) };
    for (const direction of ["ingress", "egress"] as const) {
      const rules = spec[direction];
      if (!Array.isArray(rules)) continue;
      spec[direction] = rules.map((rule: unknown, at) => {
        const own = ofRules.get(`spec.${direction}[${at}]`);
        return own === undefined ? rule : replaceRule(rule, reasonOf(own), direction);
      });
    }
    return { ...input, metadata, spec };
  };
}

/** The fields of the spec that can be read, of those named. */
function readable(spec: Fields, faults: readonly Fault[], ...names: readonly string[]): Fields {
  const found = names.filter((name) => spec[name] !== undefined && !isFaulty(faults, `spec.${name}`));
  return Object.fromEntries(found.map((name) => [name, spec[name]]));
}

const kubernetesRule = (why: string): Fields => ({ [UNREADABLE]: why });

/** It can only allow: what is left out of it is not allowed. */
const kubernetesPolicy = policyMender(
  (_, why) => kubernetesRule(why),
  (spec, faults) => ({
    podSelector: {},
    policyTypes: ["Ingress", "Egress"],
    ...readable(spec, faults, "podSelector", "policyTypes"),
    ingress: [kubernetesRule(reasonOf(faults))],
  }),
);

function actionOf(rule: unknown, actions: readonly string[]): string {
  const action: unknown = isObject(rule) ? rule["action"] : undefined;
  return typeof action === "string" && actions.includes(action) ? action : "Deny";
}

const CALICO_ACTIONS = ["Allow", "Deny", "Log", "Pass"];
const calicoRule = (rule: unknown, why: string): Fields => ({
  action: actionOf(rule, CALICO_ACTIONS),
  [UNREADABLE]: why,
});

/** @param everything the selector where the policy's own cannot be read */
const calicoPolicy = (everything: string): Mender =>
  policyMender(calicoRule, (spec, faults) => {
    const deny = [calicoRule({}, reasonOf(faults))];
    const known = readable(spec, faults, "tier", "order", "types", "serviceAccountSelector", "namespaceSelector");
    if (isFaulty(faults, "spec.tier")) delete known["order"];
    const stage = readable(spec, faults, "doNotTrack", "preDNAT", "applyOnForward");
    const isStageKnown = ["doNotTrack", "preDNAT", "applyOnForward"].every((name) => !isFaulty(faults, `spec.${name}`));
    const selects = isFaulty(faults, "spec.selector") ? { selector: everything } : readable(spec, faults, "selector");
    const isIngressOnly = isStageKnown && stage["preDNAT"] === true;
    const types = isIngressOnly ? { types: ["Ingress"] } : {};
    return {
      // Nothing must come before it that it might have come before.
      ...(isFaulty(faults, "spec.tier") ? { tier: "kube-admin" } : {}),
      ...(isFaulty(faults, "spec.order") || isFaulty(faults, "spec.tier") ? { order: -Number.MAX_VALUE } : {}),
      ...known,
      ...selects,
      ...(isStageKnown ? stage : {}),
      ...types,
      ingress: deny,
      ...(isIngressOnly ? {} : { egress: deny }),
    };
  });

const CLUSTER_ACTIONS = ["Accept", "Deny", "Pass"];
const clusterRule = (rule: unknown, why: string, direction: string): Fields => ({
  action: actionOf(rule, CLUSTER_ACTIONS),
  [direction === "ingress" ? "from" : "to"]: [{ namespaces: {} }],
  [UNREADABLE]: why,
});

const clusterPolicy = policyMender(clusterRule, (spec, faults) => ({
  tier: "Admin",
  priority: 0,
  subject: { namespaces: {} },
  ...readable(spec, faults, "tier", "priority", "subject"),
  ingress: [clusterRule({}, reasonOf(faults), "ingress")],
  egress: [clusterRule({}, reasonOf(faults), "egress")],
}));

/** The networks that can be read. */
const networkSet: Mender = (input, faults) => {
  const spec = specOf(input);
  const { nets } = spec;
  const rest = Array.isArray(nets) ? nets.filter((_, at) => !isFaulty(faults, `spec.nets[${at}]`)) : [];
  return { ...input, spec: { ...spec, nets: rest, [UNREADABLE]: reasonOf(faults) } };
};

/** Without profiles and ports that cannot be read it lets less through. */
const hostEndpoint: Mender = (input, faults) => {
  const spec = specOf(input);
  return { ...input, spec: { ...readable(spec, faults, ...Object.keys(spec)), [UNREADABLE]: reasonOf(faults) } };
};

/** The settings that can be read. */
const felixConfiguration: Mender = (input, faults) => {
  const spec = specOf(input);
  return { ...input, spec: readable(spec, faults, ...Object.keys(spec)) };
};

/** A workload is whatever runs in a namespace or as a container: the host itself stays within reach. */
const ALL_WORKLOADS = "has(projectcalico.org/orchestrator)";

/** Of other kinds an object that cannot be read lets nothing through as it is, by not being there. */
const MENDERS: Partial<Record<KindId, Mender>> = {
  NetworkPolicy: kubernetesPolicy,
  CalicoNetworkPolicy: calicoPolicy("all()"),
  GlobalNetworkPolicy: calicoPolicy(ALL_WORKLOADS),
  ClusterNetworkPolicy: clusterPolicy,
  NetworkSet: networkSet,
  GlobalNetworkSet: networkSet,
  HostEndpoint: hostEndpoint,
  FelixConfiguration: felixConfiguration,
};
