import fc from "fast-check";
import { addressBits, type Address, type Family } from "./address.ts";
import { networkOf, type Prefix } from "./prefix.ts";

/** Random addresses and prefixes for property tests. */

export const anyFamily: fc.Arbitrary<Family> = fc.constantFrom(4, 6);

export function anyAddressOf(family: Family): fc.Arbitrary<Address> {
  const largest = (1n << BigInt(addressBits(family))) - 1n;
  return fc.bigInt({ min: 0n, max: largest }).map((value) => ({ family, value }));
}

export const anyAddress: fc.Arbitrary<Address> = anyFamily.chain(anyAddressOf);

export function anyPrefixOf(family: Family): fc.Arbitrary<Prefix> {
  return fc
    .tuple(anyAddressOf(family), fc.integer({ min: 0, max: addressBits(family) }))
    .map(([address, length]) => networkOf(address, length));
}

export const anyPrefix: fc.Arbitrary<Prefix> = anyFamily.chain(anyPrefixOf);

/** Addresses and prefixes that often share their first bits, so that they meet in tables. */
export const crowdedAddress: fc.Arbitrary<Address> = fc
  .tuple(anyFamily, fc.integer({ min: 0, max: 255 }), fc.constantFrom(0n, 8n, 20n, 24n))
  .map(([family, byte, at]) => ({ family, value: BigInt(byte) << (at + (family === 6 ? 60n : 0n)) }));

export const crowdedPrefix: fc.Arbitrary<Prefix> = fc
  .tuple(crowdedAddress, fc.integer({ min: 0, max: 128 }))
  .map(([address, length]) => networkOf(address, length % (addressBits(address.family) + 1)));
