/** The table of all kinds, and how to find one by what an object or a person calls it. */
import {
  bgpConfiguration,
  bgpPeer,
  calicoNodeStatus,
  type BGPConfiguration,
  type BGPPeer,
  type CalicoNodeStatus,
} from "./bgp.ts";
import { bgpFilter, type BGPFilter } from "./bgpFilter.ts";
import {
  felixConfiguration,
  kubeControllersConfiguration,
  clusterInformation,
  type FelixConfiguration,
  type KubeControllersConfiguration,
  type ClusterInformation,
} from "./config.ts";
import { hostEndpoint, profile, type HostEndpoint, type Profile } from "./hostEndpoint.ts";
import {
  ipReservation,
  ipamConfiguration,
  ipamBlock,
  blockAffinity,
  ipamHandle,
  type IPReservation,
  type IPAMConfiguration,
  type IPAMBlock,
  type BlockAffinity,
  type IPAMHandle,
} from "./ipam.ts";
import { ipPool, type IPPool } from "./ippool.ts";
import { networkPolicy, clusterNetworkPolicy, type NetworkPolicy, type ClusterNetworkPolicy } from "./networkPolicy.ts";
import { networkSet, globalNetworkSet, type NetworkSet, type GlobalNetworkSet } from "./networkSet.ts";
import { node, type Node } from "./node.ts";
import {
  calicoNetworkPolicy,
  globalNetworkPolicy,
  stagedNetworkPolicy,
  stagedGlobalNetworkPolicy,
  stagedKubernetesNetworkPolicy,
  tier,
  type CalicoNetworkPolicy,
  type GlobalNetworkPolicy,
  type StagedNetworkPolicy,
  type StagedGlobalNetworkPolicy,
  type StagedKubernetesNetworkPolicy,
  type Tier,
} from "./policy.ts";
import {
  namespace,
  serviceAccount,
  service,
  endpointSlice,
  type Namespace,
  type ServiceAccount,
  type Service,
  type EndpointSlice,
} from "./service.ts";
import { secret, type Secret } from "./secret.ts";
import { pod, workloadEndpoint, type Pod, type WorkloadEndpoint } from "./workload.ts";
import { CALICO, CALICO_CRD } from "./define.ts";
import type { KindInfo } from "./kind.ts";

/** The objects of every kind that we know, by the kind's unique name: Kubernetes' own first. */
export interface Kinds {
  Pod: Pod;
  Node: Node;
  Namespace: Namespace;
  ServiceAccount: ServiceAccount;
  Service: Service;
  EndpointSlice: EndpointSlice;
  Secret: Secret;
  NetworkPolicy: NetworkPolicy;
  ClusterNetworkPolicy: ClusterNetworkPolicy;
  IPPool: IPPool;
  IPReservation: IPReservation;
  IPAMConfiguration: IPAMConfiguration;
  IPAMBlock: IPAMBlock;
  BlockAffinity: BlockAffinity;
  IPAMHandle: IPAMHandle;
  BGPConfiguration: BGPConfiguration;
  BGPPeer: BGPPeer;
  BGPFilter: BGPFilter;
  CalicoNodeStatus: CalicoNodeStatus;
  CalicoNetworkPolicy: CalicoNetworkPolicy;
  GlobalNetworkPolicy: GlobalNetworkPolicy;
  StagedNetworkPolicy: StagedNetworkPolicy;
  StagedGlobalNetworkPolicy: StagedGlobalNetworkPolicy;
  StagedKubernetesNetworkPolicy: StagedKubernetesNetworkPolicy;
  Tier: Tier;
  NetworkSet: NetworkSet;
  GlobalNetworkSet: GlobalNetworkSet;
  HostEndpoint: HostEndpoint;
  Profile: Profile;
  WorkloadEndpoint: WorkloadEndpoint;
  FelixConfiguration: FelixConfiguration;
  KubeControllersConfiguration: KubeControllersConfiguration;
  ClusterInformation: ClusterInformation;
}

export type KindId = keyof Kinds;

