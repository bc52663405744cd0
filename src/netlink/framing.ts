import { ByteReader, type ByteWriter, MalformedBytes } from "../lib/bytes.ts";
import { attributeTable, decodeAttributes, row, text, u32 } from "./attributes.ts";

/**
 * Messages (`struct nlmsghdr` of <linux/netlink.h>); several follow each other in one buffer, each padded to 4 bytes.
 *
 *      0                       4           6           8
 *     +-----------------------+-----------+-----------+
 *     | length, with these 16 | type      | flags     |
 *     +-----------------------+-----------+-----------+
 *     | sequence number       | port of the sender    |
 *     +-----------------------+-----------------------+
 */

/** Message flags. The numbers from 0x100 up mean one thing in a request to read, another in one to write, or in an answer. */
export const REQUEST = 0x1;
export const ACK = 0x4;
export const ECHO = 0x8;
export const DUMP_INTERRUPTED = 0x10;
export const DUMP = 0x300; // ROOT | MATCH
export const REPLACE = 0x100;
export const EXCLUSIVE = 0x200;
export const CREATE = 0x400;
export const APPEND = 0x800;
/** In an answer: the refused request is not repeated whole; attributes of the extended ack follow. */
const CAPPED = 0x100;
const ACK_ATTRIBUTES = 0x200;

/** Control messages; types from 16 up are the protocol's own. */
const NOOP = 1;
const ERROR = 2;
const DONE = 3;
const OVERRUN = 4;

const HEADER_LENGTH = 16;

/** What we ask of the kernel. The socket adds sequence numbers, REQUEST, and ACK where it wants one. */
export interface Request {
  readonly type: number;
  readonly flags: number;
  /** Writes what follows the header. */
  readonly encode: (writer: ByteWriter) => void;
}

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  /** What follows the header: a view, valid until the buffer is used again. */
  readonly body: ByteReader;
}

/** Why the kernel refused a request: the errno (0: it did not), and its own sentence where it gave one. */
export interface Acknowledgement {
  readonly errno: number;
  readonly text?: string | undefined;
  /** Where in the request the attribute at fault begins, in bytes. */
  readonly offset?: number | undefined;
  /** The attribute that the kernel missed. */
  readonly missingAttribute?: number | undefined;
}

/** What a message means to the one who asked. */
export type Answer =
  | { readonly kind: "data"; readonly message: Message }
  | { readonly kind: "acknowledgement"; readonly acknowledgement: Acknowledgement }
  /** The end of a dump; with an errno where it broke off. */
  | { readonly kind: "done"; readonly acknowledgement: Acknowledgement }
  /** Messages were lost. */
  | { readonly kind: "overrun" }
  | { readonly kind: "nothing" };

export function encodeMessage(writer: ByteWriter, request: Request, flags: number, sequence: number): void {
  const start = writer.length;
  writer.u32le(0);
  writer.u16le(request.type);
  writer.u16le(request.flags | flags | REQUEST);
  writer.u32le(sequence);
  writer.u32le(0); // the kernel knows us by our socket
  request.encode(writer);
  const length = writer.length - start;
  writer.patchU32le(start, length);
  writer.reserve(-length & 3);
}

/** Every message of a buffer. Throws `MalformedBytes` where a length cannot be. */
export function decodeMessages(bytes: Uint8Array): Message[] {
  const reader = new ByteReader(bytes);
  const messages: Message[] = [];
  while (reader.remaining > 0) {
    const length = reader.u32le("message length");
    const type = reader.u16le("message type");
    const flags = reader.u16le("message flags");
    const sequence = reader.u32le("message sequence");
    reader.skip(4, "message port");
    if (length < HEADER_LENGTH)
      throw new MalformedBytes(`message of type ${type}: its length is ${length}, less than its header`);
    const body = reader.sub(length - HEADER_LENGTH, `message of type ${type}`);
    reader.skip(Math.min(-length & 3, reader.remaining), "padding");
    messages.push({ type, flags, sequence, body });
  }
  return messages;
}

/** enum nlmsgerr_attrs */
const ACKNOWLEDGEMENT = attributeTable({
  text: row(1, text),
  offset: row(2, u32),
  missingAttribute: row(5, u32),
});

export function readAnswer(message: Message): Answer {
  switch (message.type) {
    case NOOP:
      return { kind: "nothing" };
    case ERROR:
      return { kind: "acknowledgement", acknowledgement: decodeError(message) };
    case DONE:
      return { kind: "done", acknowledgement: decodeDone(message) };
    case OVERRUN:
      return { kind: "overrun" };
    default:
      return { kind: "data", message };
  }
}

/** `struct nlmsgerr`: the negative errno, the header of the request, the rest of it unless CAPPED, then attributes. */
function decodeError({ flags, body }: Message): Acknowledgement {
  const errno = 0 - body.i32le("errno");
  if ((flags & ACK_ATTRIBUTES) === 0) return { errno };
  const length = body.u32le("length of the refused request");
  body.skip(HEADER_LENGTH - 4, "header of the refused request");
  if ((flags & CAPPED) === 0) body.skip((length - HEADER_LENGTH + 3) & ~3, "refused request");
  return { errno, ...decodeAttributes(body, ACKNOWLEDGEMENT) };
}

/** NLMSG_DONE carries the errno of the dump, if any byte at all, and attributes after it. */
function decodeDone({ flags, body }: Message): Acknowledgement {
  if (body.remaining < 4) return { errno: 0 };
  const errno = 0 - body.i32le("errno");
  return (flags & ACK_ATTRIBUTES) === 0 ? { errno } : { errno, ...decodeAttributes(body, ACKNOWLEDGEMENT) };
}
