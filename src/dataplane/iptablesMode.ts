/** Which packet filter a host is to have, as Felix's NFTablesMode and IptablesBackend say. */

/** What the host is like, as far as it decides. */
export interface FilterHost {
  /** The kernel speaks nf_tables (Linux 5.13 and later has all of it that we use). */
  readonly nfTables: boolean;
  /** iptables-restore and ipset are installed. */
  readonly iptables: boolean;
  /** How kube-proxy runs here, where it runs. */
  readonly kubeProxy?: "nftables" | "iptables" | "ipvs";
}

/**
 * Auto follows kube-proxy, so that the rules of both are in one place; without one, what the host can do decides. What
 * is asked for by name is done, whatever the host is like: then the reason why it cannot is told there.
 */
export function packetFilter(mode: "Auto" | "Enabled" | "Disabled", host: FilterHost): "nft" | "iptables" {
  if (mode !== "Auto") return mode === "Enabled" ? "nft" : "iptables";
  if (!host.iptables) return "nft";
  if (!host.nfTables) return "iptables";
  return host.kubeProxy === undefined || host.kubeProxy === "nftables" ? "nft" : "iptables";
}

export type IptablesBackend = "legacy" | "nft";

/** What `iptables-legacy-save` and `iptables-nft-save` print, comments left out. Empty where the tool is missing. */
export interface IptablesInUse {
  readonly legacy: string;
  readonly nft: string;
}

/** Chains by which kubelet shows which iptables it uses. */
const KUBELET = /^:KUBE-(IPTABLES-HINT|KUBELET-CANARY) /m;

/** Auto follows kubelet; without one, whatever has more rules, and nf_tables where that says nothing. */
export function iptablesBackend(setting: "Auto" | "Legacy" | "NFT", inUse: () => IptablesInUse): IptablesBackend {
  if (setting !== "Auto") return setting === "Legacy" ? "legacy" : "nft";
  const { legacy, nft } = inUse();
  if (KUBELET.test(nft)) return "nft";
  if (KUBELET.test(legacy)) return "legacy";
  return rulesIn(legacy) > rulesIn(nft) ? "legacy" : "nft";
}

function rulesIn(save: string): number {
  return save.match(/^(\[\d+:\d+\] )?-A /gm)?.length ?? 0;
}
