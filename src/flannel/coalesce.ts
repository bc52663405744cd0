import {
  type Arena,
  decrementTtl,
  GSO_TCP4,
  GSO_UDP,
  putVector,
  swap16,
  TCP,
  UDP,
  VNET,
  VNET_NEEDS_CHECKSUM,
} from "./arena.ts";

/**
 * From the socket to the TUN device. Packets of one connection that follow each other become one large packet of up to 64
 * KB, as the kernel's own receive offload would make it (net/ipv4/tcp_offload.c, udp_offload.c): one write instead of
 * forty, and one way through the host's firewall and routes. The data is never copied: a write is a list of pieces.
 */

export interface CoalescerOptions {
  readonly arena: Arena;
  /** Offset from which on the arena is the coalescer's: `COALESCER_BYTES`. */
  readonly start: number;
  /** Whether the kernel takes large packets of UDP. */
  readonly udp: boolean;
  /** Writes the first so many vectors at `vectors` to the device, as one packet. */
  readonly write: (count: number) => void;
}

export interface Coalescer {
  /** Offset of the array of `struct iovec`. */
  readonly vectors: number;
  /** Takes the payload of one datagram: a whole IPv4 packet. What it points at must stay until the next `flush`. */
  take(ip: number, length: number): void;
  flush(): void;
  /** Packets that were malformed, or whose time was over. */
  dropped(): number;
}

/** The kernel's UDP_MAX_SEGMENTS; TCP is bounded by 64 KB first. */
const MAX_PIECES = 64;
const MAX_BYTES = 65_535;
const HEADER = 64;
const ACK = 0x10;
const PSH = 0x08;
const ECE = 0x40;
const DO_NOT_FRAGMENT = 0x4000;

/** The header of the device, the first packet whole, then pieces. */
export const COALESCER_BYTES = HEADER + (MAX_PIECES + 1) * 16;

