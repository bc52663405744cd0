/**
 * What policy is made of, whoever wrote it: Kubernetes' and Calico's objects are turned into these values (`convert.ts`),
 * and the evaluator and the compiler know nothing else. All are plain, immutable values.
 */
import type { Address, Family } from "../ip/address.ts";
import { formatPrefix, parsePrefix, prefixContains, type Prefix } from "../ip/prefix.ts";
import type { Labels, Selector } from "../resources/selector.ts";

export type Direction = "ingress" | "egress";
export const DIRECTIONS: readonly Direction[] = ["ingress", "egress"];

export type Action = "allow" | "deny" | "log" | "pass";

/** How the kinds of policy are written in ids, chain names and flow logs. */
export type PolicyKind = "np" | "gnp" | "knp" | "kcnp" | "snp" | "sgnp" | "sknp";

export interface Tier {
  readonly name: string;
  /** Lower comes first; Infinity where the user gave none. */
  readonly order: number;
  readonly defaultAction: "deny" | "pass";
}

/** Where a policy stands on the path of a packet. Only host endpoints have the last two. */
export type Stage = "normal" | "untracked" | "preDNAT";

export interface Policy {
  /** `<kind>/<name>` or `<kind>/<namespace>/<name>`. */
  readonly id: string;
  readonly kind: PolicyKind;
  readonly namespace?: string;
  readonly name: string;
  readonly tier: string;
  /** Lower comes first; Infinity where the user gave none. */
  readonly order: number;
  /** The endpoints that it applies to, namespace and service account included. */
  readonly selector: Selector;
  readonly directions: readonly Direction[];
  readonly ingress: readonly Rule[];
  readonly egress: readonly Rule[];
  readonly stage: Stage;
  /** Also for traffic that a host endpoint forwards. */
  readonly applyOnForward: boolean;
  /** A draft, which decides nothing: what it would do to the policy `replaces`. */
  readonly draft?: { readonly action: "set" | "delete"; readonly replaces: string };
  /** What of the object could not be taken as written, and what was done instead. */
  readonly problems: readonly string[];
}

