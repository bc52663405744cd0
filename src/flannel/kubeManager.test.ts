import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { nodeStore } from "../agent/flannelNodes.io.ts";
import type { Datastore } from "../datastore/datastore.ts";
import { memoryDatastore } from "../datastore/memory.ts";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { KIND } from "../resources/registry.ts";
import type { Node } from "../resources/node.ts";
import { ANNOTATION_PREFIX, annotationsOf, leaseOfNode, type NodeRecord, subnetsOf } from "./annotations.ts";
import { parseNetworkConfig } from "./config.ts";
import { kubeManager } from "./kubeManager.ts";
import { describeSubnets, formatVtepData, type LeaseAttributes } from "./lease.ts";

const vxlan: LeaseAttributes = {
  publicIp: parseAddress("192.0.2.1"),
  backendType: "vxlan",
  backendData: formatVtepData({ vni: 1, mac: "02:00:00:00:00:01" }),
};
const record = (annotations: Record<string, string> = {}, podCidrs = ["10.244.1.0/24"]): NodeRecord => ({
  name: "node1",
  podCidrs,
  annotations,
});
const key = (name: string): string => `${ANNOTATION_PREFIX}${name}`;

describe("flannel's annotations", () => {
  const cases: { name: string; attributes: LeaseAttributes; annotations: Record<string, string> }[] = [
    {
      name: "vxlan",
      attributes: vxlan,
      annotations: {
        "kube-subnet-manager": "true",
        "backend-type": "vxlan",
        "backend-data": '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}',
        "public-ip": "192.0.2.1",
      },
    },
    {
      name: "udp, whose type is empty",
      attributes: { publicIp: parseAddress("192.0.2.1"), backendType: "udp" },
      annotations: {
        "kube-subnet-manager": "true",
        "backend-type": "",
        "backend-data": "null",
        "public-ip": "192.0.2.1",
      },
    },
    {
      name: "both families",
      attributes: {
        ...vxlan,
        publicIpv6: parseAddress("fd00::1"),
        backendV6Data: { VNI: 1, VtepMAC: "02:00:00:00:00:06" },
      },
      annotations: {
        "kube-subnet-manager": "true",
        "backend-type": "vxlan",
        "backend-data": '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}',
        "public-ip": "192.0.2.1",
        "backend-v6-data": '{"VNI":1,"VtepMAC":"02:00:00:00:00:06"}',
        "public-ipv6": "fd00::1",
      },
    },
  ];
  for (const { name, attributes, annotations } of cases) {
    test(name, () => {
      const wanted = Object.fromEntries(Object.entries(annotations).map(([short, value]) => [key(short), value]));
      assert.deepEqual(annotationsOf(ANNOTATION_PREFIX, attributes, record()), wanted);
      assert.deepEqual(leaseOfNode(ANNOTATION_PREFIX, record(wanted))?.attributes, attributes);
    });
  }
  test("an administrator's address comes before the one that was found", () => {
    const node = record({ [key("public-ip-overwrite")]: "198.51.100.1" });
    assert.equal(annotationsOf(ANNOTATION_PREFIX, vxlan, node)[key("public-ip")], "198.51.100.1");
  });
  test("nodes without flannel, without a subnet, or with nonsense have no lease", () => {
    const right = annotationsOf(ANNOTATION_PREFIX, vxlan, record());
    assert.equal(leaseOfNode(ANNOTATION_PREFIX, record()), undefined);
    assert.equal(leaseOfNode(ANNOTATION_PREFIX, record(right, [])), undefined);
    for (const nonsense of [{ "backend-data": "{" }, { "public-ip": "x" }]) {
      const [name, value] = Object.entries(nonsense)[0]!;
      assert.equal(leaseOfNode(ANNOTATION_PREFIX, record({ ...right, [key(name)]: value })), undefined);
    }
  });
  test("the first podCIDR of each family counts", () => {
    const subnets = subnetsOf(record({}, ["10.244.1.0/24", "junk", "fd00:1::/64", "10.244.9.0/24"]));
    assert.equal(describeSubnets(subnets), "10.244.1.0/24 and fd00:1::/64");
  });
});

