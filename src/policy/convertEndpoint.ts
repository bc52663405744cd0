/** Everything that has labels or addresses, to the model. */
import { messageOf } from "../lib/errors.ts";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, networkOf, parseInterfaceAddress } from "../ip/prefix.ts";
import { hostInterfaceName, workloadEndpointName } from "../resources/names.ts";
import type { Kinds } from "../resources/registry.ts";
import { unreadableIn } from "../resources/unreadable.ts";
import { ALLOW_ALL, DEFAULT_ALLOW } from "./convertPolicy.ts";
import { protocolNumber } from "./convertRule.ts";
import { netText, PROTOCOL, type Endpoint, type NamedPort, type Profile, type ServiceSlice } from "./model.ts";
import {
  NAME_LABEL,
  NAMESPACE_LABEL,
  NAMESPACE_PREFIX,
  ORCHESTRATOR_LABEL,
  SERVICE_ACCOUNT_LABEL,
  SERVICE_ACCOUNT_PREFIX,
} from "./selectors.ts";

export interface ConvertOptions {
  /** Interface names are worked out for pods of this node only: they cost a hash each. Absent: for all. */
  readonly node?: string;
  /** What names of workload interfaces begin with. */
  readonly interfacePrefix: string;
}

/** Calico gives a service account's name as a label only where it is shorter than this. */
const SERVICE_ACCOUNT_LABEL_MAX = 63;
const POD_INTERFACE = "eth0";

const namespaceProfile = (namespace: string): string => `kns.${namespace}`;
const serviceAccountProfile = (namespace: string, name: string): string => `ksa.${namespace}.${name}`;

function prefixed(prefix: string, labels: Readonly<Record<string, string>> = {}, name: string): Record<string, string> {
  const result: Record<string, string> = {};
  for (const [key, value] of Object.entries(labels)) result[prefix + key] = value;
  result[prefix + NAME_LABEL] = name;
  return result;
}

/** Its pods' labels from it, and leave for all that no policy decides. */
export function namespaceToProfile({ metadata }: Kinds["Namespace"]): Profile {
  const { name, labels } = metadata;
  return { name: namespaceProfile(name), labels: prefixed(NAMESPACE_PREFIX, labels, name), ...ALLOW_ALL, problems: [] };
}

/** Its pods' labels from it; it decides nothing. */
export function serviceAccountToProfile({ metadata }: Kinds["ServiceAccount"]): Profile {
  const { name, namespace = "default", labels } = metadata;
  return {
    name: serviceAccountProfile(namespace, name),
    labels: prefixed(SERVICE_ACCOUNT_PREFIX, labels, name),
    ingress: [],
    egress: [],
    problems: [],
  };
}

/** @param node empty for a pod that is on none yet */
export function podEndpointId(namespace: string | undefined, pod: string, node: string): string {
  return `wep/${namespace ?? "default"}/${workloadEndpointName(node, pod, POD_INTERFACE)}`;
}

/** The endpoint of a container that is no pod: it has no namespace, and does what it likes unless a policy selects it. */
export function containerToEndpoint(container: {
  readonly containerId: string;
  readonly interfaceName: string;
  readonly node: string;
  readonly addresses: readonly string[];
}): Endpoint {
  const { containerId, interfaceName, node, addresses } = container;
  return {
    id: `wep/${node}-cni-${containerId}`,
    kind: "workload",
    name: containerId,
    node,
    interfaceName,
    labels: { [ORCHESTRATOR_LABEL]: "cni" },
    profiles: [DEFAULT_ALLOW],
    nets: addresses,
    ports: [],
  };
}

/**
 * The endpoint of a pod. Undefined where it has none: it is on the host's network, not scheduled, finished, or has no
 * address yet.
 * @param given its addresses, where they are known before the pod's status says so: while it is being set up. There may
 * be none yet.
 */
