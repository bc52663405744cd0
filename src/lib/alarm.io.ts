/** A timer for work that several ask for, each by a time of its own: it is done at the soonest of them, once for all. */
export interface Alarm {
  /** It is due in so many milliseconds, or before. */
  within(milliseconds: number): void;
  /** It was done in another way. */
  clear(): void;
  /** It never goes off again. */
  close(): void;
}

/** Does not keep the process alive. */
export function openAlarm(ring: () => void): Alarm {
  let timer: NodeJS.Timeout | undefined;
  let due = 0;
  let closed = false;

  function clear(): void {
    clearTimeout(timer);
    timer = undefined;
  }

  return {
    within(milliseconds) {
      const wanted = performance.now() + milliseconds;
      if (closed || (timer !== undefined && due <= wanted)) return;
      clear();
      due = wanted;
      timer = setTimeout(() => {
        timer = undefined;
        ring();
      }, milliseconds).unref();
    },
    clear,
    close() {
      closed = true;
      clear();
    },
  };
}
