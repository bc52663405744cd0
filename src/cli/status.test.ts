import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  formatNodeStatus,
  formatPeerDetails,
  formatPeers,
  formatRoutes,
  isSilent,
  type AgentStatus,
  type PeerStatus,
} from "./status.ts";
import type { FlannelReport, PathStatus, TunnelsReport } from "./statusTunnels.ts";

const peer = (name: string, fields: Partial<PeerStatus> = {}): PeerStatus => ({
  name,
  address: name.split("_").slice(1, 5).join("."),
  asn: 64512,
  type: "iBGP",
  state: "established",
  since: Date.parse("2026-03-01T12:00:00.500Z"),
  reason: "",
  routes: { ipv4: { received: 2, accepted: 2, stale: 0, advertised: 1 } },
  ...fields,
});

const agent = (node: string, fields: Partial<AgentStatus> = {}): AgentStatus => ({
  node,
  ready: true,
  waitingFor: [],
  ipv4: "192.0.2.11/24",
  ipv6: null,
  addressReason: "it is given by the environment",
  asNumber: 64512,
  backend: "bird",
  datastore: { synced: true, trouble: null },
  endpoints: 3,
  blocks: ["10.244.9.0/26"],
  routes: { wanted: 4, problems: [] },
  bgp: { settled: true, peers: [] },
  ...fields,
});

const flannel: FlannelReport = {
  backend: "vxlan",
  subnets: "10.244.1.0/24",
  mtu: 1450,
  peers: 2,
  devices: { devices: ["flannel.1"] },
  problems: [],
};

describe("the status of nodes", () => {
  test("has a line for each node, then the table of calicoctl for each that has peers", () => {
    const answers = [
      agent("node1", {
        ipv6: "2001:db8::11/64",
        bgp: {
          settled: true,
          peers: [
            peer("Mesh_192_0_2_12"),
            peer("Global_192_0_2_1", { state: "active", reason: "connection refused" }),
            peer("Node_192_0_2_9", { state: "idle" }),
          ],
        },
      }),
      agent("node2", {
        ready: false,
        waitingFor: ["the datastore", "this node's address"],
        datastore: { synced: false, trouble: "Pod: connection refused" },
        routes: { wanted: 4, problems: [{ destination: "10.0.0.0/8", reason: "Cannot add route: no" }] },
        ipv4: null,
      }),
      { node: "node3", error: "its agent does not answer: no answer in 1000 ms" },
    ];
    assert.equal(
      formatNodeStatus(answers),
      `NODE    STATUS      ADDRESS                         AS       PEERS    PODS     BLOCKS   INFO
node1   ready       192.0.2.11/24,2001:db8::11/64   64512    1/3      3        1        -
node2   not ready   <none>                          64512    0/0      3        1        waits for the datastore; waits for this node's address; Pod: connection refused; Cannot add route: no
node3   silent      <none>                          <none>   <none>   <none>   <none>   its agent does not answer: no answer in 1000 ms

node1: BGP peers
PEER ADDRESS   PEER TYPE           STATE   SINCE                 INFO
192.0.2.12     node-to-node mesh   up      2026-03-01 12:00:00   Established
192.0.2.1      global              start   2026-03-01 12:00:00   Active: connection refused
192.0.2.9      node specific       start   2026-03-01 12:00:00   Idle
`,
    );
    assert.deepEqual(answers.map(isSilent), [false, false, true]);
  });

  test("says what is wrong with the ways to other nodes, and shows all of them", () => {
    const path = (node: string, fields: Partial<PathStatus> = {}): PathStatus => ({
      node,
      kind: "ipip",
      device: "tunl0",
      target: "10.65.9.1",
      mtu: 1480,
      largest: 1480,
      verdict: "reachable",
      text: "",
      roundTrip: 0.1234,
      checkedAt: 0,
      ...fields,
    });
    const bad = { verdict: "blocked", largest: null, roundTrip: null, text: "IP protocol 4 does not pass" };
    const shown = formatNodeStatus([
      agent("node1", { paths: { intervalMs: 1000, peers: [path("node2"), path("node3", bad)] } }),
      agent("node2", {
        paths: { intervalMs: 0, peers: [] },
        flannel: { ...flannel, problems: ["no interface"] },
      }),
    ]);
    assert.equal(
      shown,
      `NODE    STATUS   ADDRESS         AS      PEERS   PODS   BLOCKS   INFO
node1   ready    192.0.2.11/24   64512   0/0     3      1        the way to node3: see below
node2   ready    192.0.2.11/24   64512   0/0     3      1        no interface

node2: tunnels
DEVICE      BY              ADDRESS         MTU    NODES   INFO
flannel.1   flannel vxlan   10.244.1.0/24   1450   2       -

node1: ways to other nodes
NODE    BY     DEVICE   TARGET      STATE       LARGEST   MTU    ROUND TRIP   INFO
node2   ipip   tunl0    10.65.9.1   reachable   1480      1480   0.12 ms      -
node3   ipip   tunl0    10.65.9.1   blocked     -         1480   -            IP protocol 4 does not pass
`,
    );
  });

  test("says by what each tunnel works, and what became of packets that have no business in it", () => {
    const tunnel = { device: "tunl0", address: "10.244.9.0", mtu: 1480, peers: 2 };
    const vxlan = (device: string, checksumOffload: string | null) => ({
      ...tunnel,
      device,
      mtu: 1450,
      checksumOffload,
    });
    const none: TunnelsReport = { ipip: null, vxlan: [], pending: [], problems: [] };
    const shown = formatNodeStatus([
      agent("node1", {
        tunnels: {
          ...none,
          ipip: { ...tunnel, kind: "bpf", counters: { sent: 9, droppedUnknownPeer: 3, droppedMalformed: 1 } },
          vxlan: [vxlan("vxlan.calico", "fine"), vxlan("vxlan-v6.calico", "broken")],
        },
      }),
      agent("node2", {
        tunnels: {
          ...none,
          ipip: { ...tunnel, address: null, kind: "kernel" },
          vxlan: [vxlan("vxlan.calico", null), vxlan("vxlan-v6.calico", "set off")],
          pending: ["10.244.7.0/26"],
          problems: ["Cannot add vxlan: no"],
        },
      }),
      agent("node3", {
        tunnels: { ...none, ipip: { ...tunnel, kind: "bpf", counters: {}, notKept: "no BPF filesystem" } },
      }),
      agent("node4", {
        tunnels: none,
        flannel: { ...flannel, backend: "ipip", devices: { devices: ["flannel.ipip"], kind: "bpf" } },
      }),
      agent("node5", { tunnels: none, flannel: { ...flannel, backend: "host-gw", devices: {} } }),
      agent("node6", { tunnels: none, flannel: null }),
    ]);
    const [nodes = "", ...tables] = shown.split("\n\n");
    assert.match(nodes, /node2 .* Cannot add vxlan: no; no way yet to 10\.244\.7\.0\/26: their nodes have not said/);
    assert.equal(
      tables.join("\n\n"),
      `node1: tunnels
DEVICE            BY                   ADDRESS      MTU    NODES   INFO
tunl0             IPIP, BPF programs   10.244.9.0   1480   2       packets dropped: 3 from strangers, 1 malformed
vxlan.calico      VXLAN                10.244.9.0   1450   2       the checksum offload works
vxlan-v6.calico   VXLAN                10.244.9.0   1450   2       the checksum offload spoils packets, and is off

node2: tunnels
DEVICE            BY                          ADDRESS      MTU    NODES   INFO
tunl0             IPIP, the kernel's device   -            1480   2       -
vxlan.calico      VXLAN                       10.244.9.0   1450   2       -
vxlan-v6.calico   VXLAN                       10.244.9.0   1450   2       the checksum offload is off by configuration

node3: tunnels
DEVICE   BY                   ADDRESS      MTU    NODES   INFO
tunl0    IPIP, BPF programs   10.244.9.0   1480   2       it ends with the agent: no BPF filesystem

node4: tunnels
DEVICE         BY                           ADDRESS         MTU    NODES   INFO
flannel.ipip   flannel ipip, BPF programs   10.244.1.0/24   1450   2       -

node5: tunnels
DEVICE   BY                ADDRESS         MTU    NODES   INFO
-        flannel host-gw   10.244.1.0/24   1450   2       -
`,
    );
  });

  test("of no peers is their heading", () => {
    assert.equal(formatPeers([]), "PEER ADDRESS   PEER TYPE   STATE   SINCE   INFO\n");
  });
});

