/**
 * From what policy wants and what the node is to the rules that are to be in its kernel, one difference after the other:
 * a change costs what it changes, not what is there.
 */
import type { Family } from "../ip/address.ts";
import type { EndpointChains } from "../policy/chains.ts";
import type { Difference } from "../policy/compile.ts";
import { EVERY_INTERFACE } from "../policy/hostEndpoints.ts";
import { hasFamily } from "../policy/model.ts";
import type { CompiledPolicy } from "../policy/ruleTable.ts";
import { chainTable } from "./chainTable.ts";
import { chainUses } from "./chainUses.ts";
import { dispatchMaps } from "./dispatchMaps.ts";
import { hostRules, workloadRules, type EndpointRules } from "./endpointRules.ts";
import { interfaceOwners } from "./interfaceOwners.ts";
import { nodeChains } from "./nodeChains.ts";
import type { NodeFacts } from "./nodeFacts.ts";
import { ruleContext, type RuleContext } from "./ruleContext.ts";
import { chainKeyOf, type DispatchMap, type Layer, type RuleChain, type RulesetChange } from "./ruleset.ts";
import { factSets, setChanges } from "./setChanges.ts";

export interface RulesetBuilder {
  /** The first take says nothing until they are known. Throws `RulesetError` for settings that cannot be carried out. */
  setFacts(facts: NodeFacts): void;
  update(difference: Difference): void;
  /**
   * What changed since the last time, to be carried out in order: mostly one change for each family, more where a set
   * went and came again in between. Families in which nothing changed are left out.
   */
  take(): readonly RulesetChange[];
  /** As of the last take, for metrics. */
  size(): readonly TableSize[];
}

/** How much there is of one layer in one family. */
export interface TableSize {
  readonly family: Family;
  readonly layer: Layer;
  readonly chains: number;
  readonly rules: number;
}

interface Rendered {
  readonly endpoint: EndpointChains;
  readonly rules: EndpointRules;
  /** In which it has chains. */
  readonly families: readonly Family[];
}

/** @param families those that the node has */
export function rulesetBuilder(families: readonly Family[] = [4, 6]): RulesetBuilder {
  let context: RuleContext | undefined;
  const policies = new Map<string, CompiledPolicy>();
  const profiles = new Map<string, CompiledPolicy>();
  const owners = interfaceOwners();
  const rendered = new Map<string, Rendered>();
  const chains = chainTable(families);
  const ofNode = nodeChains(families);
  const maps = dispatchMaps(families);
  const facts = factSets();
  const sets = setChanges();
  /** Changes that have to be carried out before what comes now. */
  const queue: RulesetChange[] = [];
  const uses = chainUses(chains, contextNow, ({ kind, id }) => (kind === "policy" ? policies : profiles).get(id));

  function contextNow(): RuleContext {
    if (context === undefined) throw new Error("chains are made before the facts are known");
    return context;
  }

  function replace(slot: string, endpoint: EndpointChains | undefined, current: RuleContext): void {
    const before = rendered.get(slot);
    const rules = endpoint && rulesOf(endpoint, current);
    const own = endpoint === undefined ? [] : families.filter((family) => hasChains(endpoint, family, current));
    const names = new Set(rules?.chains.map(chainKeyOf));
    const options = { families: own, isForAll: () => true };
    for (const chain of rules?.chains ?? []) chains.put(chainKeyOf(chain), () => chain, options);
    for (const chain of before?.rules.chains ?? []) if (!names.has(chainKeyOf(chain))) chains.delete(chainKeyOf(chain));
    for (const use of rules?.uses ?? []) uses.retain(use, own);
    for (const use of before?.rules.uses ?? []) uses.release(use, before?.families ?? []);
    if (endpoint === undefined || rules === undefined) rendered.delete(slot);
    else rendered.set(slot, { endpoint, rules, families: own });
    const { kind, interfaceName } = endpoint ?? before?.endpoint ?? {};
    if (kind === undefined || interfaceName === undefined) return;
    maps.set(kind, interfaceName, own);
    ofNode.replaced(before?.endpoint, endpoint);
  }

  function changes(): RulesetChange[] {
    if (context === undefined) return [];
    for (const { slot, owner } of owners.take()) {
      const isOurs = owner !== undefined && isRendered(owner, context);
      replace(slot, isOurs ? owner : undefined, context);
    }
    const endpoints = (): EndpointChains[] => [...rendered.values()].map(({ endpoint }) => endpoint);
    const changedHooks = ofNode.put(endpoints, context, chains);
    const [changedChains, changedMaps, changedSets] = [chains.take(), maps.take(), sets.take()];
    return families.flatMap((family) => {
      const ownChains = changedChains.get(family) ?? new Map<string, RuleChain | undefined>();
      const ownMaps = changedMaps.get(family) ?? new Map<string, DispatchMap>();
      const hooks = changedHooks.get(family);
      return hooks === undefined && changedSets.length + ownChains.size + ownMaps.size === 0
        ? []
        : [{ family, chains: ownChains, maps: ownMaps, ...(hooks === undefined ? {} : { hooks }), sets: changedSets }];
    });
  }

  return {
    setFacts(given) {
      const now = ruleContext(given);
      for (const change of facts(given)) sets.add(change);
      if (JSON.stringify(now) === JSON.stringify(context)) return;
      context = now;
      owners.touchAll();
      chains.touchAll();
      ofNode.touch();
    },
    update(difference) {
      const isBack = difference.sets.some(({ id, state }) => state === "new" && sets.isGoing(id));
      if (isBack) queue.push(...changes());
      for (const change of difference.sets) sets.add(change);
      for (const [key, endpoint] of difference.endpoints) owners.set(key, endpoint);
      for (const [id, policy] of difference.policies) {
        putOrDelete(policies, id, policy);
        uses.changed("policy", id);
      }
      for (const [name, profile] of difference.profiles) {
        putOrDelete(profiles, name, profile);
        uses.changed("profile", name);
      }
    },
    take() {
      queue.push(...changes());
      return queue.splice(0);
    },
    size: () => chains.size(),
  };
}

/** A name that no interface can have (IFNAMSIZ, linux/if.h), or an asterisk for many, stands for none. */
const INTERFACE_NAME = /^[^\s/*]{1,15}$/;

/** Host endpoints are for interfaces that are not workloads'. */
function isRendered({ kind, interfaceName }: EndpointChains, { settings }: RuleContext): boolean {
  if (kind === "workload") return INTERFACE_NAME.test(interfaceName);
  if (interfaceName === EVERY_INTERFACE) return true;
  const isWorkloads = settings.interfacePrefix.some((prefix) => interfaceName.startsWith(prefix));
  return INTERFACE_NAME.test(interfaceName) && !isWorkloads;
}

/**
 * Packets of a family that a workload has no address of are dropped as those of an unknown interface are: there is no way
 * to its chains. Before it has addresses, it will have some of the pools' families.
 */
function hasChains(endpoint: EndpointChains, family: Family, { poolFamilies }: RuleContext): boolean {
  if (endpoint.kind === "host") return true;
  const { addresses, local } = endpoint;
  if (addresses.length === 0) return poolFamilies.length === 0 || poolFamilies.includes(family);
  return hasFamily([...addresses, ...local.allowedSourcePrefixes], family);
}

function rulesOf(endpoint: EndpointChains, context: RuleContext): EndpointRules {
  return endpoint.kind === "host" ? hostRules(endpoint, context) : workloadRules(endpoint, context);
}

function putOrDelete<Value>(map: Map<string, Value>, key: string, value: Value | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
