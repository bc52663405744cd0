/** Which chains of policies, profiles and groups are there: those that some endpoint's chain of the family jumps to. */
import type { Family } from "../ip/address.ts";
import type { CompiledPolicy } from "../policy/ruleTable.ts";
import type { ChainTable } from "./chainTable.ts";
import type { ChainUse } from "./endpointRules.ts";
import { groupChain, groupChainName } from "./policyGroups.ts";
import { isSameForAll, ownerChain, ownerChainName, type RuleOwner } from "./policyRules.ts";
import type { RuleContext } from "./ruleContext.ts";
import { chainKeyOf, type ChainKey } from "./ruleset.ts";

export interface ChainUses {
  /** Some endpoint's chain in each of the families jumps to it; or does not any more. */
  retain(use: ChainUse, families: readonly Family[]): void;
  release(use: ChainUse, families: readonly Family[]): void;
  /** The rules of a policy or profile are others now. */
  changed(kind: RuleOwner["kind"], id: string): void;
}

/** Who jumps to a chain. */
interface Users {
  /** How many, by family; those without any are left out. */
  readonly counts: Map<Family, number>;
  readonly tier: string | undefined;
}

const LAYERS = ["raw", "mangle", "filter"] as const;

export function chainUses(
  chains: ChainTable,
  contextOf: () => RuleContext,
  compiledOf: (owner: RuleOwner) => CompiledPolicy | undefined,
): ChainUses {
  const users = new Map<ChainKey, Users>();

  function retain(use: ChainUse, families: readonly Family[]): void {
    if (families.length === 0) return;
    const key = keyOf(use);
    const known = users.get(key);
    const counts = known?.counts ?? new Map<Family, number>();
    const fresh = families.filter((family) => !counts.has(family));
    for (const family of families) counts.set(family, (counts.get(family) ?? 0) + 1);
    const tier = "owner" in use ? use.owner.tier : use.group.tier;
    users.set(key, { counts, tier });
    // A policy may have moved to another tier, whose name may stand in its rules.
    if (fresh.length > 0 || known?.tier !== tier) put(use, key, counts);
    if ("group" in use && fresh.length > 0) for (const owner of ownersOf(use)) retain({ owner }, fresh);
  }

  function release(use: ChainUse, families: readonly Family[]): void {
    const key = keyOf(use);
    const counts = users.get(key)?.counts;
    if (counts === undefined) return;
    for (const family of families) counts.set(family, (counts.get(family) ?? 0) - 1);
    const gone = families.filter((family) => counts.get(family) === 0 && counts.delete(family));
    if (gone.length === 0) return;
    if (counts.size > 0) put(use, key, counts);
    else {
      users.delete(key);
      chains.delete(key);
    }
    if ("group" in use) for (const owner of ownersOf(use)) release({ owner }, gone);
  }

  function put(use: ChainUse, key: ChainKey, counts: Users["counts"]): void {
    const families = [...counts.keys()];
    if ("group" in use) {
      return chains.put(key, () => groupChain(use.group, contextOf()), { families, isForAll: always });
    }
    const { owner } = use;
    const isForAll = (): boolean => isSameForAll(owner, compiledOf(owner));
    chains.put(key, (family) => ownerChain(owner, compiledOf(owner), family, contextOf()), { families, isForAll });
  }

  return {
    retain,
    release,
    changed(kind, id) {
      // As at a start, where all of them come before any endpoint's chains.
      if (users.size === 0) return;
      for (const layer of LAYERS) {
        for (const direction of ["ingress", "egress"] as const) {
          const key = chainKeyOf({ layer, name: ownerChainName({ kind, direction, id }) });
          if (users.has(key)) chains.touch(key);
        }
      }
    },
  };
}

const always = (): boolean => true;

function keyOf(use: ChainUse): ChainKey {
  if ("owner" in use) return chainKeyOf({ layer: use.owner.layer, name: ownerChainName(use.owner) });
  return chainKeyOf({ layer: use.group.layer, name: groupChainName(use.group) });
}

function ownersOf({ group }: Extract<ChainUse, { group: unknown }>): RuleOwner[] {
  const { layer, direction, tier, policies } = group;
  return policies.map((id) => ({ kind: "policy", id, layer, direction, tier }));
}
