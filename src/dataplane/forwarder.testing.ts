/** A node that forwards, in a namespace of its own, and whoever sends through it: packets made and read by hand. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, writeSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { addressFromBytes, addressToBytes, formatAddress, parseAddress, type Family } from "../ip/address.ts";
import { bind, MSG_DONTWAIT, receive, SOCK_RAW } from "../netlink/ffi.io.ts";
import { inNamespace, socketIn } from "../netlink/namespace.io.ts";
import { inside, temporaryNamespace } from "../netlink/namespace.testing.ts";
import { writeSysctl } from "../netlink/sysctl.io.ts";
import type { Packet } from "../policy/match.ts";
import { hasPorts, icmpOf, PROTOCOL } from "../policy/model.ts";
import { checksum, ipv4 } from "./tunnelPackets.testing.ts";

/**
 * cali1 leads to .1, cali2 to .2 of the pods' network, eth0 to everything else. What stands at the other ends has no
 * addresses and answers nothing.
 */
export interface Forwarder extends Disposable {
  readonly name: string;
  readonly path: string;
  /** Sends through the node, as if it came by that interface. `filler`: bytes behind the headers. */
  send(by: Door, packet: Packet, options?: SendOptions): void;
  /** What left by the interface since it was last asked. */
  left(by: Door): Packet[];
  /** Sends all of them over and over, a round each millisecond or so, while this thread does something else. */
  flood(sends: readonly { readonly by: Door; readonly packet: Packet }[]): Flood;
}

export interface Flood {
  /** Resolves with how many rounds were sent. */
  stop(): Promise<number>;
}

export interface SendOptions {
  readonly filler?: number;
  /** Of TCP. SYN where not given. */
  readonly flags?: number;
}

type Door = "cali1" | "cali2" | "eth0";
const DOORS: readonly Door[] = ["cali1", "cali2", "eth0"];

export const WORLD: Readonly<Record<Family, { pod1: string; pod2: string; node: string; far: string; other: string }>> =
  {
    4: { pod1: "10.65.0.1", pod2: "10.65.0.2", node: "192.0.2.1", far: "192.0.2.9", other: "203.0.113.7" },
    6: { pod1: "fd00:65::1", pod2: "fd00:65::2", node: "2001:db8::1", far: "2001:db8::9", other: "2001:db8:7::7" },
  };

const MAC = { here: "02:00:00:00:00:01", there: "02:00:00:00:00:02" };
const AF_PACKET = 17;
const ETHERTYPE: Readonly<Record<Family, number>> = { 4: 0x0800, 6: 0x86dd };
const HEADER = 14;

export function forwarder(): Forwarder {
  const ends: (() => void)[] = [];
  const end = (): void => ends.toReversed().forEach((each) => each());
  try {
    const [node, outside] = [temporaryNamespace(), temporaryNamespace()];
    ends.push(node[Symbol.dispose], outside[Symbol.dispose]);
    inNamespace(node.path, () => {
      writeSysctl("ipv4/ip_forward", 1);
      writeSysctl("ipv6/conf/all/forwarding", 1);
      for (const which of ["all", "default"]) {
        writeSysctl(`ipv4/conf/${which}/rp_filter`, 0);
        writeSysctl(`ipv6/conf/${which}/accept_dad`, 0);
      }
      // Of packets made by hand, not all have a checksum beyond that of IPv4's header.
      writeSysctl("netfilter/nf_conntrack_checksum", 0);
    });
    // Nothing is sent there but by hand.
    inNamespace(outside.path, () => {
      for (const which of ["all", "default"]) writeSysctl(`ipv6/conf/${which}/disable_ipv6`, 1);
    });
    configure(node.name, outside.name);
    const sockets = new Map(DOORS.map((door) => [door, socketOn(outside.path, outside.name, `o-${door}`)]));
    for (const fd of sockets.values()) ends.push(() => closeSync(fd));
    return {
      name: node.name,
      path: node.path,
      send: (by, packet, options = {}) => void writeSync(sockets.get(by)!, frameOf(packet, options)),
      left: (by) => received(sockets.get(by)!),
      flood: (sends) => flood(sends.map(({ by, packet }) => ({ fd: sockets.get(by)!, frame: frameOf(packet, {}) }))),
      [Symbol.dispose]: end,
    };
  } catch (error) {
    end();
    throw error;
  }
}

