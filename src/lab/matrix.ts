import { parseAddress, type Address } from "../ip/address.ts";
import { parseLabelQuery, matchesLabels } from "../resources/labelSelector.ts";
import { matches, parseSelector } from "../resources/selector.ts";
import type { Pod } from "../resources/workload.ts";
import { portsOf } from "./pods.ts";

/** Which connections a probe tries, and how the outcome is shown. */

export type Protocol = "TCP" | "UDP" | "ICMP";

export interface ProbeRequest {
  readonly protocol: Protocol | undefined;
  readonly port: number | undefined;
  /** Which pods connect, and which are connected to; all where absent. */
  readonly from: string | undefined;
  readonly to: string | undefined;
}

/** One connection of the plan. */
export interface Cell {
  readonly from: Pod;
  readonly to: Pod;
  readonly address: Address;
  readonly protocol: Protocol;
  /** 0 for ICMP. */
  readonly port: number;
}

/** One line of `probe -o json`. */
export interface ProbeResult {
  readonly from: string;
  readonly to: string;
  readonly address: string;
  readonly protocol: Protocol;
  readonly port: number;
  readonly connected: boolean;
}

export const podName = (pod: Pod): string => `${pod.metadata.namespace ?? "default"}/${pod.metadata.name}`;

/** Every pair of different pods that run, at each of the target's addresses, on each of its ports. */
export function planProbe(pods: readonly Pod[], request: ProbeRequest): Cell[] {
  const running = pods
    .filter(({ status }) => status?.phase === "Running" && (status.podIPs ?? []).length > 0)
    .toSorted((a, b) => (podName(a) < podName(b) ? -1 : 1));
  const sources = running.filter(podFilter(request.from));
  const targets = running.filter(podFilter(request.to));
  return sources.flatMap((from) =>
    targets
      .filter((to) => to !== from)
      .flatMap((to) => {
        const families = new Set(addressesOf(from).map(({ family }) => family));
        return addressesOf(to)
          .filter(({ family }) => families.has(family))
          .flatMap((address) =>
            targetPorts(to, request).map(({ port, protocol }) => ({ from, to, address, protocol, port })),
          );
      }),
  );
}

function addressesOf({ status }: Pod): Address[] {
  return (status?.podIPs ?? []).map(({ ip }) => parseAddress(ip));
}

/** Without a protocol: the pod's TCP ports, or if it has none, its UDP ports. */
function targetPorts(pod: Pod, { protocol, port }: ProbeRequest): { port: number; protocol: Protocol }[] {
  if (protocol === "ICMP") return [{ port: 0, protocol }];
  if (port !== undefined) return [{ port, protocol: protocol ?? "TCP" }];
  const ports = portsOf(pod);
  const wanted = protocol ?? (ports.some((declared) => declared.protocol === "TCP") ? "TCP" : "UDP");
  return ports.filter((declared) => declared.protocol === wanted);
}

/** `namespace/pod`, labels as kubectl writes them (`app=web`), or a selector of Calico's (`app == 'web'`). */
function podFilter(text: string | undefined): (pod: Pod) => boolean {
  if (text === undefined) return () => true;
  if (/^[^=!\s()]+\/[^=!\s()]+$/.test(text)) return (pod) => podName(pod) === text;
  const labelsOf = (pod: Pod): Record<string, string> => ({
    ...pod.metadata.labels,
    "projectcalico.org/namespace": pod.metadata.namespace ?? "default",
    "projectcalico.org/orchestrator": "k8s",
  });
  try {
    const query = parseLabelQuery(text);
    return (pod) => matchesLabels(query, labelsOf(pod));
  } catch {
    const selector = parseSelector(text);
    return (pod) => matches(selector, labelsOf(pod));
  }
}

/** A row for each source and a column for each target: `.` where every connection works, `X` where none does, `~` between. */
export function formatMatrix(results: readonly ProbeResult[]): string {
  if (results.length === 0) return "no pods to connect\n";
  const sources = [...new Set(results.map(({ from }) => from))];
  const targets = [...new Set(results.map(({ to }) => to))].toSorted();
  const heading = "FROM \\ TO";
  const width = Math.max(...sources.map((name) => name.length), heading.length);
  const outcome = new Map<string, boolean[]>();
  for (const { from, to, connected } of results) {
    const key = `${from} ${to}`;
    outcome.set(key, [...(outcome.get(key) ?? []), connected]);
  }
  const mark = (cells: readonly boolean[] | undefined): string => {
    if (cells === undefined) return " ";
    return cells.every(Boolean) ? "." : cells.some(Boolean) ? "~" : "X";
  };
  const rows = sources.map((from) =>
    `${from.padEnd(width)}  ${targets.map((to, index) => mark(outcome.get(`${from} ${to}`)).padEnd(String(index + 1).length + 1)).join("")}`.trimEnd(),
  );
  const legend = targets.map((name, index) => `  ${index + 1} ${name}`);
  const worked = results.filter(({ connected }) => connected).length;
  return [
    `${heading.padEnd(width)}  ${targets.map((_, index) => `${index + 1} `).join("")}`.trimEnd(),
    ...rows,
    "",
    ...legend,
    "",
    `${worked} of ${results.length} connections work  (. all, ~ some, X none)`,
    "",
  ].join("\n");
}
