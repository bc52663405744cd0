/** Automatic host endpoints, as Calico's kube-controllers make them: which there should be, and what has to be done for it. */
import { formatAddress, parseAddress } from "../ip/address.ts";
import { parsePrefix, prefixContains } from "../ip/prefix.ts";
import { nodeNetwork } from "../resources/nodeNetwork.ts";
import type { Kinds } from "../resources/registry.ts";
import { matches, parseSelector } from "../resources/selector.ts";

type HostEndpoint = Kinds["HostEndpoint"];
type Settings = NonNullable<
  NonNullable<Kinds["KubeControllersConfiguration"]["spec"]["controllers"]["node"]>["hostEndpoint"]
>;
type Template = NonNullable<Settings["templates"]>[number];

/** On those that are made here: nobody else's are touched. */
const CREATED_BY = "projectcalico.org/created-by";
const CREATOR = "calico-kube-controllers";
/** Without a policy nothing changes for a node that gets a host endpoint. */
const PROFILE = "projectcalico-default-allow";

export interface HostEndpointPlan {
  readonly create: readonly HostEndpoint[];
  /** With the version that they replace. */
  readonly update: readonly HostEndpoint[];
  readonly remove: readonly HostEndpoint[];
  /** What cannot be done as it is configured. */
  readonly problems: readonly string[];
}

export function planHostEndpoints(
  nodes: readonly Kinds["Node"][],
  present: readonly HostEndpoint[],
  settings: Settings | undefined,
): HostEndpointPlan {
  const { autoCreate, templates: given = [], createDefaultHostEndpoint } = settings ?? {};
  const isOn = autoCreate === "Enabled";
  const templates = isOn ? given : [];
  const wanted = new Map<string, HostEndpoint>();
  for (const node of isOn ? nodes : []) {
    for (const endpoint of endpointsOf(node, createDefaultHostEndpoint !== "Disabled", templates)) {
      wanted.set(endpoint.metadata.name, endpoint);
    }
  }
  const byName = new Map(present.map((endpoint) => [endpoint.metadata.name, endpoint]));
  const problems = templates
    .filter(({ interfacePattern }) => interfacePattern !== undefined)
    .map(
      ({ generateName = "" }) => `template "${generateName}": interfacePattern is not supported; use interfaceCIDRs`,
    );
  const create: HostEndpoint[] = [];
  const update: HostEndpoint[] = [];
  for (const [name, endpoint] of wanted) {
    const before = byName.get(name);
    if (before === undefined) create.push(endpoint);
    else if (!isOurs(before)) problems.push(`host endpoint ${name} is somebody else's, and stays as it is`);
    else if (!isSame(before, endpoint)) {
      update.push({ ...before, spec: endpoint.spec, metadata: { ...before.metadata, ...endpoint.metadata } });
    }
  }
  const remove = present.filter((endpoint) => isOurs(endpoint) && !wanted.has(endpoint.metadata.name));
  return { create, update, remove, problems };
}

const isOurs = ({ metadata }: HostEndpoint): boolean => metadata.labels?.[CREATED_BY] === CREATOR;

function isSame(a: HostEndpoint, b: HostEndpoint): boolean {
  const text = ({ metadata, spec }: HostEndpoint): string =>
    JSON.stringify([
      Object.entries(metadata.labels ?? {}).sort(([x], [y]) => (x < y ? -1 : 1)),
      spec.node,
      spec.interfaceName,
      spec.expectedIPs,
      spec.profiles,
    ]);
  return text(a) === text(b);
}

function endpointsOf(node: Kinds["Node"], hasDefault: boolean, templates: readonly Template[]): HostEndpoint[] {
  const { name, labels = {} } = node.metadata;
  const addresses = addressesOf(node);
  const made = (suffix: string, own: Record<string, string>, spec: Partial<HostEndpoint["spec"]>): HostEndpoint => ({
    apiVersion: "projectcalico.org/v3",
    kind: "HostEndpoint",
    metadata: { name: `${name}-${suffix}`, labels: { ...labels, ...own, [CREATED_BY]: CREATOR } },
    spec: { node: name, profiles: [PROFILE], ...spec },
  });
  const endpoints = hasDefault ? [made("auto-hep", {}, { interfaceName: "*", expectedIPs: addresses })] : [];
  for (const { generateName, interfaceCIDRs = [], nodeSelector, labels: own = {} } of templates) {
    if (nodeSelector !== undefined && !matches(parseSelector(nodeSelector), labels)) continue;
    const ranges = interfaceCIDRs.map(parsePrefix);
    const expectedIPs = addresses.filter((text) => ranges.some((range) => prefixContains(range, parseAddress(text))));
    if (expectedIPs.length > 0) endpoints.push(made(`${generateName ?? "template"}-auto-hep`, own, { expectedIPs }));
  }
  return endpoints;
}

/** All that Calico knows of a node: its own addresses first, then those of its tunnels, then what Kubernetes says. */
function addressesOf(node: Kinds["Node"]): string[] {
  const network = nodeNetwork(node);
  const tunnels = [network.ipipTunnel, network.vxlanTunnel, network.vxlanTunnelV6];
  const wireguard = [network.wireguardInterface, network.wireguardInterfaceV6];
  const own = [network.ipv4?.address, network.ipv6?.address, ...tunnels, ...wireguard];
  const told = (node.status?.addresses ?? []).filter(({ type }) => type === "InternalIP" || type === "ExternalIP");
  return [
    ...new Set([
      ...own.flatMap((address) => (address === undefined ? [] : [formatAddress(address)])),
      ...told.map(({ address }) => formatAddress(parseAddress(address))),
    ]),
  ];
}
