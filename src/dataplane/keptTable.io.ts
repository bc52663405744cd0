import { codeOf, Failure } from "../lib/errors.ts";
import type { Counts } from "../netlink/nftExpression.ts";
import type { KeyRange } from "../netlink/nftKey.ts";
import { type Nftables, shareNftables } from "../netlink/nftables.io.ts";
import type { Table, TableName } from "../netlink/nftTable.ts";
import { kernelTable } from "./kernelTable.io.ts";
import { describeDifference } from "./keptDifference.ts";
import { chainUnit, type Difference, type Kept, nameOf, noDifference, setUnit, type TableChange } from "./keptTable.ts";
import type { SetForm } from "./nftSets.ts";
import { openRepairs, type Suspects } from "./repairs.io.ts";
import type { ChainRule, Refusal } from "./ruleset.ts";
import { settle } from "./settle.io.ts";

/** Keeps one table of nf_tables as it should be, whatever others do to it. */
export interface KeptTable {
  /**
   * Carries the changes out. The first call compares with what is there, and changes only what differs. Returns all that
   * the kernel does not take now. Throws `Failure` where nothing could be done; that is tried again by itself.
   */
  apply(change: TableChange): readonly Refusal[];
  /**
   * Compares all, a little at a time, and puts right what others changed. Resolves with what that was. What was refused is
   * tried again.
   */
  check(): Promise<readonly string[]>;
  /** By rule. A little at a time, too. */
  counts(): Promise<ReadonlyMap<ChainRule, Counts>>;
  /** Deletes the table, and forgets what should be in it. */
  remove(): void;
  close(): void;
}

export interface KeptTableOptions {
  readonly table: TableName;
  /** Path of a network namespace; without it the calling thread's. */
  readonly namespace?: string;
  /** Sets with more members are refused, and with them the chains that look at them. */
  readonly maxMembers?: number;
  /** While it is open nobody else can change it, where the kernel can promise that; it stays when it is closed. */
  readonly isOwned?: boolean;
  /** What others did to the table was put right. */
  readonly onRepaired?: (what: readonly string[]) => void;
  /** A repair failed, and is tried again; or what others do is not heard of any more. */
  readonly onFailure?: (error: unknown) => void;
}

/** Felix's maxIpsetSize. */
const MAX_MEMBERS = 1 << 20;
/** Milliseconds that a scan keeps the event loop from others. */
const SLICE = 4;

