import { plainChecksum } from "./checksum.ts";

/** IPv4 packets for tests, made and read field by field with plain sums. */

export interface PacketSpec {
  readonly protocol: "tcp" | "udp" | "icmp";
  readonly payload: Uint8Array;
  readonly source?: string;
  readonly destination?: string;
  readonly ttl?: number;
  readonly id?: number;
  /** The whole field: flags and offset. DF where absent. */
  readonly fragment?: number;
  readonly sequence?: number;
  readonly acknowledgement?: number;
  readonly flags?: number;
  /** TCP's, a multiple of 4 bytes. */
  readonly options?: Uint8Array;
  readonly sourcePort?: number;
}

const PROTOCOLS = { tcp: 6, udp: 17, icmp: 1 } as const;
const addressBytes = (text: string): number[] => text.split(".").map(Number);

export function packet(spec: PacketSpec): Uint8Array<ArrayBuffer> {
  const { protocol, payload, options = new Uint8Array() } = spec;
  const headerLength = protocol === "tcp" ? 20 + options.length : 8;
  const bytes = new Uint8Array(20 + headerLength + payload.length);
  const view = new DataView(bytes.buffer);
  bytes[0] = 0x45;
  view.setUint16(2, bytes.length);
  view.setUint16(4, spec.id ?? 7);
  view.setUint16(6, spec.fragment ?? 0x4000);
  bytes[8] = spec.ttl ?? 64;
  bytes[9] = PROTOCOLS[protocol];
  bytes.set(addressBytes(spec.source ?? "10.5.1.2"), 12);
  bytes.set(addressBytes(spec.destination ?? "10.5.2.2"), 16);
  bytes.set(payload, 20 + headerLength);
  if (protocol === "icmp") {
    bytes[20] = 8;
  } else {
    view.setUint16(20, spec.sourcePort ?? 4000);
    view.setUint16(22, 80);
  }
  if (protocol === "tcp") {
    view.setUint32(24, spec.sequence ?? 1000);
    view.setUint32(28, spec.acknowledgement ?? 5);
    bytes[32] = (headerLength / 4) << 4;
    bytes[33] = spec.flags ?? 0x10;
    view.setUint16(34, 512);
    bytes.set(options, 40);
  } else if (protocol === "udp") {
    view.setUint16(24, 8 + payload.length);
  }
  finish(bytes);
  return bytes;
}

const CHECKSUM_AT: Readonly<Record<number, number>> = { 6: 36, 17: 26, 1: 22 };

/** Writes both checksums. */
export function finish(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint16(10, 0);
  view.setUint16(10, plainChecksum(bytes, 0, 20, 0) ^ 0xffff, true);
  const at = CHECKSUM_AT[bytes[9]!]!;
  view.setUint16(at, 0);
  const sum = transportSum(bytes) ^ 0xffff;
  view.setUint16(at, sum === 0 && bytes[9] === 17 ? 0xffff : sum, true);
}

/** Only the sum of the pseudo-header, as the kernel leaves it for a device to complete. */
export function leaveToDevice(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint16(CHECKSUM_AT[bytes[9]!]!, pseudoSum(bytes), true);
}

function pseudoSum(bytes: Uint8Array): number {
  if (bytes[9] === 1) return 0;
  const length = bytes.length - 20;
  const swapped = ((length & 0xff) << 8) | (length >> 8);
  return plainChecksum(bytes, 12, 8, (bytes[9]! << 8) + swapped);
}

function transportSum(bytes: Uint8Array): number {
  return plainChecksum(bytes, 20, bytes.length - 20, pseudoSum(bytes));
}

/** Undefined where all lengths and sums are right. */
export function faultOf(bytes: Uint8Array): string | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  if (view.getUint16(2) !== bytes.length) return `the length says ${view.getUint16(2)} of ${bytes.length}`;
  if (plainChecksum(bytes, 0, 20, 0) !== 0xffff) return "the header's checksum is wrong";
  if (bytes[9] === 17 && view.getUint16(24) !== bytes.length - 20) return "the length in UDP's header is wrong";
  return transportSum(bytes) === 0xffff ? undefined : "the checksum of TCP, UDP or ICMP is wrong";
}

/** The fields that matter, in a line. */
export function show(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const header = `ttl ${bytes[8]} id ${view.getUint16(4)}`;
  if (bytes[9] === 6) {
    const length = bytes.length - 20 - (bytes[32]! >> 4) * 4;
    return `${header} tcp seq ${view.getUint32(24)} flags 0x${bytes[33]!.toString(16)} +${length}`;
  }
  return `${header} ${bytes[9] === 17 ? "udp" : "icmp"} +${bytes.length - 28}`;
}
