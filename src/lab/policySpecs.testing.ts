/** Random policies of every kind, as people write them: few labels, addresses and ports, so that they meet each other. */
import fc from "fast-check";

const CALICO = "projectcalico.org/v3";

/** Of pods, nodes and whoever is outside. */
export const NETS = {
  4: ["10.244.0.0/16", "10.244.1.0/24", "10.244.1.8/29", "10.244.1.10", "10.244.2.10/31", "192.0.2.0/24", "0.0.0.0/0"],
  6: ["fd10:244::/64", "fd10:244::1:0/112", "fd10:244::2:8/125", "fd10:244::1:a", "2001:db8:0:1::/64", "::/0"],
} as const;

const SELECTORS = [
  "all()",
  "app == 'web'",
  "app == 'db'",
  "app != 'web'",
  "has(env)",
  "!has(env)",
  "app in {'web', 'db'}",
  "app not in {'web'}",
  "app == 'web' && env == 'prod'",
  "app == 'db' || env == 'test'",
  "!(app == 'web' || has(env))",
  "app contains 'e'",
  "app starts with 'd'",
  "app ends with 'b'",
  "projectcalico.org/namespace == 'a'",
  "projectcalico.org/serviceaccount == 'bob'",
  "projectcalico.org/orchestrator == 'k8s'",
  "pcns.team == 'red'",
  "pcsa.role == 'admin'",
];
/** Also of network sets, in rules. */
const RULE_SELECTORS = [...SELECTORS, "set == 'in'", "set == 'out' || app == 'web'"];
const NAMESPACE_SELECTORS = ["team == 'red'", "has(team)", "team != 'red'", "projectcalico.org/name == 'a'", "all()"];

const selector = fc.constantFrom(...SELECTORS);

/** About one in `rarity` objects has the field. */
const rarely = <Value>(value: fc.Arbitrary<Value>, rarity: number): fc.Arbitrary<Value | undefined> =>
  fc.nat(rarity - 1).chain((dice): fc.Arbitrary<Value | undefined> => (dice === 0 ? value : fc.constant(undefined)));
const some = <Value>(value: fc.Arbitrary<Value>, maxLength: number): fc.Arbitrary<Value[]> =>
  fc.uniqueArray(value, { minLength: 1, maxLength, selector: (of) => JSON.stringify(of) });
/** Without the fields that are undefined. */
export const sparse = (
  fields: Readonly<Record<string, fc.Arbitrary<unknown>>>,
): fc.Arbitrary<Record<string, unknown>> =>
  fc.record(fields).map((all) => Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)));

export type Family = 4 | 6;

/** More ports than one look at a packet can hold (15), with one of ours among them or not. */
const manyPorts = fc
  .boolean()
  .map((isOurs) => [...Array.from({ length: 18 }, (_, at) => 1000 + 7 * at), isOurs ? 80 : 79]);
const rulePorts = fc.oneof(
  {
    weight: 6,
    arbitrary: some(fc.constantFrom<string | number>(80, 53, 8080, "http", "dns", "web", "80:90", "1:79"), 3),
  },
  { weight: 1, arbitrary: manyPorts },
);

interface RuleShape {
  readonly direction: "ingress" | "egress";
  readonly isNamespaced: boolean;
}

function entity(side: "source" | "destination", family: Family, hasPorts: boolean, shape: RuleShape) {
  const nets = some(fc.constantFrom<string>(...NETS[family]), 3);
  const ports =
    side === "source"
      ? some(fc.constantFrom<string | number>(SOURCE_PORTS[0], `${SOURCE_PORTS[1]}:9000`), 2)
      : rulePorts;
  const plain = sparse({
    nets: rarely(nets, 4),
    notNets: rarely(nets, 6),
    selector: rarely(fc.constantFrom(...RULE_SELECTORS), 3),
    notSelector: rarely(fc.constantFrom(...RULE_SELECTORS), 8),
    namespaceSelector: rarely(fc.constantFrom(...NAMESPACE_SELECTORS, "global()"), 5),
    ports: hasPorts ? rarely(ports, side === "source" ? 6 : 2) : fc.constant(undefined),
    notPorts: hasPorts ? rarely(ports, 8) : fc.constant(undefined),
    serviceAccounts: rarely(
      fc.constantFrom<unknown>(
        { names: ["bob"] },
        { selector: "role == 'admin'" },
        { names: ["bob"], selector: "has(role)" },
      ),
      10,
    ),
  });
  // What a service stands for has ports of its own where it is a destination.
  const isServiceSide = (shape.direction === "ingress") === (side === "source");
  const service = fc
    .constantFrom("web", "dns")
    .map((name) => ({ services: { name, namespace: "a" } }) as Record<string, unknown>);
  return isServiceSide && (side === "source" || !hasPorts)
    ? fc.oneof({ weight: 12, arbitrary: plain }, { weight: 1, arbitrary: service })
    : plain;
}

