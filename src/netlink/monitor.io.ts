import { closeSync } from "node:fs";
import { Failure, messageOf } from "../lib/errors.ts";
import { AF_NETLINK, bind, setSocketOption, SO_RCVBUFFORCE, SOCK_RAW, SOL_SOCKET } from "./ffi.io.ts";
import { decodeMessages } from "./framing.ts";
import { socketIn } from "./namespace.io.ts";
import { decodeNotification, type Notification } from "./notification.ts";
import { NETLINK_ROUTE } from "./socket.io.ts";
import { watchSocket } from "./watch.io.ts";

/** RTNLGRP_… of <linux/rtnetlink.h>: each group's number. */
const GROUPS = {
  link: 1,
  neighbour: 3,
  address4: 5,
  route4: 7,
  rule4: 8,
  address6: 9,
  route6: 11,
  rule6: 19,
} as const;
export type MonitorGroup = keyof typeof GROUPS;

export interface MonitorOptions {
  /** Path of a network namespace; without it the calling thread's. */
  readonly namespace?: string;
  readonly groups: readonly MonitorGroup[];
  /**
   * Bytes that the kernel keeps for us while this thread is busy, 32 MiB where absent. It counts about 1 KB for a route
   * (ours too), more for a link.
   */
  readonly receiveBuffer?: number;
}

export interface MonitorListener {
  event(notification: Notification): void;
  /** Something was missed: whoever keeps a copy of the kernel's state must list it anew. */
  overrun(reason: string): void;
  /** The monitor is dead. */
  failed(failure: Failure): void;
}

/**
 * Tells of every change in the namespace, from now on: a list that is read after this returns misses nothing. Returns
 * what ends it.
 */
export function openMonitor(options: MonitorOptions, listener: MonitorListener): () => void {
  const { namespace, groups, receiveBuffer = 32 << 20 } = options;
  const fd = socketIn(namespace, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  try {
    setSocketOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, receiveBuffer);
    // struct sockaddr_nl: family, padding, our port (the kernel chooses), groups as a bit each
    const bits = groups.reduce((mask, group) => mask | (1 << (GROUPS[group] - 1)), 0);
    bind(fd, new Uint8Array(Uint32Array.of(AF_NETLINK, 0, bits).buffer));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return watchSocket(fd, {
    data(bytes) {
      for (const notification of decodeAll(bytes, listener)) listener.event(notification);
    },
    overrun: () => listener.overrun("the kernel dropped messages, because they came faster than they were read"),
    failed: (code, message) => listener.failed(new Failure(code, `Cannot watch the kernel's changes: ${message}`)),
  });
}

/** What cannot be read counts as lost. */
function decodeAll(bytes: Uint8Array, listener: MonitorListener): Notification[] {
  try {
    return decodeMessages(bytes)
      .map(decodeNotification)
      .filter((notification) => notification !== undefined);
  } catch (error) {
    listener.overrun(`the kernel sent what could not be read: ${messageOf(error)}`);
    return [];
  }
}
