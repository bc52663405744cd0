/** Chains as they should be, and what of them was told already: one table for the families that a node has. */
import type { Family } from "../ip/address.ts";
import type { ChainKey, Layer, RuleChain } from "./ruleset.ts";

/** A chain in one family. It is asked when changes are taken, so that many changes cost one making. */
export type ChainMaker = (family: Family) => RuleChain;

export interface ChainOptions {
  /** In which it is; all where not given. */
  readonly families?: readonly Family[];
  /** Whether it is the same in every family; it is then made and kept once. */
  readonly isForAll?: () => boolean;
}

export interface ChainTable {
  put(key: ChainKey, make: ChainMaker, options?: ChainOptions): void;
  delete(key: ChainKey): void;
  /** The chain may be made differently now. */
  touch(key: ChainKey): void;
  touchAll(): void;
  /** What differs from what was told. */
  take(): Map<Family, Map<ChainKey, RuleChain | undefined>>;
  /** Of what was told. */
  size(): { readonly family: Family; readonly layer: Layer; readonly chains: number; readonly rules: number }[];
}

export function chainTable(families: readonly Family[]): ChainTable {
  const makers = new Map<ChainKey, Required<ChainOptions> & { readonly make: ChainMaker }>();
  const dirty = new Set<ChainKey>();
  const told = new Map(families.map((family) => [family, new Map<ChainKey, RuleChain>()]));
  return {
    put(key, make, { families: own = families, isForAll = isForOne } = {}) {
      makers.set(key, { make, families: own, isForAll });
      dirty.add(key);
    },
    delete(key) {
      makers.delete(key);
      dirty.add(key);
    },
    touch: (key) => void dirty.add(key),
    touchAll() {
      for (const key of makers.keys()) dirty.add(key);
    },
    take() {
      const changes = new Map(families.map((family) => [family, new Map<ChainKey, RuleChain | undefined>()]));
      for (const key of dirty) {
        const maker = makers.get(key);
        let forAll: RuleChain | undefined;
        for (const [family, known] of told) {
          const now = maker?.families.includes(family) === true ? (forAll ?? maker.make(family)) : undefined;
          if (now !== undefined && maker?.isForAll() === true) forAll = now;
          const before = known.get(key);
          if (now === undefined) {
            if (known.delete(key)) changes.get(family)?.set(key, undefined);
          } else if (before === undefined || !isSame(before, now)) {
            known.set(key, now);
            changes.get(family)?.set(key, now);
          }
        }
      }
      dirty.clear();
      return changes;
    },
    size: () =>
      [...told].flatMap(([family, known]) =>
        [...Map.groupBy(known.values(), ({ layer }) => layer)].map(([layer, of]) => ({
          family,
          layer,
          chains: of.length,
          rules: of.reduce((sum, { rules }) => sum + rules.length, 0),
        })),
      ),
  };
}

const isForOne = (): boolean => false;
const isSame = (one: RuleChain, other: RuleChain): boolean => JSON.stringify(one) === JSON.stringify(other);
