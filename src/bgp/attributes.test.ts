import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { ByteReader, ByteWriter, fromHex, toHex } from "../lib/bytes.ts";
import {
  countAsn,
  decodeAsPath,
  encodeAsPath,
  formatAsPath,
  mergeAs4Path,
  neighborAsn,
  pathLength,
  prepend,
} from "./as-path.ts";
import { decodeAttributes, encodeAttributes, missingAttribute, scanAttributes } from "./attribute-list.ts";
import { formatCommunity, formatLargeCommunity, type AttributeContext, type PathAttributes } from "./attributes.ts";
import { attributesArbitrary } from "./bgp.testing.ts";
import { ProtocolError } from "./notification.ts";

const IBGP: AttributeContext = { asOctets: 4, internal: true };
const EBGP: AttributeContext = { asOctets: 4, internal: false };
const OLD: AttributeContext = { asOctets: 2, internal: true };

function decode(wire: string, context = IBGP) {
  const bytes = fromHex(wire);
  return decodeAttributes(bytes, scanAttributes(bytes, 0, bytes.length), context);
}

function encode(attributes: PathAttributes, context = IBGP): Uint8Array {
  const writer = new ByteWriter();
  encodeAttributes(writer, attributes, context, true);
  return writer.finish();
}

describe("attributes on the wire", () => {
  test("a list as BIRD sends it", () => {
    const { attributes, withdraw, discarded } = decode(
      "40 01 01 00  40 02 06 02 01 0000fde8  40 03 04 c0000201  80 04 04 0000000a  40 05 04 00000064  c0 08 08 fde80064 ffffff01",
    );
    assert.equal(withdraw, undefined);
    assert.deepEqual(discarded, []);
    assert.deepEqual(attributes, {
      origin: "igp",
      asPath: [{ type: "sequence", asns: [65000] }],
      nextHop: { family: 4, value: 0xc0000201n },
      med: 10,
      localPref: 100,
      communities: [0xfde80064, 0xffffff01],
    });
  });

  test("what is written is read back, for every combination of attributes", () => {
    fc.assert(
      fc.property(attributesArbitrary(4), (attributes) => {
        const bytes = encode(attributes);
        const decoded = decodeAttributes(bytes, scanAttributes(bytes, 0, bytes.length), IBGP);
        assert.deepEqual(decoded, { attributes, discarded: [] });
      }),
      { numRuns: 300 },
    );
  });

  test("four-octet AS numbers survive a session of two-octet ones (RFC 6793)", () => {
    fc.assert(
      fc.property(attributesArbitrary(4), (attributes) => {
        const bytes = encode(attributes, OLD);
        const decoded = decodeAttributes(bytes, scanAttributes(bytes, 0, bytes.length), OLD);
        assert.deepEqual(decoded, { attributes, discarded: [] });
      }),
      { numRuns: 200 },
    );
  });

  test("a value of more than 255 bytes has a length of two", () => {
    const communities = Array.from({ length: 100 }, (_, i) => i);
    const bytes = encode({ origin: "igp", asPath: [], localPref: 1, communities, med: 7 });
    assert.match(toHex(bytes), /d0080190/);
    const { attributes } = decodeAttributes(bytes, scanAttributes(bytes, 0, bytes.length), IBGP);
    assert.deepEqual(attributes, { origin: "igp", asPath: [], localPref: 1, communities, med: 7 });
  });

  test("codes ascend, unknown ones among them", () => {
    const unknown = [
      { code: 200, flags: 0xe0, value: Uint8Array.of(1) },
      { code: 11, flags: 0xe0, value: Uint8Array.of(2) },
    ];
    const bytes = encode({
      origin: "igp",
      asPath: [],
      localPref: 1,
      largeCommunities: [{ global: 1, local1: 2, local2: 3 }],
      unknown,
    });
    const codes = scanAttributes(bytes, 0, bytes.length).headers.map(({ code }) => code);
    assert.deepEqual(codes, [1, 2, 5, 11, 32, 200]);
  });

  test("an unknown attribute is passed on as partial if transitive, dropped if not", () => {
    assert.deepEqual(decode("c0 63 02 0102").attributes.unknown, [
      { code: 99, flags: 0xe0, value: Uint8Array.of(1, 2) },
    ]);
    assert.equal(decode("80 63 02 0102").attributes.unknown, undefined);
  });

  test("a well-known attribute that nobody knows ends the session", () => {
    assert.throws(
      () => decode("40 63 00"),
      (thrown) => thrown instanceof ProtocolError && thrown.notification.subcode === 2,
    );
  });

  test("LOCAL_PREF, ORIGINATOR_ID and CLUSTER_LIST are neither believed nor sent in eBGP", () => {
    const { attributes, discarded } = decode("40 05 04 00000064 80 09 04 01020304 80 0a 04 01020304", EBGP);
    assert.deepEqual(Object.keys(attributes), ["origin", "asPath"]);
    assert.equal(discarded.length, 3);
    const sent = encode({ origin: "igp", asPath: [], localPref: 5, originatorId: 1, clusterList: [2] }, EBGP);
    assert.equal(toHex(sent), "40010100" + "400200");
  });
});

