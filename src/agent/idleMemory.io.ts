import { flushCompileCache } from "node:module";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { trimAllocator } from "../netlink/ffi.io.ts";

/** How often it is looked whether the agent has had anything to do. */
const LOOK_MS = 5000;
/** It is idle with less processor time than this in between, in microseconds: a hundredth. Sessions take far less. */
const IDLE_US = (LOOK_MS * 1000) / 100;
/** How much memory must have come since the last collection for another to be worth while. Bytes. */
const GROWN = 8 << 20;
/** A collection stops everything for about two milliseconds a MiB. Larger heaps are left to V8, which does it in steps. */
const LARGEST_HEAP = 64 << 20;

/**
 * V8 collects garbage when it needs room, and a process that does nothing needs none: after a hundred pods an agent kept
 * 40 MB that nobody used, for ever. So when an agent has nothing to do, its garbage is collected and the room given back.
 * Returns what ends it.
 *
 * @param mayPause whether nobody waits for answers within a fraction of a second, as BFD does: to such a peer an agent that
 * collects is dead
 */
export function returnIdleMemory(mayPause: () => boolean): () => void {
  let isSaved = false;
  let least = 0;
  let before = process.cpuUsage();
  const timer = setInterval(() => {
    const { user, system } = process.cpuUsage(before);
    before = process.cpuUsage();
    if (user + system > IDLE_US) return;
    // Otherwise code that was compiled would be kept for the next start only by an agent that ends regularly.
    if (!isSaved) flushCompileCache();
    isSaved = true;
    const { rss, heapUsed } = process.memoryUsage();
    if (rss < least + GROWN || heapUsed > LARGEST_HEAP || !mayPause()) return;
    // Only after this kind does V8 let go of the pages that it emptied.
    collector()({ type: "major", execution: "sync", flavor: "last-resort" });
    trimAllocator();
    least = process.memoryUsage.rss();
  }, LOOK_MS).unref();
  return () => clearInterval(timer);
}

/**
 * V8's own function, which it shows under a flag alone. The flag may not stay, nor be there from the start: compiled code
 * is good only under the flags that it was compiled with, and without Node's own a start takes twice as long.
 */
function collector(): NodeJS.GCFunction {
  setFlagsFromString("--expose-gc");
  try {
    return runInNewContext("gc") as NodeJS.GCFunction;
  } finally {
    setFlagsFromString("--no-expose-gc");
  }
}
