import type { SocketCalls } from "../bgp/config.ts";
import { addressToBytes, type Family } from "../ip/address.ts";
import { codeOf } from "../lib/errors.ts";
import {
  AF_INET,
  AF_INET6,
  attachFilter,
  setSocketOption,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  socket,
  socketName,
} from "../netlink/ffi.io.ts";

/** What a BGP speaker asks of sockets beyond Node's own functions: passwords and TTL security. */

/** <linux/in.h>, <linux/in6.h>, <linux/tcp.h>. */
const IPPROTO_IP = 0;
const IPPROTO_TCP = 6;
const IPPROTO_IPV6 = 41;
const TCP_MD5SIG = 14;
const IP_TTL = 2;
const IP_MINTTL = 21;
const IPV6_UNICAST_HOPS = 16;
const IPV6_MINHOPCOUNT = 73;

export const bgpSockets: SocketCalls = {
  open: (family) => socket(family === 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0),

  setPassword(fd, address, password) {
    // struct tcp_md5sig: sockaddr_storage (128), flags, prefix length, key length (2), interface (4), key (80).
    const option = new Uint8Array(216);
    const view = new DataView(option.buffer);
    const bytes = addressToBytes(address);
    if (socketName(fd)[0] === AF_INET) {
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
    try {
      setSocketOption(fd, IPPROTO_TCP, TCP_MD5SIG, option);
    } catch (thrown) {
      // Taking away what is not there is no mistake.
      if (password !== "" || codeOf(thrown) !== "ENOENT") throw thrown;
    }
  },

  setTtl(fd, family, outgoing, least) {
    const [level, ttl, minimum] =
      family === 4 ? [IPPROTO_IP, IP_TTL, IP_MINTTL] : [IPPROTO_IPV6, IPV6_UNICAST_HOPS, IPV6_MINHOPCOUNT];
    setSocketOption(fd, level, ttl, outgoing);
    setSocketOption(fd, level, minimum, least);
  },

  requireTtl: (fd, family, least) => attachFilter(fd, ttlFilter(family, least)),
};

/** Classic BPF (<linux/filter.h>): a byte of the network header; all of the packet where it is at least so much, or nothing. */
function ttlFilter(family: Family, least: number): Uint8Array {
  const networkHeader = 0xfff00000; // SKF_NET_OFF
  const program: readonly [code: number, whenTrue: number, whenFalse: number, value: number][] = [
    [0x30, 0, 0, networkHeader + (family === 4 ? 8 : 7)],
    [0x35, 0, 1, least],
    [0x06, 0, 0, 0xffffffff],
    [0x06, 0, 0, 0],
  ];
  const view = new DataView(new ArrayBuffer(program.length * 8));
  for (const [index, [code, whenTrue, whenFalse, value]] of program.entries()) {
    view.setUint16(index * 8, code, true);
    view.setUint8(index * 8 + 2, whenTrue);
    view.setUint8(index * 8 + 3, whenFalse);
    view.setUint32(index * 8 + 4, value, true);
  }
  return new Uint8Array(view.buffer);
}
