import type { Endpoint, PodLink, PodRoute, PodSettings } from "../dataplane/endpoint.ts";
import type { Address } from "../ip/address.ts";
import type { CniRequest } from "./request.ts";

/** What the plugin's commands ask of the node that they run on. The agent plugs it together; tests have a small one. */
export interface CniNode {
  readonly addresses: AddressSource;
  readonly interfaces: PodInterfaces;
  readonly endpoints: EndpointRegister;
  /** Why this node cannot set up a pod now; undefined when it can. */
  notReady(): string | undefined;
  /** The MTU of pods, unless the configuration says another. Bytes. */
  podMtu(): number;
  /** The Kubernetes objects behind a pod (that of this uid, if it is known); undefined where there is no such pod. */
  podFacts(namespace: string, pod: string, uid: string | undefined): Promise<PodFacts | undefined>;
  /** Six random bytes for a MAC. */
  randomMac(): string;
}

export interface PodFacts {
  readonly uid: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly namespaceName: string;
  readonly namespaceLabels: Readonly<Record<string, string>>;
  readonly namespaceAnnotations: Readonly<Record<string, string>>;
}

/** Where addresses come from: Caracal's IPAM, or an IPAM plugin that the configuration names. */
export interface AddressSource {
  assign(request: CniRequest, pod: PodFacts | undefined): Promise<Assigned>;
  /** Gives back all that the container holds. Nothing held is no error. */
  release(request: CniRequest): Promise<void>;
  /**
   * Gives back what containers of the network hold here, except for the living ones. These may be of other networks too,
   * since names of networks and containers alike have dots. Returns how many addresses.
   */
  releaseOthers(network: string, living: readonly AddressHolder[]): Promise<number>;
}

/** In whose name addresses are held: the two halves of an IPAM handle. */
export interface AddressHolder {
  readonly network: string;
  readonly containerId: string;
}

export interface Assigned {
  readonly addresses: readonly Address[];
  /** Routes for the pod in the place of its default route. */
  readonly routes: readonly PodRoute[];
}

/** Interfaces and routes in the kernel. What gives a promise rejects where it fails; it does not throw. */
export interface PodInterfaces {
  /** Makes the veth pair, the pod's end born in its namespace. What is there under the host's name goes first. */
  createLink(link: PodLink): Promise<void>;
  /** Gives the pod its addresses, routes and settings, and the node its routes to the pod. */
  configure(endpoint: Endpoint, settings: PodSettings): void;
  /** Resolves when the pair carries nothing any more and its routes are gone. An interface that is gone is no error. */
  removeLink(hostInterface: string): Promise<void>;
  /** What is not as `configure` left it, one sentence each. */
  differences(endpoint: Endpoint): string[];
}

/** Which endpoints this node has: kept on disk, so that a new agent knows them. */
export interface EndpointRegister {
  find(containerId: string, podInterface: string): Endpoint | undefined;
  findByHostInterface(hostInterface: string): Endpoint | undefined;
  list(): Endpoint[];
  /**
   * An endpoint will be added that has no addresses yet: what can be done before they are known is begun. Undone by
   * `remove`. Never rejects: `add` says what is wrong.
   */
  prepare(endpoint: Endpoint): Promise<void>;
  /** Resolves when it is kept, and the endpoint's policy is in the kernel. */
  add(endpoint: Endpoint): Promise<void>;
  remove(endpoint: Endpoint): Promise<void>;
}
