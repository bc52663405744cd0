/** From the objects of a datastore to what policy is made of: which update an object means. */
import type { KindId, Kinds } from "../resources/registry.ts";
import {
  hostToEndpoint,
  namespaceToProfile,
  podEndpointId,
  podToEndpoint,
  serviceAccountToProfile,
  setToEndpoint,
  sliceToService,
  workloadToEndpoint,
  type ConvertOptions,
} from "./convertEndpoint.ts";
import { convertClusterPolicy, convertKubernetesPolicy, convertStagedKubernetesPolicy } from "./convertKubernetes.ts";
import {
  convertGlobalNetworkPolicy,
  convertNetworkPolicy,
  convertProfile,
  convertStagedGlobalNetworkPolicy,
  convertStagedNetworkPolicy,
  convertTier,
  policyId,
} from "./convertPolicy.ts";
import type { Policy, Profile, Update } from "./model.ts";

/** An object of a kind that policy looks at. */
export type PolicyObject = {
  readonly [Id in PolicyKindId]: { readonly id: Id; readonly item: Kinds[Id] };
}[PolicyKindId];

const POLICY_KINDS = [
  ...(["Tier", "Profile", "Namespace", "ServiceAccount", "Pod", "WorkloadEndpoint", "HostEndpoint"] as const),
  ...(["NetworkSet", "GlobalNetworkSet", "EndpointSlice", "NetworkPolicy", "ClusterNetworkPolicy"] as const),
  ...(["CalicoNetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"] as const),
  "StagedKubernetesNetworkPolicy",
] as const;
export type PolicyKindId = (typeof POLICY_KINDS)[number];

/** Whether objects of the kind mean anything to policy. */
export function isPolicyKind(id: KindId): id is PolicyKindId {
  return (POLICY_KINDS as readonly string[]).includes(id);
}

const policyUpdate = (value: Policy): Update => ({ kind: "policy", id: value.id, value });
const profileUpdate = (value: Profile): Update => ({ kind: "profile", id: value.name, value });

/** A pod that is not (or no longer) on the network, and a draft with nothing to say, mean that there is none. */
function maybe(update: { kind: Update["kind"]; id: string }, value: Update["value"]): Update {
  return (value === undefined ? update : { ...update, value }) as Update;
}

/** What it means that the object is there, as it is now. */
export function updateOf(object: PolicyObject, options: ConvertOptions): Update {
  switch (object.id) {
    case "Tier":
      return { kind: "tier", id: object.item.metadata.name, value: convertTier(object.item) };
    case "Profile":
      return profileUpdate(convertProfile(object.item));
    case "Namespace":
      return profileUpdate(namespaceToProfile(object.item));
    case "ServiceAccount":
      return profileUpdate(serviceAccountToProfile(object.item));
    case "Pod": {
      const value = podToEndpoint(object.item, options);
      if (value === undefined) return { kind: "endpoint", id: podId(object.item) };
      return { kind: "endpoint", id: value.id, value };
    }
    case "WorkloadEndpoint":
      return endpointUpdate(workloadToEndpoint(object.item));
    case "HostEndpoint":
      return endpointUpdate(hostToEndpoint(object.item));
    case "NetworkSet":
    case "GlobalNetworkSet":
      return endpointUpdate(setToEndpoint(object.item));
    case "EndpointSlice":
      return maybe({ kind: "slice", id: nameOf(object.item) }, sliceToService(object.item));
    case "NetworkPolicy":
      return policyUpdate(convertKubernetesPolicy(object.item));
    case "ClusterNetworkPolicy":
      return policyUpdate(convertClusterPolicy(object.item));
    case "CalicoNetworkPolicy":
      return policyUpdate(convertNetworkPolicy(object.item));
    case "GlobalNetworkPolicy":
      return policyUpdate(convertGlobalNetworkPolicy(object.item));
    case "StagedNetworkPolicy":
      return draft("snp", object.item, convertStagedNetworkPolicy(object.item));
    case "StagedGlobalNetworkPolicy":
      return draft("sgnp", object.item, convertStagedGlobalNetworkPolicy(object.item));
    case "StagedKubernetesNetworkPolicy":
      return draft("sknp", object.item, convertStagedKubernetesPolicy(object.item));
  }
}

/** What it means that the object, last seen so, is gone. */
export function removalOf(object: PolicyObject, options: ConvertOptions): Update {
  const { kind, id } = updateOf(object, options);
  return { kind, id };
}

function endpointUpdate(value: NonNullable<Extract<Update, { kind: "endpoint" }>["value"]>): Update {
  return { kind: "endpoint", id: value.id, value };
}

function draft(
  kind: "snp" | "sgnp" | "sknp",
  { metadata }: Kinds["Pod"] | PolicyObject["item"],
  value?: Policy,
): Update {
  return maybe({ kind: "policy", id: policyId(kind, metadata.name, metadata.namespace) }, value);
}

const podId = ({ metadata, spec }: Kinds["Pod"]): string =>
  podEndpointId(metadata.namespace, metadata.name, spec.nodeName ?? "");

function nameOf({ metadata }: PolicyObject["item"]): string {
  return `${metadata.namespace ?? "default"}/${metadata.name}`;
}
