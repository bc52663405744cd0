/** What runs: Kubernetes' Pod, and the WorkloadEndpoint that Calico makes of one. */
import { CALICO, defineKind, type ItemOf } from "./define.ts";
import { interfaceName, ipAddress, ipAddressOf, mac, nameOf, net, portNumber, protocol } from "./fields.ts";
import { labelName, portName } from "./names.ts";
import { condition } from "./node.ts";
import {
  anything,
  arrayOf,
  boolean,
  derive,
  int,
  mapOf,
  object,
  oneOf,
  opaque,
  optional,
  refine,
  string,
  text,
  withDefault,
  type Infer,
  type Schema,
} from "./schema.ts";

const containerPort = object({
  name: optional(text("a port name", portName)),
  containerPort: portNumber,
  hostPort: optional(int(0, 65535)),
  hostIP: optional(string),
  protocol: withDefault(oneOf("TCP", "UDP", "SCTP"), "TCP"),
});

const containerFields = object({
  name: text("a container name", labelName),
  image: optional(string),
  ports: optional(arrayOf(containerPort)),
  command: optional(arrayOf(string)),
  args: optional(arrayOf(string)),
  ...opaque("env", "envFrom", "imagePullPolicy", "lifecycle", "livenessProbe", "readinessProbe", "resizePolicy"),
  ...opaque(
    "resources",
    "restartPolicy",
    "restartPolicyRules",
    "securityContext",
    "startupProbe",
    "stdin",
    "stdinOnce",
  ),
  ...opaque("terminationMessagePath", "terminationMessagePolicy", "tty", "volumeDevices", "volumeMounts", "workingDir"),
  ...opaque("targetContainerName"),
});
export interface Container extends Infer<typeof containerFields> {}
const container: Schema<Container> = containerFields;

const podSpec = object({
  nodeName: optional(nameOf),
  hostNetwork: optional(boolean),
  serviceAccountName: optional(string),
  /** The old name of serviceAccountName. */
  serviceAccount: optional(string),
  containers: refine(arrayOf(container), (list, fault) => {
    if (list.length === 0) fault("must have at least one item");
  }),
  initContainers: optional(arrayOf(container)),
  ephemeralContainers: optional(arrayOf(container)),
  nodeSelector: optional(mapOf(string)),
  hostname: optional(string),
  subdomain: optional(string),
  terminationGracePeriodSeconds: optional(int(0, Number.MAX_SAFE_INTEGER)),
  ...opaque("activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "dnsConfig", "dnsPolicy"),
  ...opaque("enableServiceLinks", "hostAliases", "hostIPC", "hostPID", "hostUsers", "hostnameOverride"),
  ...opaque("imagePullSecrets", "os", "overhead", "preemptionPolicy", "priority", "priorityClassName"),
  ...opaque("readinessGates", "resourceClaims", "resources", "restartPolicy", "runtimeClassName", "schedulerName"),
  ...opaque("schedulingGates", "securityContext", "setHostnameAsFQDN", "shareProcessNamespace", "tolerations"),
  ...opaque("topologySpreadConstraints", "volumes", "workloadRef"),
});

const podStatus = object(
  {
    phase: optional(oneOf("Pending", "Running", "Succeeded", "Failed", "Unknown")),
    conditions: optional(arrayOf(condition)),
    podIP: optional(ipAddress),
    podIPs: optional(arrayOf(object({ ip: ipAddress }))),
    hostIP: optional(ipAddress),
    hostIPs: optional(arrayOf(object({ ip: ipAddress }))),
    startTime: optional(string),
    message: optional(string),
    reason: optional(string),
    containerStatuses: optional(arrayOf(anything)),
  },
  "keep",
);

export const pod = defineKind({
  kind: "Pod",
  group: "",
  version: "v1",
  plural: "pods",
  shortNames: ["po"],
  namespaced: true,
  status: true,
  fields: {
    spec: derive(podSpec, (spec) => ({
      ...spec,
      serviceAccountName: spec.serviceAccountName || spec.serviceAccount || "default",
    })),
    status: optional(podStatus),
  },
  check({ spec }, fault) {
    const names = new Map<string, string>();
    for (const list of ["initContainers", "containers"] as const) {
      for (const [i, { name }] of (spec[list] ?? []).entries()) {
        const other = names.get(name);
        if (other !== undefined) fault(`"${name}" is the name of ${other} too`, `spec.${list}[${i}].name`);
        names.set(name, `${list}[${i}]`);
      }
    }
  },
  fixed: ({ spec }) => ({ "spec.nodeName": spec.nodeName, "spec.hostNetwork": spec.hostNetwork === true }),
  columns: [
    {
      heading: "STATUS",
      text: ({ metadata, status }) =>
        metadata.deletionTimestamp === undefined ? (status?.phase ?? "Pending") : "Terminating",
    },
    { heading: "NODE", text: ({ spec }) => spec.nodeName ?? "" },
    { heading: "IP", text: ({ status }) => (status?.podIPs?.map(({ ip }) => ip) ?? [status?.podIP ?? ""]).join(",") },
    { heading: "SERVICEACCOUNT", wide: true, text: ({ spec }) => spec.serviceAccountName },
  ],
});
export type Pod = ItemOf<typeof pod>;

const hostNet = refine(net, (value, fault) => {
  if (!value.endsWith(value.includes(":") ? "/128" : "/32")) fault(`"${value}" is more than one address`);
});

const endpointPort = object({
  name: optional(string),
  protocol,
  port: portNumber,
  hostPort: optional(int(0, 65535)),
  hostIP: optional(string),
});

/** An interface of a workload. On Kubernetes it is made from the Pod and not kept; its name is `workloadEndpointName`. */
export const workloadEndpoint = defineKind({
  kind: "WorkloadEndpoint",
  group: CALICO,
  version: "v3",
  plural: "workloadendpoints",
  shortNames: ["wep", "weps"],
  namespaced: true,
  fields: {
    spec: object({
      orchestrator: string,
      workload: optional(string),
      node: nameOf,
      containerID: optional(string),
      pod: optional(string),
      endpoint: optional(string),
      serviceAccountName: optional(string),
      ipNetworks: withDefault(arrayOf(hostNet), []),
      ipNATs: optional(arrayOf(object({ internalIP: ipAddress, externalIP: ipAddress }))),
      ipv4Gateway: optional(ipAddressOf(4)),
      ipv6Gateway: optional(ipAddressOf(6)),
      profiles: withDefault(arrayOf(nameOf), []),
      interfaceName,
      mac: optional(mac),
      ports: optional(arrayOf(endpointPort)),
      allowSpoofedSourcePrefixes: optional(arrayOf(net)),
      qosControls: optional(anything),
    }),
  },
  columns: [
    { heading: "WORKLOAD", text: ({ spec }) => spec.pod ?? spec.workload ?? "" },
    { heading: "NODE", text: ({ spec }) => spec.node },
    { heading: "NETWORKS", text: ({ spec }) => spec.ipNetworks.join(",") },
    { heading: "INTERFACE", text: ({ spec }) => spec.interfaceName },
    { heading: "PROFILES", wide: true, text: ({ spec }) => spec.profiles.join(",") },
  ],
});
export type WorkloadEndpoint = ItemOf<typeof workloadEndpoint>;
