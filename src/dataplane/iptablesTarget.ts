/** What a rule does with its packets, in the options of iptables. */
import type { PortRange } from "../policy/model.ts";
import { addressText, chainName, hex, inexpressible, quoted } from "./iptablesNames.ts";
import { type Layer, RATE_UNITS, type RuleAction } from "./ruleset.ts";

/** Options after one another, those that are none left out. */
export const join = (...parts: readonly string[]): string => parts.filter(Boolean).join(" ");

/** XT_MAX_COMMENT_LEN (linux/netfilter/xt_comment.h) less its terminator. Felix writes `_` for what shells would mistake. */
const COMMENT_MAX = 255;

export function commentOptions(text: string): string {
  return `-m comment --comment ${quoted(text.replaceAll(/[^\w @%+=:,./-]/g, "_").slice(0, COMMENT_MAX))}`;
}

/** The bits of `mask` become those of `mark`. */
export const setMark = (mark: number, mask = mark): string => `-j MARK --set-mark ${hex(mark)}/${hex(mask)}`;

/** Lengths of xt_log_info.prefix and xt_nflog_info.prefix, less their terminators. */
const LOG_PREFIX_MAX = 29;
const NFLOG_PREFIX_MAX = 63;
/** `notice`, as Felix logs. */
const LOG_LEVEL = 5;
/** Enough of a packet for its headers. */
const NFLOG_SIZE = 80;
const LIMIT = "-m limit ";

/** Whether the target sees only some of the packets. */
export const isLimited = (options: string): boolean => options.startsWith(LIMIT);

/** @param ports to which addresses are translated with; only where the rule names a protocol that has them */
export function targetOf(action: RuleAction, layer: Layer, ports?: PortRange): string {
  const range = ports === undefined ? "" : `${ports.first}-${ports.last}`;
  switch (action.do) {
    case "accept":
    case "drop":
    case "return":
    case "notrack":
      return `-j ${action.do.toUpperCase()}`;
    case "reject":
      // The target exists in that table only.
      return layer === "filter" ? "-j REJECT" : "-j DROP";
    case "jump":
      return `-j ${chainName(action.chain)}`;
    case "goto":
      return `-g ${chainName(action.chain)}`;
    case "mark":
      return setMark(action.value & action.mask, action.mask);
    case "log":
      return join(
        limit(action),
        "-j LOG",
        `--log-prefix ${cut(action.prefix, LOG_PREFIX_MAX)} --log-level ${LOG_LEVEL}`,
      );
    case "nflog":
      return `-j NFLOG --nflog-group ${action.group} --nflog-prefix ${cut(action.prefix, NFLOG_PREFIX_MAX)} --nflog-size ${NFLOG_SIZE}`;
    case "dnat":
      return `-j DNAT --to-destination ${addressText(action.to)}`;
    case "snat":
      return `-j SNAT --to-source ${withPorts(addressText(action.to), range)} --random-fully`;
    case "masquerade":
      return join("-j MASQUERADE", range === "" ? "" : `--to-ports ${range}`, "--random-fully");
    case "dispatch":
      throw inexpressible("a dispatch stands in a chain only");
  }
}

function withPorts(address: string, range: string): string {
  if (range === "") return address;
  return address.includes(":") ? `[${address}]:${range}` : `${address}:${range}`;
}

const cut = (text: string, max: number): string => quoted(text.slice(0, max));

/** xt_limit takes whole numbers up to 10,000 of a unit. */
const LIMIT_MAX = 10_000;

function limit({ perSecond, burst }: Extract<RuleAction, { do: "log" }>): string {
  if (perSecond === undefined) return "";
  const whole = (value: number): number => Math.min(LIMIT_MAX, Math.max(1, Math.round(value)));
  const [unit, seconds] = RATE_UNITS.find((each) => perSecond * each[1] >= 0.999_999) ?? RATE_UNITS[3];
  return `${LIMIT}--limit ${whole(perSecond * seconds)}/${unit} --limit-burst ${whole(burst ?? 5)}`;
}
