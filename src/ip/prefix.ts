import {
  addressBits,
  AddressError,
  addressPlus,
  compareAddresses,
  formatAddress,
  parseAddress,
  type Address,
} from "./address.ts";

/** A network: `address` has no bits set beyond `length`. */
export interface Prefix {
  readonly address: Address;
  readonly length: number;
}

/** An address on a network, such as a node's 192.0.2.7/26: `address` keeps its host bits. */
export interface InterfaceAddress {
  readonly address: Address;
  readonly length: number;
}

function split(text: string): InterfaceAddress {
  const slash = text.indexOf("/");
  if (slash < 0) throw new AddressError(`"${text}" is not a CIDR: expected an address, "/" and a length`);
  const address = parseAddress(text.slice(0, slash));
  const digits = text.slice(slash + 1);
  if (!/^(0|[1-9][0-9]{0,2})$/.test(digits) || Number(digits) > addressBits(address.family)) {
    throw new AddressError(`"${text}" is not a CIDR: the length must be 0 to ${addressBits(address.family)}`);
  }
  return { address, length: Number(digits) };
}

/** Strict: host bits must be zero, or `AddressError` says which network was meant. */
export function parsePrefix(text: string): Prefix {
  const { address, length } = split(text);
  const prefix = networkOf(address, length);
  if (prefix.address.value !== address.value) {
    throw new AddressError(`"${text}" is not a CIDR: it has host bits set (the network is ${formatPrefix(prefix)})`);
  }
  return prefix;
}

/** `192.0.2.7/26`, host bits kept. */
export function parseInterfaceAddress(text: string): InterfaceAddress {
  return split(text);
}

export function formatPrefix(prefix: InterfaceAddress): string {
  return `${formatAddress(prefix.address)}/${prefix.length}`;
}

/** The network of `length` bits that holds the address. */
export function networkOf(address: Address, length: number): Prefix {
  const hostBits = BigInt(addressBits(address.family) - length);
  return { address: { family: address.family, value: (address.value >> hostBits) << hostBits }, length };
}

/** /32 or /128. */
export function hostPrefix(address: Address): Prefix {
  return { address, length: addressBits(address.family) };
}

export function isHostPrefix(prefix: Prefix): boolean {
  return prefix.length === addressBits(prefix.address.family);
}

/** How many addresses the network has. */
export function prefixSize(prefix: Prefix): bigint {
  return 1n << BigInt(addressBits(prefix.address.family) - prefix.length);
}

/** The last address of the network (IPv4: its broadcast address, where it has one). */
export function lastAddress(prefix: Prefix): Address {
  return addressPlus(prefix.address, prefixSize(prefix) - 1n);
}

export function prefixContains(prefix: Prefix, address: Address): boolean {
  if (prefix.address.family !== address.family) return false;
  const hostBits = BigInt(addressBits(address.family) - prefix.length);
  return address.value >> hostBits === prefix.address.value >> hostBits;
}

/** Whether `outer` holds all of `inner`. A prefix covers itself. */
export function prefixCovers(outer: Prefix, inner: Prefix): boolean {
  return outer.length <= inner.length && prefixContains(outer, inner.address);
}

export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  return prefixCovers(a, b) || prefixCovers(b, a);
}

export function samePrefix(a: Prefix, b: Prefix): boolean {
  return a.length === b.length && a.address.family === b.address.family && a.address.value === b.address.value;
}

/** IPv4 before IPv6, then by address, then the shorter first. */
export function comparePrefixes(a: Prefix, b: Prefix): number {
  return compareAddresses(a.address, b.address) || a.length - b.length;
}
