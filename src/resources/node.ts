import { defineKind, type ItemOf } from "./define.ts";
import { cidr } from "./fields.ts";
import { nodeNetwork } from "./nodeNetwork.ts";
import {
  anything,
  arrayOf,
  boolean,
  object,
  oneOf,
  opaque,
  optional,
  string,
  withDefault,
  type Infer,
} from "./schema.ts";

const taint = object({
  key: string,
  value: optional(string),
  effect: oneOf("NoSchedule", "PreferNoSchedule", "NoExecute"),
  timeAdded: optional(string),
});

/** A condition as Kubernetes writes it on nodes and pods. */
export const condition = object(
  { type: string, status: oneOf("True", "False", "Unknown"), reason: optional(string), message: optional(string) },
  "keep",
);

const spec = object({
  podCIDR: optional(cidr),
  podCIDRs: optional(arrayOf(cidr)),
  providerID: optional(string),
  unschedulable: optional(boolean),
  taints: optional(arrayOf(taint)),
  ...opaque("configSource", "externalID"),
});

const status = object(
  {
    addresses: optional(arrayOf(object({ type: string, address: string }))),
    conditions: optional(arrayOf(condition)),
    capacity: optional(anything),
    allocatable: optional(anything),
    nodeInfo: optional(anything),
  },
  "keep",
);

function statusText(unschedulable: boolean, conditions: readonly Infer<typeof condition>[]): string {
  const ready = conditions.find(({ type }) => type === "Ready")?.status;
  const word = ready === "True" ? "Ready" : ready === undefined ? "Unknown" : "NotReady";
  return unschedulable ? `${word},SchedulingDisabled` : word;
}

export const node = defineKind({
  kind: "Node",
  group: "",
  version: "v1",
  plural: "nodes",
  shortNames: ["no"],
  status: true,
  fields: {
    spec: withDefault(spec, {}),
    status: optional(status),
  },
  columns: [
    { heading: "STATUS", text: (item) => statusText(item.spec.unschedulable === true, item.status?.conditions ?? []) },
    { heading: "ASN", text: (item) => String(nodeNetwork(item).asNumber ?? "") },
    { heading: "IPV4", text: (item) => item.metadata.annotations?.["projectcalico.org/IPv4Address"] ?? "" },
    { heading: "IPV6", text: (item) => item.metadata.annotations?.["projectcalico.org/IPv6Address"] ?? "" },
  ],
});
export type Node = ItemOf<typeof node>;
