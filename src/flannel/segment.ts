import {
  type Arena,
  decrementTtl,
  GSO_ECN,
  GSO_NONE,
  GSO_TCP4,
  GSO_UDP,
  ICMP,
  putVector,
  swap16,
  TCP,
  UDP,
  VNET,
  VNET_NEEDS_CHECKSUM,
} from "./arena.ts";
import { messageLayout, type MessageLayout } from "./messages.ts";

/**
 * From the TUN device to the socket. The kernel hands over TCP of up to 64 KB in one piece; peers expect each datagram
 * to be one packet that fits their MTU. So each segment gets headers of its own, made here beside the data, which is
 * never copied: a message to the kernel is a list of headers and pieces, and UDP_SEGMENT cuts it into datagrams.
 */

export interface SegmenterOptions {
  readonly arena: Arena;
  /** Offset from which on the arena is the segmenter's: `SEGMENTER_BYTES`. */
  readonly start: number;
  /** UDP port of all peers. */
  readonly port: number;
  /** The peer that has the address, 0 where none has. Both are numbers of 32 bits. */
  readonly lookup: (destination: number) => number;
  /** Sends the first so many messages at `messages` now. */
  readonly send: (count: number) => void;
  /** No peer has the destination of the packet at that offset, of that length. */
  readonly unreachable: (ip: number, length: number) => void;
}

export interface Segmenter {
  /** Offset of the array of `struct mmsghdr`. */
  readonly messages: number;
  /** Takes what was read from the TUN device: `struct virtio_net_hdr`, whose offset is 6 modulo 16, then the packet. */
  take(at: number, length: number): void;
  /** Whether so much waits that it should be sent before more is read. */
  full(): boolean;
  flush(): void;
  /** Packets that were malformed, or whose time was over. */
  dropped(): number;
}

const MAX_MESSAGES = 64;
/** Datagrams that may wait. */
const MAX_DATAGRAMS = 256;
/** Bytes that may wait: about one packet of the largest size. */
const ENOUGH = 60_000;
/** Of UDP_SEGMENT: datagrams and bytes in one message. */
const SEGMENTS_PER_MESSAGE = 64;
const BYTES_PER_MESSAGE = 65_000;
/** Room for the headers of a segment: 60 bytes of IP and 60 of TCP at most. */
const HEADER_ROOM = 128;

export const SEGMENTER_BYTES = messageLayout(0, MAX_MESSAGES, 2 * MAX_DATAGRAMS).end + MAX_DATAGRAMS * HEADER_ROOM;

