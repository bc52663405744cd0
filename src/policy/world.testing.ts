/** Worlds in a few lines, for tests. */
import assert from "node:assert/strict";
import { KIND, kindOf } from "../resources/registry.ts";
import { parseManifest } from "../resources/yaml.ts";
import { isPolicyKind, updateOf, type PolicyObject } from "./convert.ts";
import { evaluate, type Evaluation } from "./evaluate.ts";
import type { Flow, Party } from "./flow.ts";
import { PROTOCOL, type HostInterface, type Update } from "./model.ts";
import { applyUpdate, emptyWorld, type PolicySettings, type World } from "./world.ts";

export const SETTINGS: PolicySettings = {
  defaultEndpointToHostAction: "Drop",
  failsafeInboundHostPorts: [{ protocol: "TCP", port: 22 }],
  failsafeOutboundHostPorts: [{ protocol: "UDP", port: 53 }],
  allowVXLANPacketsFromWorkloads: false,
  allowIPIPPacketsFromWorkloads: false,
  vxlanPort: 4789,
};

/** The objects of a manifest, checked as the datastore would. */
export function objectsOf(manifest: string): PolicyObject[] {
  return parseManifest(manifest, "test").map(({ object }) => {
    const id = kindOf(String(object["apiVersion"]), String(object["kind"]));
    assert.ok(id !== undefined && isPolicyKind(id), `${String(object["kind"])} means nothing to policy`);
    return { id, item: KIND[id].parse(object) } as PolicyObject;
  });
}

export function updatesOf(manifest: string): Update[] {
  return objectsOf(manifest).map((object) => updateOf(object, { interfacePrefix: "cali" }));
}

interface WorldOptions {
  readonly settings?: Partial<PolicySettings>;
  readonly interfaces?: Readonly<Record<string, readonly HostInterface[]>>;
}

/** A world of objects; each part is a manifest, or the short form of a namespace or pod that `line` describes. */
export function worldOf(parts: readonly string[], { settings = {}, interfaces = {} }: WorldOptions = {}): World {
  const world = emptyWorld({ ...SETTINGS, ...settings });
  for (const part of parts) {
    for (const update of updatesOf(part.includes("apiVersion") ? part : line(part))) applyUpdate(world, update);
  }
  for (const [node, list] of Object.entries(interfaces)) world.interfaces.set(node, list);
  return world;
}

/**
 * `namespace shop team=a`, or `pod shop/web 10.0.0.1 app=web @node2 sa=bob http:TCP:8080`. A pod without a node is on
 * node1.
 */
export function line(text: string): string {
  const [kind, name = "", ...words] = text.split(/\s+/);
  const labels = words.filter((word) => word.includes("=") && !word.startsWith("sa="));
  const labelText = JSON.stringify(Object.fromEntries(labels.map((label) => label.split("="))));
  if (kind === "namespace") return `{apiVersion: v1, kind: Namespace, metadata: {name: ${name}, labels: ${labelText}}}`;
  assert.equal(kind, "pod", text);
  const [namespace, pod] = name.split("/");
  const node = words.find((word) => word.startsWith("@"))?.slice(1) ?? "node1";
  const account = words.find((word) => word.startsWith("sa="))?.slice(3) ?? "default";
  const ports = words.filter((word) => /^[a-z-]+:[A-Z]+:\d+$/.test(word)).map((word) => word.split(":"));
  const ips = words.filter((word) => /^[0-9a-f:.]+$/.test(word) && /[:.]/.test(word));
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: pod, namespace, labels: JSON.parse(labelText) as unknown },
    spec: {
      nodeName: node,
      serviceAccountName: account,
      containers: [
        {
          name: "main",
          ports: ports.map(([portName, protocol, port]) => ({ name: portName, protocol, containerPort: Number(port) })),
        },
      ],
    },
    status: { podIPs: ips.map((ip) => ({ ip })) },
  });
}

/** `shop/web` is a pod, `@node1` a process of that node, `hep/x` an endpoint, anything else an address. */
export function partyOf(world: World, text: string): Party {
  if (text.startsWith("@")) {
    const node = text.slice(1);
    return { node, address: world.interfaces.get(node)?.[0]?.addresses[0] ?? "192.0.2.254" };
  }
  if (world.endpoints.has(text)) return { endpoint: text };
  const [namespace, name] = text.split("/");
  const pod = [...world.endpoints.values()].find(
    (endpoint) => endpoint.kind === "workload" && endpoint.namespace === namespace && endpoint.name === name,
  );
  return pod === undefined ? { address: text } : { endpoint: pod.id };
}

/** `TCP/80`, `ICMP/8/0`, `47`. */
export function flowOf(world: World, from: string, to: string, what: string): Flow {
  const [name = "", first, second] = what.split("/");
  const protocol = name in PROTOCOL ? PROTOCOL[name as keyof typeof PROTOCOL] : Number(name);
  const isIcmp = name.startsWith("ICMP");
  return {
    source: partyOf(world, from),
    destination: partyOf(world, to),
    protocol,
    ...(isIcmp ? { icmp: { type: Number(first ?? 8), code: Number(second ?? 0) } } : {}),
    ...(!isIcmp && first !== undefined ? { destinationPort: Number(first), sourcePort: Number(second ?? 40000) } : {}),
  };
}

export function ask(world: World, from: string, to: string, what: string): Evaluation {
  return evaluate(world, flowOf(world, from, to, what));
}

/** Checks lines such as `shop/web -> shop/db TCP/5432 yes`. */
export function expectFlows(world: World, table: string): void {
  for (const row of table.split("\n").map((text) => text.trim())) {
    if (row === "") continue;
    const parts = /^(\S+) -> (\S+) (\S+) (yes|no)$/.exec(row);
    assert.ok(parts !== null, `cannot read "${row}"`);
    const [, from = "", to = "", what = "", expected] = parts;
    const evaluation = ask(world, from, to, what);
    const why = JSON.stringify(evaluation.steps.at(-1)?.decision);
    assert.equal(evaluation.allowed ? "yes" : "no", expected, `${from} -> ${to} ${what}: ${why}`);
  }
}
