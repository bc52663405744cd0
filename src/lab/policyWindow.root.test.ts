import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { openAttacker, type Attacker, type Stream, type StreamReport } from "./attacker.testing.ts";
import { podNamespace } from "./files.ts";
import { agentReport, eventually } from "./lab.testing.ts";
import { policyLab, type PolicyLab } from "./policyLab.testing.ts";
import type { Manifest } from "./policyObjects.testing.ts";

/**
 * No window: a pod that is attacked every millisecond from before its birth on answers nobody that its policy forbids, and
 * a change of policy lets nothing through that is forbidden before and after, and holds nothing back that is allowed.
 * `CARACAL_POLICY_UPDATES` updates (20 of each kind if absent).
 */

const LAB = "test-policy-window";
const DEFINITION = {
  kind: "Lab",
  segments: [{ subnet: "192.0.2.0/24", subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"] }],
};
const UPDATES = Number(process.env["CARACAL_POLICY_UPDATES"] ?? 20);
const RENDERERS = { nft: "Enabled", iptables: "Disabled" } as const;

const IPS = {
  victim: ["10.244.1.1", "fd10:244::1:1"],
  near: ["10.244.1.2", "fd10:244::1:2"],
  far: ["10.244.2.2", "fd10:244::2:2"],
  friend: ["10.244.2.3", "fd10:244::2:3"],
} as const;
type Name = keyof typeof IPS;
const pod = (name: Name, nodeName: string, labels: Readonly<Record<string, string>> = {}): Manifest => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    name,
    namespace: "default",
    labels: { app: name, ...labels },
    annotations: { "cni.projectcalico.org/ipAddrs": JSON.stringify(IPS[name]) },
  },
  spec: { nodeName, containers: [{ name: "c", image: "none" }] },
});
const OTHERS = [pod("near", "node1"), pod("far", "node2"), pod("friend", "node2")];
const VICTIM = pod("victim", "node1");

const policy = (name: string, spec: object): Manifest => ({
  apiVersion: "projectcalico.org/v3",
  kind: "GlobalNetworkPolicy",
  metadata: { name },
  spec,
});
const felix = (nftablesMode: string): Manifest => ({
  apiVersion: "projectcalico.org/v3",
  kind: "FelixConfiguration",
  metadata: { name: "default" },
  spec: { nftablesMode },
});

const stream = (from: Name, to: Name, port: number, at: 0 | 1, isSeen = false): Stream => ({
  name: `${from} to ${to} ${port}, IPv${at === 0 ? 4 : 6}`,
  netns: podNamespace(LAB, "default", from),
  source: IPS[from][at],
  destination: IPS[to][at],
  port,
  ...(isSeen ? { seenIn: podNamespace(LAB, "default", to) } : {}),
});

const sum = (reports: readonly StreamReport[], of: (report: StreamReport) => number): number =>
  reports.reduce((total, report) => total + of(report), 0);
const ofPort = (reports: readonly StreamReport[], port: number): StreamReport[] =>
  reports.filter(({ name }) => name.includes(` ${port},`));
const text = ({ name, sent, answered, longestSilence }: StreamReport): string =>
  `${name}: ${answered} of ${sent} answered, at most ${longestSilence} in a row not`;

