import { closeSync, writeSync } from "node:fs";
import { codeOf } from "../lib/errors.ts";
import { AF_INET, MSG_DONTWAIT, receive, SOCK_RAW, whenReadable } from "../netlink/ffi.io.ts";
import { socketIn } from "../netlink/namespace.io.ts";
import { type IpipRefusal, openEnvelope } from "./ipip.ts";

/**
 * What the programs of the IPIP tunnel leave to the stack comes here by a raw socket: packets that were cut on their way
 * and put together again, and those with options. The socket also keeps the kernel from answering them with "protocol
 * unreachable".
 */
export interface SlowPath {
  /** Packets taken so far, and how many of each refusal. */
  readonly counts: { readonly taken: number; readonly refused: Readonly<Partial<Record<IpipRefusal, number>>> };
  close(): void;
}

const PROTOCOL_IPIP = 4;
/** Packets in one turn of the event loop, before others have theirs. */
const MAX_PACKETS = 64;

/** `tun` is the descriptor of the TUN device, which takes inner packets in. */
export function openSlowPath(
  tun: number,
  isKnown: (source: Uint8Array, destination: Uint8Array) => IpipRefusal | undefined,
  namespace?: string,
): SlowPath {
  const fd = socketIn(namespace, AF_INET, SOCK_RAW, PROTOCOL_IPIP);
  const buffer = new Uint8Array(65_536);
  const counts = { taken: 0, refused: {} as Partial<Record<IpipRefusal, number>> };

  /** Says whether there may be more. */
  function readOne(): boolean {
    const length = receive(fd, buffer, MSG_DONTWAIT);
    if (length === undefined) return false;
    const inner = openEnvelope(buffer.subarray(0, length), isKnown);
    if (typeof inner === "string") {
      counts.refused[inner] = (counts.refused[inner] ?? 0) + 1;
      return true;
    }
    try {
      writeSync(tun, inner);
      counts.taken += 1;
    } catch (error) {
      // The device is down or gone, which is put right elsewhere; the packet is lost as on any link.
      if (codeOf(error) !== "EIO" && codeOf(error) !== "EBADFD") throw error;
    }
    return true;
  }

  const endOfPolling = whenReadable(fd, () => {
    for (let count = 0; count < MAX_PACKETS && readOne(); count += 1);
  });
  let open = true;
  return {
    counts,
    close() {
      if (!open) return;
      open = false;
      endOfPolling();
      closeSync(fd);
    },
  };
}
