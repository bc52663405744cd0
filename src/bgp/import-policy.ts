import { formatAddress, sameAddress, type Address } from "../ip/address.ts";
import { countAsn } from "./as-path.ts";
import type { PathAttributes } from "./attributes.ts";
import { applyOperations, type Filter } from "./filters.ts";

/** What decides, beside the route itself, whether it is believed. */
export interface ImportPolicy {
  readonly localAsn: number;
  readonly routerId: number;
  readonly internal: boolean;
  readonly ownAddress: Address | undefined;
  readonly filter: Filter;
}

/** Why the protocol itself refuses routes with these attributes, whatever filters say; undefined where nothing does. */
export function importRefusal(attributes: PathAttributes, policy: ImportPolicy): string | undefined {
  const { asPath, originatorId, clusterList = [], nextHop } = attributes;
  if (countAsn(asPath, policy.localAsn) > 0) {
    return `our AS ${policy.localAsn} is in its path: a loop (RFC 4271 section 9.1.2)`;
  }
  if (originatorId === policy.routerId) return "we originated it: our router ID is its ORIGINATOR_ID (RFC 4456)";
  if (clusterList.includes(policy.routerId)) return "we reflected it: our cluster is in its CLUSTER_LIST (RFC 4456)";
  if (nextHop !== undefined && policy.ownAddress !== undefined && sameAddress(nextHop, policy.ownAddress)) {
    return `its next hop ${formatAddress(nextHop)} is our own address`;
  }
  return undefined;
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
  return { attributes: applyOperations(attributes, verdict.operations), rule: verdict.rule };
}
