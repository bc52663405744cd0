import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { caracal, eventually, onMember, startLab } from "./lab.testing.ts";
import { startBird, type HostRouter } from "./routers.testing.ts";
import { labDown } from "./up.io.ts";

/**
 * A node with two uplinks (BIRD): equal paths in the kernel, a router that is known by an address behind it, an AS number
 * for one of them alone, and whose next hops are told.
 */

const LAB = "test-uplinks";
const DEFINITION = {
  kind: "Lab",
  segments: [{ subnet: "192.0.2.0/26", nodes: ["node1", "node2"], hosts: ["tor1", "tor2"] }],
  router: "none",
};
const LOOPBACK = "203.0.113.13";
const timers = "connect delay time 1; connect retry time 1; error wait time 1, 2;";
/** 192.0.2.13, which speaks with the address of its loopback. */
const TOR1 = `
  router id 192.0.2.13;
  protocol device {}
  protocol static outside { ipv4; route 10.50.0.0/16 blackhole; route 10.51.0.0/16 blackhole; }
  protocol bgp node1 {
    local ${LOOPBACK} as 65101; neighbor 192.0.2.11 as 64512; multihop; ${timers}
    ipv4 { import all; export where source = RTS_STATIC; };
  }`;
/** 192.0.2.14, to which the node is AS 65009. */
const TOR2 = `
  router id 192.0.2.14;
  protocol device {}
  protocol static outside { ipv4; route 10.50.0.0/16 blackhole; }
  protocol bgp node1 {
    local 192.0.2.14 as 65102; neighbor 192.0.2.11 as 65009; ${timers}
    ipv4 { import all; export where source = RTS_STATIC; };
  }`;

const peer = (name: string, spec: object): object => ({
  apiVersion: "projectcalico.org/v3",
  kind: "BGPPeer",
  metadata: { name },
  spec: { node: "node1", ...spec },
});
const TO_TOR1 = { peerIP: LOOPBACK, asNumber: 65101, reachableBy: "192.0.2.13" };
const TO_TOR2 = { peerIP: "192.0.2.14", asNumber: 65102, localASNumber: 65009 };

describe("a node with two uplinks", () => {
  const routers: HostRouter[] = [];
  before(async () => {
    await startLab(LAB, DEFINITION);
    const { code, errors } = await onMember(LAB, "tor1", ["ip", "address", "add", `${LOOPBACK}/32`, "dev", "lo"]);
    assert.equal(code, 0, errors);
    routers.push(await startBird(LAB, "tor1", TOR1), await startBird(LAB, "tor2", TOR2));
    await apply(peer("tor1", TO_TOR1), peer("tor2", TO_TOR2), {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: "pod2" },
      spec: { nodeName: "node2", containers: [{ name: "main", image: "none" }] },
    });
  });
  after(async () => {
    for (const router of routers) await router.close();
    await labDown(LAB, () => undefined);
  });

  async function apply(...items: object[]): Promise<void> {
    const list = JSON.stringify({ apiVersion: "v1", kind: "List", items });
    const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], list);
    assert.equal(code, 0, errors);
  }
  /** A route of the node's kernel, its next hops in order. */
  async function kernelRoute(prefix: string): Promise<string> {
    const { output } = await onMember(LAB, "node1", ["ip", "route", "show", prefix]);
    const [head = "", ...hops] = output.split("\n").map((line) => line.trim());
    return [head, ...hops.filter((line) => line !== "").toSorted()].join("; ");
  }

  test("has equal paths side by side, one of them by the way to its router, until one is withdrawn", async () => {
    const both =
      "10.50.0.0/16 proto bird metric 1024; nexthop via 192.0.2.13 dev eth0 weight 1; nexthop via 192.0.2.14 dev eth0 weight 1";
    await eventually(async () => assert.equal(await kernelRoute("10.50.0.0/16"), both));
    assert.match(await kernelRoute(`${LOOPBACK}/32`), /^203\.0\.113\.13 via 192\.0\.2\.13 dev eth0 proto 80/);
    assert.match(await kernelRoute("10.51.0.0/16"), /^10\.51\.0\.0\/16 via 192\.0\.2\.13 dev eth0 proto bird/);
    await routers[1]!.ask("disable", "outside");
    await eventually(async () =>
      assert.match(await kernelRoute("10.50.0.0/16"), /^10\.50\.0\.0\/16 via 192\.0\.2\.13 dev eth0 proto bird/),
    );
    await routers[1]!.ask("enable", "outside");
    await eventually(async () => assert.equal(await kernelRoute("10.50.0.0/16"), both));
  });

  test("is another AS to one of them, and tells whose next hops it is asked for", async () => {
    const { output } = await onMember(LAB, "node1", [
      "sh",
      "-c",
      "ip route show proto bird | grep -m1 'via 192.0.2.12 '",
    ]);
    const [block = ""] = output.split(" ");
    assert.match(block, /^10\.244\./, "node 2's block");
    const told = async (router: number, as: RegExp, hop: string): Promise<void> =>
      eventually(async () => {
        const text = await routers[router]!.ask("show", "route", "all", "where", "net", "=", block);
        assert.match(text, as);
        assert.match(text, new RegExp(`BGP.next_hop: ${hop.replaceAll(".", String.raw`\.`)}\n`));
      });
    await told(0, /BGP.as_path: 64512\n/, "192.0.2.11");
    await told(1, /BGP.as_path: 65009\n/, "192.0.2.11");
    await apply(peer("tor2", { ...TO_TOR2, nextHopMode: "Keep" }));
    await told(1, /BGP.as_path: 65009\n/, "192.0.2.12");
  });

  test("sends what came by a router the way that leads to it now", async () => {
    await apply(peer("tor1", { peerIP: LOOPBACK, asNumber: 65101 }));
    await eventually(async () => {
      assert.equal(await kernelRoute(`${LOOPBACK}/32`), "");
      assert.match(
        await kernelRoute("10.51.0.0/16"),
        /^10\.51\.0\.0\/16 via 192\.0\.2\.1 dev eth0 /,
        "the default route",
      );
    });
    const { errors, code } = await onMember(LAB, "node1", ["ip", "route", "del", "default"]);
    assert.equal(code, 0, errors);
    await eventually(async () => {
      assert.equal(await kernelRoute("10.51.0.0/16"), "");
      assert.match(await kernelRoute("10.50.0.0/16"), /^10\.50\.0\.0\/16 via 192\.0\.2\.14 /);
    });
  });
});
