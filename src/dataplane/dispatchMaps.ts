/** From interfaces to the chains of their endpoints. */
import type { Family } from "../ip/address.ts";
import type { EndpointChains } from "../policy/chains.ts";
import { EVERY_INTERFACE } from "../policy/hostEndpoints.ts";
import { hostChainName, workloadChainName } from "./endpointRules.ts";
import { FROM_WORKLOADS, TO_WORKLOADS } from "./filterRules.ts";
import { HOST_DISPATCHES } from "./hostDispatch.ts";
import { chainKeyOf, type ChainKey, type DispatchMap, type Layer } from "./ruleset.ts";

export interface DispatchMaps {
  /** The interface has an endpoint of the kind with chains in the families; without any it has none any more. */
  set(kind: EndpointChains["kind"], interfaceName: string, families: readonly Family[]): void;
  /** By family, maps that changed; at first all. */
  take(): Map<Family, Map<ChainKey, DispatchMap>>;
}

interface Table {
  readonly layer: Layer;
  readonly name: string;
  readonly by: "in" | "out";
  readonly kind: EndpointChains["kind"];
  readonly chainOf: (interfaceName: string) => string;
  readonly entries: ReadonlyMap<Family, Map<string, string>>;
  /** The families in which it is not as it was told. */
  readonly changed: Set<Family>;
}

export function dispatchMaps(families: readonly Family[]): DispatchMaps {
  const empty = (): Pick<Table, "entries" | "changed"> => ({
    entries: new Map(families.map((family) => [family, new Map<string, string>()])),
    changed: new Set(families),
  });
  const workload = (name: string, by: "in" | "out"): Table => ({
    layer: "filter",
    name,
    by,
    kind: "workload",
    chainOf: (interfaceName) => workloadChainName(by === "in" ? "egress" : "ingress", interfaceName),
    ...empty(),
  });
  const tables: Table[] = [
    workload(FROM_WORKLOADS, "in"),
    workload(TO_WORKLOADS, "out"),
    ...HOST_DISPATCHES.map(({ layer, name, direction, isForward }): Table => ({
      layer,
      name,
      by: direction === "ingress" ? "in" : "out",
      kind: "host",
      chainOf: (interfaceName) => hostChainName(direction, interfaceName, isForward),
      ...empty(),
    })),
  ];
  return {
    set(kind, interfaceName, own) {
      if (interfaceName === EVERY_INTERFACE) return;
      for (const table of tables) {
        if (table.kind !== kind) continue;
        for (const [family, entries] of table.entries) {
          const isThere = own.includes(family);
          if (entries.has(interfaceName) === isThere) continue;
          if (isThere) entries.set(interfaceName, table.chainOf(interfaceName));
          else entries.delete(interfaceName);
          table.changed.add(family);
        }
      }
    },
    take() {
      const changes = new Map(families.map((family) => [family, new Map<ChainKey, DispatchMap>()]));
      for (const table of tables) {
        const { layer, name, by, changed } = table;
        for (const family of changed) {
          const entries = new Map(table.entries.get(family));
          changes.get(family)?.set(chainKeyOf(table), { layer, name, by, entries });
        }
        changed.clear();
      }
      return changes;
    },
  };
}
