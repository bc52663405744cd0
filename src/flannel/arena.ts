import { type Checksum, checksumMemory } from "./checksum.ts";

/**
 * Memory that the kernel is given addresses of: packets, and the structures that point at their pieces. All offsets are
 * from its beginning; an address is an offset plus `base`.
 */
export interface Arena {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
  readonly view: DataView;
  readonly base: number;
  readonly checksum: Checksum;
}

/** `locate` says where a buffer is. */
export function createArena(bytes: number, locate: (bytes: Uint8Array) => number): Arena {
  const { buffer, checksum } = checksumMemory(bytes);
  const u8 = new Uint8Array(buffer);
  return {
    u8,
    u16: new Uint16Array(buffer),
    u32: new Uint32Array(buffer),
    view: new DataView(buffer),
    base: locate(u8),
    checksum,
  };
}

/** Writes the address of what is at `target`; 8 bytes, at a multiple of 4. */
export function putAddress({ u32, base }: Arena, at: number, target: number): void {
  const address = base + target;
  u32[at >> 2] = address >>> 0;
  u32[(at >> 2) + 1] = Math.floor(address / 2 ** 32);
}

/** A `struct iovec`: 16 bytes. */
export function putVector(arena: Arena, at: number, target: number, length: number): void {
  putAddress(arena, at, target);
  arena.u32[(at >> 2) + 2] = length;
  arena.u32[(at >> 2) + 3] = 0;
}

/** `struct virtio_net_hdr` of <linux/virtio_net.h>, in the machine's byte order: offsets of its fields. */
export const VNET = {
  flags: 0,
  gsoType: 1,
  headerLength: 2,
  gsoSize: 4,
  checksumStart: 6,
  checksumOffset: 8,
  size: 10,
} as const;
export const VNET_NEEDS_CHECKSUM = 1;
export const GSO_NONE = 0;
export const GSO_TCP4 = 1;
export const GSO_UDP = 5;
/** Set beside the type, where a segment of TCP says that congestion was met. */
export const GSO_ECN = 0x80;

export const TCP = 6;
export const UDP = 17;
export const ICMP = 1;

/** Exchanges the bytes of a 16-bit number: sums are made in the machine's order, headers are in the network's. */
export const swap16 = (value: number): number => ((value & 0xff) << 8) | (value >>> 8);

/**
 * One hop more: flannel takes one off the TTL at both ends of its tunnel. Mends the header's checksum (RFC 1624); false
 * where the packet's time is over.
 */
export function decrementTtl({ u8, view }: Arena, ip: number): boolean {
  const ttl = u8[ip + 8]!;
  if (ttl <= 1) return false;
  u8[ip + 8] = ttl - 1;
  const sum = view.getUint16(ip + 10) + 0x100;
  view.setUint16(ip + 10, (sum & 0xffff) + (sum >>> 16));
  return true;
}
