/** How chains, sets and rules of ours are called where iptables and ipset have them: as Calico's Felix calls them. */
import { hash } from "node:crypto";
import type { Family } from "../ip/address.ts";
import { Failure } from "../lib/errors.ts";

/** XT_EXTENSION_MAXNAMELEN (linux/netfilter/x_tables.h) less its terminator. */
export const CHAIN_NAME_MAX = 28;
/** IPSET_MAXNAMELEN (linux/netfilter/ipset/ip_set.h) less its terminator. */
export const SET_NAME_MAX = 31;

/** What of a chain's name stays readable where the name is too long. */
const CHAIN_PREFIX = /^cali-(?:(?:pri|pro|pi|po|tw|fw|thfw|fhfw|th|fh|sm|gi|go)-)?/;
/** What iptables and ipset take without quotes, and people's shells too. */
const PLAIN = /^[\w./:@=,-]*$/;

/** The whole, or the prefix with `_` and as much of a hash as has room. No two names become one. */
export function limitedName(prefix: string, suffix: string, max: number): string {
  const name = prefix + suffix;
  // A name that looks as if it were shortened is shortened too, lest it be another's.
  const isSafe = name.length <= max && PLAIN.test(name) && !(name.length === max && suffix.startsWith("_"));
  return isSafe ? name : `${prefix}_${hash("sha256", suffix, "base64url")}`.slice(0, max);
}

/** `cali-pi-knp/default/web` as it is; `cali-pi-_` and a hash where that would be longer than 28 characters. */
export function chainName(name: string): string {
  const prefix = CHAIN_PREFIX.exec(name)?.[0] ?? "cali-";
  return limitedName(prefix, name.startsWith(prefix) ? name.slice(prefix.length) : `/${name}`, CHAIN_NAME_MAX);
}

/** The chain of a dispatch tree that stands for interfaces beginning so. */
export function branchName(chain: string, path: string): string {
  return limitedName("cali-", `${chain.slice("cali-".length)}-${path}`, CHAIN_NAME_MAX);
}

/** `cali40s:uFi1…`: ids that end in a hash are cut, others hashed, where they are longer than 25 characters. */
export function setName(family: Family, id: string): string {
  const prefix = `${setPrefix(family)}0`;
  return /^[a-z]+:[\w-]{38}$/.test(id)
    ? `${prefix}${id}`.slice(0, SET_NAME_MAX)
    : limitedName(prefix, id, SET_NAME_MAX);
}

/** A set that takes the place of another as soon as it is full. */
export function temporarySetName(family: Family, number: number): string {
  return `${setPrefix(family)}t${number}`;
}

const setPrefix = (family: Family): string => `cali${family}`;

/** Chains that only we, or Calico before us, make. */
export function isOurChain(name: string): boolean {
  return name.startsWith("cali-");
}

/** Sets of the family that only we, or Calico before us, make. */
export function isOurSet(family: Family, name: string): boolean {
  return name.startsWith(`${setPrefix(family)}0`) || name.startsWith(`${setPrefix(family)}t`);
}

/**
 * The mark of each rule of a chain, 16 characters that stand in its comment: SHA-224 over the mark of the rule before
 * and the rule's text, so that a rule has another mark in another chain or at another place.
 */
export function ruleHashes(chain: string, rules: readonly string[]): string[] {
  let previous = hash("sha224", chain, "base64url");
  return rules.map((rule) => {
    previous = hash("sha224", `${previous} ${rule}`, "base64url");
    return previous.slice(0, 16);
  });
}

/** A mark, as iptables prints it. */
export function hex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`;
}

/** In quotes, as iptables-restore reads them. Throws `Failure` for what would end the line. */
export function quoted(text: string): string {
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f]/.test(text)) throw inexpressible(`"${text}" holds characters that iptables cannot read`);
  return `"${text.replaceAll(/["\\]/g, String.raw`\$&`)}"`;
}

/** An address or a network. Throws `Failure` for anything else: iptables would ask a name server. */
export function addressText(text: string): string {
  if (!/^[\da-f.:]+(\/\d+)?$/.test(text)) throw inexpressible(`"${text}" is no address`);
  return text;
}

/** What iptables has no words for. */
export function inexpressible(reason: string): Failure<"inexpressible"> {
  return new Failure("inexpressible", reason);
}
