import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { ByteWriter, fromHex, MalformedBytes, toHex } from "../lib/bytes.ts";
import { ACK, CREATE, decodeMessages, encodeMessage, readAnswer, type Answer } from "./framing.ts";

describe("messages", () => {
  test("are padded, and follow each other", () => {
    const writer = new ByteWriter();
    encodeMessage(writer, { type: 24, flags: CREATE, encode: (body) => body.u8(7) }, ACK, 1);
    encodeMessage(writer, { type: 26, flags: 0, encode: () => undefined }, 0, 2);
    assert.equal(
      toHex(writer.finish()),
      "11000000 1800 0504 01000000 00000000 07000000 10000000 1a00 0100 02000000 00000000".replaceAll(" ", ""),
    );
    const [first, second] = decodeMessages(writer.finish());
    assert.deepEqual([first?.type, first?.flags, first?.sequence, first?.body.remaining], [24, 0x405, 1, 1]);
    assert.deepEqual([second?.type, second?.flags, second?.sequence, second?.body.remaining], [26, 1, 2, 0]);
  });

  const malformed: { name: string; wire: string; reason: RegExp }[] = [
    { name: "a header cut short", wire: "10000000 1800", reason: /message flags: need 2 bytes, have 0/ },
    { name: "a length less than the header", wire: "08000000 18000000 00000000 00000000", reason: /its length is 8/ },
    { name: "a length beyond the end", wire: "20000000 18000000 00000000 00000000", reason: /type 24: need 16 bytes/ },
  ];
  for (const { name, wire, reason } of malformed) {
    test(`are refused: ${name}`, () => {
      assert.throws(
        () => decodeMessages(fromHex(wire)),
        (error) => error instanceof MalformedBytes && reason.test(error.message),
      );
    });
  }

  test("any bytes are messages or MalformedBytes", () => {
    const property = fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
      try {
        for (const message of decodeMessages(bytes)) readAnswer(message);
      } catch (error) {
        assert.ok(error instanceof MalformedBytes, String(error));
      }
    });
    fc.assert(property, { numRuns: 1000 });
  });
});

describe("answers", () => {
  const request = "34000000 18000506 01000000 00000000";
  const unreachable = "9bffffff"; // -101 ENETUNREACH
  const sentence = "20000100 4e657874686f702068617320696e76616c6964206761746577617900";
  const answers: { name: string; wire: string; answer: Answer }[] = [
    {
      name: "done well",
      wire: `24000000 02000001 01000000 00000000 00000000 ${request}`,
      answer: { kind: "acknowledgement", acknowledgement: { errno: 0 } },
    },
    {
      name: "refused, with the kernel's sentence",
      wire: `44000000 02000003 01000000 00000000 ${unreachable} ${request} ${sentence}`,
      answer: { kind: "acknowledgement", acknowledgement: { errno: 101, text: "Nexthop has invalid gateway" } },
    },
    {
      name: "refused, with the place of the attribute at fault",
      wire: `2c000000 02000003 01000000 00000000 ${unreachable} ${request} 08000200 24000000`,
      answer: { kind: "acknowledgement", acknowledgement: { errno: 101, offset: 36 } },
    },
    {
      name: "refused, with the whole request before the sentence",
      wire: `4c000000 02000002 01000000 00000000 ${unreachable} 18000000 18000506 01000000 00000000 02000000 0a000000 ${sentence}`,
      answer: { kind: "acknowledgement", acknowledgement: { errno: 101, text: "Nexthop has invalid gateway" } },
    },
    {
      name: "the end of a list",
      wire: "14000000 03000200 01000000 00000000 00000000",
      answer: { kind: "done", acknowledgement: { errno: 0 } },
    },
    {
      name: "the end of a list without a word",
      wire: "10000000 03000200 01000000 00000000",
      answer: { kind: "done", acknowledgement: { errno: 0 } },
    },
    {
      name: "a list that broke off",
      wire: "14000000 03000200 01000000 00000000 feffffff",
      answer: { kind: "done", acknowledgement: { errno: 2 } },
    },
    { name: "lost messages", wire: "10000000 04000000 01000000 00000000", answer: { kind: "overrun" } },
    { name: "nothing", wire: "10000000 01000000 01000000 00000000", answer: { kind: "nothing" } },
  ];
  for (const { name, wire, answer } of answers) {
    test(name, () => {
      const [message] = decodeMessages(fromHex(wire));
      assert.ok(message);
      assert.deepEqual(readAnswer(message), answer);
    });
  }
});