export interface Rule {
  readonly action: Action;
  readonly family?: Family;
  /** IP protocol numbers. */
  readonly protocol?: number;
  readonly notProtocol?: number;
  readonly icmp?: IcmpMatch;
  /** Holds for every packet that is not this ICMP message, also for those that are no ICMP. */
  readonly notIcmp?: IcmpMatch;
  readonly source: Entity;
  readonly destination: Entity;
  /** Where it stands in the object that the user wrote: `ingress[0]`. */
  readonly origin: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

export interface IcmpMatch {
  readonly type?: number;
  readonly code?: number;
}

/** One side of a packet. All that is given must hold. */
export interface Entity {
  readonly nets?: readonly Prefix[];
  readonly notNets?: readonly Prefix[];
  /** The address belongs to an endpoint that this selects; namespaces and service accounts are already part of it. */
  readonly selector?: Selector;
  /** The address belongs to no endpoint that this selects. */
  readonly notSelector?: Selector;
  readonly ports?: readonly PortMatch[];
  readonly notPorts?: readonly PortMatch[];
  /** `<namespace>/<name>`. In a destination its ports count, in a source only its addresses. */
  readonly service?: string;
}

/** Numbers from `first` to `last`, or what the endpoint that has the address calls so. */
export type PortMatch = PortRange | { readonly name: string };
export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** Rules and labels of the endpoints that name it. */
export interface Profile {
  readonly name: string;
  readonly labels: Labels;
  readonly ingress: readonly Rule[];
  readonly egress: readonly Rule[];
  readonly problems: readonly string[];
}

/** What has labels and addresses. Only workloads and host endpoints are policed; sets are only selected by rules. */
export interface Endpoint {
  /** `wep/<namespace>/<name>`, `hep/<name>`, `netset/<namespace>/<name>`, `gnetset/<name>`. */
  readonly id: string;
  readonly kind: "workload" | "host" | "set";
  readonly namespace?: string;
  /** As people know it: a pod's name rather than that of its endpoint object. */
  readonly name: string;
  readonly node?: string;
  /** A host endpoint's may be `*`, for every interface that is not a workload's, or absent: see `nets`. */
  readonly interfaceName?: string;
  /** Its own labels; those of its profiles come on top, where it does not have the key itself. */
  readonly labels: Labels;
  readonly profiles: readonly string[];
  /** Canonical text: `10.1.2.3`, `10.0.0.0/8`. Networks for sets; for host endpoints the expected addresses. */
  readonly nets: readonly string[];
  readonly ports: readonly NamedPort[];
  /** What only the node of a workload needs to know. */
  readonly local?: {
    readonly floatingIPs: readonly { readonly internal: string; readonly external: string }[];
    readonly allowedSourcePrefixes: readonly string[];
  };
  readonly problems?: readonly string[];
}

export interface NamedPort {
  readonly name: string;
  readonly protocol: number;
  readonly port: number;
}

/** The part of a service that one EndpointSlice holds. */
export interface ServiceSlice {
  /** `<namespace>/<name of the slice>`. */
  readonly id: string;
  /** `<namespace>/<name of the service>`. */
  readonly service: string;
  readonly addresses: readonly string[];
  readonly ports: readonly { readonly protocol: number; readonly port: number }[];
}

/** An interface of a node that is not a workload's. */
export interface HostInterface {
  readonly name: string;
  readonly addresses: readonly string[];
}

/** One object came, changed (`value`) or went (no `value`). */
export type Update =
  | { readonly kind: "tier"; readonly id: string; readonly value?: Tier }
  | { readonly kind: "policy"; readonly id: string; readonly value?: Policy }
  | { readonly kind: "profile"; readonly id: string; readonly value?: Profile }
  | { readonly kind: "endpoint"; readonly id: string; readonly value?: Endpoint }
  | { readonly kind: "slice"; readonly id: string; readonly value?: ServiceSlice };

export const PROTOCOL = { ICMP: 1, TCP: 6, UDP: 17, ICMPv6: 58, SCTP: 132, UDPLite: 136 } as const;

const PROTOCOL_NAMES = new Map<number, string>(Object.entries(PROTOCOL).map(([name, number]) => [number, name]));

/** `TCP`, or the number of a protocol without a name here. */
export function protocolName(protocol: number): string {
  return PROTOCOL_NAMES.get(protocol) ?? String(protocol);
}

export function hasPorts(protocol: number | undefined): boolean {
  return protocol === PROTOCOL.TCP || protocol === PROTOCOL.UDP || protocol === PROTOCOL.SCTP;
}

/** The protocol number of the family's own ICMP. */
export function icmpOf(family: Family): number {
  return family === 4 ? PROTOCOL.ICMP : PROTOCOL.ICMPv6;
}

/** The canonical text of a network in `Endpoint.nets` and address sets: a network of one stands as its address. */
export function netText(cidr: string): string {
  return cidr.endsWith(cidr.includes(":") ? "/128" : "/32") ? cidr.slice(0, cidr.indexOf("/")) : cidr;
}

/** IANA: IPv4 within IP (RFC 2003). */
export const IPIP = 4;

/** Types of ICMPv6: multicast listeners (RFC 2710) and neighbour discovery (RFC 4861). IPv6 does not work without. */
export const NEIGHBOUR_DISCOVERY = [130, 131, 132, 133, 134, 135, 136] as const;
/**
 * What Linux reports listeners with (MLDv2, RFC 3810), without which switches that snoop pass no neighbour solicitation
 * on. Host endpoints never hold it back.
 */
export const LISTENER_REPORT_V2 = 143;

/** Whether one of the networks is of the family. */
export function hasFamily(nets: readonly string[], family: Family): boolean {
  return nets.some((net) => familyOfNet(net) === family);
}

/** The family of such a text. */
export function familyOfNet(text: string): Family {
  return text.includes(":") ? 6 : 4;
}

/** Reads such a text. Throws `AddressError`. */
export function parseNet(text: string): Prefix {
  if (text.includes("/")) return parsePrefix(text);
  return parsePrefix(`${text}/${text.includes(":") ? 128 : 32}`);
}

export function formatNet(prefix: Prefix): string {
  return netText(formatPrefix(prefix));
}

export function anyContains(nets: readonly Prefix[], address: Address): boolean {
  return nets.some((net) => prefixContains(net, address));
}

/** Tiers by order, then name. */
export function compareTiers(a: Tier, b: Tier): number {
  return compareNumbers(a.order, b.order) || compareText(a.name, b.name);
}

const KIND_NAMES: Readonly<Record<PolicyKind, string>> = {
  np: "NetworkPolicy",
  gnp: "GlobalNetworkPolicy",
  knp: "KubernetesNetworkPolicy",
  kcnp: "KubernetesClusterNetworkPolicy",
  snp: "StagedNetworkPolicy",
  sgnp: "StagedGlobalNetworkPolicy",
  sknp: "StagedKubernetesNetworkPolicy",
};

/** Policies of one tier by order, then name, namespace and kind, as Calico breaks ties. */
export function sortPolicies(policies: readonly Policy[]): Policy[] {
  return policies
    .map((policy) => ({ policy, text: tieText(policy) }))
    .sort((a, b) => compareNumbers(a.policy.order, b.policy.order) || compareText(a.text, b.text))
    .map(({ policy }) => policy);
}

function tieText({ name, namespace, kind }: Policy): string {
  return `${name}/${namespace ?? ""}/${KIND_NAMES[kind]}`;
}

// Infinity minus itself is not a number, so orders cannot be subtracted.
function compareNumbers(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
}

function compareText(a: string, b: string): number {
  return a === b ? 0 : a < b ? -1 : 1;
}
