import { closeSync, readSync, write, writeSync } from "node:fs";
import { promisify } from "node:util";
import { ByteWriter } from "../lib/bytes.ts";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";
import {
  AF_NETLINK,
  describeErrno,
  setSocketOption,
  SO_RCVBUFFORCE,
  SO_RCVTIMEO,
  SOCK_RAW,
  SOL_SOCKET,
} from "./ffi.io.ts";
import {
  ACK,
  type Acknowledgement,
  decodeMessages,
  DUMP_INTERRUPTED,
  encodeMessage,
  type Message,
  readAnswer,
  type Request,
} from "./framing.ts";
import { socketIn } from "./namespace.io.ts";

/**
 * A socket that asks the kernel and waits for its answer. The kernel does the work inside write(2), so the answer is
 * there when the write returns and nothing waits in fact; the time limit is for a kernel that is stuck.
 */
export interface NetlinkSocket {
  /**
   * Sends one request; returns what `read` makes of the messages that the kernel answers with, before its
   * acknowledgement. Throws `Failure` with the errno's name: "Cannot " + `attempt()` + why.
   */
  request<Item>(request: Request, attempt: () => string, read: (message: Message) => Item): Item[];
  /**
   * Asks for a list. One that changed while it was read is asked for again, unless `changing` says that this does no
   * harm. `read` skips a message with undefined.
   */
  dump<Item>(
    request: Request,
    attempt: () => string,
    read: (message: Message) => Item | undefined,
    changing?: "harmless",
  ): Item[];
  /** Sends all of them, and says for each, at its place, why it was refused, or undefined. One refusal stops no other. */
  batch(requests: readonly Request[]): (Refusal | undefined)[];
  /**
   * Sends one request from a thread of Node's pool, for one that keeps the kernel busy for long. The socket takes
   * nothing else until it resolves.
   */
  requestInBackground(request: Request, attempt: () => string): Promise<void>;
  close(): void;
}

/** The kernel's no to one request. */
export interface Refusal {
  /** Name of the errno. */
  readonly code: string;
  /** The errno in words, and the kernel's own sentence where it gave one. */
  readonly reason: string;
}

/** Protocols and options of <linux/netlink.h>. */
export const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const CAP_ACK = 10;
const EXT_ACK = 11;
const GET_STRICT_CHECK = 12;

const TIMEOUT_SECONDS = 30;
/** Requests sent in one write. Only the last is acknowledged, but each refusal is a message that must fit below. */
const BATCH_LENGTH = 256;
/** Bytes: 256 refusals with a sentence each take less than half. */
const RECEIVE_BUFFER = 1 << 20;
const MAX_DUMPS = 20;

const writeInPool = promisify(write);

/** Is handed each message that answers; says whether it was the last. */
type TakeMessage = (message: Message) => boolean;

/** Dumps come in pieces of up to 32 KiB. One buffer does for all sockets of a thread, as nothing here awaits. */
const received = new Uint8Array(65536);