test("the details of peers have their counts of both families, and what went wrong last", () => {
  const rows = [
    { node: "node1", peer: peer("Mesh_192_0_2_12") },
    {
      node: "node1",
      peer: peer("Global_192_0_2_1", {
        asn: 65100,
        type: "eBGP",
        state: "active",
        reason: "connection refused",
        routes: {
          ipv4: { received: 2, accepted: 2, stale: 1, advertised: 1 },
          ipv6: { received: 3, accepted: 1, stale: 2, advertised: 4 },
        },
        lastNotification: { direction: "received", text: "Cease: administrative shutdown", at: 0 },
      }),
    },
  ];
  assert.equal(
    formatPeerDetails(rows),
    `NODE    NAME               PEER ADDRESS   AS      TYPE   STATE         SINCE                 RECEIVED   ADVERTISED   INFO
node1   Mesh_192_0_2_12    192.0.2.12     64512   iBGP   established   2026-03-01 12:00:00   2          1            -
node1   Global_192_0_2_1   192.0.2.1      65100   eBGP   active        2026-03-01 12:00:00   5          5            connection refused; 2 of its routes are refused; 3 routes kept from before it went away; last notification received: Cease: administrative shutdown
`,
  );
});

test("routes say where they lead, and why they were chosen or not", () => {
  const route = {
    prefix: "10.244.9.0/26",
    from: "Mesh_192_0_2_12",
    chosen: true,
    reason: "the only path",
    stale: false,
  };
  const rows = [
    { node: "node1", route: { ...route, nextHops: [{ nextHop: "192.0.2.12", interface: "eth0" }] } },
    {
      node: "node1",
      route: {
        ...route,
        to: "Global_192_0_2_1",
        chosen: false,
        reason: "longer AS path",
        stale: true,
        nextHops: [{ nextHop: "198.51.100.9", gateway: "192.0.2.1", interface: "eth0" }, { nextHop: "198.51.100.10" }],
      },
    },
    { node: "node2", route: { ...route, nextHops: [] } },
  ];
  assert.equal(
    formatRoutes(rows),
    `NODE    PREFIX          FROM              TO                 NEXT HOP                                           CHOSEN   REASON
node1   10.244.9.0/26   Mesh_192_0_2_12   -                  192.0.2.12 on eth0                                 yes      the only path
node1   10.244.9.0/26   Mesh_192_0_2_12   Global_192_0_2_1   198.51.100.9 by 192.0.2.1 on eth0, 198.51.100.10   no       longer AS path (stale)
node2   10.244.9.0/26   Mesh_192_0_2_12   -                  -                                                  yes      the only path
`,
  );
});
