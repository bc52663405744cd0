import { execFileSync } from "node:child_process";
import { openNftKernelRules } from "../src/dataplane/nftRules.io.ts";
import { type KernelRules, type RuleAction, type RuleChain, type RulesetChange } from "../src/dataplane/ruleset.ts";
import type { SetChange } from "../src/policy/sets.ts";
import { createNamespace, deleteNamespace } from "../src/netlink/namespace.io.ts";
import { type BenchTable, formatTable, median, quantile } from "./table.ts";

/** The driver of nf_tables alone: one change to a node's rules beside the tools' way, and a start with many of them. */

const ROUNDS = 11;
/** Of ours, in each round, for one of the tools'. */
const REPEATS = 20;
const MEMBERS = 10_000;
const SMALL = { policies: 500, pods: 100, jumps: 5, members: MEMBERS };
const LARGE = { policies: 10_000, pods: 200, jumps: 50, members: 250_000 };
const SETS = 100;

interface Size {
  readonly policies: number;
  readonly pods: number;
  /** Policies that a pod has. */
  readonly jumps: number;
  /** In all sets together: half of them in the first. */
  readonly members: number;
}

const address = (number: number): string => `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`;
const setMark: RuleAction = { do: "mark", value: 0x10000, mask: 0x10000 };

function policy(number: number): RuleChain {
  return {
    layer: "filter",
    name: `cali-pi-knp/default/policy${number}`,
    origin: `knp/default/policy${number}`,
    rules: [0, 1, 2].map((index) => ({
      matches: [
        { on: "protocol", protocols: [6] },
        { on: "set", side: "source", set: `s:set${(number + index) % SETS}` },
        { on: "ports", side: "destination", ranges: [{ first: 80 + index, last: 80 + index }], sets: [] },
      ],
      actions: [setMark],
      counted: { of: `knp/default/policy${number}`, direction: "ingress", index },
    })),
  };
}

function pod(number: number, { policies, jumps }: Size): RuleChain {
  const own = Array.from({ length: jumps }, (_, at) => policy((number * jumps + at) % policies).name);
  return {
    layer: "filter",
    name: `cali-tw-cali${number}`,
    origin: `pod ${number}`,
    rules: [
      ...own.flatMap((chain): RuleChain["rules"] => [
        { matches: [{ on: "mark", value: 0, mask: 0x20000 }], actions: [{ do: "jump", chain }] },
        { matches: [{ on: "mark", value: 0x10000, mask: 0x10000 }], actions: [{ do: "return" }] },
      ]),
      { matches: [], actions: [{ do: "drop" }], counted: { of: "profiles", direction: "ingress" } },
    ],
  };
}

function addressSet(number: number, members: number): SetChange {
  const size = Math.floor(number === 0 ? members / 2 : members / 2 / (SETS - 1));
  const added = Array.from({ length: size }, (_, at) => address(at + number * 7));
  return { id: `s:set${number}`, kind: "net", state: "new", added, removed: [] };
}

function node(size: Size): RulesetChange {
  const chains = [
    ...Array.from({ length: size.policies }, (_, at) => policy(at)),
    ...Array.from({ length: size.pods }, (_, at) => pod(at, size)),
    dispatchChain,
  ];
  const entries = Array.from({ length: size.pods }, (_, at): [string, string] => [`cali${at}`, `cali-tw-cali${at}`]);
  const map = { layer: "filter", name: dispatchChain.name, by: "out", entries: new Map(entries) } as const;
  return {
    family: 4,
    chains: new Map(chains.map((chain) => [`filter/${chain.name}`, chain])),
    maps: new Map([[`filter/${map.name}`, map]]),
    hooks: [
      { layer: "filter", hook: "FORWARD", place: "first", rule: { matches: [], actions: [jumpTo(dispatchChain)] } },
    ],
    sets: Array.from({ length: SETS }, (_, at) => addressSet(at, size.members)),
  };
}

const jumpTo = ({ name }: RuleChain): RuleAction => ({ do: "jump", chain: name });
const dispatchChain: RuleChain = {
  layer: "filter",
  name: "cali-to-wl-dispatch",
  origin: "hooks",
  rules: [
    { matches: [], actions: [{ do: "dispatch", map: "cali-to-wl-dispatch" }] },
    { matches: [], actions: [{ do: "drop" }] },
  ],
};

