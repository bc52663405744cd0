import { ByteWriter } from "../lib/bytes.ts";
import {
  attributeTable,
  decodeAttributes,
  encodeAttributes,
  i32,
  linkAddress,
  nested,
  raw,
  row,
  text,
  u32,
  u8,
  type ValueCodec,
  type ValuesOf,
  word,
} from "./attributes.ts";
import {
  type BridgeOptions,
  decodeKind,
  encodeBridge,
  encodeIpip,
  encodeVxlan,
  type IpipOptions,
  type VxlanOptions,
} from "./linkKind.ts";
import { CREATE, DUMP, ECHO, EXCLUSIVE, type Message, type Request } from "./framing.ts";

/** Links, which is the kernel's word for network devices: <linux/rtnetlink.h>, <linux/if_link.h>. */

export const NEW_LINK = 16;
export const DELETE_LINK = 17;
const GET_LINK = 18;

export interface Link {
  readonly index: number;
  readonly name: string;
  /** Whether it is administratively up (IFF_UP). */
  readonly up: boolean;
  /** Whether it has a carrier (IFF_LOWER_UP). */
  readonly carrier: boolean;
  readonly loopback: boolean;
  readonly operState: OperState;
  readonly mtu: number;
  /** `ee:ee:ee:ee:ee:ee`; empty on devices that have none. */
  readonly address: string;
  readonly txQueueLength: number;
  /** Index of the bridge that it is a port of. */
  readonly master?: number;
  /** Index of the device below, or of a veth's other end, which may be in another namespace. */
  readonly parent?: number;
  /** Our namespace's number for the namespace of `parent`, where that is another. */
  readonly parentNamespace?: number;
  /** `veth`, `bridge`, `vxlan`…: absent on loopback and on most hardware. */
  readonly kind?: string;
  readonly alias?: string;
  readonly vxlan?: VxlanOptions;
  readonly bridge?: BridgeOptions;
  readonly ipip?: IpipOptions;
}

/** RFC 2863 section 3.1.14, in the kernel's order (IF_OPER_…). */
const OPER_STATES = ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"] as const;
export type OperState = (typeof OPER_STATES)[number];

/** What any new device may be born with. */
export interface NewDevice {
  readonly name: string;
  readonly address?: string;
  readonly mtu?: number;
  readonly txQueueLength?: number;
  /** Queues in each direction. Where absent a veth has one per processor, which it takes the kernel long to make. */
  readonly queues?: number;
  readonly up?: boolean;
  /** Path of the namespace that it is born in; the socket's own where absent. */
  readonly namespace?: string;
}

export type LinkSpec = NewDevice & { readonly master?: number } &
  // A veth's peer cannot be up before its other end exists: the kernel says ENOTCONN.
  (
    | { readonly kind: "veth"; readonly peer: Omit<NewDevice, "up"> }
    | { readonly kind: "bridge"; readonly bridge?: BridgeOptions }
    | { readonly kind: "vxlan"; readonly vxlan: VxlanOptions }
    /** One end for every other: whom a packet goes to, its route says. */
    | { readonly kind: "ipip"; readonly ipip?: IpipOptions }
  );

export interface LinkChanges {
  readonly up?: boolean;
  readonly name?: string;
  readonly address?: string;
  readonly mtu?: number;
  readonly txQueueLength?: number;
  /** Index of a bridge; 0 takes it off. */
  readonly master?: number;
  readonly alias?: string;
  /** Path of a namespace to move to. */
  readonly namespace?: string;
}

/** The descriptor of the namespace at a path, which is how the kernel wants it named. */
export type NamespaceDescriptor = (path: string) => number;

const UP = 0x1;
const LOOPBACK = 0x8;
const LOWER_UP = 0x10000;

const LINK = attributeTable({
  address: row(1, linkAddress),
  mtu: row(4, u32),
  txQueueLength: row(13, u32),
  txQueues: row(31, u32),
  rxQueues: row(32, u32),
  master: row(10, u32),
  alias: row(20, text),
  group: row(27, u32),
  /** Descriptor of the namespace that the link is to be in. */
  namespace: row(28, u32),
  name: row(3, text),
  parent: row(5, u32),
  parentNamespace: row(37, i32),
  operState: row(16, u8),
  /** The data's form depends on the kind. */
  info: row(18, nested(attributeTable({ kind: row(1, word), data: row(2, raw) }))),
  extendedMask: row(29, u32),
});

/** A veth's peer is a message within the message: a header of its own, then its attributes. */
const VETH = attributeTable({ peer: row(1, peerCodec()) });

function peerCodec(): ValueCodec<ValuesOf<typeof LINK>> {
  return {
    decode(reader, field) {
      reader.skip(16, field);
      return decodeAttributes(reader, LINK);
    },
    encode(writer, values) {
      encodeHeader(writer, 0, undefined);
      encodeAttributes(writer, LINK, values);
    },
  };
}

/**
 * `struct ifinfomsg`:
 *
 *      0        1        2               4               8               12              16
 *     +--------+--------+---------------+---------------+---------------+---------------+
 *     | family | pad    | hardware type | index         | flags         | which flags   |
 *     +--------+--------+---------------+---------------+---------------+---------------+
 */
