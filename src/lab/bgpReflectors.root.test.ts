import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { PeerStatus } from "../bgp/config.ts";
import { agentReport, caracal, eventually, onMember, startLab, startPing } from "./lab.testing.ts";
import { labDown } from "./up.io.ts";

/**
 * Two route reflectors with nodes as clients, by labels, and no mesh (RFC 4456): nodes speak with the reflectors alone,
 * and their pods' packets go straight from node to node.
 */

const LAB = "test-reflectors";
const reflector = (name: string): object => ({
  name,
  labels: { role: "reflector" },
  annotations: { "projectcalico.org/RouteReflectorClusterID": "224.0.0.1" },
});
const DEFINITION = {
  kind: "Lab",
  segments: [{ subnet: "192.0.2.0/26", nodes: [reflector("rr1"), reflector("rr2"), "node1", "node2"] }],
  router: "none",
  mesh: false,
};
const peering = (name: string, nodeSelector: string): object => ({
  apiVersion: "projectcalico.org/v3",
  kind: "BGPPeer",
  // As fast as a shared machine allows; a second at most.
  metadata: { name, annotations: { "caracal.dev/bfd": "interval=200ms, multiplier=4" } },
  spec: { nodeSelector, peerSelector: "role == 'reflector'" },
});
const PODS = ["node1", "node2", "rr1"].map((node, index) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: `pod${index + 1}` },
  spec: { nodeName: node, containers: [{ name: "main", image: "none" }] },
}));

describe("two route reflectors", () => {
  before(async () => {
    await startLab(LAB, DEFINITION);
    const items = [peering("clients", "!has(role)"), peering("reflectors", "has(role)"), ...PODS];
    const { code, errors } = await caracal(
      LAB,
      ["apply", "-f", "-", "--wait"],
      JSON.stringify({ apiVersion: "v1", kind: "List", items }),
    );
    assert.equal(code, 0, errors);
  });
  after(async () => {
    await labDown(LAB, () => undefined);
  });

  test("are all that nodes speak with; and each speaks with all", async () => {
    const expected: Record<string, string[]> = {
      node1: ["Node_192_0_2_11", "Node_192_0_2_12"],
      node2: ["Node_192_0_2_11", "Node_192_0_2_12"],
      rr1: ["Node_192_0_2_12", "Node_192_0_2_13", "Node_192_0_2_14"],
      rr2: ["Node_192_0_2_11", "Node_192_0_2_13", "Node_192_0_2_14"],
    };
    await eventually(async () => {
      const { output } = await caracal(LAB, ["bgp", "peers", "-o", "json"]);
      const peers = JSON.parse(output) as (PeerStatus & { node: string })[];
      assert.deepEqual(
        peers.filter(({ state }) => state !== "established"),
        [],
      );
      for (const [node, names] of Object.entries(expected)) {
        assert.deepEqual(
          peers.flatMap((peer) => (peer.node === node ? [peer.name] : [])),
          names,
        );
      }
    });
  });

  test("pass the nodes' routes on, with their next hops: pods reach each other straight", async () => {
    await eventually(async () => {
      const { output, errors, code } = await caracal(LAB, ["probe", "-o", "json", "--protocol", "ICMP"]);
      assert.equal(code, 0, errors);
      const results = JSON.parse(output) as { connected: boolean }[];
      assert.equal(results.length, 6);
      assert.ok(results.every(({ connected }) => connected));
    });
    const { output } = await onMember(LAB, "node1", ["ip", "route", "show", "proto", "bird"]);
    assert.match(output, /^10\.244\.\d+\.\d+\/26 via 192\.0\.2\.14 dev eth0/m, "node2");
    const routes = await caracal(LAB, ["bgp", "routes", "node1", "--view", "in", "-o", "json"]);
    const paths = JSON.parse(routes.output) as {
      attributes: { nextHop: string; clusterList?: number[]; originatorId?: number };
    }[];
    const ofNode2 = paths.filter(({ attributes }) => attributes.nextHop === "192.0.2.14");
    assert.equal(ofNode2.length, 2, "one from each reflector");
    for (const { attributes } of ofNode2) assert.deepEqual(attributes.clusterList, [0xe0000001]);
  });

  test("may be killed, one after the other, and no packet is lost", async () => {
    const { output } = await caracal(LAB, ["get", "pod", "pod2", "-o", "json"]);
    const ping = startPing(LAB, "default/pod1", (JSON.parse(output) as { status: { podIP: string } }).status.podIP);
    await new Promise((resolve) => setTimeout(resolve, 300));
    for (const name of ["rr1", "rr2"]) {
      const { pid } = await agentReport(LAB, name);
      process.kill(pid, "SIGKILL");
      await eventually(async () => {
        const report = await agentReport(LAB, name);
        assert.ok(report.pid !== pid && report.ready && report.bgp.settled);
        assert.ok(report.bgp.peers.every(({ state }) => state === "established"));
      });
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const { sent, lost } = await ping.stop();
    assert.ok(sent > 50);
    assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
  });

  test("are watched (RFC 5880): one that is cut off without a word is given up within a second or so", async () => {
    const peerOf = async (node: string, name: string): Promise<PeerStatus> => {
      const { output } = await caracal(LAB, ["bgp", "peers", node, "-o", "json"]);
      const found = (JSON.parse(output) as PeerStatus[]).find((peer) => peer.name === name);
      assert.ok(found !== undefined);
      return found;
    };
    await eventually(async () => assert.equal((await peerOf("node1", "Node_192_0_2_11")).bfd?.state, "up"));
    const cut = Date.now();
    await onMember(LAB, "router", ["ip", "link", "set", "rr1", "down"]);
    const { since, reason } = await eventually(async () => {
      const peer = await peerOf("node1", "Node_192_0_2_11");
      assert.notEqual(peer.state, "established");
      return peer;
    }, 5000);
    assert.ok(since - cut < 2500, `after ${since - cut} ms`);
    assert.match(reason, /BFD|cannot connect|timed out/);
    await onMember(LAB, "router", ["ip", "link", "set", "rr1", "up"]);
  });
});
