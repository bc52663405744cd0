import type { Address, Family } from "../ip/address.ts";
import { formatAddress } from "../ip/address.ts";
import { MalformedBytes } from "../lib/bytes.ts";
import {
  address,
  type Attributes,
  be16,
  decodeAttributes,
  encodeAttributes,
  present,
  row,
  u32,
  u8,
  type ValueCodec,
  type ValuesOf,
} from "./attributes.ts";
import { CREATE, DUMP, EXCLUSIVE, type Message, type Request } from "./framing.ts";
import {
  be32,
  be64,
  decodeNetfilterHeader,
  inside,
  nestedRow,
  netfilterRequest,
  netfilterTable,
  operationOf,
} from "./nfnetlink.ts";

/** Connections that the kernel follows: <linux/netfilter/nfnetlink_conntrack.h>. */

const NEW = 0;
const GET = 1;
const DELETE = 2;

/** One direction of a connection, as its packets have it. */
export interface Tuple {
  readonly source: Address;
  readonly destination: Address;
  /** 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6. */
  readonly protocol: number;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly icmp?: { readonly id: number; readonly type: number; readonly code: number };
}

export interface Counts {
  readonly packets: number;
  readonly bytes: number;
}

export interface Connection {
  /** As the first packet had it. */
  readonly original: Tuple;
  /** As answers come: where addresses are translated it is not the original turned round. */
  readonly reply: Tuple;
  readonly status: readonly ConnectionStatus[];
  readonly mark: number;
  /** Tells it from one with the same tuples that was there before. */
  readonly id: number;
  /** Seconds until it is forgotten without another packet. Not in the news of its end. */
  readonly timeout?: number;
  readonly zone?: number;
  readonly tcpState?: TcpState;
  /** Where nf_conntrack_acct is on. */
  readonly sent?: Counts;
  readonly received?: Counts;
  /** Milliseconds since 1970, where nf_conntrack_timestamp is on. */
  readonly started?: number;
  readonly stopped?: number;
}

/** IPS_… of <linux/netfilter/nf_conntrack_common.h>, by their bits. */
const STATUSES = [
  ...(["expected", "seenReply", "assured", "confirmed", "sourceNat", "destinationNat", "sequenceAdjust"] as const),
  ...(["sourceNatDone", "destinationNatDone", "dying", "fixedTimeout", "template", "untracked", "helper"] as const),
  ...(["offload", "hardwareOffload"] as const),
] as const;
export type ConnectionStatus = (typeof STATUSES)[number];

/** enum tcp_conntrack of <linux/netfilter/nf_conntrack_tcp.h> */
const TCP_STATES = [
  ...(["none", "synSent", "synReceived", "established", "finWait", "closeWait", "lastAck", "timeWait"] as const),
  ...(["close", "synSent2"] as const),
] as const;
export type TcpState = (typeof TCP_STATES)[number];

const ADDRESSES = netfilterTable({
  source4: row(1, address),
  destination4: row(2, address),
  source6: row(3, address),
  destination6: row(4, address),
});
const PROTOCOL_ROWS = {
  number: row(1, u8),
  sourcePort: row(2, be16),
  destinationPort: row(3, be16),
  id: row(4, be16),
  type: row(5, u8),
  code: row(6, u8),
  id6: row(7, be16),
  type6: row(8, u8),
  code6: row(9, u8),
};
const TUPLE = netfilterTable({
  addresses: nestedRow(1, inside(ADDRESSES)),
  protocol: nestedRow(2, inside(netfilterTable(PROTOCOL_ROWS))),
});

const ICMPV6 = 58;

