import { type Arena, putAddress, putVector } from "./arena.ts";

/** Arrays of `struct mmsghdr` (<bits/socket.h>) in an arena, with what each of them points at. */

export const MESSAGE_SIZE = 64;
const NAME = 0;
const NAME_LENGTH = 8;
const VECTOR = 16;
const VECTOR_COUNT = 24;
const CONTROL = 32;
const CONTROL_LENGTH = 40;
const RECEIVED = 56;

/** `struct sockaddr_in` */
const ADDRESS_SIZE = 16;
const AF_INET = 2;
/** `struct cmsghdr`: length, level and type; its data is at 16. */
const CONTROL_ROOM = 32;
const VECTOR_SIZE = 16;

const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;

export interface MessageLayout {
  /** Offsets of the arrays: the messages, and their vectors, which messages take one after another. */
  readonly messages: number;
  readonly vectors: number;
  /** The first offset behind all of it. */
  readonly end: number;
  /** Once for each message that is to be sent. */
  prepare(arena: Arena, number: number, port: number): void;
  /** The message goes to that address; its vectors begin at that number, and it has none yet. */
  begin(arena: Arena, number: number, firstVector: number, address: number): void;
  /** The next vector belongs to the message as well. */
  extend(arena: Arena, number: number): void;
  /** The kernel is to cut the message into datagrams of that size, or, with 0, to send it as one. */
  segmented(arena: Arena, number: number, size: number): void;
  /** Makes room for one message to be received: at most so many bytes, at that offset. */
  receiveInto(arena: Arena, number: number, target: number, length: number): void;
  /** How long the message is that was received. */
  received(arena: Arena, number: number): number;
  /** Bytes of each of the datagrams that the kernel has put into the message (UDP_GRO); all of it where it has not. */
  segmentSize(arena: Arena, number: number): number;
}

/** `start` is a multiple of 16. */
export function messageLayout(start: number, messageCount: number, vectorCount: number): MessageLayout {
  const names = start + messageCount * MESSAGE_SIZE;
  const controls = names + messageCount * ADDRESS_SIZE;
  const vectors = controls + messageCount * CONTROL_ROOM;
  const messageAt = (number: number): number => start + number * MESSAGE_SIZE;
  const controlAt = (number: number): number => controls + number * CONTROL_ROOM;
  return {
    messages: start,
    vectors,
    end: vectors + vectorCount * VECTOR_SIZE,
    prepare(arena, number, port) {
      const name = names + number * ADDRESS_SIZE;
      arena.u16[name >> 1] = AF_INET;
      arena.view.setUint16(name + 2, port);
      const message = messageAt(number);
      putAddress(arena, message + NAME, name);
      arena.u32[(message + NAME_LENGTH) >> 2] = ADDRESS_SIZE;
      const control = controlAt(number);
      putAddress(arena, message + CONTROL, control);
      arena.u32[control >> 2] = 18; // the header, and two bytes of data
      arena.u32[(control + 8) >> 2] = SOL_UDP;
      arena.u32[(control + 12) >> 2] = UDP_SEGMENT;
    },
    begin(arena, number, firstVector, address) {
      const message = messageAt(number);
      arena.view.setInt32(names + number * ADDRESS_SIZE + 4, address);
      putAddress(arena, message + VECTOR, vectors + firstVector * VECTOR_SIZE);
      arena.u32[(message + VECTOR_COUNT) >> 2] = 0;
    },
    extend({ u32 }, number) {
      const at = (messageAt(number) + VECTOR_COUNT) >> 2;
      u32[at] = u32[at]! + 1;
    },
    segmented({ u16, u32 }, number, size) {
      u32[(messageAt(number) + CONTROL_LENGTH) >> 2] = size === 0 ? 0 : 24;
      u16[(controlAt(number) + 16) >> 1] = size;
    },
    receiveInto(arena, number, target, length) {
      const message = messageAt(number);
      putVector(arena, vectors + number * VECTOR_SIZE, target, length);
      putAddress(arena, message + VECTOR, vectors + number * VECTOR_SIZE);
      arena.u32[(message + VECTOR_COUNT) >> 2] = 1;
      putAddress(arena, message + CONTROL, controlAt(number));
      arena.u32[(message + CONTROL_LENGTH) >> 2] = CONTROL_ROOM;
    },
    received: ({ u32 }, number) => u32[(messageAt(number) + RECEIVED) >> 2]!,
    segmentSize({ u32 }, number) {
      const message = messageAt(number);
      const control = controlAt(number);
      const length = u32[(message + RECEIVED) >> 2]!;
      const told = u32[(message + CONTROL_LENGTH) >> 2]! >= 20 && u32[(control + 12) >> 2] === UDP_GRO;
      // The kernel has written how much it used: all of it is free again for the next message.
      u32[(message + CONTROL_LENGTH) >> 2] = CONTROL_ROOM;
      const size = told ? u32[(control + 16) >> 2]! : length;
      return size > 0 && size < length ? size : length;
    },
  };
}
