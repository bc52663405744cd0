import { type ByteReader, MalformedBytes } from "../lib/bytes.ts";
import {
  decodeAttributes,
  encodeAttributes,
  present,
  raw,
  row,
  text,
  type ValueCodec,
  type ValuesOf,
} from "./attributes.ts";
import { type Connection, connection } from "./conntrack.ts";
import type { Message, Request } from "./framing.ts";
import { be32, decodeNetfilterHeader, nestedRow, netfilterRequest, netfilterTable, operationOf } from "./nfnetlink.ts";

/** Packets that rules log to a group (NFLOG): <linux/netfilter/nfnetlink_log.h>. */

const PACKET = 0;
const CONFIGURE = 1;

/** One packet that passed a rule with `log group`. */
export interface LoggedPacket {
  readonly group: number;
  readonly family: "ip" | "ip6" | "arp" | "bridge" | "other";
  /** NF_INET_…: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting. */
  readonly hook: number;
  /** The rule's. */
  readonly prefix: string;
  /** From its network header on, as much as was asked for. */
  readonly payload: Uint8Array;
  readonly mark: number;
  /** Indexes of the interfaces that it came in by and goes out by. */
  readonly input?: number;
  readonly output?: number;
  /** Milliseconds since 1970. Packets made on this host have no time of arrival. */
  readonly time?: number;
  /** Of the process that sent it, where it is on this host. */
  readonly user?: number;
  /** Counts the packets of the group, from 0: a gap is what was lost. */
  readonly sequence?: number;
  /** Where connections were asked for, and it is of one. */
  readonly connection?: Connection;
}

export interface LogGroupOptions {
  readonly group: number;
  /** Bytes of each packet; all of them where absent. */
  readonly copyRange?: number;
  /** Packets that the kernel collects before it sends them; 1 where absent. */
  readonly threshold?: number;
  /** Hundredths of a second that it collects them for at most; 100 where absent. */
  readonly timeout?: number;
  /** With each packet its connection, where the kernel can do that (NETFILTER_NETLINK_GLUE_CT). */
  readonly connections?: boolean;
}

const BIND = 1;
const COPY_PACKET = 2;
const WITH_SEQUENCE = 1;
const WITH_CONNTRACK = 4;
/** The whole packet. */
const ALL = 0xffff;

/** `struct nfulnl_msg_config_mode` */
const copyMode: ValueCodec<{ readonly range: number }> = {
  decode: (reader, field) => ({ range: reader.u32(field) }),
  encode(writer, { range }) {
    writer.u32(range);
    writer.u8(COPY_PACKET);
    writer.u8(0);
  },
};
const command: ValueCodec<number> = {
  decode: (reader, field) => reader.u8(field),
  encode: (writer, value) => writer.u8(value),
};
const flags: ValueCodec<number> = {
  decode: (reader, field) => reader.u16(field),
  encode: (writer, value) => writer.u16(value),
};

const CONFIGURATION = netfilterTable({
  command: row(1, command),
  mode: row(2, copyMode),
  timeout: row(4, be32),
  threshold: row(5, be32),
  flags: row(6, flags),
});

/** Sends the group's packets to the socket that asks. Fails with EPERM where another has them. */
export function bindLogGroup(group: number): Request {
  return configure(group, { command: BIND });
}

/** Of a group that is bound. Fails with EOPNOTSUPP where the kernel cannot add connections. */
export function configureLogGroup(options: LogGroupOptions): Request {
  const { group, copyRange = ALL, threshold = 1, timeout, connections } = options;
  const wanted = WITH_SEQUENCE | (connections === true ? WITH_CONNTRACK : 0);
  return configure(group, { mode: { range: copyRange }, timeout, threshold, flags: wanted });
}

function configure(group: number, values: ValuesOf<typeof CONFIGURATION>): Request {
  const encode: Request["encode"] = (writer) => encodeAttributes(writer, CONFIGURATION, values);
  return netfilterRequest("log", CONFIGURE, 0, "unspecified", encode, group);
}

/** `struct nfulnl_msg_packet_hdr` and `struct nfulnl_msg_packet_timestamp`. */
const packetHeader: ValueCodec<{ readonly hook: number }> = {
  decode(reader, field) {
    reader.skip(2, field);
    return { hook: reader.u8(field) };
  },
  encode: () => undefined,
};
const timestamp: ValueCodec<number> = {
  decode: (reader: ByteReader, field) =>
    Number(reader.u64(field)) * 1000 + Math.floor(Number(reader.u64(field)) / 1000),
  encode: () => undefined,
};

const LOGGED = netfilterTable({
  header: row(1, packetHeader),
  mark: row(2, be32),
  time: row(3, timestamp),
  input: row(4, be32),
  output: row(5, be32),
  payload: row(9, raw),
  prefix: row(10, text),
  user: row(11, be32),
  sequence: row(12, be32),
  connection: nestedRow(18, connection),
});

/** Undefined for messages that are none. */
export function decodeLoggedPacket(message: Message): LoggedPacket | undefined {
  if (operationOf(message, "log") !== PACKET) return undefined;
  const { family, resource } = decodeNetfilterHeader(message.body);
  const { header, payload = new Uint8Array(), prefix = "", mark = 0, ...rest } = decodeAttributes(message.body, LOGGED);
  if (header === undefined) throw new MalformedBytes("a logged packet has no header");
  const known = family === "ip" || family === "ip6" || family === "arp" || family === "bridge" ? family : "other";
  return { group: resource, family: known, hook: header.hook, prefix, payload, mark, ...present(rest) };
}
