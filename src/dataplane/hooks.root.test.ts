import assert from "node:assert/strict";
import { describe, test, type TestContext } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Family } from "../ip/address.ts";
import { compiler } from "../policy/compile.ts";
import type { Packet } from "../policy/match.ts";
import { icmpOf, PROTOCOL, type Update } from "../policy/model.ts";
import { updatesOf } from "../policy/world.testing.ts";
import { forwarder, packet, WORLD, type Forwarder } from "./forwarder.testing.ts";
import { FAMILIES } from "./iptables.testing.ts";
import { openIptablesKernelRules } from "./iptablesRules.io.ts";
import { openNftKernelRules } from "./nftRules.io.ts";
import type { KernelRules } from "./ruleset.ts";
import { rulesetBuilder } from "./rulesetBuilder.ts";
import { factsOf, type GivenFacts } from "./ruleWorld.testing.ts";

/**
 * Hooks come and go with what needs them, while packets pass: none gets through that policy forbids, or that has another's
 * address, and none is lost that policy allows.
 */

const DRIVERS: readonly { name: string; open: (family: Family, namespace: string) => KernelRules }[] = [
  { name: "nf_tables", open: (family, namespace) => openNftKernelRules({ family, namespace }) },
  {
    name: "iptables-legacy",
    open: (family, namespace) => openIptablesKernelRules({ family, namespace, backend: "legacy" }),
  },
];
const TIMES = Number(process.env["CARACAL_HOOK_CHANGES"] ?? 6);

const object = (kind: string, name: string, spec: string): Update[] =>
  updatesOf(
    `{apiVersion: projectcalico.org/v3, kind: ${kind}, metadata: {name: ${name}, labels: {hep: "yes"}}, spec: ${spec}}`,
  );
const gone = (updates: readonly Update[]): Update[] => updates.map(({ kind, id }) => ({ kind, id }) as Update);

/** `pod1` may send to port 1, and take nothing; `pod2` has no policy. */
const WORKLOADS: readonly Update[] = [
  ...updatesOf("{apiVersion: v1, kind: Namespace, metadata: {name: a}}"),
  ...(["pod1", "pod2"] as const).flatMap((name, at) => pod(name, `cali${at + 1}`)),
  ...object(
    "GlobalNetworkPolicy",
    "pod1",
    `{selector: app == 'pod1', types: [Ingress, Egress],
      egress: [{action: Allow, protocol: UDP, destination: {ports: [1]}}]}`,
  ),
];

function pod(name: "pod1" | "pod2", interfaceName: string, annotations = "{}"): Update[] {
  const ips = FAMILIES.map((family) => `{ip: "${WORLD[family][name]}"}`).join();
  const made = updatesOf(
    `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: a, labels: {app: ${name}}, annotations: ${annotations}},
      spec: {nodeName: node1, containers: [{name: c}]}, status: {podIPs: [${ips}]}}`,
  );
  return made.map((update) =>
    update.kind === "endpoint" && update.value?.kind === "workload"
      ? { ...update, value: { ...update.value, interfaceName } }
      : update,
  );
}

const early = (stage: string): string =>
  `{selector: has(hep), ${stage}: true, applyOnForward: true, types: [Ingress],
    ingress: [{action: Allow, protocol: UDP, destination: {ports: [77]}}]}`;
const HOST = object("HostEndpoint", "eth0", "{node: node1, interfaceName: eth0}");
const floating = (family: Family): Update[] =>
  pod("pod2", "cali2", `{cni.projectcalico.org/floatingIPs: '["${WORLD[family].other}"]'}`);
const POOL: GivenFacts = {
  settings: { floatingIPs: "Enabled" },
  pools: FAMILIES.map((family) => ({
    cidr: family === 4 ? "10.65.0.0/16" : "fd00:65::/64",
    natOutgoing: true,
    disabled: false,
    isLoadBalancer: false,
  })),
};
const NO_POOL: GivenFacts = { settings: { floatingIPs: "Enabled" } };
const TUNNEL = (family: Family): GivenFacts => ({
  ...NO_POOL,
  tunnels: [{ kind: "vxlan", family, device: "vxlan.calico", addresses: [] }],
});

interface Change {
  readonly updates?: readonly Update[];
  readonly facts?: GivenFacts;
}

const UNTRACKED = object("GlobalNetworkPolicy", "untracked", early("doNotTrack"));
const PRE_DNAT = object("GlobalNetworkPolicy", "pre", early("preDNAT"));

interface Scene {
  readonly name: string;
  readonly isHostThere: boolean;
  /** Each comes and goes again. */
  readonly changes: (family: Family) => Change[];
}
const SCENES: readonly Scene[] = [
  {
    name: "host endpoints, pools, floating addresses and tunnels",
    isHostThere: false,
    changes: (family) => [
      { updates: HOST },
      { updates: UNTRACKED },
      { updates: PRE_DNAT },
      { updates: gone(UNTRACKED) },
      { updates: gone(HOST) },
      { updates: gone(PRE_DNAT) },
      { facts: POOL },
      { updates: [...HOST, ...UNTRACKED, ...PRE_DNAT] },
      { facts: NO_POOL },
      { updates: floating(family) },
      { updates: gone([...HOST, ...UNTRACKED, ...PRE_DNAT]) },
      { updates: pod("pod2", "cali2") },
      { facts: TUNNEL(family) },
      { facts: NO_POOL },
    ],
  },
  {
    name: "early stages of a host endpoint that lets nothing in",
    isHostThere: true,
    changes: (family) => [
      { updates: UNTRACKED },
      { updates: PRE_DNAT },
      { updates: gone(UNTRACKED) },
      { facts: POOL },
      { updates: gone(PRE_DNAT) },
      { updates: [...UNTRACKED, ...PRE_DNAT] },
      { facts: TUNNEL(family) },
      { updates: gone([...UNTRACKED, ...PRE_DNAT]) },
      { facts: NO_POOL },
    ],
  },
];

