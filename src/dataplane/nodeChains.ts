/** The chains and hooks that a node has besides the chains of its endpoints and policies. */
import type { Family } from "../ip/address.ts";
import type { EndpointChains } from "../policy/chains.ts";
import type { ChainTable } from "./chainTable.ts";
import { fixedChains } from "./fixedRules.ts";
import { hookRules } from "./hookRules.ts";
import { natChains, needsNat } from "./natRules.ts";
import type { RuleContext } from "./ruleContext.ts";
import { changesNeeds, ruleNeeds, type RuleNeeds } from "./ruleNeeds.ts";
import { chainKeyOf, type ChainKey, type HookRule, type RuleChain } from "./ruleset.ts";

export interface NodeChains {
  /** One endpoint has chains in place of another. */
  replaced(before: EndpointChains | undefined, after: EndpointChains | undefined): void;
  /** The context is another. */
  touch(): void;
  /**
   * Puts what changed into the table, of all endpoints that have chains. Returns the hooks of the families in which they
   * changed: they go with the chains, in one transaction.
   */
  put(
    endpoints: () => Iterable<EndpointChains>,
    context: RuleContext,
    table: ChainTable,
  ): ReadonlyMap<Family, readonly HookRule[]>;
}

export function nodeChains(families: readonly Family[]): NodeChains {
  let isDirty = true;
  let known: ReadonlySet<ChainKey> = new Set();
  const hookTexts = new Map<Family, string>();
  /** Families in which addresses were translated. */
  const translated = new Set<Family>();

  function chainsOf(family: Family, needs: RuleNeeds, context: RuleContext): Map<ChainKey, RuleChain> {
    // The kernel translates a connection as it began only as long as there are hooks of nat.
    if (needsNat(family, needs, context)) translated.add(family);
    const nat = translated.has(family) ? natChains(family, needs, context) : [];
    return new Map([...fixedChains(family, needs, context), ...nat].map((chain) => [chainKeyOf(chain), chain]));
  }

  return {
    replaced(before, after) {
      if (changesNeeds(before, after)) isDirty = true;
    },
    touch() {
      isDirty = true;
    },
    put(endpoints, context, table) {
      const hooks = new Map<Family, readonly HookRule[]>();
      if (!isDirty) return hooks;
      isDirty = false;
      const needsOf = ruleNeeds(endpoints(), context);
      const made = new Map(families.map((family) => [family, chainsOf(family, needsOf(family), context)]));
      const keys = new Set([...made.values()].flatMap((chains) => [...chains.keys()]));
      for (const key of keys) {
        const own = families.filter((family) => made.get(family)?.has(key));
        // It is asked for the families that have it.
        table.put(key, (family) => made.get(family)!.get(key)!, { families: own });
      }
      for (const key of known) if (!keys.has(key)) table.delete(key);
      known = keys;
      for (const [family, chains] of made) {
        const rules = hookRules(chains, needsOf(family), context);
        const text = JSON.stringify(rules);
        if (hookTexts.get(family) === text) continue;
        hookTexts.set(family, text);
        hooks.set(family, rules);
      }
      return hooks;
    },
  };
}
