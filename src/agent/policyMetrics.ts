import { Counter, Gauge, type Registry } from "prom-client";
import type { TableSize } from "../dataplane/rulesetBuilder.ts";
import type { Renderer } from "./nodeFacts.ts";

/** How much there is in the packet filter, as each renderer's numbers are called in Felix. */
export interface RulesInKernel {
  readonly renderer: Renderer | undefined;
  readonly sizes: readonly TableSize[];
  /** Address sets, which each family has. */
  readonly sets: number;
  /** Changes of the datastore and of the node that were told so far. */
  readonly told: number;
}

/** What Felix calls the address sets of each packet filter. */
const SETS = { nft: "felix_nft_sets", iptables: "felix_ipsets_calico" } as const;

/**
 * `felix_nft_chains` and `_rules` by address family; `felix_iptables_chains` and `_rules` by table as well; the sets of
 * either; and how many changes there were.
 */
export function registerRuleMetrics(registers: Registry[], read: () => RulesInKernel): void {
  new Counter({
    name: "felix_calc_graph_updates_processed",
    help: "Changes of the datastore and of this node that policy was told.",
    registers,
    collect() {
      this.reset();
      this.inc(read().told);
    },
  });
  for (const renderer of ["nft", "iptables"] as const) {
    new Gauge({
      name: SETS[renderer],
      help: `Our address sets ${renderer === "nft" ? "in nf_tables" : "of ipset"}.`,
      registers,
      labelNames: ["ip_version"],
      collect() {
        this.reset();
        const inKernel = read();
        if (inKernel.renderer !== renderer) return;
        for (const family of new Set(inKernel.sizes.map((size) => size.family)))
          this.set({ ip_version: String(family) }, inKernel.sets);
      },
    });
    for (const what of ["chains", "rules"] as const) {
      const labelNames = renderer === "nft" ? ["ip_version"] : ["ip_version", "table"];
      new Gauge({
        name: `felix_${renderer}_${what}`,
        help: `Our ${what} in ${renderer === "nft" ? "nf_tables" : "iptables"}.`,
        registers,
        labelNames,
        collect() {
          this.reset();
          const inKernel = read();
          if (inKernel.renderer !== renderer) return;
          for (const { family, layer, [what]: count } of inKernel.sizes) {
            const labels = { ip_version: String(family), ...(renderer === "nft" ? {} : { table: layer }) };
            this.inc(labels, count);
          }
        },
      });
    }
  }
}
