import { CALICO, defineKind, type ItemOf } from "./define.ts";
import { hasPorts, ipAddress, nameOf, portNumber, protocol } from "./fields.ts";
import { egressRules, ingressRules } from "./rule.ts";
import { arrayOf, mapOf, object, optional, refine, string, text, withDefault } from "./schema.ts";

const port = refine(object({ name: string, protocol, port: portNumber }), (value, fault) => {
  if (!hasPorts(value.protocol)) fault(`${value.protocol} has no ports`, "protocol");
});

/** `*` for every interface that is not a workload's, or one name. */
const interfaceOrAll = text("an interface name or *", (value) => {
  if (/^(\*|[a-zA-Z0-9_.-]{1,15})$/.test(value)) return value;
  throw new TypeError(`"${value}" is not "*" or an interface name of 1 to 15 letters, digits, "_", "." and "-"`);
});

const spec = refine(
  object({
    node: nameOf,
    interfaceName: optional(interfaceOrAll),
    /** Without interfaceName: the interface is the one that has one of these addresses. */
    expectedIPs: optional(arrayOf(ipAddress)),
    profiles: optional(arrayOf(nameOf)),
    ports: optional(arrayOf(port)),
  }),
  ({ interfaceName, expectedIPs = [] }, fault) => {
    if (interfaceName === undefined && expectedIPs.length === 0) fault("is required (or expectedIPs)", "interfaceName");
  },
);

/** Interfaces of a node, for policy on the node itself. */
export const hostEndpoint = defineKind({
  kind: "HostEndpoint",
  group: CALICO,
  version: "v3",
  plural: "hostendpoints",
  shortNames: ["hep", "heps"],
  fields: { spec },
  columns: [
    { heading: "NODE", text: (item) => item.spec.node },
    { heading: "INTERFACE", text: (item) => item.spec.interfaceName ?? "" },
    { heading: "IPS", text: (item) => (item.spec.expectedIPs ?? []).join(",") },
    { heading: "PROFILES", text: (item) => (item.spec.profiles ?? []).join(",") },
  ],
});
export type HostEndpoint = ItemOf<typeof hostEndpoint>;

/** Rules and labels of the endpoints that name it; asked after every tier. */
export const profile = defineKind({
  kind: "Profile",
  group: CALICO,
  version: "v3",
  plural: "profiles",
  shortNames: ["pro"],
  fields: {
    spec: withDefault(
      object({
        ingress: optional(ingressRules),
        egress: optional(egressRules),
        labelsToApply: optional(mapOf(string)),
      }),
      {},
    ),
  },
  columns: [
    {
      heading: "LABELS",
      text: (item) =>
        Object.entries(item.spec.labelsToApply ?? {})
          .map(([key, value]) => `${key}=${value}`)
          .join(","),
    },
  ],
});
export type Profile = ItemOf<typeof profile>;
