import { describeChange } from "../netlink/nftDescribe.ts";
import type { NftChange } from "../netlink/nftables.ts";
import type { Nftables } from "../netlink/nftables.io.ts";
import { RefusedTransaction } from "../netlink/transaction.io.ts";
import type { KernelTable } from "./kernelTable.io.ts";
import {
  chainUnit,
  type Difference,
  type Item,
  type Kept,
  type Making,
  setUnit,
  transactionOf,
  usersOf,
} from "./keptTable.ts";
import type { Draft } from "./nftRender.ts";

/** Transactions of a table that is kept: how they are put together and sent, and what the kernel says. */

export interface Parties {
  readonly kept: Kept;
  readonly kernel: KernelTable;
  readonly nftables: Nftables;
}

export interface Transaction {
  readonly items: readonly Item[];
  /** The rules that chains have after it. */
  readonly made: ReadonlyMap<string, readonly Draft[]>;
}

let setNumber = 0;

export function making({ kernel }: Parties, made: Making["made"]): Making {
  return {
    counts: (name, drafts) => kernel.countsFor(name, drafts),
    made,
    // By which the rules of a transaction find their sets without a name.
    nextId: () => (setNumber = (setNumber % 0x7fffffff) + 1),
  };
}

/** All of the difference, and the chains that look at a set that turns out to be none: they are changed with it. */
export function build(parties: Parties, difference: Difference): Transaction {
  const { kept } = parties;
  for (;;) {
    const made = new Map<string, readonly Draft[]>();
    const items = transactionOf(
      kept,
      difference,
      making(parties, (name, drafts) => made.set(name, drafts)),
    );
    const sets = [...difference.sets.keys()].filter((name) => kept.refused.has(setUnit(name)));
    const others = sets
      .flatMap((name) => usersOf(kept, name))
      .filter((name) => !difference.chains.has(name) && !kept.refused.has(chainUnit(name)));
    if (others.length === 0) return { items, made };
    for (const name of others) difference.chains.add(name);
  }
}

/** The kernel refused parts of a transaction. */
export class Unaccepted extends Error {
  readonly refusals: readonly RefusedItem[];
  constructor(refusals: readonly RefusedItem[], cause: RefusedTransaction) {
    super(cause.message, { cause });
    this.refusals = refusals;
  }
}

export interface RefusedItem {
  readonly item: Item;
  /** Name of the errno. */
  readonly code: string;
  readonly reason: string;
}

function beginning({ kept, kernel, nftables }: Parties, isAnew: boolean): NftChange[] {
  const add: NftChange = { kind: "addTable", table: kept.form };
  if (!isAnew) return kernel.exists() ? [] : [add];
  const isThere = nftables.parts.table(kept.table) !== undefined;
  return isThere ? [{ kind: "deleteTable", table: kept.table }, add] : [add];
}

/** Throws `Unaccepted`, and `Failure` where the kernel says no to no part in particular. */
export function send(parties: Parties, { items, made }: Transaction, isAnew: boolean): void {
  if (items.length === 0 && !isAnew) return;
  const { kernel, nftables } = parties;
  const first = beginning(parties, isAnew);
  const changes = [...first, ...items.map(({ change }) => change)];
  try {
    nftables.apply(changes);
  } catch (error) {
    if (!(error instanceof RefusedTransaction)) throw error;
    // The table is another program's own: no part of ours is at fault.
    if (error.refusals.some(({ code }) => code === "EPERM")) throw error;
    const refused = error.refusals.flatMap(({ at, change, code, reason }) => {
      const item = items[at - first.length];
      return item === undefined ? [] : [{ item, code, reason: `Cannot ${describeChange(change)}: ${reason}` }];
    });
    throw refused.length === 0 ? error : new Unaccepted(refused, error);
  }
  kernel.note(changes);
  for (const [name, drafts] of made) kernel.noteRules(name, drafts);
}

/** Whether the kernel would take the transaction if the chains dropped. */
export function isTaken(
  parties: Parties,
  dropping: readonly string[],
  difference: Difference,
  isAnew: boolean,
): boolean {
  const { kept, nftables } = parties;
  for (const name of dropping) kept.refused.set(chainUnit(name), { reason: "for a trial" });
  try {
    const { items } = build(parties, difference);
    nftables.apply([...beginning(parties, isAnew), ...items.map(({ change }) => change)], { isTrial: true });
    return true;
  } catch (error) {
    if (error instanceof RefusedTransaction) return false;
    throw error;
  } finally {
    for (const name of dropping) kept.refused.delete(chainUnit(name));
  }
}