export function createSegmenter(options: SegmenterOptions): Segmenter {
  const { arena, start, port, lookup, send, unreachable } = options;
  const { u8, u16, u32, view, checksum } = arena;
  const layout: MessageLayout = messageLayout(start, MAX_MESSAGES, 2 * MAX_DATAGRAMS);
  const headers = layout.end;
  let messages = 0;
  let vectors = 0;
  let datagrams = 0;
  let bytes = 0;
  let dropped = 0;
  // The message that is open: later datagrams of its size may join it.
  let openPeer = 0;
  let openSize = 0;
  let openSegments = 0;
  let openBytes = 0;

  for (let at = 0; at < MAX_MESSAGES; at += 1) layout.prepare(arena, at, port);

  function flush(): void {
    if (messages === 0) return;
    closeMessage();
    send(messages);
    messages = vectors = datagrams = bytes = 0;
  }

  function closeMessage(): void {
    if (openSegments > 0) layout.segmented(arena, messages - 1, openSegments > 1 ? openSize : 0);
    openSegments = 0;
  }

  /** Begins a datagram of that length to the peer. Its pieces follow. */
  function beginDatagram(peer: number, length: number): void {
    if (datagrams === MAX_DATAGRAMS || messages === MAX_MESSAGES) flush();
    const joins =
      openSegments > 0 &&
      peer === openPeer &&
      length <= openSize &&
      openSegments < SEGMENTS_PER_MESSAGE &&
      openBytes + length <= BYTES_PER_MESSAGE;
    if (!joins) {
      closeMessage();
      layout.begin(arena, messages, vectors, peer);
      messages += 1;
      openPeer = peer;
      openSize = length;
      openBytes = 0;
    }
    openSegments += 1;
    openBytes += length;
    datagrams += 1;
    bytes += length;
    // Only the last datagram of a message may be shorter.
    if (length < openSize) openPeer = 0;
  }

  function addPiece(target: number, length: number): void {
    putVector(arena, layout.vectors + vectors * 16, target, length);
    vectors += 1;
    layout.extend(arena, messages - 1);
  }

  function takeWhole(at: number, ip: number, length: number, peer: number): void {
    if ((u8[at + VNET.flags]! & VNET_NEEDS_CHECKSUM) !== 0 && !finishChecksum(at, ip, length)) return;
    beginDatagram(peer, length);
    addPiece(ip, length);
  }

  /** The kernel has left the sum of the pseudo-header there, for a device to complete. */
  function finishChecksum(at: number, ip: number, length: number): boolean {
    const from = u16[(at + VNET.checksumStart) >> 1]!;
    const to = from + u16[(at + VNET.checksumOffset) >> 1]!;
    if (from >= length || to + 2 > length || (to & 1) !== 0) {
      dropped += 1;
      return false;
    }
    const sum = checksum(ip + from, length - from, 0) ^ 0xffff;
    u16[(ip + to) >> 1] = sum === 0 ? 0xffff : sum;
    return true;
  }

  /** TCP (RFC 9293) or UDP, cut at `gsoSize` bytes of payload. */
  function takeLarge(at: number, ip: number, length: number, peer: number, isTcp: boolean): void {
    const ipLength = (u8[ip]! & 15) << 2;
    const transport = ip + ipLength;
    const transportLength = isTcp ? (u8[transport + 12]! >> 4) << 2 : 8;
    const headerLength = ipLength + transportLength;
    const payload = length - headerLength;
    const size = u16[(at + VNET.gsoSize) >> 1]!;
    if (size === 0 || payload <= 0 || u8[ip + 9] !== (isTcp ? TCP : UDP)) {
      dropped += 1;
      return;
    }
    const identification = view.getUint16(ip + 4);
    const sequence = isTcp ? view.getUint32(transport + 4) : 0;
    const flags = isTcp ? u8[transport + 13]! : 0;
    const addresses = u16[(ip + 12) >> 1]! + u16[(ip + 14) >> 1]! + u16[(ip + 16) >> 1]! + u16[(ip + 18) >> 1]!;
    // What is the same in all segments is summed once: the headers, with the fields that differ set to zero.
    u16[(ip + 2) >> 1] = u16[(ip + 4) >> 1] = u16[(ip + 10) >> 1] = 0;
    const ipSum = checksum(ip, ipLength, 0);
    if (isTcp) {
      u32[(transport + 4) >> 2] = 0;
      u8[transport + 13] = 0;
      u16[(transport + 16) >> 1] = 0;
    } else {
      u32[(transport + 4) >> 2] = 0; // length and checksum
    }
    const transportSum = checksum(transport, transportLength, addresses + swap16(isTcp ? TCP : UDP));
    const words = headerLength >> 2;
    for (let from = 0, number = 0; from < payload; from += size, number += 1) {
      const piece = payload - from < size ? payload - from : size;
      const isLast = from + piece >= payload;
      beginDatagram(peer, headerLength + piece);
      const header = headers + (datagrams - 1) * HEADER_ROOM;
      for (let word = 0; word < words; word += 1) u32[(header >> 2) + word] = u32[(ip >> 2) + word]!;
      const total = swap16(headerLength + piece);
      const id = swap16((identification + number) & 0xffff);
      u16[(header + 2) >> 1] = total;
      u16[(header + 4) >> 1] = id;
      u16[(header + 10) >> 1] = fold(ipSum + total + id) ^ 0xffff;
      const own = header + ipLength;
      const data = ip + headerLength + from;
      const segmentLength = swap16(transportLength + piece);
      if (isTcp) {
        const next = (sequence + from) >>> 0;
        const high = swap16(next >>> 16);
        const low = swap16(next & 0xffff);
        u16[(own + 4) >> 1] = high;
        u16[(own + 6) >> 1] = low;
        // FIN and PSH belong to the last segment, CWR to the first (RFC 3168 section 6.1.2).
        const mask = (isLast ? 0xff : 0xf6) & (number === 0 ? 0xff : 0x7f);
        const itsFlags = flags & mask;
        u8[own + 13] = itsFlags;
        const sum = checksum(data, piece, transportSum + high + low + (itsFlags << 8) + segmentLength);
        u16[(own + 16) >> 1] = sum ^ 0xffff;
      } else {
        u16[(own + 4) >> 1] = segmentLength;
        // The length stands in the header and in the pseudo-header (RFC 768).
        const sum = checksum(data, piece, transportSum + 2 * segmentLength) ^ 0xffff;
        u16[(own + 6) >> 1] = sum === 0 ? 0xffff : sum;
      }
      addPiece(header, headerLength);
      addPiece(data, piece);
    }
  }

  return {
    messages: layout.messages,
    take(at, read) {
      const ip = at + VNET.size;
      const length = read - VNET.size;
      // Other than IPv4 has no peer to go to, such as the router solicitations of a new link.
      if (length < 20 || u8[ip]! >> 4 !== 4) return;
      const type = u8[at + VNET.gsoType]! & ~GSO_ECN;
      const peer = lookup(view.getInt32(ip + 16));
      if (peer === 0) return unreachable(ip, length);
      if (!decrementTtl(arena, ip)) {
        dropped += 1;
        return;
      }
      if (type === GSO_NONE) takeWhole(at, ip, length, peer);
      else if (type === GSO_TCP4 || type === GSO_UDP) takeLarge(at, ip, length, peer, type === GSO_TCP4);
      else dropped += 1;
    },
    full: () => bytes >= ENOUGH || messages === MAX_MESSAGES,
    flush,
    dropped: () => dropped,
  };
}

