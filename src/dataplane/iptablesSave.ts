/** What iptables-save prints. */
import { Failure } from "../lib/errors.ts";
import type { Layer } from "./ruleset.ts";

export interface SavedRule {
  /** What stands behind `-A CHAIN`: what `-D CHAIN` takes as well. */
  readonly options: string;
  /** The mark of a rule of ours (see `ruleHashes`); empty for others'. */
  readonly hash: string;
  readonly packets: number;
  readonly bytes: number;
}

/** Rules by chain, of every chain of the table, the kernel's own included. */
export type SavedTable = ReadonlyMap<string, readonly SavedRule[]>;
export type SavedTables = Readonly<Record<Layer, SavedTable>>;

export const LAYERS: readonly Layer[] = ["raw", "mangle", "nat", "filter"];

const OURS = /--comment "?cali:([\w-]{16})"?(?: |$)/;

/**
 * Reads the output of `iptables-save -c`; tables that are not ours to know (`security`) are passed over. Throws
 * `Failure` for what is no such output, lest a half be taken for the whole.
 */
export function parseIptablesSave(text: string): SavedTables {
  const tables: Record<Layer, Map<string, SavedRule[]>> = {
    raw: new Map(),
    mangle: new Map(),
    nat: new Map(),
    filter: new Map(),
  };
  let table: Map<string, SavedRule[]> | undefined;
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    if (line.startsWith("*")) {
      if (table !== undefined) throw unreadable(line);
      table = LAYERS.includes(line.slice(1) as Layer) ? tables[line.slice(1) as Layer] : new Map();
      continue;
    }
    if (table === undefined) throw unreadable(line);
    if (line === "COMMIT") table = undefined;
    else if (line.startsWith(":")) table.set(line.slice(1, line.indexOf(" ")), []);
    else parseRule(line, table);
  }
  if (table !== undefined) throw unreadable("(its end)");
  return tables;
}

function parseRule(line: string, table: ReadonlyMap<string, SavedRule[]>): void {
  const [, packets = "0", bytes = "0", chain = "", options = ""] =
    /^(?:\[(\d+):(\d+)\] )?-A (\S+) ?(.*)$/.exec(line) ?? [];
  const rules = table.get(chain);
  if (rules === undefined) throw unreadable(line);
  rules.push({ options, hash: OURS.exec(options)?.[1] ?? "", packets: Number(packets), bytes: Number(bytes) });
}

function unreadable(line: string): Failure<"unreadable"> {
  return new Failure("unreadable", `Cannot read the output of iptables-save: "${line}" was not expected there`);
}
