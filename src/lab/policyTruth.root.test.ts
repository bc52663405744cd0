import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, test } from "node:test";
import fc from "fast-check";
import { cellsBetween, compare, memberPlace, podPlace, type Cell } from "./policyCells.testing.ts";
import { policyLab, type PolicyLab } from "./policyLab.testing.ts";
import { anyCluster, type Manifest } from "./policyObjects.testing.ts";
import { SOURCE_PORTS } from "./policySpecs.testing.ts";
import { memberNamespace } from "./files.ts";
import { respond, type Responder } from "./responder.io.ts";

/**
 * Random clusters, one after the other in one lab: what gets through agrees with the evaluator in every cell.
 * `CARACAL_POLICY_SETS=200,100` tries so many with each renderer, `CARACAL_POLICY_SEED` repeats a run.
 */

const LAB = "test-policy-truth";
const DEFINITION = {
  kind: "Lab",
  segments: [{ subnet: "192.0.2.0/24", subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"], hosts: ["outside"] }],
};
const SEED = Number(process.env["CARACAL_POLICY_SEED"] ?? randomInt(2 ** 31));
const [NFT_SETS = 9, IPTABLES_SETS = 5] = (process.env["CARACAL_POLICY_SETS"] ?? "9,5").split(",").map(Number);
const RENDERERS = [
  { renderer: "nf_tables", mode: "Enabled", sets: NFT_SETS },
  { renderer: "iptables", mode: "Disabled", sets: IPTABLES_SETS },
];

const HOST_PORTS = [
  { containerPort: 9000, protocol: "TCP" },
  { containerPort: 9001, protocol: "UDP" },
] as const;
/** What answers on the nodes themselves. */
const HOST_PODS = ["node1", "node2"].map((nodeName): Manifest => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: `host-${nodeName}`, namespace: "a" },
  spec: { nodeName, hostNetwork: true, containers: [{ name: "c", image: "none", ports: HOST_PORTS }] },
}));
const hostPorts = HOST_PORTS.map(({ containerPort: port, protocol }) => ({ port, protocol }));
const NODES = ["node1", "node2"].map((name, at) =>
  memberPlace(LAB, name, "node", [`192.0.2.${11 + at}`, `2001:db8:0:1::${11 + at}`], hostPorts),
);
const OUTSIDE = memberPlace(
  LAB,
  "outside",
  "host",
  ["192.0.2.13", "2001:db8:0:1::13"],
  [{ protocol: "TCP", port: 80 }],
);

function cellsOf(objects: readonly Manifest[]): Cell[] {
  const pods = objects
    .filter(({ kind, spec }) => kind === "Pod" && !(spec as { hostNetwork?: boolean }).hostNetwork)
    .map((object) => podPlace(LAB, object));
  return [
    ...cellsBetween(pods, [...pods, ...NODES, OUTSIDE], SOURCE_PORTS),
    ...cellsBetween([...NODES, OUTSIDE], pods, SOURCE_PORTS),
  ];
}

describe(`connections agree with the evaluator (seed ${SEED})`, () => {
  let lab: PolicyLab;
  let responder: Responder;
  before(async () => {
    lab = await policyLab(LAB, DEFINITION);
    responder = respond(memberNamespace(LAB, "outside"), [{ port: 80, protocol: "TCP" }], "outside");
  });
  after(async () => {
    responder?.close();
    await lab?.close();
  });

  for (const { renderer, mode, sets } of RENDERERS) {
    test(`in ${sets} random clusters, written by ${renderer}`, async (t) => {
      const totals = { cells: 0, allowed: 0, late: 0, disagreements: 0 };
      for (const [index, cluster] of fc.sample(anyCluster, { seed: SEED, numRuns: sets }).entries()) {
        const objects = [...cluster.map((object) => withMode(object, mode)), ...HOST_PODS];
        await lab.hold(objects);
        const world = await lab.world();
        for (const { name } of NODES) world.interfaces.set(name, [{ name: "eth0", addresses: [] }]);
        lab.forgetConnections();
        const comparison = compare(world, cellsOf(objects));
        totals.cells += comparison.allowed + comparison.forbidden;
        totals.allowed += comparison.allowed;
        totals.late += comparison.late;
        totals.disagreements += comparison.disagreements.length;
        if (comparison.disagreements.length > 0) {
          t.diagnostic(
            `seed ${SEED}, cluster ${index}:\n${objects.map((object) => JSON.stringify(object)).join("\n")}`,
          );
        }
        assert.deepEqual(comparison.disagreements, []);
      }
      t.diagnostic(`seed ${SEED}: ${JSON.stringify(totals)}`);
      assert.ok(totals.allowed > 0 && totals.allowed < totals.cells);
    });
  }
});

function withMode(object: Manifest, nftablesMode: string): Manifest {
  return object.kind === "FelixConfiguration"
    ? { ...object, spec: { ...(object["spec"] as object), nftablesMode } }
    : object;
}
