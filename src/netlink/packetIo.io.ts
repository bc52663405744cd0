import { closeSync, openSync } from "node:fs";
import { createRequire } from "node:module";
import type * as Koffi from "koffi";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import { addressOf, describeErrno, ioctl } from "./ffi.io.ts";

/**
 * Packets in bulk: TUN devices that hand over what is not yet segmented, sockets that take and give many datagrams in one
 * call. For loops that must not allocate: memory is passed by its address, errors come back as negative errno numbers.
 */
export interface PacketCalls {
  /** read(2) */
  read(fd: number, address: number, length: number): number;
  /** preadv2(2), which does not wait though the descriptor would: `address` is an array of `struct iovec`. */
  readNow(fd: number, address: number, count: number): number;
  /** writev(2): `address` is an array of `struct iovec`. */
  writeVector(fd: number, address: number, count: number): number;
  /** sendmmsg(2): `address` is an array of `struct mmsghdr`. Returns how many messages went. */
  sendMessages(fd: number, address: number, count: number): number;
  /** recvmmsg(2), which waits for the first message only. */
  receiveMessages(fd: number, address: number, count: number): number;
  /** shutdown(2): whoever waits for the socket is woken. */
  shutdown(fd: number): void;
}

export const EAGAIN = -11;
export const EINTR = -4;

export const SOL_UDP = 17;
/** Socket option of <linux/udp.h>: datagrams that came one after another are handed over as one. */
export const UDP_GRO = 104;
const MSG_WAITFORONE = 0x10000;
const RWF_NOWAIT = 0x8;
/** The descriptor is no file with an offset. */
const NO_OFFSET = -1;
const SHUT_RDWR = 2;

let loaded: PacketCalls | undefined;

export function packetCalls(): PacketCalls {
  if (loaded !== undefined) return loaded;
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
  const libc = koffi.load("libc.so.6");
  type Call = (...args: readonly number[]) => number;
  // Addresses as numbers are what koffi takes fastest: user space is below 2^47.
  const call = (name: string, args: readonly string[]): Call => libc.func(name, "int", [...args]) as Call;
  const read = call("read", ["int", "int64", "int64"]);
  const preadv2 = call("preadv2", ["int", "int64", "int", "int64", "int"]);
  const writev = call("writev", ["int", "int64", "int"]);
  const sendmmsg = call("sendmmsg", ["int", "int64", "int", "int"]);
  const recvmmsg = call("recvmmsg", ["int", "int64", "int", "int", "int64"]);
  const shutdown = call("shutdown", ["int", "int"]);
  const outcome = (result: number): number => (result >= 0 ? result : -koffi.errno());
  loaded = {
    read: (fd, address, length) => outcome(read(fd, address, length)),
    readNow: (fd, address, count) => outcome(preadv2(fd, address, count, NO_OFFSET, RWF_NOWAIT)),
    writeVector: (fd, address, count) => outcome(writev(fd, address, count)),
    sendMessages: (fd, address, count) => outcome(sendmmsg(fd, address, count, 0)),
    receiveMessages: (fd, address, count) => outcome(recvmmsg(fd, address, count, MSG_WAITFORONE, 0)),
    shutdown: (fd) => void shutdown(fd, SHUT_RDWR),
  };
  return loaded;
}

/** Where the buffer is, as a number. Node moves no buffer's bytes. */
export const addressOfBuffer = (bytes: Uint8Array): number => Number(addressOf(bytes));

/** <linux/if_tun.h>, <linux/virtio_net.h> */
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const OFFLOAD = { checksum: 0x01, tso4: 0x02, tsoEcn: 0x08, uso4: 0x20, uso6: 0x40 } as const;

export interface OffloadTun {
  readonly fd: number;
  readonly name: string;
  /** Whether the kernel leaves the segmentation of UDP to us as well: since Linux 6.2. */
  readonly udpSegmentation: boolean;
}

/**
 * A TUN device in the calling thread's namespace that lives as long as its descriptor. The kernel
 * hands over TCP of IPv4 (and UDP) before it is segmented and before its checksum is made, and takes it so. `%d` in the
 * name stands for the first number that is free. Fails with EBUSY where the name is taken by a device in use.
 */
export function openOffloadTun(name: string): OffloadTun {
  const fd = openSync("/dev/net/tun", "r+");
  try {
    const request = new Uint8Array(40);
    request.set(new TextEncoder().encode(name).subarray(0, 15));
    new DataView(request.buffer).setUint16(16, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, true);
    ioctl(fd, TUNSETIFF, request);
    const chosen = new TextDecoder().decode(request.subarray(0, request.indexOf(0)));
    const { checksum, tso4, tsoEcn, uso4, uso6 } = OFFLOAD;
    const tcp = checksum | tso4 | tsoEcn;
    // The kernel takes both families of UDP or none.
    const udpSegmentation = setOffload(fd, tcp | uso4 | uso6);
    if (!udpSegmentation && !setOffload(fd, tcp)) throw new Failure("EINVAL", "the kernel has no segmentation offload");
    return { fd, name: chosen, udpSegmentation };
  } catch (error) {
    closeSync(fd);
    throw new Failure(codeOf(error) ?? "EIO", `Cannot make TUN device ${name}: ${messageOf(error)}`, error);
  }
}

/** The argument is the flags themselves, no structure. */
function setOffload(fd: number, flags: number): boolean {
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
  const call = koffi.load("libc.so.6").func("ioctl", "int", ["int", "ulong", "ulong"]);
  return call(fd, TUNSETOFFLOAD, flags) === 0;
}

/** `ENETUNREACH`, of a negative errno number. */
export const errnoName = (outcome: number): string => describeErrno(-outcome).code;
