import { addressBits, type Address, type Family, formatAddress } from "../ip/address.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import { type ByteWriter, MalformedBytes } from "../lib/bytes.ts";
import {
  address,
  attributeTable,
  decodeAttributes,
  encodeAttributes,
  familyNumber,
  familyOf,
  nested,
  present,
  row,
  u32,
  type ValueCodec,
  type ValuesOf,
} from "./attributes.ts";
import { CREATE, DUMP, EXCLUSIVE, type Message, REPLACE, type Request } from "./framing.ts";

/** Routes: `struct rtmsg` and its attributes, <linux/rtnetlink.h>. */

export const NEW_ROUTE = 24;
export const DELETE_ROUTE = 25;
const GET_ROUTE = 26;

/** Ids of tables, protocols and scopes that iproute2 has names for (/etc/iproute2/rt_*). */
export const TABLE_MAIN = 254;
export const PROTOCOL_KERNEL = 2;
export const PROTOCOL_BOOT = 3;
export const SCOPE_GLOBAL = 0;
export const SCOPE_LINK = 253;
export const SCOPE_HOST = 254;
const SCOPE_NOWHERE = 255;

/** RTN_…, in the kernel's order. */
const ROUTE_TYPES = [
  "unspec",
  "unicast",
  "local",
  "broadcast",
  "anycast",
  "multicast",
  "blackhole",
  "unreachable",
  "prohibit",
  "throw",
] as const;
export type RouteType = (typeof ROUTE_TYPES)[number];

export interface NextHop {
  /** Of the route's own family, or an IPv6 gateway of an IPv4 route (RFC 5549). */
  readonly gateway?: Address;
  /** Index of the link. */
  readonly device?: number;
  /** The gateway is taken to be on the link, whatever the addresses say. */
  readonly onlink?: boolean;
  /** Share of the flows, 1 to 256. Only where there are several next hops. */
  readonly weight?: number;
}

export interface Route {
  readonly destination: Prefix;
  readonly type: RouteType;
  readonly table: number;
  readonly protocol: number;
  /** IPv4 only: always 0 in IPv6. */
  readonly scope: number;
  /** The lower wins. The kernel makes an IPv6 route's 0 into 1024. */
  readonly metric: number;
  /** Empty where packets go nowhere. Several share the flows. */
  readonly nextHops: readonly NextHop[];
  /** The address that this machine's own packets leave with. */
  readonly source?: Address;
  readonly mtu?: number;
}

/**
 * A route to write. As with `ip`, an absent type is unicast, table main, protocol boot, metric 0, and the scope of an
 * IPv4 route is link where it has no gateway.
 */
export type RouteSpec = Partial<Omit<Route, "destination">> & Pick<Route, "destination">;

export interface RouteFilter {
  readonly family?: Family;
  readonly table?: number;
  readonly protocol?: number;
  readonly type?: RouteType;
  /** Index of a link. */
  readonly device?: number;
}

const ONLINK = 4; // RTNH_F_ONLINK

/** A gateway of another family than the route's: `struct rtvia`, the family and the address. */
const via: ValueCodec<Address> = {
  decode(reader, field) {
    reader.skip(2, field);
    return address.decode(reader, field);
  },
  encode(writer, value) {
    writer.u16le(familyNumber(value.family));
    address.encode(writer, value);
  },
};

const METRICS = attributeTable({ mtu: row(2, u32) });

const NEXT_HOP = attributeTable({ gateway: row(5, address), via: row(18, via) });

interface NextHopOnWire {
  readonly flags: number;
  /** Less by one than the share. */
  readonly hops: number;
  readonly device: number;
  readonly values: ValuesOf<typeof NEXT_HOP>;
}

/**
 * RTA_MULTIPATH: `struct rtnexthop` one after another, each with attributes of its own.
 *
 *      0               2        3        4               8
 *     +---------------+--------+--------+---------------+ - - - - - -
 *     | length of all | flags  | hops   | link index    | attributes
 *     +---------------+--------+--------+---------------+ - - - - - -
 */
