import { closeSync } from "node:fs";
import type { Address, Family } from "../ip/address.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import {
  addConnection,
  type Connection,
  type ConnectionEvent,
  type ConnectionFilter,
  decodeConnection,
  decodeConnectionEvent,
  deleteConnection,
  describeTuple,
  listConnections,
} from "./conntrack.ts";
import { AF_NETLINK, bind, setSocketOption, SO_RCVBUFFORCE, SOCK_RAW, SOL_SOCKET } from "./ffi.io.ts";
import { decodeMessages } from "./framing.ts";
import { socketIn } from "./namespace.io.ts";
import {
  GROUP_CONNTRACK_DESTROY,
  GROUP_CONNTRACK_NEW,
  GROUP_CONNTRACK_UPDATE,
  NETLINK_NETFILTER,
} from "./nfnetlink.ts";
import { openNetlink } from "./socket.io.ts";
import { watchSocket } from "./watch.io.ts";

/** The connections of one network namespace, listed, written and cut. Synchronous. */
export interface Conntrack {
  /** Of both families where none is named. */
  connections(filter?: Partial<ConnectionFilter>): Connection[];
  add(connection: Omit<Connection, "id">): void;
  /** Says whether it was there. */
  delete(connection: Pick<Connection, "original" | "id" | "zone">): boolean;
  /** Cuts every connection that `which` says yes to; returns how many there were. */
  deleteWhere(which: (connection: Connection) => boolean, family?: Family): number;
  /** Cuts every connection that an address has begun or has answered; returns how many there were. */
  deleteOf(address: Address): number;
  close(): void;
}

/** `namespace` is the path of a network namespace; without it the calling thread's. */
export function openConntrack(namespace?: string): Conntrack {
  const socket = openNetlink(NETLINK_NETFILTER, namespace);
  const list: Conntrack["connections"] = (filter = {}) => {
    const families: readonly Family[] = filter.family === undefined ? [4, 6] : [filter.family];
    return families.flatMap((family) =>
      socket.dump(listConnections({ ...filter, family }), () => `list IPv${family} connections`, decodeConnection),
    );
  };
  /** Those that were there, of what was to be deleted. */
  function deleteAll(connections: readonly Pick<Connection, "original" | "id" | "zone">[]): number {
    const refusals = socket.batch(connections.map(deleteConnection));
    for (const [at, refusal] of refusals.entries()) {
      if (refusal === undefined || refusal.code === "ENOENT") continue;
      const tuple = describeTuple(connections[at]!.original);
      throw new Failure(refusal.code, `Cannot cut connection ${tuple}: ${refusal.reason}`);
    }
    return refusals.filter((refusal) => refusal === undefined).length;
  }
  return {
    connections: list,
    add(connection) {
      const attempt = (): string => `add connection ${describeTuple(connection.original)}`;
      socket.request(addConnection(connection), attempt, () => undefined);
    },
    delete: (connection) => deleteAll([connection]) === 1,
    deleteOf(address) {
      const { family } = address;
      // One that an address has with itself is listed twice, and is gone the second time.
      return deleteAll([...list({ family, from: address }), ...list({ family, to: address })]);
    },
    deleteWhere: (which, family) => deleteAll(list(family === undefined ? {} : { family }).filter(which)),
    close: () => socket.close(),
  };
}

export interface ConnectionWatchOptions {
  /** Path of a network namespace; without it the calling thread's. */
  readonly namespace?: string;
  readonly changes: readonly ConnectionEvent["change"][];
  /** Bytes that the kernel keeps for us while this thread is busy, 32 MiB where absent. */
  readonly receiveBuffer?: number;
}

export interface ConnectionListener {
  event(event: ConnectionEvent): void;
  /** Something was missed. */
  overrun(reason: string): void;
  /** The watch is dead. */
  failed(failure: Failure): void;
}

const GROUPS = { new: GROUP_CONNTRACK_NEW, updated: GROUP_CONNTRACK_UPDATE, ended: GROUP_CONNTRACK_DESTROY } as const;

/** Tells of connections that begin, change and end, from now on. Returns what ends it. */
export function watchConnections(options: ConnectionWatchOptions, listener: ConnectionListener): () => void {
  const { namespace, changes, receiveBuffer = 32 << 20 } = options;
  const fd = socketIn(namespace, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
  try {
    setSocketOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, receiveBuffer);
    // struct sockaddr_nl: family, padding, our port (the kernel chooses), groups as a bit each
    const bits = changes.reduce((mask, change) => mask | (1 << (GROUPS[change] - 1)), 0);
    bind(fd, new Uint8Array(Uint32Array.of(AF_NETLINK, 0, bits).buffer));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return watchSocket(fd, {
    data(bytes) {
      for (const event of decodeAll(bytes, listener)) listener.event(event);
    },
    overrun: () => listener.overrun("the kernel dropped messages, because they came faster than they were read"),
    failed: (code, message) => listener.failed(new Failure(code, `Cannot watch connections: ${message}`)),
  });
}

/** What cannot be read counts as lost. */
function decodeAll(bytes: Uint8Array, listener: ConnectionListener): ConnectionEvent[] {
  try {
    return decodeMessages(bytes)
      .map(decodeConnectionEvent)
      .filter((event) => event !== undefined);
  } catch (error) {
    listener.overrun(`the kernel sent what could not be read: ${messageOf(error)}`);
    return [];
  }
}