const FLOOD = `
  const { writeSync } = require("node:fs");
  const { parentPort, workerData: { frames, state } } = require("node:worker_threads");
  let rounds = 0;
  for (; Atomics.load(state, 0) === 0; rounds += 1) {
    for (const { fd, frame } of frames) writeSync(fd, frame);
    Atomics.wait(state, 0, 0, 1);
  }
  parentPort.postMessage(rounds);
`;

function flood(frames: readonly { readonly fd: number; readonly frame: Uint8Array }[]): Flood {
  const state = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(FLOOD, { eval: true, workerData: { frames, state } });
  const rounds = once(worker, "message") as Promise<[number]>;
  return {
    async stop() {
      Atomics.store(state, 0, 1);
      return (await rounds)[0];
    },
  };
}

function configure(node: string, outside: string): void {
  const lines: string[] = [];
  for (const door of DOORS) {
    lines.push(
      `link add ${door} address ${MAC.here} type veth peer name o-${door} address ${MAC.there} netns ${outside}`,
    );
    lines.push(`link set ${door} addrgenmode none`, `link set ${door} up`);
  }
  for (const family of [4, 6] as const) {
    const { pod1, pod2, node: own, far, other } = WORLD[family];
    lines.push(`address add ${own}/${family === 4 ? 24 : 64} dev eth0`);
    lines.push(`route add ${pod1} dev cali1`, `route add ${pod2} dev cali2`);
    lines.push(`route add ${other} via ${far} dev eth0`);
    for (const [address, door] of [
      [pod1, "cali1"],
      [pod2, "cali2"],
      [far, "eth0"],
    ]) {
      lines.push(`neigh replace ${address} lladdr ${MAC.there} dev ${door} nud permanent`);
    }
  }
  batch(node, lines);
  batch(
    outside,
    DOORS.map((door) => `link set o-${door} up`),
  );
}

/** `ip` with many lines at once. */
function batch(namespace: string, lines: readonly string[]): void {
  execFileSync("ip", ["-netns", namespace, "-batch", "-"], {
    input: `${lines.join("\n")}\n`,
    stdio: ["pipe", "pipe", "pipe"],
  });
}

/** Sends and receives whole frames on the link. */
function socketOn(path: string, name: string, link: string): number {
  const fd = socketIn(path, AF_PACKET, SOCK_RAW, 0);
  const index = Number(inside(name, "cat", `/sys/class/net/${link}/ifindex`));
  // struct sockaddr_ll: family, protocol (ETH_P_ALL, in network order), index.
  const address = new Uint8Array(20);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, 3);
  view.setInt32(4, index, true);
  bind(fd, address);
  return fd;
}

/** The length of the packet, from its IP header on. */
export function lengthOf(packet: Packet, { filler = 0 }: SendOptions = {}): number {
  return (packet.family === 4 ? 20 : 40) + payloadOf(packet, {}).length + filler;
}

function frameOf(packet: Packet, options: SendOptions): Uint8Array {
  const head = payloadOf(packet, options);
  const payload = new Uint8Array(head.length + (options.filler ?? 0));
  payload.set(head);
  sum(packet, payload);
  const { family, source, destination, protocol } = packet;
  const bytes = family === 4 ? ipv4({ source, destination, protocol, payload }) : ipv6(packet, payload);
  const frame = new Uint8Array(HEADER + bytes.length);
  frame.set(macBytes(MAC.here), 0);
  frame.set(macBytes(MAC.there), 6);
  new DataView(frame.buffer).setUint16(12, ETHERTYPE[family]);
  frame.set(bytes, HEADER);
  return frame;
}

/** What the node itself is to take needs one; UDP over IPv4 does not (RFC 768). */
function sum({ family, source, destination, protocol }: Packet, payload: Uint8Array): void {
  const isUdp = protocol === PROTOCOL.UDP;
  if (protocol !== icmpOf(family) && (family === 4 || !isUdp)) return;
  // RFC 8200 section 8.1: the addresses, the length and the protocol are summed too.
  const pseudo = family === 4 ? [] : [...addressToBytes(source), ...addressToBytes(destination)];
  const before = family === 4 ? [] : [0, 0, payload.length >> 8, payload.length & 255, 0, 0, 0, protocol];
  const value = checksum(Uint8Array.of(...pseudo, ...before, ...payload));
  new DataView(payload.buffer).setUint16(isUdp ? 6 : 2, value);
}