export function podToEndpoint(
  pod: Kinds["Pod"],
  { node, interfacePrefix }: ConvertOptions,
  given?: readonly string[],
): Endpoint | undefined {
  const { metadata, spec } = pod;
  const addresses = given ?? podAddresses(pod);
  const hasNone = given === undefined && addresses.length === 0;
  if (spec.hostNetwork === true || spec.nodeName === undefined || hasNone) return undefined;
  const namespace = metadata.namespace ?? "default";
  const account = spec.serviceAccountName;
  const labels: Record<string, string> = { ...metadata.labels };
  labels[NAMESPACE_LABEL] = namespace;
  labels[ORCHESTRATOR_LABEL] = "k8s";
  setAccount(labels, account);
  const endpoint: Endpoint = {
    id: podEndpointId(namespace, metadata.name, spec.nodeName),
    kind: "workload",
    namespace,
    name: metadata.name,
    node: spec.nodeName,
    labels,
    profiles: podProfiles(namespace, account),
    nets: addresses,
    ports: podPorts(spec),
  };
  if (node !== undefined && node !== spec.nodeName) return endpoint;
  const interfaceName = hostInterfaceName(namespace, metadata.name, interfacePrefix);
  return { ...endpoint, interfaceName, ...localOf(metadata.annotations ?? {}, addresses) };
}

/** By namespace and service account: one list for all their pods, of which there may be a quarter of a million. */
const profileLists = new Map<string, Map<string, readonly string[]>>();
const PROFILE_LISTS_MAX = 10_000;
let profileListCount = 0;

function podProfiles(namespace: string, account: string): readonly string[] {
  const known = profileLists.get(namespace)?.get(account);
  if (known !== undefined) return known;
  if (profileListCount >= PROFILE_LISTS_MAX) {
    profileLists.clear();
    profileListCount = 0;
  }
  const accounts = account === "" ? [] : [serviceAccountProfile(namespace, account)];
  const list = [namespaceProfile(namespace), ...accounts];
  const ofNamespace = profileLists.get(namespace) ?? new Map<string, readonly string[]>();
  profileLists.set(namespace, ofNamespace.set(account, list));
  profileListCount += 1;
  return list;
}

/** Of a pod that still has its addresses. The plugin says in an annotation when it has taken them away. */
function podAddresses({ metadata, status }: Kinds["Pod"]): string[] {
  const annotations = metadata.annotations ?? {};
  if (status?.phase === "Succeeded" || status?.phase === "Failed") return [];
  if (metadata.deletionTimestamp !== undefined && annotations["cni.projectcalico.org/podIP"] === "") return [];
  if (status?.podIPs !== undefined && status.podIPs.length > 0) return status.podIPs.map(({ ip }) => ip);
  if (status?.podIP !== undefined) return [status.podIP];
  const noted = annotations["cni.projectcalico.org/podIPs"] || annotations["cni.projectcalico.org/podIP"] || "";
  return noted
    .split(",")
    .filter((text) => text !== "")
    .map((text) => netText(text.trim()));
}

const NO_PORTS: readonly NamedPort[] = [];

function podPorts({ containers, initContainers = [] }: Kinds["Pod"]["spec"]): readonly NamedPort[] {
  let named: NamedPort[] | undefined;
  for (const list of [containers, initContainers]) {
    for (const { ports } of list) {
      if (ports === undefined) continue;
      for (const { name, protocol, containerPort: port } of ports) {
        if (name !== undefined) (named ??= []).push({ name, protocol: PROTOCOL[protocol], port });
      }
    }
  }
  return named ?? NO_PORTS;
}

const FLOATING = "cni.projectcalico.org/floatingIPs";
const SPOOFED = "cni.projectcalico.org/allowedSourcePrefixes";

/** What annotations say for the pod's own node. What cannot be read is left out, which lets less through. */
function localOf(
  annotations: Readonly<Record<string, string>>,
  addresses: readonly string[],
): Pick<Endpoint, "local" | "problems"> {
  if (annotations[FLOATING] === undefined && annotations[SPOOFED] === undefined) return {};
  const problems: string[] = [];
  const list = <Value>(key: string, read: (text: string) => Value): Value[] => {
    if ((annotations[key] ?? "") === "") return [];
    try {
      const parsed: unknown = JSON.parse(annotations[key]!);
      if (!Array.isArray(parsed)) throw new TypeError("expected a list");
      return parsed.map((item) => read(String(item)));
    } catch (thrown) {
      problems.push(`metadata.annotations["${key}"]: ${messageOf(thrown)}; it is left out`);
      return [];
    }
  };
  const floatingIPs = list(FLOATING, (text) => formatAddress(parseAddress(text))).flatMap((external) => {
    const internal = addresses.find((address) => address.includes(":") === external.includes(":"));
    return internal === undefined ? [] : [{ internal, external }];
  });
  const allowedSourcePrefixes = list(SPOOFED, (text) => {
    const { address, length } = parseInterfaceAddress(text);
    return netText(formatPrefix(networkOf(address, length)));
  });
  return { local: { floatingIPs, allowedSourcePrefixes }, ...(problems.length === 0 ? {} : { problems }) };
}

