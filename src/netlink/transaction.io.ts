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
import {
  ACK,
  type Acknowledgement,
  decodeMessages,
  ECHO,
  encodeMessage,
  type Message,
  readAnswer,
  type Request,
} from "./framing.ts";
import { socketIn } from "./namespace.io.ts";
import { NETLINK_NETFILTER } from "./nfnetlink.ts";
import { describeChange, describeFault } from "./nftDescribe.ts";
import { beginBatch, decodeNftNotification, endBatch, type NftChange, requestsOf } from "./nftables.ts";

/** Transactions of nf_tables: written whole in one write(2), inside which the kernel takes or refuses all of it. */

export interface ApplyOptions {
  /** Refused with ERESTART where the ruleset has another generation by now. */
  readonly generation?: number;
  /** Asks the kernel for the handles of new rules, which it tells of in its answer. */
  readonly handles?: boolean;
  /** Nothing is done: only whether the kernel would. */
  readonly isTrial?: boolean;
}

export interface Applied {
  /** At the place of each change that adds a rule, the rule's handle, where they were asked for. */
  readonly handles: readonly (number | undefined)[];
}

/** The kernel's no to one change. */
export interface RefusedChange {
  /** Its place among the changes. */
  readonly at: number;
  readonly change: NftChange;
  /** Name of the errno. */
  readonly code: string;
  /** The errno in words, the kernel's own sentence where it gave one, and what in the change it points at. */
  readonly reason: string;
}

/** Nothing of the transaction was done. What follows from the first refusal may be refused too, such as a missing chain. */
export class RefusedTransaction extends Failure {
  readonly refusals: readonly RefusedChange[];
  constructor(first: RefusedChange, all: readonly RefusedChange[]) {
    const others = all.length - 1;
    const more = others === 0 ? "" : ` (and ${others} more ${others === 1 ? "change was" : "changes were"} refused)`;
    super(first.code, `Cannot ${describeChange(first.change)}: ${first.reason}${more}`);
    this.refusals = all;
  }
}

export interface Transactions {
  apply(changes: readonly NftChange[], options?: ApplyOptions): Applied;
  /** How many the kernel has carried out. */
  done(): number;
  /** The kernel's number for our socket, by which notifications say whose they are. */
  port(): number;
  close(): void;
}

const SO_SNDBUFFORCE = 32;
const SOL_NETLINK = 270;
const CAP_ACK = 10;
const EXT_ACK = 11;
/** Bytes, a limit: for the refusals of tens of thousands of changes, or as many handles. */
const RECEIVE_BUFFER = 32 << 20;
/** The hash table of a set may be growing just now, and the kernel says EBUSY then (rhashtable_insert_rehash). */
const MAX_ATTEMPTS = 5;
const PASSING: ReadonlySet<string> = new Set(["EBUSY", "EAGAIN", "EINTR"]);
const ADDS: ReadonlySet<NftChange["kind"]> = new Set(["addElements", "addWrittenElements"]);

/**
 * Bytes of a transaction as it begins, and of the longest whose buffer serves the next too: at a start there are many
 * large ones, and their buffers would lie about until the garbage collector comes by.
 */
const SMALL = 16384;
const KEPT_MAX = 4 << 20;

/** NLMSG_NOOP */
const NOTHING: Request = { type: 1, flags: 0, encode: () => undefined };

/** One buffer does for all sockets of a thread, as nothing here awaits. */
const received = new Uint8Array(65536);