const malformed: { name: string; wire: string; withdraw?: RegExp; discard?: RegExp; context?: AttributeContext }[] = [
  { name: "unknown origin", wire: "40 01 01 09", withdraw: /9 is not 0, 1 or 2/ },
  { name: "origin of two bytes", wire: "40 01 02 0000", withdraw: /has 2 bytes, not 1/ },
  { name: "origin marked optional", wire: "c0 01 01 00", withdraw: /flags 0xc0 instead of 0x40/ },
  { name: "AS_PATH segment of type 9", wire: "40 02 06 09 01 0000fde8", withdraw: /segment type 9/ },
  { name: "confederation segment", wire: "40 02 06 03 01 0000fde8", withdraw: /segment type 3/ },
  { name: "AS_PATH cut short", wire: "40 02 06 02 02 0000fde8", withdraw: /AS number: need 4 bytes, have 0/ },
  { name: "empty AS_PATH segment", wire: "40 02 02 02 00", withdraw: /segment is empty/ },
  { name: "AS 0", wire: "40 02 06 02 01 00000000", withdraw: /RFC 7607/ },
  { name: "next hop of three bytes", wire: "40 03 03 c00002", withdraw: /has 3 bytes, not 4/ },
  { name: "next hop 0.0.0.0", wire: "40 03 04 00000000", withdraw: /next hop 0\.0\.0\.0 is no host/ },
  { name: "multicast next hop", wire: "40 03 04 e0000001", withdraw: /224\.0\.0\.1/ },
  { name: "short MED", wire: "80 04 02 0001", withdraw: /MULTI_EXIT_DISC: has 2 bytes/ },
  { name: "short LOCAL_PREF in iBGP", wire: "40 05 02 0001", withdraw: /LOCAL_PREF: has 2 bytes/ },
  { name: "short LOCAL_PREF in eBGP", wire: "40 05 02 0001", discard: /LOCAL_PREF/, context: EBGP },
  { name: "ATOMIC_AGGREGATE with a value", wire: "40 06 01 00", discard: /has 1 bytes, not 0/ },
  { name: "short AGGREGATOR", wire: "c0 07 06 fde8c0000201", discard: /AGGREGATOR: has 6 bytes/ },
  { name: "community cut short", wire: "c0 08 03 fde800", withdraw: /need 4 bytes, have 3/ },
  { name: "no community", wire: "c0 08 00", withdraw: /COMMUNITIES is empty/ },
  { name: "short ORIGINATOR_ID", wire: "80 09 03 010203", withdraw: /ORIGINATOR_ID: has 3 bytes/ },
  { name: "CLUSTER_LIST of five bytes", wire: "80 0a 05 0102030405", withdraw: /need 4 bytes, have 1/ },
  { name: "extended community of seven bytes", wire: "c0 10 07 01020304050607", withdraw: /need 8 bytes, have 7/ },
  {
    name: "large community of eleven bytes",
    wire: "c0 20 0b 0102030405060708090a0b",
    withdraw: /need 12 bytes, have 11/,
  },
  { name: "AS4_PATH cut short", wire: "c0 11 03 020100", discard: /AS number/, context: OLD },
  { name: "header cut short", wire: "40 01", withdraw: /header is cut short after 2 bytes/ },
  { name: "value past the end", wire: "40 01 05 00", withdraw: /attribute 1: need 5 bytes, have 1/ },
  { name: "second origin", wire: "40 01 01 00 40 01 01 01", discard: /attribute 1 stands more than once/ },
];
describe("a malformed attribute costs what RFC 7606 says", () => {
  for (const { name, wire, withdraw, discard, context } of malformed) {
    test(`${withdraw === undefined ? "discarded" : "routes withdrawn"}: ${name}`, () => {
      const result = decode(wire, context);
      if (withdraw === undefined) assert.equal(result.withdraw, undefined);
      else assert.match(result.withdraw ?? "", withdraw);
      if (discard === undefined) assert.deepEqual(result.discarded, []);
      else assert.match(result.discarded.join(), discard);
    });
  }

  test("what every route must have is missed", () => {
    const full = "40 01 01 00 40 02 00 40 03 04 c0000201 40 05 04 00000064";
    const missing = (wire: string, needsNextHop = true, context = IBGP) => {
      const bytes = fromHex(wire);
      return missingAttribute(scanAttributes(bytes, 0, bytes.length).headers, needsNextHop, context);
    };
    assert.equal(missing(full), undefined);
    assert.equal(missing("40 02 00 40 03 04 c0000201 40 05 04 00000064"), "ORIGIN is missing");
    assert.equal(missing("40 01 01 00 40 02 00 40 05 04 00000064"), "NEXT_HOP is missing");
    assert.equal(missing("40 01 01 00 40 02 00 40 05 04 00000064", false), undefined);
    assert.equal(missing("40 01 01 00 40 02 00 40 03 04 c0000201"), "LOCAL_PREF is missing");
    assert.equal(missing("40 01 01 00 40 02 00 40 03 04 c0000201", true, EBGP), undefined);
  });
});

