import { execFile, spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { openArpTable } from "../dataplane/arpTable.io.ts";
import { ARP_TABLE } from "../dataplane/arpTable.ts";
import { packetFilter, iptablesBackend, type FilterHost, type IptablesBackend } from "../dataplane/iptablesMode.ts";
import type { KernelRules } from "../dataplane/ruleset.ts";
import type { Family } from "../ip/address.ts";
import { openNftables } from "../netlink/nftables.io.ts";
import type { TableName } from "../netlink/nftTable.ts";
import type { FelixSettings } from "../resources/config.ts";
import type { Renderer } from "./nodeFacts.ts";

/** The settings that drivers are opened with. */
export function driverSettings({
  iptablesBackend: backend,
  iptablesLockTimeout,
  iptablesMarkMask,
  chainInsertMode,
  maxIpsetSize,
}: FelixSettings): string {
  return JSON.stringify([backend, iptablesLockTimeout, iptablesMarkMask, chainInsertMode, maxIpsetSize]);
}

/** Which packet filters this host has, what an earlier agent has left in them, and the drivers that write them. */
export interface PolicyKernel {
  renderer(mode: FelixSettings["nftablesMode"]): Renderer;
  /** Whether an earlier agent's rules, or Calico's own, hold the family's packets back. */
  hasRules(family: Family): boolean;
  open(renderer: Renderer, family: Family, settings: FelixSettings): Promise<KernelRules>;
  /** Takes what the renderer has left, if anything, out of the kernel. */
  clear(renderer: Renderer, family: Family, settings: FelixSettings): Promise<void>;
}

const TABLES = ["raw", "mangle", "nat", "filter"];
const BACKENDS: readonly IptablesBackend[] = ["legacy", "nft"];
const TOOL_OPTIONS = { encoding: "utf8", timeout: 10_000, maxBuffer: 1 << 30 } as const;
const run = promisify(execFile);

export interface PolicyKernelOptions {
  /** Others are kept from changing our tables of nf_tables, where the kernel can do that. */
  readonly ownsTables: boolean;
  /** Others had changed our rules, and they were put right. */
  readonly onRepaired: (what: readonly string[]) => void;
  /** They could not be put right, or are not watched any more. */
  readonly onFailure: (error: unknown) => void;
}

export function policyKernel({ ownsTables, onRepaired, onFailure }: PolicyKernelOptions): PolicyKernel {
  let host: FilterHost | undefined;
  let backend: IptablesBackend | undefined;

  function look(): FilterHost {
    if (host !== undefined) return host;
    const tables = nftTables();
    const iptables = isInstalled("ipset") && BACKENDS.some((each) => isInstalled(`iptables-${each}-restore`));
    const isKubeProxyNft = tables?.some(({ name }) => name === "kube-proxy") === true;
    const isKubeProxyIptables =
      iptables && !isKubeProxyNft && inUse(4).some(({ text }) => text.includes(":KUBE-SERVICES "));
    return (host = {
      nfTables: tables !== undefined,
      iptables,
      ...(isKubeProxyNft ? { kubeProxy: "nftables" } : isKubeProxyIptables ? { kubeProxy: "iptables" } : {}),
    });
  }

  function backendOf(setting: FelixSettings["iptablesBackend"]): IptablesBackend {
    if (setting !== "Auto") return iptablesBackend(setting, () => ({ legacy: "", nft: "" }));
    backend ??= iptablesBackend(setting, () => {
      const texts = inUse(4);
      const of = (name: IptablesBackend): string => texts.find((each) => each.backend === name)?.text ?? "";
      return { legacy: of("legacy"), nft: of("nft") };
    });
    return backend;
  }

  async function openIptables(family: Family, of: IptablesBackend, settings: FelixSettings): Promise<KernelRules> {
    const { openIptablesKernelRules } = await import("../dataplane/iptablesRules.io.ts");
    const { iptablesLockTimeout, iptablesPostWriteCheckInterval, chainInsertMode, maxIpsetSize } = settings;
    return openIptablesKernelRules({
      family,
      backend: of,
      ...(iptablesLockTimeout > 0 ? { lockTimeout: Math.ceil(iptablesLockTimeout / 1000) } : {}),
      chainInsertMode: chainInsertMode === "Append" ? "append" : "insert",
      maxSetSize: maxIpsetSize,
      markMask: settings.iptablesMarkMask,
      afterWriteMs: iptablesPostWriteCheckInterval,
      onRepaired,
      onFailure,
    });
  }

  return {
    renderer: (mode) => packetFilter(mode, mode === "Auto" ? look() : { nfTables: true, iptables: true }),
    hasRules: (family) =>
      hasForwardRules(family) || inUse(family).some(({ text }) => /^-A FORWARD .*-j cali-FORWARD$/m.test(text)),
    async open(renderer, family, settings) {
      if (renderer === "iptables") return openIptables(family, backendOf(settings.iptablesBackend), settings);
      const { openNftKernelRules } = await import("../dataplane/nftRules.io.ts");
      const { maxIpsetSize } = settings;
      return openNftKernelRules({ family, maxSetSize: maxIpsetSize, isOwned: ownsTables, onRepaired, onFailure });
    },
    async clear(renderer, family, settings) {
      if (renderer === "nft") {
        const tables = nftTables() ?? [];
        if (family === 4 && tables.some(isArpTable)) removeArpTable();
        if (!tables.some((table) => isOurs(table) && table.family === tableFamily(family))) return;
        const { openNftKernelRules } = await import("../dataplane/nftRules.io.ts");
        return removeAll(openNftKernelRules({ family }));
      }
      for (const { backend: of, tool } of toolsInUse(family)) {
        // Another's writing may hold the lock that the tool waits for, and the agent goes on meanwhile.
        // oxlint-disable-next-line no-await-in-loop -- they share sets
        const { stdout } = await run(tool, TOOL_OPTIONS);
        // oxlint-disable-next-line no-await-in-loop
        if (stdout.includes(":cali-")) await removeAll(await openIptables(family, of, settings));
      }
    },
  };
}

async function removeAll(rules: KernelRules): Promise<void> {
  try {
    await rules.remove();
  } finally {
    rules.close();
  }
}

const tableFamily = (family: Family): TableName["family"] => (family === 4 ? "ip" : "ip6");
const OUR_TABLE = "calico";
const isOurs = ({ name }: TableName): boolean => name === OUR_TABLE;
const isArpTable = ({ family, name }: TableName): boolean => family === ARP_TABLE.family && name === ARP_TABLE.name;

/** A table that was flushed, or that an agent had only begun to write, holds nothing back. */
function hasForwardRules(family: Family): boolean {
  if (nftTables()?.some((table) => isOurs(table) && table.family === tableFamily(family)) !== true) return false;
  const nftables = openNftables();
  try {
    const table = { family: tableFamily(family), name: OUR_TABLE } as const;
    const hooks = nftables.parts.chains(table).filter(({ base }) => base?.type === "filter" && base.hook === "forward");
    return hooks.some(({ name }) => nftables.parts.handles(table, name).length > 0);
  } finally {
    nftables.close();
  }
}

function removeArpTable(): void {
  const table = openArpTable();
  try {
    table.remove();
  } finally {
    table.close();
  }
}

/** Undefined where the kernel has no nf_tables. */
function nftTables(): TableName[] | undefined {
  try {
    const nftables = openNftables();
    try {
      return nftables.tables();
    } finally {
      nftables.close();
    }
  } catch {
    return undefined;
  }
}

/** What iptables has of the family, by its two forms. Waits for the tools: for an agent that does nothing else yet. */
function inUse(family: Family): { backend: IptablesBackend; text: string }[] {
  return toolsInUse(family).map(({ backend, tool }) => ({ backend, text: spawnSync(tool, TOOL_OPTIONS).stdout ?? "" }));
}

/** The tools that can tell what iptables has of the family: none where the kernel has nothing. */
function toolsInUse(family: Family): { backend: IptablesBackend; tool: string }[] {
  const six = family === 4 ? "" : "6";
  const kernelHas: Record<IptablesBackend, () => boolean> = {
    legacy: () => {
      const names = `/proc/net/ip${six}_tables_names`;
      return existsSync(names) && readFileSync(names, "utf8").trim() !== "";
    },
    nft: () =>
      nftTables()?.some(({ family: of, name }) => of === tableFamily(family) && TABLES.includes(name)) === true,
  };
  return BACKENDS.map((backend) => ({ backend, tool: `ip${six}tables-${backend}-save` })).filter(
    ({ backend, tool }) => kernelHas[backend]() && isInstalled(tool),
  );
}

function isInstalled(tool: string): boolean {
  return (process.env["PATH"] ?? "").split(":").some((directory) => existsSync(`${directory}/${tool}`));
}
