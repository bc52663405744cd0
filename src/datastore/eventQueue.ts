/** Joins something that calls back to something that iterates: unbounded, in order, each item once. */
export interface EventQueue<Item> extends AsyncIterable<Item> {
  push(item: Item): void;
  /** What was pushed is still delivered; then the iteration ends, or throws `failure`. */
  end(failure?: unknown): void;
}

/** `onReturn` is called once, when the queue has ended or its reader has left. */
export function eventQueue<Item>(onReturn: () => void): EventQueue<Item> {
  const items: Item[] = [];
  let finish: { failure?: unknown } | undefined;
  let wake: (() => void) | undefined;

  async function* iterate(): AsyncGenerator<Item, void> {
    try {
      for (;;) {
        // Taken in batches: shifting one by one from a long array costs its length each time.
        for (const item of items.splice(0)) yield item;
        if (items.length > 0) continue;
        if (finish !== undefined) break;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
      }
      if (finish.failure !== undefined) throw finish.failure;
    } finally {
      onReturn();
    }
  }

  return {
    push(item) {
      if (finish !== undefined) return;
      items.push(item);
      wake?.();
    },
    end(failure) {
      finish ??= failure === undefined ? {} : { failure };
      wake?.();
    },
    [Symbol.asyncIterator]: iterate,
  };
}