function fold(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** RFC 1812 section 4.3.2.7: never about an ICMP error or a later fragment; flannel answers no ICMP at all. */
export function mayAnswerUnreachable({ u8, view }: Arena, ip: number, length: number): boolean {
  const ipLength = (u8[ip]! & 15) << 2;
  return length >= ipLength + 8 && u8[ip + 9] !== ICMP && (view.getUint16(ip + 6) & 0x1fff) === 0;
}

/**
 * ICMP "network unreachable" about the packet, written to `at` with a `struct virtio_net_hdr` before it. TTL 8, as
 * flannel's. Returns the length of both.
 */
export function writeUnreachable(arena: Arena, ip: number, at: number, source: number): number {
  const { u8, view, checksum } = arena;
  const quoted = ((u8[ip]! & 15) << 2) + 8;
  const answer = at + VNET.size;
  const length = 28 + quoted;
  u8.fill(0, at, answer + 28);
  u8[answer] = 0x45;
  view.setUint16(answer + 2, length);
  u8[answer + 8] = 8;
  u8[answer + 9] = ICMP;
  view.setInt32(answer + 12, source);
  view.setUint32(answer + 16, view.getUint32(ip + 12));
  view.setUint16(answer + 10, checksum(answer, 20, 0) ^ 0xffff, true);
  u8[answer + 20] = 3; // destination unreachable, code 0: network
  u8.copyWithin(answer + 28, ip, ip + quoted);
  view.setUint16(answer + 22, checksum(answer + 20, 8 + quoted, 0) ^ 0xffff, true);
  return VNET.size + length;
}

/** Where a new `struct virtio_net_hdr` may stand after that offset, so that its packet begins at a multiple of 16. */
export const nextSlot = (after: number): number => ((after + VNET.size + 15) & ~15) - VNET.size;
