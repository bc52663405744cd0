import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { PeerStatus } from "../bgp/config.ts";
import { agentReport, caracal, eventually, onMember, startLab, startPing } from "./lab.testing.ts";
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

const calico = (kind: string, name: string, spec: object): object => ({
  apiVersion: "projectcalico.org/v3",
  kind,
  metadata: { name },
  spec,
});

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

  async function apply(...items: object[]): Promise<void> {
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items });
    const { code, errors } = await caracal(LAB, ["apply", "-f", "-"], list);
    assert.equal(code, 0, errors);
  }
  /** Between nodes: the lab's router is a peer of all of them besides. */
  async function sessions(): Promise<PeerStatus[]> {
    const { output, errors, code } = await caracal(LAB, ["bgp", "peers", "-o", "json"]);
    assert.equal(code, 0, errors);
    return (JSON.parse(output) as PeerStatus[]).filter(({ address }) => !address.endsWith("::1"));
  }

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

  test("moves to another port without a new session, and comes back there: no packet is lost", async () => {
    const { output } = await caracal(LAB, ["get", "pod", "pod2", "-o", "json"]);
    const ping = startPing(LAB, "default/pod1", (JSON.parse(output) as { status: { podIP: string } }).status.podIP);
    const before = await sessions();
    await apply(calico("BGPConfiguration", "default", { listenPort: 1790, bindMode: "NodeIP" }));
    const moved = await eventually(async () => {
      const now = await sessions();
      assert.equal(now.filter(({ port, state }) => port === 1790 && state === "established").length, 6);
      return now;
    });
    for (const node of ["node1", "node2", "node3"]) {
      await eventually(async () => {
        const { output: open } = await onMember(LAB, node, [
          "ss",
          "-Hltn",
          "sport",
          "=",
          ":1790",
          "or",
          "sport",
          "=",
          ":179",
        ]);
        assert.match(open, /^LISTEN +0 +\d+ +\[2001:db8:0:[12]::1\d\]:1790 [^\n]*\n$/, "at the node's address alone");
      });
    }
    const since = (all: readonly PeerStatus[]): string[] => all.map((peer) => `${peer.name} ${peer.since}`);
    assert.deepEqual(since(moved), since(before), "no session was ended");
    const { pid } = await agentReport(LAB, "node1");
    process.kill(pid, "SIGKILL");
    await eventually(async () => {
      assert.notEqual((await agentReport(LAB, "node1")).pid, pid);
      const now = (await sessions()).filter(({ port, state }) => port === 1790 && state === "established");
      assert.equal(now.length, 6);
    });
    const { sent, lost } = await ping.stop();
    assert.ok(sent > 30);
    assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
  });

  test("is guarded by passwords (RFC 2385) and by how far packets may have come (RFC 5082)", async () => {
    const guarded = (ttlSecurity: number): object =>
      calico("BGPPeer", "nodes", {
        nodeSelector: "all()",
        peerSelector: "all()",
        ttlSecurity,
        password: { secretKeyRef: { name: "bgp", key: "nodes" } },
      });
    await apply(
      {
        apiVersion: "v1",
        kind: "Secret",
        metadata: { name: "bgp", namespace: "kube-system" },
        stringData: { nodes: "among nodes" },
      },
      guarded(2),
      calico("BGPConfiguration", "default", { nodeToNodeMeshEnabled: false }),
    );
    /** The two ends of each session that is up. */
    const ends = (all: readonly PeerStatus[]): string[] => {
      const up = all.filter(({ state }) => state === "established");
      const short = (text = ""): string => text.replace("2001:db8:0:", "");
      return [
        ...new Set(up.map((peer) => [short(peer.localAddress), short(peer.address)].toSorted().join(" "))),
      ].toSorted();
    };
    await eventually(async () => {
      const all = await sessions();
      assert.ok(all.every(({ name }) => name.startsWith("Node_")));
      assert.deepEqual(ends(all), ["1::11 1::12", "1::11 2::11", "1::12 2::11"]);
    });
    const { code, errors } = await caracal(LAB, ["probe", "--protocol", "ICMP"]);
    assert.equal(code, 0, errors);
    // Of a TCP connection's digests the kernel shows with which peer they are, and not the key.
    const { output } = await onMember(LAB, "node1", [
      "ss",
      "-tieno",
      "state",
      "established",
      "sport",
      "=",
      ":179",
      "or",
      "dport",
      "=",
      ":179",
    ]);
    assert.match(output, /md5keys:2001:db8:0:[12]::1[12]\/128=/);
    await apply(guarded(1));
    await eventually(async () =>
      assert.deepEqual(ends(await sessions()), ["1::11 1::12"], "node 3 is behind a router"),
    );
  });
});
