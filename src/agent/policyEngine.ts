/**
 * From updates to the kernel: the compiler, the builder of rules and the drivers of both address families, one change after
 * the other. What comes together is carried out together; nothing waits for a time to pass.
 */
import type { NodeFacts } from "../dataplane/nodeFacts.ts";
import { ruleContext } from "../dataplane/ruleContext.ts";
import type { KernelRules, RuleCount, RulesetChange } from "../dataplane/ruleset.ts";
import { rulesetBuilder, type RulesetBuilder } from "../dataplane/rulesetBuilder.ts";
import type { Family } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import { compiler, wholeDifference, type Compiler, type CompilerSize, type Difference } from "../policy/compile.ts";
import type { HostInterface, Update } from "../policy/model.ts";
import type { Timers } from "../datastore/mirror.ts";
import type { Renderer } from "./nodeFacts.ts";
import { policyProblems, type PolicyProblems } from "./policyProblems.ts";

export interface PolicyEngineOptions {
  readonly node: string;
  readonly families: readonly Family[];
  open(renderer: Renderer, family: Family): Promise<KernelRules>;
  /** Takes out of the kernel what the renderer has left in it. */
  clear(renderer: Renderer, family: Family): Promise<void>;
  readonly timers: Timers;
  /** Runs the work when all that is waiting to be read has been read. */
  readonly soon: (work: () => void) => void;
  /** Something was carried out: milliseconds, and whether it succeeded. */
  onApplied?(milliseconds: number): void;
  /** After a change of what local endpoints may do. */
  onChanged?(difference: Difference): void;
  readonly log: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

export interface PolicyEngine {
  readonly problems: PolicyProblems;
  update(update: Update): void;
  /** The node's interfaces that are not workloads'. */
  setInterfaces(interfaces: readonly HostInterface[]): void;
  /**
   * Before anything reaches the kernel. Another renderer takes the place of the one before; with other settings of their
   * own, in whatever form, drivers are opened anew.
   */
  setFacts(facts: NodeFacts, renderer: Renderer, driverSettings?: string): void;
  /**
   * Puts in the kernel what is there without any endpoint: no workload's packet goes anywhere. For a kernel that has
   * nothing of an earlier agent's.
   */
  guard(): Promise<void>;
  /** Everything that decides has been told once: from now on the kernel follows. */
  start(): void;
  /** Carries out what was told without waiting for more to come, unless something is being carried out already. */
  flush(): void;
  /** Resolves with whether everything told until now is in the kernel in time. */
  settled(timeoutMs: number): Promise<boolean>;
  isSettled(): boolean;
  /** Looks whether the kernel has what it should, puts it right, and says what that was. */
  check(): Promise<readonly string[]>;
  counts(): Promise<readonly RuleCount[]>;
  readonly tables: () => ReturnType<Compiler["tables"]>;
  status(): PolicyEngineStatus;
  /** Lets go; the kernel keeps everything. */
  close(): Promise<void>;
}

export interface PolicyEngineStatus {
  readonly renderer: Renderer | undefined;
  /** How many changes of the datastore and of this node have been told, and how many of them are in the kernel. */
  readonly told: number;
  readonly inKernel: number;
  /** Why the last try failed, or settings are not carried out. */
  readonly failure: string | undefined;
  readonly size: CompilerSize;
}

const RETRY_MS = { first: 100, longest: 10_000 };

/** What is in the kernel, and by which driver. */
interface InKernel {
  readonly renderer: Renderer;
  readonly builder: RulesetBuilder;
  readonly drivers: ReadonlyMap<Family, KernelRules>;
}

export function policyEngine(options: PolicyEngineOptions): PolicyEngine {
  const { node, families, timers, soon, log } = options;
  const compiled = compiler(node);
  const problems = policyProblems();
  let facts: NodeFacts | undefined;
  let factsText = "";
  let settingsOfDrivers = "";
  let wanted: Renderer | undefined;
  let kernel: InKernel | undefined;
  /** Whether the kernel's rules are as the builder thinks: not after a failure that nobody understands. */
  let isTrusted = true;
  /** Another renderer's rules, of an earlier agent or of this one, may still be there. */
  let othersMayBeThere = true;
  /** They are being taken out. */
  let removing: Promise<void> | undefined;
  let told = 0;
  let inKernel = 0;
  let started = false;
  let closed = false;
  let isScheduled = false;
  let working: Promise<void> | undefined;
  let busy: Promise<unknown> | undefined;
  let failure: string | undefined;
  /** What is wrong with the settings. */
  let fault: string | undefined;
  const waiters = new Set<{ readonly target: number; readonly done: () => void }>();

  function changed(): void {
    told += 1;
    if (!started || isScheduled || working !== undefined) return;
    isScheduled = true;
    soon(() => {
      isScheduled = false;
      flush();
    });
  }
  function flush(): void {
    if (!started || closed || working !== undefined || inKernel === told) return;
    const work = workOff();
    working = work;
    void work.finally(() => {
      working = undefined;
      if (told > inKernel) flush();
    });
  }

  async function workOff(): Promise<void> {
    let pause = RETRY_MS.first;
    while (inKernel < told && !closed) {
      const upTo = told;
      const began = timers.now();
      try {
        // oxlint-disable-next-line no-await-in-loop -- one after the other is what it is about
        await inTurn(carryOut);
        options.onApplied?.(timers.now() - began);
        failure = undefined;
        pause = RETRY_MS.first;
        inKernel = upTo;
        for (const waiter of waiters) if (waiter.target <= inKernel) waiter.done();
      } catch (error) {
        failure = messageOf(error);
        isTrusted = false;
        log("warn", "policy cannot be brought into the kernel", { reason: failure, retryMs: pause });
        // oxlint-disable-next-line no-await-in-loop
        await wait(pause);
        pause = Math.min(2 * pause, RETRY_MS.longest);
      }
    }
  }

  /** One piece of work in the kernel at a time. It begins at once where none is under way. */
  async function inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    while (busy !== undefined) await busy;
    const done = work();
    const mine = done
      .catch(() => undefined)
      .finally(() => {
        if (busy === mine) busy = undefined;
      });
    busy = mine;
    return done;
  }

