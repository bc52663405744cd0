import { closeSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { parseAddress } from "../ip/address.ts";
import {
  AF_INET,
  AF_INET6,
  connect,
  MSG_DONTWAIT,
  receive,
  setSocketOption,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../netlink/ffi.io.ts";
import { socketIn } from "../netlink/namespace.io.ts";
import { sockaddr } from "./sockaddr.ts";

/** An established connection to a pod of the lab, which says back what it is told. */
export interface Talk extends Disposable {
  /** Whether it comes back in time. Each word once. */
  says(word: string, withinMs?: number): Promise<boolean>;
}

const SO_SNDTIMEO = 21;
/** `struct timeval`: seconds and microseconds. */
const timeval = (milliseconds: number): Uint8Array =>
  new Uint8Array(
    BigInt64Array.of(BigInt(Math.floor(milliseconds / 1000)), BigInt((milliseconds % 1000) * 1000)).buffer,
  );

/** Blocks until the connection stands. Throws `Failure` where nobody answers in time. */
export function openTalk(netns: string, address: string, port: number, withinMs = 3000): Talk {
  const to = parseAddress(address);
  const fd = socketIn(netns, to.family === 4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
  try {
    setSocketOption(fd, SOL_SOCKET, SO_SNDTIMEO, timeval(withinMs));
    connect(fd, sockaddr(to, port));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  const buffer = new Uint8Array(65_536);
  return {
    async says(word, withinMs = 300) {
      let heard = "";
      writeSync(fd, `${word}\n`);
      const deadline = performance.now() + withinMs;
      for (;;) {
        const length = receive(fd, buffer, MSG_DONTWAIT);
        if (length !== undefined) heard += new TextDecoder().decode(buffer.subarray(0, length));
        if (heard.includes(`${word}\n`)) return true;
        if (length === 0 || performance.now() > deadline) return false;
        await sleep(5);
      }
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}