const nothing: RulesetChange = { family: 4, chains: new Map(), maps: new Map(), sets: [] };
const joins = (member: string): RulesetChange => ({
  ...nothing,
  sets: [{ id: "s:set0", kind: "net", state: "changed", added: [member], removed: [] }],
});
const changes = (chain: RuleChain): RulesetChange => ({
  ...nothing,
  chains: new Map([[`filter/${chain.name}`, chain]]),
});

async function inNode<Result>(work: (namespace: string, open: () => KernelRules) => Promise<Result>): Promise<Result> {
  const name = `caracal-bench-${process.pid}`;
  const path = `/run/netns/${name}`;
  createNamespace(path);
  const opened: KernelRules[] = [];
  try {
    return await work(name, () => {
      const rules = openNftKernelRules({ family: 4, namespace: path });
      opened.push(rules);
      return rules;
    });
  } finally {
    for (const rules of opened) rules.close();
    deleteNamespace(path);
  }
}

/** One change to the rules of a node: the driver's way, and those of the tools in the same namespace. */
export function benchNftChange(size: Size = SMALL): Promise<BenchTable> {
  return inNode(async (namespace, open) => {
    const rules = open();
    await rules.apply(node({ ...size, members: 2 * size.members }));
    const run = (input: string, ...command: string[]): void =>
      void execFileSync("ip", ["netns", "exec", namespace, ...command], { input: `${input}\n` });
    run(
      ["create s hash:net", ...Array.from({ length: MEMBERS }, (_, at) => `add s ${address(at)}`)].join("\n"),
      "ipset",
      "restore",
    );
    const took = { joins: [] as number[], policy: [] as number[], nft: [] as number[], ipset: [] as number[] };
    let next = 1 << 22;
    for (let round = 0; round < ROUNDS; round += 1) {
      // oxlint-disable no-await-in-loop -- in turns, so that all meet the same noise
      for (let repeat = 0; repeat < REPEATS; repeat += 1) {
        const join = joins(address((next += 1)));
        took.joins.push(await time(() => rules.apply(join)));
        const change = changes({ ...policy(repeat), rules: policy(round).rules });
        took.policy.push(await time(() => rules.apply(change)));
      }
      took.nft.push(
        await time(() => run(`add element ip calico cali40s-set0 { ${address((next += 1))} }`, "nft", "-f", "-")),
      );
      took.ipset.push(await time(() => run(`add s ${address((next += 1))}`, "ipset", "restore")));
      // oxlint-enable no-await-in-loop
    }
    const row = (change: string, all: readonly number[]): Record<string, string> => ({
      change,
      "median, µs": (median(all) * 1000).toFixed(0),
      "p99, µs": (quantile(all, 0.99) * 1000).toFixed(0),
    });
    return {
      title: `One change, with ${size.policies} policies and ${size.pods} pods`,
      how: `${ROUNDS} rounds in turns, ${REPEATS} of ours to one of the tools'.`,
      rows: [
        row("one address more, the driver", took.joins),
        row("one address more, `nft -f`", took.nft),
        row("one address more, `ipset restore`", took.ipset),
        row("one policy changed, the driver", took.policy),
      ],
    };
  });
}

/** A start with many rules and members, and what a node with them costs. */
export function benchNftStart(size: Size = LARGE): Promise<BenchTable> {
  return inNode(async (_, open) => {
    const whole = node(size);
    const first = open();
    const start = await time(() => first.apply(whole));
    const check = await time(() => first.check());
    const counts = await time(() => first.counts());
    first.close();
    const second = open();
    const adoption = await time(() => second.apply(whole));
    const row = (what: string, milliseconds: number): Record<string, string> => ({ what, ms: milliseconds.toFixed(0) });
    return {
      title: `${size.policies} policies on the node, ${size.pods} pods with ${size.jumps} each, ${size.members} members`,
      rows: [
        row("first start", start),
        row("restart, with all of it in the kernel", adoption),
        row("a check of all, in slices", check),
        row("counts of all rules, in slices", counts),
      ],
    };
  });
}

async function time(work: () => unknown): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

if (import.meta.main) {
  for (const bench of [benchNftChange, benchNftStart]) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    console.log(formatTable(await bench()));
  }
}
