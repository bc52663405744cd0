import { parsePrefix, prefixSize } from "../ip/prefix.ts";
import { CALICO, defineKind, type ItemOf } from "./define.ts";
import { cidr, nameOf, net, timestamp } from "./fields.ts";
import { blockName, defaultName, NameError } from "./names.ts";
import {
  arrayOf,
  boolean,
  int,
  mapOf,
  nullable,
  number,
  object,
  oneOf,
  optional,
  refine,
  string,
  text,
  withDefault,
  type Check,
  type Infer,
  type Schema,
} from "./schema.ts";

const MANY = Number.MAX_SAFE_INTEGER;

/** CRDs of the group crd.projectcalico.org write this boolean as text. */
const flag: Schema<boolean> = {
  what: boolean.what,
  emptyIsAbsent: true,
  read: (input, report) => boolean.read(input === "true" ? true : input === "false" ? false : input, report),
};

/** Of 64 bits, of which a number holds 53: good for telling one from another, not for counting on from. */
const sequenceNumber: Schema<number> = {
  what: "a whole number",
  read: (input, report) =>
    typeof input === "number" && input >= 2 ** 53 ? number.read(input, report) : int(0, MANY).read(input, report),
};

/** Addresses that are never handed out automatically. */
export const ipReservation = defineKind({
  kind: "IPReservation",
  group: CALICO,
  version: "v3",
  plural: "ipreservations",
  shortNames: ["ipr"],
  fields: { spec: object({ reservedCIDRs: withDefault(arrayOf(net), []) }) },
  columns: [{ heading: "CIDRS", text: ({ spec }) => spec.reservedCIDRs.join(",") }],
});
export type IPReservation = ItemOf<typeof ipReservation>;

/** Built-in cap on blocks of one host, where `maxBlocksPerHost` is 0. */
export const DEFAULT_MAX_BLOCKS_PER_HOST = 20;

/** There is one, named `default`. */
export const ipamConfiguration = defineKind({
  kind: "IPAMConfiguration",
  crdKind: "IPAMConfig",
  group: CALICO,
  version: "v3",
  plural: "ipamconfigurations",
  shortNames: ["ipamconfig"],
  checkName: defaultName,
  fields: {
    spec: object({
      strictAffinity: withDefault(boolean, false),
      /** 0: the built-in cap. */
      maxBlocksPerHost: withDefault(int(0, 2 ** 31 - 1), 0),
      autoAllocateBlocks: withDefault(boolean, true),
      kubeVirtVMAddressPersistence: optional(oneOf("Enabled", "Disabled")),
      /** How long a released address rests before it is handed out again. */
      ipCooldownSeconds: withDefault(int(0, 1200), 0),
    }),
  },
  columns: [
    { heading: "STRICTAFFINITY", text: ({ spec }) => String(spec.strictAffinity) },
    { heading: "AUTOALLOCATEBLOCKS", text: ({ spec }) => String(spec.autoAllocateBlocks) },
    { heading: "MAXBLOCKSPERHOST", text: ({ spec }) => String(spec.maxBlocksPerHost) },
  ],
});
export type IPAMConfiguration = ItemOf<typeof ipamConfiguration>;

/** The largest block that a pool may ask for: 4096 addresses. */
const BLOCK_MAX = 4096;

const affinity = text("an affinity", (value) => {
  if (/^(host|virtual):[a-zA-Z0-9.\-_]+$/.test(value)) return value;
  throw new NameError(`"${value}" is not "host:" or "virtual:" and a name`);
});

/** What is kept with an address that was handed out. */
const allocationAttribute = object({
  handle_id: optional(string),
  /** Who has the address: `node`, `pod`, `namespace`, `timestamp`, `type`. */
  secondary: optional(mapOf(string)),
  alternate: optional(mapOf(string)),
  /** Set while a released address rests. */
  releasedAt: optional(timestamp),
});
export type AllocationAttribute = Infer<typeof allocationAttribute>;

