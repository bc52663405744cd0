import { closeSync } from "node:fs";
import { codeOf, messageOf } from "../lib/errors.ts";
import { MSG_DONTWAIT, receive, whenReadable } from "./ffi.io.ts";

/**
 * Sockets that speak without being asked, such as multicast groups and packet logs, read on the event loop. (A thread
 * of their own costs 22 MB of memory, and can only keep for us what the kernel's own buffer keeps as well.)
 */
export interface WatchHandler {
  /** One datagram: whole messages. Only valid during the call. */
  data(bytes: Uint8Array): void;
  /** The kernel dropped messages, because they came faster than they were read. */
  overrun(): void;
  /** The socket cannot be read any more, and is closed. */
  failed(code: string, message: string): void;
}

/** Datagrams in one turn of the event loop, before others have theirs. */
const MAX_DATAGRAMS = 256;

/** One buffer does for all sockets of a thread, since what is in it is handled at once. */
const buffer = new Uint8Array(65536);

/** Reads the socket from now on, and owns it. What is returned ends that and closes it; nothing is handed over then. */
export function watchSocket(fd: number, handler: WatchHandler): () => void {
  let open = true;
  let overrun = false;
  const endOfPolling = whenReadable(fd, () => {
    for (let count = 0; open && count < MAX_DATAGRAMS && readOne(); count += 1);
  });

  function stop(): void {
    if (!open) return;
    open = false;
    endOfPolling();
    closeSync(fd);
  }

  /** Says whether there may be more. */
  function readOne(): boolean {
    let length: number | undefined;
    try {
      length = receive(fd, buffer, MSG_DONTWAIT);
    } catch (error) {
      const code = codeOf(error) ?? "EIO";
      if (code === "ENOBUFS") {
        overrun = true;
        return true;
      }
      stop();
      handler.failed(code, messageOf(error));
      return false;
    }
    if (length !== undefined) {
      handler.data(buffer.subarray(0, length));
      return true;
    }
    // The kernel goes on dropping, and does not say so again, until its queue has been empty (NETLINK_S_CONGESTED). Who
    // listed everything anew before that would miss what changes in between.
    if (overrun) {
      overrun = false;
      handler.overrun();
    }
    return false;
  }

  return stop;
}
