import { formatAddress, sameAddress, type Address } from "../ip/address.ts";
import { countAsn } from "./as-path.ts";
import { WELL_KNOWN, type PathAttributes } from "./attributes.ts";
import { applyOperations, type Filter, type FilterOperation } from "./filters.ts";

/** What decides, beside the route itself, whether it is believed. */
export interface ImportPolicy {
  /** Our AS numbers: towards the peer, and of the speaker where it is another. */
  readonly ownAsns: readonly number[];
  /** How often each of them may stand in a path. */
  readonly allowOwnAs: number;
  readonly routerId: number;
  readonly clusterId: number;
  readonly internal: boolean;
  readonly ownAddress: Address | undefined;
  readonly filter: Filter;
}

/** Why the protocol itself refuses routes with these attributes, whatever filters say; undefined where nothing does. */
export function importRefusal(attributes: PathAttributes, policy: ImportPolicy): string | undefined {
  const { asPath, originatorId, clusterList = [], nextHop } = attributes;
  for (const asn of policy.ownAsns) {
    if (countAsn(asPath, asn) > policy.allowOwnAs) {
      return `our AS ${asn} is in its path: a loop (RFC 4271 section 9.1.2)`;
    }
  }
  if (originatorId === policy.routerId) return "we originated it: our router ID is its ORIGINATOR_ID (RFC 4456)";
  if (clusterList.includes(policy.clusterId)) return "we reflected it: our cluster is in its CLUSTER_LIST (RFC 4456)";
  if (nextHop !== undefined && policy.ownAddress !== undefined && sameAddress(nextHop, policy.ownAddress)) {
    return `its next hop ${formatAddress(nextHop)} is our own address`;
  }
  return undefined;
}

const NOT_PREFERRED: readonly FilterOperation[] = [{ type: "setLocalPref", value: 0 }];

/**
 * The attributes after the filter's operations; the same object where nothing changes. What a neighbouring AS marks as
 * about to go is used only where there is nothing else (RFC 8326 section 4.2).
 */
export function acceptedAttributes(
  attributes: PathAttributes,
  operations: readonly FilterOperation[],
  { internal }: ImportPolicy,
): PathAttributes {
  const changed = applyOperations(attributes, operations);
  const leaving = !internal && changed.communities?.includes(WELL_KNOWN.gracefulShutdown) === true;
  return leaving ? applyOperations(changed, NOT_PREFERRED) : changed;
}

/** The attributes to use, or why the route is not believed. */
export function importRoute(
  words: { w0: number; w1: number; w2: number; w3: number; length: number },
  attributes: PathAttributes,
  policy: ImportPolicy,
): { attributes: PathAttributes; rule: string } | { refused: string } {
  const refused = importRefusal(attributes, policy);
  if (refused !== undefined) return { refused };
  const { w0, w1, w2, w3, length } = words;
  const verdict = policy.filter.evaluate(w0, w1, w2, w3, length, attributes, "peers");
  if (!verdict.accept) return { refused: `import filter: ${verdict.rule}` };
  return { attributes: acceptedAttributes(attributes, verdict.operations, policy), rule: verdict.rule };
}