export function openTransactions(namespace?: string): Transactions {
  const fd = socketIn(namespace, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER);
  try {
    setSocketOption(fd, SOL_NETLINK, EXT_ACK, 1);
    setSocketOption(fd, SOL_NETLINK, CAP_ACK, 1);
    setSocketOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  let open = true;
  let sequence = 0;
  let done = 0;
  let writer = new ByteWriter(SMALL);
  let sendBuffer = 0;
  let port: number | undefined;

  /** The kernel takes no message longer than its buffer for us. */
  function send(bytes: Uint8Array): void {
    if (bytes.length > sendBuffer) {
      sendBuffer = Math.max(bytes.length, 1 << 20);
      setSocketOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, sendBuffer);
    }
    writeSync(fd, bytes);
  }

  /** All that the kernel has answered, which is there when the write has returned. */
  function answers(first: number, take: (message: Message, at: number) => void): void {
    for (;;) {
      let length: number | undefined;
      try {
        length = receive(fd, received, MSG_DONTWAIT);
      } catch (error) {
        if (codeOf(error) !== "ENOBUFS") throw error;
        continue; // it had more to say than there is room for: the rest follows
      }
      if (length === undefined) return;
      for (const message of decodeMessages(received.subarray(0, length))) {
        port ??= portOf(message);
        take(message, (message.sequence - first) >>> 0);
      }
    }
  }

  function applyOnce(changes: readonly NftChange[], requests: readonly Numbered[], options: ApplyOptions): Outcome {
    writer.clear();
    const first = (sequence + 1) >>> 0;
    const next = (): number => (sequence = (sequence + 1) >>> 0);
    const last = requests.length; // the batch's beginning is number 0
    const starts = [0];
    encodeMessage(writer, beginBatch(options.generation), 0, next());
    for (const { at, request } of requests) {
      starts.push(writer.length);
      const echo = options.handles === true && changes[at]?.kind === "addRule" ? ECHO : 0;
      encodeMessage(writer, request, starts.length - 1 === last ? ACK | echo : echo, next());
    }
    // Without its end, the kernel looks at all of the batch, and takes everything back.
    if (options.isTrial !== true) encodeMessage(writer, endBatch(), 0, next());
    const sent = writer.written();
    send(sent);
    if (sent.length > KEPT_MAX) writer = new ByteWriter(SMALL);

    const outcome: Outcome = { refusals: [], handles: changes.map(() => undefined), whole: undefined, answered: false };
    answers(first, (message, number) => {
      const answer = readAnswer(message);
      const numbered = requests[number - 1];
      if (answer.kind === "data" && numbered !== undefined) {
        const notification = decodeNftNotification(message);
        if (notification?.kind === "rule") outcome.handles[numbered.at] = notification.rule.handle;
      }
      if (answer.kind !== "acknowledgement") return;
      outcome.answered ||= number === last;
      if (answer.acknowledgement.errno === 0) return;
      if (numbered === undefined) outcome.whole = answer.acknowledgement;
      else outcome.refusals.push(refused(changes, numbered.at, sent.subarray(starts[number]), answer.acknowledgement));
    });
    return outcome;
  }

  return {
    apply(changes, options = {}) {
      const attempt = `apply ${changes.length} changes to nf_tables`;
      if (!open) throw new Failure("EBADF", `Cannot ${attempt}: the netlink socket is closed`);
      const requests: Numbered[] = [];
      for (const [at, change] of changes.entries()) {
        for (const request of requestsOf(change)) requests.push({ at, request });
      }
      if (requests.length === 0) return { handles: changes.map(() => undefined) };
      for (let round = 1; ; round += 1) {
        const outcome = run(attempt, () => applyOnce(changes, requests, options));
        const { refusals, whole, handles, answered } = outcome;
        const [worst] = refusals;
        if (worst !== undefined) {
          const passing = refusals.every(({ code, change }) => PASSING.has(code) && ADDS.has(change.kind));
          if (passing && round < MAX_ATTEMPTS) continue;
          throw new RefusedTransaction(worst, refusals);
        }
        if (whole !== undefined) throw refusedWhole(attempt, whole);
        if (!answered) throw new Failure("ENOBUFS", `Cannot ${attempt}: the kernel's answer was lost`);
        if (options.isTrial !== true) done += 1;
        return { handles };
      }
    },
    done: () => done,
    port() {
      if (port !== undefined) return port;
      // The kernel answers a message that says nothing, too.
      writer.clear();
      sequence = (sequence + 1) >>> 0;
      encodeMessage(writer, NOTHING, ACK, sequence);
      run("learn the port of a netlink socket", () => {
        send(writer.written());
        answers(sequence, () => undefined);
      });
      if (port === undefined) throw new Failure("EPROTO", "Cannot learn the port of a netlink socket: no answer");
      return port;
    },
    close() {
      if (!open) return;
      open = false;
      closeSync(fd);
    },
  };
}

/** A request, and the place of its change. */
interface Numbered {
  readonly at: number;
  readonly request: Request;
}

interface Outcome {
  readonly refusals: RefusedChange[];
  readonly handles: (number | undefined)[];
  /** Of the transaction as such. */
  whole: Acknowledgement | undefined;
  answered: boolean;
}

function refused(
  changes: readonly NftChange[],
  at: number,
  message: Uint8Array,
  { errno, text, offset }: Acknowledgement,
): RefusedChange {
  const change = changes[at]!;
  const { code, text: said } = describeErrno(errno);
  const fault = offset === undefined ? undefined : describeFault(change, message, offset);
  const sentence = text === undefined ? "" : `: ${text}`;
  return { at, change, code, reason: `${said} (${code})${fault === undefined ? "" : ` at ${fault}`}${sentence}` };
}

function refusedWhole(attempt: string, { errno, text }: Acknowledgement): Failure {
  const { code, text: said } = describeErrno(errno);
  return new Failure(code, `Cannot ${attempt}: ${said} (${code})${text === undefined ? "" : `: ${text}`}`);
}

function run<Result>(attempt: string, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(codeOf(error) ?? "EIO", `Cannot ${attempt}: netlink failed: ${messageOf(error)}`, error);
  }
}

/** The port of the socket that asked for what a message tells: the last word of its header, just before its body. */
function portOf({ body }: Message): number {
  return new DataView(body.bytes.buffer, body.bytes.byteOffset).getUint32(body.offset - 4, true);
}
