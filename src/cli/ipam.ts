/** What `ipam show` and `ipam check` print: Calico's tables and sentences, which people and their scripts know. */
import { formatAddress, type Address } from "../ip/address.ts";
import type { CheckReport, Problem, ProblemKind } from "../ipam/check.ts";
import { type AddressState, type BlockUsage, type Borrowed, type PoolUsage, type Usage } from "../ipam/show.ts";
import type { IpamConfig } from "../ipam/world.ts";

export function renderUsage(pools: readonly PoolUsage[], withBlocks: boolean): string {
  const rows = pools.flatMap((pool) => [
    usageRow(pool.name === undefined ? "No pool" : "IP Pool", pool),
    ...(withBlocks ? pool.blocks.map((block) => usageRow("Block", block)) : []),
  ]);
  return renderTable(["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"], rows);
}

function usageRow(grouping: string, { cidr, total, inUse, free }: Usage): string[] {
  return [
    grouping,
    cidr,
    readable(total),
    `${readable(inUse)} (${percent(inUse, total)})`,
    `${readable(free)} (${percent(free, total)})`,
  ];
}

/** Numbers that nobody counts to are rounded: a /64 has 1.8447e+19 addresses. */
function readable(count: bigint): string {
  return count < 10n ** 12n ? String(count) : Number(count).toExponential(4);
}

function percent(part: bigint, whole: bigint): string {
  return `${whole === 0n ? 0 : Math.round(Number((part * 10_000n) / whole) / 100)}%`;
}

/** JSON has no numbers beyond 2^53: larger counts are text there. */
function countForJson(count: bigint): number | string {
  return count <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(count) : String(count);
}

export function usageForJson(pools: readonly PoolUsage[]): unknown {
  const usage = ({ cidr, total, inUse, coolingDown, reserved, free }: Usage): Record<string, unknown> => ({
    cidr,
    total: countForJson(total),
    inUse: countForJson(inUse),
    coolingDown: countForJson(coolingDown),
    reserved: countForJson(reserved),
    free: countForJson(free),
  });
  const block = ({ owner, ...rest }: BlockUsage): Record<string, unknown> => ({
    ...usage(rest),
    ...(owner === undefined ? {} : { owner }),
  });
  return pools.map(({ name, blocks, ...rest }) => ({
    ...(name === undefined ? {} : { name }),
    ...usage(rest),
    blocks: blocks.map(block),
  }));
}

export function renderBorrowed(borrowed: readonly Borrowed[]): string {
  const rows = borrowed.map(({ address, node, block, owner, type, holder }) => [
    address,
    node,
    block,
    owner ?? "",
    type,
    holder,
  ]);
  return renderTable(["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"], rows);
}

export function renderConfiguration(config: IpamConfig): string {
  return renderTable(
    ["PROPERTY", "VALUE"],
    [
      ["StrictAffinity", String(config.strictAffinity)],
      ["AutoAllocateBlocks", String(config.autoAllocateBlocks)],
      ["MaxBlocksPerHost", String(config.maxBlocksPerHost)],
      ["IPCooldownSeconds", String(config.cooldownSeconds)],
    ],
  );
}

export function renderAddress(address: Address, found: AddressState): string {
  const text = formatAddress(address);
  if (found.state === "free") return `${text} is not assigned\n`;
  if (found.state === "cooling-down") {
    return `${text} is not assigned: it was released at ${new Date(found.releasedAt).toISOString()} and cools down\n`;
  }
  const { handle, attributes } = found.holder;
  const lines = Object.entries({ ...attributes, handle: handle ?? "none", block: found.block }).sort(([a], [b]) =>
    a < b ? -1 : 1,
  );
  return `IP ${text} is in use\nAttributes:\n${lines.map(([key, value]) => `  ${key}: ${value}\n`).join("")}`;
}

