import { closeSync, writeSync } from "node:fs";
import { ByteWriter } from "../lib/bytes.ts";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import {
  AF_NETLINK,
  describeErrno,
  MSG_DONTWAIT,
  receive,
  setSocketOption,
  SO_RCVBUFFORCE,
  SOCK_RAW,
  SOL_SOCKET,
} from "./ffi.io.ts";
import { ACK, decodeMessages, encodeMessage, readAnswer, type Request } from "./framing.ts";
import { socketIn } from "./namespace.io.ts";
import { NETLINK_NETFILTER } from "./nfnetlink.ts";
import {
  bindLogGroup,
  configureLogGroup,
  decodeLoggedPacket,
  type LoggedPacket,
  type LogGroupOptions,
} from "./nflog.ts";
import { watchSocket } from "./watch.io.ts";

export interface PacketLogOptions {
  /** Path of a network namespace; without it the calling thread's. */
  readonly namespace?: string;
  readonly groups: readonly LogGroupOptions[];
  /** Bytes that the kernel keeps for us while this thread is busy, 32 MiB where absent. */
  readonly receiveBuffer?: number;
}

export interface PacketLogListener {
  packet(packet: LoggedPacket): void;
  /** Packets were missed. */
  overrun(reason: string): void;
  /** The log is dead. */
  failed(failure: Failure): void;
}

const buffer = new Uint8Array(65536);
/** One request at a time, so one number does. */
const SEQUENCE = 1;

/**
 * Hands over every packet that rules of the namespace log to the groups, from now on. Returns what ends it. Throws
 * `Failure` EPERM where another program listens to one of the groups: each has one listener.
 */
export function openPacketLog(options: PacketLogOptions, listener: PacketLogListener): () => void {
  const { namespace, groups, receiveBuffer = 32 << 20 } = options;
  const fd = socketIn(namespace, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
  const early: Uint8Array[] = [];
  try {
    setSocketOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, receiveBuffer);
    for (const group of groups) listenTo(fd, group, early);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  const data = (bytes: Uint8Array): void => {
    for (const packet of decodeAll(bytes, listener)) listener.packet(packet);
  };
  for (const bytes of early) data(bytes);
  return watchSocket(fd, {
    data,
    overrun: () => listener.overrun("the kernel dropped packets, because they came faster than they were read"),
    failed: (code, message) => listener.failed(new Failure(code, `Cannot read the packet log: ${message}`)),
  });
}

function listenTo(fd: number, options: LogGroupOptions, early: Uint8Array[]): void {
  const attempt = `listen to packet log group ${options.group}`;
  ask(fd, bindLogGroup(options.group), attempt, early);
  try {
    ask(fd, configureLogGroup(options), attempt, early);
  } catch (error) {
    if (options.connections !== true || !CANNOT.has(codeOf(error) ?? "")) throw error;
    ask(fd, configureLogGroup({ ...options, connections: false }), attempt, early);
  }
}

/** EOPNOTSUPP, which libuv names otherwise. */
const CANNOT: ReadonlySet<string> = new Set(["EOPNOTSUPP", "ENOTSUP"]);

/** The answer is there when the write has returned; packets of a group that is bound already may be before it. */
function ask(fd: number, request: Request, attempt: string, early: Uint8Array[]): void {
  const writer = new ByteWriter();
  encodeMessage(writer, request, ACK, SEQUENCE);
  writeSync(fd, writer.finish());
  for (;;) {
    const length = receive(fd, buffer, MSG_DONTWAIT);
    if (length === undefined) throw new Failure("EIO", `Cannot ${attempt}: the kernel did not answer`);
    const bytes = buffer.slice(0, length);
    const [answer] = decodeMessages(bytes).map(readAnswer);
    if (answer?.kind !== "acknowledgement") {
      early.push(bytes);
      continue;
    }
    const { errno } = answer.acknowledgement;
    if (errno === 0) return;
    const { code, text } = describeErrno(errno);
    throw new Failure(code, `Cannot ${attempt}: ${text} (${code})`);
  }
}

/** What cannot be read counts as lost. */
function decodeAll(bytes: Uint8Array, listener: PacketLogListener): LoggedPacket[] {
  try {
    return decodeMessages(bytes)
      .map(decodeLoggedPacket)
      .filter((packet) => packet !== undefined);
  } catch (error) {
    listener.overrun(`the kernel sent what could not be read: ${messageOf(error)}`);
    return [];
  }
}
