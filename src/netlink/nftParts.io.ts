import { codeOf } from "../lib/errors.ts";
import type { Message, Request } from "./framing.ts";
import { decodeElements, type Element, elementsOf, listElements } from "./nftElement.ts";
import type { Counts } from "./nftExpression.ts";
import { decodeRule, listRules, type NftRule, readCounts, readHandle } from "./nftRule.ts";
import { decodeSet, listSets, type NftSet } from "./nftSet.ts";
import {
  type Chain,
  decodeChain,
  decodeTable,
  listChains,
  listTables,
  type Listed,
  type Table,
  type TableName,
} from "./nftTable.ts";
import type { NetlinkSocket } from "./socket.io.ts";

/**
 * Parts of a table, each read by itself: of one moment each, unless others change that very part meanwhile, which a
 * watch tells. (A list of a whole table must begin anew with every change to any table; and the kernel counts through
 * all rules from the first for every 32 KB of them that it hands out.) What is not there has no parts.
 */
export interface NftParts {
  table(name: TableName): (Table & Listed) | undefined;
  chains(table: TableName): (Chain & Listed)[];
  sets(table: TableName): (NftSet & Listed)[];
  rules(table: TableName, chain: string): (NftRule & Listed)[];
  /** Of the chain's rules, in their order. A rule that is changed has another. */
  handles(table: TableName, chain: string): number[];
  /** Of the chain's rules, in their order; undefined for those that do not count. */
  counts(table: TableName, chain: string): (Counts | undefined)[];
  elements(set: NftSet): Element[];
}

export function nftParts(socket: NetlinkSocket): NftParts {
  function dump<Item>(request: Request, what: string, read: (message: Message) => Item | undefined): Item[] {
    try {
      return socket.dump(request, () => `list ${what}`, read, "harmless");
    } catch (error) {
      if (codeOf(error) === "ENOENT") return [];
      throw error;
    }
  }
  const nameOf = ({ family, name }: TableName): string => `table ${family} ${name}`;

  return {
    table: ({ family, name }) =>
      dump(listTables(), "tables of nf_tables", decodeTable).find((one) => one.family === family && one.name === name),
    chains: (table) =>
      dump(listChains(table.family), `chains of ${nameOf(table)}`, decodeChain).filter(
        (chain) => chain.table.name === table.name,
      ),
    sets: (table) => dump(listSets(table), `sets of ${nameOf(table)}`, decodeSet),
    rules: (table, chain) => dump(listRules(table, chain), `rules of chain ${chain} of ${nameOf(table)}`, decodeRule),
    handles: (table, chain) => dump(listRules(table, chain), `rules of chain ${chain} of ${nameOf(table)}`, readHandle),
    counts: (table, chain) =>
      dump(listRules(table, chain), `counts of chain ${chain} of ${nameOf(table)}`, (message) => ({
        counts: readCounts(message),
      })).map(({ counts }) => counts),
    elements(set) {
      const what = `elements of set ${set.name} of ${nameOf(set.table)}`;
      return elementsOf(set, dump(listElements(set), what, decodeElements));
    },
  };
}
