import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import fc from "fast-check";
import type { Written } from "../cli/wait.io.ts";
import { content } from "../dataplane/nftListing.testing.ts";
import { inside } from "../netlink/namespace.testing.ts";
import { openAttacker, type Attacker, type Stream } from "./attacker.testing.ts";
import { memberNamespace, podNamespace } from "./files.ts";
import { agentReport, eventually, onMember } from "./lab.testing.ts";
import { policyLab, type PolicyLab } from "./policyLab.testing.ts";
import { anyCluster, keyOf, type Manifest } from "./policyObjects.testing.ts";
import { openTalk } from "./talk.testing.ts";

/**
 * Agents are killed in the midst of changes, and others take the rules away. `CARACAL_POLICY_CHANGES` changes of policy and
 * labels (60 with nf_tables and 20 with iptables if absent), `CARACAL_POLICY_SEED` repeats a run.
 */

const LAB = "test-policy-faults";
const DEFINITION = {
  kind: "Lab",
  segments: [{ subnet: "192.0.2.0/24", subnet6: "2001:db8:0:1::/64", nodes: ["node1", "node2"] }],
  environment: { CARACAL_CUT_FORBIDDEN_FLOWS: "true" },
};
const SEED = Number(process.env["CARACAL_POLICY_SEED"] ?? randomInt(2 ** 31));
const CHANGES = process.env["CARACAL_POLICY_CHANGES"];
const RENDERERS = [
  { renderer: "nf_tables", mode: "Enabled", changes: Number(CHANGES ?? 60) },
  { renderer: "iptables", mode: "Disabled", changes: Number(CHANGES ?? 20) },
] as const;
/** About one change in so many is one in which an agent is killed. */
const KILL_EVERY = 20;

const withMode = (object: Manifest, nftablesMode: string): Manifest =>
  object.kind === "FelixConfiguration" ? { ...object, spec: { ...(object["spec"] as object), nftablesMode } } : object;
const namespaceOf = (member: string): string => memberNamespace(LAB, member).slice("/run/netns/".length);

/** What is ours in a node's kernel, in an order of its own and without what was counted. */
const LISTINGS: Readonly<Record<string, (node: string) => string[]>> = {
  Enabled: (node) => content(namespaceOf(node)).filter((block) => /^(ip6?|arp) calico/.test(block)),
  Disabled(node) {
    const netns = namespaceOf(node);
    const saved = ["iptables-nft-save", "ip6tables-nft-save"].flatMap((tool) => {
      let table = "";
      return inside(netns, tool)
        .split("\n")
        .flatMap((line) => {
          if (line.startsWith("*")) table = line;
          const isChain = line.startsWith(":cali-");
          const text = isChain ? line.slice(0, line.indexOf(" ")) : line;
          return isChain || line.startsWith("-A") ? [`${tool} ${table} ${text}`] : [];
        });
    });
    const chainOf = (line: string): string => line.split(" ").slice(0, 4).join(" ");
    // Chains in any order, the rules of each in their own.
    const rules = saved.toSorted((a, b) => (chainOf(a) < chainOf(b) ? -1 : chainOf(a) > chainOf(b) ? 1 : 0));
    const sets = inside(netns, "ipset", "save").split("\n");
    const ours = sets.filter((line) => line.includes(" cali")).map((line) => line.replace(/ initval \S+/, ""));
    return [...rules, ...ours.toSorted()];
  },
};

