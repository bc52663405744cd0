/** The chains of raw, mangle and filter that stand between the kernel's hooks and the chains of endpoints. */
import type { Family } from "../ip/address.ts";
import { failsafeChains } from "./failsafeRules.ts";
import { filterChains } from "./filterRules.ts";
import { hostDispatchChains } from "./hostDispatch.ts";
import { mangleChains, rawChains } from "./rawRules.ts";
import type { RuleContext } from "./ruleContext.ts";
import type { RuleNeeds } from "./ruleNeeds.ts";
import type { RuleChain } from "./ruleset.ts";

export function fixedChains(family: Family, needs: RuleNeeds, context: RuleContext): RuleChain[] {
  const { hosts } = needs;
  return [
    ...rawChains(family, needs, context),
    ...mangleChains(hosts, context),
    ...filterChains(family, hosts, context),
    ...hostDispatchChains(hosts, context),
    ...(hosts.any
      ? (["raw", "mangle", "filter"] as const).flatMap((layer) => failsafeChains(layer, family, context))
      : []),
  ];
}
