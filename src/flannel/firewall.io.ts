import { runTool } from "../dataplane/hostTool.io.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import { openNftables, type Nftables } from "../netlink/nftables.io.ts";
import {
  type FilterNetwork,
  type FilterWish,
  IPTABLES_JUMPS,
  iptablesText,
  nftChanges,
  nftTable,
} from "./masquerade.ts";

/** Flannel's rules in the kernel, by iptables or by nf_tables, looked at every few seconds and put right. */
export interface Firewall {
  apply(wish: FilterWish): Promise<void>;
  /** Resolves with whether something had to be put right. */
  check(): Promise<boolean>;
  close(): void;
}

/** Of each call of iptables, which waits for others that hold its lock. */
const TOOL_MS = 20_000;
const LOCK_SECONDS = "5";

/** `namespace` is the path of a network namespace; the calling thread's own where absent. */
export function openFirewall(nftables: boolean, namespace?: string): Firewall {
  return nftables ? nftablesFirewall(openNftables(namespace)) : iptablesFirewall(namespace);
}

function nftablesFirewall(kernel: Nftables): Firewall {
  let wanted: FilterWish | undefined;
  let left = "";

  /** What the kernel lists: handles differ whenever somebody has made a part of it anew. */
  function listed(wish: FilterWish): string {
    const tables = wish.networks.map(({ network }) => kernel.list(nftTable(network)));
    const seen = tables.map((table) => table && [table.chains, [...table.rules]]);
    return JSON.stringify(seen, (_, value: unknown) => (typeof value === "bigint" ? String(value) : value));
  }

  function write(wish: FilterWish): void {
    kernel.apply(wish.networks.flatMap((network) => nftChanges(network, wish)));
    left = listed(wish);
  }

  return {
    // oxlint-disable-next-line require-await -- what is thrown is to be a rejection
    async apply(wish) {
      wanted = wish;
      write(wish);
    },
    // oxlint-disable-next-line require-await
    async check() {
      if (wanted === undefined || listed(wanted) === left) return false;
      write(wanted);
      return true;
    },
    close: () => kernel.close(),
  };
}

function iptablesFirewall(namespace: string | undefined): Firewall {
  let wanted: FilterWish | undefined;
  let left = new Map<string, string>();
  let randomFully = true;

  const toolOf = ({ network }: FilterNetwork): string => (network.address.family === 4 ? "iptables" : "ip6tables");

  async function run(
    command: readonly [string, ...string[]],
    input?: string,
  ): Promise<{ code: number; output: string; errors: string }> {
    return runTool({
      command,
      timeout: TOOL_MS,
      ...(input !== undefined && { input }),
      ...(namespace !== undefined && { namespace }),
    });
  }

  /** What is there of ours, in the tool's own words. */
  async function saved(tool: string): Promise<string> {
    const parts: string[] = [];
    for (const { table } of IPTABLES_JUMPS) {
      const { code, output, errors } = await run([`${tool}-save`, "-t", table]);
      if (code !== 0) throw refused(`${tool}-save -t ${table}`, errors);
      parts.push(...output.split("\n").filter((line) => line.startsWith("-A") && line.includes("FLANNEL-")));
    }
    return parts.join("\n");
  }

  async function restore(tool: string, own: FilterNetwork, wish: FilterWish): Promise<void> {
    const command: [string, ...string[]] = [`${tool}-restore`, "--noflush", "-w", LOCK_SECONDS];
    const first = await run(command, iptablesText(own, wish, randomFully));
    if (first.code === 0) return;
    if (!randomFully) throw refused(command.join(" "), first.errors);
    // Before 1.6.2 there is no such option.
    const second = await run(command, iptablesText(own, wish, false));
    if (second.code !== 0) throw refused(command.join(" "), first.errors);
    randomFully = false;
  }

  async function write(own: FilterNetwork, wish: FilterWish): Promise<void> {
    const tool = toolOf(own);
    await restore(tool, own, wish);
    for (const { table, from, chain, comment } of IPTABLES_JUMPS) {
      const rule = ["-m", "comment", "--comment", comment, "-j", chain];
      const there = await run([tool, "-w", LOCK_SECONDS, "-t", table, "-C", from, ...rule]);
      if (there.code === 0) continue;
      const added = await run([tool, "-w", LOCK_SECONDS, "-t", table, "-A", from, ...rule]);
      if (added.code !== 0) throw refused(`${tool} -t ${table} -A ${from}`, added.errors);
    }
    left.set(tool, await saved(tool));
  }

  return {
    async apply(wish) {
      wanted = wish;
      left = new Map();
      for (const own of wish.networks) await write(own, wish);
    },
    async check() {
      if (wanted === undefined) return false;
      let mended = false;
      for (const own of wanted.networks) {
        const tool = toolOf(own);
        if ((await saved(tool)) === left.get(tool)) continue;
        await write(own, wanted);
        mended = true;
      }
      return mended;
    },
    close: () => undefined,
  };
}

function refused(command: string, errors: string): Failure {
  return new Failure("firewall", `Cannot write flannel's rules: ${command} failed: ${messageOf(errors)}`);
}
