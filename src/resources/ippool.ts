import { parsePrefix, prefixesOverlap } from "../ip/prefix.ts";
import { CALICO, defineKind, type ItemOf } from "./define.ts";
import { cidr, selector } from "./fields.ts";
import {
  arrayOf,
  boolean,
  derive,
  int,
  object,
  oneOf,
  optional,
  refine,
  withDefault,
  type Check,
  type Infer,
} from "./schema.ts";

/** When packets between nodes are put into a tunnel. */
const encapsulation = oneOf("Never", "Always", "CrossSubnet");

const written = object({
  cidr,
  vxlanMode: withDefault(encapsulation, "Never"),
  ipipMode: withDefault(encapsulation, "Never"),
  natOutgoing: withDefault(boolean, false),
  disabled: withDefault(boolean, false),
  disableBGPExport: withDefault(boolean, false),
  /** Prefix length of the blocks that nodes claim. */
  blockSize: optional(int(0, 128)),
  nodeSelector: withDefault(selector, "all()"),
  namespaceSelector: optional(selector),
  allowedUses: withDefault(arrayOf(oneOf("Workload", "Tunnel", "LoadBalancer")), []),
  /** Manual: only where it is asked for by name. */
  assignmentMode: withDefault(oneOf("Automatic", "Manual"), "Automatic"),
});

const LINK_LOCAL = ["169.254.0.0/16", "fe80::/10"].map(parsePrefix);
const BLOCK_SIZES = { 4: { min: 20, max: 32, usual: 26 }, 6: { min: 116, max: 128, usual: 122 } };

const completed = derive(written, (spec) => ({
  ...spec,
  blockSize: spec.blockSize || BLOCK_SIZES[parsePrefix(spec.cidr).address.family].usual,
  allowedUses: spec.allowedUses.length === 0 ? (["Workload", "Tunnel"] as const).slice() : spec.allowedUses,
}));

const check: Check<Infer<typeof completed>> = (spec, fault) => {
  const pool = parsePrefix(spec.cidr);
  const { family } = pool.address;
  const { min, max } = BLOCK_SIZES[family];
  const linkLocal = LINK_LOCAL.find((range) => prefixesOverlap(range, pool));
  if (linkLocal !== undefined)
    fault(`overlaps the link-local range ${family === 4 ? "169.254.0.0/16" : "fe80::/10"}`, "cidr");
  if (spec.blockSize < min || spec.blockSize > max) {
    fault(`${spec.blockSize} is not ${min} to ${max}, as it must be for IPv${family}`, "blockSize");
  } else if (!spec.disabled && pool.length > spec.blockSize) {
    fault(`a pool of /${pool.length} is smaller than one block of /${spec.blockSize}`, "cidr");
  }

  const [ipip, vxlan] = [spec.ipipMode !== "Never", spec.vxlanMode !== "Never"];
  if (ipip && family === 6) fault("IPIP carries IPv4 only", "ipipMode");
  if (ipip && vxlan) fault("must be Never, because ipipMode is on: a pool has one encapsulation", "vxlanMode");

  if (spec.allowedUses.includes("LoadBalancer")) {
    if (spec.allowedUses.some((use) => use !== "LoadBalancer")) fault("LoadBalancer cannot be combined", "allowedUses");
    if (ipip) fault("must be Never for a pool of load balancer addresses", "ipipMode");
    if (vxlan) fault("must be Never for a pool of load balancer addresses", "vxlanMode");
    if (spec.nodeSelector !== "all()") fault("must be all() for a pool of load balancer addresses", "nodeSelector");
  }
};

/** A range of addresses for pods, tunnels or load balancers. */
export const ipPool = defineKind({
  kind: "IPPool",
  group: CALICO,
  version: "v3",
  plural: "ippools",
  shortNames: ["ipp", "pool", "pools"],
  fields: { spec: refine(completed, check) },
  fixed: ({ spec }) => ({ "spec.cidr": spec.cidr, "spec.blockSize": spec.blockSize }),
  columns: [
    { heading: "CIDR", text: ({ spec }) => spec.cidr },
    { heading: "NAT", wide: true, text: ({ spec }) => String(spec.natOutgoing) },
    { heading: "IPIPMODE", wide: true, text: ({ spec }) => spec.ipipMode },
    { heading: "VXLANMODE", wide: true, text: ({ spec }) => spec.vxlanMode },
    { heading: "DISABLED", wide: true, text: ({ spec }) => String(spec.disabled) },
    { heading: "DISABLEBGPEXPORT", wide: true, text: ({ spec }) => String(spec.disableBGPExport) },
    { heading: "SELECTOR", text: ({ spec }) => spec.nodeSelector },
    { heading: "ASSIGNMENTMODE", wide: true, text: ({ spec }) => spec.assignmentMode },
  ],
});
export type IPPool = ItemOf<typeof ipPool>;
