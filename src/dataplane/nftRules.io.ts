import type { Family } from "../ip/address.ts";
import { openKeptTable } from "./keptTable.io.ts";
import { tableOf } from "./nftNames.ts";
import { nftRuleset } from "./nftRuleset.ts";
import type { KernelRules } from "./ruleset.ts";

export interface NftKernelRulesOptions {
  readonly family: Family;
  /** Path of a network namespace; without it the calling thread's. */
  readonly namespace?: string;
  /** A set with more members is refused, and the chains that look at it drop: Felix's maxIpsetSize, 1,048,576 if absent. */
  readonly maxSetSize?: number;
  /** Nobody else can change the table while it is open, where the kernel can promise that: Linux 6.9. */
  readonly isOwned?: boolean;
  /** Others had changed the table, in the ways told, and it was put right. */
  readonly onRepaired?: (what: readonly string[]) => void;
  /** A repair failed, and is tried again; or what others do cannot be heard of any more. */
  readonly onFailure?: (error: unknown) => void;
}

/**
 * The packet filter as tables of nf_tables (`ip calico`, `ip6 calico`), in Calico's layout. A table that is not owned may
 * be changed by others: that is heard of, and put right at once; one that is deleted denies nothing until it is there
 * again, some milliseconds later. What others add to it besides chains, rules and sets stays, as it does nothing.
 */
export function openNftKernelRules(options: NftKernelRulesOptions): KernelRules {
  const { family, namespace, maxSetSize, isOwned, onRepaired, onFailure } = options;
  let ruleset = nftRuleset(family);
  const kept = openKeptTable({
    table: tableOf(family),
    ...(namespace !== undefined && { namespace }),
    ...(maxSetSize !== undefined && { maxMembers: maxSetSize }),
    ...(isOwned !== undefined && { isOwned }),
    ...(onRepaired !== undefined && { onRepaired }),
    ...(onFailure !== undefined && { onFailure }),
  });
  return {
    // oxlint-disable-next-line require-await -- in turn with others' calls, since nothing awaits
    apply: async (change) => kept.apply(ruleset(change)),
    check: () => kept.check(),
    async counts() {
      const counts = await kept.counts();
      return [...counts].flatMap(([{ counted }, sum]) => (counted === undefined ? [] : [{ counted, ...sum }]));
    },
    // oxlint-disable-next-line require-await
    async remove() {
      kept.remove();
      ruleset = nftRuleset(family);
    },
    close: () => kept.close(),
  };
}
