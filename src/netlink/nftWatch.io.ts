import { closeSync } from "node:fs";
import { ByteReader } from "../lib/bytes.ts";
import { Failure, messageOf } from "../lib/errors.ts";
import { decodeAttributes, row, text, type ValuesOf } from "./attributes.ts";
import { AF_NETLINK, attachFilter, bind, setSocketOption, SO_RCVBUFFORCE, SOCK_RAW, SOL_SOCKET } from "./ffi.io.ts";
import { decodeMessages, type Message } from "./framing.ts";
import { socketIn } from "./namespace.io.ts";
import { GROUP_NFTABLES, NETLINK_NETFILTER, netfilterTable, operationOf } from "./nfnetlink.ts";
import { DELETE_ELEMENT, NEW_ELEMENT } from "./nftElement.ts";
import { DELETE_RULE, NEW_RULE } from "./nftRule.ts";
import { decodeNftNotification, type Generation, type NftNotification } from "./nftables.ts";
import { decodeTableFamily, type TableName } from "./nftTable.ts";
import { watchSocket } from "./watch.io.ts";

const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_DROP_MEMBERSHIP = 2;

/** Bytes that the kernel keeps for a watch while this thread is busy. */
const WATCH_BUFFER = 32 << 20;

/** What others do to nf_tables. */
export interface NftListener extends WatchProblems {
  /** Somebody else's transaction. */
  changed(changes: readonly NftNotification[], generation: Generation): void;
}

/** What others do to one table. */
export interface NftTableListener extends WatchProblems {
  /** Somebody else's transaction: the chains whose rules changed, and the sets whose elements did; or only their names. */
  changed(chains: ReadonlySet<string>, sets: ReadonlySet<string>): void;
}

interface WatchProblems {
  /** Something was missed: whoever keeps a copy must list anew. */
  readonly overrun: (reason: string) => void;
  /** The watch is dead. */
  readonly failed: (failure: Failure) => void;
}

export interface NftWatch {
  /** The kernel goes on speaking to it, or not: what is done meanwhile is not told. */
  setListening(isListening: boolean): void;
  stop(): void;
}

/** Tells of every transaction that is not of the socket with the port `own`. */
export function watchNftables(namespace: string | undefined, own: number, listener: NftListener): NftWatch {
  let changes: NftNotification[] = [];
  return watchMessages(namespace, own, listener, {
    take(message) {
      const notification = decodeNftNotification(message);
      if (notification !== undefined && notification.kind !== "generation") changes.push(notification);
      if (notification?.kind !== "generation") return;
      const all = changes;
      changes = [];
      listener.changed(all, notification.generation);
    },
    forget() {
      changes = [];
    },
  });
}

const NEW_GENERATION = 15;
/** In all messages but those of a generation, the first attribute is the table's name; then comes that of what is in it. */
const NAMES = netfilterTable({ table: row(1, text), name: row(2, text) });

/**
 * The same of one table, without reading what was changed there: somebody who deletes a table says a word for every rule
 * and element.
 */
export function watchNftTable(
  namespace: string | undefined,
  own: number,
  { family, name }: TableName,
  listener: NftTableListener,
): NftWatch {
  let [chains, sets, isTouched] = [new Set<string>(), new Set<string>(), false];
  const forget = (): void => void ([chains, sets, isTouched] = [new Set(), new Set(), false]);

  function tell(): void {
    if (!isTouched) return;
    const touched = [chains, sets] as const;
    forget();
    listener.changed(...touched);
  }

  return watchMessages(namespace, own, listener, {
    take({ type, body }) {
      const operation = operationOf({ type }, "nftables");
      if (operation === undefined) return;
      if (operation === NEW_GENERATION) return tell();
      if (decodeTableFamily(body) !== family) return;
      const isOfRule = operation === NEW_RULE || operation === DELETE_RULE;
      const isOfElement = operation === NEW_ELEMENT || operation === DELETE_ELEMENT;
      const names = decodeNames(body);
      if (names.table !== name) return;
      isTouched = true;
      if (isOfRule && names.name !== undefined) chains.add(names.name);
      if (isOfElement && names.name !== undefined) sets.add(names.name);
    },
    forget,
  });
}

/** The first two attributes, which are the names in messages of rules and elements. */
function decodeNames({ bytes, offset, end }: ByteReader): ValuesOf<typeof NAMES> {
  let at = offset;
  for (let count = 0; count < 2 && at + 2 <= end; count += 1) at += (bytes[at]! + bytes[at + 1]! * 256 + 3) & ~3;
  return decodeAttributes(new ByteReader(bytes, offset, Math.min(at, end)), NAMES);
}

interface Reading {
  readonly take: (message: Message) => void;
  /** Others were missed: what was heard is worth nothing. */
  readonly forget: () => void;
}

function watchMessages(
  namespace: string | undefined,
  own: number,
  { overrun, failed }: WatchProblems,
  { take, forget }: Reading,
): NftWatch {
  const fd = socketIn(namespace, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
  try {
    setSocketOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, WATCH_BUFFER);
    attachFilter(fd, notFrom(own));
    // struct sockaddr_nl: family, padding, our port (the kernel chooses), groups as a bit each
    bind(fd, new Uint8Array(Uint32Array.of(AF_NETLINK, 0, 1 << (GROUP_NFTABLES - 1)).buffer));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  let open = true;
  const end = watchSocket(fd, {
    data(bytes) {
      try {
        for (const message of decodeMessages(bytes)) take(message);
      } catch (error) {
        forget();
        overrun(`the kernel sent what could not be read: ${messageOf(error)}`);
      }
    },
    overrun() {
      forget();
      overrun("the kernel dropped messages, because they came faster than they were read");
    },
    failed(code, message) {
      open = false;
      failed(new Failure(code, `Cannot watch nf_tables: ${message}`));
    },
  });
  return {
    setListening(isListening) {
      const option = isListening ? NETLINK_ADD_MEMBERSHIP : NETLINK_DROP_MEMBERSHIP;
      if (open) setSocketOption(fd, SOL_NETLINK, option, GROUP_NFTABLES);
    },
    stop() {
      open = false;
      end();
    },
  };
}

/**
 * A program of classic BPF that keeps what does not carry the port in its header, where the kernel has put who asked
 * for the change: a message of ours would only be read to be thrown away. Numbers are loaded in network order.
 */
function notFrom(port: number): Uint8Array {
  const LOAD_WORD_AT = 0x20;
  const JUMP_IF_EQUAL = 0x15;
  const RETURN = 0x06;
  const PORT_AT = 12;
  const program: readonly (readonly [code: number, yes: number, no: number, number: number])[] = [
    [LOAD_WORD_AT, 0, 0, PORT_AT],
    [JUMP_IF_EQUAL, 0, 1, swapped(port)],
    [RETURN, 0, 0, 0],
    [RETURN, 0, 0, 0xffffffff],
  ];
  const view = new DataView(new ArrayBuffer(program.length * 8));
  for (const [at, [code, yes, no, number]] of program.entries()) {
    view.setUint16(at * 8, code, true);
    view.setUint8(at * 8 + 2, yes);
    view.setUint8(at * 8 + 3, no);
    view.setUint32(at * 8 + 4, number, true);
  }
  return new Uint8Array(view.buffer);
}

function swapped(number: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, number, true);
  return view.getUint32(0);
}
