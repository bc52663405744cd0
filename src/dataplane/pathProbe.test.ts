import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { fromHex, toHex } from "../lib/bytes.ts";
import { echoRequest, readAnswer, SHORTEST, type ReceivedAnswer } from "./pathProbe.ts";

/** RFC 1071, over the whole message: 0 where its checksum is right. */
function checksumOf(bytes: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at]! << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

describe("an echo", () => {
  test("is as long as it should be with its IP header, and its checksum is right", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 0xffff }),
        fc.integer({ min: 0, max: 0xffff }),
        fc.integer({ min: SHORTEST[4], max: 9000 }),
        (identifier, sequence, length) => {
          const echo = echoRequest(4, { identifier, sequence }, length);
          assert.equal(echo.length, length - 20);
          assert.equal(checksumOf(echo), 0);
        },
      ),
    );
  });
  test("of IPv6 leaves the checksum to the kernel", () => {
    assert.equal(toHex(echoRequest(6, { identifier: 0x1234, sequence: 7 }, 50)), "80000000123400070000");
  });
  test("is never shorter than its header", () => {
    assert.equal(echoRequest(4, { identifier: 1, sequence: 1 }, 0).length, 8);
  });
});

const V4 = "45000054 00000000 4001 0000 c0000202 c0000201"; // an IP header in front of what a raw socket gives
const OURS = "45000054 12340000 0101 0000 c0000201 0a410001  0800 0000 1234 0007"; // and one that an error quotes
const OURS6 =
  "60000000 0008 3a 01 20010db8000000000000000000000001 fd100000000000000000000000000001 8000 0000 1234 0007";
const found = (answer: ReceivedAnswer["answer"]): ReceivedAnswer => ({ identifier: 0x1234, sequence: 7, answer });
const error = (reason: Extract<ReceivedAnswer["answer"], { kind: "error" }>["reason"]): ReceivedAnswer =>
  found({ kind: "error", reason });

const rows: { name: string; family?: 6; packet: string; answer: ReceivedAnswer | undefined }[] = [
  { name: "a reply", packet: `${V4} 0000 0000 1234 0007 00`, answer: found({ kind: "reply" }) },
  { name: "a reply of IPv6", family: 6, packet: "8100 0000 1234 0007", answer: found({ kind: "reply" }) },
  { name: "our own request", packet: `${V4} 0800 0000 1234 0007`, answer: undefined },
  { name: "too large", packet: `${V4} 0304 0000 0000 0578 ${OURS}`, answer: error({ mtu: 1400 }) },
  { name: "too large, of IPv6", family: 6, packet: `0200 0000 00000500 ${OURS6}`, answer: error({ mtu: 1280 }) },
  { name: "no way to the host", packet: `${V4} 0301 0000 00000000 ${OURS}`, answer: error("unreachable") },
  { name: "a firewall says so", packet: `${V4} 030d 0000 00000000 ${OURS}`, answer: error("prohibited") },
  { name: "no way, of IPv6", family: 6, packet: `0100 0000 00000000 ${OURS6}`, answer: error("unreachable") },
  { name: "prohibited, of IPv6", family: 6, packet: `0101 0000 00000000 ${OURS6}`, answer: error("prohibited") },
  { name: "it has ended on its way", packet: `${V4} 0b00 0000 00000000 ${OURS}`, answer: error("expired") },
  { name: "ended on its way, of IPv6", family: 6, packet: `0300 0000 00000000 ${OURS6}`, answer: error("expired") },
  { name: "fragments that did not all come", packet: `${V4} 0b01 0000 00000000 ${OURS}`, answer: undefined },
  {
    name: "an error about an envelope, which is not ours to read",
    packet: `${V4} 0304 0000 0000 0578 ${OURS.replace("0101", "0104")}`,
    answer: undefined,
  },
  { name: "a quotation that is cut short", packet: `${V4} 0301 0000 00000000 ${OURS.slice(0, -5)}`, answer: undefined },
  { name: "nothing", packet: "", answer: undefined },
];
describe("what comes back", () => {
  for (const { name, family = 4, packet, answer } of rows) {
    test(name, () => assert.deepEqual(readAnswer(family, fromHex(packet)), answer));
  }
  test("may be anything", () => {
    fc.assert(
      fc.property(fc.constantFrom(4 as const, 6 as const), fc.uint8Array({ maxLength: 120 }), (family, bytes) => {
        const answer = readAnswer(family, bytes);
        assert.ok(answer === undefined || answer.sequence <= 0xffff);
      }),
    );
  });
});
