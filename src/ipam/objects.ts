/** Blocks and affinities as Calico's IPAMBlock and BlockAffinity objects, so that a cluster's own carry over. */
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { AllocationAttribute, BlockAffinity, IPAMBlock } from "../resources/ipam.ts";
import { blockAffinityName, blockName } from "../resources/names.ts";
import type { Block, Holder } from "./block.ts";
import type { Affinity, Stored } from "./store.ts";

const API_VERSION = "projectcalico.org/v3";

/** A block as the allocator sees it. The object is kept with it, for what it has that a block has not. */
export function storedBlock(object: IPAMBlock): Stored<Block> {
  const { spec } = object;
  const value: Block = {
    prefix: parsePrefix(spec.cidr),
    affinity: spec.affinity ?? null,
    claimedAt: spec.affinityClaimTime === undefined ? null : Date.parse(spec.affinityClaimTime),
    allocations: spec.allocations,
    unallocated: spec.unallocated,
    holders: spec.attributes.map(holderOf),
    sequenceNumber: spec.sequenceNumber,
    sequenceOf: new Map(
      Object.entries(spec.sequenceNumberForAllocation).map(([ordinal, sequence]) => [Number(ordinal), sequence]),
    ),
    carried: object,
  };
  return { value, version: object.metadata.resourceVersion ?? "" };
}

function holderOf({ handle_id, secondary, alternate, releasedAt }: AllocationAttribute): Holder {
  return {
    handle: handle_id ?? null,
    attributes: secondary ?? {},
    ...(alternate === undefined ? {} : { alternate }),
    ...(releasedAt === undefined ? {} : { releasedAt: Date.parse(releasedAt) }),
  };
}

function attributeOf({ handle, attributes, alternate, releasedAt }: Holder): AllocationAttribute {
  return {
    ...(handle === null ? {} : { handle_id: handle }),
    ...(releasedAt === undefined || Object.keys(attributes).length > 0 ? { secondary: { ...attributes } } : {}),
    ...(alternate === undefined ? {} : { alternate: { ...alternate } }),
    ...(releasedAt === undefined ? {} : { releasedAt: new Date(releasedAt).toISOString() }),
  };
}

/** The object of a block, with what it was found with; `version` is left out where it is to be created. */
export function blockObject(block: Block, version?: string): IPAMBlock {
  const cidr = formatPrefix(block.prefix);
  const found = block.carried as IPAMBlock | undefined;
  // Without these two: an orphaned block has neither.
  const {
    affinity: _affinity,
    affinityClaimTime: _time,
    ...rest
  } = found?.spec ?? { deleted: false, strictAffinity: false };
  return {
    apiVersion: API_VERSION,
    kind: "IPAMBlock",
    metadata: {
      ...found?.metadata,
      name: blockName(cidr),
      ...(version === undefined ? {} : { resourceVersion: version }),
    },
    spec: {
      ...rest,
      cidr,
      ...(block.affinity === null ? {} : { affinity: block.affinity }),
      ...(block.claimedAt === null ? {} : { affinityClaimTime: new Date(block.claimedAt).toISOString() }),
      allocations: [...block.allocations],
      unallocated: [...block.unallocated],
      attributes: block.holders.map(attributeOf),
      sequenceNumber: block.sequenceNumber,
      sequenceNumberForAllocation: Object.fromEntries(
        [...block.sequenceOf].map(([ordinal, sequence]) => [String(ordinal), sequence]),
      ),
    },
  };
}

export function storedAffinity(object: BlockAffinity): Stored<Affinity> {
  const { node, type, cidr, state } = object.spec;
  const value: Affinity = { node, type, prefix: parsePrefix(cidr), state, carried: object };
  return { value, version: object.metadata.resourceVersion ?? "" };
}

/** The object of an affinity, as `blockObject`. */
export function affinityObject(affinity: Affinity, version?: string): BlockAffinity {
  const cidr = formatPrefix(affinity.prefix);
  const found = affinity.carried as BlockAffinity | undefined;
  const { node, type, state } = affinity;
  return {
    apiVersion: API_VERSION,
    kind: "BlockAffinity",
    metadata: {
      ...found?.metadata,
      name: blockAffinityName(node, cidr),
      ...(version === undefined ? {} : { resourceVersion: version }),
    },
    spec: { deleted: false, ...found?.spec, node, type, cidr, state },
  };
}
