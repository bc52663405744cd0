import { kubernetesDatastore } from "../datastore/client.io.ts";
import { isDatastoreError, type Datastore } from "../datastore/datastore.ts";
import type { ApiServerAddress } from "../datastore/http.io.ts";
import { fromKubeconfig } from "../datastore/kubeconfig.io.ts";
import { fromServiceAccount } from "../datastore/serviceAccount.io.ts";
import { Failure } from "../lib/errors.ts";
import type { Node } from "../resources/node.ts";

/** Kubernetes' nodes, in the form that flannel's subnet manager asks for them: `NodeStore` of flannel/kubeManager.ts. */

interface NodeRecord {
  readonly name: string;
  readonly podCidrs: readonly string[];
  readonly annotations: Readonly<Record<string, string>>;
}

const CONDITION = { type: "NetworkUnavailable", status: "False", reason: "FlannelIsUp" } as const;
/** Somebody else's heartbeat may come in between. */
const MAX_ATTEMPTS = 5;

export function nodeStore(datastore: Datastore) {
  return {
    async get(name: string): Promise<NodeRecord | undefined> {
      const node = await datastore.get("Node", name);
      return node && recordOf(node);
    },
    async list(): Promise<{ nodes: NodeRecord[]; version: string }> {
      const { items, resourceVersion } = await datastore.list("Node");
      return { nodes: items.map(recordOf), version: resourceVersion };
    },
    async *watch(version: string, signal: AbortSignal) {
      for await (const event of datastore.watch("Node", { resourceVersion: version, signal })) {
        if (event.type === "bookmark") continue;
        const type = event.type === "deleted" ? ("deleted" as const) : ("changed" as const);
        yield { type, node: recordOf(event.object) };
      }
    },
    async annotate(name: string, annotations: Readonly<Record<string, string>>): Promise<void> {
      await datastore.patch("Node", name, undefined, { metadata: { annotations } });
    },
    async networkIsUp(name: string): Promise<void> {
      for (let attempt = 1; ; attempt += 1) {
        const node = await datastore.get("Node", name);
        if (node === undefined) return;
        const conditions = node.status?.conditions ?? [];
        const present = conditions.find(({ type }) => type === CONDITION.type);
        if (present?.status === CONDITION.status && present.reason === CONDITION.reason) return;
        const now = new Date().toISOString().replace(/\.\d+Z$/, "Z");
        const own = {
          ...CONDITION,
          message: "Flannel is running on this node",
          lastTransitionTime: now,
          lastHeartbeatTime: now,
        };
        const others = conditions.filter(({ type }) => type !== CONDITION.type);
        try {
          await datastore.updateStatus("Node", { ...node, status: { ...node.status, conditions: [...others, own] } });
          return;
        } catch (error) {
          if (!isDatastoreError(error, "conflict") || attempt >= MAX_ATTEMPTS) throw error;
        }
      }
    },
  };
}

function recordOf({ metadata, spec }: Node): NodeRecord {
  const { podCIDRs, podCIDR } = spec;
  return {
    name: metadata.name ?? "",
    podCidrs: podCIDRs ?? (podCIDR === undefined ? [] : [podCIDR]),
    annotations: metadata.annotations ?? {},
  };
}

/** The cluster that flanneld's flags, or its pod, name, and the node that this is. Throws `Failure` where nothing does. */
export async function openFlannelKubernetes(
  { apiUrl, kubeconfig }: { readonly apiUrl?: string; readonly kubeconfig?: string },
  environment: NodeJS.ProcessEnv,
) {
  const datastore = kubernetesDatastore(findServer(apiUrl, kubeconfig, environment));
  try {
    const nodeName = await findNode(datastore, environment);
    return { nodes: nodeStore(datastore), nodeName, close: () => datastore.close() };
  } catch (error) {
    datastore.close();
    throw error;
  }
}

function findServer(
  apiUrl: string | undefined,
  kubeconfig: string | undefined,
  environment: NodeJS.ProcessEnv,
): ApiServerAddress {
  if (kubeconfig !== undefined) return fromKubeconfig(kubeconfig).address;
  if (apiUrl !== undefined) return { url: apiUrl };
  const socketPath = environment["CARACAL_API_SOCKET"];
  if (socketPath !== undefined && socketPath !== "") return { socketPath };
  const inCluster = fromServiceAccount(environment);
  if (inCluster !== undefined) return inCluster;
  throw new Failure(
    "no-api-server",
    "-kube-subnet-mgr: no API server is named (-kubeconfig-file, -kube-api-url), and this is no pod that would know one",
  );
}

/** `NODE_NAME`, or the node that the pod `POD_NAME` in `POD_NAMESPACE` runs on. */
async function findNode(datastore: Datastore, environment: NodeJS.ProcessEnv): Promise<string> {
  const { NODE_NAME: node, POD_NAME: pod, POD_NAMESPACE: namespace } = environment;
  if (node) return node;
  if (!pod || !namespace) {
    throw new Failure("no-node", "-kube-subnet-mgr: neither NODE_NAME nor POD_NAME and POD_NAMESPACE are set");
  }
  const found = (await datastore.get("Pod", pod, namespace))?.spec.nodeName;
  if (found !== undefined) return found;
  throw new Failure("no-node", `-kube-subnet-mgr: pod ${namespace}/${pod} is on no node`);
}
