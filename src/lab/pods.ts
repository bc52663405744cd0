import type { Node } from "../resources/node.ts";
import type { Pod } from "../resources/workload.ts";

/** A port that a pod of the lab answers on. */
export interface PodPort {
  readonly port: number;
  readonly protocol: "TCP" | "UDP";
}

const BOTH = ["TCP", "UDP"] as const;

/** What a pod that declares no port answers on. */
const USUAL_PORTS: readonly PodPort[] = [80, 81].flatMap((port) => BOTH.map((protocol) => ({ port, protocol })));

/** The TCP and UDP ports that the pod's containers declare, each once. */
export function portsOf(pod: Pod, otherwise: readonly PodPort[] = USUAL_PORTS): readonly PodPort[] {
  const ports = new Map<string, PodPort>();
  for (const { containerPort, protocol } of pod.spec.containers.flatMap((container) => container.ports ?? [])) {
    if (protocol === "TCP" || protocol === "UDP")
      ports.set(`${protocol} ${containerPort}`, { port: containerPort, protocol });
  }
  return ports.size === 0 ? otherwise : [...ports.values()];
}

/**
 * The node for a pod that names none: of those that its nodeSelector allows, the one with the fewest pods, by name where
 * they are equal. Undefined where no node fits.
 */
export function chooseNode(pod: Pod, nodes: readonly Node[], podsOn: ReadonlyMap<string, number>): string | undefined {
  const wanted = Object.entries(pod.spec.nodeSelector ?? {});
  const fitting = nodes
    .filter(
      ({ metadata, spec }) =>
        spec.unschedulable !== true && wanted.every(([key, value]) => metadata.labels?.[key] === value),
    )
    .map(({ metadata }) => metadata.name);
  return fitting.toSorted((a, b) => (podsOn.get(a) ?? 0) - (podsOn.get(b) ?? 0) || (a < b ? -1 : 1))[0];
}