describe(`faults (seed ${SEED})`, () => {
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

  /** Waits for those that are still being started again after the last time. */
  async function kill(nodes: readonly string[]): Promise<void> {
    for (const node of nodes) process.kill((await eventually(() => agentReport(LAB, node))).pid, "SIGKILL");
  }
  async function allReady(): Promise<void> {
    await eventually(async () => {
      for (const node of lab.nodes) assert.ok((await agentReport(LAB, node)).ready, node);
    }, 60_000);
  }
  /** What the kernels of new agents have that find nothing there. */
  async function afreshOf(mode: string): Promise<string[][]> {
    await kill(lab.nodes);
    for (const node of lab.nodes) {
      if (mode === "Enabled") {
        inside(
          namespaceOf(node),
          "sh",
          "-c",
          "nft delete table ip calico; nft delete table ip6 calico; nft delete table arp calico-arp || true",
        );
      } else {
        for (const tool of ["iptables-nft", "ip6tables-nft"]) {
          for (const table of ["raw", "mangle", "nat", "filter"]) {
            inside(namespaceOf(node), "sh", "-c", `${tool} -w -t ${table} -F && ${tool} -w -t ${table} -X`);
          }
        }
        inside(namespaceOf(node), "sh", "-c", "sleep 0.1; ipset destroy || { sleep 0.5; ipset destroy; }");
      }
    }
    await allReady();
    return await atRest(mode);
  }
  /** What goes, goes a little later: sets that nobody looks at any more do. */
  async function atRest(mode: string): Promise<string[][]> {
    for (let before = ""; ;) {
      const rules = lab.nodes.map(LISTINGS[mode]!);
      const now = JSON.stringify(rules);
      if (now === before) return rules;
      before = now;
      await sleep(mode === "Enabled" ? 100 : 700);
    }
  }

  for (const { renderer, mode, changes } of RENDERERS) {
    test(`killed at random points of ${changes} changes, agents leave what a fresh start makes, by ${renderer}`, async (t) => {
      const clusters = fc.sample(anyCluster, { seed: SEED, numRuns: 2 + Math.ceil(changes / 4) });
      const random = fc.sample(fc.infiniteStream(fc.nat({ max: 999 })), { seed: SEED, numRuns: 1 })[0]!;
      const dice = (sides: number): number => random.next().value! % sides;
      const isOf = (kinds: RegExp) => (object: Manifest) => kinds.test(object.kind);
      const state = new Map<string, Manifest>();
      const first = clusters[0]!.map((object) => withMode(object, mode));
      await lab.hold(first);
      for (const object of first) state.set(keyOf(object), object);
      // What may change without its pod being another: policies, sets, tiers, and labels.
      const pool = clusters
        .slice(1)
        .flatMap((cluster) =>
          cluster.filter(isOf(/Policy$|Set$|^Tier$|^Namespace$|^ServiceAccount$|^EndpointSlice$|^Pod$/)),
        );
      const killsAt = new Set(Array.from({ length: Math.ceil(changes / KILL_EVERY) }, () => dice(changes)));
      let kills = 0;
      let written: Written[] = [];
      for (let change = 0; change < changes; change += 1) {
        const object = pool[(dice(1000) * 1000 + dice(1000)) % pool.length]!;
        const present = state.get(keyOf(object));
        const isPolicy = object.kind.endsWith("Policy");
        if (isPolicy && present !== undefined && dice(3) === 0) {
          await lab.remove([present], false);
          state.delete(keyOf(object));
        } else {
          // A pod that is there keeps what it is, and has the other's labels.
          const labels = object.metadata.labels ?? {};
          const next =
            object.kind === "Pod" && present !== undefined
              ? { ...present, metadata: { ...present.metadata, labels } }
              : object;
          written = [...written, await lab.write(next)];
          state.set(keyOf(object), next);
        }
        if (killsAt.has(change)) {
          // Somewhere in what this change, or a start before, is being made into.
          await sleep(dice(60));
          await kill([lab.nodes[(kills += 1) % lab.nodes.length]!]);
        }
      }
      await allReady();
      await lab.inForce(written);
      const survived = await atRest(mode);
      const afresh = await afreshOf(mode);
      t.diagnostic(
        `seed ${SEED}, ${renderer}: ${changes} changes, ${kills} kills, ${survived.flat().length} blocks and rules`,
      );
      assert.deepEqual(survived, afresh);
      assert.ok(survived.every((blocks) => blocks.length > 20));
    });
  }

  const IPS = {
    victim: ["10.244.1.1", "fd10:244::1:1"],
    near: ["10.244.1.2", "fd10:244::1:2"],
    far: ["10.244.2.2", "fd10:244::2:2"],
  } as const;
  const pod = (name: keyof typeof IPS, nodeName: string): Manifest => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name,
      namespace: "default",
      labels: { app: name },
      annotations: { "cni.projectcalico.org/ipAddrs": JSON.stringify(IPS[name]) },
    },
    spec: { nodeName, containers: [{ name: "c", image: "none" }] },
  });
  const calico = (kind: string, name: string, spec: object): Manifest => ({
    apiVersion: "projectcalico.org/v3",
    kind,
    metadata: { name },
    spec,
  });
  const PODS = [pod("victim", "node1"), pod("near", "node1"), pod("far", "node2")];
  const rule = (ports: readonly number[]) => ({
    selector: "app == 'victim'",
    types: ["Ingress"],
    ingress: [
      { action: "Allow", protocol: "TCP", source: { selector: "app in {'near', 'far'}" }, destination: { ports } },
    ],
  });
  const streams = ([0, 1] as const).flatMap((at) =>
    (["near", "far"] as const).flatMap((from) =>
      [2, 4].map((port): Stream => ({
        name: `${from} ${port}`,
        netns: podNamespace(LAB, "default", from),
        source: IPS[from][at],
        destination: IPS.victim[at],
        port,
      })),
    ),
  );

  /** Commands on the victim's node. */
  const VANDALS: readonly { readonly name: string; readonly mode?: string; readonly command: string }[] = [
    { name: "everything flushed", command: "nft flush ruleset" },
    { name: "a table deleted", command: "nft delete table ip calico" },
    { name: "a table's rules flushed", command: "nft flush table ip calico" },
    { name: "the hook's rules flushed", command: "nft flush chain ip6 calico filter-FORWARD" },
    {
      name: "the victim's last rule deleted",
      command:
        "c=$(nft list chains ip | grep -o 'filter-cali-tw-[^ ]*' | head -1); h=$(nft -a list chain ip calico $c | grep -o 'handle [0-9]*' | tail -1); nft delete rule ip calico $c $h",
    },
    {
      name: "an address set flushed",
      command: "for s in $(nft list sets ip | grep -o 'cali40s[^ ]*'); do nft flush set ip calico $s; done",
    },
    { name: "a table of iptables flushed", mode: "Disabled", command: "iptables-nft -F" },
    { name: "a chain of iptables flushed", mode: "Disabled", command: "ip6tables-nft -F cali-FORWARD" },
    { name: "everything flushed beneath iptables", mode: "Disabled", command: "nft flush ruleset" },
  ];
  for (const { name, mode = "Enabled", command } of VANDALS) {
    // The tables of nf_tables are the agent's own, and the kernel lets nobody else change them.
    const isOwned = mode === "Enabled";
    const outcome = isOwned
      ? "nothing comes of it"
      : "put right within a second, and what got through meanwhile is counted";
    test(`${name}: ${outcome}`, async (t) => {
      const other = mode === "Enabled" ? "Disabled" : "Enabled";
      const settings = calico("FelixConfiguration", "default", { nftablesMode: mode });
      await lab.hold([...PODS, calico("GlobalNetworkPolicy", "p", rule([2])), settings]);
      await eventually(() => assert.equal(LISTINGS[other]!("node1").length, 0, "the other renderer has gone"));
      lab.forgetConnections();
      const rules = LISTINGS[mode]!;
      const before = rules("node1");
      await attacker.start(streams);
      await sleep(100); // what is written just now is not taken for others' doing
      const began = performance.now();
      const { code, errors } = await onMember(LAB, "node1", ["sh", "-c", command]);
      if (!isOwned) assert.equal(code, 0, errors);
      else if (code !== 0) assert.match(errors, /Operation not permitted/);
      await eventually(() => assert.deepEqual(rules("node1"), before), isOwned ? 0 : 1000);
      const took = performance.now() - began;
      const reports = await attacker.stop();
      const [allowed, forbidden] = [2, 4].map((port) => reports.filter((report) => report.name.endsWith(` ${port}`)));
      const leaked = forbidden!.map(({ answered }) => answered);
      const lost = allowed!.map(
        ({ sent, answered, longestSilence }) => `${sent - answered} (${longestSilence} in a row)`,
      );
      t.diagnostic(
        `${name}: right again ${took.toFixed(0)} ms after the command was begun; of ${forbidden![0]!.sent} forbidden attempts in each of ${streams.length / 2} streams ${leaked.join(", ")} got through, of the allowed ${lost.join(", ")} did not`,
      );
      assert.ok(Math.max(...leaked) < (isOwned ? 1 : 300), "what got through is a matter of milliseconds");
      if (isOwned) assert.deepEqual(new Set(lost), new Set(["0 (0 in a row)"]));
    });
  }

  test("an established connection ends when policy forbids it, where that is asked for", async () => {
    await lab.hold([
      ...PODS,
      calico("GlobalNetworkPolicy", "p", rule([80, 2])),
      calico("FelixConfiguration", "default", {}),
    ]);
    // Of the attempts before this there are thousands: the more there are, the less often they are looked through.
    lab.forgetConnections();
    using talk = openTalk(podNamespace(LAB, "default", "far"), IPS.victim[0], 80);
    assert.ok(await talk.says("hello"));
    await lab.put([calico("GlobalNetworkPolicy", "p", rule([80, 3]))]);
    assert.ok(await talk.says("still allowed"));
    await lab.put([calico("GlobalNetworkPolicy", "p", rule([2]))]);
    await eventually(async () => assert.equal(await talk.says("still there?"), false), 10_000);
  });
});
