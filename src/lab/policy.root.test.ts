import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { ApiDatastore } from "../datastore/client.io.ts";
import { agentReport, caracal, eventually, onMember, startLab } from "./lab.testing.ts";
import { probeResults } from "./matrix.io.ts";
import { outcomes, policyWorld, tryAll, type Tried } from "./policyTruth.testing.ts";
import { isAlive } from "./process.io.ts";
import { labTarget } from "./target.io.ts";
import { labDown } from "./up.io.ts";

/** Policy from a manifest to packets: what `apply --wait` has returned of, real connections agree with the evaluator. */

const LAB = "test-policy";
const DEFINITION = {
  kind: "Lab",
  // As where the kernel knows no owners of tables: what others do to them is put right.
  environment: { CARACAL_NFTABLES_OWNER: "false" },
  segments: [
    { subnet: "192.0.2.0/26", subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"] },
    { subnet: "192.0.2.64/26", subnet6: "2001:db8:0:2::/64", nodes: ["node3"] },
  ],
};

const pod = (namespace: string, name: string, node: number, app: string): string =>
  `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: ${namespace}, labels: {app: ${app}}},
    spec: {nodeName: node${node}, containers: [{name: c, image: x, ports: [
      {name: http, containerPort: 80}, {containerPort: 81}, {containerPort: 53, protocol: UDP}]}]}}`;
const WORLD = [
  "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}",
  "{apiVersion: v1, kind: Namespace, metadata: {name: bank, labels: {team: blue}}}",
  pod("shop", "web", 1, "web"),
  pod("shop", "db", 2, "db"),
  pod("shop", "client", 1, "client"),
  pod("bank", "client", 3, "client"),
  pod("bank", "vault", 3, "vault"),
].join("\n---\n");

const POLICIES = `
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {
  podSelector: {matchLabels: {app: web}},
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]},
            {from: [{namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: 53, protocol: UDP}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: vault, namespace: bank}, spec: {
  podSelector: {matchLabels: {app: vault}}, policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {}}]}]}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 10}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: pods, labels: {set: pods}}, spec: {nets: [10.244.0.0/16, "fd00::/8"]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: security.icmp}, spec: {
  tier: security, order: 1, selector: app == 'db', types: [Ingress],
  ingress: [{action: Deny, protocol: ICMP, source: {selector: set == 'pods'}}, {action: Deny, protocol: ICMPv6, source: {selector: app == 'web'}},
            {action: Pass}]}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: db, namespace: shop}, spec: {
  selector: app == 'db', types: [Ingress], ingress: [{action: Allow, protocol: TCP, source: {selector: app == 'web'}, destination: {ports: ["80:81"]}},
    {action: Allow, protocol: UDP, source: {namespaceSelector: team == 'blue'}}, {action: Allow, protocol: ICMPv6}]}}`;

const RENDERERS = { nft: "Enabled", iptables: "Disabled" } as const;
async function caracalOk(args: readonly string[], input = ""): Promise<string> {
  const { code, output, errors } = await caracal(LAB, args, input);
  assert.equal(code, 0, errors);
  return output;
}
const apply = (manifest: string): Promise<string> => caracalOk(["apply", "-f", "-", "--wait"], manifest);

describe("policy in a lab of three nodes", () => {
  let datastore: ApiDatastore;
  before(async () => {
    await startLab(LAB, DEFINITION);
    datastore = labTarget(LAB).openDatastore() as ApiDatastore;
    await apply(WORLD);
  });
  after(async () => {
    datastore?.close();
    await labDown(LAB, () => undefined);
  });

  const tryPods = async (): Promise<Tried[]> =>
    tryAll(LAB, (await datastore.list("Pod")).items, await policyWorld(datastore));

  /** Says how many connections work, of how many. */
  async function assertAgreement(): Promise<{ connected: number; all: number }> {
    const tried = await tryPods();
    assert.deepEqual(outcomes(tried, "connected"), outcomes(tried, "allowed"));
    return { connected: tried.filter(({ connected }) => connected).length, all: tried.length };
  }

  async function restartAgent(node: string): Promise<void> {
    const { pid } = await agentReport(LAB, node);
    process.kill(pid, "SIGKILL");
    await eventually(() => assert.ok(!isAlive(pid)));
    await eventually(async () => {
      const report = await agentReport(LAB, node);
      assert.ok(report.ready && report.pid !== pid);
    });
  }

  for (const [renderer, mode] of Object.entries(RENDERERS)) {
    describe(`written by ${renderer}`, () => {
      before(() =>
        apply(
          `{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {nftablesMode: ${mode}}}`,
        ),
      );

      test("lets everything through where there is none", async () => {
        const { connected, all } = await assertAgreement();
        assert.equal(connected, all);
        assert.ok(all > 100);
      });

      test("is in force when apply --wait returns, on every node, as the evaluator says", async () => {
        const began = performance.now();
        await apply(POLICIES);
        const { connected, all } = await assertAgreement();
        assert.ok(connected < all && connected > 0, `${connected} of ${all} in ${performance.now() - began} ms`);
        const wide = await caracalOk(["get", "networkpolicy,tier,globalnetworkpolicy", "-A", "-o", "wide"]);
        assert.match(wide, /^bank +networkpolicy\S+vault .* 3\/3 nodes$/m);
        assert.match(wide, /security\.icmp .* 3\/3 nodes$/m);
      });

      test("counts what its rules let through and held back", async () => {
        const counters = await caracalOk(["policy", "counters"]);
        assert.match(counters, /^networkpolicy shop\/web +ingress +0 +[1-9]/m);
        assert.match(counters, /^globalnetworkpolicy security\.icmp +ingress +0 +[1-9]/m);
        assert.match(counters, /^tier default +ingress +end +[1-9]/m);
      });

      test("follows labels of pods and namespaces", async () => {
        await apply(
          WORLD.replace(
            "name: client, namespace: bank, labels: {app: client}",
            "name: client, namespace: bank, labels: {app: web}",
          ),
        );
        await apply(WORLD.replace("{team: red}", "{team: blue}"));
        await assertAgreement();
        await apply(WORLD);
        await assertAgreement();
      });

      test("stays while the agents are away, and after they are back", async () => {
        const seen = async (): Promise<string[]> => outcomes(await tryPods(), "connected");
        const before = await seen();
        const pids = await Promise.all(["node1", "node3"].map(async (node) => (await agentReport(LAB, node)).pid));
        for (const pid of pids) process.kill(pid, "SIGKILL");
        assert.deepEqual(await seen(), before);
        await eventually(async () => {
          const reports = await Promise.all(["node1", "node3"].map((node) => agentReport(LAB, node)));
          assert.ok(reports.every(({ ready, pid }) => ready && !pids.includes(pid)));
        });
        assert.deepEqual(await seen(), before);
        await assertAgreement();
      });

      test("holds for a pod from its first packet on", async () => {
        await apply(pod("bank", "vault2", 2, "vault"));
        const results = await probeResults(LAB, { protocol: "TCP", port: 80, from: undefined, to: "bank/vault2" }, 400);
        assert.ok(results.length > 0 && results.every(({ connected }) => !connected), JSON.stringify(results));
        await caracalOk(["delete", "pod", "vault2", "-n", "bank", "--wait"]);
      });

      test("is gone when delete --wait returns", async () => {
        await caracalOk(["delete", "-f", "-", "--wait"], POLICIES);
        const { connected, all } = await assertAgreement();
        assert.equal(connected, all);
      });
    });
  }

  test("moves to the other renderer whole: never both", async () => {
    const felix = (mode: string): string =>
      `{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {nftablesMode: ${mode}}}`;
    const tables = async (): Promise<string> => (await onMember(LAB, "node1", ["nft", "list", "tables"])).output;
    const rules = async (): Promise<string> => (await onMember(LAB, "node1", ["iptables-nft-save"])).output;
    await apply(felix("Disabled"));
    assert.match(await rules(), /cali-FORWARD/);
    await eventually(async () => assert.doesNotMatch(await tables(), /calico/));
    await apply(felix("Enabled"));
    assert.match(await tables(), /table ip calico\n/);
    await eventually(async () => assert.doesNotMatch(await rules(), /cali/));
    await restartAgent("node1");
    assert.match(await tables(), /table ip6 calico\n/);
  });

  test("is refused by apply --wait where it cannot be in force as it is written", async () => {
    const felix = (spec: string): string =>
      `{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: ${spec}}`;
    const policy = `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: big, namespace: shop}, spec: {
      podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}]}]}}`;
    await apply(felix("{nftablesMode: Enabled, maxIpsetSize: 2}"));
    const { code, errors } = await caracal(LAB, ["apply", "-f", "-", "--wait"], policy);
    assert.equal(code, 1);
    assert.match(errors, /not in force: node1: NetworkPolicy shop\/big: the kernel refused it: /);
    const wide = await caracalOk(["get", "networkpolicy", "-n", "shop", "-o", "wide"]);
    assert.match(wide, /2\/3 nodes \(node1: NetworkPolicy shop\/big: the kernel refused it: /);
    assert.match(await caracalOk(["node", "status"]), /node1 .*knp\/shop\/big: the kernel refused it/);
    const held = await probeResults(LAB, { protocol: "TCP", port: 80, from: undefined, to: "shop/web" }, 400);
    assert.ok(
      held.every(({ connected }) => !connected),
      "what cannot be in force drops",
    );
    // A set of networks by itself says nothing to the kernel; with the policy that looks at it, it is not in force.
    const networks = `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: many, labels: {set: many}},
      spec: {nets: [198.51.100.0/26, 198.51.100.64/26, 198.51.100.128/26]}}`;
    const looking = `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: looking}, spec: {
      selector: app == 'web', types: [Egress], egress: [{action: Allow, destination: {selector: set == 'many'}}]}}`;
    await apply(networks);
    assert.equal((await caracal(LAB, ["apply", "-f", "-", "--wait"], looking)).code, 1);
    const again = await caracal(LAB, ["apply", "-f", "-", "--wait"], networks.replace("100.128/26", "100.192/26"));
    assert.equal(again.code, 1);
    assert.match(again.errors, /not in force: node1: GlobalNetworkSet many: gnp\/looking: the kernel refused it: /);
    assert.match(
      await caracalOk(["get", "globalnetworkset", "-o", "wide"]),
      /2\/3 nodes \(node1: GlobalNetworkSet many: /,
    );
    await caracalOk(["delete", "globalnetworkpolicy", "looking", "--wait"]);
    await caracalOk(["delete", "globalnetworkset", "many", "--wait"]);
    await apply(felix("{nftablesMode: Enabled}"));
    await apply(policy);
    await assertAgreement();
    await caracalOk(["delete", "networkpolicy", "big", "-n", "shop", "--wait"]);
  });

  test("of settings that cannot be carried out, apply --wait says so, and those before stay", async () => {
    const felix = (spec: string): string =>
      `{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: ${spec}}`;
    const { code, errors } = await caracal(
      LAB,
      ["apply", "-f", "-", "--wait"],
      felix("{nftablesMode: Enabled, nftablesMarkMask: 983040}"),
    );
    assert.equal(code, 1);
    assert.match(errors, /not in force: node\d: the mark mask 0xf0000 has 4 bits, and the rules need 5/);
    await assertAgreement();
    // An agent that knows no others at its start takes Felix's own.
    await apply(POLICIES);
    await restartAgent("node1");
    const said = /node1 .*settings are not carried out, those before are in force: the mark mask 0xf0000 has 4 bits/;
    assert.match(await caracalOk(["node", "status"]), said);
    await assertAgreement();
    await caracalOk(["delete", "-f", "-", "--wait"], POLICIES);
    await apply(felix("{nftablesMode: Enabled}"));
  });

  test("keeps the host from claiming its pods' own addresses, by nf_tables", async () => {
    const { output } = await onMember(LAB, "node1", ["nft", "list", "table", "arp", "calico-arp"]);
    const status = JSON.parse(await caracalOk(["get", "pods", "-A", "-o", "json"])) as {
      items: { spec: { nodeName?: string }; status?: { podIP?: string } }[];
    };
    const own = status.items.flatMap(({ spec, status: of }) => (spec.nodeName === "node1" ? (of?.podIP ?? []) : []));
    assert.ok(own.length > 0);
    for (const address of own)
      assert.match(output, new RegExp(`"cali[0-9a-f]{11}" \\. ${address.replaceAll(".", "\\.")}\\b`));
  });

  test("is not in force where another program holds the table, and is again when that lets go", async () => {
    await apply(POLICIES);
    const wide = (): Promise<string> => caracalOk(["get", "networkpolicy", "-A", "-o", "wide"]);
    const { pid } = await agentReport(LAB, "node1");
    process.kill(pid, "SIGSTOP");
    const holder = "nft delete table ip calico && (echo 'add table ip calico { flags owner; }'; sleep 5) | nft -i";
    const holding = onMember(LAB, "node1", ["sh", "-c", holder]);
    await sleep(500);
    process.kill(pid, "SIGCONT");
    await eventually(async () => assert.match(await wide(), /2\/3 nodes \(node1: Cannot /), 4000);
    assert.match(await caracalOk(["node", "status"]), /node1 .*policy is not in force: Cannot /);
    assert.equal((await holding).code, 0);
    await eventually(async () => assert.doesNotMatch(await wide(), /2\/3 nodes/), 5000);
    await assertAgreement();
    await caracalOk(["delete", "-f", "-", "--wait"], POLICIES);
  });

  test("that is only a draft is never in force, and is shown so", async () => {
    const draft = `{apiVersion: projectcalico.org/v3, kind: StagedGlobalNetworkPolicy, metadata: {name: draft}, spec: {
      selector: all(), types: [Ingress, Egress]}}`;
    await apply(draft);
    assert.match(await caracalOk(["get", "stagedglobalnetworkpolicy", "-o", "wide"]), /^draft .*never: a draft$/m);
    const { connected, all } = await assertAgreement();
    assert.equal(connected, all);
    await caracalOk(["delete", "-f", "-", "--wait"], draft);
  });

  test("of a policy whose node says it, comes back when others take the table away", async () => {
    await apply(POLICIES);
    assert.equal((await onMember(LAB, "node1", ["nft", "delete", "table", "ip", "calico"])).code, 0);
    await eventually(
      async () => assert.match((await onMember(LAB, "node1", ["nft", "list", "tables"])).output, /ip calico/),
      2000,
    );
    await assertAgreement();
    await caracalOk(["delete", "-f", "-", "--wait"], POLICIES);
  });
});
