import { randomInt } from "node:crypto";
import { closeSync, writeSync } from "node:fs";
import type { Address } from "../ip/address.ts";
import { codeOf } from "../lib/errors.ts";
import {
  AF_INET,
  AF_INET6,
  bind,
  connect,
  getSocketOption,
  MSG_DONTWAIT,
  poll,
  POLLERR,
  POLLIN,
  receive,
  setSocketOption,
  SO_REUSEADDR,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../netlink/ffi.io.ts";
import { socketIn } from "../netlink/namespace.io.ts";
import { echoRequest, isEchoReply } from "./icmp.ts";
import { sockaddr } from "./sockaddr.ts";

export type ProbeProtocol = "TCP" | "UDP" | "ICMP";

/** One real connection to try: from inside a namespace to an address. `port` is 0 for ICMP. */
export interface ProbeTarget {
  readonly netns: string;
  readonly address: Address;
  readonly protocol: ProbeProtocol;
  readonly port: number;
  /** Where it comes from, for TCP and UDP; the kernel chooses where it is absent. */
  readonly sourcePort?: number;
}

const SO_ERROR = 4;
const SO_LINGER = 13;
/** `struct linger`: a closed connection is reset, so that its port may be had again at once. */
const NO_LINGER = new Uint8Array(Int32Array.of(1, 0).buffer);
const POLLOUT = 4;
const IPPROTO_ICMP = 1;
const IPPROTO_ICMPV6 = 58;
/** Sockets open at a time, well below the usual limit of 1,024 descriptors. */
const BATCH = 400;
/** A datagram may be lost to an address resolution that is still going on: say it again. */
const REPEAT_MS = 250;

interface Attempt {
  readonly index: number;
  readonly target: ProbeTarget;
  readonly fd: number;
  /** Tells its echoes from others', also from those of other probes. */
  readonly echo: number;
  sentAt: number;
}

/**
 * Tries every target, many at a time, and says for each whether it answered: TCP by its handshake, UDP by its echo, ICMP
 * by its echo reply. A target has `timeoutMs` to do so. Blocks the calling thread.
 *
 * @param atOnce sockets open at a time
 */
export function probe(targets: readonly ProbeTarget[], timeoutMs: number, atOnce: number = BATCH): boolean[] {
  const connected = targets.map(() => false);
  // Whoever follows connections must not take these echoes for those of an earlier probe, which were let through then.
  const firstEcho = randomInt(0x10000) * 0x10000;
  for (let start = 0; start < targets.length; start += atOnce) {
    const batch = targets.slice(start, start + atOnce).map((target, offset) => ({ target, index: start + offset }));
    probeBatch(batch, timeoutMs, connected, firstEcho);
  }
  return connected;
}

function probeBatch(
  batch: readonly { target: ProbeTarget; index: number }[],
  timeoutMs: number,
  connected: boolean[],
  firstEcho: number,
): void {
  const buffer = new Uint8Array(2048);
  let waiting: Attempt[] = [];
  try {
    for (const { target, index } of batch) {
      const fd = open(target);
      waiting.push({ index, target, fd, echo: (firstEcho + index) >>> 0, sentAt: 0 });
      try {
        connect(fd, sockaddr(target.address, target.port));
      } catch (error) {
        if (codeOf(error) !== "EINPROGRESS") finish(waiting.pop()!, false, connected); // no route, or refused at once
      }
    }
    const deadline = performance.now() + timeoutMs;
    while (waiting.length > 0) {
      const now = performance.now();
      if (now >= deadline) break;
      for (const attempt of waiting) {
        if (attempt.target.protocol !== "TCP" && now - attempt.sentAt >= REPEAT_MS) send(attempt, now);
      }
      const wanted = waiting.map(({ fd, target }) => ({ fd, events: target.protocol === "TCP" ? POLLOUT : POLLIN }));
      const happened = poll(wanted, Math.ceil(Math.min(REPEAT_MS, deadline - now)));
      waiting = waiting.filter((attempt, at) => {
        const verdict = happened[at] === 0 ? undefined : judge(attempt, happened[at]!, buffer);
        if (verdict === undefined) return true;
        finish(attempt, verdict, connected);
        return false;
      });
    }
  } finally {
    for (const attempt of waiting) closeSync(attempt.fd);
  }
}

function finish(attempt: Attempt, verdict: boolean, connected: boolean[]): void {
  connected[attempt.index] = verdict;
  closeSync(attempt.fd);
}

function open({ netns, address, protocol, sourcePort }: ProbeTarget): number {
  const family = address.family === 4 ? AF_INET : AF_INET6;
  if (protocol === "ICMP") {
    return socketIn(netns, family, SOCK_RAW | SOCK_NONBLOCK, address.family === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
  }
  const fd = socketIn(netns, family, (protocol === "TCP" ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK, 0);
  if (sourcePort === undefined) return fd;
  try {
    setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (protocol === "TCP") setSocketOption(fd, SOL_SOCKET, SO_LINGER, NO_LINGER);
    bind(fd, sockaddr({ family: address.family, value: 0n }, sourcePort));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function send(attempt: Attempt, now: number): void {
  attempt.sentAt = now;
  const { target, echo, fd } = attempt;
  try {
    writeSync(
      fd,
      target.protocol === "UDP" ? new TextEncoder().encode("probe\n") : echoRequest(target.address.family, echo),
    );
  } catch {
    // A refusal that an earlier datagram brought back (ECONNREFUSED) is read by poll as well.
  }
}

/** What a socket's event says: reached, refused, or (undefined) nothing yet. */
function judge({ fd, target, echo }: Attempt, events: number, buffer: Uint8Array): boolean | undefined {
  if (target.protocol === "TCP") return getSocketOption(fd, SOL_SOCKET, SO_ERROR, 4).every((byte) => byte === 0);
  if ((events & POLLERR) !== 0) return false;
  try {
    const length = receive(fd, buffer, MSG_DONTWAIT);
    if (length === undefined) return undefined;
    if (target.protocol === "UDP") return true;
    return isEchoReply(target.address.family, echo, buffer.subarray(0, length)) ? true : undefined;
  } catch {
    return false;
  }
}
