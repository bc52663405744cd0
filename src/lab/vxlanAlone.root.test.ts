import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startCapture } from "./capture.testing.ts";
import { transmitChecksumOffload } from "../netlink/ethtool.io.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import { innermost } from "./headers.testing.ts";
import { agentReport, caracal, eventually, inPod, onMember, startLab } from "./lab.testing.ts";
import { probeResults } from "./matrix.io.ts";
import { labDown } from "./up.io.ts";
import { addressOf, podAddresses } from "./ways.testing.ts";

/** `CALICO_NETWORKING_BACKEND=vxlan`: no BGP anywhere, a borrowed address, and a machine that has no business in the tunnel. */

const LAB = "test-vxlan-alone";
const DEFINITION = {
  kind: "Lab",
  backend: "vxlan",
  vxlan: "Always",
  vxlan6: "Always",
  segments: [
    { subnet: "192.0.2.0/26", subnet6: "2001:db8:0:1::/64", nodes: ["node1"], hosts: ["stranger"] },
    { subnet: "192.0.2.64/26", subnet6: "2001:db8:0:2::/64", nodes: ["node2"] },
  ],
};
const pod = (name: string, node: string, annotations = "{}"): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, annotations: ${annotations} }
spec: { nodeName: ${node}, containers: [{ name: main, image: server }] }
---`;

async function apply(manifest: string): Promise<void> {
  const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], manifest);
  assert.equal(code, 0, errors);
}

async function unreached(): Promise<string[]> {
  const results = await probeResults(LAB, { protocol: "TCP", port: 80, from: undefined, to: undefined }, 500);
  assert.ok(results.length > 0);
  return results.filter(({ connected }) => !connected).map(({ from, to, address }) => `${from} ${to} ${address}`);
}

describe("two nodes with VXLAN and nothing else between them", () => {
  before(async () => {
    await startLab(LAB, DEFINITION);
    await apply(pod("pod1", "node1") + pod("pod2", "node2"));
  });
  after(() => labDown(LAB, () => undefined));

  test("pods reach each other by both families, and nobody speaks BGP", async () => {
    await eventually(async () => assert.deepEqual(await unreached(), []));
    for (const node of ["node1", "node2"]) {
      assert.deepEqual((await agentReport(LAB, node)).bgp.peers, []);
      const { output } = await onMember(LAB, node, ["ss", "-Htln", "sport", "=", "179"]);
      assert.equal(output, "", "nobody listens");
    }
  });

  test("an address that a node borrows from the other's block has a way of its own", async () => {
    const own = addressOf(await podAddresses(LAB), "pod1", 4);
    const borrowed = own.replace(/\d+$/, (last) => String(Number(last) + 20));
    await apply(pod("borrower", "node2", `{ cni.projectcalico.org/ipAddrs: '["${borrowed}"]' }`));
    await eventually(async () => assert.deepEqual(await unreached(), []));
    const { output } = await onMember(LAB, "node1", ["ip", "route", "get", borrowed]);
    assert.match(output, / dev vxlan\.calico /);
  });

  test("the checksum offload is tried out when the devices are new, and is off where the configuration says so", async () => {
    const status = async (words: string): Promise<void> => {
      const { output } = await caracal(LAB, ["node", "status"]);
      for (const device of ["vxlan.calico", "vxlan-v6.calico"])
        assert.match(output, new RegExp(`\n${device} +VXLAN +\\S+ +14[35]0 +1 +the checksum offload ${words}\n`));
    };
    await eventually(() => status("works"));
    const settings = (override: string): string => `
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: { name: default }
spec: { featureDetectOverride: "${override}" }
`;
    await apply(settings("ChecksumOffloadBroken=true"));
    await eventually(() => status("is off by configuration"));
    const isOn = inNamespace(memberNamespace(LAB, "node1"), () => transmitChecksumOffload("vxlan.calico"));
    assert.equal(isOn, false);
    await eventually(async () => assert.deepEqual(await unreached(), []));
    await apply(settings(""));
  });

  test("packets of a machine that is no node are dropped, unless the configuration names it", async () => {
    const to = addressOf(await podAddresses(LAB), "pod1", 4);
    const from = "10.244.200.1";
    const link = await onMember(LAB, "node1", ["ip", "-j", "link", "show", "vxlan.calico"]);
    const mac = (JSON.parse(link.output) as { address: string }[])[0]!.address;
    for (const command of [
      "ip link add v0 type vxlan id 4096 dev eth0 dstport 4789 nolearning",
      `ip address add ${from}/32 dev v0`,
      "ip link set v0 mtu 1450 up",
      `bridge fdb append ${mac} dev v0 dst 192.0.2.11 self`,
      `ip neighbour add ${to} lladdr ${mac} dev v0`,
      `ip route add ${to} dev v0 src ${from}`,
    ]) {
      const { code, errors } = await onMember(LAB, "stranger", command.split(" "));
      assert.equal(code, 0, `${command}: ${errors}`);
    }
    /** How many of three packets come out of the tunnel at the pod. */
    const arrived = async (): Promise<number> => {
      const capture = await startCapture(podNamespace(LAB, "default", "pod1"), "eth0");
      await onMember(LAB, "stranger", ["ping", "-c3", "-i0.1", "-W0.3", to]);
      return (await capture.stop()).filter((frame) => innermost(frame)?.source === from).length;
    };
    assert.equal(await arrived(), 0);
    const settings = (list: string): string => `
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: { name: default }
spec: { externalNodesList: [${list}] }
`;
    await apply(settings("192.0.2.0/26"));
    await eventually(async () => assert.equal(await arrived(), 3), 5000);
    await apply(settings(""));
    await eventually(async () => assert.equal(await arrived(), 0), 5000);
    assert.equal((await inPod(LAB, "default/pod2", ["ping", "-c1", "-W1", to])).code, 0, "nodes' packets are taken");
  });
});
