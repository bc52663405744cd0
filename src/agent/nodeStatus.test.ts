import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { PeerStatus, RouteView } from "../bgp/config.ts";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { bgpRoute, blackholeRoute } from "../dataplane/routes.ts";
import type { Route } from "../netlink/route.ts";
import { calicoNodeStatus } from "../resources/bgp.ts";
import { nodeStatusOf, type NodeStatusInput } from "./nodeStatus.ts";

const peer = (name: string, address: string, fields: Partial<PeerStatus> = {}): PeerStatus => ({
  name,
  address,
  port: 179,
  asn: 64512,
  type: "iBGP",
  passive: false,
  state: "established",
  since: Date.parse("2026-03-01T12:00:00.500Z"),
  reason: "",
  families: [4],
  agreed: [],
  routes: {},
  messages: { received: 0, sent: 0 },
  established: 1,
  gracefulRestart: { negotiated: true },
  ...fields,
});

const view = (prefix: string, from: string, fields: Partial<RouteView> = {}): RouteView => ({
  prefix,
  from,
  chosen: true,
  reason: "best",
  stale: false,
  attributes: { origin: "igp", asPath: [] },
  nextHops: [{ nextHop: parseAddress("192.0.2.12"), interface: "eth0" }],
  ...fields,
});

const connected: Route = { ...bgpRoute(parsePrefix("192.0.2.0/26"), [{ device: 2 }]), protocol: 2 };
const input: NodeStatusInput = {
  classes: [],
  now: new Date("2026-03-01T13:00:00.250Z"),
  version: "1.2.3",
  routerId: "192.0.2.11",
  started: new Date("2026-03-01T11:00:00Z"),
  configured: new Date("2026-03-01T11:30:00Z"),
  isReady: true,
  families: [4],
  peers: [
    peer("Mesh_192_0_2_12", "192.0.2.12"),
    peer("Global_192_0_2_1", "192.0.2.1", { state: "openSent" }),
    peer("Node_2001_db8__1", "2001:db8::1", { state: "idle" }),
  ],
  routes: () => [
    view("10.244.7.0/26", "Mesh_192_0_2_12"),
    view("10.244.7.0/26", "Global_192_0_2_1", { chosen: false, nextHops: [] }),
    view("10.244.9.0/26", "local", { nextHops: [] }),
    view("10.96.0.0/12", "local", { nextHops: [] }),
    view("2001:db8:7::/64", "Node_2001_db8__1", {
      nextHops: [{ nextHop: parseAddress("2001:db8::9"), gateway: parseAddress("2001:db8::1"), interface: "eth0" }],
    }),
  ],
  kernelRoutes: () => [blackholeRoute(parsePrefix("10.244.9.0/26")), connected],
  interfaceName: (index) => (index === 2 ? "eth0" : String(index)),
};

describe("a CalicoNodeStatus", () => {
  test("has what was asked for, and nothing else", () => {
    assert.deepEqual(nodeStatusOf(input), { lastUpdated: "2026-03-01T13:00:00Z" });
    for (const [name, field] of [
      ["Agent", "agent"],
      ["BGP", "bgp"],
      ["Routes", "routes"],
    ] as const) {
      assert.deepEqual(
        Object.keys(nodeStatusOf({ ...input, classes: [name] })).toSorted(),
        [field, "lastUpdated"].toSorted(),
      );
    }
  });

  test("is one that the API takes", () => {
    const status = nodeStatusOf({ ...input, classes: ["Agent", "BGP", "Routes"], families: [4, 6] });
    const object = {
      apiVersion: "projectcalico.org/v3",
      kind: "CalicoNodeStatus",
      metadata: { name: "node1" },
      spec: { node: "node1", classes: ["Agent"], updatePeriodSeconds: 10 },
      status,
    };
    assert.deepEqual(calicoNodeStatus.parse(object).status, status);
  });

  test("says of the agent what BIRD's would, for the families that it has", () => {
    const { agent } = nodeStatusOf({ ...input, classes: ["Agent"] });
    assert.deepEqual(agent, {
      birdV4: {
        state: "Ready",
        version: "caracal 1.2.3",
        routerID: "192.0.2.11",
        lastBootTime: "2026-03-01 11:00:00",
        lastReconfigurationTime: "2026-03-01 11:30:00",
      },
    });
    const waiting = nodeStatusOf({ ...input, classes: ["Agent"], isReady: false, families: [6] });
    assert.equal(waiting.agent?.birdV6?.state, "NotReady");
    assert.equal(waiting.agent.birdV4, undefined);
  });

  test("counts and lists the peers of each family", () => {
    const { bgp } = nodeStatusOf({ ...input, classes: ["BGP"] });
    const since = "2026-03-01 12:00:00";
    assert.deepEqual(bgp, {
      numberEstablishedV4: 1,
      numberNotEstablishedV4: 1,
      numberEstablishedV6: 0,
      numberNotEstablishedV6: 1,
      peersV4: [
        { peerIP: "192.0.2.12", type: "NodeMesh", state: "Established", since },
        { peerIP: "192.0.2.1", type: "GlobalPeer", state: "OpenSent", since },
      ],
      peersV6: [{ peerIP: "2001:db8::1", type: "NodePeer", state: "Idle", since }],
    });
  });

  test("lists routes of the kernel and of BGP, and where they come from", () => {
    const { routes } = nodeStatusOf({ ...input, classes: ["Routes"] });
    const lines = [...(routes?.routesV4 ?? []), ...(routes?.routesV6 ?? [])].map(
      ({ type, destination, gateway, interface: device, learnedFrom }) =>
        `${type} ${destination} via ${gateway} dev ${device} ${learnedFrom?.sourceType} ${learnedFrom?.peerIP ?? "-"}`,
    );
    assert.deepEqual(lines, [
      "FIB 10.244.9.0/26 via N/A dev blackhole Static -",
      "FIB 192.0.2.0/26 via N/A dev eth0 Direct -",
      "FIB 10.244.7.0/26 via 192.0.2.12 dev eth0 NodeMesh 192.0.2.12",
      "RIB 10.244.7.0/26 via N/A dev N/A BGPPeer 192.0.2.1",
      "FIB 10.96.0.0/12 via N/A dev N/A Static -",
      "FIB 2001:db8:7::/64 via 2001:db8::1 dev eth0 BGPPeer 2001:db8::1",
    ]);
  });

  test("keeps within what an object can hold", () => {
    const many = Array.from({ length: 6000 }, (_, index) =>
      view(`10.${index >> 8}.${index & 255}.0/24`, "Mesh_192_0_2_12"),
    );
    const { routes } = nodeStatusOf({ ...input, classes: ["Routes"], routes: () => many });
    assert.equal(routes?.routesV4?.length, 5000);
  });
});
