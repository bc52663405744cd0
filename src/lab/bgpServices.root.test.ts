import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { PeerStatus } from "../bgp/config.ts";
import { caracal, eventually, onMember, startLab } from "./lab.testing.ts";
import { startBird, startBirdInPod, type HostRouter } from "./routers.testing.ts";
import { labDown } from "./up.io.ts";

/** What nodes tell a router of the data centre (BIRD): blocks, services, communities; and a pod that is a router itself. */

const LAB = "test-services";
const DEFINITION = {
  kind: "Lab",
  segments: [{ subnet: "192.0.2.0/26", nodes: ["node1", "node2"], hosts: ["tor"] }],
  router: "none",
};
const TOR = `
  router id 192.0.2.13;
  protocol device {}
  protocol bgp node1 {
    local 192.0.2.13 as 65100; neighbor 192.0.2.11 as 64512; connect delay time 1; connect retry time 1;
    ipv4 { import all; export none; };
  }
  protocol bgp node2 {
    local 192.0.2.13 as 65100; neighbor 192.0.2.12 as 64512; connect delay time 1; connect retry time 1;
    ipv4 { import all; export none; };
  }`;
const calico = (kind: string, name: string, spec: object): object => ({
  apiVersion: "projectcalico.org/v3",
  kind,
  metadata: { name },
  spec,
});
const CONFIGURATION = {
  serviceClusterIPs: [{ cidr: "10.96.0.0/16" }],
  serviceExternalIPs: [{ cidr: "203.0.113.0/24" }],
  prefixAdvertisements: [{ cidr: "10.96.0.0/16", communities: ["65000:96"] }],
  localWorkloadPeeringIPV4: "169.254.1.179",
};
const SERVICE = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "web" },
  spec: {
    type: "NodePort",
    clusterIP: "10.96.0.7",
    externalIPs: ["203.0.113.7"],
    externalTrafficPolicy: "Local",
    ports: [{ port: 80 }],
  },
};
const slice = (...nodes: string[]): object => ({
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { name: "web-1", labels: { "kubernetes.io/service-name": "web" } },
  addressType: "IPv4",
  endpoints: nodes.map((nodeName, index) => ({ addresses: [`10.244.0.${index + 1}`], nodeName })),
  ports: [{ port: 80 }],
});
const POD = {
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: "router", labels: { app: "router" } },
  spec: { nodeName: "node1", containers: [{ name: "main", image: "none" }] },
};

async function apply(...items: object[]): Promise<void> {
  const list = JSON.stringify({ apiVersion: "v1", kind: "List", items });
  const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], list);
  assert.equal(code, 0, errors);
}

