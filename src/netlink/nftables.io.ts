import { codeOf, Failure } from "../lib/errors.ts";
import { NETLINK_NETFILTER } from "./nfnetlink.ts";
import { decodeElements, type Element, elementsOf, listElements } from "./nftElement.ts";
import { decodeObject, listObjects, type NftObject } from "./nftObject.ts";
import { decodeRule, listRules, type NftRule } from "./nftRule.ts";
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
import { type NftParts, nftParts } from "./nftParts.io.ts";
import { type NftListener, type NftTableListener, type NftWatch, watchNftables, watchNftTable } from "./nftWatch.io.ts";
import { decodeGeneration, getGeneration, type NftChange } from "./nftables.ts";
import { openNetlink } from "./socket.io.ts";
import { type Applied, type ApplyOptions, openTransactions } from "./transaction.io.ts";

/** nf_tables of one network namespace, listed, changed and watched. Lists and changes are synchronous. */
export interface Nftables {
  /**
   * All of the changes, or none: the kernel takes them as one. Throws `RefusedTransaction`, which names every change
   * that was refused and why; and `Failure` ERESTART where a generation was given and is past.
   */
  apply(changes: readonly NftChange[], options?: ApplyOptions): Applied;
  /** The table with all that is in it, as it was at one moment; undefined where there is none. */
  list(table: TableName): TableContents | undefined;
  /** All tables of the namespace, whoever made them. */
  tables(): (Table & Listed)[];
  /**
   * Lists the table and applies what `plan` makes of that, unless somebody else has changed anything in between: then
   * all of it again. Returns what was applied.
   */
  update(table: TableName, plan: (contents: TableContents | undefined) => readonly NftChange[]): readonly NftChange[];
  readonly parts: NftParts;
  /** The ruleset's number: each transaction makes a new one. */
  generation(): number;
  /** Tells of every transaction that is not of this object, from now on. Returns what ends it. */
  watch(listener: NftListener): () => void;
  /** Of those that change the table, at less cost. */
  watchTable(table: TableName, listener: NftTableListener): () => void;
  /**
   * Does the work, which does not await, without any watch of this object listening: to tell of a rule or an element takes
   * the kernel half as long as to take it. Where others have changed anything meanwhile, the watches hear of an overrun.
   */
  unheard(work: () => void): void;
  close(): void;
}

export interface TableContents {
  readonly table: Table & Listed;
  /** Of the whole ruleset, when this was listed. */
  readonly generation: number;
  readonly chains: readonly (Chain & Listed)[];
  /** By the name of their chain, in their order. A chain without rules is not there. */
  readonly rules: ReadonlyMap<string, readonly (NftRule & Listed)[]>;
  readonly sets: readonly (NftSet & Listed)[];
  /** By the name of their set. */
  readonly elements: ReadonlyMap<string, readonly Element[]>;
  readonly objects: readonly (NftObject & Listed)[];
}

const MAX_ATTEMPTS = 20;

/** `namespace` is the path of a network namespace; without it the calling thread's. */
export function openNftables(namespace?: string): Nftables {
  const socket = openNetlink(NETLINK_NETFILTER, namespace);
  const transactions = openTransactions(namespace);
  const watches = new Map<NftWatch, NftListener["overrun"]>();
  let isHeard = true;

  function generation(): number {
    return socket.request(getGeneration(), () => "read the generation of nf_tables", decodeGeneration)[0]?.number ?? 0;
  }

  function tables(): (Table & Listed)[] {
    return socket.dump(listTables(), () => "list tables of nf_tables", decodeTable);
  }

  function list(name: TableName): TableContents | undefined {
    const what = `table ${name.family} ${name.name}`;
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
      const before = generation();
      try {
        const contents = listOnce(name, before);
        if (generation() === before) return contents;
      } catch (error) {
        // It was deleted while it was listed.
        if (codeOf(error) !== "ENOENT" || generation() === before) throw error;
      }
    }
    throw new Failure("EINTR", `Cannot list ${what}: nf_tables changed each of the ${MAX_ATTEMPTS} times`);
  }

  function listOnce(name: TableName, at: number): TableContents | undefined {
    const what = (kind: string) => () => `list ${kind} of table ${name.family} ${name.name}`;
    const table = tables().find((one) => one.family === name.family && one.name === name.name);
    if (table === undefined) return undefined;
    const own = (item: { readonly table: TableName }): boolean => item.table.name === name.name;
    const chains = socket.dump(listChains(name.family), what("chains"), decodeChain).filter(own);
    const rules = socket.dump(listRules(name), what("rules"), decodeRule).filter(own);
    const sets = socket.dump(listSets(name), what("sets"), decodeSet).filter(own);
    const elements = sets.map((set): [string, Element[]] => {
      const messages = socket.dump(listElements(set), what(`elements of set ${set.name}`), decodeElements);
      return [set.name, elementsOf(set, messages)];
    });
    const objects = socket.dump(listObjects(name), what("objects"), decodeObject).filter(own);
    const byChain = Map.groupBy(rules, ({ chain }) => chain);
    return { table, generation: at, chains, rules: byChain, sets, elements: new Map(elements), objects };
  }

  function keep(watch: NftWatch, { overrun }: Pick<NftListener, "overrun">): () => void {
    if (!isHeard) watch.setListening(false);
    watches.set(watch, overrun);
    return () => {
      watches.delete(watch);
      watch.stop();
    };
  }

  function unheard(work: () => void): void {
    if (!isHeard || watches.size === 0) return work();
    const [before, doneBefore] = [generation(), transactions.done()];
    isHeard = false;
    for (const watch of watches.keys()) watch.setListening(false);
    try {
      work();
    } finally {
      isHeard = true;
      for (const watch of watches.keys()) watch.setListening(true);
      // Each transaction makes one generation.
      const others = generation() - before - (transactions.done() - doneBefore);
      if (others !== 0)
        for (const overrun of watches.values()) overrun("others changed nf_tables while nobody listened");
    }
  }

  return {
    apply: (changes, options) => transactions.apply(changes, options),
    list,
    tables,
    update(table, plan) {
      for (let attempt = 1; ; attempt += 1) {
        const before = generation();
        const contents = list(table);
        const changes = plan(contents);
        try {
          transactions.apply(changes, { generation: contents?.generation ?? before });
          return changes;
        } catch (error) {
          if (codeOf(error) !== "ERESTART" || attempt >= MAX_ATTEMPTS) throw error;
        }
      }
    },
    parts: nftParts(socket),
    generation,
    watch: (listener) => keep(watchNftables(namespace, transactions.port(), listener), listener),
    watchTable: (table, listener) => keep(watchNftTable(namespace, transactions.port(), table, listener), listener),
    unheard,
    close() {
      socket.close();
      transactions.close();
    },
  };
}

const shared = new Map<string | undefined, { readonly nftables: Nftables; users: number }>();

/**
 * One for all who ask for the namespace: watches tell none of them what another does. It is closed when all have closed
 * theirs.
 */
export function shareNftables(namespace?: string): Nftables {
  const known = shared.get(namespace) ?? { nftables: openNftables(namespace), users: 0 };
  shared.set(namespace, known);
  known.users += 1;
  let open = true;
  return {
    ...known.nftables,
    close() {
      if (!open) return;
      open = false;
      known.users -= 1;
      if (known.users > 0) return;
      shared.delete(namespace);
      known.nftables.close();
    },
  };
}