/** `namespace` is the path of a network namespace; without it the calling thread's. */
export function openNetlink(protocol: number, namespace?: string): NetlinkSocket {
  const fd = socketIn(namespace, AF_NETLINK, SOCK_RAW, protocol);
  try {
    setSocketOption(fd, SOL_NETLINK, EXT_ACK, 1);
    setSocketOption(fd, SOL_NETLINK, CAP_ACK, 1);
    setSocketOption(fd, SOL_NETLINK, GET_STRICT_CHECK, 1);
    setSocketOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER);
    // struct timeval: seconds and microseconds
    setSocketOption(fd, SOL_SOCKET, SO_RCVTIMEO, new Uint8Array(BigInt64Array.of(BigInt(TIMEOUT_SECONDS), 0n).buffer));
  } catch (error) {
    closeSync(fd);
    throw error;
  }

  let sequence = 0;
  let state: "idle" | "busy" | "closed" = "idle";

  function ready(attempt: () => string): void {
    if (state === "closed") throw new Failure("EBADF", `Cannot ${attempt()}: the netlink socket is closed`);
    if (state === "busy") throw new Failure("EBUSY", `Cannot ${attempt()}: the netlink socket has a request in flight`);
  }

  /** Sends what was written, then hands over each message that answers. */
  function exchange(writer: ByteWriter, first: number, attempt: () => string, take: TakeMessage): void {
    ready(attempt);
    try {
      writeSync(fd, writer.finish());
      receiveAnswers(first, take);
    } catch (error) {
      throw broken(attempt, error);
    }
  }

  /** Until `take` says that it had the last. */
  function receiveAnswers(first: number, take: TakeMessage): void {
    for (;;) {
      const length = readSync(fd, received, 0, received.length, null);
      for (const message of decodeMessages(received.subarray(0, length))) {
        // What is older answers a request that was given up.
        if (((message.sequence - first) | 0) >= 0 && take(message)) return;
      }
    }
  }

  function next(): number {
    sequence = (sequence + 1) >>> 0;
    return sequence;
  }

  return {
    request(request, attempt, read) {
      const writer = new ByteWriter();
      const number = next();
      encodeMessage(writer, request, ACK, number);
      const items: ReturnType<typeof read>[] = [];
      exchange(writer, number, attempt, (message) => {
        const answer = readAnswer(message);
        if (answer.kind === "data") items.push(read(message));
        if (answer.kind === "overrun") throw lost(attempt);
        if (answer.kind !== "acknowledgement") return false;
        check(answer.acknowledgement, attempt);
        return true;
      });
      return items;
    },

    dump(request, attempt, read, changing) {
      for (let round = 0; round < MAX_DUMPS; round += 1) {
        const writer = new ByteWriter();
        const number = next();
        encodeMessage(writer, request, 0, number);
        const items: NonNullable<ReturnType<typeof read>>[] = [];
        let interrupted = false;
        let unreadable: unknown;
        exchange(writer, number, attempt, (message) => {
          interrupted ||= (message.flags & DUMP_INTERRUPTED) !== 0;
          const answer = readAnswer(message);
          switch (answer.kind) {
            case "data":
              // To the end in any case: the kernel begins no other list before this one is read.
              try {
                const item = read(message);
                if (item !== undefined && item !== null) items.push(item);
              } catch (error) {
                unreadable ??= error;
              }
              return false;
            case "overrun":
              throw lost(attempt);
            case "nothing":
              return false;
            case "acknowledgement": // refused before it began
            case "done":
              check(answer.acknowledgement, attempt);
              return true;
          }
        });
        if (unreadable !== undefined) throw broken(attempt, unreadable);
        if (!interrupted || changing === "harmless") return items;
      }
      throw new Failure("EINTR", `Cannot ${attempt()}: it changed each of the ${MAX_DUMPS} times that it was read`);
    },

    batch(requests) {
      const refusals: (Refusal | undefined)[] = requests.map(() => undefined);
      for (let start = 0; start < requests.length; start += BATCH_LENGTH) {
        const end = Math.min(start + BATCH_LENGTH, requests.length);
        const writer = new ByteWriter(16384);
        const first = (sequence + 1) >>> 0;
        for (let at = start; at < end; at += 1) encodeMessage(writer, requests[at]!, at === end - 1 ? ACK : 0, next());
        exchange(
          writer,
          first,
          () => `write ${requests.length} changes`,
          (message) => {
            const answer = readAnswer(message);
            if (answer.kind === "overrun") throw lost(() => `write ${requests.length} changes`);
            if (answer.kind !== "acknowledgement") return false;
            const at = start + ((message.sequence - first) >>> 0);
            if (answer.acknowledgement.errno !== 0) refusals[at] = refusal(answer.acknowledgement);
            return at === end - 1;
          },
        );
      }
      return refusals;
    },

    async requestInBackground(request, attempt) {
      ready(attempt);
      const writer = new ByteWriter();
      const number = next();
      encodeMessage(writer, request, ACK, number);
      state = "busy";
      try {
        await writeInPool(fd, writer.finish());
        receiveAnswers(number, (message) => {
          const answer = readAnswer(message);
          if (answer.kind === "acknowledgement") check(answer.acknowledgement, attempt);
          return answer.kind === "acknowledgement";
        });
      } catch (error) {
        throw broken(attempt, error);
      } finally {
        state = "idle";
      }
    },

    close() {
      if (state === "closed") return;
      state = "closed";
      closeSync(fd);
    },
  };
}

function check(acknowledgement: Acknowledgement, attempt: () => string): void {
  if (acknowledgement.errno === 0) return;
  const { code, reason } = refusal(acknowledgement);
  throw new Failure(code, `Cannot ${attempt()}: ${reason}`);
}

function refusal({ errno, text }: Acknowledgement): Refusal {
  const said = describeErrno(errno);
  return { code: said.code, reason: `${said.text} (${said.code})${text === undefined ? "" : `: ${text}`}` };
}

/** What the socket itself threw, as a `Failure`. */
function broken(attempt: () => string, error: unknown): Failure {
  if (error instanceof Failure) return error;
  const code = codeOf(error) ?? "EIO";
  if (code === "EAGAIN") {
    return new Failure("ETIMEDOUT", `Cannot ${attempt()}: the kernel did not answer in ${TIMEOUT_SECONDS} s`, error);
  }
  return new Failure(code, `Cannot ${attempt()}: netlink failed: ${messageOf(error)}`, error);
}

function lost(attempt: () => string): Failure {
  return new Failure("ENOBUFS", `Cannot ${attempt()}: the kernel lost messages of its answer`);
}
