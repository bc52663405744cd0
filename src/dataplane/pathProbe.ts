import { addressFromBytes, type Address, type Family } from "../ip/address.ts";
import { ByteWriter } from "../lib/bytes.ts";

/**
 * The packets that try out a path: ICMP echoes of a given length (RFC 792, RFC 4443), and what comes back. Every host
 * answers them, so that the other end needs nothing of ours.
 */

/** What one of our echoes has brought back. */
export type EchoAnswer =
  | { readonly kind: "reply" }
  /** Somebody on the way says that the packet was not carried on. */
  | { readonly kind: "error"; readonly reason: EchoRefusal };

/** `mtu` is what the router that refused a packet says, in bytes of the packet as it saw it; 0 where it does not say. */
export type EchoRefusal = "unreachable" | "prohibited" | "expired" | { readonly mtu: number };

export interface EchoId {
  /** Of 16 bits: whose echo it is. */
  readonly identifier: number;
  /** Of 16 bits: which one. */
  readonly sequence: number;
}

const HEADER = { 4: 20, 6: 40 } as const;
const ICMP_HEADER = 8;
const PROTOCOL_ICMP = { 4: 1, 6: 58 } as const;
/** The smallest packet that makes sense: headers alone. */
export const SHORTEST = { 4: HEADER[4] + ICMP_HEADER, 6: HEADER[6] + ICMP_HEADER } as const;

const TYPE = {
  4: { request: 8, reply: 0, unreachable: 3, tooBig: undefined, expired: 11 },
  6: { request: 128, reply: 129, unreachable: 1, tooBig: 2, expired: 3 },
} as const;
/** Types that a socket has to be given: all others are somebody else's. */
export const WANTED_TYPES: { readonly [F in Family]: readonly number[] } = { 4: [0, 3, 11], 6: [129, 1, 2, 3] };

/** The ICMP part of an echo that is `length` bytes as an IP packet. The kernel makes the checksum of ICMPv6. */
export function echoRequest(family: Family, { identifier, sequence }: EchoId, length: number): Uint8Array {
  const size = Math.max(length - HEADER[family], ICMP_HEADER);
  const writer = new ByteWriter(size);
  writer.u8(TYPE[family].request);
  writer.u8(0);
  writer.u16(0); // checksum
  writer.u16(identifier);
  writer.u16(sequence);
  writer.reserve(size - ICMP_HEADER);
  // All of the data is zero.
  if (family === 4) writer.patchU16(2, ~folded((TYPE[4].request << 8) + identifier + sequence) & 0xffff);
  return writer.finish();
}

function folded(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

export interface ReceivedAnswer extends EchoId {
  readonly answer: EchoAnswer;
}

/**
 * Reads a packet as a raw socket gives it: IPv4 with its header, IPv6 without. Undefined for what has nothing to do with
 * an echo, and for what is cut short.
 */
export function readAnswer(family: Family, packet: Uint8Array): ReceivedAnswer | undefined {
  const start = family === 4 ? headerLength(packet, 0) : 0;
  if (packet.length < start + ICMP_HEADER) return undefined;
  const type = packet[start]!;
  const types = TYPE[family];
  if (type === types.reply) return { ...echoId(packet, start), answer: { kind: "reply" } };
  const reason = refusalOf(family, type, packet.subarray(start));
  if (reason === undefined) return undefined;
  const quoted = quotedEcho(family, packet, start + ICMP_HEADER);
  return quoted && { ...quoted, answer: { kind: "error", reason } };
}

/** RFC 792, RFC 1191 section 4; RFC 4443 section 3. */
function refusalOf(family: Family, type: number, icmp: Uint8Array): EchoRefusal | undefined {
  const types = TYPE[family];
  const code = icmp[1]!;
  if (type === types.expired) return code === 0 ? "expired" : undefined;
  if (type === types.tooBig) return { mtu: ((icmp[4]! << 24) | (icmp[5]! << 16) | u16(icmp, 6)) >>> 0 };
  if (type !== types.unreachable) return undefined;
  if (family === 4 && code === 4) return { mtu: u16(icmp, 6) };
  return (family === 4 ? [9, 10, 13] : [1, 5, 6]).includes(code) ? "prohibited" : "unreachable";
}

/** The echo that an error quotes: its IP header and at least eight bytes. */
function quotedEcho(family: Family, packet: Uint8Array, start: number): EchoId | undefined {
  const length = family === 4 ? headerLength(packet, start) : HEADER[6];
  if (packet.length < start + length + ICMP_HEADER || packet[start]! >> 4 !== family) return undefined;
  const protocol = packet[start + (family === 4 ? 9 : 6)];
  if (protocol !== PROTOCOL_ICMP[family] || packet[start + length] !== TYPE[family].request) return undefined;
  return echoId(packet, start + length);
}

const headerLength = (packet: Uint8Array, start: number): number =>
  Math.max(((packet[start] ?? 0) & 15) * 4, HEADER[4]);
const u16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;
const echoId = (packet: Uint8Array, at: number): EchoId => ({
  identifier: u16(packet, at + 4),
  sequence: u16(packet, at + 6),
});

/** `struct sockaddr_in` or `sockaddr_in6` of a raw socket, whose port says nothing. */
export function addressOfSocketAddress(bytes: Uint8Array): Address | undefined {
  const family = bytes[0]! | (bytes[1]! << 8);
  if (family === 2) return addressFromBytes(bytes.subarray(4, 8));
  return family === 10 ? addressFromBytes(bytes.subarray(8, 24)) : undefined;
}
