import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { PeerStatus } from "../bgp/config.ts";
import { agentReport, caracal, eventually, onMember, startLab, startPing } from "./lab.testing.ts";
import { startBird, startFrr, type HostRouter } from "./routers.testing.ts";
import { labDown } from "./up.io.ts";

/**
 * Two racks whose top-of-rack routers, BIRD and FRR, speak eBGP with their nodes and with each other, with passwords
 * (RFC 2385) and, in one of them, TTL security (RFC 5082). One AS for each rack; nodes know of one another only what the routers say. Needs the Debian packages
 * bird2, frr and bgpdump.
 */

const LAB = "test-racks";
const DEFINITION = {
  kind: "Lab",
  segments: [
    {
      subnet: "192.0.2.0/26",
      nodes: [
        { name: "node1", asNumber: 65001, labels: { rack: "1" } },
        { name: "node2", asNumber: 65001, labels: { rack: "1" } },
      ],
      hosts: ["tor1"],
      gateway: "tor1",
    },
    {
      subnet: "192.0.2.64/26",
      nodes: [{ name: "node3", asNumber: 65002, labels: { rack: "2" } }],
      hosts: ["tor2"],
      gateway: "tor2",
    },
    { subnet: "192.0.2.128/26", hosts: ["tor1", "tor2"] },
  ],
  router: "none",
  mesh: false,
};

/** AS 65101: 192.0.2.13 towards its rack, 192.0.2.139 towards the other router. */
const BIRD = `
  router id 192.0.2.13;
  protocol device {}
  protocol kernel { persist; graceful restart; ipv4 { import none; export where source = RTS_BGP; }; }
  template bgp rack {
    local 192.0.2.13 as 65101; password "secret of rack 1"; connect delay time 1; connect retry time 1; error wait time 1, 2;
    graceful restart on; graceful restart time 30;
    ipv4 { import all; export all; };
  }
  protocol bgp node1 from rack { neighbor 192.0.2.11 as 65001; }
  protocol bgp node2 from rack { neighbor 192.0.2.12 as 65001; }
  protocol bgp tor2 {
    local 192.0.2.139 as 65101; neighbor 192.0.2.140 as 65102; connect delay time 1; connect retry time 1;
    graceful restart on; graceful restart time 30;
    ipv4 { import all; export all; next hop self; };
  }`;
/** AS 65102: 192.0.2.76 and 192.0.2.140. */
const FRR = `
  router bgp 65102
    bgp router-id 192.0.2.76
    no bgp ebgp-requires-policy
    no bgp network import-check
    neighbor 192.0.2.75 remote-as 65002
    neighbor 192.0.2.75 password secret-of-rack-2
    neighbor 192.0.2.75 ttl-security hops 1
    neighbor 192.0.2.75 timers connect 1
    neighbor 192.0.2.139 remote-as 65101
    neighbor 192.0.2.139 timers connect 1`;

const calico = (kind: string, name: string, spec: object, annotations = {}): object => ({
  apiVersion: "projectcalico.org/v3",
  kind,
  metadata: { name, annotations },
  spec,
});
const torPeer = (rack: 1 | 2, more: object = {}): object =>
  calico("BGPPeer", `tor${rack}`, {
    nodeSelector: `rack == '${rack}'`,
    peerIP: rack === 1 ? "192.0.2.13" : "192.0.2.76",
    asNumber: 65100 + rack,
    // Nodes of a rack hear of each other from their router, with their own AS in the path.
    numAllowedLocalASNumbers: 1,
    password: { secretKeyRef: { name: "bgp-passwords", key: `rack${rack}` } },
    ...more,
  });
const SECRET = {
  apiVersion: "v1",
  kind: "Secret",
  metadata: { name: "bgp-passwords", namespace: "kube-system" },
  stringData: { rack1: "secret of rack 1", rack2: "secret-of-rack-2" },
};
const PODS = ["node1", "node2", "node3"].map((node, index) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name: `pod${index + 1}` },
  spec: { nodeName: node, containers: [{ name: "main", image: "none" }] },
}));

async function apply(...items: object[]): Promise<void> {
  const list = JSON.stringify({ apiVersion: "v1", kind: "List", items });
  const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], list);
  assert.equal(code, 0, errors);
}

async function peersOf(node: string): Promise<PeerStatus[]> {
  const { output, errors, code } = await caracal(LAB, ["bgp", "peers", node, "-o", "json"]);
  assert.equal(code, 0, errors);
  return JSON.parse(output) as PeerStatus[];
}

/** The one session of a node, once it is as it should be. */
async function session(node: string, check: (peer: PeerStatus) => void): Promise<PeerStatus> {
  return eventually(async () => {
    const [peer, ...others] = await peersOf(node);
    assert.ok(peer !== undefined && others.length === 0);
    check(peer);
    return peer;
  }, 15_000);
}
const isUp = ({ state, reason }: PeerStatus): void => assert.equal(state, "established", reason);

