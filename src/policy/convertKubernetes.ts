/** Kubernetes' own policies to the model. */
import { parsePrefix } from "../ip/prefix.ts";
import type { LabelSelector } from "../resources/labelSelector.ts";
import type { Kinds } from "../resources/registry.ts";
import { convertEach, refuse } from "./convertRule.ts";
import { directionsOf, draftOf, identity, policyId } from "./convertPolicy.ts";
import { PROTOCOL, type Entity, type Policy, type PortMatch, type PortRange, type Rule } from "./model.ts";
import { allOf, inNamespace, inNamespaces, pods } from "./selectors.ts";

/** The order that Calico gives to all of them: an API that knows no order has one place among those that do. */
const KUBERNETES_ORDER = 1000;

type Spec = Kinds["NetworkPolicy"]["spec"];
type Peer = NonNullable<NonNullable<NonNullable<Spec["ingress"]>[number]["from"]>[number]>;
type Port = NonNullable<NonNullable<Spec["ingress"]>[number]["ports"]>[number];

export function convertKubernetesPolicy({ metadata, spec }: Kinds["NetworkPolicy"]): Policy {
  return convertSpec("knp", metadata, spec);
}

export function convertStagedKubernetesPolicy({
  metadata,
  spec,
}: Kinds["StagedKubernetesNetworkPolicy"]): Policy | undefined {
  const draft = draftOf(spec.stagedAction, policyId("knp", metadata.name, metadata.namespace));
  return draft === undefined ? undefined : { ...convertSpec("sknp", metadata, spec), draft };
}

function convertSpec(kind: "knp" | "sknp", metadata: Kinds["NetworkPolicy"]["metadata"], spec: Spec): Policy {
  const namespace = metadata.namespace ?? "default";
  const allow = <Item extends object>(items: readonly Item[] = []) =>
    items.map((item) => ({ ...item, action: "Allow" as const }));
  const ingress = convertEach(allow(spec.ingress), "ingress", ({ from, ports }, origin) =>
    cross(peersOf(from, namespace), protocolsOf(ports), (source, { protocol, ports: destinationPorts }) => ({
      action: "allow",
      ...protocol,
      source,
      destination: destinationPorts,
      origin,
    })),
  );
  const egress = convertEach(allow(spec.egress), "egress", ({ to, ports }, origin) =>
    cross(peersOf(to, namespace), protocolsOf(ports), (destination, { protocol, ports: destinationPorts }) => ({
      action: "allow",
      ...protocol,
      source: {},
      destination: { ...destination, ...destinationPorts },
      origin,
    })),
  );
  return {
    ...identity(kind, { name: metadata.name, namespace }),
    tier: "default",
    order: KUBERNETES_ORDER,
    selector: allOf(pods(spec.podSelector), inNamespace(namespace)) ?? inNamespace(namespace),
    directions: directionsOf(spec.policyTypes),
    ingress: ingress.rules,
    egress: egress.rules,
    stage: "normal",
    applyOnForward: true,
    problems: [...ingress.problems, ...egress.problems],
  };
}

/** A rule for every protocol with every peer. */
function cross<P, R>(
  peers: readonly P[],
  protocols: readonly R[],
  rule: (peer: P, protocol: R) => Rule,
): readonly Rule[] {
  return protocols.flatMap((protocol) => peers.map((peer) => rule(peer, protocol)));
}

/** No peers: anybody. */
function peersOf(peers: readonly Peer[] | undefined, namespace: string): Entity[] {
  if (peers === undefined || peers.length === 0) return [{}];
  return peers.map((peer) => {
    if (peer.ipBlock !== undefined) {
      const { cidr, except = [] } = peer.ipBlock;
      return { nets: [parsePrefix(cidr)], ...(except.length === 0 ? {} : { notNets: except.map(parsePrefix) }) };
    }
    const { podSelector, namespaceSelector } = peer;
    if (podSelector === undefined && namespaceSelector === undefined)
      refuse("a peer selects neither pods nor addresses");
    const scope = namespaceSelector === undefined ? inNamespace(namespace) : inNamespaces(namespaceSelector);
    return { selector: allOf(scope, pods(podSelector)) ?? scope };
  });
}

interface ProtocolPorts {
  readonly protocol: { readonly protocol?: number };
  readonly ports: Pick<Entity, "ports">;
}

function protocolsOf(ports: readonly Port[] | undefined): ProtocolPorts[] {
  return byProtocol(
    (ports ?? []).map(({ protocol, port, endPort }): [number, PortMatch | undefined] => {
      if (port === undefined) return [PROTOCOL[protocol], undefined];
      return [PROTOCOL[protocol], typeof port === "string" ? { name: port } : { first: port, last: endPort ?? port }];
    }),
  );
}

/**
 * The ports of each protocol, neighbours put together. A protocol that stands once without a port has all of them, and
 * where nothing is given every packet is meant.
 */
function byProtocol(entries: readonly (readonly [protocol: number, port: PortMatch | undefined])[]): ProtocolPorts[] {
  if (entries.length === 0) return [{ protocol: {}, ports: {} }];
  const protocols = [...new Set(entries.map(([protocol]) => protocol))].sort((a, b) => a - b);
  return protocols.map((protocol) => {
    const ports = entries.filter(([of]) => of === protocol).map(([, port]) => port);
    const given = ports.filter((port) => port !== undefined);
    return { protocol: { protocol }, ports: given.length < ports.length ? {} : { ports: simplifyPorts(given) } };
  });
}

