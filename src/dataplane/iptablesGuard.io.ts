import type { Family } from "../ip/address.ts";
import { shareNftables } from "../netlink/nftables.io.ts";
import { isOurChain } from "./iptablesNames.ts";
import { LAYERS } from "./iptablesSave.ts";

/** When tables of iptables are looked at unasked: after others have changed them, and a while after they were written. */
export interface IptablesGuard {
  /** What is heard while this goes on is our own doing. */
  during<Result>(writing: () => Promise<Result>): Promise<Result>;
  close(): void;
}

export interface IptablesGuardOptions {
  readonly family: Family;
  /** Path of a network namespace; without it the calling thread's. */
  readonly namespace?: string;
  /** Whether the tables are nf_tables': only these tell of their changes. */
  readonly listens: boolean;
  /** Felix's IptablesPostWriteCheckInterval: milliseconds; 0: not at all. */
  readonly afterWriteMs: number;
  /** Looks, and puts right what is not as it should be. */
  readonly look: () => Promise<unknown>;
  readonly onFailure: (error: unknown) => void;
}

/** Milliseconds from one look to the next: the first is immediate, and who fights us gets slower and slower answers. */
const FIRST_PAUSE = 20;
const LONGEST_PAUSE = 800;
/** Milliseconds of peace after which a look is the first again. */
const PEACE = 3000;
/** So long after our own writing its last words may still be heard. Milliseconds. */
const ECHO = 50;

export function openIptablesGuard(options: IptablesGuardOptions): IptablesGuard {
  const { family, namespace, listens, afterWriteMs, look, onFailure } = options;
  let timer: NodeJS.Timeout | undefined;
  let due = Infinity;
  let last = -Infinity;
  let pause = 0;
  let writers = 0;
  let quietUntil = -Infinity;

  function lookIn(milliseconds: number): void {
    const at = performance.now() + milliseconds;
    if (at >= due) return;
    due = at;
    clearTimeout(timer);
    timer = setTimeout(run, milliseconds).unref();
  }

  function run(): void {
    due = Infinity;
    last = performance.now();
    pause = Math.min(LONGEST_PAUSE, Math.max(FIRST_PAUSE, pause * 2));
    look().catch(onFailure);
  }

  function heard(): void {
    const now = performance.now();
    // Whose doing it was is not known then: what others did is found by the look that follows every writing.
    if (writers > 0 || now < quietUntil) return;
    if (now - last > PEACE) pause = 0;
    lookIn(Math.max(0, last + pause - now));
  }

  const nftables = listens ? shareNftables(namespace) : undefined;
  const stops = LAYERS.map((layer) =>
    nftables?.watchTable(
      { family: family === 4 ? "ip" : "ip6", name: layer },
      {
        changed(chains) {
          // Where chains or the table itself come and go, no rule is named.
          if (chains.size === 0 || [...chains].some(concernsUs)) heard();
        },
        overrun: heard,
        failed: onFailure,
      },
    ),
  );

  return {
    async during(writing) {
      writers += 1;
      try {
        return await writing();
      } finally {
        writers -= 1;
        quietUntil = performance.now() + ECHO;
        if (afterWriteMs > 0) lookIn(afterWriteMs);
      }
    },
    close() {
      clearTimeout(timer);
      for (const stop of stops) stop?.();
      nftables?.close();
    },
  };
}

const HOOKS: ReadonlySet<string> = new Set(["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]);
/** Others' own chains, as kube-proxy's, change all the time. */
const concernsUs = (chain: string): boolean => isOurChain(chain) || HOOKS.has(chain);
