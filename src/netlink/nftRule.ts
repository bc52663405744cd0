import { MalformedBytes } from "../lib/bytes.ts";
import { decodeAttributes, present, raw, row, text } from "./attributes.ts";
import { APPEND, CREATE, DUMP, type Message, REPLACE, type Request } from "./framing.ts";
import { be64, nestedRow, netfilterTable } from "./nfnetlink.ts";
import { COMMENT, findComment } from "./nftData.ts";
import type { Counts, Expression } from "./nftExpression.ts";
import { counterAmong, expressions } from "./nftExpressionCodec.ts";
import { type Chain, commentData, decodeTableFamily, type Listed, nftRequest, type TableName } from "./nftTable.ts";

/** Rules of nf_tables: expressions, one after the other. <linux/netfilter/nf_tables.h> */

export const NEW_RULE = 6;
const GET_RULE = 7;
export const DELETE_RULE = 8;

export interface NftRule {
  readonly table: TableName;
  readonly chain: string;
  readonly expressions: readonly Expression[];
  /** At most 254 bytes; `nft` reads 128. */
  readonly comment?: string;
}

/** Where in its chain: at the end where absent. A handle is another rule's. */
export type RulePlace =
  | "first"
  | { readonly before: number }
  | { readonly after: number }
  | { readonly instead: number };

const RULE = netfilterTable({
  table: row(1, text),
  chain: row(2, text),
  handle: row(3, be64),
  expressions: nestedRow(4, expressions),
  position: row(6, be64),
  userData: row(7, raw),
});

/** Of a chain, of a table, or of all tables of the family. */
export function listRules(table: TableName, chain?: string): Request {
  return nftRequest(GET_RULE, DUMP, table.family, RULE, { table: table.name, chain });
}

/** Fails with ENOENT where the chain, or the rule that says its place, is not there. */
export function addRule({ table, chain, expressions: list, comment }: NftRule, place?: RulePlace): Request {
  const values = { table: table.name, chain, expressions: list, userData: commentData(comment) };
  if (place === undefined) return nftRequest(NEW_RULE, CREATE | APPEND, table.family, RULE, values);
  if (place === "first") return nftRequest(NEW_RULE, CREATE, table.family, RULE, values);
  if ("instead" in place) {
    return nftRequest(NEW_RULE, REPLACE, table.family, RULE, { ...values, handle: place.instead });
  }
  if ("after" in place) {
    return nftRequest(NEW_RULE, CREATE | APPEND, table.family, RULE, { ...values, position: place.after });
  }
  return nftRequest(NEW_RULE, CREATE, table.family, RULE, { ...values, position: place.before });
}

/** Fails with ENOENT where there is none. */
export function deleteRule(table: TableName, chain: string, handle: number): Request {
  return nftRequest(DELETE_RULE, 0, table.family, RULE, { table: table.name, chain, handle });
}

/** Deletes every rule of the chain, and keeps the chain. */
export function flushChain({ table, name }: Pick<Chain, "table" | "name">): Request {
  return nftRequest(DELETE_RULE, 0, table.family, RULE, { table: table.name, chain: name });
}

/** A list has the rules of each chain in their order. */
export function decodeRule({ body }: Message): (NftRule & Listed) | undefined {
  const family = decodeTableFamily(body);
  if (family === undefined) return undefined;
  const { table, chain, handle = 0, expressions: list = [], userData } = decodeAttributes(body, RULE);
  if (table === undefined || chain === undefined) throw new MalformedBytes("a rule of nf_tables has no chain");
  const comment = present({ comment: findComment(userData, COMMENT) });
  return { table: { family, name: table }, chain, handle, expressions: list, ...comment };
}

const HANDLE = netfilterTable({ handle: row(3, be64) });

/** Of a rule in a list, its handle alone. */
export function readHandle({ body }: Message): number | undefined {
  return decodeTableFamily(body) && decodeAttributes(body, HANDLE).handle;
}

const COUNTED = netfilterTable({ counts: nestedRow(4, counterAmong) });

/** Of a rule in a list, what its first counter has; undefined where it has none. */
export function readCounts({ body }: Message): Counts | undefined {
  return decodeTableFamily(body) && decodeAttributes(body, COUNTED).counts;
}
