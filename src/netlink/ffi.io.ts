import { createRequire } from "node:module";
import { getSystemErrorMap } from "node:util";
import type * as Koffi from "koffi";
import { Failure } from "../lib/errors.ts";

/**
 * The system calls that Node has no function for, through koffi. They run on the calling thread and are synchronous;
 * each throws a `Failure` with the name of the errno. The library is loaded at the first call (it takes 10 to 25 ms),
 * so that a command which never needs the kernel does not pay for it.
 */

/** `ENETUNREACH`, or `E999` where the number has no name here. */
export type Errno = `E${string}`;

/** The name of an errno and what it says, in lower case: `["ENETUNREACH", "network is unreachable"]`. */
export function describeErrno(errno: number): { code: Errno; text: string } {
  const known = getSystemErrorMap().get(-errno);
  if (known !== undefined) return { code: known[0] as Errno, text: known[1] };
  // libuv names the common ones only.
  const name = Object.entries(library().koffi.os.errno).find(([, value]) => value === errno)?.[0];
  return { code: (name ?? `E${errno}`) as Errno, text: library().strerror(errno).toLowerCase() };
}

/** Socket families, types and options of <bits/socket.h>, <asm-generic/socket.h>; flags of <fcntl.h>, <sched.h>. */
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_NETLINK = 16;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_RCVTIMEO = 20;
export const SO_RCVBUFFORCE = 33;
export const MSG_DONTWAIT = 0x40;
export const CLONE_NEWNET = 0x40000000;
export const MS_BIND = 4096;
export const MS_REC = 16384;
export const MS_SHARED = 1 << 20;
export const MNT_DETACH = 2;
export const POLLIN = 1;
export const POLLERR = 8;

interface Calls {
  readonly koffi: typeof Koffi;
  readonly socket: (domain: number, type: number, protocol: number) => number;
  readonly bind: (fd: number, address: Uint8Array, length: number) => number;
  readonly connect: (fd: number, address: Uint8Array, length: number) => number;
  readonly listen: (fd: number, backlog: number) => number;
  readonly setsockopt: (fd: number, level: number, option: number, value: Uint8Array, length: number) => number;
  readonly getsockopt: (fd: number, level: number, option: number, value: Uint8Array, length: Uint8Array) => number;
  readonly getsockname: (fd: number, address: Uint8Array, length: Uint8Array) => number;
  readonly recv: (fd: number, buffer: Uint8Array, length: number, flags: number) => number;
  readonly recvfrom: (
    fd: number,
    buffer: Uint8Array,
    length: number,
    flags: number,
    address: Uint8Array,
    addressLength: Uint8Array,
  ) => number;
  readonly sendto: (
    fd: number,
    buffer: Uint8Array,
    length: number,
    flags: number,
    address: Uint8Array,
    addressLength: number,
  ) => number;
  readonly poll: (fds: Uint8Array, count: number, milliseconds: number) => number;
  readonly ioctl: (fd: number, request: number, argument: Uint8Array) => number;
  readonly setns: (fd: number, type: number) => number;
  readonly unshare: (flags: number) => number;
  readonly mount: (source: string, target: string, type: string, flags: number, data: null) => number;
  readonly umount2: (target: string, flags: number) => number;
  readonly strerror: (errno: number) => string;
  readonly mallocTrim: (kept: number) => number;
  readonly attachFilter: (
    fd: number,
    level: number,
    option: number,
    program: { readonly length: number; readonly instructions: Uint8Array },
    size: number,
  ) => number;
  readonly bpf: (number: number, command: number, attributes: Uint8Array, size: number, ...kept: Kept) => number;
}
type Kept = [Uint8Array | null, Uint8Array | null, Uint8Array | null];

let loaded: Calls | undefined;

