import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { after, before, describe, test } from "node:test";
import { labFiles, labsDirectory, memberNamespace, namespacePrefix } from "./files.ts";
import { agentReport, caracal, eventually, pidsOf, startLab, startPing, type AgentReport } from "./lab.testing.ts";
import { ROUTER } from "./network.io.ts";
import { isAlive, namespacesWithPrefix, processesIn } from "./process.io.ts";
import { listLabs } from "./state.io.ts";
import { labDown } from "./up.io.ts";

/** Programs are killed while pods on different nodes ping each other every 20 ms: no echo may be lost. */

const LAB = "test-faults";
const NODES = ["node1", "node2", "node3"];
const DEFINITION = {
  kind: "Lab",
  segments: [
    { subnet: "192.0.2.0/26", nodes: ["node1", "node2"] },
    { subnet: "192.0.2.64/26", nodes: ["node3"] },
  ],
};
const PODS = NODES.map((node, index) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: `pod${index + 1}` },
  spec: { nodeName: node, containers: [{ name: "main", image: "none" }] },
}));

describe("no packet is lost", () => {
  before(async () => {
    await startLab(LAB, DEFINITION);
    const applied = await caracal(
      LAB,
      ["apply", "-f", "-", "--wait"],
      JSON.stringify({ apiVersion: "v1", kind: "List", items: PODS }),
    );
    assert.equal(applied.code, 0, applied.errors);
  });
  after(async () => {
    await labDown(LAB, () => undefined);
  });

  async function addressOf(pod: string): Promise<string> {
    const { output } = await caracal(LAB, ["get", "pod", pod, "-o", "json"]);
    return (JSON.parse(output) as { status: { podIP: string } }).status.podIP;
  }

  /** Until other agents (or the same ones) are ready, with every session up. */
  async function allReady(before: readonly AgentReport[], restarted: readonly string[]): Promise<void> {
    await eventually(async () => {
      for (const [index, node] of NODES.entries()) {
        const report = await agentReport(LAB, node);
        if (restarted.includes(node)) assert.notEqual(report.pid, before[index]!.pid, `${node} has a new agent`);
        assert.ok(report.ready && report.bgp.settled, `${node} is ready`);
        assert.ok(
          report.bgp.peers.every(({ state }) => state === "established"),
          `the sessions of ${node} are up`,
        );
      }
    });
  }

  /** Pings from node1 to node2 (same segment) and node3 (through the router) while `fault` and what follows it happen. */
  async function lossDuring(fault: () => Promise<void>): Promise<void> {
    const pings = [
      startPing(LAB, "default/pod1", await addressOf("pod2")),
      startPing(LAB, "default/pod3", await addressOf("pod1")),
    ];
    try {
      await new Promise((resolve) => setTimeout(resolve, 500));
      await fault();
      await new Promise((resolve) => setTimeout(resolve, 1500));
    } finally {
      for (const ping of pings) {
        const { sent, lost } = await ping.stop();
        assert.ok(sent > 50, `${sent} echoes were sent`);
        assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
      }
    }
  }

  test("when one agent is killed and comes back", async () => {
    const reports = await Promise.all(NODES.map((node) => agentReport(LAB, node)));
    await lossDuring(async () => {
      process.kill(reports[0]!.pid, "SIGKILL");
      await allReady(reports, ["node1"]);
    });
  });

  test("when all agents are killed and come back", async () => {
    const reports = await Promise.all(NODES.map((node) => agentReport(LAB, node)));
    await lossDuring(async () => {
      for (const { pid } of reports) process.kill(pid, "SIGKILL");
      await allReady(reports, NODES);
    });
  });

  test("when all agents are asked to end and come back", async () => {
    const reports = await Promise.all(NODES.map((node) => agentReport(LAB, node)));
    await lossDuring(async () => {
      for (const { pid } of reports) process.kill(pid, "SIGTERM");
      await allReady(reports, NODES);
    });
  });

  test("when the API server is killed and comes back", async () => {
    const server = (): number[] => pidsOf(processesIn([memberNamespace(LAB, ROUTER)]), ["apiserver"]);
    const [old] = server();
    assert.ok(old !== undefined, "the API server runs");
    await lossDuring(async () => {
      process.kill(old, "SIGKILL");
      await eventually(() => assert.ok(server().some((pid) => pid !== old)));
      await eventually(async () => assert.equal((await caracal(LAB, ["get", "nodes"])).code, 0));
    });
  });

  test("a lab is gone without a trace when it is taken down, even if its keeper was killed", async () => {
    const namespaces = namespacesWithPrefix(namespacePrefix(LAB));
    assert.ok(namespaces.length >= 7);
    const [keeper] = pidsOf(processesIn([memberNamespace(LAB, ROUTER)]), ["keep"]);
    process.kill(keeper!, "SIGKILL");
    const processes = processesIn(namespaces);
    assert.ok(processes.length >= 4);
    await labDown(LAB, () => undefined);
    assert.deepEqual(namespacesWithPrefix(namespacePrefix(LAB)), []);
    await eventually(() => assert.deepEqual(processes.filter(isAlive), []), 5000);
    assert.ok(!existsSync(labFiles(LAB).directory));
    assert.equal(existsSync(dirname(labsDirectory())), listLabs().length > 0, "the last one takes the folder with it");
  });
});