/** From which probes connect: one that rules name, one in a range that they name, and one beside both. */
export const SOURCE_PORTS = [7001, 8001, 9501] as const;

function rule(shape: RuleShape) {
  const protocols = [
    undefined,
    undefined,
    "TCP",
    "TCP",
    "TCP",
    "UDP",
    "UDP",
    "ICMP",
    "ICMPv6",
    6,
    17,
    "SCTP",
    47,
  ] as const;
  return fc.tuple(fc.constantFrom(...protocols), fc.constantFrom<Family>(4, 6)).chain(([protocol, either]) => {
    const family = protocol === "ICMP" ? 4 : protocol === "ICMPv6" ? 6 : either;
    const isIcmp = protocol === "ICMP" || protocol === "ICMPv6";
    const hasPorts = protocol === "TCP" || protocol === "UDP" || protocol === 6 || protocol === 17;
    const echo = family === 4 ? 8 : 128;
    const icmp = fc.constantFrom<unknown>(
      { type: echo },
      { type: echo, code: 0 },
      { type: echo, code: 1 },
      { type: 3 },
    );
    const side = (which: "source" | "destination") =>
      fc.oneof(
        { weight: 2, arbitrary: entity(which, family, hasPorts, shape) },
        { weight: 1, arbitrary: fc.constant({}) },
      );
    return sparse({
      action: fc.constantFrom("Allow", "Allow", "Allow", "Deny", "Pass", "Log"),
      ipVersion: rarely(fc.constant(family), 8),
      protocol: fc.constant(protocol),
      notProtocol: isIcmp
        ? fc.constant(undefined)
        : rarely(fc.constantFrom<unknown>("UDP", 6, ...(family === 4 ? ["ICMP"] : ["ICMPv6"])), 10),
      icmp: isIcmp ? rarely(icmp, 2) : fc.constant(undefined),
      notICMP: rarely(icmp, isIcmp ? 4 : 20),
      source: side("source"),
      destination: side("destination"),
      metadata: rarely(fc.constant({ annotations: { reason: 'a "quoted" one' } }), 15),
    });
  });
}

const rules = (shape: RuleShape) => rarely(fc.array(rule(shape), { maxLength: 4 }), 1);

/** What Calico's four kinds of policy have in common. */
const calicoSpec = (isNamespaced: boolean): Readonly<Record<string, fc.Arbitrary<unknown>>> => ({
  tier: fc.constantFrom(undefined, undefined, "first", "second"),
  order: fc.constantFrom(undefined, 1, 2, 1000, 0.5),
  selector: fc.oneof(selector, fc.constant(undefined)),
  serviceAccountSelector: rarely(fc.constantFrom("role == 'admin'", "!has(role)"), 8),
  ingress: rules({ direction: "ingress", isNamespaced }),
  egress: rules({ direction: "egress", isNamespaced }),
  types: fc.constantFrom(undefined, ["Ingress"], ["Egress"], ["Ingress", "Egress"]),
  performanceHints: rarely(fc.constant(["AssumeNeededOnEveryNode"]), 10),
});
const namespacedSpec = sparse(calicoSpec(true));
const globalSpec = sparse({
  ...calicoSpec(false),
  namespaceSelector: rarely(fc.constantFrom(...NAMESPACE_SELECTORS), 4),
  applyOnForward: rarely(fc.constant(true), 6),
});
/** What such a policy says is for host endpoints, wherever its selector reaches. */
const hostSpec = fc.tuple(globalSpec, fc.constantFrom("doNotTrack", "preDNAT")).map(([spec, stage]) => {
  const { egress: _, types: __, ...rest } = spec;
  return { ...rest, types: ["Ingress"], applyOnForward: true, [stage]: true };
});

