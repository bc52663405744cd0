import { KIND, type Kinds } from "../src/resources/registry.ts";

/** Clusters of the sizes that users of Calico reach, as objects: of 250,000 pods elsewhere, 200 here, 10,000 policies. */
export interface Shape {
  readonly name: string;
  /** Short, for the command line. */
  readonly id: string;
  readonly what: string;
  readonly namespaces: number;
  pod(at: number): Kinds["Pod"];
  policy(at: number): PolicyObject;
}

export type PolicyObject =
  | { readonly kind: "NetworkPolicy"; readonly item: Kinds["NetworkPolicy"] }
  | { readonly kind: "GlobalNetworkPolicy"; readonly item: Kinds["GlobalNetworkPolicy"] };

export const NODE = "node-0";
/** The first pods of a shape are this node's own. */
export const LOCAL = 200;
export const REMOTE = 250_000;
export const POLICIES = 10_000;

const addressAt = (at: number): string => `10.${(at >> 16) & 255}.${(at >> 8) & 255}.${at & 255}`;

interface AppShape {
  readonly namespaces: number;
  /** Of so many pods each has the same labels. */
  readonly replicas: number;
  /** All policies in the namespaces of local pods, so that each of them must be compiled. */
  readonly allActive: boolean;
}

/** Pods in deployments with the usual labels, and policies for each. */
function appPod({ namespaces, replicas }: AppShape, at: number): Kinds["Pod"] {
  const app = Math.floor(at / replicas);
  const labels = {
    app: `app-${app}`,
    tier: `tier-${app % 7}`,
    "pod-template-hash": `hash-${app}`,
    "app.kubernetes.io/version": `1.${app % 13}`,
  };
  return podWith(at, `app-${app}-${at}`, `ns-${app % namespaces}`, labels);
}

/** One pod; what it takes to be in the datastore and on the network. */
export function podWith(
  at: number,
  name: string,
  namespace: string,
  labels: Readonly<Record<string, string>>,
): Kinds["Pod"] {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace, labels: { ...labels } },
    spec: {
      nodeName: at < LOCAL ? NODE : `node-${1 + (at % 1000)}`,
      serviceAccountName: "default",
      containers: [{ name: "main", ports: [{ name: "http", containerPort: 8080, protocol: "TCP" }] }],
    },
    status: { phase: "Running", podIPs: [{ ip: addressAt(at) }] },
  };
}

function appPolicy({ namespaces, replicas, allActive }: AppShape, at: number): PolicyObject {
  const app = allActive ? at % (LOCAL / replicas) : at;
  return {
    kind: "NetworkPolicy",
    item: {
      apiVersion: "networking.k8s.io/v1",
      kind: "NetworkPolicy",
      metadata: { name: `policy-${at}`, namespace: `ns-${app % namespaces}` },
      spec: {
        podSelector: { matchLabels: { app: `app-${app}` } },
        policyTypes: ["Ingress"],
        ingress: [
          {
            from: [
              { podSelector: { matchLabels: { app: `app-${at + namespaces}` } } },
              {
                namespaceSelector: { matchLabels: { team: `team-${at % 100}` } },
                podSelector: { matchLabels: { tier: "tier-1" } },
              },
            ],
            ports: [{ protocol: "TCP", port: 80 + (at % 1000) }],
          },
        ],
      },
    },
  };
}

export function namespaceAt(at: number): Kinds["Namespace"] {
  return {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: `ns-${at}`, labels: { team: `team-${at % 100}`, "kubernetes.io/metadata.name": `ns-${at}` } },
  };
}

/** Felix's calc_graph_bench_test.go has 31 such labels, some of them twice; each endpoint has one. */
const MARKERS = ["", "x", "yx"].flatMap((prefix) =>
  ["MyMarkerLabel", "FOO_BAR", "BIFF_BOP", "calico/FizzBuzz", "calico/BoffBip", "calico/Bazzle"]
    .concat("calico/Razzle", "calico/DoopDeeDoo", "calico/SOME_LABEL", "calico/BORED_NOW")
    .map((name) => prefix + name),
);
const marker = (at: number): string => MARKERS[at % MARKERS.length]!;
const MARKER_RULES = 5;

/** Some 40,000 combinations of labels. */
function markedPod(at: number): Kinds["Pod"] {
  const cycles = [10, 11, 20, 30, 40].map((length) => [`one-in-${length}`, `value-${at % length}`]);
  const labels = { ...(Object.fromEntries(cycles) as Record<string, string>), [marker(at)]: "true" };
  return podWith(at, `wep-${at}`, `ns-${at % 100}`, labels);
}

/** Each applies to one endpoint in 30, each of its five rules asks for a thirtieth of the cluster. */
function markerPolicy(at: number): PolicyObject {
  return {
    kind: "GlobalNetworkPolicy",
    item: KIND.GlobalNetworkPolicy.parse({
      apiVersion: "projectcalico.org/v3",
      kind: "GlobalNetworkPolicy",
      metadata: { name: `tag-pol-${at}` },
      spec: {
        selector: `has(${marker(at)})`,
        types: ["Ingress"],
        ingress: Array.from({ length: MARKER_RULES }, (_, rule) => ({
          action: "Allow",
          source: { selector: `has(${marker(at + rule)})` },
        })),
      },
    }),
  };
}

function appShape(id: string, name: string, what: string, of: AppShape): Shape {
  return { id, name, what, namespaces: of.namespaces, pod: (at) => appPod(of, at), policy: (at) => appPolicy(of, at) };
}

export const SHAPES: readonly Shape[] = [
  {
    id: "felix",
    name: "Felix's own benchmark",
    what: "labels, policies and rules of calc_graph_bench_test.go: all policies apply here, with five rules each",
    namespaces: 100,
    pod: markedPod,
    policy: markerPolicy,
  },
  appShape("namespaces", "1,000 namespaces", "deployments of ten pods; twenty policies apply here", {
    namespaces: 1000,
    replicas: 10,
    allActive: false,
  }),
  appShape("own-labels", "every pod's labels its own", "as before, and no two pods have the same labels", {
    namespaces: 1000,
    replicas: 1,
    allActive: false,
  }),
  appShape(
    "all-apply",
    "every policy applies here",
    "deployments of ten pods in ten namespaces, 500 policies for each",
    {
      namespaces: 10,
      replicas: 10,
      allActive: true,
    },
  ),
];

export function shapeNamed(id: string): Shape {
  const shape = SHAPES.find((one) => one.id === id);
  if (shape === undefined)
    throw new Error(`there is no shape ${id}; there are ${SHAPES.map((one) => one.id).join(", ")}`);
  return shape;
}
