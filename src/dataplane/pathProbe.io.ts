import { randomInt } from "node:crypto";
import { closeSync } from "node:fs";
import { addressToBytes, type Address, type Family } from "../ip/address.ts";
import { codeOf, messageOf } from "../lib/errors.ts";
import {
  AF_INET,
  AF_INET6,
  receiveFrom,
  sendTo,
  setSocketOption,
  SOCK_NONBLOCK,
  SOCK_RAW,
  whenReadable,
} from "../netlink/ffi.io.ts";
import { socketIn } from "../netlink/namespace.io.ts";
import {
  addressOfSocketAddress,
  type EchoRefusal,
  echoRequest,
  readAnswer,
  type ReceivedAnswer,
  WANTED_TYPES,
} from "./pathProbe.ts";

/** Sends echoes of a given length, which no router may cut in pieces, and waits for what comes back. */
export interface Prober {
  /** Never rejects. */
  echo(request: EchoProbe): Promise<EchoOutcome>;
  close(): void;
}

export interface EchoProbe {
  readonly to: Address;
  /** Of the whole IP packet. */
  readonly length: number;
  /** How many routers may carry it on, and one: with fewer than are on the way, the one where it ends answers. */
  readonly hops?: number;
  readonly timeoutMs: number;
}

export type EchoOutcome =
  | { readonly kind: "reply"; readonly from: Address; readonly milliseconds: number }
  | { readonly kind: "error"; readonly from: Address; readonly milliseconds: number; readonly reason: EchoRefusal }
  | { readonly kind: "silence" }
  /** This node did not send it. */
  | { readonly kind: "not sent"; readonly code: string; readonly reason: string };

/** <linux/in.h>, <linux/in6.h>, <linux/icmp.h>, <linux/icmpv6.h> */
const SOL_IP = 0;
const SOL_IPV6 = 41;
const SOL_RAW = 255;
const SOL_ICMPV6 = 58;
const IP_TTL = 2;
const IP_MTU_DISCOVER = 10;
const IPV6_UNICAST_HOPS = 16;
const IPV6_MTU_DISCOVER = 23;
/** Don't Fragment is set, and what the kernel has learned of paths is not asked: only the device's own MTU counts. */
const PMTUDISC_PROBE = 3;
const ICMP_FILTER = 1;
const ICMPV6_FILTER = 1;
const PROTOCOL = { 4: 1, 6: 58 } as const;
const USUAL_HOPS = 64;

interface Waiting {
  readonly sentAt: number;
  readonly timer: NodeJS.Timeout;
  readonly resolve: (outcome: EchoOutcome) => void;
}

/** `namespace` is the path of a network namespace; without it the calling thread's. The sockets open at the first echo. */
export function openProber(namespace?: string): Prober {
  const identifier = randomInt(0x10000);
  let sequence = randomInt(0x10000);
  const waiting = new Map<string, Waiting>();
  const sockets = new Map<Family, { readonly fd: number; readonly endOfPolling: () => void }>();
  const buffer = new Uint8Array(2048);

  function socketOf(family: Family): number {
    const open = sockets.get(family);
    if (open !== undefined) return open.fd;
    const fd = socketIn(namespace, family === 4 ? AF_INET : AF_INET6, SOCK_RAW | SOCK_NONBLOCK, PROTOCOL[family]);
    try {
      if (family === 4) {
        setSocketOption(fd, SOL_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE);
        setSocketOption(fd, SOL_RAW, ICMP_FILTER, blocked(family, 1));
      } else {
        setSocketOption(fd, SOL_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE);
        setSocketOption(fd, SOL_ICMPV6, ICMPV6_FILTER, blocked(family, 8));
      }
      sockets.set(family, { fd, endOfPolling: whenReadable(fd, () => readAll(family, fd)) });
      return fd;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  function readAll(family: Family, fd: number): void {
    for (let count = 0; count < 64; count += 1) {
      let received: ReturnType<typeof receiveFrom>;
      try {
        received = receiveFrom(fd, buffer);
      } catch {
        continue; // what an earlier echo brought back as an error also comes as a packet
      }
      if (received === undefined) return;
      const from = addressOfSocketAddress(received.from);
      const found = readAnswer(family, buffer.subarray(0, received.length));
      if (from !== undefined && found?.identifier === identifier) take(family, from, found);
    }
  }

  function take(family: Family, from: Address, { sequence: number, answer }: ReceivedAnswer): void {
    const key = `${family} ${number}`;
    const entry = waiting.get(key);
    if (entry === undefined) return;
    waiting.delete(key);
    clearTimeout(entry.timer);
    const milliseconds = performance.now() - entry.sentAt;
    entry.resolve({ ...answer, from, milliseconds });
  }

  return {
    echo({ to, length, hops = USUAL_HOPS, timeoutMs }) {
      const { family } = to;
      sequence = (sequence + 1) & 0xffff;
      const number = sequence;
      try {
        const fd = socketOf(family);
        if (family === 4) setSocketOption(fd, SOL_IP, IP_TTL, hops);
        else setSocketOption(fd, SOL_IPV6, IPV6_UNICAST_HOPS, hops);
        sendTo(fd, echoRequest(family, { identifier, sequence: number }, length), socketAddress(to));
      } catch (error) {
        return Promise.resolve({ kind: "not sent", code: codeOf(error) ?? "EIO", reason: messageOf(error) });
      }
      return new Promise((resolve) => {
        const key = `${family} ${number}`;
        const timer = setTimeout(() => {
          waiting.delete(key);
          resolve({ kind: "silence" });
        }, timeoutMs);
        waiting.set(key, { sentAt: performance.now(), timer, resolve });
      });
    },
    close() {
      for (const { fd, endOfPolling } of sockets.values()) {
        endOfPolling();
        closeSync(fd);
      }
      sockets.clear();
      for (const { timer, resolve } of waiting.values()) {
        clearTimeout(timer);
        resolve({ kind: "silence" });
      }
      waiting.clear();
    },
  };
}

/** A bit for each type that is not wanted: of `words` numbers of 32 bits (`struct icmp_filter`, `icmp6_filter`). */
function blocked(family: Family, words: number): Uint8Array {
  const bits = new Uint32Array(words).fill(0xffff_ffff);
  for (const type of WANTED_TYPES[family]) bits[type >> 5]! &= ~(1 << (type & 31));
  return new Uint8Array(bits.buffer);
}

function socketAddress(address: Address): Uint8Array {
  const bytes = new Uint8Array(address.family === 4 ? 16 : 28);
  bytes[0] = address.family === 4 ? AF_INET : AF_INET6;
  bytes.set(addressToBytes(address), address.family === 4 ? 4 : 8);
  return bytes;
}