const block = object({
  cidr,
  /** `host:<node>` or `virtual:<owner>`. */
  affinity: optional(affinity),
  affinityClaimTime: optional(timestamp),
  /** By ordinal in the block: index in `attributes`, or null where the address is free. */
  allocations: arrayOf(nullable(int(0, MANY))),
  /** Ordinals of free addresses, in the order in which they are handed out. */
  unallocated: arrayOf(int(0, MANY)),
  attributes: arrayOf(allocationAttribute),
  /** Counts the writes to the block. */
  sequenceNumber: withDefault(sequenceNumber, 0),
  /** By ordinal, as text: the block's sequence number when the address was handed out. */
  sequenceNumberForAllocation: withDefault(mapOf(sequenceNumber), {}),
  deleted: withDefault(flag, false),
  /** Of old blocks; not used. */
  strictAffinity: withDefault(boolean, false),
});

const checkBlock: Check<Infer<typeof block>> = (spec, fault) => {
  const size = Number(prefixSize(parsePrefix(spec.cidr)));
  if (size > BLOCK_MAX) return fault(`a block of ${size} addresses is larger than ${BLOCK_MAX}`, "cidr");
  if (spec.allocations.length !== size) {
    fault(`has ${spec.allocations.length} entries for the ${size} addresses of ${spec.cidr}`, "allocations");
  }
  for (const [ordinal, attribute] of spec.allocations.entries()) {
    if (attribute === null || attribute < spec.attributes.length) continue;
    fault(`${attribute} is not the index of one of ${spec.attributes.length} attributes`, `allocations[${ordinal}]`);
  }
  const seen = new Set<number>();
  for (const [i, ordinal] of spec.unallocated.entries()) {
    if (ordinal >= size) fault(`${ordinal} is not the ordinal of one of ${size} addresses`, `unallocated[${i}]`);
    else if (seen.has(ordinal)) fault(`${ordinal} stands there twice`, `unallocated[${i}]`);
    else if (typeof spec.allocations[ordinal] === "number") fault(`${ordinal} is allocated`, `unallocated[${i}]`);
    seen.add(ordinal);
  }
};

/** A run of addresses that one host hands out. The object's name is `blockName(cidr)`. */
export const ipamBlock = defineKind({
  kind: "IPAMBlock",
  group: CALICO,
  version: "v3",
  plural: "ipamblocks",
  fields: { spec: refine(block, checkBlock) },
  check({ metadata, spec }, fault) {
    const name = blockName(spec.cidr);
    if (metadata.name !== name) fault(`must be "${name}", as the block is ${spec.cidr}`, "metadata.name");
  },
  fixed: ({ spec }) => ({ "spec.cidr": spec.cidr }),
  columns: [
    { heading: "CIDR", text: ({ spec }) => spec.cidr },
    { heading: "AFFINITY", text: ({ spec }) => spec.affinity ?? "" },
    { heading: "FREE", wide: true, text: ({ spec }) => String(spec.unallocated.length) },
  ],
});
export type IPAMBlock = ItemOf<typeof ipamBlock>;

/** That a host holds a block, or is on the way there. The object's name is `blockAffinityName(node, cidr)`. */
export const blockAffinity = defineKind({
  kind: "BlockAffinity",
  group: CALICO,
  version: "v3",
  plural: "blockaffinities",
  shortNames: ["affinity", "affinities"],
  fields: {
    spec: object({
      state: oneOf("pending", "confirmed", "pendingDeletion"),
      node: nameOf,
      type: withDefault(oneOf("host", "virtual"), "host"),
      cidr,
      deleted: withDefault(flag, false),
    }),
  },
  columns: [
    { heading: "CIDR", text: ({ spec }) => spec.cidr },
    { heading: "NODE", text: ({ spec }) => spec.node },
    { heading: "STATE", text: ({ spec }) => spec.state },
  ],
});
export type BlockAffinity = ItemOf<typeof blockAffinity>;

/** All addresses that were handed out under one id. The object's name is `handleName(handleID)`. */
export const ipamHandle = defineKind({
  kind: "IPAMHandle",
  group: CALICO,
  version: "v3",
  plural: "ipamhandles",
  fields: {
    spec: object({
      handleID: string,
      /** How many addresses it has, by the CIDR of their block. */
      block: withDefault(mapOf(int(0, MANY)), {}),
      deleted: withDefault(flag, false),
    }),
  },
  columns: [{ heading: "HANDLEID", text: ({ spec }) => spec.handleID }],
});
export type IPAMHandle = ItemOf<typeof ipamHandle>;
