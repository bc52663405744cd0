import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { caracal, eventually, onMember, startLab, startPing } from "./lab.testing.ts";
import { labDown } from "./up.io.ts";

/**
 * Nodes with nothing but IPv6 between them, on two segments: pods of both families reach each other, IPv4 over IPv6 next
 * hops (RFC 8950).
 */

const LAB = "test-ipv6";
const DEFINITION = {
  kind: "Lab",
  segments: [
    { subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"] },
    { subnet6: "2001:db8:0:2::/64", nodes: ["node3"] },
  ],
};
const PODS = ["node1", "node2", "node3"].map((node, index) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: `pod${index + 1}` },
  spec: { nodeName: node, containers: [{ name: "main", image: "none" }] },
}));

describe("an underlay of IPv6 alone", () => {
  before(async () => {
    await startLab(LAB, DEFINITION);
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: PODS });
    const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], list);
    assert.equal(code, 0, errors);
  });
  after(async () => {
    await labDown(LAB, () => undefined);
  });

  test("carries pods of both families, on a link and through the router", async () => {
    for (const protocol of ["ICMP", "TCP"]) {
      await eventually(async () => {
        const { output, errors, code } = await caracal(LAB, ["probe", "-o", "json", "--protocol", protocol]);
        assert.equal(code, 0, errors);
        const results = JSON.parse(output) as { from: string; to: string; address: string; connected: boolean }[];
        assert.deepEqual(
          results.filter(({ connected }) => !connected),
          [],
        );
        assert.equal(
          new Set(results.map(({ from, to, address }) => `${from} ${to} ${address.includes(":")}`)).size,
          12,
        );
      });
    }
  });

  test("has IPv4 routes with IPv6 next hops, and no IPv4 session", async () => {
    const { output: ipv4 } = await onMember(LAB, "node1", ["ip", "route", "show", "proto", "bird"]);
    assert.match(ipv4, /^10\.244\.\d+\.\d+\/26 via inet6 2001:db8:0:1::12 dev eth0/m, "node2 is on the link");
    assert.match(ipv4, /^10\.244\.\d+\.\d+\/26 via inet6 2001:db8:0:1::1 dev eth0/m, "node3 is behind the router");
    const { output: ipv6 } = await onMember(LAB, "node1", ["ip", "-6", "route", "show", "proto", "bird"]);
    assert.match(ipv6, /^fd10:244:\S+\/122 via 2001:db8:0:1::12 dev eth0/m);
    const { output: own } = await onMember(LAB, "node1", ["ip", "-4", "-o", "address", "show", "dev", "eth0"]);
    assert.equal(own, "");
    const { output } = await caracal(LAB, ["bgp", "peers", "node1", "-o", "json"]);
    for (const { address, families, agreed } of JSON.parse(output) as {
      address: string;
      families: number[];
      agreed: string[];
    }[]) {
      assert.match(address, /:/);
      assert.deepEqual(new Set(families), new Set([4, 6]));
      assert.ok(
        agreed.some((text) => /next hop/.test(text)),
        agreed.join(),
      );
    }
  });

  test("moves to another port, and no packet is lost", async () => {
    const { output } = await caracal(LAB, ["get", "pod", "pod2", "-o", "json"]);
    const ping = startPing(LAB, "default/pod1", (JSON.parse(output) as { status: { podIP: string } }).status.podIP);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const configuration = {
      apiVersion: "projectcalico.org/v3",
      kind: "BGPConfiguration",
      metadata: { name: "default" },
      spec: { listenPort: 1790, bindMode: "NodeIP" },
    };
    const { code, errors } = await caracal(LAB, ["apply", "-f", "-"], JSON.stringify(configuration));
    assert.equal(code, 0, errors);
    await eventually(async () => {
      const { output: text } = await caracal(LAB, ["bgp", "peers", "-o", "json"]);
      const peers = JSON.parse(text) as { name: string; port: number; state: string }[];
      for (const { name, port, state } of peers) {
        assert.equal(state, "established");
        if (name.startsWith("Mesh_")) assert.equal(port, 1790);
      }
      assert.equal(peers.filter(({ port }) => port === 1790).length, 6);
    });
    await new Promise((resolve) => setTimeout(resolve, 500));
    const { sent, lost } = await ping.stop();
    assert.ok(sent > 30);
    assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
  });
});
