import { formatAddress } from "../ip/address.ts";
import type { Pod } from "../resources/workload.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import { formatMatrix, planProbe, podName, type ProbeRequest, type ProbeResult } from "./matrix.ts";
import { probe } from "./probe.io.ts";
import { labTarget } from "./target.io.ts";

/** Tries the connections of the request in a lab and prints what came of them. */
export async function probeLab(
  lab: string,
  request: ProbeRequest & { readonly timeoutMs: number; readonly json: boolean },
  output: { write(text: string): unknown },
): Promise<number> {
  const results = await probeResults(lab, request, request.timeoutMs);
  output.write(request.json ? `${JSON.stringify(results, undefined, 1)}\n` : formatMatrix(results));
  return 0;
}

/** The same, for those who go on with the outcome. */
export async function probeResults(lab: string, request: ProbeRequest, timeoutMs: number): Promise<ProbeResult[]> {
  const datastore = labTarget(lab).openDatastore();
  let pods: Pod[];
  try {
    pods = (await datastore.list("Pod")).items;
  } finally {
    datastore.close();
  }
  const cells = planProbe(pods, request);
  const netnsOf = ({ spec, metadata }: Pod): string =>
    spec.hostNetwork === true
      ? memberNamespace(lab, spec.nodeName ?? "")
      : podNamespace(lab, metadata.namespace ?? "default", metadata.name);
  const connected = probe(
    cells.map(({ from, address, protocol, port }) => ({ netns: netnsOf(from), address, protocol, port })),
    timeoutMs,
  );
  return cells.map(({ from, to, address, protocol, port }, index) => ({
    from: podName(from),
    to: podName(to),
    address: formatAddress(address),
    protocol,
    port,
    connected: connected[index] ?? false,
  }));
}
