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
  /** Our AS towards the peers. */
  readonly localAsn: number;
  readonly asOctets: 2 | 4;
  readonly longestMessage: number;
  /** Ourselves as next hop also of learned routes in iBGP. */
  readonly nextHopSelf: boolean;
  /** The address that stands for us, where we have one in the family. */
  readonly ownNextHop: Address | undefined;
  readonly filter: Filter;
}

export function policyKey(policy: ExportPolicy): string {
  const { family, internal, localAsn, asOctets, longestMessage, nextHopSelf, ownNextHop, filter } = policy;
  const own = ownNextHop === undefined ? "" : `${ownNextHop.family}:${ownNextHop.value}`;
  return [family, internal, localAsn, asOctets, longestMessage, nextHopSelf, own, filter.key].join("|");
}

/** Why the protocol itself keeps a route from being told, whatever filters say; undefined where nothing does. */
export function exportRefusal(attributes: PathAttributes, source: RibPeer, policy: ExportPolicy): string | undefined {
  const local = source.index === LOCAL_PEER;
  if (!local && source.internal && policy.internal) {
    return "learned in iBGP: not passed on in iBGP (RFC 4271 section 9.2)";
  }
  const { communities = [] } = attributes;
  if (communities.includes(WELL_KNOWN.noAdvertise)) return "it carries the community NO_ADVERTISE";
  if (!policy.internal && communities.includes(WELL_KNOWN.noExport)) return "it carries the community NO_EXPORT";
  if (!policy.internal && communities.includes(WELL_KNOWN.noExportSubconfed)) {
    return "it carries the community NO_EXPORT_SUBCONFED";
  }
  if (givesOwnNextHop(source, policy) && policy.ownNextHop === undefined) {
    return `we have no IPv${policy.family} address to give as next hop`;
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
  const changed = applyOperations(passed, operations);
  const nextHop = givesOwnNextHop(source, policy) ? policy.ownNextHop : changed.nextHop;
  const withHop = nextHop === undefined ? changed : { ...changed, nextHop };
  if (policy.internal) return { ...withHop, localPref: changed.localPref ?? DEFAULT_LOCAL_PREF };
  const { localPref: _localPref, originatorId: _originator, clusterList: _clusters, ...outside } = withHop;
  return { ...outside, asPath: prepend(changed.asPath, policy.localAsn) };
}

function givesOwnNextHop(source: RibPeer, policy: ExportPolicy): boolean {
  return source.index === LOCAL_PEER || !policy.internal || policy.nextHopSelf;
}
