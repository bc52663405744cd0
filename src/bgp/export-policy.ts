import { type Address, type Family } from "../ip/address.ts";
import { prepend } from "./as-path.ts";
import { DEFAULT_LOCAL_PREF } from "./attribute-table.ts";
import { WELL_KNOWN, type PathAttributes } from "./attributes.ts";
import { LOCAL_PEER, type RibPeer } from "./decision.ts";
import { applyOperations, type Filter, type FilterOperation } from "./filters.ts";

/** What decides, beside the route itself, what peers are told: peers for which it is equal share an update group. */
export interface ExportPolicy {
  readonly family: Family;
  readonly internal: boolean;
  /** They are our clients (RFC 4456): they are told also what we learned in iBGP. */
  readonly client: boolean;
  /** Goes into the CLUSTER_LIST of what we reflect. */
  readonly clusterId: number;
  /** Our AS towards the peers. */
  readonly localAsn: number;
  readonly asOctets: 2 | 4;
  readonly longestMessage: number;
  /** They are told all usable paths, each with an identifier (RFC 7911). */
  readonly addPath: boolean;
  /** `auto`: ourselves in eBGP, as it was in iBGP. Our own routes always have ourselves. */
  readonly nextHopMode: "auto" | "self" | "keep";
  /** The address that stands for us, where we have one; of the other family where RFC 8950 was agreed on. */
  readonly ownNextHop: Address | undefined;
  /** IPv4 routes may be told with IPv6 next hops (RFC 8950). */
  readonly extendedNextHop: boolean;
  /** We are about to go: others should find other ways (RFC 8326). */
  readonly gracefulShutdown: boolean;
  readonly filter: Filter;
}

/** Equal for policies that say the same. */
export function policyKey({ ownNextHop, filter, ...plain }: ExportPolicy): string {
  const own = ownNextHop === undefined ? "" : `${ownNextHop.family}:${ownNextHop.value}`;
  return [...Object.values(plain), own, filter.key].join("|");
}

/** Whether a path learned in iBGP goes on to iBGP peers: RFC 4456 section 6. */
export function reflects(source: RibPeer, policy: ExportPolicy): boolean {
  return source.client || policy.client;
}

/** Why the protocol itself keeps a route from being told, whatever filters say; undefined where nothing does. */
export function exportRefusal(attributes: PathAttributes, source: RibPeer, policy: ExportPolicy): string | undefined {
  const local = source.index === LOCAL_PEER;
  if (!local && source.internal && policy.internal && !reflects(source, policy)) {
    return "learned in iBGP: not passed on in iBGP (RFC 4271 section 9.2), as neither side is a client of ours (RFC 4456)";
  }
  const { communities = [] } = attributes;
  if (communities.includes(WELL_KNOWN.noAdvertise)) return "it carries the community NO_ADVERTISE";
  if (!policy.internal && communities.includes(WELL_KNOWN.noExport)) return "it carries the community NO_EXPORT";
  if (!policy.internal && communities.includes(WELL_KNOWN.noExportSubconfed)) {
    return "it carries the community NO_EXPORT_SUBCONFED";
  }
  const own = givesOwnNextHop(source, policy);
  if (own && policy.ownNextHop === undefined) return `we have no IPv${policy.family} address to give as next hop`;
  const nextHop = own ? policy.ownNextHop : attributes.nextHop;
  if (nextHop !== undefined && nextHop.family !== policy.family && !(policy.extendedNextHop && policy.family === 4)) {
    return `its next hop is of IPv${nextHop.family}, which the peer does not take (RFC 8950)`;
  }
  return undefined;
}

/** The attributes as the peers get them (RFC 4271 section 5.1); `operations` are the filter's. */
export function exportAttributes(
  attributes: PathAttributes,
  source: RibPeer,
  policy: ExportPolicy,
  operations: readonly FilterOperation[],
): PathAttributes {
  const { linkLocalNextHop: _, ...kept } = attributes;
  // A MED from one neighbouring AS means nothing to another (section 5.1.4).
  const { med: _med, ...withoutMed } = kept;
  const passed = policy.internal || source.index === LOCAL_PEER ? kept : withoutMed;
  const changed = applyOperations(passed, shutdownOperations(policy, operations));
  const nextHop = givesOwnNextHop(source, policy) ? policy.ownNextHop : changed.nextHop;
  const withHop = nextHop === undefined ? changed : { ...changed, nextHop };
  if (policy.internal) {
    const localPref = changed.localPref ?? DEFAULT_LOCAL_PREF;
    const reflected = source.internal && source.index !== LOCAL_PEER ? reflection(changed, source, policy) : {};
    return { ...withHop, ...reflected, localPref };
  }
  const { localPref: _localPref, originatorId: _originator, clusterList: _clusters, ...outside } = withHop;
  return { ...outside, asPath: prepend(changed.asPath, policy.localAsn) };
}

/** RFC 4456 section 8: who brought the route into the AS, and the clusters it has been through, ours first. */
function reflection(
  { originatorId, clusterList = [] }: PathAttributes,
  source: RibPeer,
  { clusterId }: ExportPolicy,
): Pick<PathAttributes, "originatorId" | "clusterList"> {
  return { originatorId: originatorId ?? source.routerId, clusterList: [clusterId, ...clusterList] };
}

/** RFC 8326 section 4.1; within the AS the preference says it at once. */
function shutdownOperations(
  { gracefulShutdown, internal }: ExportPolicy,
  operations: readonly FilterOperation[],
): readonly FilterOperation[] {
  if (!gracefulShutdown) return operations;
  const community: FilterOperation = { type: "addCommunity", community: WELL_KNOWN.gracefulShutdown };
  return [...operations, community, ...(internal ? [{ type: "setLocalPref", value: 0 } as const] : [])];
}

/** Whether peers are given our own address in place of the next hop that a route came with. */
export function givesOwnNextHop(source: RibPeer, { internal, nextHopMode }: ExportPolicy): boolean {
  if (source.index === LOCAL_PEER || nextHopMode === "self") return true;
  return nextHopMode === "auto" && !internal;
}