export function workloadToEndpoint({ metadata, spec }: Kinds["WorkloadEndpoint"]): Endpoint {
  const namespace = metadata.namespace ?? "default";
  const account = spec.serviceAccountName ?? "";
  const labels: Record<string, string> = { ...metadata.labels };
  labels[NAMESPACE_LABEL] = namespace;
  labels[ORCHESTRATOR_LABEL] = spec.orchestrator;
  setAccount(labels, account);
  const floatingIPs = (spec.ipNATs ?? []).map(({ internalIP, externalIP }) => ({
    internal: internalIP,
    external: externalIP,
  }));
  const allowedSourcePrefixes = (spec.allowSpoofedSourcePrefixes ?? []).map(netText);
  const isPlain = floatingIPs.length === 0 && allowedSourcePrefixes.length === 0;
  return {
    id: `wep/${namespace}/${metadata.name}`,
    kind: "workload",
    namespace,
    name: spec.pod ?? spec.workload ?? metadata.name,
    node: spec.node,
    interfaceName: spec.interfaceName,
    labels,
    profiles: spec.profiles,
    nets: spec.ipNetworks.map(netText),
    ports: (spec.ports ?? []).flatMap(({ name, protocol, port }) =>
      name === undefined || name === "" ? [] : [{ name, protocol: protocolNumber(protocol), port }],
    ),
    ...(isPlain ? {} : { local: { floatingIPs, allowedSourcePrefixes } }),
  };
}

export function hostToEndpoint({ metadata, spec }: Kinds["HostEndpoint"]): Endpoint {
  return {
    id: `hep/${metadata.name}`,
    kind: "host",
    name: metadata.name,
    node: spec.node,
    ...(spec.interfaceName === undefined ? {} : { interfaceName: spec.interfaceName }),
    labels: metadata.labels ?? {},
    profiles: spec.profiles ?? [],
    nets: spec.expectedIPs ?? [],
    ports: (spec.ports ?? []).map(({ name, protocol, port }) => ({ name, protocol: protocolNumber(protocol), port })),
    ...problemsOf(spec),
  };
}

export function setToEndpoint({ metadata, spec }: Kinds["NetworkSet"] | Kinds["GlobalNetworkSet"]): Endpoint {
  const { name, namespace } = metadata;
  const nets = [...new Set(spec.nets.map(netText))];
  const problems = problemsOf(spec);
  if (namespace === undefined) {
    const labels = metadata.labels ?? {};
    return { id: `gnetset/${name}`, kind: "set", name, labels, profiles: [], nets, ports: [], ...problems };
  }
  return {
    id: `netset/${namespace}/${name}`,
    kind: "set",
    namespace,
    name,
    labels: { ...metadata.labels, [NAMESPACE_LABEL]: namespace },
    profiles: [namespaceProfile(namespace)],
    nets,
    ports: [],
    ...problems,
  };
}

function problemsOf(spec: object): { problems?: readonly string[] } {
  const why = unreadableIn(spec);
  return why === undefined ? {} : { problems: [`${why}; it is left out`] };
}

/** Nobody gets another's account by writing the label himself. */
function setAccount(labels: Record<string, string>, account: string): void {
  if (account !== "" && account.length < SERVICE_ACCOUNT_LABEL_MAX) labels[SERVICE_ACCOUNT_LABEL] = account;
  else delete labels[SERVICE_ACCOUNT_LABEL];
}

/** Undefined for a slice of no service, or of names. */
export function sliceToService({
  metadata,
  addressType,
  endpoints,
  ports,
}: Kinds["EndpointSlice"]): ServiceSlice | undefined {
  const service = metadata.labels?.["kubernetes.io/service-name"];
  if (service === undefined || addressType === "FQDN") return undefined;
  const namespace = metadata.namespace ?? "default";
  return {
    id: `${namespace}/${metadata.name}`,
    service: `${namespace}/${service}`,
    addresses: [...new Set(endpoints.flatMap(({ addresses }) => addresses))].map((text) =>
      formatAddress(parseAddress(text)),
    ),
    ports: ports.flatMap(({ protocol, port }) => (port === undefined ? [] : [{ protocol: PROTOCOL[protocol], port }])),
  };
}
