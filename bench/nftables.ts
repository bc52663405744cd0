import { execFileSync } from "node:child_process";
import { createNamespace, deleteNamespace } from "../src/netlink/namespace.io.ts";
import {
  concatenate,
  hostBytes,
  interfaceBytes,
  type KeyRange,
  portRange,
  protocolBytes,
} from "../src/netlink/nftKey.ts";
import type { Element } from "../src/netlink/nftElement.ts";
import { portIs, protocolIs } from "../src/netlink/nftMatch.ts";
import type { NftSet } from "../src/netlink/nftSet.ts";
import { accept, count } from "../src/netlink/nftStatement.ts";
import type { NftChange } from "../src/netlink/nftables.ts";
import { type Nftables, openNftables } from "../src/netlink/nftables.io.ts";
import { type BenchTable, formatTable, median, quantile } from "./table.ts";

const CHAINS = 1000;
const MEMBERS = 10_000;
const ROUNDS = 11;
/** Of ours, in each round, for one of nft's. */
const REPEATS = 20;

const table = { family: "ip", name: "calico" } as const;
const plain: NftSet = { table, name: "plain", key: ["ipv4_addr"] };
const ranges: NftSet = { table, name: "ranges", key: ["ipv4_addr"], interval: true };
const endpoints: NftSet = { table, name: "endpoints", key: ["ipv4_addr", "inet_proto", "inet_service"] };
const dispatch: NftSet = { table, name: "dispatch", key: ["ifname"], data: "verdict" };

const address = (number: number): Uint8Array => hostBytes(0x0a000000 + number).toReversed();
/** 10.0.0.0/31 and so on: ranges are two elements each. */
const net = (number: number): KeyRange => ({ key: address(number * 4), last: address(number * 4 + 1) });
const endpoint = (number: number): KeyRange =>
  concatenate({ key: address(number) }, { key: protocolBytes(6) }, portRange(80, 80));
const text = (number: number): string => {
  const value = 0x0a000000 + number;
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
};

function ruleset(): NftChange[] {
  const chains = Array.from({ length: CHAINS }, (_, at): NftChange[] => {
    const chain = `filter-cali-tw-cali${at}`;
    const expressions = [...protocolIs(6), ...portIs("destination", 80 + at), ...count(), ...accept()];
    return [
      { kind: "addChain", chain: { table, name: chain } },
      { kind: "addRule", rule: { table, chain, expressions, comment: "cali:abcdefghijklmnop" } },
    ];
  });
  const fill = (set: NftSet, elementAt: (number: number) => Element, size = MEMBERS): NftChange[] => [
    { kind: "addSet", set },
    { kind: "addElements", set, elements: Array.from({ length: size }, (_, at) => elementAt(at)) },
  ];
  return [
    { kind: "addTable", table },
    ...chains.flat(),
    ...fill(plain, (at) => ({ key: address(at) })),
    ...fill(ranges, net),
    ...fill(endpoints, endpoint),
    ...fill(dispatch, (at) => goesTo(at), CHAINS),
  ];
}

function goesTo(at: number): Element {
  const chain = `filter-cali-tw-cali${at % CHAINS}`;
  return { key: interfaceBytes(`cali${at}`), data: { verdict: { kind: "goto", chain } } };
}

interface Candidate {
  readonly name: string;
  readonly ours: (at: number) => NftChange[];
  readonly script: (at: number) => string;
}