/** The fewest ranges that hold the same ports, in ascending order; names as they stand, before them. */
export function simplifyPorts(ports: readonly PortMatch[]): PortMatch[] {
  const merged: PortRange[] = [];
  const ranges = ports.filter((port) => "first" in port).sort((a, b) => a.first - b.first);
  for (const { first, last } of ranges) {
    const before = merged.at(-1);
    if (before === undefined || first > before.last + 1) merged.push({ first, last });
    else merged[merged.length - 1] = { first: before.first, last: Math.max(before.last, last) };
  }
  return [...ports.filter((port) => "name" in port), ...merged];
}

type ClusterSpec = Kinds["ClusterNetworkPolicy"]["spec"];
type ClusterPeer = NonNullable<ClusterSpec["egress"]>[number]["to"][number];
type ClusterProtocol = NonNullable<NonNullable<ClusterSpec["egress"]>[number]["protocols"]>[number];

/** policy.networking.k8s.io/v1alpha2. Its tiers pass on what they do not decide, so only directions with rules count. */
export function convertClusterPolicy({ metadata, spec }: Kinds["ClusterNetworkPolicy"]): Policy {
  const ingress = convertEach(spec.ingress ?? [], "ingress", ({ action, from, protocols, name }, origin) =>
    cross(from.flatMap(clusterPeer), clusterProtocols(protocols), (source, { protocol, ports }) => ({
      action: actionOf(action),
      ...protocol,
      source,
      destination: ports,
      origin,
      ...annotation(name),
    })),
  );
  const egress = convertEach(spec.egress ?? [], "egress", ({ action, to, protocols, name }, origin) =>
    cross(to.flatMap(clusterPeer), clusterProtocols(protocols), (destination, { protocol, ports }) => ({
      action: actionOf(action),
      ...protocol,
      source: {},
      destination: { ...destination, ...ports },
      origin,
      ...annotation(name),
    })),
  );
  const { subject } = spec;
  const [subjects, subjectPods] =
    subject.pods === undefined
      ? [subject.namespaces ?? {}, undefined]
      : [subject.pods.namespaceSelector, subject.pods.podSelector];
  return {
    ...identity("kcnp", { name: metadata.name }),
    tier: spec.tier === "Admin" ? "kube-admin" : "kube-baseline",
    order: spec.priority,
    selector: allOf(pods(subjectPods), inNamespaces(subjects)) ?? pods(subjectPods),
    directions: directionsOf([
      ...(ingress.rules.length > 0 ? (["Ingress"] as const) : []),
      ...(egress.rules.length > 0 ? (["Egress"] as const) : []),
    ]),
    ingress: ingress.rules,
    egress: egress.rules,
    stage: "normal",
    applyOnForward: false,
    problems: [...ingress.problems, ...egress.problems],
  };
}

function actionOf(action: "Accept" | "Deny" | "Pass"): "allow" | "deny" | "pass" {
  if (action === "Accept") return "allow";
  return action === "Deny" ? "deny" : "pass";
}

/** Calico shows the name of such a rule in this annotation. */
function annotation(name: string | undefined): Pick<Rule, "annotations"> {
  return name === undefined || name === "" ? {} : { annotations: { "policy.networking.k8s.io/rule-name": name } };
}

function clusterPeer(peer: Partial<ClusterPeer>): Entity[] {
  const { namespaces, pods: peerPods, networks } = peer;
  if (namespaces !== undefined) return [{ selector: inNamespaces(namespaces) }];
  if (peerPods !== undefined) return [{ selector: both(peerPods.namespaceSelector, peerPods.podSelector) }];
  if (networks === undefined) refuse(`a peer with ${Object.keys(peer).join(", ") || "nothing"} is not known`);
  return [{ nets: networks.map(parsePrefix) }];
}

function both(namespaces: LabelSelector, podSelector: LabelSelector): NonNullable<Entity["selector"]> {
  return { op: "&&", operands: [inNamespaces(namespaces), pods(podSelector)] };
}

const TRANSPORTS = [
  ["tcp", PROTOCOL.TCP],
  ["udp", PROTOCOL.UDP],
  ["sctp", PROTOCOL.SCTP],
] as const;

function clusterProtocols(protocols: readonly ClusterProtocol[] | undefined): ProtocolPorts[] {
  return byProtocol(
    (protocols ?? []).flatMap((item): [number, PortMatch | undefined][] => {
      const transport = TRANSPORTS.find(([field]) => item[field] !== undefined);
      if (transport !== undefined) return [[transport[1], destinationOf(item[transport[0]]?.destinationPort)]];
      // The name stands for whatever protocol and number the pod's own port of that name has.
      const name = item.destinationNamedPort;
      if (name !== undefined) return TRANSPORTS.map(([, protocol]) => [protocol, { name }]);
      return refuse(`a protocol with ${Object.keys(item).join(", ") || "nothing"} is not known`);
    }),
  );
}

function destinationOf(
  port: { number?: number; range?: { start: number; end: number } } | undefined,
): PortRange | undefined {
  if (port === undefined) return undefined;
  if (port.number !== undefined) return { first: port.number, last: port.number };
  if (port.range !== undefined) return { first: port.range.start, last: port.range.end };
  return refuse(`a destination port with ${Object.keys(port).join(", ") || "nothing"} is not known`);
}