describe("no window", () => {
  let lab: PolicyLab;
  let attacker: Attacker;
  before(async () => {
    attacker = openAttacker();
    lab = await policyLab(LAB, DEFINITION);
  });
  after(async () => {
    attacker?.close();
    await lab?.close();
  });

  for (const [renderer, mode] of Object.entries(RENDERERS)) {
    test(`when a pod is born, and when it dies, by ${renderer}`, async (t) => {
      const rules = [
        { action: "Allow", protocol: "TCP", source: { selector: "app == 'friend'" }, destination: { ports: [2] } },
        { action: "Deny", protocol: "TCP" },
      ];
      const egress = [{ action: "Allow", protocol: "TCP", destination: { selector: "app == 'friend'", ports: [2] } }];
      const own = policy("victim", { selector: "app == 'victim'", ingress: rules, egress });
      await lab.hold([...OTHERS, own, felix(mode)]);
      lab.forgetConnections();
      await attacker.start(
        ([0, 1] as const).flatMap((at) => [
          stream("near", "victim", 4, at),
          stream("far", "victim", 4, at),
          stream("friend", "victim", 4, at),
          stream("friend", "victim", 2, at),
          stream("victim", "near", 4, at, true),
          stream("victim", "far", 4, at, true),
        ]),
      );
      for (let birth = 0; birth < 3; birth += 1) {
        await lab.put([VICTIM]);
        await sleep(200);
        await lab.remove([VICTIM]);
      }
      const reports = await attacker.stop();
      const outward = ofPort(reports, 4).filter(({ name }) => name.startsWith("victim"));
      const inward = ofPort(reports, 4).filter((report) => !outward.includes(report));
      const allowed = ofPort(reports, 2);
      const totals = {
        births: 3,
        attempts: sum(inward, ({ sent }) => sent),
        answered: sum(inward, ({ answered }) => answered),
        ofFriends: sum(allowed, ({ sent }) => sent),
        answeredToFriends: sum(allowed, ({ answered }) => answered),
        sent: sum(outward, ({ sent }) => sent),
        arrived: sum(outward, ({ answered }) => answered),
      };
      t.diagnostic(`${renderer}: ${JSON.stringify(totals)}`);
      assert.equal(totals.answered, 0, "what its policy forbids is never answered");
      assert.equal(totals.arrived, 0, "what its policy forbids it to send never arrives");
      assert.ok(totals.attempts > 1000 && totals.sent > 200, "it was attacked");
      assert.ok(totals.answeredToFriends > 50, "it was there to answer");
    });

    test(`when policy changes, by ${renderer}`, async (t) => {
      const allow = (ports: number[], peers: string) => ({
        ingress: [{ action: "Allow", protocol: "TCP", source: { selector: peers }, destination: { ports } }],
        egress: [{ action: "Allow", protocol: "TCP", destination: { selector: peers, ports } }],
      });
      const [P, Q] = [
        { order: 5, selector: "app == 'victim'", ...allow([1, 2], "color in {'red', 'blue'}") },
        { order: 7, selector: "app == 'victim'", ...allow([2, 3], "has(color)") },
      ];
      const both = [
        { action: "Allow", protocol: "TCP", source: { selector: "color == 'red'" }, destination: { ports: [2] } },
        { action: "Allow", protocol: "TCP", source: { selector: "color == 'blue'" }, destination: { ports: [2, 3] } },
      ];
      const mirrored = both.map(({ action, protocol, source, destination }) => ({
        action,
        protocol,
        destination: { ...source, ...destination },
      }));
      const colored = (color: string): Manifest[] => [pod("near", "node1", { color }), pod("far", "node2", { color })];
      const victim = (mood: string): Manifest => pod("victim", "node1", { mood });
      const moody = (mood: string) => ({
        selector: `mood == '${mood}'`,
        ...allow(mood === "glad" ? [1, 2] : [2, 3], "has(color)"),
      });
      /** Each leads from one state to another, and back. */
      const changes: { name: string; states: [Manifest[], Manifest[]] }[] = [
        { name: "a policy's rules and order", states: [[policy("p", P)], [policy("p", Q)]] },
        {
          name: "peers' labels",
          states: [
            [policy("p", { selector: "app == 'victim'", ingress: both, egress: mirrored }), ...colored("red")],
            colored("blue"),
          ],
        },
        {
          name: "which of two policies applies",
          states: [[policy("p", moody("glad")), policy("q", moody("sad")), victim("glad")], [victim("sad")]],
        },
      ];
      for (const { name, states } of changes) {
        await lab.hold([
          pod("friend", "node2"),
          ...colored("red"),
          felix(mode),
          ...(states[0].includes(VICTIM) ? [] : [VICTIM]),
          ...states[0],
        ]);
        lab.forgetConnections();
        await attacker.start(
          ([0, 1] as const).flatMap((at) =>
            [2, 4].flatMap((port) => [
              stream("near", "victim", port, at),
              stream("far", "victim", port, at),
              stream("victim", "near", port, at),
              stream("victim", "far", port, at),
            ]),
          ),
        );
        const began = performance.now();
        for (let update = 1; update <= UPDATES; update += 1) await lab.put(states[update % 2]!);
        const milliseconds = performance.now() - began;
        const reports = await attacker.stop();
        const [allowed, forbidden] = [ofPort(reports, 2), ofPort(reports, 4)];
        const totals = {
          updates: UPDATES,
          milliseconds: Math.round(milliseconds),
          forbidden: sum(forbidden, ({ sent }) => sent),
          answered: sum(forbidden, ({ answered }) => answered),
          allowed: sum(allowed, ({ sent }) => sent),
          dropped: sum(allowed, ({ sent, answered }) => sent - answered),
        };
        t.diagnostic(`${renderer}, ${name}: ${JSON.stringify(totals)}`);
        assert.equal(totals.answered, 0, `${name}: ${forbidden.map(text).join("\n")}`);
        assert.equal(totals.dropped, 0, `${name}: ${allowed.map(text).join("\n")}`);
        assert.ok(totals.allowed > 500 && totals.forbidden > 500);
      }
    });
  }

  test("when agents are killed and when the renderer changes", async (t) => {
    const rules = {
      selector: "app == 'victim'",
      ingress: [{ action: "Allow", protocol: "TCP", destination: { ports: [2] } }],
    };
    await lab.hold([...OTHERS, VICTIM, policy("p", rules), felix("Disabled")]);
    lab.forgetConnections();
    await attacker.start(
      ([0, 1] as const).flatMap((at) =>
        [2, 4].flatMap((port) => [stream("near", "victim", port, at), stream("far", "victim", port, at)]),
      ),
    );
    const check = async (what: string): Promise<void> => {
      const reports = await attacker.report();
      assert.deepEqual(
        ofPort(reports, 4)
          .filter(({ answered }) => answered > 0)
          .map(text),
        [],
        what,
      );
    };
    for (const mode of ["Enabled", "Disabled"]) {
      await lab.put([felix(mode)]);
      await sleep(300);
      await check(`when the renderer is changed to ${mode}`);
      const pids = await Promise.all(lab.nodes.map(async (node) => (await agentReport(LAB, node)).pid));
      for (const pid of pids) process.kill(pid, "SIGKILL");
      await eventually(async () => {
        for (const [at, node] of lab.nodes.entries()) {
          const report = await agentReport(LAB, node);
          assert.ok(report.ready && report.pid !== pids[at]);
        }
      });
      await check(`when the agents are killed in mode ${mode}`);
    }
    const reports = await attacker.stop();
    t.diagnostic(reports.map(text).join("; "));
    const [allowed, forbidden] = [ofPort(reports, 2), ofPort(reports, 4)];
    assert.equal(
      sum(forbidden, ({ answered }) => answered),
      0,
    );
    assert.deepEqual(allowed.filter(({ sent, answered }) => sent !== answered).map(text), []);
    assert.ok(sum(allowed, ({ sent }) => sent) > 1000);
  });
});

const sleep = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));
