/** What a rule does, as expressions of nf_tables. */
import { parseAddress } from "../ip/address.ts";
import { Failure } from "../lib/errors.ts";
import type { Expression } from "../netlink/nftExpression.ts";
import { verdictMap } from "../netlink/nftMatch.ts";
import {
  accept,
  doNotTrack,
  drop,
  goTo,
  jump,
  limitPackets,
  logTo,
  logToKernel,
  masquerade,
  type Rate,
  reject,
  returnToCaller,
  setMark,
  translateDestination,
  translateSource,
} from "../netlink/nftStatement.ts";
import type { Family } from "../ip/address.ts";
import { chainName } from "./nftNames.ts";
import { recurring } from "./nftRecurring.ts";
import { type DispatchMap, type Layer, RATE_UNITS, type RuleAction } from "./ruleset.ts";

export interface ActionContext {
  readonly family: Family;
  readonly layer: Layer;
  /** Throws where there is no such map. */
  readonly dispatchBy: (map: string) => DispatchMap["by"];
}

/** Port unreachable, as `reject` without more is to `nft`: ICMP type 3 code 3, ICMPv6 type 1 code 4. */
const UNREACHABLE = { 4: 3, 6: 4 } as const;
/** Syslog's `notice`, as Felix has it. */
const LOG_LEVEL = 5;
/** Bytes of a packet that who listens to a group is given: enough for its headers. */
const LOGGED_BYTES = 80;
/** NF_LOG_PREFIXLEN of <linux/netfilter/nf_log.h>, without the zero byte. */
const PREFIX_MAX = 127;

/** Nothing behind it is reached. */
const ENDS: ReadonlySet<RuleAction["do"]> = new Set([
  "accept",
  "drop",
  "return",
  "reject",
  "jump",
  "goto",
  "dispatch",
  "dnat",
  "snat",
  "masquerade",
]);

export interface Actions {
  /** Each for a rule of its own before the others: beyond the limit, a rule ends, and what else it does is not done. */
  readonly limited: readonly (readonly Expression[])[];
  readonly others: readonly Expression[];
}

/** Throws `Failure` for what cannot be expressed. */
export function actionsOf(actions: readonly RuleAction[], context: ActionContext): Actions {
  const limited: (readonly Expression[])[] = [];
  const others: Expression[] = [];
  let end: RuleAction["do"] | undefined;
  for (const action of actions) {
    if (end !== undefined) throw new Failure("inexpressible", `nothing can come after "${end}" in a rule`);
    if (ENDS.has(action.do)) end = action.do;
    const expressions = expressionsOf(action, context);
    if (action.do === "log" && action.perSecond !== undefined) limited.push(expressions);
    else others.push(...expressions);
  }
  return { limited, others };
}

function expressionsOf(action: RuleAction, { family, layer, dispatchBy }: ActionContext): readonly Expression[] {
  switch (action.do) {
    case "accept":
      return recurring("accept", accept);
    case "drop":
      return recurring("drop", drop);
    case "return":
      return recurring("return", returnToCaller);
    case "notrack":
      return doNotTrack();
    case "reject":
      // The kernel can answer from some hooks only.
      return layer === "filter" ? reject({ code: UNREACHABLE[family] }) : drop();
    case "jump":
      return jump(chainName(layer, action.chain));
    case "goto":
      return goTo(chainName(layer, action.chain));
    case "dispatch": {
      const way = dispatchBy(action.map) === "in" ? "input" : "output";
      return verdictMap([`${way} interface`], family, chainName(layer, action.map));
    }
    case "mark":
      return recurring(`mark ${action.value} ${action.mask}`, () => setMark(action.value, action.mask));
    case "log": {
      const limit = action.perSecond === undefined ? [] : limitPackets(rateOf(action.perSecond, action.burst));
      return [...limit, ...logToKernel(cut(action.prefix, PREFIX_MAX), LOG_LEVEL)];
    }
    case "nflog":
      return logTo(action.group, cut(action.prefix, PREFIX_MAX), LOGGED_BYTES);
    case "dnat":
      return translateDestination(parseAddress(action.to));
    case "snat":
      return translateSource(parseAddress(action.to), action.ports, { fullyRandom: true });
    case "masquerade":
      return masquerade(action.ports, { fullyRandom: true });
  }
}

/** In the smallest unit in which it is a whole number, or nearly. */
function rateOf(perSecond: number, burst: number | undefined): Rate {
  const isWhole = (rate: number): boolean => rate >= 0.999 && Math.abs(rate - Math.round(rate)) < 1e-6 * rate;
  const [per, seconds] = RATE_UNITS.find(([, count]) => isWhole(perSecond * count)) ?? RATE_UNITS[3];
  return { rate: Math.max(1, Math.round(perSecond * seconds)), per, ...(burst !== undefined && { burst }) };
}

/** That a unit of JavaScript's text takes in UTF-8. */
const BYTES_MAX = 3;

/** At most so many bytes of UTF-8, and without what ends the text where `nft` prints it. */
export function cut(text: string, max: number): string {
  const plain = text.includes('"') ? text.replaceAll('"', "'") : text;
  if (plain.length * BYTES_MAX <= max) return plain;
  const bytes = new TextEncoder().encode(plain);
  if (bytes.length <= max) return plain;
  let end = max;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end -= 1;
  return new TextDecoder().decode(bytes.subarray(0, end));
}
