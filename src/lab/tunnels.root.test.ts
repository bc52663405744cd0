import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { agentReport, caracal, eventually, inPod, onMember, startLab, startPing } from "./lab.testing.ts";
import type { ProbeResult } from "./matrix.ts";
import { labDown } from "./up.io.ts";

/** Pods across a router that knows nothing of them: every kind of tunnel, changed while they talk, and disturbed. */

const LAB = "test-tunnels";
const DEFINITION = {
  kind: "Lab",
  router: "none",
  segments: [
    { subnet: "192.0.2.0/26", subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"] },
    { subnet: "192.0.2.64/26", subnet6: "2001:db8:0:2::/64", nodes: ["node3"] },
  ],
};
const PODS = [1, 2, 3]
  .map(
    (number) => `
apiVersion: v1
kind: Pod
metadata: { name: pod${number} }
spec: { nodeName: node${number}, containers: [{ name: main, image: server }] }
---`,
  )
  .join("");

const pool = (name: string, cidr: string, vxlanMode: string, ipipMode: string): string => `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: { name: ${name} }
spec: { cidr: "${cidr}", vxlanMode: ${vxlanMode}, ipipMode: ${ipipMode}, natOutgoing: false }
`;
const v4 = (vxlanMode: string, ipipMode: string): string =>
  pool("default-ipv4-ippool", "10.244.0.0/16", vxlanMode, ipipMode);

const FLUSH_ENTRIES =
  "bridge fdb show dev vxlan.calico | while read mac _ dst _; do bridge fdb del $mac dev vxlan.calico dst $dst; done";

async function apply(manifest: string): Promise<void> {
  const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], manifest);
  assert.equal(code, 0, errors);
}

/** Pairs of pods, and of a family, that do not reach each other. */
async function unreached(...args: string[]): Promise<string[]> {
  const { code, output, errors } = await caracal(LAB, ["probe", "-o", "json", ...args]);
  assert.equal(code, 0, errors);
  return (JSON.parse(output) as ProbeResult[])
    .filter(({ connected }) => !connected)
    .map(({ from, to, protocol, address }) => `${from} ${to} ${protocol} ${address}`);
}

/** Routes to other nodes' blocks of IPv4, by what they lead to, in the order of the addresses' nodes. */
async function ways(node: string, protocol = "80"): Promise<string[]> {
  const { output } = await onMember(LAB, node, ["ip", "-j", "route", "show", "proto", protocol]);
  return (JSON.parse(output) as { type?: string; dev?: string; gateway?: string }[])
    .filter(({ dev }) => dev !== undefined)
    .map(({ dev = "", gateway = "" }) => (dev.startsWith("vxlan") ? dev : `${dev} ${gateway}`))
    .toSorted();
}

