import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test, type TestContext } from "node:test";
import { agentReport, caracal, eventually, onMember, startLab } from "./lab.testing.ts";
import { startBird, type HostRouter } from "./routers.testing.ts";
import { labDown } from "./up.io.ts";

/** A router (BIRD) tells a node 100,000 routes: they are in the node's kernel as it says, and outlive the agent. */

const LAB = "test-table";
const DEFINITION = {
  kind: "Lab",
  segments: [{ subnet: "192.0.2.0/26", nodes: ["node1"], hosts: ["tor"] }],
  router: "none",
};
const HALF = 50_000;
/** 16.0.0.0/32, 16.0.0.1/32 and so on; the second half begins at 32.0.0.0/32. */
const prefixOf = (half: 0 | 1, index: number): string =>
  `${16 * (half + 1)}.${index >> 16}.${(index >> 8) & 255}.${index & 255}/32`;
const statics = (half: 0 | 1): string =>
  Array.from({ length: HALF }, (_, index) => `route ${prefixOf(half, index)} blackhole;`).join("\n");
const TOR = `
  router id 192.0.2.12;
  protocol device {}
  protocol static half0 { ipv4; ${statics(0)} }
  protocol static half1 { ipv4; ${statics(1)} }
  protocol bgp node1 {
    local 192.0.2.12 as 65100; neighbor 192.0.2.11 as 64512; connect delay time 1; connect retry time 1;
    graceful restart on;
    ipv4 { import none; export all; };
  }`;

describe("a table of 100,000 routes", () => {
  let tor: HostRouter;
  before(async () => {
    await startLab(LAB, DEFINITION);
    tor = await startBird(LAB, "tor", TOR);
  });
  after(async () => {
    await tor?.close();
    await labDown(LAB, () => undefined);
  });

  /** How many of the node's routes are BGP's. */
  async function count(): Promise<number> {
    const { output, code } = await onMember(LAB, "node1", ["sh", "-c", "ip route show proto bird | wc -l"]);
    assert.equal(code, 0);
    return Number(output);
  }
  async function routes(): Promise<string[]> {
    const { output } = await onMember(LAB, "node1", ["ip", "route", "show", "proto", "bird"]);
    return output.trimEnd().split("\n");
  }
  /** User and system seconds of the agent so far, in hundredths. */
  async function cpuOfAgent(): Promise<number> {
    const fields = readFileSync(`/proc/${(await agentReport(LAB, "node1")).pid}/stat`, "utf8").replace(/^.*\) /s, "");
    const [user = 0, system = 0] = fields.split(" ").slice(11, 13).map(Number);
    return (user + system) / 100;
  }
  async function measured(context: TestContext, what: string, wanted: number): Promise<void> {
    const [start, cpu] = [performance.now(), await cpuOfAgent()];
    await eventually(async () => assert.equal(await count(), wanted), 60_000);
    const seconds = ((performance.now() - start) / 1000).toFixed(1);
    context.diagnostic(
      `${what}: ${seconds} s, of the agent's processor time ${((await cpuOfAgent()) - cpu).toFixed(1)} s`,
    );
  }

  test("is in the kernel route by route", async (context) => {
    const peer = {
      apiVersion: "projectcalico.org/v3",
      kind: "BGPPeer",
      metadata: { name: "tor" },
      spec: { peerIP: "192.0.2.12", asNumber: 65100 },
    };
    const { code, errors } = await caracal(LAB, ["apply", "-f", "-"], JSON.stringify(peer));
    assert.equal(code, 0, errors);
    await measured(context, "100,000 routes come", 2 * HALF);
    const lines = new Set((await routes()).map((line) => line.trimEnd()));
    for (const half of [0, 1] as const) {
      for (let index = 0; index < HALF; index += 1) {
        const line = `${prefixOf(half, index).replace("/32", "")} via 192.0.2.12 dev eth0 metric 1024`;
        assert.ok(lines.has(line), line);
      }
    }
  });

  test("loses what the router withdraws, and nothing else; and gets it back", async (context) => {
    await tor.ask("disable", "half1");
    await measured(context, "50,000 routes go", HALF);
    assert.deepEqual(
      (await routes()).filter((line) => !line.startsWith("16.")),
      [],
    );
    await tor.ask("enable", "half1");
    await measured(context, "50,000 routes come back", 2 * HALF);
  });

  test("stays while the agent is killed and comes back, but for what was withdrawn meanwhile", async () => {
    const { pid } = await agentReport(LAB, "node1");
    process.kill(pid, "SIGKILL");
    await tor.ask("disable", "half0");
    assert.equal(await count(), 2 * HALF);
    await eventually(async () => {
      const report = await agentReport(LAB, "node1");
      assert.ok(report.pid !== pid && report.bgp.settled);
    }, 60_000);
    await eventually(async () => assert.equal(await count(), HALF), 60_000);
    assert.deepEqual(
      (await routes()).filter((line) => !line.startsWith("32.")),
      [],
    );
  });

  test("leaves the agent idle when it rests, and is looked through when the node's links change", async (context) => {
    const before = await cpuOfAgent();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const idle = (await cpuOfAgent()) - before;
    assert.ok(idle < 0.3, `${idle} s of 3 s`);
    for (const words of [
      ["link", "add", "other", "type", "veth", "peer", "name", "another"],
      ["link", "set", "other", "up"],
      ["link", "del", "other"],
    ]) {
      const { code, errors } = await onMember(LAB, "node1", ["ip", ...words]);
      assert.equal(code, 0, errors);
    }
    await new Promise((resolve) => setTimeout(resolve, 1500));
    context.diagnostic(`a link that comes and goes costs ${((await cpuOfAgent()) - before - idle).toFixed(2)} s`);
    assert.equal(await count(), HALF);
  });
});