const tuple: ValueCodec<Tuple> = {
  decode(reader, field) {
    const { addresses = {}, protocol = {} } = decodeAttributes(reader, TUPLE);
    const source = addresses.source4 ?? addresses.source6;
    const destination = addresses.destination4 ?? addresses.destination6;
    if (source === undefined || destination === undefined || protocol.number === undefined) {
      throw new MalformedBytes(`${field}: a connection without addresses or protocol`);
    }
    const { sourcePort, destinationPort } = protocol;
    return {
      source,
      destination,
      protocol: protocol.number,
      ...present({ sourcePort, destinationPort, icmp: icmpOf(protocol) }),
    };
  },
  encode(writer, { source, destination, protocol, sourcePort, destinationPort, icmp }) {
    const addresses =
      source.family === 4
        ? { source4: source, destination4: destination }
        : { source6: source, destination6: destination };
    const { id, type, code } = icmp ?? {};
    const fields = protocol === ICMPV6 ? { id6: id, type6: type, code6: code } : { id, type, code };
    encodeAttributes(writer, TUPLE, {
      addresses,
      protocol: { number: protocol, sourcePort, destinationPort, ...fields },
    });
  },
};

function icmpOf(fields: Attributes<typeof PROTOCOL_ROWS>): Tuple["icmp"] {
  const type = fields.type ?? fields.type6;
  const code = fields.code ?? fields.code6;
  return type === undefined || code === undefined ? undefined : { id: fields.id ?? fields.id6 ?? 0, type, code };
}

const COUNTERS = inside(netfilterTable({ packets: row(1, be64), bytes: row(2, be64) }));

/** `struct nf_ct_tcp_flags`: flags, and which of them are meant. */
const TCP = netfilterTable({ state: row(1, u8), sentFlags: row(4, be16), receivedFlags: row(5, be16) });
/** IP_CT_TCP_FLAG_SACK_PERM and _BE_LIBERAL: any window is good, since nobody knows what it was. */
const LIBERAL = 0x0a0a;

const CONNECTION = netfilterTable({
  original: nestedRow(1, tuple),
  reply: nestedRow(2, tuple),
  status: row(3, be32),
  timeout: row(7, be32),
  mark: row(8, be32),
  protocol: nestedRow(4, inside(netfilterTable({ tcp: nestedRow(1, inside(TCP)) }))),
  sent: nestedRow(9, COUNTERS),
  received: nestedRow(10, COUNTERS),
  id: row(12, be32),
  zone: row(18, be16),
  times: nestedRow(20, inside(netfilterTable({ start: row(1, be64), stop: row(2, be64) }))),
  markMask: row(21, be32),
});

const familyName = (family: Family): "ip" | "ip6" => (family === 4 ? "ip" : "ip6");

export interface ConnectionFilter {
  readonly family: Family;
  /** Those of which the masked bits of the mark are so. */
  readonly mark?: { readonly value: number; readonly mask: number };
  /** Those whose first packet came from this address. */
  readonly from?: Address;
  /** Those whose first packet arrived at this address in the end, whatever it was sent to. */
  readonly to?: Address;
}

/** The sender of each direction, and CTA_FILTER_F_CTA_IP_SRC: that it is what counts (Linux 5.8). */
const SENDERS = netfilterTable({ addresses: nestedRow(1, inside(ADDRESSES)) });
const FILTER = netfilterTable({
  original: nestedRow(1, inside(SENDERS)),
  reply: nestedRow(2, inside(SENDERS)),
  mark: row(8, be32),
  markMask: row(21, be32),
  filter: nestedRow(25, inside(netfilterTable({ original: row(1, u32), reply: row(2, u32) }))),
});
const BY_SOURCE = 1;

export function listConnections({ family, mark, from, to }: ConnectionFilter): Request {
  const sender = (address: Address | undefined) =>
    address && { addresses: family === 4 ? { source4: address } : { source6: address } };
  return netfilterRequest("conntrack", GET, DUMP, familyName(family), (writer) =>
    encodeAttributes(writer, FILTER, {
      original: sender(from),
      reply: sender(to),
      mark: mark?.value,
      markMask: mark?.mask,
      filter:
        from === undefined && to === undefined ? undefined : { original: from && BY_SOURCE, reply: to && BY_SOURCE },
    }),
  );
}