function encodeHeader(writer: ByteWriter, index: number, up: boolean | undefined): void {
  writer.u32le(0);
  writer.i32le(index);
  writer.u32le(up === true ? UP : 0);
  writer.u32le(up === undefined ? 0 : UP);
}

function request(type: number, flags: number, index: number, values: ValuesOf<typeof LINK>, up?: boolean): Request {
  return {
    type,
    flags,
    encode(writer) {
      encodeHeader(writer, index, up);
      encodeAttributes(writer, LINK, values);
    },
  };
}

/** Leaves statistics out of the answer (RTEXT_FILTER_SKIP_STATS), which are most of its bytes. */
const SKIP_STATISTICS = 1 << 3;

export function listLinks(): Request {
  return request(GET_LINK, DUMP, 0, { extendedMask: SKIP_STATISTICS });
}

export function getLink(link: number | string): Request {
  const by = typeof link === "number" ? {} : { name: link };
  return request(GET_LINK, 0, typeof link === "number" ? link : 0, { ...by, extendedMask: SKIP_STATISTICS });
}

/**
 * One message for all of it: a veth's peer is born in its own namespace, with its name and address, so nobody sees it
 * half-made. The kernel answers with the new link (ECHO).
 */
export function addLink(spec: LinkSpec, descriptorOf: NamespaceDescriptor): Request {
  const { master, kind } = spec;
  const data = encodeKind(spec, descriptorOf);
  const info = data.length === 0 ? { kind } : { kind, data };
  const values = { ...birth(spec, descriptorOf), master, info };
  return request(NEW_LINK, CREATE | EXCLUSIVE | ECHO, 0, values, spec.up);
}

export function setLink(index: number, changes: LinkChanges, descriptorOf: NamespaceDescriptor): Request {
  const { up, namespace, ...values } = changes;
  const moved = namespace === undefined ? {} : { namespace: descriptorOf(namespace) };
  return request(NEW_LINK, 0, index, { ...values, ...moved }, up);
}

/** Deleting one end of a veth deletes both. */
export function deleteLink(index: number): Request {
  return request(DELETE_LINK, 0, index, {});
}

/** Puts the link into a group of links, of which a namespace has 2^32. */
export function setLinkGroup(index: number, group: number): Request {
  return request(NEW_LINK, 0, index, { group });
}

/** Deletes every link of the group: as much work for the kernel as deleting one. */
export function deleteLinkGroup(group: number): Request {
  return request(DELETE_LINK, 0, 0, { group });
}

function birth(device: NewDevice, descriptorOf: NamespaceDescriptor): ValuesOf<typeof LINK> {
  const { name, address: mac, mtu, txQueueLength, queues, namespace } = device;
  return {
    name,
    address: mac,
    mtu,
    txQueueLength,
    txQueues: queues,
    rxQueues: queues,
    namespace: namespace === undefined ? undefined : descriptorOf(namespace),
  };
}

function encodeKind(spec: LinkSpec, descriptorOf: NamespaceDescriptor): Uint8Array {
  switch (spec.kind) {
    case "veth": {
      const writer = new ByteWriter();
      encodeAttributes(writer, VETH, { peer: birth(spec.peer, descriptorOf) });
      return writer.finish();
    }
    case "bridge":
      return encodeBridge(spec.bridge ?? {});
    case "vxlan":
      return encodeVxlan(spec.vxlan);
    case "ipip":
      return encodeIpip(spec.ipip ?? {});
  }
}

/** A RTM_NEWLINK or RTM_DELLINK message. */
export function decodeLink({ body }: Message): Link {
  body.skip(4, "link family and type");
  const index = body.i32le("link index");
  const flags = body.u32le("link flags");
  body.skip(4, "link change mask");
  const {
    name = "",
    mtu = 0,
    address: mac = "",
    operState = 0,
    txQueueLength = 0,
    ...values
  } = decodeAttributes(body, LINK);
  const { master, parent, parentNamespace, alias, info } = values;
  return {
    index,
    name,
    up: (flags & UP) !== 0,
    carrier: (flags & LOWER_UP) !== 0,
    loopback: (flags & LOOPBACK) !== 0,
    operState: OPER_STATES[operState] ?? "unknown",
    mtu,
    address: mac,
    txQueueLength,
    ...(master !== undefined && { master }),
    // 0 means that the parent is gone, or that there is none.
    ...(parent !== undefined && parent !== 0 && { parent }),
    // -1 means that the other namespace has no number in ours.
    ...(parentNamespace !== undefined && parentNamespace >= 0 && { parentNamespace }),
    ...(alias !== undefined && { alias }),
    ...(info?.kind !== undefined && { kind: info.kind }),
    ...(info?.kind !== undefined && info.data !== undefined && decodeKind(info.kind, info.data)),
  };
}

/** "veth cali0123 with peer eth0": how people know it. */
export function describeLink(spec: LinkSpec): string {
  return spec.kind === "veth" ? `veth ${spec.name} with peer ${spec.peer.name}` : `${spec.kind} ${spec.name}`;
}

/** `up, mtu 1450`. */
export function describeChanges({ up, ...rest }: LinkChanges): string {
  const words = Object.entries(rest).map(([name, value]) => `${name} ${String(value)}`);
  if (up !== undefined) words.unshift(up ? "up" : "down");
  return words.join(", ");
}
