import { closeSync, writeSync } from "node:fs";
import { addressToBytes, formatAddress, addressFromBytes, type Address } from "../ip/address.ts";
import { AF_INET, connect, MSG_DONTWAIT, receive, SOCK_RAW } from "../netlink/ffi.io.ts";
import { socketIn } from "../netlink/namespace.io.ts";

/** IPv4 packets made and taken apart by hand, and raw sockets that know nothing of our programs: the other side. */

export interface Ipv4 {
  readonly tos: number;
  readonly id: number;
  readonly dontFragment: boolean;
  readonly moreFragments: boolean;
  /** In bytes. */
  readonly fragmentOffset: number;
  readonly ttl: number;
  readonly protocol: number;
  readonly source: string;
  readonly destination: string;
  /** As the header gives it. */
  readonly length: number;
  /** Whether the header's own checksum is right. */
  readonly sound: boolean;
  readonly payload: Uint8Array;
}

export function parseIpv4(bytes: Uint8Array): Ipv4 {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const header = (view.getUint8(0) & 15) * 4;
  const fragment = view.getUint16(6);
  return {
    tos: view.getUint8(1),
    length: view.getUint16(2),
    id: view.getUint16(4),
    dontFragment: (fragment & 0x4000) !== 0,
    moreFragments: (fragment & 0x2000) !== 0,
    fragmentOffset: (fragment & 0x1fff) * 8,
    ttl: view.getUint8(8),
    protocol: view.getUint8(9),
    source: formatAddress(addressFromBytes(bytes.subarray(12, 16))),
    destination: formatAddress(addressFromBytes(bytes.subarray(16, 20))),
    sound: checksum(bytes.subarray(0, header)) === 0,
    payload: bytes.slice(header),
  };
}

export interface Ipv4Fields {
  readonly source: Address;
  readonly destination: Address;
  readonly protocol: number;
  readonly payload: Uint8Array;
  readonly tos?: number;
  readonly id?: number;
  /** Flags and offset, as the field is. */
  readonly fragment?: number;
  readonly ttl?: number;
  /** What the header says, where that is not the truth. */
  readonly length?: number;
  readonly options?: Uint8Array;
}

export function ipv4(fields: Ipv4Fields): Uint8Array {
  const { payload, options = new Uint8Array() } = fields;
  const header = 20 + options.length;
  const bytes = new Uint8Array(header + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, 0x40 | (header / 4));
  view.setUint8(1, fields.tos ?? 0);
  view.setUint16(2, fields.length ?? bytes.length);
  view.setUint16(4, fields.id ?? 0);
  view.setUint16(6, fields.fragment ?? 0);
  view.setUint8(8, fields.ttl ?? 64);
  view.setUint8(9, fields.protocol);
  bytes.set(addressToBytes(fields.source), 12);
  bytes.set(addressToBytes(fields.destination), 16);
  bytes.set(options, 20);
  view.setUint16(10, checksum(bytes.subarray(0, header)));
  bytes.set(payload, header);
  return bytes;
}

/** An ICMP echo: a request where it is no reply. */
export function echo(sequence: number, size = 8, reply = false): Uint8Array {
  const bytes = new Uint8Array(8 + size);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, reply ? 0 : 8);
  view.setUint16(4, 0x1234);
  view.setUint16(6, sequence);
  for (let index = 8; index < bytes.length; index += 1) bytes[index] = index & 255;
  view.setUint16(2, checksum(bytes));
  return bytes;
}

/** RFC 1071: 0 over what has its checksum in it. */
export function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let index = 0; index < bytes.length; index += 2) sum += (bytes[index]! << 8) | (bytes[index + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

const IPPROTO_RAW = 255;

/** Sends whole packets, header and all; the kernel writes their length and checksum. */
export function sendPacket(namespace: string, destination: Address, packet: Uint8Array): void {
  const fd = socketIn(namespace, AF_INET, SOCK_RAW, IPPROTO_RAW);
  try {
    const to = new Uint8Array(16);
    to[0] = AF_INET;
    to.set(addressToBytes(destination), 4);
    connect(fd, to);
    writeSync(fd, packet);
  } finally {
    closeSync(fd);
  }
}

export interface RawReceiver extends Disposable {
  /** The next packet for which the condition holds, outer header and all; throws after `milliseconds`. */
  next(wanted: (packet: Ipv4) => boolean, milliseconds?: number): Promise<Ipv4>;
}

/** Takes every packet of this IP protocol that is for the namespace, as it came. */
export function rawReceiver(namespace: string, protocol: number): RawReceiver {
  const fd = socketIn(namespace, AF_INET, SOCK_RAW, protocol);
  const buffer = new Uint8Array(65_536);
  return {
    async next(wanted, milliseconds = 2000) {
      const deadline = performance.now() + milliseconds;
      for (;;) {
        const length = receive(fd, buffer, MSG_DONTWAIT);
        if (length !== undefined) {
          const packet = parseIpv4(buffer.slice(0, length));
          if (wanted(packet)) return packet;
          continue;
        }
        if (performance.now() > deadline) throw new Error(`no such packet of protocol ${protocol} came`);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}

const AF_PACKET = 17;
const ETHERTYPE_IPV4 = 0x0800;

export interface Capture extends Disposable {
  /** Every IPv4 packet that a link of the namespace has taken in or sent out since the last call. */
  packets(): Ipv4[];
}

/** What tcpdump would see. */
export function capture(namespace: string): Capture {
  const everything = 0x0300; // ETH_P_ALL in network order
  const fd = socketIn(namespace, AF_PACKET, SOCK_RAW, everything);
  const buffer = new Uint8Array(65_550);
  return {
    packets() {
      const found: Ipv4[] = [];
      for (;;) {
        const length = receive(fd, buffer, MSG_DONTWAIT);
        if (length === undefined) return found;
        const type = new DataView(buffer.buffer).getUint16(12);
        if (type === ETHERTYPE_IPV4) found.push(parseIpv4(buffer.slice(14, length)));
      }
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}
