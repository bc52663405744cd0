/** The kernel's packet filter through iptables-restore and ipset: see `openIptablesKernelRules`. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Family } from "../ip/address.ts";
import { codeOf, Failure } from "../lib/errors.ts";
import { ipsets } from "./ipset.io.ts";
import { countsOf } from "./iptablesCounts.ts";
import { openIptablesGuard } from "./iptablesGuard.io.ts";
import type { IptablesBackend } from "./iptablesMode.ts";
import { iptablesModel } from "./iptablesModel.ts";
import { isOurChain } from "./iptablesNames.ts";
import { scratchMarks } from "./iptablesRender.ts";
import { LAYERS } from "./iptablesSave.ts";
import { kernelTables } from "./iptablesTables.io.ts";
import type { KernelRules } from "./ruleset.ts";

export interface IptablesOptions {
  readonly family: Family;
  readonly backend: IptablesBackend;
  /** Path of the network namespace; absent: the caller's own. */
  readonly namespace?: string;
  /** Seconds to wait for another program's hold on the tables (`-w`). 10 where not given. */
  readonly lockTimeout?: number;
  /** Milliseconds that any one iptables or ipset may take. 60,000 where not given. */
  readonly commandTimeout?: number;
  /** Felix's ChainInsertMode: where rules go that are to come first. */
  readonly chainInsertMode?: "insert" | "append";
  /** Felix's MaxIpsetSize: members that a set has room for from the start; what outgrows it is made anew. */
  readonly maxSetSize?: number;
  /** Felix's IptablesMarkMask; its fourth and fifth bit are used here. */
  readonly markMask?: number;
  /** Felix's IptablesPostWriteCheckInterval: milliseconds after a change in which the tables are looked at again. */
  readonly afterWriteMs?: number;
  /** Others had changed the tables, in the ways told, and they were put right. */
  readonly onRepaired?: (what: readonly string[]) => void;
  /** A repair failed; or what others do cannot be heard of any more. */
  readonly onFailure?: (error: unknown) => void;
}

const toolOf = (family: Family, backend: IptablesBackend): string =>
  `${family === 4 ? "iptables" : "ip6tables"}-${backend}`;

/** Destroying a set keeps its caller in the kernel for long; nobody waits for us then. */
const DESTROY_AFTER_MS = 500;
/** The kernel lets go of the sets of removed rules a little later. */
const REMOVE_TRIES = 40;
const REMOVE_PAUSE_MS = 25;

/**
 * The form that the kernel had first. Each table is one transaction, in the order raw, mangle, nat, filter; sets and
 * their members come before all of them and go after them. Nothing is read or written before the first call, which also takes out what the
 * other backend has of ours. What is refused is tried again when it changes and at `check`. Calls reject with `Failure`
 * where a tool is missing, does not end, or is refused as a whole; the next call then compares everything anew.
 */
export function openIptablesKernelRules(options: IptablesOptions): KernelRules {
  const { family, backend, lockTimeout = 10, commandTimeout = 60_000, maxSetSize = 1_048_576 } = options;
  const within = options.namespace === undefined ? {} : { namespace: options.namespace };
  const tool = toolOf(family, backend);
  const mode = options.chainInsertMode ?? "insert";
  const scratch = scratchMarks(options.markMask ?? 0xffff0000);
  const model = iptablesModel(family, scratch);
  const sets = ipsets({ family, commandTimeout, maxSetSize, ...within });
  const guard = openIptablesGuard({
    family,
    ...within,
    listens: backend === "nft",
    afterWriteMs: options.afterWriteMs ?? 0,
    look: lookUnasked,
    onFailure: (error) => options.onFailure?.(error),
  });
  const tableOptions = { tool, lockTimeout, commandTimeout, mode, ...within };
  const tables = kernelTables(model, { ...tableOptions, during: (writing) => guard.during(writing) });
  let destroying: NodeJS.Timeout | undefined;
  let isClosed = false;

  let last: Promise<unknown> = Promise.resolve();
  /** One thing after the other. After a failure, nothing is taken for known. */
  function inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = last.then(async () => {
      if (isClosed) throw new Failure("closed", `Cannot use the rules of ${tool}: they were let go`);
      try {
        return await work();
      } catch (error) {
        tables.forget();
        throw error;
      }
    });
    last = result.catch(() => undefined);
    return result;
  }

  async function write(): Promise<void> {
    for (const [id, reason] of await sets.write()) model.refuseSet(id, reason);
    await tables.write();
    const refused = await sets.prune();
    if (refused.size === 0) return;
    for (const [id, reason] of refused) model.refuseSet(id, reason);
    await tables.write();
  }

  /** What an agent left that was told to use the other backend: the kernel would ask both. */
  async function clearOther(): Promise<void> {
    const other = toolOf(family, backend === "legacy" ? "nft" : "legacy");
    const leftovers = kernelTables(iptablesModel(family, scratch), { ...tableOptions, tool: other });
    try {
      const saved = await leftovers.save();
      if (LAYERS.some((layer) => [...saved[layer].keys()].some(isOurChain))) await leftovers.removeAll();
    } catch (error) {
      if (codeOf(error) !== "tool-missing") throw error;
    }
  }

  async function check(): Promise<string[]> {
    const differences = [...(await sets.compare()), ...(await tables.compare())];
    model.retry();
    await write();
    await sets.destroyGone();
    return differences;
  }

  async function lookUnasked(): Promise<void> {
    if (isClosed) return;
    // Before the first change nothing is wanted, and after the last nothing any more.
    const found = await inTurn(async () => (tables.isKnown() ? check() : []));
    if (found.length > 0) options.onRepaired?.(found);
  }

  function destroySoon(): void {
    if (sets.gone().length === 0 || isClosed) return;
    destroying ??= setTimeout(() => {
      destroying = undefined;
      // What cannot be destroyed yet is tried again when everything is compared.
      inTurn(() => sets.destroyGone()).catch(() => undefined);
    }, DESTROY_AFTER_MS).unref();
  }

  return {
    apply(change) {
      return inTurn(async () => {
        // A change that cannot be carried out now is part of what the next call brings.
        model.change(change);
        sets.change(change.sets);
        const isFirst = !tables.isKnown();
        if (isFirst) await sets.compare();
        await write();
        if (isFirst) await clearOther();
        destroySoon();
        return model.refusals();
      });
    },
    check: () => inTurn(check),
    counts() {
      return inTurn(async () => countsOf(await tables.save(), model.tables));
    },
    remove() {
      return inTurn(async () => {
        model.clear();
        const left = await tables.removeAll();
        tables.forget();
        for (let tries = 0; tries < REMOVE_TRIES && (await sets.removeAll()).length > 0; tries += 1) {
          await sleep(REMOVE_PAUSE_MS);
        }
        if (left.length === 0) return;
        throw new Failure("left-behind", `Cannot remove ${left.join(", ")} with ${tool}: rules of others lead there`);
      });
    },
    close() {
      isClosed = true;
      guard.close();
      clearTimeout(destroying);
    },
  };
}
