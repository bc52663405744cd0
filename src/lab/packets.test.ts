import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { anyAddress } from "../ip/address.testing.ts";
import { addressToBytes, parseAddress } from "../ip/address.ts";
import { fromHex, toHex } from "../lib/bytes.ts";
import { echoRequest, isEchoReply } from "./icmp.ts";
import { sockaddr } from "./sockaddr.ts";

const index32 = fc.integer({ min: 0, max: 0xffff_ffff });

/** The one's complement sum of all words, which a right checksum makes all ones (RFC 1071 section 1). */
function sum(bytes: Uint8Array): number {
  let total = 0;
  for (let at = 0; at < bytes.length; at += 2) total += (bytes[at]! << 8) | bytes[at + 1]!;
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

/** What a host makes of a request: the type of a reply, in IPv4 behind a header of `headerLength` bytes. */
function replyTo(family: 4 | 6, request: Uint8Array, headerLength = 20): Uint8Array {
  const reply = request.slice();
  reply[0] = family === 4 ? 0 : 129;
  if (family === 6) return reply;
  return new Uint8Array([0x40 | (headerLength / 4), ...new Uint8Array(headerLength - 1), ...reply]);
}

describe("an echo", () => {
  test("is written as RFC 792 and RFC 4443 have it", () => {
    assert.equal(toHex(echoRequest(4, 0x00010002)), "0800" + "6277" + "00010002" + "43415241" + "00010002");
    assert.equal(toHex(echoRequest(6, 0xfffffffe)), "8000" + "0000" + "fffffffe" + "43415241" + "fffffffe");
  });

  test("has a right checksum in IPv4, which in IPv6 is the kernel's to fill in", () => {
    fc.assert(
      fc.property(index32, (index) => {
        assert.equal(sum(echoRequest(4, index)), 0xffff);
        assert.deepEqual(echoRequest(6, index).subarray(2, 4), new Uint8Array(2));
      }),
    );
  });

  test("is answered by its own reply, and by no other's", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(4 as const, 6 as const),
        index32,
        index32,
        fc.constantFrom(20, 24, 60),
        (family, index, other, header) => {
          const request = echoRequest(family, index);
          assert.ok(isEchoReply(family, index, replyTo(family, request, header)));
          assert.equal(isEchoReply(family, other, replyTo(family, request, header)), other === index);
          assert.ok(
            !isEchoReply(
              family,
              index,
              family === 4 ? new Uint8Array([0x45, ...new Uint8Array(19), ...request]) : request,
            ),
          );
        },
      ),
    );
  });

  test("is not answered by what is cut short, by a ping of another program, or by nonsense", () => {
    for (const family of [4, 6] as const) {
      const reply = replyTo(family, echoRequest(family, 7));
      for (let length = 0; length < reply.length; length += 1)
        assert.ok(!isEchoReply(family, 7, reply.subarray(0, length)));
      const foreign = reply.slice();
      foreign[reply.length - 5]! ^= 1;
      assert.ok(!isEchoReply(family, 7, foreign));
      fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => assert.ok(!isEchoReply(family, 7, bytes))));
    }
  });
});

describe("a socket address", () => {
  test("is that of linux/in.h and linux/in6.h", () => {
    assert.deepEqual(sockaddr(parseAddress("192.0.2.7"), 80), fromHex("0200 0050 c0000207 0000000000000000"));
    assert.deepEqual(
      sockaddr(parseAddress("2001:db8::7"), 65535),
      fromHex("0a00 ffff 00000000 20010db8000000000000000000000007 00000000"),
    );
  });

  test("holds address and port", () => {
    fc.assert(
      fc.property(anyAddress, fc.integer({ min: 0, max: 65535 }), (address, port) => {
        const bytes = sockaddr(address, port);
        assert.equal(bytes.length, address.family === 4 ? 16 : 28);
        assert.equal((bytes[2]! << 8) | bytes[3]!, port);
        const [at, size] = address.family === 4 ? [4, 4] : [8, 16];
        assert.deepEqual(bytes.subarray(at, at + size), addressToBytes(address));
      }),
    );
  });
});
