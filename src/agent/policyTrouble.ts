/** Rules that others have changed and that cannot be put right: what is in force then is not known. */
import { messageOf } from "../lib/errors.ts";
import type { Timers } from "../datastore/mirror.ts";

export interface PolicyTrouble {
  /** A repair failed, or what others do is not heard of. */
  failed(reason: string): void;
  /** Undefined when all was found right since. */
  reason(): string | undefined;
  close(): void;
}

const LOOK_AGAIN_MS = 1000;

/** @param look compares the kernel with what should be, and puts it right; rejects where that fails */
export function policyTrouble(look: () => Promise<unknown>, timers: Timers): PolicyTrouble {
  let reason: string | undefined;
  let timer: unknown;

  function lookSoon(): void {
    timer ??= timers.setTimeout(() => {
      const told = reason;
      look()
        .then(() => {
          timer = undefined;
          // Something else may have failed meanwhile.
          if (reason === told) reason = undefined;
          else lookSoon();
        })
        .catch((error: unknown) => {
          timer = undefined;
          reason = messageOf(error);
          lookSoon();
        });
    }, LOOK_AGAIN_MS);
  }

  return {
    failed(why) {
      reason = why;
      lookSoon();
    },
    reason: () => reason,
    close: () => timers.clearTimeout(timer),
  };
}
