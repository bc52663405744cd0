import type { Nftables } from "../netlink/nftables.io.ts";
import type { TableName } from "../netlink/nftTable.ts";

/** When a table that others have changed is looked at. */
export interface Repairs {
  /** The repair failed, or what is there is not known any more: later again. */
  retry(): void;
  close(): void;
}

/** What others may have changed, by name. */
export interface Suspects {
  readonly chains: ReadonlySet<string>;
  readonly sets: ReadonlySet<string>;
  /** Anything. */
  readonly all: boolean;
}

/** Milliseconds from one repair to the next: the first is immediate, and who fights us gets slower and slower answers. */
const FIRST_PAUSE = 20;
const LONGEST_PAUSE = 800;
/** Milliseconds of peace after which a repair is the first again. */
const PEACE = 3000;

/** Calls `repair` after others have changed the table; it may throw. */
export function openRepairs(
  nftables: Nftables,
  table: TableName,
  repair: (suspects: Suspects) => unknown,
  onFailure: (error: unknown) => void,
): Repairs {
  const [chains, sets] = [new Set<string>(), new Set<string>()];
  let all = false;
  let timer: NodeJS.Timeout | undefined;
  let last = -Infinity;
  let pause = 0;

  function schedule(): void {
    if (timer !== undefined) return;
    const now = performance.now();
    if (now - last > PEACE) pause = 0;
    timer = setTimeout(run, Math.max(0, last + pause - now));
    timer.unref();
  }

  function run(): void {
    timer = undefined;
    last = performance.now();
    pause = Math.min(LONGEST_PAUSE, Math.max(FIRST_PAUSE, pause * 2));
    const suspects = { chains: new Set(chains), sets: new Set(sets), all };
    chains.clear();
    sets.clear();
    all = false;
    try {
      repair(suspects);
    } catch (error) {
      retry();
      onFailure(error);
    }
  }

  function retry(): void {
    all = true;
    pause = LONGEST_PAUSE;
    schedule();
  }

  const stopWatching = nftables.watchTable(table, {
    changed(touchedChains, touchedSets) {
      for (const name of touchedChains) chains.add(name);
      for (const name of touchedSets) sets.add(name);
      schedule();
    },
    overrun() {
      all = true;
      schedule();
    },
    failed: onFailure,
  });

  return {
    retry,
    close() {
      clearTimeout(timer);
      stopWatching();
    },
  };
}
