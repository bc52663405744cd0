import net from "node:net";
import type { Address } from "../ip/address.ts";
import { codeOf, messageOf } from "../lib/errors.ts";
import type { SocketCalls } from "./config.ts";
import { MAX_MESSAGE } from "./constants.ts";
import { nextFrame, type Frame } from "./message.ts";
import { ProtocolError } from "./notification.ts";
import type { Turns } from "./turns.io.ts";

/** A TCP connection that speaks in BGP messages. */
export interface Connection {
  readonly localAddress: string;
  readonly remoteAddress: string;
  /** Longest message to accept: raised once RFC 8654 is agreed on. */
  longestMessage: number;
  /** Whether what is written leaves soon: the peer reads, and little is waiting. */
  ready(): boolean;
  /** Whether there is more to read, for which there was no time yet. */
  readonly unread: boolean;
  /** Bytes that the kernel has not taken yet, and those that it has. */
  readonly waiting: number;
  readonly taken: number;
  write(bytes: Uint8Array): void;
  /** Sends what is waiting, then closes; a peer that takes nothing is cut off after a moment. Nothing is heard any more. */
  close(): void;
  /** Closes at once, as a crash would. */
  destroy(): void;
}

export interface ConnectionEvents {
  message(frame: Frame, bytes: Uint8Array): void;
  malformed(error: ProtocolError): void;
  /** Whole messages were written. */
  written(bytes: Uint8Array): void;
  closed(reason: string): void;
  /** `ready()` became true again. */
  drained(): void;
}

/** Bytes waiting for a slow peer before changes are remembered by prefix instead. */
const BACKLOG = 1 << 20;
/** How long a farewell may take, milliseconds. */
const LINGER = 1000;
/** Messages between two looks at the clock. */
const LOOK = 32;

/** Speaks BGP on a socket that is connected. */
export function createConnection(socket: net.Socket, turns: Turns, events: ConnectionEvents): Connection {
  let pending: Buffer | undefined;
  let unread = false;
  let ended = false;
  let over = false;
  let reason = "by the peer";
  const connection: Connection = {
    localAddress: plainAddress(socket.localAddress ?? ""),
    remoteAddress: plainAddress(socket.remoteAddress ?? ""),
    longestMessage: MAX_MESSAGE,
    ready: () => socket.writableLength < BACKLOG,
    get unread() {
      return unread;
    },
    get waiting() {
      return socket.writableLength;
    },
    get taken() {
      return socket.bytesWritten - socket.writableLength;
    },
    write(bytes) {
      if (over) return;
      socket.write(bytes);
      events.written(bytes);
    },
    close() {
      if (over) return;
      over = true;
      socket.end();
      const timer = setTimeout(() => socket.destroy(), LINGER);
      socket.once("close", () => clearTimeout(timer));
      // What still arrives is read and forgotten: unread bytes would make the kernel answer with a reset, which can
      // overtake the farewell.
      socket.resume();
    },
    destroy() {
      over = true;
      socket.destroy();
    },
  };

  /** Reads on until a message is not whole, or the turn of the event loop has lasted long. */
  function read(bytes: Buffer): void {
    let at = 0;
    let look = LOOK;
    unread = false;
    try {
      for (;;) {
        const frame = over ? undefined : nextFrame(bytes, at, connection.longestMessage);
        if (frame === undefined) break;
        at = frame.end;
        events.message(frame, bytes);
        look -= 1;
        if (look > 0) continue;
        look = LOOK;
        if (at === bytes.length || !turns.spent()) continue;
        unread = true;
        break;
      }
    } catch (thrown) {
      if (!(thrown instanceof ProtocolError)) throw thrown;
      pending = undefined;
      events.malformed(thrown);
      return;
    }
    pending = at === bytes.length ? undefined : bytes.subarray(at);
    if (unread) rest();
    else if (ended) end();
    else if (socket.isPaused()) socket.resume();
  }

  /** Goes on in a later turn. Meanwhile nothing more is taken from the kernel, which slows the peer down. */
  function rest(): void {
    socket.pause();
    turns.later(() => {
      if (!over) read(pending ?? Buffer.alloc(0));
    });
  }

  function end(): void {
    if (over) return;
    over = true;
    events.closed(reason);
  }

  socket.setNoDelay(true);
  socket.on("data", (chunk: Buffer) => {
    if (over) return;
    const bytes = pending === undefined ? chunk : Buffer.concat([pending, chunk]);
    if (!unread && !turns.spent()) return read(bytes);
    pending = bytes;
    if (unread) return;
    unread = true;
    rest();
  });
  socket.on("error", (error) => {
    reason = reasonOf(error);
  });
  socket.on("drain", () => events.drained());
  socket.on("close", () => {
    // What it said before it went still counts.
    ended = true;
    if (!unread) end();
  });
  return connection;
}