describe("three nodes on two networks, and tunnels between them", () => {
  let far = "";
  before(async () => {
    await startLab(LAB, DEFINITION);
    await apply(PODS);
    const { output } = await caracal(LAB, ["get", "pod", "pod3", "-o", "json"]);
    far = (JSON.parse(output) as { status: { podIP: string } }).status.podIP;
  });
  after(() => labDown(LAB, () => undefined));

  test("without a tunnel nobody gets across", async () => {
    const missing = await unreached("--protocol", "TCP");
    assert.deepEqual(
      new Set(missing.map((line) => line.split(" ").slice(0, 2).includes("default/pod3"))),
      new Set([true]),
    );
  });

  const reaches = async (): Promise<void> =>
    assert.equal((await inPod(LAB, "default/pod1", ["ping", "-c1", "-W1", far])).code, 0);

  const modes = [
    { name: "VXLAN", vxlan: "Always", ipip: "Never", ways: ["vxlan.calico", "vxlan.calico"] },
    { name: "VXLAN across subnets", vxlan: "CrossSubnet", ipip: "Never", ways: ["eth0 192.0.2.12", "vxlan.calico"] },
    { name: "IPIP", vxlan: "Never", ipip: "Always", ways: ["tunl0 192.0.2.12", "tunl0 192.0.2.75"] },
    { name: "IPIP across subnets", vxlan: "Never", ipip: "CrossSubnet", ways: ["eth0 192.0.2.12", "tunl0 192.0.2.75"] },
    { name: "VXLAN again", vxlan: "Always", ipip: "Never", ways: ["vxlan.calico", "vxlan.calico"] },
  ];
  for (const [index, { name, vxlan, ipip, ways: expected }] of modes.entries()) {
    test(`${name}: every pod reaches every other, and who talked goes on`, async () => {
      const ping = index === 0 ? undefined : startPing(LAB, "default/pod1", far);
      await apply(
        v4(vxlan, ipip) + (index === 0 ? `---${pool("default-ipv6-ippool", "fd10:244::/64", "Always", "Never")}` : ""),
      );
      await eventually(async () => assert.deepEqual(await ways("node1"), expected));
      await eventually(async () => assert.deepEqual(await unreached(), []));
      const { sent, lost } = (await ping?.stop()) ?? { sent: 0, lost: 0 };
      assert.ok(lost * 20 < 1000, `${lost} of ${sent} echoes, one every 20 ms, were lost`);
    });
  }

  const harms: { name: string; ipip: boolean; harm: string[] }[] = [
    { name: "the VXLAN's device is deleted", ipip: false, harm: ["ip", "link", "del", "vxlan.calico"] },
    { name: "its forwarding entries are flushed", ipip: false, harm: ["sh", "-c", FLUSH_ENTRIES] },
    { name: "routes are flushed", ipip: false, harm: ["ip", "route", "flush", "proto", "80"] },
    { name: "tunl0 is deleted", ipip: true, harm: ["ip", "link", "del", "tunl0"] },
    { name: "tunl0 is set down", ipip: true, harm: ["ip", "link", "set", "tunl0", "down"] },
  ];
  for (const { name, ipip, harm } of harms) {
    test(`put right within a second: ${name}`, async () => {
      const device = ipip ? "tunl0" : "vxlan.calico";
      if ((await ways("node1")).some((way) => !way.startsWith(device))) {
        await apply(ipip ? v4("Never", "Always") : v4("Always", "Never"));
        await eventually(async () => assert.ok((await ways("node1")).every((way) => way.startsWith(device))));
      }
      await eventually(async () =>
        assert.equal((await inPod(LAB, "default/pod1", ["ping", "-c1", "-W1", far])).code, 0),
      );
      const ping = startPing(LAB, "default/pod1", far);
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal((await onMember(LAB, "node1", harm)).code, 0);
      await new Promise((resolve) => setTimeout(resolve, 300));
      await eventually(reaches, 1000);
      const { lost } = await ping.stop();
      assert.ok(lost * 20 < 1000, `${lost} echoes, one every 20 ms, were lost`);
    });
  }

  test("an agent is killed: traffic goes on, and the next one takes over what is there", async () => {
    const { pid } = await agentReport(LAB, "node1");
    const ping = startPing(LAB, "default/pod1", far);
    process.kill(pid, "SIGKILL");
    await eventually(async () => assert.notEqual((await agentReport(LAB, "node1")).pid, pid));
    await eventually(async () => assert.ok((await agentReport(LAB, "node1")).ready));
    const { sent, lost } = await ping.stop();
    assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
  });

  test("BGP writes the routes of the IPIP tunnel, where it is asked to", async () => {
    const programs = (felix: string, bgp: string): string => `
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: { name: default }
spec: { programClusterRoutes: ${felix} }
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: { name: default }
spec: { programClusterRoutes: ${bgp} }
---`;
    await apply(programs("Disabled", "Enabled") + v4("Never", "CrossSubnet"));
    await eventually(async () => assert.deepEqual(await ways("node1", "12"), ["eth0 192.0.2.12", "tunl0 192.0.2.75"]));
    assert.deepEqual(await ways("node1"), []);
    await eventually(async () => assert.deepEqual(await unreached(), []));
    await apply(v4("Never", "Always"));
    await eventually(async () => assert.deepEqual(await ways("node1", "12"), ["tunl0 192.0.2.12", "tunl0 192.0.2.75"]));
    await apply(programs("EnabledIPIPOnly", "EnabledNoEncapOnly"));
    await eventually(async () => assert.deepEqual(await ways("node1", "12"), []));
    await eventually(async () => assert.deepEqual(await unreached(), []));
  });

  test("a node gets another address, and every tunnel follows", async () => {
    for (const change of ["del 192.0.2.75/26", "add 192.0.2.99/26"]) {
      const { code } = await onMember(LAB, "node3", ["ip", "addr", ...change.split(" "), "dev", "eth0"]);
      assert.equal(code, 0);
    }
    // The kernel took the default route with the address.
    await onMember(LAB, "node3", ["ip", "route", "replace", "default", "via", "192.0.2.65", "dev", "eth0"]);
    await eventually(async () => assert.deepEqual(await ways("node1"), ["tunl0 192.0.2.12", "tunl0 192.0.2.99"]));
    await eventually(async () => assert.deepEqual(await unreached(), []));
    await apply(v4("Always", "Never"));
    await eventually(async () => assert.deepEqual(await ways("node1"), ["vxlan.calico", "vxlan.calico"]));
    await eventually(async () => assert.deepEqual(await unreached(), []));
  });

  test("a node's status says by what its tunnel works", async () => {
    const { output } = await caracal(LAB, ["node", "status", "-o", "json"]);
    const nodes = JSON.parse(output) as { tunnels: { vxlan: { device: string }[]; problems: string[] } }[];
    for (const { tunnels } of nodes) {
      assert.deepEqual(
        tunnels.vxlan.map(({ device }) => device),
        ["vxlan.calico", "vxlan-v6.calico"],
      );
      assert.deepEqual(tunnels.problems, []);
    }
  });
});