/** One that the kernel has not seen itself, as after a move from another node. Fails with EEXIST where there is one. */
export function addConnection(connection: Omit<Connection, "id">): Request {
  const { original, reply, status, timeout, mark, zone, tcpState } = connection;
  const tcp = tcpState && { state: TCP_STATES.indexOf(tcpState), sentFlags: LIBERAL, receivedFlags: LIBERAL };
  return netfilterRequest("conntrack", NEW, CREATE | EXCLUSIVE, familyName(original.source.family), (writer) =>
    encodeAttributes(writer, CONNECTION, {
      original,
      reply,
      status: status.reduce((bits, name) => bits | (1 << STATUSES.indexOf(name)), 0),
      timeout,
      mark,
      protocol: tcp && { tcp },
      zone,
    }),
  );
}

/** Forgets the connection: its next packet is a new one, which rules decide about. Fails with ENOENT. */
export function deleteConnection({ original, id, zone }: Pick<Connection, "original" | "id" | "zone">): Request {
  return netfilterRequest("conntrack", DELETE, 0, familyName(original.source.family), (writer) =>
    encodeAttributes(writer, CONNECTION, { original, id, zone }),
  );
}

/** Undefined for a connection of a family that is not IP. */
export function decodeConnection({ body }: Message): Connection | undefined {
  const { family } = decodeNetfilterHeader(body);
  if (family !== "ip" && family !== "ip6") return undefined;
  return connectionOf(decodeAttributes(body, CONNECTION));
}

/** Of a packet's log too, which has it as an attribute. */
export const connection: ValueCodec<Connection> = {
  decode: (reader) => connectionOf(decodeAttributes(reader, CONNECTION)),
  encode: () => undefined,
};

function connectionOf(values: ValuesOf<typeof CONNECTION>): Connection {
  const { original, reply, status = 0, mark = 0, id = 0, timeout, zone, protocol, times } = values;
  if (original === undefined || reply === undefined) throw new MalformedBytes("a connection without its tuples");
  return {
    original,
    reply,
    status: STATUSES.filter((_, bit) => (status & (1 << bit)) !== 0),
    mark,
    id,
    ...present({
      timeout,
      zone,
      tcpState: TCP_STATES[protocol?.tcp?.state ?? -1],
      sent: countsOf(values.sent),
      received: countsOf(values.received),
      started: milliseconds(times?.start),
      stopped: milliseconds(times?.stop),
    }),
  };
}

function countsOf(counts: Partial<Record<keyof Counts, number | undefined>> | undefined): Counts | undefined {
  return counts && { packets: counts.packets ?? 0, bytes: counts.bytes ?? 0 };
}

const milliseconds = (nanoseconds: number | undefined): number | undefined =>
  nanoseconds === undefined ? undefined : Math.floor(nanoseconds / 1e6);

export interface ConnectionEvent {
  readonly change: "new" | "updated" | "ended";
  readonly connection: Connection;
}

export function decodeConnectionEvent(message: Message): ConnectionEvent | undefined {
  const operation = operationOf(message, "conntrack");
  if (operation !== NEW && operation !== DELETE) return undefined;
  const created = (message.flags & CREATE) !== 0;
  const decoded = decodeConnection(message);
  const change = operation === DELETE ? "ended" : created ? "new" : "updated";
  return decoded && { change, connection: decoded };
}

/** `10.0.0.1:33000 to 10.0.0.2:80, protocol 6`. */
export function describeTuple({ source, destination, protocol, sourcePort, destinationPort }: Tuple): string {
  const end = (at: Address, port: number | undefined): string => {
    if (port === undefined) return formatAddress(at);
    return at.family === 6 ? `[${formatAddress(at)}]:${port}` : `${formatAddress(at)}:${port}`;
  };
  return `${end(source, sourcePort)} to ${end(destination, destinationPort)}, protocol ${protocol}`;
}
