import { closeSync, writeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { addressToBytes, type Address, type Family } from "../ip/address.ts";
import { ByteWriter } from "../lib/bytes.ts";
import {
  AF_INET,
  AF_INET6,
  connect,
  MSG_DONTWAIT,
  receive,
  setSocketOption,
  SO_RCVBUFFORCE,
  SOCK_RAW,
  SOL_SOCKET,
} from "../netlink/ffi.io.ts";
import { socketIn } from "../netlink/namespace.io.ts";
import { PROTOCOL } from "../policy/model.ts";
import { sockaddr } from "./sockaddr.ts";

/** Single packets, made by hand, put on their way inside a namespace; and whether they come out of another. */
export interface RawPacket {
  readonly source: Address;
  readonly destination: Address;
  readonly protocol: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly icmp?: { readonly type: number; readonly code: number };
  /** What it carries, where that is more than a mark to know it by. */
  readonly payload?: Uint8Array;
}

export interface Shot extends RawPacket {
  /** Where it begins, and where somebody waits for it. */
  readonly from: string;
  readonly to: string;
  /** By whom it is taken: the destination, unless it is translated on the way. */
  readonly arrivesAt?: Address;
}

const IPPROTO_RAW = 255;
const IPPROTO_IPV6 = 41;
const IPV6_HDRINCL = 36;
/** At the end of each packet: this, and its number. */
const MARK = 0x4341_5254;

/**
 * Sends each of them, and says which arrive: were handed to the protocols of their destination, behind all that filters.
 * Waits for those that are `expected`, and then a moment for those that are not.
 */
export async function shoot(
  shots: readonly Shot[],
  expected: readonly boolean[],
  patienceMs = 2500,
): Promise<boolean[]> {
  const first = (nextMark = (nextMark + 100_000) % 2 ** 31);
  const arrived = shots.map(() => false);
  const receivers = new Map<string, number>();
  try {
    for (const { to, destination, arrivesAt = destination, protocol } of shots) {
      const { family } = arrivesAt;
      const key = `${to} ${family} ${protocol}`;
      if (!receivers.has(key)) receivers.set(key, receiver(to, family, protocol));
    }
    for (const [at, shot] of shots.entries()) send(shot, first + at);
    const collect = (): void => {
      for (const fd of receivers.values()) {
        for (const mark of marksOf(fd)) if (mark >= first && mark < first + shots.length) arrived[mark - first] = true;
      }
    };
    const deadline = performance.now() + patienceMs;
    for (;;) {
      collect();
      if (expected.every((is, at) => !is || arrived[at]) || performance.now() > deadline) break;
      await sleep(5);
    }
    await sleep(SILENCE_MS);
    collect();
  } finally {
    for (const fd of receivers.values()) closeSync(fd);
  }
  return arrived;
}

/** A packet that may pass is there long before. */
const SILENCE_MS = 35;
let nextMark = 0;

function receiver(netns: string, family: Family, protocol: number): number {
  const fd = socketIn(netns, family === 4 ? AF_INET : AF_INET6, SOCK_RAW, protocol);
  setSocketOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20);
  return fd;
}

function marksOf(fd: number): number[] {
  const buffer = new Uint8Array(4096);
  const view = new DataView(buffer.buffer);
  const marks: number[] = [];
  for (;;) {
    const length = receive(fd, buffer, MSG_DONTWAIT);
    if (length === undefined) return marks;
    if (length >= 8 && view.getUint32(length - 8) === MARK) marks.push(view.getUint32(length - 4));
  }
}

/** What the sender's own node refuses (EPERM) has not arrived. */
function send(shot: Shot, mark: number): void {
  const { family } = shot.destination;
  const fd = socketIn(shot.from, family === 4 ? AF_INET : AF_INET6, SOCK_RAW, IPPROTO_RAW);
  try {
    if (family === 6) setSocketOption(fd, IPPROTO_IPV6, IPV6_HDRINCL, 1);
    connect(fd, sockaddr(shot.destination, 0));
    writeSync(fd, packetBytes(shot, mark));
  } catch {
    // It is not there when the others are counted.
  } finally {
    closeSync(fd);
  }
}

