/** How many packets rules saw, from what iptables-save prints. */
import type { DesiredTable } from "./iptablesModel.ts";
import type { RenderedChain } from "./iptablesRender.ts";
import { LAYERS, type SavedTables } from "./iptablesSave.ts";
import type { Counted, Layer, RuleCount } from "./ruleset.ts";

/** One for each `counted` that is in the tables; several rules of iptables may count for it. */
export function countsOf(saved: SavedTables, desired: Readonly<Record<Layer, DesiredTable>>): RuleCount[] {
  const counts = new Map<Counted, { packets: number; bytes: number }>();
  const add = (chain: RenderedChain, name: string): void => {
    if (chain.lines.every(({ counted }) => counted === undefined)) return;
    const rules = new Map(saved[chain.layer].get(name)?.map((rule) => [rule.hash, rule]));
    for (const [index, { counted }] of chain.lines.entries()) {
      const rule = rules.get(chain.hashes[index] ?? "");
      if (counted === undefined || rule === undefined) continue;
      const count = counts.get(counted) ?? { packets: 0, bytes: 0 };
      count.packets += rule.packets;
      count.bytes += rule.bytes;
      counts.set(counted, count);
    }
  };
  for (const layer of LAYERS) {
    for (const [name, chain] of desired[layer].chains) add(chain, name);
    for (const [hook, { first, last }] of desired[layer].hooks) {
      add(first, hook);
      add(last, hook);
    }
  }
  return [...counts].map(([counted, count]) => ({ counted, ...count }));
}