describe("subnets from Kubernetes", () => {
  const config = parseNetworkConfig('{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}');
  const nodeOf = (name: string, podCIDR: string | undefined, annotations: Record<string, string> = {}): Node =>
    KIND.Node.parse({
      apiVersion: "v1",
      kind: "Node",
      metadata: { name, annotations: { "example.org/other": "kept", ...annotations } },
      spec: podCIDR === undefined ? {} : { podCIDR, podCIDRs: [podCIDR] },
      status: {
        conditions: [
          { type: "NetworkUnavailable", status: "True" },
          { type: "Ready", status: "True" },
        ],
      },
    });

  /** With the status that the cloud's controller gives a new node: it is of no use before somebody says otherwise. */
  async function createNode(datastore: Datastore, node: Node): Promise<void> {
    const { metadata } = await datastore.create("Node", node);
    await datastore.updateStatus("Node", { ...node, metadata });
  }

  function world() {
    let uids = 0;
    const uid = (): string => `00000000-0000-4000-8000-${String((uids += 1)).padStart(12, "0")}`;
    const datastore = memoryDatastore({ now: () => 1_800_000_000_000, uid });
    const manager = kubeManager({
      nodes: nodeStore(datastore),
      nodeName: "node1",
      annotationPrefix: ANNOTATION_PREFIX,
      readConfig: () => config,
      setNetworkAvailable: true,
      clock: { now: () => 0, random: () => 0, sleep: () => new Promise((resolve) => setImmediate(resolve)) },
    });
    return { datastore, manager };
  }

  test("the node says who it is, is ready for pods, and others' annotations stay", async () => {
    const { datastore, manager } = world();
    await createNode(datastore, nodeOf("node1", "10.244.1.0/24"));
    const lease = await manager.acquire(config, vxlan, undefined);
    assert.equal(describeSubnets(lease.subnets), "10.244.1.0/24");
    const node = await datastore.get("Node", "node1");
    assert.equal(node?.metadata.annotations?.["example.org/other"], "kept");
    assert.equal(node?.metadata.annotations?.[key("public-ip")], "192.0.2.1");
    const conditions = node?.status?.conditions ?? [];
    const words = conditions.map(({ type, status, reason = "" }) => `${type} ${status} ${reason}`);
    assert.deepEqual(new Set(words), new Set(["NetworkUnavailable False FlannelIsUp", "Ready True "]));
    assert.deepEqual((await manager.stored(vxlan))?.backendData, vxlan.backendData);
  });

  test("others come, change and go; heartbeats are no news; own annotations are put right", async () => {
    const { datastore, manager } = world();
    await datastore.create("Node", nodeOf("node1", "10.244.1.0/24"));
    await manager.acquire(config, vxlan, undefined);
    const told: string[][] = [];
    const stopped = new AbortController();
    const following = manager.follow(
      {
        peers: (leases) =>
          void told.push(
            leases.map(
              ({ subnets, attributes }) => `${describeSubnets(subnets)} ${formatAddress(attributes.publicIp!)}`,
            ),
          ),
        moved: () => assert.fail("a podCIDR never changes"),
        problem: (sentence) => assert.fail(sentence),
      },
      stopped.signal,
    );
    const settle = async (count: number): Promise<void> => {
      for (let turn = 0; turn < 200 && told.length < count; turn += 1)
        await new Promise((resolve) => setImmediate(resolve));
    };
    await settle(1);
    const annotations = annotationsOf(ANNOTATION_PREFIX, { ...vxlan, publicIp: parseAddress("192.0.2.2") }, record());
    await datastore.create("Node", nodeOf("node2", "10.244.2.0/24", annotations));
    await settle(2);
    await datastore.patch("Node", "node2", undefined, { metadata: { labels: { heart: "beats" } } });
    await datastore.patch("Node", "node2", undefined, {
      metadata: { annotations: { [key("public-ip")]: "192.0.2.3" } },
    });
    await settle(3);
    await datastore.patch("Node", "node1", undefined, {
      metadata: { annotations: { [key("public-ip")]: "192.0.2.66" } },
    });
    await datastore.delete("Node", "node2");
    await settle(4);
    assert.deepEqual(told, [[], ["10.244.2.0/24 192.0.2.2"], ["10.244.2.0/24 192.0.2.3"], []]);
    const own = await datastore.get("Node", "node1");
    assert.equal(own?.metadata.annotations?.[key("public-ip")], "192.0.2.1");
    stopped.abort();
    await following;
  });

  const refused: { name: string; podCIDR: string | undefined; reason: RegExp }[] = [
    { name: "no podCIDR", podCIDR: undefined, reason: /has no ipv4 podCIDR/ },
    { name: "a podCIDR elsewhere", podCIDR: "10.9.1.0/24", reason: /10\.9\.1\.0\/24 lies outside/ },
  ];
  for (const { name, podCIDR, reason } of refused) {
    test(`${name}: the node gets no lease`, async () => {
      const { datastore, manager } = world();
      await datastore.create("Node", nodeOf("node1", podCIDR));
      await assert.rejects(manager.acquire(config, vxlan, undefined), reason);
    });
  }
  test("a node that Kubernetes does not know", async () => {
    await assert.rejects(world().manager.acquire(config, vxlan, undefined), /Kubernetes has no node "node1"/);
  });
  test("an address that an administrator gave the node", async () => {
    const { datastore, manager } = world();
    await datastore.create("Node", nodeOf("node1", "10.244.1.0/24", { [key("node-public-ip")]: "198.51.100.9" }));
    const { ipv4 } = await manager.nodePublicIps();
    assert.equal(ipv4 && formatAddress(ipv4), "198.51.100.9");
  });
});
