import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
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
  let [far, far6] = ["", ""];
  before(async () => {
    await startLab(LAB, DEFINITION);
    await apply(PODS);
    const { output } = await caracal(LAB, ["get", "pod", "pod3", "-o", "json"]);
    const { status } = JSON.parse(output) as { status: { podIPs: { ip: string }[] } };
    const of = (isOfIt: (ip: string) => boolean): string => status.podIPs.find(({ ip }) => isOfIt(ip))?.ip ?? "";
    [far, far6] = [of((ip) => !ip.includes(":")), of((ip) => ip.includes(":"))];
  });
  after(() => labDown(LAB, () => undefined));

  test("without a tunnel nobody gets across", async () => {
    const missing = await unreached("--protocol", "TCP");
    assert.deepEqual(
      new Set(missing.map((line) => line.split(" ").slice(0, 2).includes("default/pod3"))),
      new Set([true]),
    );
  });

  const reaches = async (address: string): Promise<void> =>
    assert.equal((await inPod(LAB, "default/pod1", ["ping", "-c1", "-W0.3", address])).code, 0);

  /** `late`: the agent of the node at the other end stands still for two seconds, and hears of it only then. */
  const modes: { name: string; vxlan: string; ipip: string; ways: string[]; late?: true }[] = [
    { name: "VXLAN", vxlan: "Always", ipip: "Never", ways: ["vxlan.calico", "vxlan.calico"] },
    { name: "VXLAN across subnets", vxlan: "CrossSubnet", ipip: "Never", ways: ["eth0 192.0.2.12", "vxlan.calico"] },
    { name: "IPIP", vxlan: "Never", ipip: "Always", ways: ["tunl0 192.0.2.12", "tunl0 192.0.2.75"], late: true },
    { name: "IPIP across subnets", vxlan: "Never", ipip: "CrossSubnet", ways: ["eth0 192.0.2.12", "tunl0 192.0.2.75"] },
    { name: "VXLAN again", vxlan: "Always", ipip: "Never", ways: ["vxlan.calico", "vxlan.calico"], late: true },
  ];
  for (const [index, { name, vxlan, ipip, ways: expected, late }] of modes.entries()) {
    const node = late ? ", though one node is late" : "";
    test(`${name}: every pod reaches every other, and who talked goes on${node}`, async () => {
      const ping = index === 0 ? undefined : startPing(LAB, "default/pod1", far);
      const stopped = late && (await agentReport(LAB, "node3")).pid;
      if (stopped) process.kill(stopped, "SIGSTOP");
      const change = apply(
        v4(vxlan, ipip) + (index === 0 ? `---${pool("default-ipv6-ippool", "fd10:244::/64", "Always", "Never")}` : ""),
      );
      if (stopped) {
        await sleep(2000);
        process.kill(stopped, "SIGCONT");
      }
      await change;
      await eventually(async () => assert.deepEqual(await ways("node1"), expected));
      await eventually(async () => assert.deepEqual(await unreached(), []));
      const { sent, lost } = (await ping?.stop()) ?? { sent: 0, lost: 0 };
      assert.ok(lost * 20 < 1000, `${lost} of ${sent} echoes, one every 20 ms, were lost`);
    });
  }

  const harms: { name: string; ipip: boolean; harm: string[]; family?: 6 }[] = [
    { name: "the VXLAN's device is deleted", ipip: false, harm: ["ip", "link", "del", "vxlan.calico"] },
    { name: "that of IPv6 is deleted", ipip: false, harm: ["ip", "link", "del", "vxlan-v6.calico"], family: 6 },
    { name: "its forwarding entries are flushed", ipip: false, harm: ["sh", "-c", FLUSH_ENTRIES] },
    { name: "routes are flushed", ipip: false, harm: ["ip", "route", "flush", "proto", "80"] },
    { name: "tunl0 is deleted", ipip: true, harm: ["ip", "link", "del", "tunl0"] },
    { name: "tunl0 is set down", ipip: true, harm: ["ip", "link", "set", "tunl0", "down"] },
  ];
  for (const { name, ipip, harm, family } of harms) {
    test(`put right within a second: ${name}`, async () => {
      const device = ipip ? "tunl0" : "vxlan.calico";
      if ((await ways("node1")).some((way) => !way.startsWith(device))) {
        await apply(ipip ? v4("Never", "Always") : v4("Always", "Never"));
        await eventually(async () => assert.ok((await ways("node1")).every((way) => way.startsWith(device))));
      }
      const to = family === 6 ? far6 : far;
      await eventually(() => reaches(to));
      const ping = startPing(LAB, "default/pod1", to);
      await sleep(100);
      assert.equal((await onMember(LAB, "node1", harm)).code, 0);
      await sleep(300);
      await eventually(() => reaches(to), 1000);
      const { lost } = await ping.stop();
      assert.ok(lost * 20 < 1000, `${lost} echoes, one every 20 ms, were lost`);
    });
  }

  for (const { name, device, modes: asked } of [
    { name: "IPIP", device: "tunl0", modes: v4("Never", "Always") },
    { name: "VXLAN", device: "vxlan.calico", modes: v4("Always", "Never") },
  ]) {
    test(`an agent is killed: traffic in ${name} goes on, and the next one takes over what is there`, async () => {
      await apply(asked);
      await eventually(async () => assert.ok((await ways("node1")).every((way) => way.startsWith(device))));
      await eventually(() => reaches(far));
      const { pid } = await agentReport(LAB, "node1");
      const ping = startPing(LAB, "default/pod1", far);
      await sleep(100);
      process.kill(pid, "SIGKILL");
      await eventually(async () => assert.notEqual((await agentReport(LAB, "node1")).pid, pid));
      await eventually(async () => assert.ok((await agentReport(LAB, "node1")).ready));
      await sleep(300);
      const { sent, lost } = await ping.stop();
      assert.ok(sent > 10);
      assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
    });
  }

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

  test("a node's subnet grows and shrinks, and what is across subnets with it", async () => {
    await apply(v4("Never", "CrossSubnet"));
    const across = ["eth0 192.0.2.12", "tunl0 192.0.2.75"];
    await eventually(async () => assert.deepEqual(await ways("node1"), across));
    const resize = async (from: number, to: number): Promise<void> => {
      const { code } = await onMember(LAB, "node1", [
        "sh",
        "-ec",
        `ip address add 192.0.2.11/${to} dev eth0; ip address del 192.0.2.11/${from} dev eth0`,
      ]);
      assert.equal(code, 0);
    };
    await resize(26, 25);
    await eventually(async () => assert.deepEqual(await ways("node1"), ["eth0 192.0.2.12", "eth0 192.0.2.75"]), 3000);
    await resize(25, 26);
    await eventually(async () => assert.deepEqual(await ways("node1"), across), 3000);
    await eventually(async () => assert.deepEqual(await unreached(), []));
    await apply(v4("Never", "Always"));
  });

  test("a node gets another address, and every tunnel follows within three seconds", async () => {
    for (const change of ["del 192.0.2.75/26", "add 192.0.2.99/26"]) {
      const { code } = await onMember(LAB, "node3", ["ip", "addr", ...change.split(" "), "dev", "eth0"]);
      assert.equal(code, 0);
    }
    // The kernel took the default route with the address.
    await onMember(LAB, "node3", ["ip", "route", "replace", "default", "via", "192.0.2.65", "dev", "eth0"]);
    await eventually(() => reaches(far), 3000);
    await eventually(async () => assert.deepEqual(await ways("node1"), ["tunl0 192.0.2.12", "tunl0 192.0.2.99"]));
    await eventually(async () => assert.deepEqual(await unreached(), []));
    await apply(v4("Always", "Never"));
    await eventually(async () => assert.deepEqual(await ways("node1"), ["vxlan.calico", "vxlan.calico"]));
    await eventually(async () => assert.deepEqual(await unreached(), []));
  });

  test("pools of two kinds: pods of both reach each other, each by its own tunnel", async () => {
    const other = [1, 3].map(
      (number) => `---
apiVersion: v1
kind: Pod
metadata: { name: other${number}, annotations: { cni.projectcalico.org/ipv4pools: '["second"]' } }
spec: { nodeName: node${number}, containers: [{ name: main, image: server }] }
`,
    );
    await apply(v4("Always", "Never") + "---" + pool("second", "10.245.0.0/16", "Never", "Always"));
    await apply(other.join(""));
    await eventually(async () => assert.deepEqual(await unreached("--protocol", "TCP", "--port", "80"), []));
    const { output } = await caracal(LAB, ["get", "pod", "other3", "-o", "json"]);
    const { status } = JSON.parse(output) as { status: { podIP: string } };
    assert.match(status.podIP, /^10\.245\./);
    for (const [address, device] of [
      [far, "vxlan.calico"],
      [status.podIP, "tunl0"],
    ] as const) {
      const { output: route } = await onMember(LAB, "node1", ["ip", "route", "get", address]);
      assert.match(route, new RegExp(` dev ${device.replace(".", "\\.")} `));
    }
    assert.equal((await caracal(LAB, ["delete", "pod", "other1", "--wait"])).code, 0);
    assert.equal((await caracal(LAB, ["delete", "pod", "other3", "--wait"])).code, 0);
    assert.equal((await caracal(LAB, ["delete", "ippool", "second"])).code, 0);
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