/** The packet from its IP header on, with the mark at its end. */
export function packetBytes(packet: RawPacket, mark = 0): Uint8Array {
  const { source, destination, protocol } = packet;
  const body = bodyOf(packet, mark);
  const header = new ByteWriter(40 + body.length);
  if (destination.family === 4) {
    header.u16(0x4500);
    header.u16(20 + body.length);
    header.u32(0); // identification, flags, offset
    header.u8(64);
    header.u8(protocol);
    header.u16(0); // the kernel's to write
  } else {
    header.u32(0x6000_0000);
    header.u16(body.length);
    header.u8(protocol);
    header.u8(255); // what neighbour discovery must have (RFC 4861)
  }
  header.raw(addressToBytes(source));
  header.raw(addressToBytes(destination));
  header.raw(body);
  return header.finish();
}

function bodyOf(packet: RawPacket, mark: number): Uint8Array {
  const { protocol, source, destination, sourcePort = 0, destinationPort = 0, icmp, payload } = packet;
  const writer = new ByteWriter(128);
  const end = (): void => {
    if (payload !== undefined) writer.raw(payload);
    writer.u32(MARK);
    writer.u32(mark);
  };
  switch (protocol) {
    case PROTOCOL.TCP:
      writer.u16(sourcePort);
      writer.u16(destinationPort);
      writer.u32(mark);
      writer.u32(0);
      writer.u16(0x5002); // SYN
      writer.u16(1024);
      writer.u32(0);
      end();
      return summed(writer.finish(), 16, pseudoHeader(source, destination, protocol, writer.finish().length));
    case PROTOCOL.UDP: {
      writer.u16(sourcePort);
      writer.u16(destinationPort);
      writer.u32(0);
      end();
      const datagram = writer.finish();
      new DataView(datagram.buffer, datagram.byteOffset).setUint16(4, datagram.length);
      return summed(datagram, 6, pseudoHeader(source, destination, protocol, datagram.length));
    }
    case PROTOCOL.ICMP:
    case PROTOCOL.ICMPv6: {
      writer.u8(icmp?.type ?? 0);
      writer.u8(icmp?.code ?? 0);
      writer.u16(0);
      writer.u32(mark); // identifier and sequence of an echo
      if (icmp !== undefined && isNeighbour(icmp.type)) writer.raw(addressToBytes(destination));
      end();
      const message = writer.finish();
      const isV6 = protocol === PROTOCOL.ICMPv6;
      return summed(message, 2, isV6 ? pseudoHeader(source, destination, protocol, message.length) : new Uint8Array());
    }
    case PROTOCOL.SCTP: {
      // RFC 9260 section 3.3.2: INIT, with the mark in a parameter that nobody knows.
      for (const value of [sourcePort, destinationPort]) writer.u16(value);
      for (const value of [0, 0, 0x0100_0020, mark + 1, 0x1_0000, 0x0001_0001, 1, 0x8001_000c]) writer.u32(value);
      end();
      const init = writer.finish();
      new DataView(init.buffer, init.byteOffset).setUint32(8, crc32c(init), true);
      return init;
    }
    default:
      // Zeros at its beginning are a header without anything to many a protocol, GRE among them.
      writer.u32(0);
      end();
      return writer.finish();
  }
}

const isNeighbour = (type: number): boolean => type === 135 || type === 136;

/** RFC 8200 section 8.1; in IPv4 the same fields are as many bytes shorter, and their sum is the same. */
function pseudoHeader(source: Address, destination: Address, protocol: number, length: number): Uint8Array {
  const writer = new ByteWriter(40);
  writer.raw(addressToBytes(source));
  writer.raw(addressToBytes(destination));
  writer.u32(length);
  writer.u32(protocol);
  return writer.finish();
}

/** RFC 1071. */
function summed(body: Uint8Array, at: number, pseudo: Uint8Array): Uint8Array {
  let sum = 0;
  for (const bytes of [pseudo, body]) {
    for (let index = 0; index < bytes.length; index += 2) sum += (bytes[index]! << 8) | (bytes[index + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  new DataView(body.buffer, body.byteOffset).setUint16(at, ~sum & 0xffff || 0xffff);
  return body;
}

/** RFC 9260 appendix A. */
function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ ((crc & 1) === 0 ? 0 : 0x82f6_3b78);
  }
  return ~crc >>> 0;
}
