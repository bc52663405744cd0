/** What the decisions of this folder rest on, taken from the resources that people write. */
import { parsePrefix } from "../ip/prefix.ts";
import { DEFAULT_MAX_BLOCKS_PER_HOST, type IPAMConfiguration, type IPReservation } from "../resources/ipam.ts";
import type { IPPool } from "../resources/ippool.ts";
import { cachedSelector, matches } from "../resources/selector.ts";
import type { Labels, Pool } from "./pools.ts";
import { reservationsOf, type Reservations } from "./reservations.ts";

/** What people have configured, and this node's labels, as they are now. */
export interface World {
  readonly pools: readonly Pool[];
  readonly reservations: Reservations;
  readonly config: IpamConfig;
  readonly nodeLabels: Labels;
}

export interface IpamConfig {
  /** Never give out addresses of other nodes' blocks. */
  readonly strictAffinity: boolean;
  /** Blocks of each family that a node may hold. */
  readonly maxBlocksPerHost: number;
  /** Whether nodes may claim blocks by themselves. */
  readonly autoAllocateBlocks: boolean;
  /** How long a released address rests. */
  readonly cooldownSeconds: number;
}

/** The world as the resources describe it; `configuration` is the one named `default`, where there is one. */
export function worldOf(
  resources: {
    readonly pools: Iterable<IPPool>;
    readonly reservations: Iterable<IPReservation>;
    readonly configuration: IPAMConfiguration | undefined;
  },
  nodeLabels: Labels,
): World {
  return {
    pools: poolsOf(resources.pools),
    reservations: reservationsFrom(resources.reservations),
    config: configOf(resources.configuration),
    nodeLabels,
  };
}

/** In order of name. A pool that is being deleted is as good as disabled. */
export function poolsOf(pools: Iterable<IPPool>): Pool[] {
  return [...pools].map(poolFrom).sort((a, b) => (a.name < b.name ? -1 : 1));
}

function poolFrom({ metadata, spec }: IPPool): Pool {
  const nodeSelector = cachedSelector(spec.nodeSelector);
  const namespaceSelector = cachedSelector(spec.namespaceSelector ?? "");
  return {
    name: metadata.name,
    prefix: parsePrefix(spec.cidr),
    blockSize: spec.blockSize,
    disabled: spec.disabled || metadata.deletionTimestamp !== undefined,
    automatic: spec.assignmentMode === "Automatic",
    allowedUses: spec.allowedUses,
    selectsNode: (labels) => matches(nodeSelector, labels),
    selectsNamespace: (labels) => matches(namespaceSelector, labels),
  };
}

export function reservationsFrom(reservations: Iterable<IPReservation>): Reservations {
  return reservationsOf([...reservations].flatMap(({ spec }) => spec.reservedCIDRs.map(parsePrefix)));
}

export function configOf(configuration: IPAMConfiguration | undefined): IpamConfig {
  const spec = configuration?.spec;
  return {
    strictAffinity: spec?.strictAffinity ?? false,
    maxBlocksPerHost: spec?.maxBlocksPerHost || DEFAULT_MAX_BLOCKS_PER_HOST,
    autoAllocateBlocks: spec?.autoAllocateBlocks ?? true,
    cooldownSeconds: spec?.ipCooldownSeconds ?? 0,
  };
}
