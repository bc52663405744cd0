import type { Endpoint } from "../dataplane/endpoint.ts";
import { isDatastoreError, type Datastore, type MergePatch } from "../datastore/datastore.ts";
import { formatPrefix, hostPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import type { Pod } from "../resources/workload.ts";

/** Writes onto each Kubernetes pod what other nodes need to know of it: its addresses, and which container has them. */
export interface Publisher {
  /** The pod has these addresses now. Returns at once; it is written, and tried again, in the background. */
  publish(endpoint: Endpoint): void;
  /** The pod has lost its addresses. */
  retract(endpoint: Endpoint): void;
  /** Resolves when nothing is left to write. */
  settled(): Promise<void>;
  close(): void;
}

const POD_IP = "cni.projectcalico.org/podIP";
const POD_IPS = "cni.projectcalico.org/podIPs";
const CONTAINER_ID = "cni.projectcalico.org/containerID";

const RETRY_MS = { first: 100, longest: 10_000 };

export function createPublisher(datastore: Pick<Datastore, "patch">, onError: (message: string) => void): Publisher {
  /** The last wish for each pod; what came before it is of no interest any more. */
  const wishes = new Map<string, { endpoint: Endpoint; annotations: Record<string, string> }>();
  const working = new Map<string, Promise<void>>();
  const abort = new AbortController();

  function wish(endpoint: Endpoint, annotations: Record<string, string>): void {
    if (endpoint.pod === undefined || endpoint.namespace === undefined) return;
    const key = `${endpoint.namespace}/${endpoint.pod}`;
    wishes.set(key, { endpoint, annotations });
    if (!working.has(key))
      working.set(
        key,
        work(key).finally(() => working.delete(key)),
      );
  }

  async function work(key: string): Promise<void> {
    let retryMs = RETRY_MS.first;
    await new Promise(setImmediate); // the runtime, which waits for the pod, has its answer first
    for (let next = wishes.get(key); next !== undefined && !abort.signal.aborted; next = wishes.get(key)) {
      try {
        await write(next.endpoint, { metadata: { annotations: next.annotations } });
        if (wishes.get(key) === next) wishes.delete(key);
      } catch (error) {
        onError(`cannot write the addresses of pod ${key}: ${messageOf(error)}; next try in ${retryMs} ms`);
        await pause(retryMs, abort.signal);
        retryMs = Math.min(retryMs * 2, RETRY_MS.longest);
      }
    }
  }

  /** A pod that is gone, or is another one of the same name, needs nothing from us. */
  async function write({ pod, namespace, podUid }: Endpoint, patch: MergePatch): Promise<void> {
    try {
      await datastore.patch("Pod", pod!, namespace, patch, podUid === undefined ? {} : { uid: podUid });
    } catch (error) {
      if (!isDatastoreError(error, "not-found") && !isDatastoreError(error, "conflict")) throw error;
    }
  }

  return {
    publish: (endpoint) => wish(endpoint, podAnnotations(endpoint)),
    retract: (endpoint) => wish(endpoint, { [POD_IP]: "", [POD_IPS]: "" }),
    async settled() {
      while (working.size > 0) await Promise.all(working.values());
    },
    close: () => abort.abort(),
  };
}

/** The annotations of Calico's CNI plugin. */
function podAnnotations({ addresses, containerId }: Endpoint): Record<string, string> {
  const texts = addresses.map((address) => formatPrefix(hostPrefix(address)));
  return { [POD_IP]: texts[0] ?? "", [POD_IPS]: texts.join(","), [CONTAINER_ID]: containerId };
}

/** Whether the pod says already what `publish` would write. */
export function isPublished(pod: Pod, endpoint: Endpoint): boolean {
  const present = pod.metadata.annotations ?? {};
  return Object.entries(podAnnotations(endpoint)).every(([name, value]) => present[name] === value);
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
