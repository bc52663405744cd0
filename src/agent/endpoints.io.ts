import type { EndpointRegister } from "../cni/node.ts";
import { familiesOf, type Endpoint } from "../dataplane/endpoint.ts";
import { createPodInterfaces, type PodInterfaces } from "../dataplane/podInterfaces.io.ts";
import { workloadRoute } from "../dataplane/routes.ts";
import type { RouteTable } from "../dataplane/routeTable.io.ts";
import type { Address } from "../ip/address.ts";
import { parseInterfaceAddress } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { hostInterfaceName } from "../resources/names.ts";
import type { Pod } from "../resources/workload.ts";
import { isPublished, type Publisher } from "./publisher.io.ts";
import type { EndpointFiles } from "./register.io.ts";

/** The pods of this node: known, in the kernel, and written onto their Kubernetes objects. */
export interface Endpoints extends EndpointRegister {
  readonly interfaces: PodInterfaces;
  /** What the names of pods' interfaces begin with. */
  readonly interfacePrefix: string;
  /** Whether there are to be routes through the interface. */
  isInUse(hostInterface: string): boolean;
  /** Takes back into care what an earlier agent left: the routes of every endpoint whose interface is there. */
  adopt(): void;
  /**
   * Deals with interfaces that no endpoint is known for, once the pods are known: those of running pods were set up by
   * Calico and become ours; the others are what is left of an ADD that was never answered, and go.
   */
  sweep(pods: readonly Pod[]): Promise<void>;
  /** Writes once more what the pods' objects do not say, or say wrongly. */
  republish(podOf: (namespace: string, pod: string) => Pod | undefined): void;
}

/** What endpoints may do, in the kernel. */
export interface EndpointPolicy {
  /** An earlier agent has left it. */
  adopted(endpoint: Endpoint): void;
  /** It is about to be there. What its rules need besides its addresses is brought into the kernel, where that is known. */
  prepare(endpoint: Endpoint): void;
  /** Resolves when the kernel has its rules; rejects where that cannot be. */
  admit(endpoint: Endpoint): Promise<void>;
  /** It is gone. */
  dismiss(endpoint: Endpoint): void;
}

export interface EndpointsOptions {
  readonly rtnetlink: Rtnetlink;
  readonly files: EndpointFiles;
  readonly routeTable: RouteTable;
  readonly publisher: Publisher;
  readonly policy: EndpointPolicy;
  readonly interfacePrefix: string;
  readonly isWorkloadInterface: (name: string) => boolean;
  readonly routeProtocol: () => number;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

export function createEndpoints(options: EndpointsOptions): Endpoints {
  const { rtnetlink, files, routeTable, publisher, policy, interfacePrefix, isWorkloadInterface, routeProtocol, log } =
    options;
  const sourceOf = (hostInterface: string): string => `endpoint ${hostInterface}`;
  const interfaces = createPodInterfaces({
    rtnetlink,
    routeProtocol,
    onRoutes: (hostInterface, routes) => routeTable.want(sourceOf(hostInterface), "agent", routes),
    onError: (error) => log("warn", "an interface could not be removed", { reason: messageOf(error) }),
  });

  function wantRoutes({ hostInterface, addresses }: Endpoint, device: number): void {
    const routes = addresses.map((address) => workloadRoute(address, device, routeProtocol()));
    routeTable.want(sourceOf(hostInterface), "agent", routes);
  }

  /** The endpoint that Calico's plugin made for a pod, from the annotations that it left. */
  function inherited(pod: Pod, hostInterface: string, mtu: number): Endpoint | undefined {
    const { name, namespace = "default", uid, annotations = {} } = pod.metadata;
    const containerId = annotations["cni.projectcalico.org/containerID"];
    const texts = (
      annotations["cni.projectcalico.org/podIPs"] ??
      annotations["cni.projectcalico.org/podIP"] ??
      ""
    ).split(",");
    let addresses: Address[];
    try {
      addresses = texts.map((text) => parseInterfaceAddress(text).address);
    } catch {
      return undefined;
    }
    if (containerId === undefined || familiesOf(addresses).length === 0) return undefined;
    const network = "k8s-pod-network";
    const podFields = { namespace, pod: name, ...(uid === undefined ? {} : { podUid: uid }) };
    return {
      ...podFields,
      containerId,
      podInterface: "eth0",
      hostInterface,
      mac: "",
      mtu,
      addresses,
      netns: "",
      network,
    };
  }

  return {
    interfaces,
    interfacePrefix,
    isInUse: (hostInterface) => routeTable.has(sourceOf(hostInterface)),
    find: files.find,
    findByHostInterface: files.findByHostInterface,
    list: files.list,
    async prepare(endpoint) {
      // The kernel keeps this thread for a while: what was begun before is sent first.
      await new Promise(setImmediate);
      policy.prepare(endpoint);
    },
    async add(endpoint) {
      await policy.admit(endpoint);
      files.add(endpoint);
      publisher.publish(endpoint);
    },
    remove(endpoint) {
      policy.dismiss(endpoint);
      if (files.find(endpoint.containerId, endpoint.podInterface) !== undefined) publisher.retract(endpoint);
      files.remove(endpoint);
      return Promise.resolve();
    },
    adopt() {
      for (const endpoint of files.list()) policy.adopted(endpoint);
      for (const link of rtnetlink.links()) {
        const endpoint = files.findByHostInterface(link.name);
        if (endpoint !== undefined) wantRoutes(endpoint, link.index);
      }
    },
    async sweep(pods) {
      for (const link of rtnetlink.links()) {
        if (!isWorkloadInterface(link.name) || files.findByHostInterface(link.name) !== undefined) continue;
        const pod = pods.find(
          ({ metadata }) =>
            hostInterfaceName(metadata.namespace ?? "default", metadata.name, interfacePrefix) === link.name,
        );
        const endpoint = pod === undefined ? undefined : inherited(pod, link.name, link.mtu);
        if (endpoint === undefined) {
          log("info", "an interface that belongs to no pod is removed", { interface: link.name });
          await interfaces.removeLink(link.name);
        } else {
          log("info", "a pod's interface is taken over", {
            interface: link.name,
            pod: `${endpoint.namespace}/${endpoint.pod}`,
          });
          files.add(endpoint);
          policy.adopted(endpoint);
          wantRoutes(endpoint, link.index);
        }
      }
    },
    republish(podOf) {
      for (const endpoint of files.list()) {
        if (endpoint.pod === undefined || endpoint.namespace === undefined) continue;
        const pod = podOf(endpoint.namespace, endpoint.pod);
        const isSame = pod !== undefined && (endpoint.podUid === undefined || endpoint.podUid === pod.metadata.uid);
        if (isSame && !isPublished(pod, endpoint)) publisher.publish(endpoint);
      }
    },
  };
}
