/**
 * Keeps the turns of the event loop short while much is to be read, so that timers run and other peers are heard: whoever
 * reads asks now and then whether the turn has lasted long enough, and goes on in a later one, one after the other.
 */
export interface Turns {
  /** Whether it is time to stop. */
  spent(): boolean;
  /** Calls back in the next turn. */
  later(work: () => void): void;
}

/** Milliseconds of reading in one turn. */
const BUDGET = 5;

export function createTurns(): Turns {
  let began: number | undefined;
  let scheduled = false;
  const waiting: (() => void)[] = [];

  function next(): void {
    scheduled = false;
    began = undefined;
    if (waiting.length === 0) return;
    // At least one goes on; those that this turn has no time for keep their places.
    const works = waiting.splice(0);
    let at = 0;
    do {
      works[at]!();
      at += 1;
    } while (at < works.length && !spent());
    waiting.unshift(...works.slice(at));
    if (waiting.length > 0) schedule();
  }

  function schedule(): void {
    if (scheduled) return;
    scheduled = true;
    setImmediate(next);
  }

  function spent(): boolean {
    const now = performance.now();
    if (began === undefined) {
      began = now;
      schedule();
    }
    return now - began > BUDGET;
  }

  return {
    spent,
    later(work) {
      waiting.push(work);
      schedule();
    },
  };
}
