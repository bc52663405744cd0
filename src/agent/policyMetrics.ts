import { Gauge, type Registry } from "prom-client";
import type { TableSize } from "../dataplane/rulesetBuilder.ts";
import type { Renderer } from "./nodeFacts.ts";

/** How much there is in the packet filter, as each renderer's numbers are called in Felix. */
export interface RulesInKernel {
  readonly renderer: Renderer | undefined;
  readonly sizes: readonly TableSize[];
}

/** `felix_nft_chains` and `_rules` by address family; `felix_iptables_chains` and `_rules` by table as well. */
export function registerRuleMetrics(registers: Registry[], read: () => RulesInKernel): void {
  for (const renderer of ["nft", "iptables"] as const) {
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