const multipath: ValueCodec<readonly NextHopOnWire[]> = {
  decode(reader, field) {
    const nextHops: NextHopOnWire[] = [];
    while (reader.remaining >= 8) {
      const length = reader.u16le(field);
      const flags = reader.u8(field);
      const hops = reader.u8(field);
      const device = reader.i32le(field);
      if (length < 8) throw new MalformedBytes(`${field}: a next hop of ${length} bytes is shorter than its header`);
      const values = decodeAttributes(reader.sub(length - 8, field), NEXT_HOP);
      reader.skip(Math.min(-length & 3, reader.remaining), field);
      nextHops.push({ flags, hops, device, values });
    }
    return nextHops;
  },
  encode(writer, nextHops) {
    for (const { flags, hops, device, values } of nextHops) {
      const start = writer.reserve(2);
      writer.u8(flags);
      writer.u8(hops);
      writer.i32le(device);
      encodeAttributes(writer, NEXT_HOP, values);
      writer.patchU16le(start, writer.length - start);
    }
  },
};

const ROUTE = attributeTable({
  destination: row(1, address),
  gateway: row(5, address),
  via: row(18, via),
  source: row(7, address),
  metric: row(6, u32),
  /** Where the number does not fit into the header's byte. */
  table: row(15, u32),
  device: row(4, u32),
  metrics: row(8, nested(METRICS)),
  multipath: row(9, multipath),
});

export function listRoutes(filter: RouteFilter & { readonly family: Family }): Request {
  const { family, table = 0, protocol = 0, type, device } = filter;
  const header = { family, destinationLength: 0, table, protocol, scope: 0, type: type ?? "unspec", flags: 0 };
  return request(GET_ROUTE, DUMP, header, { device });
}

/** Fails with EEXIST where there is a route to the same destination with the same metric. */
export function addRoute(route: RouteSpec): Request {
  return writeRoute(CREATE | EXCLUSIVE, route);
}

/** Takes the place of a route to the same destination with the same metric (IPv4: and table), or adds it. */
export function replaceRoute(route: RouteSpec): Request {
  return writeRoute(CREATE | REPLACE, route);
}

/** Fields that are absent match any route. Fails with ESRCH where none matches. */
export function deleteRoute(route: RouteSpec): Request {
  const { type = "unspec", protocol = 0, scope = SCOPE_NOWHERE } = route;
  return routeRequest(DELETE_ROUTE, 0, route, type, protocol, route.destination.address.family === 6 ? 0 : scope);
}

function writeRoute(flags: number, route: RouteSpec): Request {
  const { destination, type = "unicast", protocol = PROTOCOL_BOOT, scope, nextHops = [] } = route;
  const direct = type === "unicast" && nextHops.length < 2 && nextHops[0]?.gateway === undefined;
  const usual = type === "local" ? SCOPE_HOST : direct ? SCOPE_LINK : SCOPE_GLOBAL;
  const itsScope = destination.address.family === 6 ? SCOPE_GLOBAL : (scope ?? usual);
  return routeRequest(NEW_ROUTE, flags, route, type, protocol, itsScope);
}

function routeRequest(
  messageType: number,
  messageFlags: number,
  { destination, nextHops = [], table = TABLE_MAIN, source, metric, mtu }: RouteSpec,
  type: RouteType,
  protocol: number,
  scope: number,
): Request {
  const { family } = destination.address;
  const only = nextHops.length === 1 ? nextHops[0] : undefined;
  const flags = only?.onlink === true ? ONLINK : 0;
  const header = { family, destinationLength: destination.length, table, protocol, scope, type, flags };
  return request(messageType, messageFlags, header, {
    destination: destination.length === 0 ? undefined : destination.address,
    ...(only === undefined ? {} : { ...gatewayOf(only, family), device: only.device }),
    source,
    metric: metric === 0 ? undefined : metric,
    metrics: mtu === undefined ? undefined : { mtu },
    multipath: nextHops.length < 2 ? undefined : nextHops.map((nextHop) => toWire(nextHop, family)),
  });
}

function toWire(nextHop: NextHop, family: Family): NextHopOnWire {
  const { device = 0, onlink = false, weight = 1 } = nextHop;
  return { flags: onlink ? ONLINK : 0, hops: weight - 1, device, values: gatewayOf(nextHop, family) };
}

function gatewayOf({ gateway }: NextHop, family: Family): ValuesOf<typeof NEXT_HOP> {
  return gateway === undefined ? {} : gateway.family === family ? { gateway } : { via: gateway };
}

interface Header {
  readonly family: Family;
  readonly destinationLength: number;
  readonly table: number;
  readonly protocol: number;
  readonly scope: number;
  readonly type: RouteType;
  readonly flags: number;
}

