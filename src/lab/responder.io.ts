import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { closeSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import {
  AF_INET6,
  bind,
  listen,
  setSocketOption,
  SO_REUSEADDR,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../netlink/ffi.io.ts";
import { socketIn } from "../netlink/namespace.io.ts";
import type { PodPort } from "./pods.ts";
import { sockaddr } from "./sockaddr.ts";

/** What a pod of the lab answers with, in the place of a container. */
export interface Responder {
  close(): void;
}

const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const ANY = { family: 6, value: 0n } as const;
/** A connection that says nothing for this long is closed. */
const IDLE_MS = 600_000;

/**
 * Opens each port in the namespace, for both families: TCP greets with `greeting` and a line end and then echoes, UDP
 * echoes. The sockets are opened inside; this process serves them from where it is, so that a hundred pods cost no
 * hundred processes.
 */
export function respond(netns: string, ports: readonly PodPort[], greeting: string): Responder {
  const servers: Server[] = [];
  const datagrams: DatagramSocket[] = [];
  const open = new Set<Socket>();
  const close = (): void => {
    for (const server of servers) server.close();
    for (const socket of datagrams) socket.close();
    for (const socket of open) socket.destroy();
  };
  try {
    for (const { port, protocol } of ports) {
      if (protocol === "TCP") {
        const server = createServer((socket) => greetAndEcho(socket, greeting, open));
        server.on("error", () => undefined);
        server.listen({ fd: boundSocket(netns, SOCK_STREAM, port) });
        servers.push(server);
      } else {
        const socket = createSocket("udp6");
        socket.on("message", (message, peer) => {
          // RFC 768: a datagram without a source port wants no answer.
          if (peer.port !== 0) socket.send(message, peer.port, peer.address, () => undefined);
        });
        socket.on("error", () => undefined);
        socket.bind({ fd: boundSocket(netns, SOCK_DGRAM, port) });
        datagrams.push(socket);
      }
    }
  } catch (error) {
    close();
    throw error;
  }
  return { close };
}

function greetAndEcho(socket: Socket, greeting: string, open: Set<Socket>): void {
  open.add(socket);
  socket.on("close", () => open.delete(socket));
  socket.on("error", () => undefined); // the peer reset: there is nobody left to tell
  socket.setTimeout(IDLE_MS, () => socket.destroy());
  socket.write(`${greeting}\n`);
  socket.pipe(socket);
}

function boundSocket(netns: string, type: number, port: number): number {
  const fd = socketIn(netns, AF_INET6, type | SOCK_NONBLOCK, 0);
  try {
    setSocketOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    setSocketOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    bind(fd, sockaddr(ANY, port));
    if (type === SOCK_STREAM) listen(fd, 512);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
