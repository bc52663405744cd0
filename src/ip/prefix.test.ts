import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { AddressError, formatAddress, parseAddress } from "./address.ts";
import { anyPrefix, crowdedPrefix } from "./address.testing.ts";
import {
  comparePrefixes,
  formatPrefix,
  hostPrefix,
  isHostPrefix,
  lastAddress,
  networkOf,
  parseInterfaceAddress,
  parsePrefix,
  prefixContains,
  prefixCovers,
  prefixesOverlap,
  prefixSize,
  samePrefix,
} from "./prefix.ts";

describe("text of prefixes", () => {
  for (const text of ["0.0.0.0/0", "10.244.0.0/16", "192.0.2.64/26", "192.0.2.7/32", "::/0", "2001:db8::/122"]) {
    test(`${text} is itself`, () => assert.equal(formatPrefix(parsePrefix(text)), text));
  }
  test("an interface's address keeps its host bits", () => {
    assert.equal(formatPrefix(parseInterfaceAddress("192.0.2.7/26")), "192.0.2.7/26");
  });

  const refused: { text: string; reason: RegExp }[] = [
    { text: "10.0.0.0", reason: /expected an address, "\/" and a length/ },
    { text: "10.0.0.0/", reason: /length must be 0 to 32/ },
    { text: "10.0.0.0/33", reason: /length must be 0 to 32/ },
    { text: "10.0.0.0/08", reason: /length must be 0 to 32/ },
    { text: "10.0.0.0/-1", reason: /length must be 0 to 32/ },
    { text: "10.0.0.0/8/8", reason: /length must be 0 to 32/ },
    { text: "10.0.0.0/255.0.0.0", reason: /length must be 0 to 32/ },
    { text: "2001:db8::/129", reason: /length must be 0 to 128/ },
    { text: "10.0.0/8", reason: /expected four octets/ },
    { text: "192.0.2.7/26", reason: /host bits set \(the network is 192\.0\.2\.0\/26\)/ },
    { text: "2001:db8::1/64", reason: /host bits set \(the network is 2001:db8::\/64\)/ },
  ];
  for (const { text, reason } of refused) {
    test(`${text} is refused`, () => {
      assert.throws(
        () => parsePrefix(text),
        (error) => error instanceof AddressError && reason.test(error.message),
      );
    });
  }

  test("what is written is read back", () => {
    fc.assert(fc.property(anyPrefix, (prefix) => assert.deepEqual(parsePrefix(formatPrefix(prefix)), prefix)));
  });
});

describe("prefixes as sets of addresses", () => {
  test("first, last and size", () => {
    const block = networkOf(parseAddress("10.244.9.77"), 26);
    assert.equal(formatPrefix(block), "10.244.9.64/26");
    assert.equal(formatAddress(lastAddress(block)), "10.244.9.127");
    assert.equal(prefixSize(block), 64n);
    assert.equal(prefixSize(parsePrefix("::/0")), 1n << 128n);
    assert.equal(formatAddress(lastAddress(parsePrefix("0.0.0.0/0"))), "255.255.255.255");
    assert.equal(isHostPrefix(hostPrefix(parseAddress("::1"))), true);
    assert.equal(isHostPrefix(block), false);
  });
  test("an address of the other family is in no prefix", () => {
    assert.equal(prefixContains(parsePrefix("0.0.0.0/0"), parseAddress("::")), false);
    assert.equal(prefixCovers(parsePrefix("::/0"), parsePrefix("10.0.0.0/8")), false);
  });
  test("order: family, address, then the shorter first", () => {
    const sorted = ["0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "::/0", "2001:db8::/32"];
    const mixed = sorted.toReversed().map((text) => parsePrefix(text));
    assert.deepEqual(mixed.toSorted(comparePrefixes).map(formatPrefix), sorted);
  });
  test("two prefixes are apart, or one covers the other, as their ends say", () => {
    fc.assert(
      fc.property(crowdedPrefix, crowdedPrefix, (a, b) => {
        const meet =
          a.address.family === b.address.family &&
          a.address.value <= lastAddress(b).value &&
          b.address.value <= lastAddress(a).value;
        assert.equal(prefixesOverlap(a, b), meet);
        assert.equal(prefixCovers(a, b) && prefixCovers(b, a), samePrefix(a, b));
        assert.equal(prefixCovers(a, b), prefixContains(a, b.address) && prefixContains(a, lastAddress(b)));
      }),
    );
  });
});