function library(): Calls {
  if (loaded !== undefined) return loaded;
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
  const libc = koffi.load("libc.so.6");
  koffi.struct("sock_fprog", { length: "uint16_t", instructions: "void *" });
  loaded = {
    koffi,
    socket: libc.func("int socket(int domain, int type, int protocol)"),
    bind: libc.func("int bind(int fd, void *address, uint length)"),
    connect: libc.func("int connect(int fd, void *address, uint length)"),
    listen: libc.func("int listen(int fd, int backlog)"),
    setsockopt: libc.func("int setsockopt(int fd, int level, int option, void *value, uint length)"),
    getsockopt: libc.func("int getsockopt(int fd, int level, int option, void *value, void *length)"),
    getsockname: libc.func("int getsockname(int fd, void *address, void *length)"),
    recv: libc.func("long recv(int fd, void *buffer, size_t length, int flags)"),
    recvfrom: libc.func(
      "long recvfrom(int fd, void *buffer, size_t length, int flags, void *address, void *addressLength)",
    ),
    sendto: libc.func(
      "long sendto(int fd, const void *buffer, size_t length, int flags, const void *address, uint addressLength)",
    ),
    poll: libc.func("int poll(void *fds, ulong count, int milliseconds)"),
    ioctl: libc.func("int ioctl(int fd, ulong request, void *argument)"),
    setns: libc.func("int setns(int fd, int type)"),
    unshare: libc.func("int unshare(int flags)"),
    mount: libc.func(
      "int mount(const char *source, const char *target, const char *type, ulong flags, const void *data)",
    ),
    umount2: libc.func("int umount2(const char *target, int flags)"),
    strerror: libc.func("const char *strerror(int errno)"),
    mallocTrim: libc.func("int malloc_trim(size_t kept)"),
    attachFilter: libc.func("int setsockopt(int fd, int level, int option, sock_fprog *program, uint size)"),
    bpf: libc.func("syscall", "long", ["long", "long", "void *", "long", "void *", "void *", "void *"]),
  };
  return loaded;
}

/** The sentence is built only when the call failed. */
function check(result: number, attempt: () => string): number {
  if (result >= 0) return result;
  const { code, text } = describeErrno(library().koffi.errno());
  throw new Failure(code, `Cannot ${attempt()}: ${text} (${code})`);
}

/** A socket with close-on-exec. */
export function socket(domain: number, type: number, protocol: number): number {
  const fd = library().socket(domain, type | SOCK_CLOEXEC, protocol);
  return check(fd, () => `open a socket of family ${domain}, type ${type}, protocol ${protocol}`);
}

/** `address` is a `struct sockaddr_…` as bytes. */
export function bind(fd: number, address: Uint8Array): void {
  check(library().bind(fd, address, address.length), () => `bind socket ${fd}`);
}

/** `address` is a `struct sockaddr_…` as bytes. On a non-blocking socket expect the failure EINPROGRESS. */
export function connect(fd: number, address: Uint8Array): void {
  check(library().connect(fd, address, address.length), () => `connect socket ${fd}`);
}

export function listen(fd: number, backlog: number): void {
  check(library().listen(fd, backlog), () => `listen on socket ${fd}`);
}

/** A number is passed as a C int. */
export function setSocketOption(fd: number, level: number, option: number, value: number | Uint8Array): void {
  const bytes = typeof value === "number" ? new Uint8Array(Int32Array.of(value).buffer) : value;
  const result = library().setsockopt(fd, level, option, bytes, bytes.length);
  check(result, () => `set option ${option} of level ${level} on socket ${fd}`);
}

/** Reads an option into a buffer of at most `size` bytes and returns as much as the kernel filled. */
export function getSocketOption(fd: number, level: number, option: number, size: number): Uint8Array {
  const value = new Uint8Array(size);
  const length = Uint32Array.of(size);
  const result = library().getsockopt(fd, level, option, value, new Uint8Array(length.buffer));
  check(result, () => `read option ${option} of level ${level} of socket ${fd}`);
  return value.subarray(0, length[0]);
}

const SO_ATTACH_FILTER = 26;
/** `struct sock_filter` of <linux/filter.h>: code, two jumps, a number; in host order. */
const INSTRUCTION_LENGTH = 8;
const FILTER_PROGRAM_LENGTH = 16;

/** The socket keeps only what the program of classic BPF lets through. */
export function attachFilter(fd: number, instructions: Uint8Array): void {
  const program = { length: instructions.length / INSTRUCTION_LENGTH, instructions };
  const result = library().attachFilter(fd, SOL_SOCKET, SO_ATTACH_FILTER, program, FILTER_PROGRAM_LENGTH);
  check(result, () => `attach a filter to socket ${fd}`);
}

/** The socket's own address: a `struct sockaddr_…` as bytes. */
export function socketName(fd: number): Uint8Array {
  const address = new Uint8Array(128);
  const length = Uint32Array.of(address.length);
  check(library().getsockname(fd, address, new Uint8Array(length.buffer)), () => `read the address of socket ${fd}`);
  return address.subarray(0, length[0]);
}

/**
 * Receives one datagram into the buffer and returns its length. Blocks unless MSG_DONTWAIT is among the flags; returns
 * undefined where that would have blocked.
 */
export function receive(fd: number, buffer: Uint8Array, flags: number): number | undefined {
  const length = library().recv(fd, buffer, buffer.length, flags);
  if (length >= 0) return length;
  const { errno } = library().koffi.os;
  const failed = library().koffi.errno();
  if (failed === errno["EAGAIN"] || failed === errno["EINTR"]) return undefined;
  return check(length, () => `receive from socket ${fd}`);
}

