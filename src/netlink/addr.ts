import { type Address, addressBits, formatAddress } from "../ip/address.ts";
import { formatPrefix, type InterfaceAddress } from "../ip/prefix.ts";
import { MalformedBytes } from "../lib/bytes.ts";
import {
  address,
  attributeTable,
  decodeAttributes,
  encodeAttributes,
  familyNumber,
  familyOf,
  present,
  row,
  text,
  u32,
  type ValuesOf,
} from "./attributes.ts";
import { CREATE, DUMP, EXCLUSIVE, type Message, REPLACE, type Request } from "./framing.ts";

/** Addresses on links: `struct ifaddrmsg` and its attributes, <linux/if_addr.h>. */

export const NEW_ADDRESS = 20;
export const DELETE_ADDRESS = 21;
const GET_ADDRESS = 22;

export interface LinkAddress {
  /** Index of the link. */
  readonly device: number;
  readonly address: InterfaceAddress;
  /** The other end of a point-to-point link; `address.length` is then the length of its prefix. */
  readonly peer?: Address;
  readonly broadcast?: Address;
  /** As in routes: 0 global, 253 link, 254 host. */
  readonly scope: number;
  /** IPv4: the name it has for old tools, by default the link's. */
  readonly label?: string;
  /** No route to its network comes with it. */
  readonly noPrefixRoute?: boolean;
  /** IPv6: usable at once, without duplicate address detection (RFC 4862 section 5.4). */
  readonly noDuplicateDetection?: boolean;
  /** IPv6: duplicate address detection still goes on. */
  readonly tentative?: boolean;
}

export type LinkAddressSpec = Omit<LinkAddress, "scope" | "tentative"> & { readonly scope?: number };

const NO_DUPLICATE_DETECTION = 0x02;
const TENTATIVE = 0x40;
const NO_PREFIX_ROUTE = 0x200;

const ADDRESS = attributeTable({
  local: row(2, address),
  broadcast: row(4, address),
  label: row(3, text),
  /** All flags, where the header's byte has no room for them. */
  flags: row(8, u32),
  /** The peer's; without a peer the local one again. */
  address: row(1, address),
});

export function listAddresses(): Request {
  return request(GET_ADDRESS, DUMP, 0, 0, 0, 0, {});
}

/** Fails with EEXIST where the link has it. */
export function addAddress(spec: LinkAddressSpec): Request {
  return write(NEW_ADDRESS, CREATE | EXCLUSIVE, spec);
}

export function replaceAddress(spec: LinkAddressSpec): Request {
  return write(NEW_ADDRESS, CREATE | REPLACE, spec);
}

/** Fails with EADDRNOTAVAIL where the link does not have it. */
export function deleteAddress(spec: LinkAddressSpec): Request {
  return write(DELETE_ADDRESS, 0, spec);
}

function write(type: number, messageFlags: number, spec: LinkAddressSpec): Request {
  const { device, address: own, peer, broadcast, label, scope = 0 } = spec;
  const flags =
    (spec.noPrefixRoute === true ? NO_PREFIX_ROUTE : 0) |
    (spec.noDuplicateDetection === true ? NO_DUPLICATE_DETECTION : 0);
  return request(type, messageFlags, familyNumber(own.address.family), own.length, scope, device, {
    local: own.address,
    address: peer ?? own.address,
    broadcast,
    label,
    flags,
  });
}

/**
 * `struct ifaddrmsg`:
 *
 *      0        1        2        3        4               8
 *     +--------+--------+--------+--------+---------------+
 *     | family | length | flags  | scope  | link index    |
 *     +--------+--------+--------+--------+---------------+
 */
function request(
  type: number,
  messageFlags: number,
  family: number,
  length: number,
  scope: number,
  device: number,
  { flags = 0, ...values }: ValuesOf<typeof ADDRESS>,
): Request {
  return {
    type,
    flags: messageFlags,
    encode(writer) {
      writer.u8(family);
      writer.u8(length);
      writer.u8(flags & 0xff);
      writer.u8(scope);
      writer.u32le(device);
      encodeAttributes(writer, ADDRESS, flags > 0xff ? { ...values, flags } : values);
    },
  };
}

/** A RTM_NEWADDR or RTM_DELADDR message; undefined for families that are not IP. */
export function decodeAddress({ body }: Message): LinkAddress | undefined {
  const family = familyOf(body.u8("address family"));
  const length = body.u8("address prefix length");
  const shortFlags = body.u8("address flags");
  const scope = body.u8("address scope");
  const device = body.u32le("address link index");
  if (family === undefined) return undefined;
  const values = decodeAttributes(body, ADDRESS);
  // Only IPv4, and IPv6 with a peer, say which of the two is ours.
  const own = values.local ?? values.address;
  if (own?.family !== family || length > addressBits(family)) {
    throw new MalformedBytes(`address on link ${device}: no IPv${family} address with a prefix length of ${length}`);
  }
  const flags = values.flags ?? shortFlags;
  const peer = values.address?.value === own.value ? undefined : values.address;
  return {
    device,
    address: { address: own, length },
    scope,
    ...present({ peer, broadcast: values.broadcast, label: values.label }),
    ...((flags & NO_PREFIX_ROUTE) !== 0 && { noPrefixRoute: true }),
    ...((flags & NO_DUPLICATE_DETECTION) !== 0 && { noDuplicateDetection: true }),
    ...((flags & TENTATIVE) !== 0 && { tentative: true }),
  };
}

/** `192.0.2.7/26 dev eth0`. */
export function describeAddress(
  { address: own, peer, device }: LinkAddressSpec,
  nameOf: (device: number) => string = String,
): string {
  const other = peer === undefined ? "" : ` peer ${formatAddress(peer)}`;
  return `${formatPrefix(own)}${other} dev ${nameOf(device)}`;
}