describe("racks with routers of their own", () => {
  let bird: HostRouter;
  let frr: HostRouter;
  let directory: string;
  before(async () => {
    directory = mkdtempSync(join(tmpdir(), "caracal-racks-"));
    await startLab(LAB, DEFINITION);
    [bird, frr] = await Promise.all([startBird(LAB, "tor1", BIRD), startFrr(LAB, "tor2", FRR)]);
    await apply(SECRET, torPeer(1), torPeer(2, { ttlSecurity: 1 }));
    await apply(...PODS);
  });
  after(async () => {
    await Promise.all([bird?.close(), frr?.close()]);
    await labDown(LAB, () => undefined);
    rmSync(directory, { recursive: true, force: true });
  });

  async function addressOf(pod: string): Promise<string> {
    const { output } = await caracal(LAB, ["get", "pod", pod, "-o", "json"]);
    return (JSON.parse(output) as { status: { podIP: string } }).status.podIP;
  }
  async function probe(): Promise<readonly { readonly connected: boolean }[]> {
    const { output, errors, code } = await caracal(LAB, ["probe", "-o", "json", "--protocol", "ICMP"]);
    assert.equal(code, 0, errors);
    return JSON.parse(output) as { connected: boolean }[];
  }

  test("sessions come up with the passwords of the Secret, and pods of different racks reach each other", async () => {
    for (const node of ["node1", "node2", "node3"]) {
      const { name, type } = await session(node, isUp);
      assert.deepEqual([name, type], [node === "node3" ? "Node_192_0_2_76" : "Node_192_0_2_13", "eBGP"]);
    }
    await eventually(async () => {
      const results = await probe();
      assert.equal(results.length, 6);
      assert.ok(results.every(({ connected }) => connected));
    });
    const { output } = await onMember(LAB, "node1", ["ip", "route", "show", "proto", "bird"]);
    assert.match(
      output,
      /^10\.244\.\d+\.\d+\/26 via 192\.0\.2\.13 dev eth0 metric 1024/m,
      "node3 is behind the router",
    );
  });

  test("no packet is lost while an agent is killed and comes back, behind BIRD and behind FRR", async () => {
    const ping = startPing(LAB, "default/pod1", await addressOf("pod3"));
    const nodes = ["node1", "node3"];
    const before = await Promise.all(nodes.map((node) => agentReport(LAB, node)));
    await new Promise((resolve) => setTimeout(resolve, 300));
    for (const { pid } of before) process.kill(pid, "SIGKILL");
    await eventually(async () => {
      for (const [index, node] of nodes.entries()) {
        const { pid, ready, bgp } = await agentReport(LAB, node);
        assert.ok(
          pid !== before[index]!.pid && ready && bgp.settled && bgp.peers.every(({ state }) => state === "established"),
        );
      }
    });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const { sent, lost } = await ping.stop();
    assert.ok(sent > 50);
    assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
  });

  test("a filter that changes resets no session, and has its effect at once", async () => {
    const before = await Promise.all(["node1", "node2", "node3"].map((node) => session(node, isUp)));
    const blocks = async (): Promise<number> =>
      (await bird.ask("show", "route", "protocol", "node1")).match(/^10\.244\./gm)?.length ?? 0;
    assert.equal(await blocks(), 1);
    const silent = calico("BGPFilter", "silent", { exportV4: [{ action: "Reject" }] });
    await apply(silent, torPeer(1, { filters: ["silent"] }));
    await eventually(async () => assert.equal(await blocks(), 0), 5000);
    // What is told, and why not.
    const { output } = await caracal(LAB, ["bgp", "routes", "node1", "--view", "out"]);
    assert.match(output, /^node1 +10\.244\.\S+ +local +Node_192_0_2_13 .* no +.*BGPFilter silent exportV4\[0\]/m);
    const deaf = calico("BGPFilter", "silent", {
      // Of everything, the default route that the lab gave the node would be told too: it is in the kernel, and so learned.
      exportV4: [{ action: "Accept", cidr: "10.244.0.0/16", matchOperator: "In" }],
      importV4: [{ action: "Reject", cidr: "10.244.0.0/16", matchOperator: "In" }],
    });
    await apply(deaf);
    await eventually(async () => {
      assert.equal(await blocks(), 1);
      const { output: kernel } = await onMember(LAB, "node1", ["ip", "route", "show", "proto", "bird"]);
      assert.equal(kernel, "");
    }, 5000);
    await apply(torPeer(1, { filters: [] }));
    await eventually(async () => {
      const { output: kernel } = await onMember(LAB, "node1", ["ip", "route", "show", "proto", "bird"]);
      assert.match(kernel, /10\.244\./);
    }, 5000);
    const now = await Promise.all(["node1", "node2", "node3"].map((node) => session(node, isUp)));
    assert.deepEqual(
      now.map(({ since, established }) => [since, established]),
      before.map(({ since, established }) => [since, established]),
    );
  });

  test("a change of one rack's session leaves the other's alone; what is wrong is said in words", async () => {
    const other = await session("node3", isUp);
    await apply(torPeer(1, { asNumber: 65999 }));
    await session("node1", ({ reason }) => assert.match(reason, /wrong AS: expected 65999, got 65101/));
    await apply(torPeer(1, { password: { secretKeyRef: { name: "bgp-passwords", key: "nobody" } } }));
    await session("node1", ({ reason }) =>
      assert.match(reason, /^password\? There is no key "nobody" in a Secret "bgp-passwords"/),
    );
    const changed = { ...SECRET, stringData: { ...SECRET.stringData, nobody: "not the right one" } };
    await apply(changed);
    await session("node1", ({ reason }) =>
      assert.match(reason, /^timed out: .*is the password the same on both sides\?/),
    );
    await apply({ ...SECRET, stringData: { ...SECRET.stringData, nobody: "secret of rack 1" } });
    await session("node1", isUp);
    const { output } = await caracal(LAB, ["node", "status"]);
    assert.match(output, /^192\.0\.2\.13 +node specific +up .* Established$/m);
    assert.deepEqual(await session("node3", isUp).then(({ since }) => since), other.since);
  });

  test("tables and sessions are written for other people's tools; a peer is asked to tell all again", async () => {
    const [tables, trace] = [join(directory, "tables.mrt"), join(directory, "session.mrt")];
    assert.equal((await caracal(LAB, ["bgp", "dump", "node1", "-o", tables])).code, 0);
    const text = execFileSync("bgpdump", ["-m", tables], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    assert.match(text, /\|192\.0\.2\.13\|65101\|10\.244\.\d+\.\d+\/26\|65101 65102 65002\|IGP\|192\.0\.2\.13\|/);
    const tracing = caracal(LAB, ["bgp", "trace", "Node_192_0_2_76", "node3", "-o", trace, "--seconds", "4"]);
    await new Promise((resolve) => setTimeout(resolve, 1200)); // it is listened to by then
    const refreshed = await caracal(LAB, ["bgp", "refresh", "192.0.2.76", "node3"]);
    assert.deepEqual([refreshed.code, refreshed.output], [0, "node3: Node_192_0_2_76 is asked to tell all again\n"]);
    assert.equal((await tracing).code, 0);
    assert.ok(readFileSync(trace).length > 0);
    const heard = execFileSync("bgpdump", ["-m", trace], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    assert.match(heard, /\|A\|192\.0\.2\.76\|65102\|10\.244\./);
    const nobody = await caracal(LAB, ["bgp", "refresh", "nobody", "node1"]);
    assert.equal(nobody.code, 1);
    assert.match(nobody.errors, /there is no BGP peer "nobody"; there are Node_192_0_2_13/);
  });

  test("a CalicoNodeStatus is answered, in Calico's words", async () => {
    await apply(
      calico("CalicoNodeStatus", "node1", {
        node: "node1",
        classes: ["Agent", "BGP", "Routes"],
        updatePeriodSeconds: 1,
      }),
    );
    interface Status {
      readonly agent: { readonly birdV4: { readonly state: string; readonly routerID: string } };
      readonly bgp: { readonly numberEstablishedV4: number; readonly peersV4: readonly object[] };
      readonly routes: { readonly routesV4: readonly object[] };
      readonly lastUpdated: string;
    }
    const read = async (): Promise<Status> => {
      const { output } = await caracal(LAB, ["get", "caliconodestatus", "node1", "-o", "json"]);
      const { status } = JSON.parse(output) as { status?: Status };
      assert.ok(status !== undefined);
      return status;
    };
    const { agent, bgp, routes, lastUpdated } = await eventually(read, 5000);
    assert.deepEqual([agent.birdV4.state, agent.birdV4.routerID], ["Ready", "192.0.2.11"]);
    assert.equal(bgp.numberEstablishedV4, 1);
    assert.deepEqual(
      { ...bgp.peersV4[0], since: "" },
      { peerIP: "192.0.2.13", type: "NodePeer", state: "Established", since: "" },
    );
    assert.ok(
      routes.routesV4.some((route) =>
        /"type":"FIB".*10\.244\..*"gateway":"192\.0\.2\.13","interface":"eth0".*"BGPPeer"/.test(JSON.stringify(route)),
      ),
      JSON.stringify(routes),
    );
    await eventually(async () => assert.notEqual((await read()).lastUpdated, lastUpdated), 5000);
  });

  test("a router that is killed and comes back is noticed, and no packet is lost", async () => {
    const before = await session("node1", isUp);
    const ping = startPing(LAB, "default/pod1", await addressOf("pod3"));
    await new Promise((resolve) => setTimeout(resolve, 300));
    await bird.close();
    const { routes, reason } = await session("node1", ({ state }) => assert.notEqual(state, "established"));
    assert.match(reason, /refused|connection (closed|lost)/);
    assert.ok((routes[4]?.stale ?? 0) > 0, "its routes are kept");
    bird = await startBird(LAB, "tor1", BIRD, "-R");
    const after = await session("node1", (peer) => {
      isUp(peer);
      assert.equal(peer.routes[4]?.stale, 0);
      assert.ok(peer.routes[4].accepted > 0);
    });
    assert.equal(after.established, before.established + 1);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const { sent, lost } = await ping.stop();
    assert.ok(sent > 50);
    assert.equal(lost, 0, `${lost} of ${sent} echoes were lost`);
  });
});
