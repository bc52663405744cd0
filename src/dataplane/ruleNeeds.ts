/**
 * What asks for the chains that all packets of a node pass. A hook costs each packet something, also those of connections
 * that were decided about long ago: so a chain is there only while something needs it, and comes and goes in one change
 * with that. `docs/decisions.md` has the figures.
 */
import type { Family } from "../ip/address.ts";
import type { EndpointChains } from "../policy/chains.ts";
import { EVERY_INTERFACE } from "../policy/hostEndpoints.ts";
import { familyOfNet, type Direction } from "../policy/model.ts";
import { ofFamily, type RuleContext } from "./ruleContext.ts";

/** In one family. */
export interface RuleNeeds {
  readonly hosts: HostNeeds;
  /** Networks from which workloads may send besides their own addresses. */
  readonly sources: readonly AllowedSources[];
  readonly floating: readonly FloatingIP[];
}

export interface HostNeeds {
  /** There are host endpoints. */
  readonly any: boolean;
  /** One of them is for every interface that has none of its own. */
  readonly every: boolean;
  /** One has policies for packets that are not tracked. */
  readonly untracked: Readonly<Record<Direction, boolean>>;
  /** One has policies for packets that come in, before their destination is translated. */
  readonly preDNAT: boolean;
}

export interface AllowedSources {
  readonly interfaceName: string;
  readonly nets: readonly string[];
}

/** An address elsewhere that stands for a workload's own. */
export interface FloatingIP {
  readonly internal: string;
  readonly external: string;
}

type Workload = Extract<EndpointChains, { kind: "workload" }>;
type Host = Extract<EndpointChains, { kind: "host" }>;

/** @param endpoints those that have chains, in any order */
export function ruleNeeds(
  endpoints: Iterable<EndpointChains>,
  { settings }: RuleContext,
): (family: Family) => RuleNeeds {
  const workloads: Workload[] = [];
  const hosts: Host[] = [];
  for (const endpoint of endpoints) {
    if (endpoint.kind === "host") hosts.push(endpoint);
    else workloads.push(endpoint);
  }
  // Rules are in an order that depends on nothing but what is there.
  workloads.sort((a, b) => (a.interfaceName < b.interfaceName ? -1 : 1));
  const ofHosts = hostNeeds(hosts);
  const floating = settings.floatingIPs === "Enabled" ? workloads.flatMap(({ local }) => local.floatingIPs) : [];
  const spoofing = settings.workloadSourceSpoofing === "Any" ? workloads : [];
  return (family) => ({
    hosts: ofHosts,
    sources: spoofing.flatMap(({ interfaceName, local }) => {
      const nets = ofFamily(local.allowedSourcePrefixes, family);
      return nets.length === 0 ? [] : [{ interfaceName, nets }];
    }),
    floating: floating.filter(({ internal }) => familyOfNet(internal) === family),
  });
}

function hostNeeds(hosts: readonly Host[]): HostNeeds {
  return {
    any: hosts.length > 0,
    every: hosts.some(({ interfaceName }) => interfaceName === EVERY_INTERFACE),
    untracked: {
      ingress: hosts.some(({ untracked }) => untracked.ingress.length > 0),
      egress: hosts.some(({ untracked }) => untracked.egress.length > 0),
    },
    preDNAT: hosts.some(({ preDNAT }) => preDNAT.ingress.length > 0),
  };
}

/** Whether the needs may be others with the one endpoint than they were with the other. */
export function changesNeeds(before: EndpointChains | undefined, after: EndpointChains | undefined): boolean {
  return needsText(before) !== needsText(after);
}

function needsText(endpoint: EndpointChains | undefined): string {
  if (endpoint === undefined) return "";
  if (endpoint.kind === "host") return JSON.stringify([endpoint.interfaceName, hostNeeds([endpoint])]);
  const { floatingIPs, allowedSourcePrefixes } = endpoint.local;
  if (floatingIPs.length + allowedSourcePrefixes.length === 0) return "";
  return JSON.stringify([endpoint.interfaceName, floatingIPs, allowedSourcePrefixes]);
}
