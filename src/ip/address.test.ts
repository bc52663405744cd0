import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  addressBits,
  AddressError,
  addressFromBytes,
  addressPlus,
  addressToBytes,
  compareAddresses,
  formatAddress,
  parseAddress,
  sameAddress,
} from "./address.ts";
import { anyAddress } from "./address.testing.ts";

describe("text of addresses", () => {
  /** RFC 5952 sections 4 and 5, RFC 4291 section 2.2: what is accepted, and the one form that is written. */
  const forms: { text: string; written: string; from: string }[] = [
    { text: "192.0.2.1", written: "192.0.2.1", from: "IPv4" },
    { text: "0.0.0.0", written: "0.0.0.0", from: "IPv4" },
    { text: "255.255.255.255", written: "255.255.255.255", from: "IPv4" },
    { text: "2001:db8:0:0:1:0:0:1", written: "2001:db8::1:0:0:1", from: "RFC 5952 section 2.2" },
    { text: "2001:0db8:0:0:1:0:0:1", written: "2001:db8::1:0:0:1", from: "RFC 5952 section 4.1" },
    { text: "2001:db8::1:0:0:1", written: "2001:db8::1:0:0:1", from: "RFC 5952 section 4.2.3, the first run" },
    { text: "2001:db8::0:1:0:0:1", written: "2001:db8::1:0:0:1", from: "RFC 5952 section 2.2" },
    { text: "2001:0db8::1:0:0:1", written: "2001:db8::1:0:0:1", from: "RFC 5952 section 2.2" },
    { text: "2001:db8:0:0:1::1", written: "2001:db8::1:0:0:1", from: "RFC 5952 section 2.2" },
    { text: "2001:DB8:0:0:1::1", written: "2001:db8::1:0:0:1", from: "RFC 5952 section 4.3, lower case" },
    { text: "2001:db8::aaaa:0:0:1", written: "2001:db8::aaaa:0:0:1", from: "RFC 5952 section 2.2" },
    { text: "2001:db8:0:0:0:0:2:1", written: "2001:db8::2:1", from: "RFC 5952 section 4.2.1" },
    { text: "2001:db8:0:1:1:1:1:1", written: "2001:db8:0:1:1:1:1:1", from: "RFC 5952 section 4.2.2, one group only" },
    { text: "2001:db8::1:1:1:1:1", written: "2001:db8:0:1:1:1:1:1", from: "RFC 5952 section 4.2.2" },
    { text: "2001:0:0:1:0:0:0:1", written: "2001:0:0:1::1", from: "RFC 5952 section 4.2.3, the longest run" },
    { text: "0:0:0:0:0:0:0:0", written: "::", from: "RFC 4291 section 2.5.2" },
    { text: "0:0:0:0:0:0:0:1", written: "::1", from: "RFC 4291 section 2.5.3" },
    { text: "1::", written: "1::", from: "RFC 4291 section 2.2" },
    { text: "::ffff:192.0.2.1", written: "::ffff:192.0.2.1", from: "RFC 5952 section 5" },
    { text: "::ffff:c000:0201", written: "::ffff:192.0.2.1", from: "RFC 5952 section 5" },
    { text: "64:ff9b::192.0.2.33", written: "64:ff9b::c000:221", from: "RFC 6052 section 2.4, in hex" },
    { text: "ff02::1:ff00:0", written: "ff02::1:ff00:0", from: "RFC 4291 section 2.7.1" },
  ];
  for (const { text, written, from } of forms) {
    test(`${text} is written ${written} (${from})`, () => {
      assert.equal(formatAddress(parseAddress(text)), written);
    });
  }

  const refused: { text: string; reason: RegExp }[] = [
    { text: "", reason: /expected four octets/ },
    { text: "192.0.2", reason: /expected four octets/ },
    { text: "192.0.2.1.1", reason: /expected four octets/ },
    { text: "192.0.2.256", reason: /"256" is not a number from 0 to 255/ },
    { text: "192.0.2.01", reason: /"01" is not a number/ }, // octal to some
    { text: "192.0.2.0x1", reason: /"0x1" is not a number/ },
    { text: "192.0.2.-1", reason: /"-1" is not a number/ },
    { text: "192.0.2.", reason: /"" is not a number/ },
    { text: " 192.0.2.1", reason: /" 192" is not a number/ },
    { text: "192.0.2.1 ", reason: /"1 " is not a number/ },
    { text: "192.0.2.1\n", reason: /is not a number/ },
    { text: "١٩٢.0.2.1", reason: /is not a number/ },
    { text: "3221225985", reason: /expected four octets/ },
    { text: "localhost", reason: /expected four octets/ },
    { text: ":", reason: /not one to four hex digits|groups/ },
    { text: ":::", reason: /hex digits|only once/ },
    { text: "1::2::3", reason: /only once/ },
    { text: "1:2:3:4:5:6:7", reason: /7 groups, not eight/ },
    { text: "1:2:3:4:5:6:7:8:9", reason: /9 groups, not eight/ },
    { text: "1:2:3:4::5:6:7:8", reason: /at least one group/ },
    { text: "12345::", reason: /"12345" is not one to four hex digits/ },
    { text: "g::", reason: /"g" is not one to four hex digits/ },
    { text: ":1::", reason: /"" is not one to four hex digits/ },
    { text: "1:", reason: /"" is not one to four hex digits/ },
    { text: "fe80::1%eth0", reason: /zone/ },
    { text: "::192.0.2", reason: /expected four octets/ },
    { text: "::192.0.2.1:1", reason: /only at the end/ },
    { text: "192.0.2.1::", reason: /only at the end/ },
    { text: "::ffff:192.0.2.01", reason: /"01" is not a number/ },
    { text: "[::1]", reason: /hex digits/ },
  ];
  for (const { text, reason } of refused) {
    test(`${JSON.stringify(text)} is refused`, () => {
      assert.throws(
        () => parseAddress(text),
        (error) => error instanceof AddressError && error.code === "bad-address" && reason.test(error.message),
      );
    });
  }

  test("what is written is read back, as text and as bytes", () => {
    fc.assert(
      fc.property(anyAddress, (address) => {
        assert.deepEqual(parseAddress(formatAddress(address)), address);
        assert.deepEqual(addressFromBytes(addressToBytes(address)), address);
      }),
    );
  });

  test("any text gives an address or an AddressError", () => {
    const characters = fc.constantFrom(...Array.from("0123456789abcdefF:.%/ x"));
    const property = fc.property(fc.string({ unit: characters, maxLength: 45 }), (text) => {
      try {
        const address = parseAddress(text);
        assert.ok(address.value >= 0n && address.value >> BigInt(addressBits(address.family)) === 0n);
      } catch (error) {
        assert.ok(error instanceof AddressError);
      }
    });
    fc.assert(property, { numRuns: 2000 });
  });
});

