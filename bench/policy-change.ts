import { execFileSync } from "node:child_process";
import { inNamespace } from "../src/netlink/namespace.io.ts";
import { openNamespaces, startWorker, type Worker } from "./policy-processes.ts";
import type { Scene } from "./policy-scenes.ts";
import { type BenchResult, median, quantile } from "./table.ts";

/**
 * One change, from the object that a watch brings to the kernel's acknowledgement, through all of an agent's policy; and
 * what the tools take for the kernel's part of it alone, in namespaces with the same rules.
 */
const SCENE: Scene = { of: "clients", pods: 100, policies: 500, members: 10_000 };
const ROUNDS = 15;
/** Of ours, in each round, for one of the tools'. */
const REPEATS = 20;
const SPARE = "10.99.0.0";

type Took = Record<"ours" | "nft" | "oursIptables" | "tool", number[]>;
const empty = (): Took => ({ ours: [], nft: [], oursIptables: [], tool: [] });

export async function benchChange(): Promise<BenchResult> {
  const namespaces = openNamespaces("change");
  const workers: Worker[] = [];
  const start = async (netns: string, renderer: "nft" | "iptables"): Promise<Worker> => {
    const worker = await startWorker(netns, renderer, SCENE);
    workers.push(worker);
    return worker;
  };
  try {
    const [nft, iptables] = [namespaces.make("nft"), namespaces.make("iptables")];
    const [nftTools, iptablesTools] = [namespaces.make("nft-tools"), namespaces.make("iptables-tools")];
    const ours = await start(nft, "nft");
    const oursIptables = await start(iptables, "iptables");
    const tools = { nft: copyNft(nft, nftTools), ...copyIptables(iptables, iptablesTools) };
    const joins = empty();
    const policies = empty();
    for (let round = 0; round < ROUNDS; round += 1) {
      // oxlint-disable no-await-in-loop -- in turns, so that all meet the same noise
      joins.ours.push(...((await ours.ask({ do: "join", count: REPEATS })) as number[]));
      joins.nft.push(time(() => tools.nft.join(round)));
      joins.oursIptables.push(...((await oursIptables.ask({ do: "join", count: 1 })) as number[]));
      joins.tool.push(time(() => tools.ipset.join(round)));
      policies.ours.push(...((await ours.ask({ do: "policy", count: REPEATS })) as number[]));
      policies.nft.push(time(() => tools.nft.policy(round)));
      policies.oursIptables.push(...((await oursIptables.ask({ do: "policy", count: 1 })) as number[]));
      policies.tool.push(time(() => tools.iptables.policy(round)));
      // oxlint-enable no-await-in-loop
    }
    return result(joins, policies);
  } finally {
    await Promise.all(workers.map((worker) => worker.close()));
    namespaces.close();
  }
}

function result(joins: Took, policies: Took): BenchResult {
  const row = (change: string, took: Took): Record<string, string> => ({
    change,
    "ours, ms": median(took.ours).toFixed(3),
    "p99, ms": quantile(took.ours, 0.99).toFixed(2),
    "`nft -f`, ms": median(took.nft).toFixed(1),
    "times as fast": (median(took.nft) / median(took.ours)).toFixed(0),
    "ours with iptables, ms": median(took.oursIptables).toFixed(1),
    "`ipset`, `iptables-restore`, ms": median(took.tool).toFixed(1),
  });
  const [own, theirs] = [median(joins.ours), median(joins.nft)];
  return {
    tables: [
      {
        title: "One change, with a set of 10,000 members, 500 policies and 100 pods",
        how:
          `From the object to the kernel's acknowledgement, through feed, compiler, builder and driver of an agent, both ` +
          `address families. The tools make the kernel's part of it, with the same rules in the kernel. Median of ` +
          `${ROUNDS} rounds in turns, ${REPEATS} of ours to one of the tools'.`,
        rows: [row("one pod joins the set", joins), row("a policy lets in another port", policies)],
      },
    ],
    bars: [
      {
        what: "(a) a pod joins a set of 10,000 → kernel",
        bar: "1 ms median; aim 0.2 ms",
        measured: `${own.toFixed(3)} ms`,
        met: own <= 1,
      },
      {
        what: "(a) the same, against `nft -f`",
        bar: "a tenth",
        measured: `1/${(theirs / own).toFixed(0)}`,
        met: own <= theirs / 10,
      },
    ],
  };
}

const run = (netns: string, file: string, args: readonly string[], input = ""): string =>
  inNamespace(netns, () => execFileSync(file, args, { input, encoding: "utf8", maxBuffer: 1 << 28 }));

/** Copies the rules, and returns what changes the copy. */
function copyNft(from: string, to: string) {
  // A table that is owned goes with the tool that makes it.
  const text = run(from, "nft", ["list", "ruleset"]).replaceAll(/^\s*flags owner.*\n/gm, "");
  run(to, "nft", ["-f", "-"], text);
  const set = /ip saddr @(cali40s-\S+)/.exec(text)?.[1] ?? "";
  return {
    join: (round: number) => run(to, "nft", ["-f", "-"], `add element ip calico ${set} { ${spare(round)} }\n`),
    policy(round: number) {
      const chain = `filter-cali-pi-knp/ns-0/policy-${round}`;
      const rule = `tcp dport ${1000 + round} ip saddr @${set} counter meta mark set mark or 0x10000 return`;
      run(to, "nft", ["-f", "-"], `flush chain ip calico ${chain}\nadd rule ip calico ${chain} ${rule}\n`);
    },
  };
}

function copyIptables(from: string, to: string) {
  const sets = run(from, "ipset", ["save"]);
  run(to, "ipset", ["restore"], sets);
  // The form of iptables that the agent has chosen for itself.
  const backends = ["legacy", "nft"].map((name) => ({ name, rules: run(from, `iptables-${name}-save`, []) }));
  const { name, rules } = backends.find((each) => each.rules.includes(":cali-")) ?? backends[0]!;
  const restore = `iptables-${name}-restore`;
  run(to, restore, [], rules);
  const set = /--match-set (cali40s:\S+) src/.exec(rules)?.[1] ?? "";
  const chains = [...rules.matchAll(/^:(cali-pi-\S+)/gm)].map(([, name]) => name ?? "");
  return {
    ipset: { join: (round: number) => run(to, "ipset", ["restore"], `add ${set} ${spare(round)}\n`) },
    iptables: {
      policy(round: number) {
        const rule = `-p tcp -m tcp --dport ${1000 + round} -m set --match-set ${set} src -j MARK --set-xmark 0x10000/0x10000`;
        const text = `*filter\n:${chains[round]} - [0:0]\n-A ${chains[round]} ${rule}\nCOMMIT\n`;
        run(to, restore, ["--noflush", "-w", "10"], text);
      },
    },
  };
}

const spare = (round: number): string => SPARE.replace(/0$/, String(round));

function time(work: () => void): number {
  const began = performance.now();
  work();
  return performance.now() - began;
}