const labelSelector = fc.constantFrom<unknown>(
  {},
  { matchLabels: { app: "web" } },
  { matchLabels: { app: "db", env: "prod" } },
  { matchExpressions: [{ key: "app", operator: "In", values: ["web", "client"] }] },
  { matchExpressions: [{ key: "app", operator: "NotIn", values: ["web"] }] },
  { matchExpressions: [{ key: "env", operator: "Exists" }] },
  { matchExpressions: [{ key: "env", operator: "DoesNotExist" }] },
);
const namespaceLabels = fc.constantFrom<unknown>(
  {},
  { matchLabels: { team: "red" } },
  { matchLabels: { "kubernetes.io/metadata.name": "a" } },
  { matchExpressions: [{ key: "team", operator: "NotIn", values: ["red"] }] },
);
const ipBlock = fc.constantFrom<unknown>(
  { cidr: "10.244.0.0/16", except: ["10.244.1.10/32", "10.244.2.10/31"] },
  { cidr: "10.244.1.0/24" },
  { cidr: "0.0.0.0/0", except: ["10.244.2.0/24"] },
  { cidr: "fd10:244::/64", except: ["fd10:244::2:8/125"] },
  { cidr: "::/0" },
);
const kubernetesPeer = fc.oneof(
  labelSelector.map((podSelector) => ({ podSelector })),
  namespaceLabels.map((namespaceSelector) => ({ namespaceSelector })),
  fc
    .tuple(labelSelector, namespaceLabels)
    .map(([podSelector, namespaceSelector]) => ({ podSelector, namespaceSelector })),
  ipBlock.map((block) => ({ ipBlock: block })),
);
const kubernetesPort = fc.constantFrom<unknown>(
  { port: 80 },
  { port: "http" },
  { port: 53, protocol: "UDP" },
  { port: "dns", protocol: "UDP" },
  { port: 79, endPort: 8080 },
  { protocol: "UDP" },
  { port: "http", protocol: "UDP" },
  { port: 80, protocol: "SCTP" },
);
const kubernetesRules = (peers: "from" | "to") =>
  rarely(
    fc.array(sparse({ [peers]: rarely(some(kubernetesPeer, 2), 2), ports: rarely(some(kubernetesPort, 3), 2) }), {
      maxLength: 2,
    }),
    1,
  );
const kubernetesSpec = sparse({
  podSelector: labelSelector,
  policyTypes: fc.constantFrom(undefined, ["Ingress"], ["Egress"], ["Ingress", "Egress"]),
  ingress: kubernetesRules("from"),
  egress: kubernetesRules("to"),
});

const clusterPods = fc
  .tuple(namespaceLabels, labelSelector)
  .map(([namespaceSelector, podSelector]) => ({ pods: { namespaceSelector, podSelector } }));
const clusterPeer = fc.oneof(
  namespaceLabels.map((namespaces) => ({ namespaces })),
  clusterPods,
);
const networks = fc.constantFrom<unknown>(
  { networks: ["10.244.1.0/24", "fd10:244::1:0/112"] },
  { networks: ["192.0.2.0/24"] },
);
const clusterProtocol = fc.constantFrom<unknown>(
  { tcp: {} },
  { tcp: { destinationPort: { number: 80 } } },
  { udp: { destinationPort: { range: { start: 50, end: 60 } } } },
  { destinationNamedPort: "http" },
);
const clusterRules = (peers: "from" | "to") =>
  rarely(
    fc.array(
      sparse({
        action: fc.constantFrom("Accept", "Deny", "Pass"),
        [peers]: some(peers === "to" ? fc.oneof(clusterPeer, networks) : clusterPeer, 2),
        protocols: rarely(some(clusterProtocol, 2), 2),
      }),
      { maxLength: 2 },
    ),
    1,
  );
const clusterSpec = sparse({
  tier: fc.constantFrom("Admin", "Baseline"),
  priority: fc.constantFrom(0, 1, 7, 1000),
  subject: clusterPeer,
  ingress: clusterRules("from"),
  egress: clusterRules("to"),
});

export interface PolicyForm {
  readonly apiVersion: string;
  readonly kind: string;
  readonly spec: fc.Arbitrary<Record<string, unknown>>;
  readonly isGlobal?: true;
}
const staged = (spec: fc.Arbitrary<Record<string, unknown>>) =>
  fc.oneof(
    { weight: 3, arbitrary: spec },
    { weight: 1, arbitrary: fc.constant<Record<string, unknown>>({ stagedAction: "Delete" }) },
  );
export const FORMS: readonly { readonly weight: number; readonly form: PolicyForm }[] = [
  { weight: 4, form: { apiVersion: "networking.k8s.io/v1", kind: "NetworkPolicy", spec: kubernetesSpec } },
  { weight: 4, form: { apiVersion: CALICO, kind: "NetworkPolicy", spec: namespacedSpec } },
  { weight: 4, form: { apiVersion: CALICO, kind: "GlobalNetworkPolicy", spec: globalSpec, isGlobal: true } },
  { weight: 1, form: { apiVersion: CALICO, kind: "GlobalNetworkPolicy", spec: hostSpec, isGlobal: true } },
  {
    weight: 2,
    form: {
      apiVersion: "policy.networking.k8s.io/v1alpha2",
      kind: "ClusterNetworkPolicy",
      spec: clusterSpec,
      isGlobal: true,
    },
  },
  { weight: 1, form: { apiVersion: CALICO, kind: "StagedNetworkPolicy", spec: staged(namespacedSpec) } },
  {
    weight: 1,
    form: { apiVersion: CALICO, kind: "StagedGlobalNetworkPolicy", spec: staged(globalSpec), isGlobal: true },
  },
  { weight: 1, form: { apiVersion: CALICO, kind: "StagedKubernetesNetworkPolicy", spec: staged(kubernetesSpec) } },
];