describe("addresses as numbers", () => {
  test("bytes of other lengths are refused", () => {
    assert.throws(() => addressFromBytes(new Uint8Array(5)), /4 or 16 bytes, not 5/);
  });
  test("plus and minus, up to the ends of the family", () => {
    assert.equal(formatAddress(addressPlus(parseAddress("10.0.0.255"), 1n)), "10.0.1.0");
    assert.equal(formatAddress(addressPlus(parseAddress("2001:db8::"), -1n)), "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff");
    assert.throws(() => addressPlus(parseAddress("255.255.255.255"), 1n), /outside the IPv4 range/);
    assert.throws(() => addressPlus(parseAddress("::"), -1n), /outside the IPv6 range/);
  });
  test("order: IPv4 first, then by number", () => {
    const sorted = ["9.0.0.0", "10.0.0.0", "255.0.0.0", "::", "::1", "2001:db8::"];
    const mixed = sorted.toReversed().map((text) => parseAddress(text));
    assert.deepEqual(mixed.toSorted(compareAddresses).map(formatAddress), sorted);
  });
  test("the same number in another family is another address", () => {
    assert.equal(sameAddress(parseAddress("0.0.0.1"), parseAddress("::1")), false);
    assert.equal(sameAddress(parseAddress("::1"), parseAddress("0::1")), true);
  });
});
