/**
 * What of policy is in the kernel, by which drivers: opened anew when another renderer takes over, and where it is not known
 * any more what is there.
 */
import type { NodeFacts } from "../dataplane/nodeFacts.ts";
import { ruleContext } from "../dataplane/ruleContext.ts";
import type { KernelRules, RuleCount, RulesetChange } from "../dataplane/ruleset.ts";
import { rulesetBuilder, type RulesetBuilder, type TableSize } from "../dataplane/rulesetBuilder.ts";
import type { Timers } from "../datastore/mirror.ts";
import type { Family } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import type { Difference } from "../policy/compile.ts";
import type { Renderer } from "./nodeFacts.ts";
import type { PolicyProblems } from "./policyProblems.ts";

export interface PolicyDriversOptions {
  readonly families: readonly Family[];
  open(renderer: Renderer, family: Family): Promise<KernelRules>;
  /** Takes out of the kernel what the renderer has left in it. */
  clear(renderer: Renderer, family: Family): Promise<void>;
  /** All that policy wants, as if nothing had been told before. */
  everything(): Difference;
  readonly problems: PolicyProblems;
  readonly timers: Timers;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

/** One call at a time, but for `setFacts` and what returns at once. */
export interface PolicyDrivers {
  /** Throws `RulesetError` for settings that cannot be carried out: those before stay in force. */
  setFacts(facts: NodeFacts, renderer: Renderer, driverSettings: string): void;
  /** What the rules need besides policy, without any policy, in these families; the others stay as they are. */
  guard(families: readonly Family[]): Promise<void>;
  /** Brings what is wanted now into the kernel. Rejects where the kernel fails; the next call then begins anew. */
  carryOut(difference: Difference): Promise<void>;
  check(): Promise<readonly string[]>;
  /** Learns what the kernel refuses now. */
  askRefusals(): Promise<void>;
  counts(): Promise<readonly RuleCount[]>;
  renderer(): Renderer | undefined;
  size(): readonly TableSize[];
  /** Lets go; the kernel keeps everything. */
  close(): void;
}

/** Before the other renderer's rules are removed once more. */
const CLEAR_AGAIN_MS = 10_000;

interface InKernel {
  readonly renderer: Renderer;
  readonly builder: RulesetBuilder;
  readonly drivers: ReadonlyMap<Family, KernelRules>;
}

export function policyDrivers(options: PolicyDriversOptions): PolicyDrivers {
  const { families, problems, timers, log } = options;
  let facts: NodeFacts | undefined;
  let wanted: Renderer | undefined;
  let settingsOfDrivers = "";
  let kernel: InKernel | undefined;
  /** Whether the kernel's rules are as the builder thinks: not after a failure that nobody understands. */
  let isTrusted = true;
  /** Another renderer's rules, of an earlier agent or of this one, may still be there. */
  let othersMayBeThere = true;
  /** Their removal, while it is under way. */
  let removing: Promise<void> | undefined;
  let closed = false;

  /** Everything anew: the drivers compare it with what the kernel has. */
  async function reopen(): Promise<InKernel> {
    if (wanted === undefined || facts === undefined) throw new Error("what the rules depend on is not known yet");
    const renderer = wanted;
    if (kernel !== undefined) {
      if (kernel.renderer !== renderer) {
        othersMayBeThere = true;
        // What is written from now on must not be taken out with what was there before.
        await removing;
      }
      closeDrivers(kernel);
      kernel = undefined;
    }
    const builder = rulesetBuilder(families);
    builder.setFacts(facts);
    builder.update(options.everything());
    const drivers = new Map<Family, KernelRules>();
    // oxlint-disable-next-line no-await-in-loop -- there are two
    for (const family of families) drivers.set(family, await options.open(renderer, family));
    kernel = { renderer, builder, drivers };
    problems.startOver();
    isTrusted = true;
    return kernel;
  }

  async function apply({ drivers }: InKernel, changes: readonly RulesetChange[]): Promise<void> {
    // The families have nothing to do with each other; of one, the order counts.
    const ofFamilies = [...drivers].map(async ([family, driver]) => {
      for (const change of changes) {
        if (change.family !== family) continue;
        // oxlint-disable-next-line no-await-in-loop
        const refusals = await driver.apply(change);
        for (const { origin, reason } of problems.refused(family, refusals))
          log("warn", "the kernel refused a rule; it drops", { origin, reason });
      }
    });
    // After a failure the drivers are opened anew: none of them may be at work then.
    const outcomes = await Promise.allSettled(ofFamilies);
    for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  }

  /** Never both at once: after this renderer's rules are in force, the other's go. */
  function startRemoval(renderer: Renderer): void {
    removing ??= removeOthers(renderer).finally(() => (removing = undefined));
  }
  async function removeOthers(renderer: Renderer): Promise<void> {
    othersMayBeThere = false;
    const other: Renderer = renderer === "nft" ? "iptables" : "nft";
    try {
      // oxlint-disable-next-line no-await-in-loop -- one lock guards both
      for (const family of families) await options.clear(other, family);
    } catch (error) {
      log("warn", "rules of the other renderer could not be removed", { renderer: other, reason: messageOf(error) });
      othersMayBeThere = true;
      timers.setTimeout(() => {
        if (!closed && othersMayBeThere && kernel?.renderer === renderer) startRemoval(renderer);
      }, CLEAR_AGAIN_MS);
    }
  }

  function closeDrivers({ drivers }: InKernel): void {
    for (const driver of drivers.values()) driver.close();
  }

  return {
    setFacts(now, renderer, driverSettings) {
      if (driverSettings !== settingsOfDrivers) isTrusted = false;
      settingsOfDrivers = driverSettings;
      if (kernel?.renderer === renderer) kernel.builder.setFacts(now);
      else ruleContext(now);
      facts = now;
      wanted = renderer;
    },
    async guard(open) {
      const of = await reopen();
      await apply(
        of,
        of.builder.take().filter(({ family }) => open.includes(family)),
      );
      // The others have not been told what was taken.
      if (open.length < families.length) isTrusted = false;
    },
    async carryOut(difference) {
      try {
        let of = kernel;
        if (of === undefined || !isTrusted || of.renderer !== wanted) of = await reopen();
        else of.builder.update(difference);
        await apply(of, of.builder.take());
        if (othersMayBeThere) startRemoval(of.renderer);
      } catch (error) {
        isTrusted = false;
        throw error;
      }
    },
    async check() {
      if (kernel === undefined) return [];
      const found = await Promise.all([...kernel.drivers.values()].map((driver) => driver.check()));
      // What was refused was tried again.
      await apply(kernel, families.map(noChange));
      return found.flat();
    },
    async askRefusals() {
      if (kernel !== undefined) await apply(kernel, families.map(noChange));
    },
    async counts() {
      const all = await Promise.all([...(kernel?.drivers.values() ?? [])].map((driver) => driver.counts()));
      return all.flat();
    },
    renderer: () => kernel?.renderer,
    size: () => kernel?.builder.size() ?? [],
    close() {
      closed = true;
      if (kernel !== undefined) closeDrivers(kernel);
    },
  };
}

function noChange(family: Family): RulesetChange {
  return { family, chains: new Map(), maps: new Map(), sets: [] };
}
