import { addressFromBytes, formatAddress } from "../ip/address.ts";
import { checksum } from "../dataplane/tunnelPackets.testing.ts";

/**
 * Every header of a frame, field by field, in lines that are compared with expected output. What chance decides (numbers
 * of packets and connections, ports that hash a flow) is shown by the rule that it keeps; checksums are summed up here.
 */

/** How people call an address or a MAC address. */
export type Names = (text: string) => string;

/** UDP ports behind which there is another packet. */
const VXLAN_PORTS: ReadonlySet<number> = new Set([4789, 8472]);
const FLANNEL_UDP_PORT = 8285;

const PROTOCOL = { icmp: 1, ipip: 4, tcp: 6, udp: 17, icmpv6: 58 } as const;
const ETHERTYPE: Readonly<Record<number, "ipv4" | "ipv6">> = { 0x0800: "ipv4", 0x86dd: "ipv6" };

type Field = readonly [name: string, value: string | number];

/** A line for each header, the outermost first. */
export function describeFrame(frame: Uint8Array, names: Names): string[] {
  const lines: string[] = [];
  const say = (header: string, ...fields: Field[]): void => {
    lines.push(`${header.padEnd(10)}${fields.map(([name, value]) => `${name}=${value}`).join(" ")}`);
  };
  readEthernet(frame, { say, names });
  return lines;
}

interface Reader {
  readonly say: (header: string, ...fields: Field[]) => void;
  readonly names: Names;
}

