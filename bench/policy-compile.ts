import { compiler } from "../src/policy/compile.ts";
import type { Update } from "../src/policy/model.ts";
import { convertKubernetesPolicy } from "../src/policy/convertKubernetes.ts";
import { namespaceToProfile, podToEndpoint } from "../src/policy/convertEndpoint.ts";
import type { Kinds } from "../src/resources/registry.ts";

/**
 * The compiler alone, without a kernel, in the sizes that users of Calico reach: 250,000 endpoints of which 200 are
 * here, 10,000 policies; then changes one by one. `node --expose-gc bench/policy-compile.ts`.
 */
const NODE = "node-0";
const LOCAL = 200;
const CHANGES = 5000;

interface Shape {
  readonly name: string;
  readonly endpoints: number;
  readonly policies: number;
  readonly namespaces: number;
  /** Of so many pods each has the same labels. */
  readonly replicas: number;
  /** All policies in the namespaces of local pods, so that each of them must be compiled. */
  readonly allActive: boolean;
}

const SHAPES: readonly Shape[] = [
  { name: "1,000 namespaces", endpoints: 250_000, policies: 10_000, namespaces: 1000, replicas: 10, allActive: false },
  {
    name: "every pod's labels its own",
    endpoints: 250_000,
    policies: 10_000,
    namespaces: 1000,
    replicas: 1,
    allActive: false,
  },
  {
    name: "every policy applies here",
    endpoints: 250_000,
    policies: 10_000,
    namespaces: 10,
    replicas: 10,
    allActive: true,
  },
];

function pod(shape: Shape, at: number, app = Math.floor(at / shape.replicas)): Kinds["Pod"] {
  const ip = `10.${(at >> 16) & 255}.${(at >> 8) & 255}.${at & 255}`;
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name: `app-${app}-${at}`,
      namespace: `ns-${app % shape.namespaces}`,
      labels: {
        app: `app-${app}`,
        tier: `tier-${app % 7}`,
        "pod-template-hash": `hash-${app}`,
        "app.kubernetes.io/version": `1.${app % 13}`,
      },
    },
    spec: {
      nodeName: at < LOCAL ? NODE : `node-${1 + (at % 1000)}`,
      serviceAccountName: "default",
      containers: [{ name: "main", ports: [{ name: "http", containerPort: 8080, protocol: "TCP" }] }],
    },
    status: { phase: "Running", podIPs: [{ ip }] },
  };
}

function policy(shape: Shape, at: number): Kinds["NetworkPolicy"] {
  const app = shape.allActive ? at % (LOCAL / shape.replicas) : at;
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: { name: `policy-${at}`, namespace: `ns-${app % shape.namespaces}` },
    spec: {
      podSelector: { matchLabels: { app: `app-${app}` } },
      policyTypes: ["Ingress"],
      ingress: [
        {
          from: [
            { podSelector: { matchLabels: { app: `app-${at + shape.namespaces}` } } },
            {
              namespaceSelector: { matchLabels: { team: `team-${at % 100}` } },
              podSelector: { matchLabels: { tier: "tier-1" } },
            },
          ],
          ports: [{ protocol: "TCP", port: 80 + (at % 1000) }],
        },
      ],
    },
  };
}

function namespace(at: number): Kinds["Namespace"] {
  return {
    apiVersion: "v1",
    kind: "Namespace",
    metadata: { name: `ns-${at}`, labels: { team: `team-${at % 100}`, "kubernetes.io/metadata.name": `ns-${at}` } },
  };
}

const OPTIONS = { node: NODE, interfacePrefix: "cali" };

function podUpdate(item: Kinds["Pod"], id: string): Update {
  const value = podToEndpoint(item, OPTIONS);
  return value === undefined ? { kind: "endpoint", id } : { kind: "endpoint", id: value.id, value };
}

function megabytes(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed / 2 ** 20;
}

function measure(shape: Shape): Record<string, string> {
  const before = megabytes();
  const made = compiler(NODE);
  const cpu = process.cpuUsage();
  const start = process.hrtime.bigint();
  for (let at = 0; at < shape.namespaces; at += 1) {
    const value = namespaceToProfile(namespace(at));
    made.update({ kind: "profile", id: value.name, value });
  }
  for (let at = 0; at < shape.endpoints; at += 1) made.update(podUpdate(pod(shape, at), ""));
  const afterPods = process.hrtime.bigint();
  for (let at = 0; at < shape.policies; at += 1) {
    const value = convertKubernetesPolicy(policy(shape, at));
    made.update({ kind: "policy", id: value.id, value });
  }
  const afterPolicies = process.hrtime.bigint();
  const first = made.take();
  const end = process.hrtime.bigint();
  const used = process.cpuUsage(cpu);
  const held = megabytes() - before;
  const peak = process.memoryUsage().rss / 2 ** 20;

  // A remote pod takes the labels of another application: what 1,000 times a second must keep up with.
  const lags: number[] = [];
  for (let i = 0; i < CHANGES; i += 1) {
    const at = LOCAL + ((i * 7919) % (shape.endpoints - LOCAL));
    const item = pod(shape, at);
    const labels = { ...item.metadata.labels, app: `app-${shape.namespaces + (i % 1000)}`, tier: "tier-1" };
    const changed = process.hrtime.bigint();
    made.update(podUpdate({ ...item, metadata: { ...item.metadata, labels } }, ""));
    made.take();
    lags.push(Number(process.hrtime.bigint() - changed) / 1000);
  }
  lags.sort((a, b) => a - b);
  const members = [...made.state().sets.values()].reduce((sum, set) => sum + set.members.length, 0);
  const seconds = (from: bigint, to: bigint): string => `${(Number(to - from) / 1e9).toFixed(2)} s`;
  return {
    shape: shape.name,
    pods: seconds(start, afterPods),
    policies: seconds(afterPods, afterPolicies),
    compile: seconds(afterPolicies, end),
    total: seconds(start, end),
    // On a machine that others use too, this says more than the time on the clock. Collecting garbage is part of it.
    cpu: `${((used.user + used.system) / 1e6).toFixed(2)} s`,
    heap: `${held.toFixed(0)} MB`,
    rss: `${peak.toFixed(0)} MB`,
    "active policies": String(first.policies.size),
    sets: String(made.size().sets),
    members: String(members),
    "change median": `${lags[CHANGES / 2]?.toFixed(1)} µs`,
    "change p99": `${lags[Math.floor(CHANGES * 0.99)]?.toFixed(1)} µs`,
  };
}

const wanted = process.argv[2];
console.table(SHAPES.filter(({ name }) => wanted === undefined || name.includes(wanted)).map(measure));