/** What the check looked for, in the order of the report. */
const SECTIONS: readonly {
  readonly title: string;
  readonly kinds: readonly { kind: ProblemKind; found: (count: number) => string }[];
}[] = [
  {
    title: "Scanning for IPs that are allocated but not actually in use...",
    kinds: [
      { kind: "leaked", found: (count) => `Found ${count} IPs that are allocated in IPAM but not actually in use.` },
    ],
  },
  {
    title: "Scanning for IPs that are in use by a workload or node but not allocated in IPAM...",
    kinds: [
      { kind: "not-in-active-pool", found: (count) => `Found ${count} in-use IPs that are not in active IP pools.` },
      {
        kind: "not-allocated",
        found: (count) =>
          `Found ${count} in-use IPs that are in active IP pools but have no corresponding IPAM allocation.`,
      },
      { kind: "multiple-owners", found: (count) => `Found ${count} in-use IPs with multiple owners.` },
    ],
  },
  {
    title: "Scanning for inconsistent blocks and affinities...",
    kinds: [
      { kind: "invalid-block", found: (count) => `Found ${count} faults in blocks.` },
      { kind: "affinity", found: (count) => `Found ${count} affinities and blocks that do not agree.` },
    ],
  },
  {
    title: "Scanning for IPAM handles with no matching IPs...",
    kinds: [{ kind: "empty-handle", found: (count) => `Found ${count} handles with no matching IPs.` }],
  },
];

/** How many nodes are listed. */
const TOP_NODES = 20;

export function renderCheck(report: CheckReport): string {
  const { blocks, activePools, nodes, problems } = report;
  const lines = [
    "Checking IPAM for inconsistencies...",
    "",
    `Found ${blocks.length} IPAM blocks.`,
    ...blocks.map(
      ({ cidr, affinity, allocations }) =>
        ` IPAM block ${cidr} affinity=${affinity ?? "<none>"}: ${allocations} allocations`,
    ),
    `IPAM blocks record ${report.allocations} allocations${report.coolingDown > 0 ? `; ${report.coolingDown} more IPs cool down` : ""}.`,
    `Found ${activePools.length} active IP pools: ${activePools.join(", ") || "<none>"}.`,
    `Found ${report.tunnelAddresses} node tunnel IPs.`,
    `Found ${report.workloadAddresses} workload IPs.`,
    `Found ${report.handles} IPAM handles.`,
    "",
    `Looking for top (up to ${TOP_NODES}) nodes by allocations...`,
    ...nodes.slice(0, TOP_NODES).map(({ node, allocations }) => `  ${node} has ${allocations} allocations`),
    ...medianLine(nodes.map(({ allocations }) => allocations)),
    "",
    ...SECTIONS.flatMap(({ title, kinds }) => [
      title,
      ...kinds.flatMap(({ kind, found }) => foundLines(problems, kind, found)),
    ]),
    "",
    `Check complete; found ${problems.length} problems.`,
  ];
  return `${lines.join("\n")}\n`;
}

function foundLines(problems: readonly Problem[], kind: ProblemKind, found: (count: number) => string): string[] {
  const those = problems.filter((problem) => problem.kind === kind);
  return [...those.map(({ message }) => `  ${message}`), found(those.length)];
}

/** `counts` are in descending order. */
function medianLine(counts: readonly number[]): string[] {
  if (counts.length === 0) return [];
  return [`Node with most allocations has ${counts[0]}; median is ${counts[Math.floor(counts.length / 2)]}`];
}

/** Calico's look of tables: ruled, headings centred, text to the left. */
function renderTable(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const rule = `+${widths.map((width) => "-".repeat(width + 2)).join("+")}+\n`;
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |\n`;
  const centred = headings.map((heading, column) => {
    const room = (widths[column] ?? 0) - heading.length;
    return " ".repeat(Math.floor(room / 2)) + heading + " ".repeat(Math.ceil(room / 2));
  });
  const body = rows.map((row) => line(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)))).join("");
  return rule + line(centred) + rule + body + rule;
}
