import { workerData } from "node:worker_threads";
import { addressOfBuffer, EINTR, errnoName, packetCalls } from "../netlink/packetIo.io.ts";
import { createArena } from "./arena.ts";
import { COALESCER_BYTES, createCoalescer } from "./coalesce.ts";
import { messageLayout } from "./messages.ts";
import { COUNTER, type RelayInput } from "./relay.ts";

/** A thread of flannel's udp backend: datagrams from peers to the TUN device. */

const MESSAGES = 16;
/** A datagram, or as many as the kernel has put together. */
const LARGEST = 65_536;
/** The kernel says so to a socket of a receiver whose datagram could not be delivered: one that we sent. */
const ASYNCHRONOUS = new Set(["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "EMSGSIZE", "EPROTO"]);

function relay(input: RelayInput): void {
  const { tun, socket, counters, stop, udpSegmentation } = input;
  const calls = packetCalls();
  const layout = messageLayout(0, MESSAGES, MESSAGES);
  const coalescerStart = layout.end;
  const packets = coalescerStart + COALESCER_BYTES;
  const arena = createArena(packets + MESSAGES * LARGEST, addressOfBuffer);
  const { base } = arena;
  const count = (counter: number): void => void (counters[counter] = counters[counter]! + 1);
  for (let number = 0; number < MESSAGES; number += 1) {
    layout.receiveInto(arena, number, packets + number * LARGEST, LARGEST);
  }

  const coalescer = createCoalescer({
    arena,
    start: coalescerStart,
    udp: udpSegmentation,
    write(vectors) {
      count(COUNTER.writes);
      // EIO while the device is down, EBADFD once it is deleted: the sender finds that out.
      if (calls.writeVector(tun, base + coalescer.vectors, vectors) < 0) count(COUNTER.writeErrors);
    },
  });

  for (;;) {
    const received = calls.receiveMessages(socket, base + layout.messages, MESSAGES);
    if (Atomics.load(stop, 0) !== 0) return;
    if (received < 0) {
      const error = errnoName(received);
      if (received !== EINTR && !ASYNCHRONOUS.has(error)) throw new Error(`the socket cannot be read (${error})`);
      continue;
    }
    count(COUNTER.receives);
    for (let number = 0; number < received; number += 1) {
      const length = layout.received(arena, number);
      const size = layout.segmentSize(arena, number);
      const start = packets + number * LARGEST;
      for (let at = 0; at < length; at += size) {
        coalescer.take(start + at, length - at < size ? length - at : size);
      }
    }
    coalescer.flush();
    counters[COUNTER.receiveDrops] = coalescer.dropped();
  }
}

relay(workerData as RelayInput);
