/** Kubernetes' own policies: NetworkPolicy, and ClusterNetworkPolicy of the network-policy-api. */
import { parsePrefix, prefixCovers } from "../ip/prefix.ts";
import { defineKind, type ItemOf } from "./define.ts";
import { cidr, portNumber } from "./fields.ts";
import { labelSelector, labelSelectorText } from "./labelSelector.ts";
import { portName } from "./names.ts";
import {
  anything,
  arrayOf,
  derive,
  int,
  object,
  oneOf,
  optional,
  refine,
  string,
  text,
  union,
  withDefault,
  type Fields,
  type Infer,
  type Schema,
} from "./schema.ts";

const policyPort = refine(
  object({
    protocol: withDefault(oneOf("TCP", "UDP", "SCTP"), "TCP"),
    /** A number, or the name of a container's port; absent: every port. */
    port: optional(union(portNumber, text("a port name", portName))),
    endPort: optional(portNumber),
  }),
  ({ port, endPort }, fault) => {
    if (endPort === undefined) return;
    if (typeof port !== "number") fault("needs a port that is a number", "endPort");
    else if (endPort < port) fault(`${endPort} is less than port ${port}`, "endPort");
  },
);

const ipBlock = refine(object({ cidr, except: optional(arrayOf(cidr)) }), (block, fault) => {
  for (const [i, except] of (block.except ?? []).entries()) {
    if (!prefixCovers(parsePrefix(block.cidr), parsePrefix(except)))
      fault(`"${except}" is not inside ${block.cidr}`, `except[${i}]`);
  }
});

const peer = refine(
  object({
    podSelector: optional(labelSelector),
    namespaceSelector: optional(labelSelector),
    ipBlock: optional(ipBlock),
  }),
  ({ podSelector, namespaceSelector, ipBlock: block }, fault) => {
    const selects = podSelector !== undefined || namespaceSelector !== undefined;
    if (selects && block !== undefined) fault("must be absent beside podSelector or namespaceSelector", "ipBlock");
    if (!selects && block === undefined) fault("expected podSelector, namespaceSelector or ipBlock");
  },
);

const ports = optional(arrayOf(policyPort));
const policyType = oneOf("Ingress", "Egress");

/** Shared with the draft of such a policy. */
export const networkPolicyFields = {
  podSelector: withDefault(labelSelector, {}),
  ingress: optional(arrayOf(object({ ports, from: optional(arrayOf(peer)) }))),
  egress: optional(arrayOf(object({ ports, to: optional(arrayOf(peer)) }))),
  policyTypes: withDefault(arrayOf(policyType), []),
};

/** Where a policy does not say: Ingress always, Egress where it has rules for it. */
export function policyTypesOf(spec: { policyTypes: PolicyType[]; egress?: readonly unknown[] }): PolicyType[] {
  if (spec.policyTypes.length > 0) return spec.policyTypes;
  return (spec.egress ?? []).length > 0 ? ["Ingress", "Egress"] : ["Ingress"];
}
type PolicyType = Infer<typeof policyType>;

export const networkPolicy = defineKind({
  kind: "NetworkPolicy",
  group: "networking.k8s.io",
  version: "v1",
  plural: "networkpolicies",
  shortNames: ["netpol"],
  namespaced: true,
  fields: { spec: derive(object(networkPolicyFields), (spec) => ({ ...spec, policyTypes: policyTypesOf(spec) })) },
  columns: [{ heading: "POD-SELECTOR", text: ({ spec }) => labelSelectorText(spec.podSelector) }],
});
export type NetworkPolicy = ItemOf<typeof networkPolicy>;

/** The most rules, and the most items in a list of one, that a ClusterNetworkPolicy may have. */
const CLUSTER_LIST_MAX = 25;

function nonEmpty<Item>(item: Schema<Item>): Schema<Item[]> {
  return refine(arrayOf(item, CLUSTER_LIST_MAX), (list, fault) => {
    if (list.length === 0) fault("must have at least one item");
  });
}

/** An object of which exactly one field is given. */
function oneField<F extends Fields>(fields: F): ReturnType<typeof object<F>> {
  return refine(object(fields), (value, fault) => {
    if (Object.keys(value as object).length !== 1) fault(`expected exactly one of ${Object.keys(fields).join(", ")}`);
  });
}

const destinationPort = oneField({
  number: optional(portNumber),
  range: optional(
    refine(object({ start: portNumber, end: portNumber }), ({ start, end }, fault) => {
      if (start >= end) fault(`${end} is not greater than start ${start}`, "end");
    }),
  ),
});
const transport = optional(object({ destinationPort: optional(destinationPort) }));
const clusterProtocol = oneField({
  tcp: transport,
  udp: transport,
  sctp: transport,
  destinationNamedPort: optional(text("a port name", portName)),
});
const protocols = optional(nonEmpty(clusterProtocol));

const podsOf = optional(object({ namespaceSelector: withDefault(labelSelector, {}), podSelector: labelSelector }));
const namespaces = optional(labelSelector);
const clusterAction = oneOf("Accept", "Deny", "Pass");
const ruleName = optional(
  refine(string, (value, fault) => {
    if (value.length > 100) fault(`is ${value.length} characters long, more than 100`);
  }),
);
const clusterIngress = object({
  name: ruleName,
  action: clusterAction,
  from: nonEmpty(oneField({ namespaces, pods: podsOf })),
  protocols,
});
const clusterEgress = object({
  name: ruleName,
  action: clusterAction,
  to: nonEmpty(oneField({ namespaces, pods: podsOf, networks: optional(nonEmpty(cidr)) })),
  protocols,
});

export const clusterNetworkPolicy = defineKind({
  kind: "ClusterNetworkPolicy",
  group: "policy.networking.k8s.io",
  version: "v1alpha2",
  plural: "clusternetworkpolicies",
  shortNames: ["cnp"],
  status: true,
  fields: {
    spec: object({
      tier: oneOf("Admin", "Baseline"),
      priority: int(0, 1000),
      subject: oneField({ namespaces, pods: podsOf }),
      ingress: optional(arrayOf(clusterIngress, CLUSTER_LIST_MAX)),
      egress: optional(arrayOf(clusterEgress, CLUSTER_LIST_MAX)),
    }),
    status: optional(object({ conditions: optional(arrayOf(anything)) })),
  },
  columns: [
    { heading: "TIER", text: ({ spec }) => spec.tier },
    { heading: "PRIORITY", text: ({ spec }) => String(spec.priority) },
  ],
});
export type ClusterNetworkPolicy = ItemOf<typeof clusterNetworkPolicy>;
