/** What the rules of a node depend on besides policy: settings, tunnels, and the addresses of the cluster. */
import type { Family } from "../ip/address.ts";
import { Failure } from "../lib/errors.ts";
import type { PolicySettings } from "../policy/world.ts";

/** The settings of Felix that the rules follow, by Felix's names: a whole `FelixSettings` can be given as it is. */
export interface RulesetSettings extends PolicySettings {
  /** What the names of workloads' interfaces begin with. */
  readonly interfacePrefix: readonly string[];
  readonly chainInsertMode: "Insert" | "Append";
  readonly disableConntrackInvalidCheck: boolean;
  readonly workloadSourceSpoofing: "Disabled" | "Any";
  readonly floatingIPs: "Enabled" | "Disabled";
  readonly serviceLoopPrevention: "Drop" | "Reject" | "Disabled";
  /** `32768:60999`, or one port. */
  readonly natPortRange: string | number | undefined;
  /** IPv4; empty: that of the interface by which the packet leaves. */
  readonly natOutgoingAddress: string;
  readonly natOutgoingExclusions: "IPPoolsOnly" | "IPPoolsAndHostIPs";
  /** `eth0`, `eth+`; empty: any. */
  readonly iptablesNATOutgoingInterfaceFilter: string;
  /** %t, %k, %p and %n stand for a policy's tier, kind, name and namespace. */
  readonly logPrefix: string;
  /** `10/second`, `100/minute`, …; empty: no limit. */
  readonly logActionRateLimit: string;
  readonly logActionRateLimitBurst: number;
}

/** Those that Felix has twice: `nftables…` and `iptables…`. */
export interface RendererSettings {
  readonly markMask: number;
  readonly filterAllowAction: "Accept" | "Return";
  readonly filterDenyAction: "Drop" | "Reject";
  readonly mangleAllowAction: "Accept" | "Return";
  /** Whether others' rules stand in the same chains of the kernel's hooks, so that what we accept passes them by: iptables. */
  readonly sharesHooks: boolean;
}

/** A device that carries packets to other nodes. */
export interface TunnelFact {
  readonly kind: "ipip" | "vxlan" | "wireguard";
  /** Of what it carries, and of the nodes' addresses. */
  readonly family: Family;
  /** `tunl0`, `vxlan.calico`, `vxlan-v6.calico`, … */
  readonly device: string;
  /** Its addresses on this node: what the node itself sends through it has one of them. */
  readonly addresses: readonly string[];
  /** Of WireGuard: the UDP port that it listens on. */
  readonly port?: number;
}

export interface PoolFact {
  readonly cidr: string;
  readonly natOutgoing: boolean;
  readonly disabled: boolean;
  /** Its only use is LoadBalancer. */
  readonly isLoadBalancer: boolean;
}

export interface NodeFacts {
  readonly settings: RulesetSettings;
  readonly renderer: RendererSettings;
  /** Those that are on. */
  readonly tunnels: readonly TunnelFact[];
  /** Addresses of all nodes, and networks of `externalNodesList`: who may send IPIP. */
  readonly hosts: readonly string[];
  /** Who may send VXLAN. */
  readonly vxlanHosts: readonly string[];
  readonly pools: readonly PoolFact[];
  /** What BGPConfiguration announces for services. */
  readonly serviceCidrs: readonly string[];
  /** Whether somebody listens to NFLOG groups 1 and 2. */
  readonly nflog: boolean;
}

export class RulesetError extends Failure<"too-few-mark-bits" | "bad-setting"> {}