const macBytes = (text: string): number[] => text.split(":").map((byte) => Number.parseInt(byte, 16));

function ipv6({ source, destination, protocol }: Packet, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(40 + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, 0x60);
  view.setUint16(4, payload.length);
  view.setUint8(6, protocol);
  view.setUint8(7, 64);
  bytes.set(addressToBytes(source), 8);
  bytes.set(addressToBytes(destination), 24);
  bytes.set(payload, 40);
  return bytes;
}

const SYN = 0x02;
/** A chunk INIT with its fixed part (RFC 9260 section 3.3.2): by it a connection begins. */
const SCTP_INIT_LENGTH = 20;

function payloadOf(packet: Packet, { flags = SYN, filler = 0 }: SendOptions): Uint8Array {
  const { protocol, sourcePort = 0, destinationPort = 0, icmp } = packet;
  const bytes = new Uint8Array(protocol === PROTOCOL.TCP ? 20 : protocol === PROTOCOL.SCTP ? 12 + SCTP_INIT_LENGTH : 8);
  const view = new DataView(bytes.buffer);
  if (icmp !== undefined) {
    view.setUint8(0, icmp.type);
    view.setUint8(1, icmp.code);
    return bytes;
  }
  view.setUint16(0, sourcePort);
  view.setUint16(2, destinationPort);
  if (protocol === PROTOCOL.UDP) view.setUint16(4, bytes.length + filler);
  if (protocol === PROTOCOL.TCP) {
    view.setUint8(12, 5 << 4);
    view.setUint8(13, flags);
  }
  if (protocol === PROTOCOL.SCTP) {
    view.setUint8(12, 1);
    view.setUint16(14, SCTP_INIT_LENGTH + filler);
    view.setUint32(16, 1); // initiate tag
    view.setUint32(20, 4096); // window
    view.setUint16(24, 1);
    view.setUint16(26, 1); // streams
  }
  return bytes;
}

function received(fd: number): Packet[] {
  const found: Packet[] = [];
  const buffer = new Uint8Array(65_550);
  for (;;) {
    const length = receive(fd, buffer, MSG_DONTWAIT);
    if (length === undefined) return found;
    const packet = packetOf(buffer.slice(0, length));
    if (packet !== undefined) found.push(packet);
  }
}

function packetOf(frame: Uint8Array): Packet | undefined {
  const view = new DataView(frame.buffer);
  const type = view.getUint16(12);
  if (type !== ETHERTYPE[4] && type !== ETHERTYPE[6]) return undefined;
  const family: Family = type === ETHERTYPE[4] ? 4 : 6;
  const [at, size, header] = family === 4 ? [HEADER + 12, 4, 20] : [HEADER + 8, 16, 40];
  const protocol = view.getUint8(HEADER + (family === 4 ? 9 : 6));
  const behind = HEADER + header;
  return {
    family,
    protocol,
    source: addressFromBytes(frame.subarray(at, at + size)),
    destination: addressFromBytes(frame.subarray(at + size, at + 2 * size)),
    ...(hasPorts(protocol) ? { sourcePort: view.getUint16(behind), destinationPort: view.getUint16(behind + 2) } : {}),
    ...(protocol === icmpOf(family) ? { icmp: { type: view.getUint8(behind), code: view.getUint8(behind + 1) } } : {}),
  };
}

/** `10.0.0.1:1000 > 10.0.0.2:80` */
export function packetText({ source, destination, sourcePort, destinationPort, icmp }: Packet): string {
  const end = (address: string, port: number | undefined): string =>
    port === undefined ? address : `${address} ${port}`;
  const what = icmp === undefined ? "" : ` icmp ${icmp.type}/${icmp.code}`;
  return `${end(formatAddress(source), sourcePort)} > ${end(formatAddress(destination), destinationPort)}${what}`;
}

export function packet(
  family: Family,
  from: string,
  to: string,
  protocol: number,
  more: Pick<Packet, "sourcePort" | "destinationPort" | "icmp"> = {},
): Packet {
  return { family, source: parseAddress(from), destination: parseAddress(to), protocol, ...more };
}