/**
 * `struct rtmsg`:
 *
 *      0        1        2        3        4        5        6        7        8              12
 *     +--------+--------+--------+--------+--------+--------+--------+--------+--------------+
 *     | family | destin.| source | TOS    | table  | proto- | scope  | type   | flags        |
 *     |        | length | length |        |        | col    |        |        |              |
 *     +--------+--------+--------+--------+--------+--------+--------+--------+--------------+
 */
function request(type: number, flags: number, header: Header, values: ValuesOf<typeof ROUTE>): Request {
  return {
    type,
    flags,
    encode(writer: ByteWriter) {
      writer.u8(familyNumber(header.family));
      writer.u8(header.destinationLength);
      writer.u8(0);
      writer.u8(0);
      writer.u8(header.table > 255 ? 0 : header.table);
      writer.u8(header.protocol);
      writer.u8(header.scope);
      writer.u8(ROUTE_TYPES.indexOf(header.type));
      writer.u32le(header.flags);
      encodeAttributes(writer, ROUTE, header.table > 255 ? { ...values, table: header.table } : values);
    },
  };
}

/**
 * A RTM_NEWROUTE or RTM_DELROUTE message; undefined for what is no plain IP route (multicast routing, MPLS) and for
 * entries of the route cache.
 */
export function decodeRoute({ body }: Message): Route | undefined {
  const family = familyOf(body.u8("route family"));
  const length = body.u8("route destination length");
  body.skip(2, "route source length and TOS");
  const shortTable = body.u8("route table");
  const protocol = body.u8("route protocol");
  const scope = body.u8("route scope");
  const type = ROUTE_TYPES[body.u8("route type")] ?? "unspec";
  const flags = body.u32le("route flags");
  if (family === undefined || (flags & CLONED) !== 0) return undefined;
  const values = decodeAttributes(body, ROUTE);
  const destination = values.destination ?? { family, value: 0n };
  if (destination.family !== family || length > addressBits(family)) {
    throw new MalformedBytes(`route destination: ${formatAddress(destination)}/${length} is no IPv${family} prefix`);
  }
  return {
    destination: { address: destination, length },
    type,
    table: values.table ?? shortTable,
    protocol,
    scope,
    metric: values.metric ?? 0,
    nextHops: GOES_NOWHERE.has(type) ? [] : nextHopsOf(values, flags),
    ...present({ source: values.source, mtu: values.metrics?.mtu }),
  };
}

const CLONED = 0x200; // RTM_F_CLONED
/** The kernel shows these on a device (lo) in IPv6, which means nothing. */
const GOES_NOWHERE: ReadonlySet<RouteType> = new Set(["blackhole", "unreachable", "prohibit", "throw"]);

function nextHopsOf(values: ValuesOf<typeof ROUTE>, flags: number): NextHop[] {
  if (values.multipath !== undefined) {
    return values.multipath.map((hop) => ({ ...nextHop(hop.values, hop.device, hop.flags), weight: hop.hops + 1 }));
  }
  const only = nextHop(values, values.device, flags);
  return only.device === undefined && only.gateway === undefined ? [] : [only];
}

function nextHop(
  { gateway, via: other }: ValuesOf<typeof NEXT_HOP>,
  device: number | undefined,
  flags: number,
): NextHop {
  return {
    ...present({ gateway: gateway ?? other, device: device === 0 ? undefined : device }),
    ...((flags & ONLINK) !== 0 && { onlink: true }),
  };
}

/** As `ip route` writes it: `10.1.2.0/26 via 192.0.2.7 dev eth0 onlink`. */
export function describeRoute(
  { destination, type, nextHops = [], table, metric }: RouteSpec,
  nameOf: (device: number) => string = String,
): string {
  const words = [...(type === undefined || type === "unicast" ? [] : [type]), formatPrefix(destination)];
  const hops = nextHops.map(({ gateway, device, weight, onlink }) => ({
    path: [
      ...(gateway === undefined ? [] : [`via ${formatAddress(gateway)}`]),
      ...(device === undefined ? [] : [`dev ${nameOf(device)}`]),
    ],
    share: weight === undefined ? [] : [`weight ${weight}`],
    flags: onlink === true ? ["onlink"] : [],
  }));
  const [only] = hops.length === 1 ? hops : [];
  if (only !== undefined) words.push(...only.path);
  if (table !== undefined && table !== TABLE_MAIN) words.push(`table ${table}`);
  if (metric !== undefined && metric !== 0) words.push(`metric ${metric}`);
  if (only !== undefined) words.push(...only.flags);
  else for (const { path, share, flags } of hops) words.push("nexthop", ...path, ...share, ...flags);
  return words.join(" ");
}