export interface DialTarget {
  readonly host: string;
  readonly port: number;
  readonly localAddress: string | undefined;
  readonly protection?: Protection;
}

/** What guards a connection beneath BGP. */
export interface Protection {
  readonly calls: SocketCalls;
  readonly address: Address;
  /** RFC 2385. */
  readonly password?: string;
  /** RFC 5082: how many hops away the peer may be. */
  readonly hops?: number;
}

const LARGEST_TTL = 255;

/** Guards a socket that is not connected yet, or was just accepted. Throws the `Failure` of the system call. */
export function protect(fd: number, { calls, address, password, hops }: Protection): void {
  if (password !== undefined) calls.setPassword(fd, address, password);
  if (hops !== undefined) calls.setTtl(fd, address.family, LARGEST_TTL, LARGEST_TTL + 1 - hops);
}

/** The descriptor of a socket or server, which Node has but does not tell. */
export function descriptorOf(socket: net.Socket | net.Server): number {
  return (socket as { _handle?: { fd?: number } })._handle?.fd ?? -1;
}

export interface DialEvents {
  connected(socket: net.Socket): void;
  /** `refused`: the host answered, but not the port. */
  failed(reason: string, refused: boolean): void;
}

/** Starts to connect; the function it returns gives up. How long it may take is the caller's timer. */
export function dial(target: DialTarget, events: DialEvents): () => void {
  const { localAddress } = target;
  let over = false;
  const socket = socketTo(target);
  socket.once("connect", () => {
    if (over) return;
    over = true;
    socket.off("error", fail);
    events.connected(socket);
  });
  socket.on("error", fail);
  function fail(error: Error): void {
    if (over) return;
    over = true;
    const code = codeOf(error);
    const missing = code === "EADDRNOTAVAIL" && localAddress !== undefined;
    const reason = missing ? `the source address ${localAddress} is not on this host` : reasonOf(error);
    events.failed(`cannot connect: ${reason}`, code === "ECONNREFUSED" || code === "ECONNRESET");
  }
  return () => {
    over = true;
    socket.destroy();
  };
}

/** A socket that connects, or is about to say why it cannot. */
function socketTo({ host, port, localAddress, protection }: DialTarget): net.Socket {
  const to = { host, port, ...(localAddress !== undefined && { localAddress }) };
  if (protection === undefined) return net.connect(to);
  let socket: net.Socket | undefined;
  try {
    const fd = protection.calls.open(protection.address.family);
    // Node opens its own descriptor only when it connects, which is too late; from this one it must not read before.
    const options = { fd, readable: true, writable: true, manualStart: true };
    socket = new net.Socket(options);
    protect(fd, protection);
    return socket.connect(to);
  } catch (thrown) {
    return (socket ?? new net.Socket()).destroy(thrown instanceof Error ? thrown : new Error(String(thrown)));
  }
}

export interface Listener {
  readonly port: number;
  readonly fd: number;
  close(): void;
}

/** Listens on one address, or on all with undefined. Rejects with the system's error. */
export async function listen(
  address: string | undefined,
  port: number,
  accept: (socket: net.Socket) => void,
): Promise<Listener> {
  const server = net.createServer({ noDelay: true }, accept);
  // 200 neighbours may connect at once; the kernel caps this at net.core.somaxconn.
  const options = { port, backlog: 4096, ...(address !== undefined && { host: address }) };
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options, () => {
      server.off("error", reject);
      resolve();
    });
  });
  // Running out of descriptors is no reason to fall: those who were not accepted will ask again.
  server.on("error", () => undefined);
  const bound = server.address();
  return {
    port: typeof bound === "object" && bound !== null ? bound.port : port,
    fd: descriptorOf(server),
    close: () => server.close(),
  };
}

/** Without the zone, and IPv4 as IPv4 also where the socket is IPv6. */
export function plainAddress(text: string): string {
  const withoutZone = text.replace(/%.*$/, "");
  return /^::ffff:\d+\.\d+\.\d+\.\d+$/.test(withoutZone) ? withoutZone.slice("::ffff:".length) : withoutZone;
}

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "refused (nothing listens there, or a firewall rejects it)",
  ECONNRESET: "reset by the peer",
  ETIMEDOUT: "timed out",
  EHOSTUNREACH: "no route to host",
  ENETUNREACH: "network is unreachable",
  EPIPE: "by the peer",
};

function reasonOf(error: Error): string {
  const code = codeOf(error);
  const known = code === undefined ? undefined : REASONS[code];
  return known ?? messageOf(error);
}
