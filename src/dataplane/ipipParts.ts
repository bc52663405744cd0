import {
  add,
  and,
  bigEndian,
  call,
  exit,
  HELPER,
  type Instruction,
  jump,
  label,
  load,
  map,
  move,
  r0,
  r1,
  r10,
  r2,
  r3,
  r4,
  r5,
  r6,
  r8,
  type Register,
  shiftRight,
  store,
  subtract,
  xor,
} from "../netlink/bpf.ts";
import { IPIP_COUNTERS, type IPIP_MAPS, type IpipCounter } from "./ipipMaps.ts";

/** Pieces of which the IPIP tunnel's programs are made. r6 is the context, r8 the packet, r10 the end of the stack. */

/** Offsets into `struct __sk_buff` of <linux/bpf.h>. */
export const SKB = { length: 0, protocol: 16, device: 40, data: 76, dataEnd: 80, segmentSize: 176 } as const;
/** Lengths of headers, in bytes. */
export const ETHERNET = 14;
export const HEADER = 20;

/** Offsets into an IPv4 header (RFC 791 section 3.1). */
export const IP = {
  tos: 1,
  length: 2,
  id: 4,
  fragment: 6,
  ttl: 8,
  protocol: 9,
  checksum: 10,
  source: 12,
  destination: 16,
} as const;
/** TCX_DROP of enum tcx_action_base. */
const DROP = 2;

/** Where things lie on the stack, below r10. */
export const STACK = { outer: -24, key: -32, fib: -96, device: -104 } as const;

/**
 * Makes the first bytes of the packet readable at r8: they may lie in pages of their own, where segmentation or a
 * network card left them. Goes to `otherwise` where the packet is shorter.
 */
export function packetInReach(bytes: number, otherwise: string): Instruction[] {
  const ready = `first ${bytes} bytes`;
  const look: Instruction[] = [load(4, r8, r6, SKB.data), load(4, r3, r6, SKB.dataEnd), move(r4, r8), add(r4, bytes)];
  return [
    ...look,
    jump(ready, r4, "<=", r3),
    move(r1, r6),
    move(r2, bytes),
    call(HELPER.skbPullData),
    jump(otherwise, r0, "!=", 0),
    ...look,
    jump(otherwise, r4, ">", r3),
    label(ready),
  ];
}

/** r0 becomes the address of the value of the key on the stack, or 0. */
export function lookUp(name: keyof typeof IPIP_MAPS): Instruction[] {
  return [map(r1, name), move(r2, r10), add(r2, STACK.key), call(HELPER.mapLookup)];
}

/** r0 becomes the address of this node's settings. */
export function settings(otherwise: string): Instruction[] {
  return [store(4, r10, STACK.key, 0), ...lookUp("ipip_settings"), jump(otherwise, r0, "==", 0)];
}

/** r0 becomes the checksum of the header at r3: what belongs into its field where that is 0, and 0 where it is right. */
export function headerSum(): Instruction[] {
  const fold: Instruction[] = [move(r1, r0), shiftRight(r1, 16), and(r0, 0xffff), add(r0, r1)];
  return [
    move(r1, 0),
    move(r2, 0),
    move(r4, HEADER),
    move(r5, 0),
    call(HELPER.checksumDifference),
    ...fold,
    ...fold,
    xor(r0, 0xffff),
  ];
}

/**
 * The length that the header at this offset gives. 0 stands for a packet that is too long for the field, and will be cut
 * into segments; from there to its end is meant.
 */
export function lengthAt(to: Register, offset: number): Instruction[] {
  const given = `length at ${offset}`;
  return [
    load(2, to, r8, offset + IP.length),
    bigEndian(to, 16),
    jump(given, to, "!=", 0),
    load(4, r2, r6, SKB.segmentSize),
    jump("malformed", r2, "==", 0),
    load(4, to, r6, SKB.length),
    subtract(to, offset),
    label(given),
  ];
}

/** One more of these. r6 to r9 stay. */
export function count(counter: IpipCounter): Instruction[] {
  const end = `${counter} counted`;
  return [
    store(4, r10, STACK.key, IPIP_COUNTERS.indexOf(counter)),
    ...lookUp("ipip_counters"),
    jump(end, r0, "==", 0),
    load(8, r1, r0, 0),
    add(r1, 1),
    store(8, r0, 0, r1),
    label(end),
  ];
}

/** Labels at which packets end, and as what they are counted. */
export function ends(labels: Readonly<Record<string, IpipCounter>>): Instruction[] {
  return Object.entries(labels).flatMap(([name, counter]) => [label(name), ...count(counter), move(r0, DROP), exit]);
}
