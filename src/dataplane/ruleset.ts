/**
 * What is to be in the kernel's packet filter, in a form that both renderers (nf_tables and iptables) understand: chains of
 * rules, dispatch maps and address sets, of one address family. `docs/decisions.md` says why there is such a form.
 */
import type { Family } from "../ip/address.ts";
import type { PortRange } from "../policy/model.ts";
import type { SetChange } from "../policy/sets.ts";

/** iptables' tables, and Calico's prefixes of chains where one table holds all (nf_tables). */
export type Layer = "raw" | "mangle" | "nat" | "filter";
export type Hook = "PREROUTING" | "INPUT" | "FORWARD" | "OUTPUT" | "POSTROUTING";

export type Side = "source" | "destination";

/** One condition. Lists hold where one of them does; `negated`: where none of them does. */
export type Match = { readonly negated?: true } &
  /** A name that ends in `*` stands for all that begin so. */
  (
    | { readonly on: "interface"; readonly way: "in" | "out"; readonly name: string }
    | { readonly on: "protocol"; readonly protocols: readonly number[] }
    /** Canonical text of addresses and networks of the family. */
    | { readonly on: "address"; readonly side: Side; readonly nets: readonly string[] }
    /** The address is in the set (kind `net`). */
    | { readonly on: "set"; readonly side: Side; readonly set: string }
    /** The port is in one of the ranges, or address with protocol and port in one of the sets (kind `ip,port`). */
    | {
        readonly on: "ports";
        readonly side: Side;
        readonly ranges: readonly PortRange[];
        readonly sets: readonly string[];
      }
    /** The family's own ICMP. Either, or both, are given. */
    | { readonly on: "icmp"; readonly type?: number; readonly code?: number }
    | { readonly on: "connection"; readonly states: readonly ("new" | "established" | "related" | "invalid")[] }
    /** The connection was translated to another destination. */
    | { readonly on: "dnat" }
    | { readonly on: "mark"; readonly value: number; readonly mask: number }
    /** The address is one of this host's. */
    | { readonly on: "local"; readonly side: Side }
    /** The way back to the source is by the interface that the packet came from. */
    | { readonly on: "reversePath" }
  );

/** The ids of the sets that it looks at. */
export function setsOf(match: Match): readonly string[] {
  if (match.on === "set") return [match.set];
  return match.on === "ports" ? match.sets : [];
}

export type RuleAction =
  | { readonly do: "accept" | "drop" | "return" | "notrack" }
  /** The sender is told: administratively prohibited, or as the renderer's default is. */
  | { readonly do: "reject" }
  | { readonly do: "jump" | "goto"; readonly chain: string }
  /** On to the chain that the map has for the packet's interface; what it does not have goes on with the next rule. */
  | { readonly do: "dispatch"; readonly map: string }
  /** The bits of `mask` become those of `value`. */
  | { readonly do: "mark"; readonly value: number; readonly mask: number }
  /** To the kernel's log, as people ask for it by `Log`. At most so many a second where a rate is given. */
  | { readonly do: "log"; readonly prefix: string; readonly perSecond?: number; readonly burst?: number }
  /** To who listens to the group (NFLOG). */
  | { readonly do: "nflog"; readonly group: number; readonly prefix: string }
  | { readonly do: "dnat"; readonly to: string }
  | { readonly do: "snat"; readonly to: string; readonly ports?: PortRange }
  | { readonly do: "masquerade"; readonly ports?: PortRange };

/** In seconds: the units in which the kernel is told rates of less than one a second. */
export const RATE_UNITS = [
  ["second", 1],
  ["minute", 60],
  ["hour", 3600],
  ["day", 86_400],
] as const;

/** What a rule counts packets for: the rule that somebody wrote, or the end of a tier. */
export interface Counted {
  /** A policy's id, `pro/<name>` for a profile, `tier/<name>` for the end of a tier, `profiles` for the end of all. */
  readonly of: string;
  readonly direction: "ingress" | "egress";
  /** The rule's number; absent for an end. */
  readonly index?: number;
  readonly interfaceName?: string;
}

export interface ChainRule {
  /** All of them hold. */
  readonly matches: readonly Match[];
  /** In order; only the last may end the packet's way through the chain. */
  readonly actions: readonly RuleAction[];
  readonly comment?: string;
  readonly counted?: Counted;
}

export interface RuleChain {
  readonly layer: Layer;
  /** Calico's name in full (`cali-pi-knp/default/web`); renderers shorten it to what the kernel takes. */
  readonly name: string;
  readonly rules: readonly ChainRule[];
  /** Who is told where the kernel refuses a rule of it: the policy or endpoint that it was made of. */
  readonly origin: string;
  /** What then stands in its place. Where it is absent or refused too, all packets drop; in nat none is translated. */
  readonly instead?: readonly ChainRule[];
}

/** From interfaces to chains of the same layer: an nf_tables verdict map, or iptables' tree of chains. */
export interface DispatchMap {
  readonly layer: Layer;
  /** `cali-from-wl-dispatch` */
  readonly name: string;
  readonly by: "in" | "out";
  /** Interface names (none ends in `*`) to names of chains, which are gone to. */
  readonly entries: ReadonlyMap<string, string>;
}

/** What hangs in the kernel's own hooks. */
export interface HookRule {
  readonly layer: Layer;
  readonly hook: Hook;
  /** Before, or after, whatever others have there (iptables; in nf_tables both are in the base chain, in this order). */
  readonly place: "first" | "last";
  readonly rule: ChainRule;
  /** What stands there where the kernel refuses our rules in this hook. */
  readonly instead?: readonly ChainRule[];
}

/** Keys of chains and maps: `<layer>/<name>`. */
export type ChainKey = string;
export const chainKeyOf = ({ layer, name }: Pick<RuleChain, "layer" | "name">): ChainKey => `${layer}/${name}`;

/** What changed; undefined: it is gone. Sets hold members of both families: each renderer takes those of its own. */
export interface RulesetChange {
  readonly family: Family;
  readonly chains: ReadonlyMap<ChainKey, RuleChain | undefined>;
  readonly maps: ReadonlyMap<ChainKey, DispatchMap | undefined>;
  /** All hook rules anew, where any of them changed. */
  readonly hooks?: readonly HookRule[];
  readonly sets: readonly SetChange[];
}

/** A part that the kernel did not take, and what stands in its place. */
export interface Refusal {
  readonly origin: string;
  readonly reason: string;
}

export interface RuleCount {
  readonly counted: Counted;
  readonly packets: number;
  readonly bytes: number;
}

/** The kernel's packet filter of one address family: what a renderer offers to the agent. */
export interface KernelRules {
  /**
   * Carries the changes out, as one transaction where the kernel has such; sets before rules that look at them. What the
   * kernel refuses is narrowed down: the rest is carried out, and each chain that is refused drops. The first call
   * compares with what an earlier agent left, and changes only what differs. Resolves with all that is refused now,
   * whichever change brought it.
   */
  apply(change: RulesetChange): Promise<readonly Refusal[]>;
  /**
   * Compares the kernel with what should be there, and puts right what others changed. Resolves with what that was. What
   * was refused is tried again.
   */
  check(): Promise<readonly string[]>;
  counts(): Promise<readonly RuleCount[]>;
  /** Takes all of it out of the kernel: another renderer takes over. */
  remove(): Promise<void>;
  /** Lets go; the kernel keeps everything. */
  close(): void;
}
