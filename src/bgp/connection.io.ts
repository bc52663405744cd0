import net from "node:net";
import { codeOf, messageOf } from "../lib/errors.ts";
import { MAX_MESSAGE } from "./constants.ts";
import { nextFrame, type Frame } from "./message.ts";
import { ProtocolError } from "./notification.ts";

/** A TCP connection that speaks in BGP messages. */
export interface Connection {
  readonly localAddress: string;
  readonly remoteAddress: string;
  /** Longest message to accept: raised once RFC 8654 is agreed on. */
  longestMessage: number;
  /** Whether what is written leaves soon: the peer reads, and little is waiting. */
  ready(): boolean;
  write(bytes: Uint8Array): void;
  /** Sends what is waiting, then closes; a peer that takes nothing is cut off after a moment. Nothing is heard any more. */
  close(): void;
  /** Closes at once, as a crash would. */
  destroy(): void;
}

export interface ConnectionEvents {
  message(frame: Frame, bytes: Uint8Array): void;
  malformed(error: ProtocolError): void;
  closed(reason: string): void;
  /** `ready()` became true again. */
  drained(): void;
}

/** Bytes waiting for a slow peer before changes are remembered by prefix instead. */
const BACKLOG = 1 << 20;
/** How long a farewell may take, milliseconds. */
const LINGER = 1000;

/** Speaks BGP on a socket that is connected. */
export function createConnection(socket: net.Socket, events: ConnectionEvents): Connection {
  let pending: Buffer | undefined;
  let over = false;
  let reason = "by the peer";
  const connection: Connection = {
    localAddress: plainAddress(socket.localAddress ?? ""),
    remoteAddress: plainAddress(socket.remoteAddress ?? ""),
    longestMessage: MAX_MESSAGE,
    ready: () => socket.writableLength < BACKLOG,
    write(bytes) {
      if (!over) socket.write(bytes);
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

  function read(chunk: Buffer): void {
    const bytes = pending === undefined ? chunk : Buffer.concat([pending, chunk]);
    let at = 0;
    try {
      for (;;) {
        const frame = over ? undefined : nextFrame(bytes, at, connection.longestMessage);
        if (frame === undefined) break;
        at = frame.end;
        events.message(frame, bytes);
      }
    } catch (thrown) {
      if (!(thrown instanceof ProtocolError)) throw thrown;
      pending = undefined;
      events.malformed(thrown);
      return;
    }
    pending = at === bytes.length ? undefined : bytes.subarray(at);
  }

  socket.setNoDelay(true);
  socket.on("data", (chunk: Buffer) => {
    if (!over) read(chunk);
  });
  socket.on("error", (error) => {
    reason = reasonOf(error);
  });
  socket.on("drain", () => events.drained());
  socket.on("close", () => {
    if (over) return;
    over = true;
    events.closed(reason);
  });
  return connection;
}

export interface DialTarget {
  readonly host: string;
  readonly port: number;
  readonly localAddress: string | undefined;
}

export interface DialEvents {
  connected(socket: net.Socket): void;
  /** `refused`: the host answered, but not the port. */
  failed(reason: string, refused: boolean): void;
}

/** Starts to connect; the function it returns gives up. How long it may take is the caller's timer. */
export function dial({ host, port, localAddress }: DialTarget, events: DialEvents): () => void {
  const socket = net.connect({ host, port, ...(localAddress !== undefined && { localAddress }) });
  let over = false;
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

export interface Listener {
  readonly port: number;
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
