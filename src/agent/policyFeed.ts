/** From what the datastore says, and from what is attached to this node, to the updates that the compiler takes in. */
import type { Endpoint as Attached } from "../dataplane/endpoint.ts";
import { formatAddress } from "../ip/address.ts";
import { removalOf, updateOf, type PolicyKindId, type PolicyObject } from "../policy/convert.ts";
import { containerToEndpoint, podEndpointId, podToEndpoint, type ConvertOptions } from "../policy/convertEndpoint.ts";
import type { Update } from "../policy/model.ts";
import type { Kinds } from "../resources/registry.ts";
import type { Pod } from "../resources/workload.ts";

/** Is told of objects that decide about policy. */
export interface PolicyListener {
  /** It is there, as it is now. Returns what it is known by; undefined where it means nothing. */
  put<K extends PolicyKindId>(kind: K, object: Kinds[K]): string | undefined;
  /** What `put` returns of it. */
  idOf<K extends PolicyKindId>(kind: K, object: Kinds[K]): string;
  gone(kind: PolicyKindId, id: string): void;
}

export interface PolicyFeed extends PolicyListener {
  /** A container of this node has its interface and addresses. Its pod is given where the datastore has been asked for it. */
  attach(endpoint: Attached, pod?: Pod): void;
  detach(endpoint: Attached): void;
}

/** One pod of this node: as the datastore has it, and as it is attached. */
interface OwnPod {
  /** As it is followed. */
  seen?: Pod | undefined;
  /** As it was asked for, where what is followed was behind. */
  asked?: Pod | undefined;
  attached?: Attached | undefined;
}

/**
 * Of other nodes' pods the datastore knows the addresses. Of this node's the node itself knows them, before anybody else
 * and until the interface is gone: its pods have an endpoint exactly as long as they are both attached and in the datastore.
 */
export function policyFeed(options: Required<ConvertOptions>, tell: (update: Update) => void): PolicyFeed {
  const { node } = options;
  const own = new Map<string, OwnPod>();

  function changeOwn(id: string, change: Partial<OwnPod>): void {
    const pod: OwnPod = { ...own.get(id), ...change };
    if (pod.seen !== undefined && pod.seen.metadata.uid === pod.asked?.metadata.uid) pod.asked = undefined;
    if (pod.seen === undefined && pod.asked === undefined && pod.attached === undefined) own.delete(id);
    else own.set(id, pod);
    const value = endpointOf(pod);
    tell(value === undefined ? { kind: "endpoint", id } : { kind: "endpoint", id, value });
  }

  function endpointOf({ seen, asked, attached }: OwnPod): ReturnType<typeof podToEndpoint> {
    if (attached === undefined) return undefined;
    // Another pod of the same name may be there already, or still.
    const isSame = (pod: Pod): boolean => attached.podUid === undefined || attached.podUid === pod.metadata.uid;
    const pod = [seen, asked].find((each) => each !== undefined && isSame(each));
    if (pod === undefined) return undefined;
    const found = podToEndpoint(pod, options, attached.addresses.map(formatAddress));
    return found === undefined ? undefined : { ...found, interfaceName: attached.hostInterface };
  }

  const isOwn = (pod: Kinds["Pod"]): boolean => pod.spec.nodeName === node && pod.spec.hostNetwork !== true;

  return {
    put(kind, item) {
      const object = { id: kind, item } as unknown as PolicyObject;
      if (object.id === "Pod" && isOwn(object.item)) {
        const id = podEndpointId(object.item.metadata.namespace, object.item.metadata.name, node);
        changeOwn(id, { seen: object.item });
        return id;
      }
      const update = updateOf(object, options);
      tell(update);
      return update.value === undefined ? undefined : update.id;
    },
    idOf: (kind, item) => removalOf({ id: kind, item } as unknown as PolicyObject, options).id,
    gone(kind, id) {
      if (kind === "Pod" && own.has(id)) changeOwn(id, { seen: undefined });
      else tell({ kind: updateKind(kind), id });
    },
    attach(endpoint, pod) {
      if (endpoint.pod === undefined) {
        const value = bareContainer(endpoint, node);
        return tell({ kind: "endpoint", id: value.id, value });
      }
      const id = podEndpointId(endpoint.namespace, endpoint.pod, node);
      changeOwn(id, { attached: endpoint, ...(pod === undefined ? {} : { asked: pod }) });
    },
    detach(endpoint) {
      if (endpoint.pod === undefined) return tell({ kind: "endpoint", id: bareContainer(endpoint, node).id });
      const id = podEndpointId(endpoint.namespace, endpoint.pod, node);
      // A newer container of the pod may have taken its place.
      if (own.get(id)?.attached?.containerId !== endpoint.containerId) return;
      changeOwn(id, { attached: undefined, asked: undefined });
    },
  };
}

function bareContainer({ containerId, hostInterface, addresses }: Attached, node: string) {
  return containerToEndpoint({
    containerId,
    interfaceName: hostInterface,
    node,
    addresses: addresses.map(formatAddress),
  });
}

function updateKind(kind: PolicyKindId): Update["kind"] {
  switch (kind) {
    case "Tier":
      return "tier";
    case "Profile":
    case "Namespace":
    case "ServiceAccount":
      return "profile";
    case "Pod":
    case "WorkloadEndpoint":
    case "HostEndpoint":
    case "NetworkSet":
    case "GlobalNetworkSet":
      return "endpoint";
    case "EndpointSlice":
      return "slice";
    default:
      return "policy";
  }
}
