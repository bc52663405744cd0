/**
 * From updates to the kernel: the compiler, the builder of rules and the drivers of both address families, one change after
 * the other. What comes together is carried out together; nothing waits for a time to pass.
 */
import type { NodeFacts } from "../dataplane/nodeFacts.ts";
import type { RuleCount } from "../dataplane/ruleset.ts";
import type { TableSize } from "../dataplane/rulesetBuilder.ts";
import type { Family } from "../ip/address.ts";
import { messageOf } from "../lib/errors.ts";
import { compiler, wholeDifference, type Compiler, type CompilerSize, type Difference } from "../policy/compile.ts";
import type { HostInterface, Update } from "../policy/model.ts";
import type { Renderer } from "./nodeFacts.ts";
import { policyDrivers, type PolicyDriversOptions } from "./policyDrivers.ts";
import { policyProblems, type PolicyProblems } from "./policyProblems.ts";

export interface PolicyEngineOptions extends Omit<PolicyDriversOptions, "everything" | "problems"> {
  readonly node: string;
  /** Runs the work when all that is waiting to be read has been read. */
  readonly soon: (work: () => void) => void;
  /** Something was carried out, in so many milliseconds. */
  onApplied?(milliseconds: number): void;
  /** Something could not be carried out; it is tried again. */
  onFailed?(): void;
  /** After a change of what local endpoints may do. */
  onChanged?(difference: Difference): void;
}

export interface PolicyEngine {
  readonly problems: PolicyProblems;
  update(update: Update): void;
  /** The node's interfaces that are not workloads'. */
  setInterfaces(interfaces: readonly HostInterface[]): void;
  /**
   * Before anything reaches the kernel. Another renderer takes the place of the one before; with other settings of their
   * own, in whatever form, drivers are opened anew. `fault`: why these are not those that people have asked for.
   */
  setFacts(facts: NodeFacts, renderer: Renderer, driverSettings?: string, fault?: string): void;
  /**
   * Puts in the kernel what is there without any endpoint: no workload's packet goes anywhere. For families of which the
   * kernel has nothing of an earlier agent's.
   */
  guard(families: readonly Family[]): Promise<void>;
  /** Everything that decides has been told once: from now on the kernel follows. */
  start(): void;
  /** Carries out what was told without waiting for more to come, unless something is being carried out already. */
  flush(): void;
  /** Resolves with whether everything told until now is in the kernel in time. */
  settled(timeoutMs: number): Promise<boolean>;
  isSettled(): boolean;
  /** Looks whether the kernel has what it should, puts it right, and says what that was. */
  check(): Promise<readonly string[]>;
  /** After the kernel's rules were put right: learns what it refuses now. */
  askRefusals(): Promise<void>;
  counts(): Promise<readonly RuleCount[]>;
  readonly tables: () => ReturnType<Compiler["tables"]>;
  status(): PolicyEngineStatus;
  /** How much there is in the kernel. */
  ruleSizes(): readonly TableSize[];
  /** Lets go; the kernel keeps everything. */
  close(): Promise<void>;
}

export interface PolicyEngineStatus {
  readonly renderer: Renderer | undefined;
  /** How many changes of the datastore and of this node have been told, and how many of them are in the kernel. */
  readonly told: number;
  readonly inKernel: number;
  /** Why the last try failed. */
  readonly failure: string | undefined;
  /** Why the settings are not carried out; those before are in force. */
  readonly fault: string | undefined;
  readonly size: CompilerSize;
}

const RETRY_MS = { first: 100, longest: 10_000 };

export function policyEngine(options: PolicyEngineOptions): PolicyEngine {
  const { node, timers, soon, log } = options;
  const compiled = compiler(node);
  const problems = policyProblems();
  const drivers = policyDrivers({ ...options, problems, everything: () => wholeDifference(compiled.state()) });
  let factsText = "";
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
        options.onFailed?.();
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
    await drivers.carryOut(difference);
    options.onChanged?.(difference);
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
    setFacts(now, renderer, driverSettings = "", wrong) {
      if (wrong !== undefined && wrong !== fault)
        log("warn", "settings cannot be carried out; those before stay in force", { reason: wrong });
      fault = wrong;
      const text = JSON.stringify([now, renderer, driverSettings]);
      if (text === factsText) return;
      drivers.setFacts(now, renderer, driverSettings);
      factsText = text;
      changed();
    },
    guard: (families) => inTurn(() => drivers.guard(families)),
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
    check: () => inTurn(() => drivers.check()),
    askRefusals: () => inTurn(() => drivers.askRefusals()),
    counts: () => inTurn(() => drivers.counts()),
    tables: () => compiled.tables(),
    ruleSizes: () => drivers.size(),
    status: () => ({
      renderer: drivers.renderer(),
      told,
      inKernel,
      failure,
      fault,
      size: compiled.size(),
    }),
    async close() {
      closed = true;
      while (busy !== undefined) await busy;
      drivers.close();
    },
  };
}