export function createCoalescer({ arena, start, udp, write }: CoalescerOptions): Coalescer {
  const { u8, u16, view, checksum } = arena;
  const vectors = start + HEADER;
  let dropped = 0;
  // The packet that later ones may join: where it is, and what must be equal.
  let first = -1;
  let firstLength = 0;
  let headerLength = 0;
  let isTcp = false;
  let size = 0;
  let count = 0;
  let total = 0;
  let sequence = 0;
  let lastFlags = 0;

  function flush(): void {
    if (first < 0) return;
    putVector(arena, vectors, start, VNET.size);
    putVector(arena, vectors + 16, first, firstLength);
    if (count === 1) describeWhole();
    else describeLarge();
    write(count + 1);
    first = -1;
  }

  function describeWhole(): void {
    u8.fill(0, start, start + VNET.size);
  }

  function describeLarge(): void {
    const transport = first + 20;
    view.setUint16(first + 2, total);
    view.setUint16(first + 10, 0);
    view.setUint16(first + 10, checksum(first, 20, 0) ^ 0xffff, true);
    const checksumOffset = isTcp ? 16 : 6;
    if (isTcp) u8[transport + 13] = u8[transport + 13]! | lastFlags;
    else view.setUint16(transport + 4, total - 20);
    // The sum of the pseudo-header, for the kernel to complete if the packet ever leaves the host in segments.
    const pseudo = checksum(first + 12, 8, swap16(isTcp ? TCP : UDP) + swap16(total - 20));
    view.setUint16(transport + checksumOffset, pseudo, true);
    u8[start + VNET.flags] = VNET_NEEDS_CHECKSUM;
    u8[start + VNET.gsoType] = isTcp ? GSO_TCP4 : GSO_UDP;
    u16[(start + VNET.headerLength) >> 1] = headerLength;
    u16[(start + VNET.gsoSize) >> 1] = size;
    u16[(start + VNET.checksumStart) >> 1] = 20;
    u16[(start + VNET.checksumOffset) >> 1] = checksumOffset;
  }

  function begin(ip: number, length: number): void {
    first = ip;
    firstLength = length;
    count = 1;
    total = length;
  }

  /** Length of the headers of a packet that may be part of a large one; 0 for others. */
  function mergeableHeader(ip: number, length: number): number {
    // No options, no fragment.
    if (u8[ip] !== 0x45 || (view.getUint16(ip + 6) & 0x3fff) !== 0) return 0;
    if (u8[ip + 9] === TCP) {
      if (length <= 40) return 0;
      const whole = 20 + ((u8[ip + 32]! >> 4) << 2);
      const flags = u8[ip + 33]! & ~(PSH | ECE);
      return flags === ACK && whole >= 40 && whole < length ? whole : 0;
    }
    const isUdp = udp && u8[ip + 9] === UDP && length > 28;
    return isUdp && view.getUint16(ip + 24) === length - 20 && view.getUint16(ip + 26) !== 0 ? 28 : 0;
  }

  /** The kernel is told that a large packet is sound, so each part of it has to be. */
  function isSound(ip: number, length: number): boolean {
    const pseudo = checksum(ip + 12, 8, swap16(u8[ip + 9]!) + swap16(length - 20));
    return checksum(ip, 20, 0) === 0xffff && checksum(ip + 20, length - 20, pseudo) === 0xffff;
  }

  function joins(ip: number, length: number, header: number): boolean {
    const payload = length - header;
    if (header !== headerLength || payload > size || total + payload > MAX_BYTES || count === MAX_PIECES) return false;
    const identification = view.getUint16(first + 6) === DO_NOT_FRAGMENT ? 0 : view.getUint16(first + 4) + count;
    const same =
      view.getUint16(ip) === view.getUint16(first) && // version, length of the header, DSCP and ECN
      view.getUint16(ip + 6) === view.getUint16(first + 6) &&
      (identification === 0 || view.getUint16(ip + 4) === (identification & 0xffff)) &&
      view.getUint16(ip + 8) === view.getUint16(first + 8) && // TTL and protocol
      view.getUint32(ip + 12) === view.getUint32(first + 12) &&
      view.getUint32(ip + 16) === view.getUint32(first + 16) &&
      view.getUint32(ip + 20) === view.getUint32(first + 20); // ports
    if (!same || (isTcp && !continues(ip, header))) return false;
    if (count === 1 && !isSound(first, firstLength)) return false;
    return isSound(ip, length);
  }

  function continues(ip: number, header: number): boolean {
    if (view.getUint32(ip + 24) !== sequence || view.getUint32(ip + 28) !== view.getUint32(first + 28)) return false;
    if (((u8[ip + 33]! ^ u8[first + 33]!) & ~PSH) !== 0) return false;
    for (let at = 40; at < header; at += 4) if (view.getUint32(ip + at) !== view.getUint32(first + at)) return false;
    return true;
  }

  function takeMergeable(ip: number, length: number, header: number): void {
    const payload = length - header;
    const flags = u8[ip + 9] === TCP ? u8[ip + 33]! : 0;
    if (first >= 0 && u8[ip + 9] === (isTcp ? TCP : UDP) && joins(ip, length, header)) {
      count += 1;
      putVector(arena, vectors + count * 16, ip + header, payload);
      total += payload;
    } else {
      flush();
      begin(ip, length);
      headerLength = header;
      isTcp = u8[ip + 9] === TCP;
      size = payload;
      sequence = isTcp ? view.getUint32(ip + 24) : 0;
      lastFlags = 0;
    }
    sequence = (sequence + payload) >>> 0;
    lastFlags |= flags & PSH;
    // A shorter one, and one that is to be handed over at once, is the last.
    if (payload < size || (flags & PSH) !== 0) flush();
  }

  return {
    vectors,
    take(ip, received) {
      const length = received < 20 ? 0 : view.getUint16(ip + 2);
      if (length < 20 || length > received || u8[ip]! >> 4 !== 4 || !decrementTtl(arena, ip)) {
        dropped += 1;
        return;
      }
      const header = mergeableHeader(ip, length);
      if (header > 0) return takeMergeable(ip, length, header);
      flush();
      begin(ip, length);
      flush();
    },
    flush,
    dropped: () => dropped,
  };
}