describe("AS paths", () => {
  const sequence = (...asns: number[]) => ({ type: "sequence" as const, asns });
  const set = (...asns: number[]) => ({ type: "set" as const, asns });

  test("length, neighbour, loops, text", () => {
    const path = [sequence(1, 2, 2), set(3, 4)];
    assert.equal(pathLength(path), 4);
    assert.equal(neighborAsn(path), 1);
    assert.equal(neighborAsn([set(7)]), 0);
    assert.equal(countAsn(path, 2), 2);
    assert.equal(formatAsPath(path), "1 2 2 {3 4}");
    assert.deepEqual(prepend(path, 9, 2), [sequence(9, 9, 1, 2, 2), set(3, 4)]);
    assert.deepEqual(prepend([set(3)], 9), [sequence(9), set(3)]);
  });

  test("a sequence of more than 255 is split, which means the same", () => {
    const asns = Array.from({ length: 300 }, (_, i) => i + 1);
    const writer = new ByteWriter();
    encodeAsPath(writer, [sequence(...asns)], 4);
    const read = decodeAsPath(new ByteReader(writer.finish()), 4);
    assert.deepEqual(
      read.map((segment) => segment.asns.length),
      [255, 45],
    );
    assert.deepEqual(
      read.flatMap((segment) => segment.asns),
      asns,
    );
  });

  const merges: {
    name: string;
    path: ReturnType<typeof sequence>[];
    as4: ReturnType<typeof sequence>[];
    whole: string;
  }[] = [
    {
      name: "an old speaker in front",
      path: [sequence(100, 23456, 23456)],
      as4: [sequence(70000, 70001)],
      whole: "100 70000 70001",
    },
    { name: "no old speaker", path: [sequence(23456)], as4: [sequence(70000)], whole: "70000" },
    { name: "AS4_PATH longer than AS_PATH is ignored", path: [sequence(100)], as4: [sequence(1, 2)], whole: "100" },
  ];
  for (const { name, path, as4, whole } of merges) {
    test(`AS4_PATH repairs AS_PATH: ${name}`, () => {
      assert.equal(formatAsPath(mergeAs4Path(path, as4)), whole);
    });
  }

  test("communities as people write them", () => {
    assert.equal(formatCommunity(0xfde80064), "65000:100");
    assert.equal(formatLargeCommunity({ global: 70000, local1: 1, local2: 2 }), "70000:1:2");
  });
});
