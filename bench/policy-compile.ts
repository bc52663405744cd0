import { compiler } from "../src/policy/compile.ts";
import { type PolicyObject, updateOf } from "../src/policy/convert.ts";
import { LOCAL, namespaceAt, NODE, POLICIES, REMOTE, SHAPES, type Shape } from "./policy-objects.ts";

/**
 * The compiler alone, without a kernel, with the clusters of policy-objects.ts; then changes one by one.
 * `node --expose-gc bench/policy-compile.ts [SHAPE]`.
 */
const CHANGES = 5000;
const OPTIONS = { node: NODE, interfacePrefix: "cali" };

function megabytes(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed / 2 ** 20;
}

function measure(shape: Shape): Record<string, string> {
  const before = megabytes();
  const made = compiler(NODE);
  const tell = (object: PolicyObject): void => made.update(updateOf(object, OPTIONS));
  const cpu = process.cpuUsage();
  const start = process.hrtime.bigint();
  for (let at = 0; at < shape.namespaces; at += 1) tell({ id: "Namespace", item: namespaceAt(at) });
  for (let at = 0; at < LOCAL + REMOTE; at += 1) tell({ id: "Pod", item: shape.pod(at) });
  const afterPods = process.hrtime.bigint();
  for (let at = 0; at < POLICIES; at += 1) {
    const { kind, item } = shape.policy(at);
    tell({ id: kind, item } as PolicyObject);
  }
  const afterPolicies = process.hrtime.bigint();
  const first = made.take();
  const end = process.hrtime.bigint();
  const used = process.cpuUsage(cpu);
  const held = megabytes() - before;
  const peak = process.memoryUsage().rss / 2 ** 20;

  // A remote pod takes the labels of another: what 1,000 times a second must keep up with.
  const lags: number[] = [];
  for (let i = 0; i < CHANGES; i += 1) {
    const item = shape.pod(LOCAL + ((i * 7919) % REMOTE));
    const { labels } = shape.pod(LOCAL + ((i * 104_729) % REMOTE)).metadata;
    const changed = process.hrtime.bigint();
    tell({ id: "Pod", item: { ...item, metadata: { ...item.metadata, ...(labels && { labels }) } } });
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
console.table(SHAPES.filter(({ id }) => wanted === undefined || id === wanted).map(measure));
