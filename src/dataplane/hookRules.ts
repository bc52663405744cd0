/** What hangs in the kernel's own hooks, from where all other chains are reached. */
import { forwardEnd } from "./filterRules.ts";
import { jump, rule, workloadsHeld, type RuleContext } from "./ruleContext.ts";
import type { RuleNeeds } from "./ruleNeeds.ts";
import { chainKeyOf, type ChainKey, type Hook, type HookRule, type Layer, type RuleChain } from "./ruleset.ts";

/** Masquerading comes last, after what others translate: kube-proxy's own masquerading has to win. */
const HOOKS: readonly { layer: Layer; hook: Hook; isLast?: true }[] = [
  { layer: "raw", hook: "PREROUTING" },
  { layer: "raw", hook: "OUTPUT" },
  { layer: "mangle", hook: "PREROUTING" },
  { layer: "mangle", hook: "POSTROUTING" },
  { layer: "nat", hook: "PREROUTING" },
  { layer: "nat", hook: "OUTPUT" },
  { layer: "nat", hook: "POSTROUTING", isLast: true },
  { layer: "filter", hook: "INPUT" },
  { layer: "filter", hook: "FORWARD" },
  { layer: "filter", hook: "OUTPUT" },
];

/** By which a workload's packets can be told there. What the node itself says to its workloads is never held back. */
const WAYS: Readonly<Record<Hook, readonly ("in" | "out")[]>> = {
  PREROUTING: ["in"],
  INPUT: ["in"],
  FORWARD: ["in", "out"],
  OUTPUT: [],
  POSTROUTING: [],
};

/** @param chains those of the family: a hook is there where it has a chain to jump to */
export function hookRules(
  chains: ReadonlyMap<ChainKey, RuleChain>,
  { hosts }: RuleNeeds,
  context: RuleContext,
): HookRule[] {
  const place = context.settings.chainInsertMode === "Append" ? "last" : "first";
  const used = HOOKS.filter(({ layer, hook }) => chains.has(chainKeyOf({ layer, name: `cali-${hook}` })));
  return [
    ...used.map(({ layer, hook, isLast }): HookRule => {
      const instead = layer === "nat" ? [] : workloadsHeld(context, ...WAYS[hook]);
      return { layer, hook, place: isLast ? "last" : place, rule: rule([], [jump(`cali-${hook}`)]), instead };
    }),
    ...forwardEnd(hosts, context).map((end): HookRule => ({
      layer: "filter",
      hook: "FORWARD",
      place: "last",
      rule: end,
    })),
  ];
}
