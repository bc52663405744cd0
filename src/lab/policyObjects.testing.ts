/** Random clusters as people write them: manifests of every kind that decides about packets, which meet each other often. */
import fc from "fast-check";
import { FORMS, NETS, sparse, type Family } from "./policySpecs.testing.ts";

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

const CALICO = "projectcalico.org/v3";
const NAMESPACES = ["a", "b", "c"] as const;
const NODES = ["node1", "node2"] as const;

/** Pods keep their names and addresses whatever becomes of them, so that networks in rules mean some of them. */
const PODS = [
  { namespace: "a", name: "p0", ips: ["10.244.1.10", "fd10:244::1:a"] },
  { namespace: "a", name: "p1", ips: ["10.244.2.10", "fd10:244::2:a"] },
  { namespace: "b", name: "p2", ips: ["10.244.1.11", "fd10:244::1:b"] },
  { namespace: "b", name: "p3", ips: ["10.244.2.11", "fd10:244::2:b"] },
  { namespace: "c", name: "p4", ips: ["10.244.1.12", "fd10:244::1:c"] },
  { namespace: "c", name: "p5", ips: ["10.244.2.12", "fd10:244::2:c"] },
] as const;

/** The ports that containers declare: one name is not the same number everywhere, and one number has two names. */
const PORT_SETS = [
  [
    { name: "http", containerPort: 80, protocol: "TCP" },
    { name: "dns", containerPort: 53, protocol: "UDP" },
  ],
  [
    { name: "http", containerPort: 8080, protocol: "TCP" },
    { containerPort: 80, protocol: "TCP" },
    { name: "dns", containerPort: 53, protocol: "UDP" },
  ],
  [
    { name: "web", containerPort: 80, protocol: "TCP" },
    { name: "http", containerPort: 80, protocol: "UDP" },
    { name: "dns", containerPort: 5353, protocol: "UDP" },
  ],
] as const;

/** Few names, so that the next set changes what the one before has made. */
const policy: fc.Arbitrary<Manifest> = fc
  .oneof(...FORMS.map(({ weight, form }) => ({ weight, arbitrary: fc.constant(form) })))
  .chain(({ apiVersion, kind, spec, isGlobal }) =>
    fc.tuple(fc.constantFrom("x", "y", "z"), fc.constantFrom(...NAMESPACES), spec).map(([name, namespace, made]) => ({
      apiVersion,
      kind,
      metadata: { name, ...(isGlobal ? {} : { namespace }) },
      spec: made,
    })),
  );

const labels = sparse({
  app: fc.constantFrom("web", "db", "client", undefined),
  env: fc.constantFrom("prod", "test", undefined, undefined),
}) as fc.Arbitrary<Record<string, string>>;

const pod = ({ namespace, name, ips }: (typeof PODS)[number]): fc.Arbitrary<Manifest> =>
  fc
    .record({
      labels,
      // What cannot be changed of a pod changes less often: it is another pod then.
      nodeName: fc.oneof(
        { weight: 6, arbitrary: fc.constant(NODES[ips[0].startsWith("10.244.1.") ? 0 : 1]) },
        { weight: 1, arbitrary: fc.constantFrom(...NODES) },
      ),
      serviceAccountName: fc.oneof(
        { weight: 6, arbitrary: fc.constant(name === "p0" || name === "p3" ? "bob" : "default") },
        { weight: 1, arbitrary: fc.constantFrom("bob", "default") },
      ),
      ports: fc.oneof(
        { weight: 6, arbitrary: fc.constant(PORT_SETS[Number(name.slice(1)) % 3]!) },
        { weight: 1, arbitrary: fc.constantFrom(...PORT_SETS) },
      ),
    })
    .map(({ labels: own, nodeName, serviceAccountName, ports }) => ({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name, namespace, labels: own, annotations: { "cni.projectcalico.org/ipAddrs": JSON.stringify(ips) } },
      spec: { nodeName, serviceAccountName, containers: [{ name: "c", image: "none", ports }] },
    }));

const namespace = (name: string): fc.Arbitrary<Manifest> =>
  fc.constantFrom("red", "blue", undefined).map((team) => ({
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name, labels: { "kubernetes.io/metadata.name": name, ...(team === undefined ? {} : { team }) } },
  }));
const account = (of: string, name: string): fc.Arbitrary<Manifest> =>
  fc.constantFrom("admin", "user", undefined).map((role) => ({
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { name, namespace: of, labels: role === undefined ? {} : { role } },
  }));

const networkSet = (kind: string, name: string, of?: string): fc.Arbitrary<Manifest> =>
  fc
    .record({
      set: fc.constantFrom("in", "out"),
      nets: fc.uniqueArray(fc.constantFrom(...NETS[4], ...NETS[6], "10.244.2.12/32"), { maxLength: 4 }),
    })
    .map(({ set, nets }) => ({
      apiVersion: CALICO,
      kind,
      metadata: { name, ...(of === undefined ? {} : { namespace: of }), labels: { set } },
      spec: { nets },
    }));

const tier = (name: string): fc.Arbitrary<Manifest> =>
  fc
    .record({ order: fc.constantFrom(10, 20, 2_000_000), defaultAction: fc.constantFrom("Deny", "Pass") })
    .map((spec) => ({ apiVersion: CALICO, kind: "Tier", metadata: { name }, spec }));

const slice = (service: string, ports: readonly object[], family: Family): fc.Arbitrary<Manifest> =>
  fc
    .uniqueArray(fc.constantFrom(...PODS.map(({ ips }) => ips[family === 4 ? 0 : 1])), { minLength: 1, maxLength: 3 })
    .map((addresses) => ({
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: {
        name: `${service}-${family}`,
        namespace: "a",
        labels: { "kubernetes.io/service-name": service },
      },
      addressType: `IPv${family}`,
      endpoints: addresses.map((address) => ({ addresses: [address] })),
      ports,
    }));

const settings: fc.Arbitrary<Manifest> = fc
  .constantFrom("Accept", "Accept", "Accept", "Drop", "Return")
  .map((defaultEndpointToHostAction) => ({
    apiVersion: CALICO,
    kind: "FelixConfiguration",
    metadata: { name: "default" },
    spec: { defaultEndpointToHostAction },
  }));

/** Everything that is there, each object once. */
export const anyCluster: fc.Arbitrary<Manifest[]> = fc
  .tuple(
    fc.tuple(...NAMESPACES.map(namespace)),
    fc.tuple(...NAMESPACES.flatMap((of) => [account(of, "default"), account(of, "bob")])),
    fc.tuple(...PODS.map(pod)),
    fc.tuple(tier("first"), tier("second"), settings),
    fc.tuple(
      networkSet("GlobalNetworkSet", "g"),
      networkSet("NetworkSet", "n", "a"),
      networkSet("NetworkSet", "n", "b"),
    ),
    fc.tuple(
      ...([4, 6] as const).flatMap((family) => [
        slice("web", [{ name: "http", port: 80, protocol: "TCP" }], family),
        slice(
          "dns",
          [
            { name: "dns", port: 53, protocol: "UDP" },
            { name: "web", port: 8080, protocol: "TCP" },
          ],
          family,
        ),
      ]),
    ),
    fc.uniqueArray(policy, { minLength: 1, maxLength: 8, selector: keyOf }),
  )
  .map((parts) => parts.flat());

/** What tells an object from all others. */
export function keyOf({ apiVersion, kind, metadata }: Manifest): string {
  return `${apiVersion} ${kind} ${metadata.namespace ?? ""}/${metadata.name}`;
}
