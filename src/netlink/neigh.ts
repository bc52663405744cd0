import { type Address, type Family, formatAddress } from "../ip/address.ts";
import {
  address,
  attributeTable,
  be16,
  decodeAttributes,
  encodeAttributes,
  familyNumber,
  familyOf,
  linkAddress,
  present,
  row,
  u16,
  u32,
  type ValuesOf,
} from "./attributes.ts";
import { APPEND, CREATE, DUMP, EXCLUSIVE, type Message, REPLACE, type Request } from "./framing.ts";

/** Neighbours, and the forwarding entries of bridges and VXLANs: `struct ndmsg`, <linux/neighbour.h>. */

export const NEW_NEIGHBOUR = 28;
export const DELETE_NEIGHBOUR = 29;
const GET_NEIGHBOUR = 30;

/** Who has an IP address on a link. */
export interface Neighbour {
  /** Index of the link. */
  readonly device: number;
  readonly address: Address;
  /** Absent while it is not known, and on proxy entries. */
  readonly linkAddress?: string;
  readonly state: NeighbourState;
  /** We answer for this address on the link, in the place of its owner. Proxy entries are listed apart. */
  readonly proxy?: boolean;
}

/** NUD_…, a bit each. */
const STATES = {
  none: 0,
  incomplete: 0x01,
  reachable: 0x02,
  stale: 0x04,
  delay: 0x08,
  probe: 0x10,
  failed: 0x20,
  noarp: 0x40,
  permanent: 0x80,
} as const;
export type NeighbourState = keyof typeof STATES;

export type NeighbourSpec = Omit<Neighbour, "state"> & {
  /** Permanent where absent. */
  readonly state?: NeighbourState;
};

/** Where frames for a link-layer address go. */
export interface ForwardingEntry {
  /** Index of the VXLAN device, or of the bridge's port. */
  readonly device: number;
  readonly linkAddress: string;
  /** VXLAN: the tunnel's other end. */
  readonly destination?: Address;
  readonly port?: number;
  /** In the device's own table (VXLAN). */
  readonly self?: boolean;
  /** In the table of the bridge that the device is a port of: its index. */
  readonly master?: number;
  readonly vlan?: number;
  readonly state: NeighbourState;
}

export type ForwardingSpec = Pick<ForwardingEntry, "device" | "linkAddress" | "destination" | "port" | "vlan"> & {
  /** Whose table: the device's own (VXLAN), or its bridge's. */
  readonly table: "self" | "master";
};

const AF_BRIDGE = 7;
const SELF = 0x02;
const MASTER = 0x04;
const PROXY = 0x08;

const ROWS = {
  destination: row(1, address),
  linkAddress: row(2, linkAddress),
  vlan: row(5, u16),
  port: row(6, be16),
  master: row(9, u32),
};
const NEIGHBOUR = attributeTable(ROWS);
/** `bridge` sends the link address first, as it is what the entry is about. */
const FORWARDING = attributeTable({
  linkAddress: ROWS.linkAddress,
  destination: ROWS.destination,
  vlan: ROWS.vlan,
  port: ROWS.port,
  master: ROWS.master,
});

/** Proxy entries are in a list of their own. */
export function listNeighbours(family: Family, proxy: boolean): Request {
  return request(GET_NEIGHBOUR, DUMP, familyNumber(family), 0, 0, proxy ? PROXY : 0, {});
}

/** Fails with EEXIST where the address has an entry. */
export function addNeighbour(spec: NeighbourSpec): Request {
  return writeNeighbour(NEW_NEIGHBOUR, CREATE | EXCLUSIVE, spec);
}

export function replaceNeighbour(spec: NeighbourSpec): Request {
  return writeNeighbour(NEW_NEIGHBOUR, CREATE | REPLACE, spec);
}

/** Fails with ENOENT where there is none. */
export function deleteNeighbour(spec: Pick<NeighbourSpec, "device" | "address" | "proxy">): Request {
  return writeNeighbour(DELETE_NEIGHBOUR, 0, spec);
}

function writeNeighbour(type: number, flags: number, spec: NeighbourSpec): Request {
  const { device, address: destination, linkAddress: mac, state = "permanent", proxy = false } = spec;
  const values = { destination, linkAddress: mac };
  return request(type, flags, familyNumber(destination.family), device, STATES[state], proxy ? PROXY : 0, values);
}

export function listForwarding(): Request {
  return request(GET_NEIGHBOUR, DUMP, AF_BRIDGE, 0, 0, 0, {});
}

