import { closeSync, openSync } from "node:fs";
import { createRequire } from "node:module";
import type * as Koffi from "koffi";
import { addressToBytes } from "../ip/address.ts";
import type { SocketCalls } from "./config.ts";

/** The system calls that tests need and Node has no function for. */

const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
const libc = koffi.load("libc.so.6");
const setns = libc.func("int setns(int fd, int type)") as (fd: number, type: number) => number;
const socket = libc.func("int socket(int domain, int type, int protocol)") as (...numbers: number[]) => number;
const setsockopt = libc.func("int setsockopt(int fd, int level, int option, void *value, uint length)") as (
  fd: number,
  level: number,
  option: number,
  value: Uint8Array,
  length: number,
) => number;
const getsockname = libc.func("int getsockname(int fd, void *address, void *length)") as (
  fd: number,
  address: Uint8Array,
  length: Uint8Array,
) => number;

/** <bits/socket.h>, <linux/in.h>, <linux/in6.h>, <linux/tcp.h>, <linux/sched.h>. */
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM_NONBLOCK_CLOEXEC = 1 | 0o4000 | 0o2000000;
const [IPPROTO_IP, IPPROTO_TCP, IPPROTO_IPV6] = [0, 6, 41];
const TCP_MD5SIG = 14;
const [IP_TTL, IP_MINTTL, IPV6_UNICAST_HOPS, IPV6_MINHOPCOUNT] = [2, 21, 16, 73];
const [SOL_SOCKET, SO_ATTACH_FILTER] = [1, 26];
const CLONE_NEWNET = 0x40000000;

function check(result: number, what: string): number {
  if (result < 0) throw new Error(`${what} failed with errno ${koffi.errno()}`);
  return result;
}

const attach = ((): ((fd: number, filter: { len: number; filter: Uint8Array }) => number) => {
  koffi.struct("sock_fprog", { len: "uint16_t", filter: "void *" });
  const call = libc.func("setsockopt", "int", ["int", "int", "int", "sock_fprog *", "uint"]) as (
    fd: number,
    level: number,
    option: number,
    value: object,
    length: number,
  ) => number;
  return (fd, filter) => call(fd, SOL_SOCKET, SO_ATTACH_FILTER, filter, 16);
})();

/** Makes every socket that this process opens from now on one of the namespace. */
export function enterNamespace(name: string): void {
  const fd = openSync(`/run/netns/${name}`, "r");
  try {
    check(setns(fd, CLONE_NEWNET), "setns");
  } finally {
    closeSync(fd);
  }
}

function setNumber(fd: number, level: number, option: number, value: number): void {
  const bytes = new Uint8Array(Int32Array.of(value).buffer);
  check(setsockopt(fd, level, option, bytes, 4), `setsockopt ${level}/${option}`);
}

function domainOf(fd: number): number {
  const address = new Uint8Array(128);
  check(getsockname(fd, address, new Uint8Array(Int32Array.of(128).buffer)), "getsockname");
  return address[0]!;
}

export const socketCalls: SocketCalls = {
  open: (family) => check(socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM_NONBLOCK_CLOEXEC, 0), "socket"),
  setPassword(fd, address, password) {
    // struct tcp_md5sig: sockaddr_storage (128), flags, prefix length, key length (2), interface (4), key (80).
    const option = new Uint8Array(216);
    const view = new DataView(option.buffer);
    const bytes = addressToBytes(address);
    if (domainOf(fd) === AF_INET) {
      view.setUint16(0, AF_INET, true);
      option.set(bytes, 4);
    } else {
      view.setUint16(0, AF_INET6, true);
      // An IPv4 address on an IPv6 socket is mapped: ::ffff:a.b.c.d.
      option.set(bytes.length === 4 ? [255, 255, ...bytes] : bytes, bytes.length === 4 ? 18 : 8);
    }
    const key = new TextEncoder().encode(password);
    view.setUint16(130, key.length, true);
    option.set(key, 136);
    const result = setsockopt(fd, IPPROTO_TCP, TCP_MD5SIG, option, option.length);
    // Taking away what is not there is no mistake.
    if (password !== "") check(result, "setsockopt TCP_MD5SIG");
  },
  setTtl(fd, family, outgoing, least) {
    const [level, ttl, minimum] =
      family === 4 ? [IPPROTO_IP, IP_TTL, IP_MINTTL] : [IPPROTO_IPV6, IPV6_UNICAST_HOPS, IPV6_MINHOPCOUNT];
    setNumber(fd, level, ttl, outgoing);
    setNumber(fd, level, minimum, least);
  },
  requireTtl(fd, family, least) {
    // <linux/filter.h>: load a byte of the network header; jump if greater or equal; accept all of it, or nothing.
    const networkHeader = 0xfff00000;
    const program: [code: number, jt: number, jf: number, k: number][] = [
      [0x30, 0, 0, networkHeader + (family === 4 ? 8 : 7)],
      [0x35, 0, 1, least],
      [0x06, 0, 0, 0xffffffff],
      [0x06, 0, 0, 0],
    ];
    const filter = new Uint8Array(program.length * 8);
    const view = new DataView(filter.buffer);
    for (const [index, [code, jt, jf, k]] of program.entries()) {
      view.setUint16(index * 8, code, true);
      view.setUint8(index * 8 + 2, jt);
      view.setUint8(index * 8 + 3, jf);
      view.setUint32(index * 8 + 4, k, true);
    }
    check(attach(fd, { len: program.length, filter }), "setsockopt SO_ATTACH_FILTER");
  },
};
