/** Where things are: Kubernetes' Namespace, ServiceAccount, Service and EndpointSlice. */
import { formatAddress, parseAddress } from "../ip/address.ts";
import { defineKind, type ItemOf } from "./define.ts";
import { cidr, ipAddress, portNumber, rulePort } from "./fields.ts";
import { labelName, portName, serviceName } from "./names.ts";
import {
  anything,
  arrayOf,
  boolean,
  int,
  mapOf,
  object,
  oneOf,
  opaque,
  optional,
  string,
  text,
  withDefault,
} from "./schema.ts";

export const namespace = defineKind({
  kind: "Namespace",
  group: "",
  version: "v1",
  plural: "namespaces",
  shortNames: ["ns"],
  status: true,
  checkName: labelName,
  // By which policies select a namespace by its name.
  systemLabels: (name) => ({ "kubernetes.io/metadata.name": name }),
  fields: {
    spec: optional(object({ finalizers: optional(arrayOf(string)) })),
    status: optional(
      object({ phase: optional(oneOf("Active", "Terminating")), conditions: optional(arrayOf(anything)) }),
    ),
  },
  columns: [{ heading: "STATUS", text: ({ status }) => status?.phase ?? "Active" }],
});
export type Namespace = ItemOf<typeof namespace>;

export const serviceAccount = defineKind({
  kind: "ServiceAccount",
  group: "",
  version: "v1",
  plural: "serviceaccounts",
  shortNames: ["sa"],
  namespaced: true,
  fields: {
    automountServiceAccountToken: optional(boolean),
    ...opaque("imagePullSecrets", "secrets"),
  },
});
export type ServiceAccount = ItemOf<typeof serviceAccount>;

const transport = withDefault(oneOf("TCP", "UDP", "SCTP"), "TCP");
const ipFamily = oneOf("IPv4", "IPv6");
const trafficPolicy = oneOf("Cluster", "Local");

/** `None` is a service without an address. */
function clusterAddress(value: string): string {
  return value === "None" ? value : formatAddress(parseAddress(value));
}

const servicePort = object({
  name: optional(string),
  protocol: transport,
  port: portNumber,
  /** A number or the name of a container's port; absent: as `port`. */
  targetPort: optional(rulePort),
  nodePort: optional(int(0, 65535)),
  appProtocol: optional(string),
});

const serviceSpec = object({
  type: withDefault(oneOf("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"), "ClusterIP"),
  selector: optional(mapOf(string)),
  ports: withDefault(arrayOf(servicePort), []),
  clusterIP: optional(text("an IP address or None", clusterAddress)),
  clusterIPs: optional(arrayOf(string)),
  externalIPs: optional(arrayOf(ipAddress)),
  loadBalancerIP: optional(ipAddress),
  loadBalancerClass: optional(string),
  loadBalancerSourceRanges: optional(arrayOf(cidr)),
  externalTrafficPolicy: optional(trafficPolicy),
  internalTrafficPolicy: optional(trafficPolicy),
  ipFamilies: optional(arrayOf(ipFamily)),
  ipFamilyPolicy: optional(oneOf("SingleStack", "PreferDualStack", "RequireDualStack")),
  allocateLoadBalancerNodePorts: optional(boolean),
  externalName: optional(string),
  healthCheckNodePort: optional(int(0, 65535)),
  publishNotReadyAddresses: optional(boolean),
  ...opaque("sessionAffinity", "sessionAffinityConfig", "trafficDistribution"),
});

const ingressPoint = object({ ip: optional(ipAddress), hostname: optional(string), ...opaque("ipMode", "ports") });

export const service = defineKind({
  kind: "Service",
  group: "",
  version: "v1",
  plural: "services",
  shortNames: ["svc"],
  namespaced: true,
  status: true,
  checkName: serviceName,
  fields: {
    spec: serviceSpec,
    status: optional(
      object(
        {
          loadBalancer: optional(object({ ingress: optional(arrayOf(ingressPoint)) })),
          conditions: optional(arrayOf(anything)),
        },
        "keep",
      ),
    ),
  },
  columns: [
    { heading: "TYPE", text: ({ spec }) => spec.type },
    { heading: "CLUSTER-IP", text: ({ spec }) => spec.clusterIP ?? "" },
    {
      heading: "EXTERNAL-IP",
      text: ({ spec, status }) =>
        [...(spec.externalIPs ?? []), ...(status?.loadBalancer?.ingress ?? []).map(({ ip }) => ip ?? "")].join(","),
    },
    {
      heading: "PORT(S)",
      text: ({ spec }) =>
        spec.ports
          .map(({ port, nodePort, protocol }) => `${port}${nodePort ? `:${nodePort}` : ""}/${protocol}`)
          .join(","),
    },
  ],
});
export type Service = ItemOf<typeof service>;

const endpoint = object({
  addresses: arrayOf(string),
  /** Absent means ready. */
  conditions: optional(
    object({ ready: optional(boolean), serving: optional(boolean), terminating: optional(boolean) }),
  ),
  nodeName: optional(string),
  zone: optional(string),
  hostname: optional(string),
  targetRef: optional(
    object(
      { kind: optional(string), namespace: optional(string), name: optional(string), uid: optional(string) },
      "keep",
    ),
  ),
  ...opaque("deprecatedTopology", "hints"),
});

export const endpointSlice = defineKind({
  kind: "EndpointSlice",
  group: "discovery.k8s.io",
  version: "v1",
  plural: "endpointslices",
  shortNames: ["eps"],
  namespaced: true,
  fields: {
    addressType: oneOf("IPv4", "IPv6", "FQDN"),
    endpoints: withDefault(arrayOf(endpoint), []),
    ports: withDefault(
      arrayOf(
        object({
          name: optional(text("a port name", portName)),
          protocol: transport,
          port: optional(portNumber),
          appProtocol: optional(string),
        }),
      ),
      [],
    ),
  },
  columns: [
    { heading: "ADDRESSTYPE", text: ({ addressType }) => addressType },
    { heading: "PORTS", text: ({ ports }) => ports.map(({ port }) => String(port ?? "*")).join(",") },
    { heading: "ENDPOINTS", text: ({ endpoints }) => endpoints.flatMap(({ addresses }) => addresses).join(",") },
  ],
});
export type EndpointSlice = ItemOf<typeof endpointSlice>;
