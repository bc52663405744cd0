import { codeOf, Failure } from "../lib/errors.ts";
import { deleteLink, deleteLinkGroup, setLinkGroup } from "./link.ts";
import { NETLINK_ROUTE, openNetlink } from "./socket.io.ts";

/**
 * Removes links without holding up the caller. A link vanishes in a millisecond, but the kernel keeps whoever asked for
 * it waiting for 15 to 20 ms more, until no processor can still see it (RCU). So the request is made in a thread of
 * Node's pool; and what is to be removed meanwhile goes all at once in the next request, as a group of links, since the
 * wait is the same for one link and for many.
 */
export interface LinkRemover {
  /** Resolves when the link is gone, or was already. */
  remove(index: number): Promise<void>;
  /** Closes the socket when all that was asked for is done. */
  close(): void;
}

/** Nobody else's, we trust: iproute2 gives its groups small numbers. */
const REMOVAL_GROUP = 0xca11_0001;

/** For the links of one namespace: that at the path, or the calling thread's. */
export function openLinkRemover(namespace?: string): LinkRemover {
  const socket = openNetlink(NETLINK_ROUTE, namespace);
  let waiting = new Set<number>();
  /** The removal of what waits, and before it, of what is on its way. */
  let next: Promise<void> | undefined;
  let last: Promise<void> = Promise.resolve();

  async function removeWaiting(): Promise<void> {
    const indexes = [...waiting];
    waiting = new Set();
    next = undefined;
    const [only] = indexes;
    if (only === undefined) return;
    try {
      if (indexes.length === 1) return await socket.requestInBackground(deleteLink(only), () => `delete link ${only}`);
      const refusals = socket.batch(indexes.map((index) => setLinkGroup(index, REMOVAL_GROUP)));
      const failed = refusals.find((refusal) => refusal !== undefined && refusal.code !== "ENODEV");
      if (failed !== undefined)
        throw new Failure(failed.code, `Cannot delete links ${indexes.join(", ")}: ${failed.reason}`);
      if (refusals.every((refusal) => refusal !== undefined)) return; // all gone already
      await socket.requestInBackground(deleteLinkGroup(REMOVAL_GROUP), () => `delete links ${indexes.join(", ")}`);
    } catch (error) {
      if (codeOf(error) !== "ENODEV") throw error;
    }
  }

  return {
    remove(index) {
      waiting.add(index);
      next ??= last.catch(() => undefined).then(removeWaiting);
      last = next;
      return next;
    },
    close() {
      void last.catch(() => undefined).then(() => socket.close());
    },
  };
}