/** Fails with EEXIST where the link address has an entry. */
export function addForwarding(spec: ForwardingSpec): Request {
  return writeForwarding(NEW_NEIGHBOUR, CREATE | EXCLUSIVE, spec);
}

/** One more destination for the link address: 00:00:00:00:00:00 stands for all that are unknown. */
export function appendForwarding(spec: ForwardingSpec): Request {
  return writeForwarding(NEW_NEIGHBOUR, CREATE | APPEND, spec);
}

export function replaceForwarding(spec: ForwardingSpec): Request {
  return writeForwarding(NEW_NEIGHBOUR, CREATE | REPLACE, spec);
}

/** Fails with ENOENT where the link address has no entry; a VXLAN is content also where it has another destination. */
export function deleteForwarding(spec: ForwardingSpec): Request {
  return writeForwarding(DELETE_NEIGHBOUR, 0, spec);
}

function writeForwarding(type: number, flags: number, spec: ForwardingSpec): Request {
  const { device, linkAddress: mac, destination, port, vlan, table } = spec;
  // What `bridge fdb` calls permanent, and in a bridge, where that would mean its own address, static.
  const state = STATES.noarp | (table === "self" ? STATES.permanent : STATES.reachable);
  const values = { linkAddress: mac, destination, vlan, port };
  return request(type, flags, AF_BRIDGE, device, state, table === "self" ? SELF : MASTER, values);
}

/**
 * `struct ndmsg`:
 *
 *      0        1                 4               8        10       11       12
 *     +--------+-----------------+---------------+--------+--------+--------+
 *     | family | padding         | link index    | state  | flags  | type   |
 *     +--------+-----------------+---------------+--------+--------+--------+
 */
function request(
  type: number,
  messageFlags: number,
  family: number,
  device: number,
  state: number,
  flags: number,
  values: ValuesOf<typeof NEIGHBOUR>,
): Request {
  return {
    type,
    flags: messageFlags,
    encode(writer) {
      writer.u8(family);
      writer.reserve(3);
      writer.i32le(device);
      writer.u16le(state);
      writer.u8(flags);
      writer.u8(0);
      encodeAttributes(writer, family === AF_BRIDGE ? FORWARDING : NEIGHBOUR, values);
    },
  };
}

/** A RTM_NEWNEIGH or RTM_DELNEIGH message, of either kind; undefined for families that are not IP or bridge. */
export function decodeNeighbour({ body }: Message): Neighbour | ForwardingEntry | undefined {
  const family = body.u8("neighbour family");
  body.skip(3, "neighbour padding");
  const device = body.i32le("neighbour link index");
  const state = stateOf(body.u16le("neighbour state"));
  const flags = body.u8("neighbour flags");
  body.skip(1, "neighbour type");
  if (family !== AF_BRIDGE && familyOf(family) === undefined) return undefined;
  const { destination, linkAddress: mac, port, vlan, master } = decodeAttributes(body, NEIGHBOUR);
  if (family === AF_BRIDGE) {
    if (mac === undefined) return undefined;
    const self = (flags & SELF) !== 0 ? true : undefined;
    return { device, linkAddress: mac, state, ...present({ destination, port, self, master, vlan }) };
  }
  if (destination === undefined) return undefined;
  const proxy = (flags & PROXY) !== 0 ? true : undefined;
  return { device, address: destination, state, ...present({ linkAddress: mac, proxy }) };
}

function stateOf(bits: number): NeighbourState {
  // Forwarding entries have "noarp" beside what counts.
  const names = Object.keys(STATES) as NeighbourState[];
  return names.findLast((name) => (bits & STATES[name]) !== 0) ?? "none";
}

/** `10.244.9.1 lladdr ee:ee:ee:ee:ee:ee dev eth0`. */
export function describeNeighbour(
  { device, address: of, linkAddress: mac, proxy }: Omit<NeighbourSpec, "state">,
  nameOf: (device: number) => string = String,
): string {
  const lladdr = mac === undefined ? "" : ` lladdr ${mac}`;
  return `${proxy === true ? "proxy " : ""}${formatAddress(of)}${lladdr} dev ${nameOf(device)}`;
}

/** `66:01:02:03:04:05 dst 192.0.2.7 dev vxlan.calico`. */
export function describeForwarding(
  { linkAddress: mac, destination, device }: ForwardingSpec,
  nameOf: (device: number) => string = String,
): string {
  const dst = destination === undefined ? "" : ` dst ${formatAddress(destination)}`;
  return `${mac}${dst} dev ${nameOf(device)}`;
}
