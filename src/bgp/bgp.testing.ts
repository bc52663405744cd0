import fc, { type Arbitrary } from "fast-check";
import type { Address, Family } from "../ip/address.ts";
import { networkOf, type Prefix } from "../ip/prefix.ts";
import type { AsPath } from "./as-path.ts";
import { OPTIONAL, PARTIAL, TRANSITIVE, type PathAttributes } from "./attributes.ts";
import type { Negotiated } from "./negotiation.ts";

const u32 = fc.nat(0xffffffff);

/** Plain objects: those without a prototype are not deeply equal to what is decoded. */
export function record<Values>(model: { readonly [Name in keyof Values]: Arbitrary<Values[Name]> }): Arbitrary<Values> {
  return fc.record<Values>(model, { noNullPrototype: true });
}

export const asnArbitrary = fc.integer({ min: 1, max: 0xffffffff });

/** Addresses that can be a host's: 10.0.0.0/8 and 2001:db8::/32. */
export function addressArbitrary(family: Family): Arbitrary<Address> {
  if (family === 4) return fc.nat(0xffffff).map((low) => ({ family, value: (10n << 24n) | BigInt(low) }));
  return u32.map((low) => ({ family, value: (0x20010db8n << 96n) | BigInt(low) }));
}

export function prefixArbitrary(family: Family): Arbitrary<Prefix> {
  const bits = family === 4 ? 32 : 128;
  const value = fc.bigInt({ min: 0n, max: (1n << BigInt(bits)) - 1n });
  return fc.tuple(value, fc.nat(bits)).map(([number, length]) => networkOf({ family, value: number }, length));
}

const segmentArbitrary = record({
  type: fc.constantFrom("sequence" as const, "set" as const),
  asns: fc.array(asnArbitrary, { minLength: 1, maxLength: 6 }),
});

/** Without two sequences in a row, which mean the same as one. */
const asPathArbitrary: Arbitrary<AsPath> = fc
  .array(segmentArbitrary, { maxLength: 3 })
  .map((path) => path.filter((segment, index) => segment.type === "set" || path[index - 1]?.type !== "sequence"));

const communitiesArbitrary = fc.array(u32, { minLength: 1, maxLength: 5 });
const unknownArbitrary = record({
  code: fc.integer({ min: 100, max: 200 }),
  flags: fc.constant(OPTIONAL | TRANSITIVE | PARTIAL),
  value: fc.uint8Array({ maxLength: 300 }),
});

/** Every attribute, there or not, as an iBGP session with four-octet AS numbers carries them. */
export function attributesArbitrary(family: Family): Arbitrary<PathAttributes> {
  return fc.record(
    {
      origin: fc.constantFrom("igp" as const, "egp" as const, "incomplete" as const),
      asPath: asPathArbitrary,
      nextHop: addressArbitrary(family),
      localPref: u32,
      med: u32,
      atomicAggregate: fc.constant(true as const),
      aggregator: record({ asn: asnArbitrary, address: addressArbitrary(4) }),
      communities: communitiesArbitrary,
      originatorId: u32,
      clusterList: communitiesArbitrary,
      extendedCommunities: fc.array(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), { minLength: 1, maxLength: 3 }),
      largeCommunities: fc.array(record({ global: u32, local1: u32, local2: u32 }), { minLength: 1, maxLength: 3 }),
      unknown: fc
        .uniqueArray(unknownArbitrary, { minLength: 1, maxLength: 2, selector: ({ code }) => code })
        .map((list) => list.toSorted((a, b) => a.code - b.code)),
    },
    { noNullPrototype: true, requiredKeys: ["origin", "asPath", "nextHop", "localPref"] },
  );
}

/** A session between two speakers of our kind. */
export function negotiated(change: Partial<Negotiated> = {}): Negotiated {
  return {
    remoteRouterId: 0x0a000002,
    internal: true,
    holdTime: 90,
    keepaliveTime: 30,
    families: [4],
    asOctets: 4,
    longestMessage: 4096,
    routeRefresh: true,
    enhancedRouteRefresh: false,
    extendedNextHop: false,
    notificationRestart: false,
    addPathReceive: [],
    addPathSend: [],
    ...change,
  };
}
