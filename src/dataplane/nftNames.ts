/** What our things are called in nf_tables. Calico's names, so that what people grep for is there. */
import { createHash } from "node:crypto";
import type { Family } from "../ip/address.ts";
import type { BaseChain, Hook as KernelHook, TableName } from "../netlink/nftTable.ts";
import type { Hook, Layer } from "./ruleset.ts";

export function tableOf(family: Family): TableName {
  return { family: family === 4 ? "ip" : "ip6", name: "calico" };
}

/** NFT_NAME_MAXLEN of <linux/netfilter/nf_tables.h>, without the zero byte. */
const NAME_MAX = 255;
/** What `nft` reads as a name. */
const READABLE = /^[A-Za-z_][A-Za-z0-9/_.-]*$/;
/** `cali-pi-`, `cali-tw-`: what stays of a name that has to be shortened. */
const KIND = /^cali-[a-z]+-/;

/**
 * The one table holds all layers, so that they are part of the name: `filter-cali-FORWARD`. What is too long, or is no
 * name to `nft`, becomes a hash behind an underscore, as in Calico's names. Dispatch maps, which are
 * known apart from chains, are called so, too.
 */
export function chainName(layer: Layer, name: string): string {
  const whole = `${layer}-${name}`;
  if (whole.length <= NAME_MAX && READABLE.test(whole)) return whole;
  const [kind = ""] = KIND.exec(name) ?? [];
  const hash = createHash("sha256").update(name.slice(kind.length)).digest("base64url");
  return `${layer}-${kind}_${hash}`;
}

/** As Calico cuts the names of its sets (ipset's limit), with a letter that nft reads in place of the colon. */
const SET_NAME_MAX = 31;

/** `s:hash` of IPv4 is `cali40s-hash`. */
export function setName(family: Family, id: string): string {
  return `cali${family}0${id}`.slice(0, SET_NAME_MAX).replaceAll(":", "-");
}

/** Where the set's networks are. */
export function netsName(family: Family, id: string): string {
  return `${setName(family, id)}-nets`;
}

export function baseChainName(layer: Layer, hook: Hook): string {
  return `${layer}-${hook}`;
}

const KERNEL_HOOKS: Readonly<Record<Hook, KernelHook>> = {
  PREROUTING: "prerouting",
  INPUT: "input",
  FORWARD: "forward",
  OUTPUT: "output",
  POSTROUTING: "postrouting",
};

/** NF_IP_PRI_… of <linux/netfilter_ipv4.h> */
const PRIORITIES = { raw: -300, mangle: -150, filter: 0 } as const;
const DESTINATION_NAT = -100;
/** Behind who translates sources at the usual place (100), such as kube-proxy. */
const SOURCE_NAT = 110;

/** Calico's types and priorities. */
export function baseChain(layer: Layer, hook: Hook): BaseChain {
  const kernelHook = KERNEL_HOOKS[hook];
  if (layer === "nat") {
    const isDestination = hook === "PREROUTING" || hook === "INPUT";
    return { type: "nat", hook: kernelHook, priority: isDestination ? DESTINATION_NAT : SOURCE_NAT, policy: "accept" };
  }
  // A packet of the host's own is routed anew where its mark has changed.
  const type = layer === "mangle" && hook === "OUTPUT" ? "route" : "filter";
  return { type, hook: kernelHook, priority: PRIORITIES[layer], policy: "accept" };
}