/**
 * The same, with who sent it: a `struct sockaddr_…` as bytes. Never blocks. An error that an earlier datagram brought back is
 * thrown, and with that taken from the socket.
 */
export function receiveFrom(fd: number, buffer: Uint8Array): { length: number; from: Uint8Array } | undefined {
  const from = new Uint8Array(28);
  const size = new Uint8Array(Uint32Array.of(from.length).buffer);
  const length = library().recvfrom(fd, buffer, buffer.length, MSG_DONTWAIT, from, size);
  if (length >= 0) return { length, from };
  const { errno } = library().koffi.os;
  const failed = library().koffi.errno();
  if (failed === errno["EAGAIN"] || failed === errno["EINTR"]) return undefined;
  check(length, () => `receive from socket ${fd}`);
  return undefined;
}

/** Sends one datagram; `address` is a `struct sockaddr_…` as bytes. */
export function sendTo(fd: number, bytes: Uint8Array, address: Uint8Array): void {
  const sent = library().sendto(fd, bytes, bytes.length, MSG_DONTWAIT, address, address.length);
  check(sent, () => `send ${bytes.length} bytes from socket ${fd}`);
}

export interface PollEntry {
  readonly fd: number;
  readonly events: number;
}

/** poll(2): what happened to each descriptor (0: nothing). Negative milliseconds wait for ever. A signal ends the wait. */
export function poll(entries: readonly PollEntry[], milliseconds: number): number[] {
  const fds = new DataView(new ArrayBuffer(entries.length * 8));
  for (const [index, { fd, events }] of entries.entries()) {
    fds.setInt32(index * 8, fd, true);
    fds.setInt16(index * 8 + 4, events, true);
  }
  const result = library().poll(new Uint8Array(fds.buffer), entries.length, milliseconds);
  if (result < 0 && library().koffi.errno() === library().koffi.os.errno["EINTR"]) return entries.map(() => 0);
  check(result, () => `wait for ${entries.length} descriptors`);
  return entries.map((_, index) => fds.getInt16(index * 8 + 6, true));
}

/**
 * Calls back in every turn of the event loop in which there is something to read, or an error to be had by reading.
 * Keeps the process alive. What is returned ends it; the descriptor may be closed after that.
 */
export function whenReadable(fd: number, callback: () => void): () => void {
  let polling = true;
  // Called from outside of JavaScript's usual turns, where promises would not go on: the work is for the turn's end.
  const wake = (): void => {
    handle.stop();
    setImmediate(() => {
      if (!polling) return;
      try {
        callback();
      } finally {
        // libuv has stopped by itself after an error (POLLERR), such as a netlink socket's ENOBUFS.
        if (polling) handle.start({ readable: true }, wake);
      }
    });
  };
  const handle = library().koffi.node.poll(fd, { readable: true }, wake);
  return () => {
    if (!polling) return;
    polling = false;
    handle.close();
  };
}

/** `argument` is the structure as bytes; the kernel may change it in place. */
export function ioctl(fd: number, request: number, argument: Uint8Array): number {
  return check(library().ioctl(fd, request, argument), () => `do ioctl 0x${request.toString(16)} on descriptor ${fd}`);
}

/** Moves the calling thread into the namespace. `namespace.io.ts` has the form that comes back. */
export function setns(fd: number, type: number): void {
  check(library().setns(fd, type), () => `enter the namespace of descriptor ${fd}`);
}

export function unshare(flags: number): void {
  check(library().unshare(flags), () => `make a new namespace (flags 0x${flags.toString(16)})`);
}

export function mount(source: string, target: string, type: string, flags: number): void {
  check(library().mount(source, target, type, flags, null), () => `mount ${source} on ${target}`);
}

export function unmount(target: string, flags: number): void {
  check(library().umount2(target, flags), () => `unmount ${target}`);
}

/** malloc_trim(3): gives what malloc holds and nobody uses back to the kernel. */
export function trimAllocator(): void {
  library().mallocTrim(0);
}

/** Where the bytes are in memory, for structures that hold pointers. Node keeps no array's bytes where they could move. */
export function addressOf(bytes: Uint8Array): bigint {
  return library().koffi.address(bytes);
}

const BPF_CALL = process.arch === "arm64" ? 280 : 321;

/**
 * bpf(2). `attributes` is the part of `union bpf_attr` that belongs to the command, and `pointed` what it points to, so
 * that it stays in memory for the call: they are arguments that the kernel does not look at. Returns what the call does.
 */
export function bpf(
  command: number,
  attributes: Uint8Array,
  pointed: readonly Uint8Array[],
  attempt: () => string,
): number {
  const [first = null, second = null, third = null] = pointed;
  return check(library().bpf(BPF_CALL, command, attributes, attributes.length, first, second, third), attempt);
}
