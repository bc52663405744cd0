import { workerData } from "node:worker_threads";
import { addressOfBuffer, EAGAIN, EINTR, errnoName, packetCalls } from "../netlink/packetIo.io.ts";
import { createArena, putVector, VNET } from "./arena.ts";
import { MESSAGE_SIZE } from "./messages.ts";
import { peerLookup } from "./peerTable.ts";
import { COUNTER, type RelayInput } from "./relay.ts";
import { createSegmenter, mayAnswerUnreachable, nextSlot, SEGMENTER_BYTES, writeUnreachable } from "./segment.ts";

/** A thread of flannel's udp backend: packets from the TUN device to the peers that have their destinations. */

/** The largest packet of the kernel, with the device's header. */
const LARGEST = 65_536 + VNET.size;
/** Parts of the arena: a vector to read by, another for an answer, the answer (of 98 bytes at most), and the rest. */
const READ_VECTOR = 0;
const VECTOR = 16;
const ANSWER = 64;
const SEGMENTER_START = 512;
const PACKETS = SEGMENTER_START + SEGMENTER_BYTES;
/** What may wait besides the packet that is read: see `full`. */
const WAITING = 128 * 1024;

function relay(input: RelayInput): void {
  const { tun, socket, port, address, counters, stop } = input;
  const calls = packetCalls();
  const arena = createArena(PACKETS + WAITING + LARGEST + 64, addressOfBuffer);
  const { base } = arena;
  const count = (counter: number): void => void (counters[counter] = counters[counter]! + 1);

  const segmenter = createSegmenter({
    arena,
    start: SEGMENTER_START,
    port,
    lookup: peerLookup(input.peers),
    send(messages) {
      for (let sent = 0; sent < messages;) {
        const outcome = calls.sendMessages(socket, base + segmenter.messages + sent * MESSAGE_SIZE, messages - sent);
        count(COUNTER.sends);
        if (outcome > 0) {
          sent += outcome;
        } else if (outcome !== EINTR) {
          // The first of them was refused: no route, or an ICMP error about an earlier one. The others may do.
          count(COUNTER.sendErrors);
          sent += 1;
        }
      }
    },
    unreachable(ip, length) {
      count(COUNTER.unreachable);
      if (!mayAnswerUnreachable(arena, ip, length)) return;
      const answer = nextSlot(ANSWER);
      const size = writeUnreachable(arena, ip, answer, address);
      putVector(arena, VECTOR, answer, size);
      calls.writeVector(tun, base + VECTOR, 1);
    },
  });

  const first = nextSlot(PACKETS);
  while (Atomics.load(stop, 0) === 0) {
    // Waits for one packet, then takes what else is there. Nothing wakes it but a packet and the end of the device.
    let at = first;
    let read = calls.read(tun, base + at, LARGEST);
    while (read > 0) {
      segmenter.take(at, read);
      at = nextSlot(at + read);
      if (segmenter.full() || at >= PACKETS + WAITING) break;
      putVector(arena, READ_VECTOR, at, LARGEST);
      read = calls.readNow(tun, base + READ_VECTOR, 1);
    }
    segmenter.flush();
    counters[COUNTER.sendDrops] = segmenter.dropped();
    if (read < 0 && read !== EAGAIN && read !== EINTR && Atomics.load(stop, 0) === 0) {
      throw new Error(`the TUN device is gone (${errnoName(read)})`);
    }
  }
}

relay(workerData as RelayInput);
