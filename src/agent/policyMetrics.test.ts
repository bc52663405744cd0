import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import { registerRuleMetrics, type RulesInKernel } from "./policyMetrics.ts";

test("chains and rules are counted under the names that Felix gives them for each packet filter", async () => {
  const registry = new Registry();
  let inKernel: RulesInKernel = { renderer: undefined, sizes: [], sets: 0, told: 0 };
  registerRuleMetrics([registry], () => inKernel);
  const lines = async (): Promise<string[]> =>
    (await registry.metrics()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  const sizes = [
    { family: 4, layer: "filter", chains: 10, rules: 40 },
    { family: 4, layer: "raw", chains: 2, rules: 5 },
    { family: 6, layer: "filter", chains: 7, rules: 30 },
  ] as const;
  assert.deepEqual(await lines(), ["felix_calc_graph_updates_processed 0"]);
  inKernel = { renderer: "nft", sizes, sets: 3, told: 9 };
  assert.deepEqual(await lines(), [
    "felix_calc_graph_updates_processed 9",
    'felix_nft_sets{ip_version="4"} 3',
    'felix_nft_sets{ip_version="6"} 3',
    'felix_nft_chains{ip_version="4"} 12',
    'felix_nft_chains{ip_version="6"} 7',
    'felix_nft_rules{ip_version="4"} 45',
    'felix_nft_rules{ip_version="6"} 30',
  ]);
  inKernel = { renderer: "iptables", sizes: sizes.slice(0, 2), sets: 4, told: 10 };
  assert.deepEqual(await lines(), [
    "felix_calc_graph_updates_processed 10",
    'felix_ipsets_calico{ip_version="4"} 4',
    'felix_iptables_chains{ip_version="4",table="filter"} 10',
    'felix_iptables_chains{ip_version="4",table="raw"} 2',
    'felix_iptables_rules{ip_version="4",table="filter"} 40',
    'felix_iptables_rules{ip_version="4",table="raw"} 5',
  ]);
});