/** Addresses of the innermost packet, which are pods' where there is a pod's packet; undefined of what is not IP. */
export function innermost(frame: Uint8Array): { source: string; destination: string } | undefined {
  let found: { source: string; destination: string } | undefined;
  readEthernet(frame, {
    names: (text) => text,
    say(header, ...fields) {
      if (header !== "ipv4" && header !== "ipv6") return;
      const of = (wanted: string): string => String(fields.find(([name]) => name === wanted)?.[1]);
      found = { source: of("source"), destination: of("destination") };
    },
  });
  return found;
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
const hex = (value: number, digits: number): string => `0x${value.toString(16).padStart(digits, "0")}`;
const macOf = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
const addressOf = (bytes: Uint8Array): string => formatAddress(addressFromBytes(bytes));
/** Of numbers that are anybody's guess: whether there is one. */
const some = (value: number): string => (value === 0 ? "0" : "some");
/** `net.ipv4.ip_local_port_range` as every namespace has it at first. */
const portOf = (port: number): string => (port >= 32_768 && port <= 60_999 ? "ephemeral" : String(port));

function readEthernet(bytes: Uint8Array, reader: Reader): void {
  const { say, names } = reader;
  const type = viewOf(bytes).getUint16(12);
  say(
    "ethernet",
    ["destination", names(macOf(bytes.subarray(0, 6)))],
    ["source", names(macOf(bytes.subarray(6, 12)))],
    ["type", hex(type, 4)],
  );
  const packet = bytes.subarray(14);
  if (ETHERTYPE[type] === "ipv4") readIpv4(packet, reader);
  if (ETHERTYPE[type] === "ipv6") readIpv6(packet, reader);
}

/** RFC 791 section 3.1 */
function readIpv4(bytes: Uint8Array, reader: Reader): void {
  const { say, names } = reader;
  const view = viewOf(bytes);
  const header = (bytes[0]! & 15) * 4;
  const [length, fragment, protocol] = [view.getUint16(2), view.getUint16(6), bytes[9]!];
  const flags = [(fragment & 0x4000) !== 0 && "DF", (fragment & 0x2000) !== 0 && "MF"].filter((flag) => flag !== false);
  const [source, destination] = [bytes.subarray(12, 16), bytes.subarray(16, 20)];
  say(
    "ipv4",
    ["version", bytes[0]! >> 4],
    ["headerLength", header],
    ["tos", hex(bytes[1]!, 2)],
    ["length", length],
    // Of what cannot be cut it means nothing (RFC 6864 section 4.1), and kernels differ.
    ["identification", (fragment & 0x4000) !== 0 ? "any" : some(view.getUint16(4))],
    ["flags", flags.join("+") || "none"],
    ["offset", fragment & 0x1fff],
    ["ttl", bytes[8]!],
    ["protocol", protocol],
    ["checksum", checksum(bytes.subarray(0, header)) === 0 ? "right" : "WRONG"],
    ["source", names(addressOf(source))],
    ["destination", names(addressOf(destination))],
  );
  readPayload(protocol, bytes.subarray(header, length), { source, destination }, reader);
}

/** RFC 8200 section 3 */
function readIpv6(bytes: Uint8Array, reader: Reader): void {
  const { say, names } = reader;
  const view = viewOf(bytes);
  const first = view.getUint32(0);
  const [length, next] = [view.getUint16(4), bytes[6]!];
  const [source, destination] = [bytes.subarray(8, 24), bytes.subarray(24, 40)];
  say(
    "ipv6",
    ["version", first >>> 28],
    ["trafficClass", hex((first >>> 20) & 0xff, 2)],
    ["flowLabel", some(first & 0xfffff)],
    ["payloadLength", length],
    ["nextHeader", next],
    ["hopLimit", bytes[7]!],
    ["source", names(addressOf(source))],
    ["destination", names(addressOf(destination))],
  );
  readPayload(next, bytes.subarray(40, 40 + length), { source, destination }, reader);
}

interface Ends {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
}

function readPayload(protocol: number, bytes: Uint8Array, ends: Ends, reader: Reader): void {
  switch (protocol) {
    case PROTOCOL.ipip:
      return readIpv4(bytes, reader);
    case PROTOCOL.udp:
      return readUdp(bytes, ends, reader);
    case PROTOCOL.tcp:
      return readTcp(bytes, ends, reader);
    case PROTOCOL.icmp:
    case PROTOCOL.icmpv6:
      return readEcho(protocol, bytes, ends, reader);
  }
}

/** Over the pseudo-header of RFC 9293 section 3.1 or RFC 8200 section 8.1: 0 where the checksum in the bytes is right. */
function sumWithEnds(protocol: number, bytes: Uint8Array, { source, destination }: Ends): number {
  const ends = source.length * 2;
  const summed = new Uint8Array(ends + 8 + bytes.length);
  summed.set(source);
  summed.set(destination, source.length);
  viewOf(summed).setUint32(ends, bytes.length);
  summed[ends + 7] = protocol;
  summed.set(bytes, ends + 8);
  return checksum(summed);
}

const rightOrWrong = (protocol: number, bytes: Uint8Array, ends: Ends): string =>
  sumWithEnds(protocol, bytes, ends) === 0 ? "right" : "WRONG";

/** RFC 768; behind the port of VXLAN, RFC 7348 section 5. */
function readUdp(bytes: Uint8Array, ends: Ends, reader: Reader): void {
  const view = viewOf(bytes);
  const to = view.getUint16(2);
  reader.say(
    "udp",
    ["sourcePort", portOf(view.getUint16(0))],
    ["destinationPort", portOf(to)],
    ["length", view.getUint16(4)],
    ["checksum", view.getUint16(6) === 0 ? "none" : rightOrWrong(PROTOCOL.udp, bytes, ends)],
  );
  const payload = bytes.subarray(8, view.getUint16(4));
  if (to === FLANNEL_UDP_PORT) return readIpv4(payload, reader);
  if (!VXLAN_PORTS.has(to)) return reader.say("data", ["length", payload.length]);
  const vxlan = viewOf(payload);
  reader.say(
    "vxlan",
    ["flags", hex(payload[0]!, 2)],
    ["reserved", vxlan.getUint32(0) & 0xffffff],
    ["vni", vxlan.getUint32(4) >>> 8],
    ["reserved2", payload[7]!],
  );
  readEthernet(payload.subarray(8), reader);
}

const TCP_FLAGS = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"] as const;

/** RFC 9293 section 3.1 */
function readTcp(bytes: Uint8Array, ends: Ends, { say }: Reader): void {
  const view = viewOf(bytes);
  const header = (bytes[12]! >> 4) * 4;
  say(
    "tcp",
    ["sourcePort", portOf(view.getUint16(0))],
    ["destinationPort", portOf(view.getUint16(2))],
    ["sequence", some(view.getUint32(4))],
    ["acknowledgement", some(view.getUint32(8))],
    ["headerLength", header],
    ["flags", TCP_FLAGS.filter((_, bit) => (bytes[13]! & (1 << bit)) !== 0).join("+")],
    ["window", some(view.getUint16(14))],
    ["checksum", rightOrWrong(PROTOCOL.tcp, bytes, ends)],
    ["urgent", view.getUint16(18)],
    ["options", tcpOptions(bytes.subarray(20, header)).join(",") || "none"],
    ["data", bytes.length - header],
  );
}

/** Of the maximum segment size also the value: it tells the MTU that the sender believes in. */
function tcpOptions(bytes: Uint8Array): string[] {
  const names: Readonly<Record<number, string>> = { 3: "windowScale", 4: "sackPermitted", 5: "sack", 8: "timestamps" };
  const found: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const kind = bytes[at]!;
    if (kind === 0) break;
    if (kind === 2) found.push(`maximumSegment:${viewOf(bytes).getUint16(at + 2)}`);
    else if (kind !== 1) found.push(names[kind] ?? `option${kind}`);
    at += kind === 1 ? 1 : Math.max(2, bytes[at + 1] ?? 2);
  }
  return found;
}

/** RFC 792, RFC 4443 section 4: the latter's checksum has a pseudo-header. */
function readEcho(protocol: number, bytes: Uint8Array, ends: Ends, { say }: Reader): void {
  const view = viewOf(bytes);
  const isV6 = protocol === PROTOCOL.icmpv6;
  const isRight = isV6 ? sumWithEnds(protocol, bytes, ends) === 0 : checksum(bytes) === 0;
  say(
    isV6 ? "icmpv6" : "icmp",
    ["type", bytes[0]!],
    ["code", bytes[1]!],
    ["checksum", isRight ? "right" : "WRONG"],
    ["identifier", some(view.getUint16(4))],
    ["sequence", view.getUint16(6)],
    ["data", bytes.length - 8],
  );
}