export function openKeptTable(options: KeptTableOptions): KeptTable {
  const { table, namespace, maxMembers = MAX_MEMBERS, isOwned = false, onRepaired, onFailure } = options;
  const nftables = shareNftables(namespace);
  const kept: Kept = {
    table,
    form: isOwned && hasOwners(nftables) ? { ...table, owned: true, persistent: true } : table,
    chains: new Map(),
    sets: new Map(),
    refused: new Map(),
    present: { chains: new Set(), sets: new Set() },
    maxMembers,
  };
  const kernel = kernelTable(kept, nftables.parts);
  /** The kernel was compared with what should be, and all that was done since is known. */
  let isKnown = false;
  let isWanting = false;
  let open = true;

  const repairs = openRepairs(nftables, table, repair, (error) => onFailure?.(error));

  /** Returns what others had changed, in words. */
  function repair(suspects: Suspects): readonly string[] {
    if (!isWanting) return [];
    if (!isKnown) {
      adopt();
      return [];
    }
    if (suspects.all) {
      check().catch((error: unknown) => {
        repairs.retry();
        onFailure?.(error);
      });
      return [];
    }
    const hadTable = kernel.exists();
    const { difference, isHopeless } = kernel.survey();
    if (!isHopeless && kernel.exists()) {
      for (const name of suspects.chains) kernel.inspectChain(name, difference);
      for (const name of suspects.sets) kernel.inspectSet(name, difference);
    }
    if (!isHopeless && difference.chains.size === 0 && difference.sets.size === 0) return [];
    const isGone = hadTable && !kernel.exists();
    const what = isHopeless
      ? [`table ${table.family} ${table.name} held what could not stay`]
      : isGone
        ? [`table ${table.family} ${table.name} was gone`]
        : describeDifference(kept, difference);
    carryOut(difference, isHopeless);
    onRepaired?.(what);
    return what;
  }

  /** Brings the kernel from wherever it is to where it should be. */
  function adopt(): void {
    const { difference, isHopeless } = kernel.survey();
    if (!isHopeless && kernel.exists()) {
      // An agent before us owned it.
      if (kept.form.owned === true) nftables.apply([{ kind: "addTable", table: kept.form }]);
      for (const name of kept.chains.keys()) kernel.inspectChain(name, difference);
      for (const name of kept.sets.keys()) kernel.inspectSet(name, difference);
    }
    carryOut(difference, isHopeless);
    isKnown = true;
  }

  function carryOut(difference: Difference, isAnew = false): void {
    try {
      settle({ kept, kernel, nftables }, difference, isAnew);
    } catch (error) {
      isKnown = false;
      repairs.retry();
      throw error;
    }
  }

  /** Takes the change into what should be. Returns what the kernel lacks of it. */
  function take(change: TableChange): Difference {
    const difference = noDifference();
    for (const [name, of] of change.sets) {
      const form = (of?.set ?? kept.sets.get(name))?.form;
      kept.refused.delete(setUnit(name));
      if (of === undefined) kept.sets.delete(name);
      else kept.sets.set(name, of.set);
      const remove = of?.removed.flatMap((member) => (form === undefined ? [] : keyOf(form, member)));
      difference.sets.set(name, { add: of?.added ?? [], remove: remove ?? [] });
    }
    for (const [name, chain] of change.chains) {
      kept.refused.delete(chainUnit(name));
      if (chain === undefined) kept.chains.delete(name);
      else kept.chains.set(name, chain);
      difference.chains.add(name);
    }
    for (const [unit, { because }] of kept.refused) {
      if (because === undefined || !change.sets.has(because)) continue;
      kept.refused.delete(unit);
      difference.chains.add(nameOf(unit));
    }
    return difference;
  }

  /** The reason may have passed, as where the kernel had no memory. */
  function tryRefusedAgain(): void {
    if (kept.refused.size === 0) return;
    const difference = noDifference();
    for (const unit of kept.refused.keys()) {
      if (unit.startsWith("chain ")) difference.chains.add(nameOf(unit));
      else difference.sets.set(nameOf(unit), "unknown");
    }
    kept.refused.clear();
    carryOut(difference);
  }

  async function check(): Promise<readonly string[]> {
    if (!isWanting || !isKnown) return repair({ chains: new Set(), sets: new Set(), all: true });
    tryRefusedAgain();
    const turns = takingTurns();
    const wrong = noDifference();
    for (const name of kept.chains.keys()) {
      await turns();
      if (!open) return [];
      kernel.inspectChain(name, wrong);
    }
    for (const name of kept.sets.keys()) {
      await turns();
      if (!open) return [];
      kernel.inspectSet(name, wrong);
    }
    return repair({ chains: wrong.chains, sets: new Set(wrong.sets.keys()), all: false });
  }

  return {
    apply(change) {
      isWanting = true;
      const difference = take(change);
      if (isKnown) carryOut(difference);
      else adopt();
      return [...kept.refused].flatMap(([unit, { reason }]) => {
        const chain = unit.startsWith("chain ") ? kept.chains.get(nameOf(unit)) : undefined;
        return chain === undefined ? [] : [{ origin: chain.origin, reason }];
      });
    },
    check,
    async counts() {
      const turns = takingTurns();
      const sums = new Map<ChainRule, Counts>();
      for (const name of kernel.counting()) {
        await turns();
        if (!open) break;
        for (const [rule, { packets, bytes }] of kernel.counted(name) ?? []) {
          const sum = sums.get(rule) ?? { packets: 0, bytes: 0 };
          sums.set(rule, { packets: sum.packets + packets, bytes: sum.bytes + bytes });
        }
      }
      return sums;
    },
    remove() {
      [isWanting, isKnown] = [false, false];
      // What leads there goes first: a packet that is just passing through would find maps that are empty already.
      const hooks = nftables.parts.chains(table).filter(({ base }) => base !== undefined);
      if (hooks.length > 0) nftables.apply(hooks.map((chain) => ({ kind: "flushChain", chain })));
      if (nftables.parts.table(table) !== undefined) nftables.apply([{ kind: "deleteTable", table }]);
      for (const map of [kept.chains, kept.sets, kept.refused]) map.clear();
      kernel.forget();
    },
    close() {
      open = false;
      repairs.close();
      nftables.close();
    },
  };
}

/** Whether the kernel knows of owners that tables outlive: as Linux does since 6.9. */
function hasOwners(nftables: Nftables): boolean {
  const table: Table = { family: "ip", name: "caracal-trial", owned: true, persistent: true };
  try {
    nftables.apply([{ kind: "addTable", table }], { isTrial: true });
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOTSUP") return false;
    throw error;
  }
}

/** What is no member was never there. */
function keyOf(form: SetForm, member: string): KeyRange[] {
  try {
    return [form.encode(member)];
  } catch (error) {
    if (error instanceof Failure) return [];
    throw error;
  }
}

/** To be awaited between pieces of work, which then do not keep others waiting. */
function takingTurns(): () => Promise<void> | undefined {
  let began = performance.now();
  return () => {
    if (performance.now() - began < SLICE) return undefined;
    return new Promise((resolve) => {
      setImmediate(() => {
        began = performance.now();
        resolve();
      });
    });
  };
}
