/** All chains that are there whatever endpoints and policies are. */
import type { Family } from "../ip/address.ts";
import { failsafeChains } from "./failsafeRules.ts";
import { filterChains } from "./filterRules.ts";
import { natChains } from "./natRules.ts";
import { mangleChains, rawChains } from "./rawRules.ts";
import type { RuleContext } from "./ruleContext.ts";
import type { RuleChain } from "./ruleset.ts";

export function fixedChains(family: Family, context: RuleContext): RuleChain[] {
  return [
    ...rawChains(family, context),
    ...mangleChains(context),
    ...natChains(family, context),
    ...filterChains(family, context),
    ...(["raw", "mangle", "filter"] as const).flatMap((layer) => failsafeChains(layer, family, context)),
  ];
}
