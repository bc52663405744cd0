/** What the rules of this node depend on besides policy, from what people configure. */
import type { NodeFacts, TunnelFact } from "../dataplane/nodeFacts.ts";
import { ruleContext } from "../dataplane/ruleContext.ts";
import { formatAddress, type Address } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import { felixSettings, type FelixSettings } from "../resources/config.ts";
import { nodeNetwork, type NodeNetwork } from "../resources/nodeNetwork.ts";
import type { Kinds } from "../resources/registry.ts";

export type Renderer = "nft" | "iptables";

export interface FactSources {
  readonly nodeName: string;
  readonly settings: FelixSettings;
  readonly renderer: Renderer;
  readonly nodes: readonly Kinds["Node"][];
  readonly pools: readonly Kinds["IPPool"][];
  readonly bgp: Kinds["BGPConfiguration"] | undefined;
}

export function nodeFacts({ nodeName, settings, renderer, nodes, pools, bgp }: FactSources): NodeFacts {
  const self = nodes.find(({ metadata }) => metadata.name === nodeName);
  const addresses = [...new Set(nodes.flatMap(addressesOf))].sort();
  const hosts = [...addresses, ...settings.externalNodesList];
  const encapsulated = tunnelsOf(settings, pools, self === undefined ? {} : networkOf(self));
  return {
    settings,
    renderer: {
      markMask: settings[`${prefixOf(renderer)}MarkMask`],
      filterAllowAction: settings[`${prefixOf(renderer)}FilterAllowAction`],
      filterDenyAction: settings[`${prefixOf(renderer)}FilterDenyAction`],
      mangleAllowAction: settings[`${prefixOf(renderer)}MangleAllowAction`],
      sharesHooks: renderer === "iptables",
    },
    tunnels: encapsulated,
    hosts,
    vxlanHosts: encapsulated.some(({ kind }) => kind === "vxlan") ? hosts : [],
    pools: pools
      .map(({ spec }) => ({
        cidr: spec.cidr,
        natOutgoing: spec.natOutgoing,
        disabled: spec.disabled,
        isLoadBalancer: spec.allowedUses.every((use) => use === "LoadBalancer"),
      }))
      .sort((a, b) => (a.cidr < b.cidr ? -1 : 1)),
    serviceCidrs: [
      ...(bgp?.spec.serviceClusterIPs ?? []),
      ...(bgp?.spec.serviceExternalIPs ?? []),
      ...(bgp?.spec.serviceLoadBalancerIPs ?? []),
    ].map(({ cidr }) => cidr),
    // As in Felix: where flow logs go anywhere.
    nflog: settings.flowLogsLocalReporter === "Enabled" || settings.flowLogsGoldmaneServer !== "",
  };
}

/** Facts that rules can be made of. */
export interface SoundFacts {
  readonly facts: NodeFacts;
  readonly renderer: Renderer;
  readonly settings: FelixSettings;
  /** Why these are not the settings that were given, but the last ones that rules can be made with. */
  readonly fault?: string;
}

/** @param rendererOf the packet filter that settings ask for */
export function soundFacts(
  rendererOf: (settings: FelixSettings) => Renderer,
): (sources: Omit<FactSources, "renderer">) => SoundFacts {
  // An agent may meet the others at its first start, and pods are held back from then on.
  let sound = felixSettings({});
  const factsWith = (sources: Omit<FactSources, "renderer">, settings: FelixSettings): SoundFacts => {
    const renderer = rendererOf(settings);
    return { facts: nodeFacts({ ...sources, settings, renderer }), renderer, settings };
  };
  return (sources) => {
    const wanted = factsWith(sources, sources.settings);
    try {
      ruleContext(wanted.facts);
    } catch (error) {
      return { ...factsWith(sources, sound), fault: messageOf(error) };
    }
    sound = sources.settings;
    return wanted;
  };
}

const prefixOf = (renderer: Renderer): "nftables" | "iptables" => (renderer === "nft" ? "nftables" : "iptables");

/** Nodes say something all the time, and mostly nothing about their addresses. */
const read = new WeakMap<Kinds["Node"], { network: NodeNetwork; addresses: string[] }>();

function readNode(node: Kinds["Node"]): { network: NodeNetwork; addresses: string[] } {
  let known = read.get(node);
  if (known === undefined) {
    const network = nodeNetwork(node);
    const own = [network.ipv4, network.ipv6].flatMap((each) =>
      each === undefined ? [] : [formatAddress(each.address)],
    );
    const told = (node.status?.addresses ?? [])
      .filter(({ type }) => type === "InternalIP")
      .map(({ address }) => address);
    known = { network, addresses: own.length > 0 ? own : told };
    read.set(node, known);
  }
  return known;
}
const networkOf = (node: Kinds["Node"]): NodeNetwork => readNode(node).network;
const addressesOf = (node: Kinds["Node"]): string[] => readNode(node).addresses;

/** The devices that the pools ask for, whether they are there yet or not. */
function tunnelsOf(settings: FelixSettings, pools: readonly Kinds["IPPool"][], own: NodeNetwork): TunnelFact[] {
  const ipip = settings.ipipEnabled ?? pools.some(({ spec }) => spec.ipipMode !== "Never");
  const asksVxlan = (isV6: boolean): boolean =>
    pools.some(({ spec }) => spec.vxlanMode !== "Never" && spec.cidr.includes(":") === isV6);
  const { wireguardInterfaceName, wireguardInterfaceNameV6, wireguardListeningPort, wireguardListeningPortV6 } =
    settings;
  const texts = (address: Address | undefined): string[] => (address === undefined ? [] : [formatAddress(address)]);
  const tunnel = (isOn: boolean, fact: TunnelFact): TunnelFact[] => (isOn ? [fact] : []);
  return [
    ...tunnel(ipip, { kind: "ipip", family: 4, device: "tunl0", addresses: texts(own.ipipTunnel) }),
    ...tunnel(settings.vxlanEnabled ?? asksVxlan(false), {
      kind: "vxlan",
      family: 4,
      device: "vxlan.calico",
      addresses: texts(own.vxlanTunnel),
    }),
    ...tunnel(settings.vxlanEnabled !== false && asksVxlan(true), {
      kind: "vxlan",
      family: 6,
      device: "vxlan-v6.calico",
      addresses: texts(own.vxlanTunnelV6),
    }),
    ...tunnel(settings.wireguardEnabled, {
      kind: "wireguard",
      family: 4,
      device: wireguardInterfaceName,
      addresses: texts(own.wireguardInterface),
      port: wireguardListeningPort,
    }),
    ...tunnel(settings.wireguardEnabledV6, {
      kind: "wireguard",
      family: 6,
      device: wireguardInterfaceNameV6,
      addresses: texts(own.wireguardInterfaceV6),
      port: wireguardListeningPortV6,
    }),
  ];
}
