import type { Family } from "../ip/address.ts";
import { CALICO, defineKind, type ItemOf } from "./define.ts";
import { asNumber, netOf, interfacePattern } from "./fields.ts";
import { arrayOf, int, object, oneOf, optional, refine } from "./schema.ts";
import { communityValue } from "./bgp.ts";

/** The most that one rule may do to a route. */
const OPERATIONS_MAX = 10;

const operation = refine(
  object({
    addCommunity: optional(object({ value: communityValue })),
    prependASPath: optional(object({ prefix: arrayOf(asNumber, OPERATIONS_MAX) })),
    setPriority: optional(object({ value: int(1, 2 ** 31 - 2) })),
  }),
  (value, fault) => {
    if (Object.keys(value).length !== 1) fault("expected exactly one of addCommunity, prependASPath and setPriority");
  },
);

/** A rule whose matches must all hold; without matches it holds for every route. */
const ruleOf = (family: Family) => {
  const bits = int(0, family === 4 ? 32 : 128);
  const rule = object({
    cidr: optional(netOf(family)),
    matchOperator: optional(oneOf("Equal", "NotEqual", "In", "NotIn")),
    prefixLength: optional(object({ min: optional(bits), max: optional(bits) })),
    /** Routes that other peers announced, not those of this node. */
    source: optional(oneOf("RemotePeers")),
    interface: optional(interfacePattern),
    peerType: optional(oneOf("eBGP", "iBGP")),
    communities: optional(object({ values: arrayOf(communityValue, 1) })),
    asPathPrefix: optional(arrayOf(asNumber)),
    priority: optional(int(1, 2 ** 31 - 2)),
    action: oneOf("Accept", "Reject"),
    operations: optional(arrayOf(operation, OPERATIONS_MAX)),
  });
  return refine(rule, (value, fault) => {
    if (value.cidr !== undefined && value.matchOperator === undefined) fault("is required with cidr", "matchOperator");
    if (value.cidr === undefined) {
      if (value.matchOperator !== undefined) fault("is required with matchOperator", "cidr");
      if (value.prefixLength !== undefined) fault("is required with prefixLength", "cidr");
    }
    const { min = 0, max = 128 } = value.prefixLength ?? {};
    if (min > max) fault(`min ${min} is greater than max ${max}`, "prefixLength");
    if (value.action === "Reject" && value.operations !== undefined)
      fault("must be absent on a Reject rule", "operations");
  });
};
const [ruleV4, ruleV6] = [ruleOf(4), ruleOf(6)];

/** Ordered rules for the routes sent to and taken from a peer. The first that matches decides. */
export const bgpFilter = defineKind({
  kind: "BGPFilter",
  group: CALICO,
  version: "v3",
  plural: "bgpfilters",
  shortNames: ["bf", "bfs"],
  fields: {
    spec: object({
      exportV4: optional(arrayOf(ruleV4)),
      importV4: optional(arrayOf(ruleV4)),
      exportV6: optional(arrayOf(ruleV6)),
      importV6: optional(arrayOf(ruleV6)),
    }),
  },
  columns: [
    { heading: "NUMEXPORTV4", text: ({ spec }) => String(spec.exportV4?.length ?? 0) },
    { heading: "NUMIMPORTV4", text: ({ spec }) => String(spec.importV4?.length ?? 0) },
    { heading: "NUMEXPORTV6", text: ({ spec }) => String(spec.exportV6?.length ?? 0) },
    { heading: "NUMIMPORTV6", text: ({ spec }) => String(spec.importV6?.length ?? 0) },
  ],
});
export type BGPFilter = ItemOf<typeof bgpFilter>;
