import type { Kinds } from "../src/resources/registry.ts";
import type { PolicyNode } from "./policy-node.ts";
import { LOCAL, namespaceAt, POLICIES, podWith, shapeNamed } from "./policy-objects.ts";

/** What the agents of the benchmarks know before anything is measured. */
export type Scene =
  /** A set of `members` clients, which each of the policies lets in. */
  | { readonly of: "clients"; readonly pods: number; readonly policies: number; readonly members: number }
  /** A shape, with so many pods on other nodes. */
  | { readonly of: "shape"; readonly id: string; readonly remote: number }
  /** `pods` pods here, and policies that are spread evenly over them, so that pod 0 has the most of all. */
  | { readonly of: "servers"; readonly pods: number; readonly policies: number };

const NAMESPACE = "ns-0";
const TCP = "TCP";
/** What the pods of `servers` let in. */
export const SERVER_PORTS = [7000, 7001, 7002] as const;

export const localClientPod = (at: number): Kinds["Pod"] => podWith(at, `web-${at}`, NAMESPACE, { app: `web-${at}` });

/** A pod elsewhere, that is a client or is none. */
export function clientPod(at: number, isClient: boolean): Kinds["Pod"] {
  return podWith(LOCAL + at, `client-${at}`, NAMESPACE, { app: "load", role: isClient ? "client" : "idle" });
}

export function clientPolicy(at: number, pods: number, port = 80): Kinds["NetworkPolicy"] {
  return ingressPolicy(`policy-${at}`, `web-${at % pods}`, [
    { from: [{ podSelector: { matchLabels: { role: "client" } } }], ports: [{ protocol: TCP, port }] },
  ]);
}

/** Each lets in a port of its own; the last of each pod, by name, the ports that the benchmark asks for. */
function serverPolicy(at: number, pods: number, isLast: boolean): Kinds["NetworkPolicy"] {
  const ports = isLast
    ? SERVER_PORTS.map((port) => ({ protocol: TCP, port }))
    : [{ protocol: TCP, port: 100 + (at % 900) }];
  return ingressPolicy(`policy-${String(at).padStart(6, "0")}`, `web-${at % pods}`, [
    { from: [{ podSelector: {} }], ports } as Ingress,
  ]);
}

type Ingress = NonNullable<Kinds["NetworkPolicy"]["spec"]["ingress"]>[number];

function ingressPolicy(name: string, app: string, ingress: readonly unknown[]): Kinds["NetworkPolicy"] {
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: { name, namespace: NAMESPACE },
    spec: { podSelector: { matchLabels: { app } }, policyTypes: ["Ingress"], ingress: ingress as Ingress[] },
  };
}

/** Tells the node all of the scene; it is not started yet. */
export function loadScene(node: PolicyNode, scene: Scene): void {
  const { listener } = node.policy;
  switch (scene.of) {
    case "clients": {
      const { pods, policies, members } = scene;
      listener.put("Namespace", namespaceAt(0));
      for (let at = 0; at < pods; at += 1) node.addOwn(localClientPod(at));
      for (let at = 0; at < 2 * members; at += 1) listener.put("Pod", clientPod(at, at < members));
      for (let at = 0; at < policies; at += 1) listener.put("NetworkPolicy", clientPolicy(at, pods));
      return;
    }
    case "shape": {
      const shape = shapeNamed(scene.id);
      for (let at = 0; at < shape.namespaces; at += 1) listener.put("Namespace", namespaceAt(at));
      for (let at = 0; at < LOCAL; at += 1) node.addOwn(shape.pod(at));
      for (let at = 0; at < scene.remote; at += 1) listener.put("Pod", shape.pod(LOCAL + at));
      for (let at = 0; at < POLICIES; at += 1) {
        const object = shape.policy(at);
        if (object.kind === "NetworkPolicy") listener.put(object.kind, object.item);
        else listener.put(object.kind, object.item);
      }
      return;
    }
    case "servers": {
      const { pods, policies } = scene;
      listener.put("Namespace", namespaceAt(0));
      for (let at = 0; at < pods; at += 1) node.addOwn(localClientPod(at));
      for (let at = 0; at < policies; at += 1) {
        listener.put("NetworkPolicy", serverPolicy(at, pods, at + pods >= policies));
      }
    }
  }
}