const one = (set: NftSet, element: Element): NftChange[] => [{ kind: "addElements", set, elements: [element] }];
const CANDIDATES: readonly Candidate[] = [
  {
    name: "one address",
    ours: (at) => one(plain, { key: address(at) }),
    script: (at) => `add element ip calico plain { ${text(at)} }`,
  },
  {
    name: "one network, in a set of ranges",
    ours: (at) => one(ranges, net(at)),
    script: (at) => `add element ip calico ranges { ${text(at * 4)}/31 }`,
  },
  {
    name: "one address, protocol and port",
    ours: (at) => one(endpoints, endpoint(at)),
    script: (at) => `add element ip calico endpoints { ${text(at)} . tcp . 80 }`,
  },
  {
    name: "one pod: chain, two rules, dispatch",
    ours(at) {
      const chain = `filter-cali-fw-cali${at}`;
      const expressions = [...protocolIs(6), ...portIs("destination", 80), ...accept()];
      return [
        { kind: "addChain", chain: { table, name: chain } },
        { kind: "addRule", rule: { table, chain, expressions } },
        { kind: "addRule", rule: { table, chain, expressions: count() } },
        ...one(dispatch, { key: interfaceBytes(`cali${at}`), data: { verdict: { kind: "goto", chain } } }),
      ];
    },
    script: (at) =>
      [
        `add chain ip calico filter-cali-fw-cali${at}`,
        `add rule ip calico filter-cali-fw-cali${at} tcp dport 80 accept`,
        `add rule ip calico filter-cali-fw-cali${at} counter`,
        `add element ip calico dispatch { "cali${at}" : goto filter-cali-fw-cali${at} }`,
      ].join("\n"),
  },
  {
    name: "1,000 addresses",
    ours: (at) => [
      {
        kind: "addElements",
        set: plain,
        elements: Array.from({ length: 1000 }, (_, i) => ({ key: address(at * 1000 + i) })),
      },
    ],
    script: (at) =>
      `add element ip calico plain { ${Array.from({ length: 1000 }, (_, i) => text(at * 1000 + i)).join(", ")} }`,
  },
];

/** A change to a ruleset of a thousand pods: ours and that of `nft -f`, in a namespace of their own. */
export function benchNftables(): BenchTable {
  const name = `caracal-bench-${process.pid}`;
  const path = `/run/netns/${name}`;
  createNamespace(path);
  const nftables = openNftables(path);
  try {
    const started = performance.now();
    nftables.apply(ruleset());
    const whole = performance.now() - started;
    const listed = time(() => {
      if ((nftables.list(table)?.elements.get("plain")?.length ?? 0) < MEMBERS) throw new Error("elements are missing");
    });
    const rows = measure(name, nftables);
    return {
      title: `One transaction of nf_tables, in a table of ${CHAINS} chains and three sets of ${MEMBERS}`,
      how:
        `Median of ${ROUNDS} rounds, ${REPEATS} of ours to one of \`nft -f\` in each. The whole table at once took ` +
        `${whole.toFixed(0)} ms to write and ${listed.toFixed(0)} ms to list.`,
      rows,
    };
  } finally {
    nftables.close();
    deleteNamespace(path);
  }
}

function measure(namespace: string, nftables: Nftables): BenchTable["rows"] {
  const took = CANDIDATES.map(() => ({ ours: [] as number[], theirs: [] as number[] }));
  let next = MEMBERS;
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [at, { ours, script }] of CANDIDATES.entries()) {
      for (let repeat = 0; repeat < REPEATS; repeat += 1) {
        const changes = ours((next += 1));
        took[at]!.ours.push(time(() => nftables.apply(changes)));
      }
      const input = `${script((next += 1))}\n`;
      took[at]!.theirs.push(time(() => execFileSync("ip", ["netns", "exec", namespace, "nft", "-f", "-"], { input })));
    }
  }
  return CANDIDATES.map(({ name }, at) => {
    const { ours, theirs } = took[at]!;
    return {
      change: name,
      "ours, µs": (median(ours) * 1000).toFixed(0),
      "p99, µs": (quantile(ours, 0.99) * 1000).toFixed(0),
      "`nft -f`, µs": (median(theirs) * 1000).toFixed(0),
      "times as fast": (median(theirs) / median(ours)).toFixed(0),
    };
  });
}

function time(work: () => void): number {
  const started = performance.now();
  work();
  return performance.now() - started;
}

if (import.meta.main) console.log(formatTable(benchNftables()));
