import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import type { BGPConfiguration } from "../resources/bgp.ts";
import { configuration, machine, NO_SERVICES } from "./bgp.testing.ts";
import { isLogged, planBgp, type LogSeverity } from "./bgpPlan.ts";

const severityOf = (...configurations: BGPConfiguration[]): LogSeverity =>
  planBgp({
    nodeName: "node1",
    nodes: [machine("node1", { ipv4: { address: parseAddress("192.0.2.11"), length: 26 } })],
    configurations,
    peers: [],
    filters: [],
    pools: [],
    blocks: [],
    borrowed: [],
    services: NO_SERVICES,
    interfaces: [],
    kernelRoutes: [],
    workloadPrefixes: [],
    workloads: [],
    secret: () => undefined,
    tunnels: new Set(),
  })!.logSeverity;

describe("what is logged of BGP", () => {
  test("is what the node's own configuration says, or else the general one", () => {
    const general = configuration("default", { logSeverityScreen: "Warning" });
    assert.equal(severityOf(), "Info");
    assert.equal(severityOf(general), "Warning");
    assert.equal(severityOf(general, configuration("node.node1", { logSeverityScreen: "Error" })), "Error");
    assert.equal(severityOf(general, configuration("node.node2", { logSeverityScreen: "Error" })), "Warning");
  });

  const rows: Readonly<Record<LogSeverity, readonly string[]>> = {
    Trace: ["info", "warn"],
    Debug: ["info", "warn"],
    Info: ["info", "warn"],
    Warning: ["warn"],
    Error: [],
    Fatal: [],
  };
  for (const [least, levels] of Object.entries(rows)) {
    test(`from ${least} on: ${levels.join(" and ") || "nothing"}`, () =>
      assert.deepEqual(
        (["info", "warn"] as const).filter((level) => isLogged(level, least as LogSeverity)),
        levels,
      ));
  }
});
