import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { nodeFiles } from "./files.ts";
import { agentReport, caracal, eventually, onMember, startLab, startPing } from "./lab.testing.ts";
import type { ProbeResult } from "./matrix.ts";
import { foundPaths, passes, transfer } from "./paths.testing.ts";
import { labDown } from "./up.io.ts";

/** Canal: flannel's VXLAN between the nodes, addresses of the nodes' podCIDRs, and Calico's policy at the pods' doors. */

const LAB = "test-canal";
const DEFINITION = {
  kind: "Lab",
  backend: "canal",
  segments: [
    { subnet: "192.0.2.0/26", nodes: ["node1", "node2"] },
    { subnet: "192.0.2.64/26", nodes: ["node3"] },
  ],
  environment: { CARACAL_PATH_CHECK_INTERVAL: "1s" },
};

const pod = (name: string, app: string, node: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, labels: { app: ${app} } }
spec: { nodeName: ${node}, containers: [{ name: main, image: server, ports: [{ containerPort: 80 }] }] }
---`;
const OBJECTS = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: servers }
spec:
  podSelector: { matchLabels: { app: server } }
  ingress: [{ from: [{ podSelector: { matchLabels: { app: client } } }] }]
---${pod("client", "client", "node1")}${pod("stranger", "stranger", "node1")}${pod("near", "server", "node2")}${pod("far", "server", "node3")}`;

describe("flannel's network with Calico's policy", () => {
  const address = new Map<string, string>();
  before(async () => {
    await startLab(LAB, DEFINITION);
    const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], OBJECTS);
    assert.equal(code, 0, errors);
    const { output } = await caracal(LAB, ["get", "pod", "-o", "json"]);
    const { items } = JSON.parse(output) as { items: { metadata: { name: string }; status: { podIP: string } }[] };
    for (const { metadata, status } of items) address.set(metadata.name, status.podIP);
  });
  after(() => labDown(LAB, () => undefined));

  test("pods have addresses of their nodes' podCIDRs, and routes lead through flannel's device", async () => {
    assert.deepEqual(
      ["client", "near", "far"].map((name) => address.get(name)?.replace(/\.\d+$/, "")),
      ["10.244.0", "10.244.1", "10.244.2"],
    );
    const { output } = await onMember(LAB, "node1", ["ip", "route", "get", address.get("far") ?? ""]);
    assert.match(output, / via 10\.244\.2\.0 dev flannel\.1 /);
    const env = readFileSync(`${nodeFiles(LAB, "node1").runDirectory}/subnet.env`, "utf8");
    assert.match(env, /^FLANNEL_SUBNET=10\.244\.0\.1\/24$/m);
  });

  test("who may reaches whom, whole, in packets as large as pods send them", async () => {
    await eventually(async () => {
      const { output } = await caracal(LAB, ["probe", "-o", "json"]);
      const wrong = (JSON.parse(output) as ProbeResult[]).filter(({ from, to, connected }) => {
        const isServer = to === "default/near" || to === "default/far";
        return connected !== (!isServer || from === "default/client");
      });
      assert.deepEqual(wrong, []);
    });
    await Promise.all(
      ["near", "far"].map(async (name) => {
        const to = address.get(name) ?? "";
        assert.ok(await passes(LAB, "default/client", to, 1450));
        assert.ok(!(await passes(LAB, "default/client", to, 1451)), "more than the pod's MTU");
        assert.ok(!(await passes(LAB, "default/stranger", to, 100)), "whom the policy does not name");
        await transfer(LAB, "default/client", to);
      }),
    );
  });

  test("the nodes try the ways through it out", async () => {
    const isWell = [/^vxlan reachable 1450\/1450$/];
    await foundPaths(LAB, "node1", "node2", isWell);
    await foundPaths(LAB, "node3", "node1", isWell);
  });

  test("an agent is killed, and no packet is lost", async () => {
    const ping = startPing(LAB, "default/client", address.get("far") ?? "");
    const { pid } = await agentReport(LAB, "node1");
    process.kill(pid, "SIGKILL");
    await eventually(async () => assert.notEqual((await agentReport(LAB, "node1")).pid, pid));
    await eventually(async () => assert.ok((await agentReport(LAB, "node1")).ready));
    const { sent, lost } = await ping.stop();
    assert.ok(sent > 10);
    assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
  });
});
