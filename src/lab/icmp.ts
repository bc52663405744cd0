import type { Family } from "../ip/address.ts";
import { ByteReader, ByteWriter } from "../lib/bytes.ts";

/** ICMP echo (RFC 792) and ICMPv6 echo (RFC 4443 section 4), for the probe's pings. */

const MAGIC = 0x4341_5241; // "CARA": tells our echoes from a ping that runs in the same pod

/** `index` (below 2^32) tells one echo from another. For ICMPv6 the kernel fills the checksum in. */
export function echoRequest(family: Family, index: number): Uint8Array {
  const writer = new ByteWriter(16);
  writer.u8(family === 4 ? 8 : 128);
  writer.u8(0);
  writer.u16(0); // checksum
  writer.u16(index >>> 16);
  writer.u16(index & 0xffff);
  writer.u32(MAGIC);
  writer.u32(index);
  if (family === 4) writer.patchU16(2, checksum(writer.finish()));
  return writer.finish();
}

/** Whether the packet, as a raw socket gives it (IPv4 with its header, IPv6 without), answers that request. */
export function isEchoReply(family: Family, index: number, packet: Uint8Array): boolean {
  const headerLength = family === 4 ? ((packet[0] ?? 0) & 0x0f) * 4 : 0;
  if (packet.length < headerLength + 16) return false;
  const reader = new ByteReader(packet, headerLength);
  if (reader.u8("type") !== (family === 4 ? 0 : 129)) return false;
  reader.skip(7, "code, checksum, identifier, sequence");
  return reader.u32("magic") === MAGIC && reader.u32("index") === index;
}

/** RFC 1071. */
function checksum(bytes: Uint8Array): number {
  const reader = new ByteReader(bytes);
  let sum = 0;
  while (reader.remaining >= 2) sum += reader.u16("word");
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