describe("what nodes tell the data centre", () => {
  let tor: HostRouter;
  let inPod: HostRouter | undefined;
  before(async () => {
    await startLab(LAB, DEFINITION);
    tor = await startBird(LAB, "tor", TOR);
    await apply(
      calico("BGPConfiguration", "default", CONFIGURATION),
      calico("BGPPeer", "tor", { peerIP: "192.0.2.13", asNumber: 65100 }),
      POD,
    );
  });
  after(async () => {
    await inPod?.close();
    await tor?.close();
    await labDown(LAB, () => undefined);
  });

  /** Prefixes that the router has of a node, without those of pools. */
  const toldBy = async (node: string): Promise<string[]> =>
    [...(await tor.ask("show", "route", "protocol", node)).matchAll(/^(\d\S+)/gm)]
      .map(([, prefix = ""]) => prefix)
      .filter((prefix) => !prefix.startsWith("10.244."))
      .toSorted();

  test("are the ranges of services, by every node, with the communities that are configured", async () => {
    for (const node of ["node1", "node2"]) {
      await eventually(async () => assert.deepEqual(await toldBy(node), ["10.96.0.0/16", "203.0.113.0/24"]));
    }
    assert.match(await tor.ask("show", "route", "10.96.0.0/16", "all"), /BGP.community: \(65000,96\)/);
    assert.doesNotMatch(await tor.ask("show", "route", "203.0.113.0/24", "all"), /BGP.community/);
  });

  test("are addresses of services whose traffic stays on a node, by nodes with an endpoint", async () => {
    const ranges = ["10.96.0.0/16", "203.0.113.0/24"];
    const alone = ["10.96.0.7/32", "203.0.113.7/32"];
    await apply(SERVICE, slice("node2"));
    await eventually(async () => assert.deepEqual(await toldBy("node2"), [...ranges, ...alone].toSorted()));
    await apply(slice("node1"));
    await eventually(async () => assert.deepEqual(await toldBy("node2"), ranges));
    await eventually(async () => assert.deepEqual(await toldBy("node1"), [...ranges, ...alone].toSorted()));
    const { output: kernel } = await onMember(LAB, "node2", ["ip", "route", "show", "proto", "bird"]);
    assert.doesNotMatch(kernel, /10\.96\.|203\.0\.113\./, "kube-proxy answers for services");
    assert.deepEqual(await toldBy("node2"), ranges, "node 2 knows it in iBGP, and does not draw its traffic");
    const { output } = await caracal(LAB, ["bgp", "routes", "node2", "--prefix", "10.96.0.7/32"]);
    assert.match(output, /not for the kernel: it is a range of service addresses/);
  });

  test("are routes that other programs wrote into a node's kernel, where they lie in a pool or a filter lets them", async () => {
    const ip = async (...words: string[]): Promise<void> => {
      const { code, errors } = await onMember(LAB, "node1", ["ip", "route", ...words, "via", "192.0.2.13"]);
      assert.equal(code, 0, errors);
    };
    const isTold = async (prefix: string, told: boolean): Promise<void> =>
      eventually(async () => {
        const table = await tor.ask("show", "route", "protocol", "node1");
        assert.equal(table.includes(`\n${prefix} `), told, table);
      });
    await ip("add", "10.244.200.0/24");
    await ip("add", "198.51.100.0/24", "metric", "20");
    await isTold("10.244.200.0/24", true);
    await isTold("198.51.100.0/24", false);
    const isOut = { action: "Accept", cidr: "198.51.100.0/24", matchOperator: "Equal" };
    await apply(
      calico("BGPFilter", "uplinks", { exportV4: [isOut] }),
      calico("BGPPeer", "tor", { peerIP: "192.0.2.13", asNumber: 65100, filters: ["uplinks"] }),
    );
    await isTold("198.51.100.0/24", true);
    await ip("del", "10.244.200.0/24");
    await isTold("10.244.200.0/24", false);
    await isTold("198.51.100.0/24", true);
    await ip("del", "198.51.100.0/24", "metric", "20");
    await isTold("198.51.100.0/24", false);
  });

  test("and a pod that is a router tells its node what lies behind it", async () => {
    inPod = await startBirdInPod(
      LAB,
      "default/router",
      `router id 10.9.9.9; protocol device {}
       protocol static { ipv4; route 10.99.0.0/24 blackhole; }
       protocol bgp host {
         local as 65400; neighbor 169.254.1.179 as 64512; multihop; connect delay time 1; connect retry time 1;
         ipv4 { import all; export where source = RTS_STATIC; };
       }`,
    );
    await apply(calico("BGPPeer", "pods", { localWorkloadSelector: "app == 'router'", asNumber: 65400 }));
    await eventually(async () => {
      const { output } = await caracal(LAB, ["bgp", "peers", "node1", "-o", "json"]);
      const peer = (JSON.parse(output) as PeerStatus[]).find(({ name }) => name.startsWith("Local_Workload_10_244_"));
      assert.ok(peer !== undefined);
      assert.equal(peer.state, "established", peer.reason);
      assert.equal(peer.localAddress, "169.254.1.179");
    });
    await eventually(async () => {
      const { output } = await onMember(LAB, "node1", ["ip", "route", "show", "10.99.0.0/24"]);
      assert.match(output, /^10\.99\.0\.0\/24 via 10\.244\.\d+\.\d+ dev cali[0-9a-f]{11} proto bird/);
    });
    const { output } = await caracal(LAB, ["bgp", "peers", "node2", "-o", "json"]);
    assert.ok(
      !(JSON.parse(output) as PeerStatus[]).some(({ name }) => name.startsWith("Local_")),
      "it is node 1's alone",
    );
  });
});