/** The row of every kind. */
export const KIND: { readonly [Id in KindId]: KindInfo<Kinds[Id]> & { readonly id: Id } } = {
  Pod: { ...pod, id: "Pod" },
  Node: { ...node, id: "Node" },
  Namespace: { ...namespace, id: "Namespace" },
  ServiceAccount: { ...serviceAccount, id: "ServiceAccount" },
  Service: { ...service, id: "Service" },
  EndpointSlice: { ...endpointSlice, id: "EndpointSlice" },
  Secret: { ...secret, id: "Secret" },
  NetworkPolicy: { ...networkPolicy, id: "NetworkPolicy" },
  ClusterNetworkPolicy: { ...clusterNetworkPolicy, id: "ClusterNetworkPolicy" },
  IPPool: { ...ipPool, id: "IPPool" },
  IPReservation: { ...ipReservation, id: "IPReservation" },
  IPAMConfiguration: { ...ipamConfiguration, id: "IPAMConfiguration" },
  IPAMBlock: { ...ipamBlock, id: "IPAMBlock" },
  BlockAffinity: { ...blockAffinity, id: "BlockAffinity" },
  IPAMHandle: { ...ipamHandle, id: "IPAMHandle" },
  BGPConfiguration: { ...bgpConfiguration, id: "BGPConfiguration" },
  BGPPeer: { ...bgpPeer, id: "BGPPeer" },
  BGPFilter: { ...bgpFilter, id: "BGPFilter" },
  CalicoNodeStatus: { ...calicoNodeStatus, id: "CalicoNodeStatus" },
  CalicoNetworkPolicy: { ...calicoNetworkPolicy, id: "CalicoNetworkPolicy" },
  GlobalNetworkPolicy: { ...globalNetworkPolicy, id: "GlobalNetworkPolicy" },
  StagedNetworkPolicy: { ...stagedNetworkPolicy, id: "StagedNetworkPolicy" },
  StagedGlobalNetworkPolicy: { ...stagedGlobalNetworkPolicy, id: "StagedGlobalNetworkPolicy" },
  StagedKubernetesNetworkPolicy: { ...stagedKubernetesNetworkPolicy, id: "StagedKubernetesNetworkPolicy" },
  Tier: { ...tier, id: "Tier" },
  NetworkSet: { ...networkSet, id: "NetworkSet" },
  GlobalNetworkSet: { ...globalNetworkSet, id: "GlobalNetworkSet" },
  HostEndpoint: { ...hostEndpoint, id: "HostEndpoint" },
  Profile: { ...profile, id: "Profile" },
  WorkloadEndpoint: { ...workloadEndpoint, id: "WorkloadEndpoint" },
  FelixConfiguration: { ...felixConfiguration, id: "FelixConfiguration" },
  KubeControllersConfiguration: { ...kubeControllersConfiguration, id: "KubeControllersConfiguration" },
  ClusterInformation: { ...clusterInformation, id: "ClusterInformation" },
};

export const KINDS: readonly KindInfo[] = Object.values(KIND);

const ids = Object.keys(KIND) as KindId[];

const byApiVersion = new Map<string, KindId>();
const byWord = new Map<string, KindId>();
for (const id of ids) {
  const { group, version, kind, plural, singular, shortNames } = KIND[id];
  byApiVersion.set(`${group === "" ? version : `${group}/${version}`} ${kind}`, id);
  if (group === CALICO) byApiVersion.set(`${CALICO_CRD} ${kind}`, id);
  // Where two kinds share a word, the first in the table has it; with its group each has its own.
  for (const word of [plural, singular, ...shortNames]) {
    if (!byWord.has(word)) byWord.set(word, id);
    if (group !== "") byWord.set(`${word}.${group}`, id);
    if (group !== "") byWord.set(`${word}.${version}.${group}`, id);
  }
}

// The one kind that Calico's own CRDs call by another name.
byApiVersion.set(`${CALICO_CRD} IPAMConfig`, "IPAMConfiguration");

/** The kind of an object, as the object names it. */
export function kindOf(apiVersion: string, kind: string): KindId | undefined {
  return byApiVersion.get(`${apiVersion} ${kind}`);
}

/** The kind that a person means: `pods`, `po`, `IPPool`, `networkpolicies.projectcalico.org`. */
export function kindNamed(word: string): KindId | undefined {
  return byWord.get(word.toLowerCase());
}

/** Every word that `kindNamed` knows, for suggestions. */
export function kindWords(): string[] {
  return [...byWord.keys()];
}
