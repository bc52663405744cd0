import type { PodFacts } from "../cni/node.ts";
import type { Datastore } from "../datastore/datastore.ts";
import type { Namespace } from "../resources/service.ts";
import type { Pod } from "../resources/workload.ts";

interface Known {
  get(kind: "Pod", name: string, namespace: string): Pod | undefined;
  get(kind: "Namespace", name: string): Namespace | undefined;
}

/** On the object that stands in the API server for a pod of a node's own manifests: the uid that its runtime knows. */
const STATIC_POD = "kubernetes.io/config.mirror";

/**
 * What the CNI plugin asks of a pod: from this node's copy, or where that is behind (the runtime has the pod from the
 * same API server, and may be quicker than the watch) from the datastore. With a uid, another pod of the same name does not count.
 */
export async function podFacts(
  known: Known,
  datastore: Pick<Datastore, "get">,
  namespace: string,
  name: string,
  uid: string | undefined,
): Promise<PodFacts | undefined> {
  const isMeant = (pod: Pod | undefined): pod is Pod =>
    pod !== undefined &&
    (uid === undefined || uid === pod.metadata.uid || uid === pod.metadata.annotations?.[STATIC_POD]);
  const copy = known.get("Pod", name, namespace);
  const pod = isMeant(copy) ? copy : await datastore.get("Pod", name, namespace);
  if (!isMeant(pod)) return undefined;
  const home = known.get("Namespace", namespace) ?? (await datastore.get("Namespace", namespace));
  return {
    uid: pod.metadata.uid ?? "",
    annotations: pod.metadata.annotations ?? {},
    namespaceName: namespace,
    namespaceLabels: home?.metadata.labels ?? {},
    namespaceAnnotations: home?.metadata.annotations ?? {},
  };
}