  async function carryOut(): Promise<void> {
    const difference = compiled.take();
    problems.compiled(difference);
    let of = kernel;
    if (of === undefined || !isTrusted || of.renderer !== wanted) of = await reopen();
    else of.builder.update(difference);
    await apply(of, of.builder.take());
    options.onChanged?.(difference);
    if (othersMayBeThere) startRemoval(of.renderer);
  }

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
    builder.update(wholeDifference(compiled.state()));
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
      }, RETRY_MS.longest);
    }
  }

  function closeDrivers({ drivers }: InKernel): void {
    for (const driver of drivers.values()) driver.close();
  }

  function wait(milliseconds: number): Promise<void> {
    return new Promise((resolve) => void timers.setTimeout(resolve, milliseconds));
  }

  return {
    problems,
    update(update) {
      problems.told(update);
      compiled.update(update);
      changed();
    },
    setInterfaces(interfaces) {
      compiled.setInterfaces(interfaces);
      changed();
    },
    setFacts(now, renderer, driverSettings = "") {
      const text = JSON.stringify([now, renderer, driverSettings]);
      if (text === factsText) return;
      if (driverSettings !== settingsOfDrivers) isTrusted = false;
      settingsOfDrivers = driverSettings;
      factsText = text;
      try {
        if (kernel?.renderer === renderer) kernel.builder.setFacts(now);
        else ruleContext(now);
      } catch (error) {
        fault = messageOf(error);
        return log("warn", "settings cannot be carried out; those before stay in force", { reason: fault });
      }
      fault = undefined;
      facts = now;
      wanted = renderer;
      changed();
    },
    async guard() {
      await inTurn(async () => {
        const of = await reopen();
        await apply(of, of.builder.take());
      });
    },
    start() {
      started = true;
      flush();
    },
    flush,
    isSettled: () => started && inKernel === told,
    settled(timeoutMs) {
      if (started && inKernel === told) return Promise.resolve(true);
      const target = told;
      return new Promise((resolve) => {
        const finish = (isThere: boolean): void => {
          timers.clearTimeout(timer);
          waiters.delete(waiter);
          resolve(isThere);
        };
        const waiter = { target, done: () => finish(true) };
        const timer = timers.setTimeout(() => finish(false), timeoutMs);
        waiters.add(waiter);
      });
    },
    check: () =>
      inTurn(async () => {
        if (kernel === undefined) return [];
        const found = await Promise.all([...kernel.drivers.values()].map((driver) => driver.check()));
        // What was refused was tried again: this asks what is refused still.
        await apply(kernel, families.map(noChange));
        return found.flat();
      }),
    counts: () =>
      inTurn(async () => {
        const all = await Promise.all([...(kernel?.drivers.values() ?? [])].map((driver) => driver.counts()));
        return all.flat();
      }),
    tables: () => compiled.tables(),
    status: () => ({
      renderer: kernel?.renderer,
      told,
      inKernel,
      failure: fault ?? failure,
      size: compiled.size(),
    }),
    async close() {
      closed = true;
      while (busy !== undefined) await busy;
      if (kernel !== undefined) closeDrivers(kernel);
    },
  };
}

function noChange(family: Family): RulesetChange {
  return { family, chains: new Map(), maps: new Map(), sets: [] };
}