/** By the port that a packet was sent to; an ICMP error tells that the node itself took one. */
function countLeft(node: Forwarder, counts: Map<string, number>): void {
  for (const by of ["cali1", "eth0"] as const) {
    for (const { destinationPort, protocol, icmp } of node.left(by)) {
      const isError = icmp !== undefined && (protocol === PROTOCOL.ICMP ? icmp.type === 3 : icmp.type === 1);
      if (protocol !== PROTOCOL.UDP && !isError) continue;
      const key = isError ? `${by} unreachable` : `${by} ${destinationPort}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
}

interface RuledNode extends Disposable {
  readonly node: Forwarder;
  readonly apply: (change: Change) => Promise<void>;
}

function ruledNode(family: Family, open: (typeof DRIVERS)[number]["open"]): RuledNode {
  const node = forwarder();
  const rules = open(family, node.path);
  const builder = rulesetBuilder([family]);
  const policies = compiler("node1");
  policies.setInterfaces([{ name: "eth0", addresses: [WORLD[family].node] }]);
  return {
    node,
    apply: async ({ updates = [], facts }) => {
      for (const update of updates) policies.update(update);
      if (facts !== undefined) builder.setFacts(factsOf(facts));
      builder.update(policies.take());
      for (const change of builder.take()) assert.deepEqual(await rules.apply(change), []);
    },
    [Symbol.dispose]() {
      rules.close();
      node[Symbol.dispose]();
    },
  };
}

async function passesBy(
  t: TestContext,
  { changes, isHostThere }: Scene,
  family: Family,
  { node, apply }: RuledNode,
): Promise<void> {
  const { pod1, pod2, far, node: own } = WORLD[family];
  const udp = (from: string, to: string, destinationPort: number): Packet =>
    packet(family, from, to, PROTOCOL.UDP, { sourcePort: 1000 + destinationPort, destinationPort });
  await apply({ updates: [...WORKLOADS, ...(isHostThere ? HOST : [])], facts: NO_POOL });
  const counts = new Map<string, number>();
  const flood = node.flood([
    { by: "cali1", packet: udp(pod1, far, 1) },
    { by: "cali1", packet: udp(pod1, far, 2) },
    { by: "cali1", packet: udp(pod2, far, 3) },
    { by: "eth0", packet: udp(far, pod1, 4) },
    ...(isHostThere ? [{ by: "eth0", packet: udp(far, own, 5) } as const] : []),
  ]);
  for (let time = 0; time < TIMES; time += 1) {
    for (const change of changes(family)) {
      await apply(change);
      await sleep(2);
      countLeft(node, counts);
    }
  }
  const rounds = await flood.stop();
  await sleep(20);
  countLeft(node, counts);
  const changed = TIMES * changes(family).length;
  t.diagnostic(`${rounds} packets of each kind during ${changed} changes`);
  assert.ok(rounds > changed, `only ${rounds} rounds`);
  assert.deepEqual(Object.fromEntries(counts), { "eth0 1": rounds });
  if (!isHostThere) return;
  // What was looked for can be seen.
  await apply({ updates: gone(HOST) });
  node.send("eth0", udp(far, own, 5));
  await sleep(20);
  countLeft(node, counts);
  assert.equal(counts.get("eth0 unreachable"), 1);
}

/** Whether the node answers, in one conversation. */
async function echoes(node: Forwarder, family: Family): Promise<boolean> {
  const [request, reply] = family === 4 ? [8, 0] : [128, 129];
  const { far, node: own } = WORLD[family];
  node.send("eth0", packet(family, far, own, icmpOf(family), { icmp: { type: request, code: 0 } }));
  await sleep(20);
  return node.left("eth0").some(({ icmp }) => icmp?.type === reply);
}

for (const { name, open } of DRIVERS) {
  for (const family of FAMILIES) {
    describe(`hooks come and go, IPv${family}, ${name}`, () => {
      for (const scene of SCENES) {
        test(`nothing slips through: ${scene.name}`, async (t) => {
          using ruled = ruledNode(family, open);
          await passesBy(t, scene, family, ruled);
        });
      }

      test("a conversation that was there before the first host endpoint goes on, and no other begins", async () => {
        using ruled = ruledNode(family, open);
        const { node, apply } = ruled;
        await apply({ facts: NO_POOL });
        assert.ok(await echoes(node, family));
        await apply({ updates: HOST });
        assert.ok(await echoes(node, family));
        using later = ruledNode(family, open);
        await later.apply({ updates: HOST, facts: NO_POOL });
        assert.ok(!(await echoes(later.node, family)));
      });
    });
  }
}
