/**
 * What packets that are told to NFLOG's listeners say of the rule: Calico's words, which collectors of flow logs read.
 * Groups 1 and 2 are ingress and egress.
 */
import { createHash } from "node:crypto";
import type { Direction } from "../policy/model.ts";
import type { RuleAction } from "./ruleset.ts";

type Verdict = "allow" | "deny" | "pass";

const VERDICT = { allow: "A", deny: "D", pass: "P" } as const;
const DIRECTION = { ingress: "I", egress: "E" } as const;
const GROUP = { ingress: 1, egress: 2 } as const;

/** NF_LOG_PREFIXLEN (linux/netfilter/nf_log.h) is 128, but xt_NFLOG has 64 with the terminator. */
const PREFIX_MAX = 63;
/** What of a longer one stays readable at either end. */
const KEPT = 10;

/** By a rule of a policy (`id` as in chain names), or of a profile (its name). */
export function nflogRule(
  verdict: Verdict,
  owner: "policy" | "profile",
  direction: Direction,
  index: number,
  id: string,
): RuleAction {
  return nflog(direction, `${VERDICT[verdict]}${owner === "policy" ? "P" : "R"}${DIRECTION[direction]}${index}|${id}`);
}

/** No rule of the tier matched. */
export function nflogTierEnd(verdict: "deny" | "pass", direction: Direction, tier: string): RuleAction {
  return nflog(direction, `${VERDICT[verdict]}P${DIRECTION[direction]}|${tier}`);
}

/** No profile had a rule that matched. */
export function nflogNoProfile(direction: Direction): RuleAction {
  return nflog(direction, `DR${DIRECTION[direction]}`);
}

function nflog(direction: Direction, text: string): RuleAction {
  return { do: "nflog", group: GROUP[direction], prefix: shortened(text) };
}

/** One that just fits is shortened too: nobody can give a policy a name that reads like another's shortened one. */
function shortened(text: string): string {
  if (text.length < PREFIX_MAX) return text;
  const hash = createHash("sha256").update(text).digest("base64url");
  const room = PREFIX_MAX - 2 * KEPT - "__".length;
  return `${text.slice(0, KEPT)}_${hash.slice(0, room)}_${text.slice(-KEPT)}`;
}
