import { addressBits, type Family } from "../ip/address.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import { MalformedBytes } from "../lib/bytes.ts";
import {
  address,
  attributeTable,
  decodeAttributes,
  encodeAttributes,
  familyNumber,
  familyOf,
  present,
  row,
  text,
  u32,
  u8,
  type ValuesOf,
} from "./attributes.ts";
import { CREATE, DUMP, EXCLUSIVE, type Message, type Request } from "./framing.ts";

/** Rules that choose a routing table: `struct fib_rule_hdr` and its attributes, <linux/fib_rules.h>. */

export const NEW_RULE = 32;
export const DELETE_RULE = 33;
const GET_RULE = 34;

export interface Rule {
  readonly family: Family;
  /** The lower comes first. */
  readonly priority: number;
  readonly action: RuleAction;
  /** The table to look in, where the action is that. */
  readonly table?: number;
  readonly from?: Prefix;
  readonly to?: Prefix;
  readonly mark?: number;
  /** Which bits of the mark count; all where absent. */
  readonly mask?: number;
  /** Names of the interfaces that packets come in by, or go out by. */
  readonly inputInterface?: string;
  readonly outputInterface?: string;
  /** Matches what the rest does not. */
  readonly invert?: boolean;
  /** Ignores what the table says where that is a route this short, or shorter. */
  readonly suppressPrefixLength?: number;
  /** Who wrote it, as in routes. */
  readonly protocol?: number;
}

/** FR_ACT_…: the kernel's numbers 1 to 8. */
const ACTIONS = ["unspec", "table", "goto", "nop", "res3", "res4", "blackhole", "unreachable", "prohibit"] as const;
export type RuleAction = (typeof ACTIONS)[number];

const INVERT = 0x2;
const ALL_BITS = 0xffffffff;

const RULE = attributeTable({
  from: row(2, address),
  to: row(1, address),
  mark: row(10, u32),
  mask: row(16, u32),
  inputInterface: row(3, text),
  outputInterface: row(17, text),
  priority: row(6, u32),
  suppressPrefixLength: row(14, u32),
  protocol: row(21, u8),
  /** Where the number does not fit into the header's byte. */
  table: row(15, u32),
});

export function listRules(family: Family): Request {
  return request(GET_RULE, DUMP, { family, fromLength: 0, toLength: 0, table: 0, action: "unspec", invert: false }, {});
}

/** Fails with EEXIST where there is the same rule. */
export function addRule(rule: Rule): Request {
  return write(NEW_RULE, CREATE | EXCLUSIVE, rule);
}

/** Fails with ENOENT where there is none. */
export function deleteRule(rule: Rule): Request {
  return write(DELETE_RULE, 0, rule);
}

function write(type: number, flags: number, rule: Rule): Request {
  const { family, action, from, to, table = 0, invert = false, ...values } = rule;
  const header = { family, fromLength: from?.length ?? 0, toLength: to?.length ?? 0, table, action, invert };
  return request(type, flags, header, { ...values, from: addressOf(from), to: addressOf(to) });
}

function addressOf(prefix: Prefix | undefined): Prefix["address"] | undefined {
  return prefix === undefined || prefix.length === 0 ? undefined : prefix.address;
}

interface Header {
  readonly family: Family;
  readonly fromLength: number;
  readonly toLength: number;
  readonly table: number;
  readonly action: RuleAction;
  readonly invert: boolean;
}

/**
 * `struct fib_rule_hdr`:
 *
 *      0        1        2        3        4        5                 7        8               12
 *     +--------+--------+--------+--------+--------+-----------------+--------+---------------+
 *     | family | "to"   | "from" | TOS    | table  | reserved        | action | flags         |
 *     |        | length | length |        |        |                 |        |               |
 *     +--------+--------+--------+--------+--------+-----------------+--------+---------------+
 */
function request(type: number, flags: number, header: Header, values: ValuesOf<typeof RULE>): Request {
  return {
    type,
    flags,
    encode(writer) {
      writer.u8(familyNumber(header.family));
      writer.u8(header.toLength);
      writer.u8(header.fromLength);
      writer.u8(0);
      writer.u8(header.table > 255 ? 0 : header.table);
      writer.reserve(2);
      writer.u8(ACTIONS.indexOf(header.action));
      writer.u32le(header.invert ? INVERT : 0);
      encodeAttributes(writer, RULE, header.table > 255 ? { ...values, table: header.table } : values);
    },
  };
}

/** A RTM_NEWRULE or RTM_DELRULE message; undefined for families that are not IP. */
export function decodeRule({ body }: Message): Rule | undefined {
  const family = familyOf(body.u8("rule family"));
  const toLength = body.u8("rule destination length");
  const fromLength = body.u8("rule source length");
  body.skip(1, "rule TOS");
  const shortTable = body.u8("rule table");
  body.skip(2, "rule reserved");
  const action = ACTIONS[body.u8("rule action")] ?? "unspec";
  const flags = body.u32le("rule flags");
  if (family === undefined) return undefined;
  const {
    priority = 0,
    from,
    to,
    table,
    mask,
    suppressPrefixLength,
    protocol,
    ...values
  } = decodeAttributes(body, RULE);
  const prefixOf = (value: Prefix["address"] | undefined, length: number): Prefix | undefined => {
    if (value === undefined && length === 0) return undefined;
    if (value?.family !== family || length > addressBits(family)) {
      throw new MalformedBytes(`rule ${priority}: no IPv${family} prefix with a length of ${length}`);
    }
    return { address: value, length };
  };
  return {
    family,
    priority,
    action,
    ...present({
      ...values,
      table: action === "table" ? (table ?? shortTable) : undefined,
      from: prefixOf(from, fromLength),
      to: prefixOf(to, toLength),
      mask: mask === ALL_BITS ? undefined : mask,
      invert: (flags & INVERT) !== 0 ? true : undefined,
      // The kernel says -1 for none, and 0 for a rule that nobody signed.
      suppressPrefixLength: suppressPrefixLength === ALL_BITS ? undefined : suppressPrefixLength,
      protocol: protocol === 0 ? undefined : protocol,
    }),
  };
}

/** As `ip rule` writes it: `100: fwmark 0x10000/0x10000 table 99`. */
export function describeRule(rule: Rule): string {
  const words = [`${rule.priority}:`];
  if (rule.invert === true) words.push("not");
  if (rule.from !== undefined) words.push(`from ${formatPrefix(rule.from)}`);
  if (rule.to !== undefined) words.push(`to ${formatPrefix(rule.to)}`);
  if (rule.mark !== undefined) {
    words.push(`fwmark 0x${rule.mark.toString(16)}${rule.mask === undefined ? "" : `/0x${rule.mask.toString(16)}`}`);
  }
  if (rule.inputInterface !== undefined) words.push(`iif ${rule.inputInterface}`);
  if (rule.outputInterface !== undefined) words.push(`oif ${rule.outputInterface}`);
  words.push(rule.action === "table" ? `table ${rule.table ?? "?"}` : rule.action);
  return words.join(" ");
}
