import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseAddress } from "../ip/address.ts";
import { ByteReader, ByteWriter, fromHex, MalformedBytes, toHex } from "../lib/bytes.ts";
import {
  address,
  type Attributes,
  attributeTable,
  be16,
  bool,
  decodeAttributes,
  encodeAttributes,
  i32,
  linkAddress,
  nested,
  raw,
  row,
  text,
  u16,
  u32,
  u8,
  word,
} from "./attributes.ts";

const ROWS = {
  u8: row(1, u8),
  u16: row(2, u16),
  u32: row(3, u32),
  i32: row(4, i32),
  be16: row(5, be16),
  bool: row(6, bool),
  text: row(7, text),
  word: row(8, word),
  raw: row(9, raw),
  address: row(10, address),
  mac: row(11, linkAddress),
  inner: row(12, nested(attributeTable({ u32: row(1, u32), text: row(2, text) }))),
};
const TABLE = attributeTable(ROWS);

function encode(values: Attributes<typeof ROWS>): string {
  const writer = new ByteWriter();
  encodeAttributes(writer, TABLE, values);
  return toHex(writer.finish());
}
const decode = (hex: string) => decodeAttributes(new ByteReader(fromHex(hex)), TABLE);

describe("attributes", () => {
  const written: { name: string; values: Attributes<typeof ROWS>; wire: string }[] = [
    { name: "one byte, padded", values: { u8: 7 }, wire: "05000100 07000000" },
    { name: "little endian", values: { u16: 0x1234, u32: 0x12345678 }, wire: "06000200 34120000 08000300 78563412" },
    { name: "negative", values: { i32: -2 }, wire: "08000400 feffffff" },
    { name: "network order", values: { be16: 4789 }, wire: "06000500 12b50000" },
    { name: "yes and no", values: { bool: true }, wire: "05000600 01000000" },
    { name: "text ends in zero", values: { text: "eth0" }, wire: "09000700 65746830 00000000" },
    { name: "a word does not", values: { word: "veth" }, wire: "08000800 76657468" },
    { name: "IPv4", values: { address: parseAddress("192.0.2.7") }, wire: "08000a00 c0000207" },
    {
      name: "IPv6",
      values: { address: parseAddress("2001:db8::7") },
      wire: "14000a00 20010db8 00000000 00000000 00000007",
    },
    { name: "a MAC", values: { mac: "ee:ee:ee:ee:ee:01" }, wire: "0a000b00 eeeeeeee ee010000" },
    { name: "nested", values: { inner: { u32: 1, text: "x" } }, wire: "14000c00 08000100 01000000 06000200 78000000" },
    { name: "empty nest", values: { inner: {} }, wire: "04000c00" },
    { name: "in the table's order", values: { u16: 2, u8: 1 }, wire: "05000100 01000000 06000200 02000000" },
    { name: "what is undefined is left out", values: { u8: undefined }, wire: "" },
  ];
  for (const { name, values, wire } of written) {
    test(`are written: ${name}`, () => assert.equal(encode(values), wire.replaceAll(" ", "")));
    test(`are read: ${name}`, () => {
      const given = Object.entries(values).filter(([, value]) => value !== undefined);
      assert.deepEqual(decode(wire), Object.fromEntries(given));
    });
  }

  const odd: { name: string; wire: string; values: Attributes<typeof ROWS> }[] = [
    { name: "an unknown attribute is skipped", wire: "08006300 01020304 05000100 07000000", values: { u8: 7 } },
    { name: "flags of the type are ignored", wire: "04000cc0", values: { inner: {} } },
    { name: "the last of two counts", wire: "05000100 01000000 05000100 02000000", values: { u8: 2 } },
    { name: "padding may miss at the end", wire: "05000100 07", values: { u8: 7 } },
    { name: "a rest shorter than a header is padding", wire: "05000100 07000000 0000", values: { u8: 7 } },
    { name: "longer numbers of newer kernels", wire: "0c000300 01000000 02000000", values: { u32: 1 } },
    { name: "text without its zero", wire: "08000700 65746830", values: { text: "eth0" } },
  ];
  for (const { name, wire, values } of odd) {
    test(name, () => assert.deepEqual(decode(wire), values));
  }

  const malformed: { name: string; wire: string; reason: RegExp }[] = [
    { name: "a length less than the header", wire: "03000100", reason: /attribute 1: its length is 3, less than its/ },
    { name: "a length of zero", wire: "00000000 00000000", reason: /its length is 0/ },
    { name: "a length beyond the end", wire: "0c000300 01000000", reason: /attribute 3: need 8 bytes, have 4/ },
    { name: "a number cut short", wire: "06000300 0100", reason: /u32: need 4 bytes, have 2/ },
    {
      name: "an address of 5 bytes",
      wire: "09000a00 c000020701",
      reason: /address: an address has 4 or 16 bytes, not 5/,
    },
    { name: "a bad nest", wire: "08000c00 ff000100", reason: /attribute 1: need 251 bytes, have 0/ },
  ];
  for (const { name, wire, reason } of malformed) {
    test(`are refused: ${name}`, () => {
      assert.throws(
        () => decode(wire),
        (error) => error instanceof MalformedBytes && reason.test(error.message),
      );
    });
  }

  test("a value that its length cannot say is not written", () => {
    assert.throws(() => encode({ raw: new Uint8Array(65532) }), /attribute 9 has 65536 bytes/);
  });
  test("a MAC that is none is not written", () => {
    for (const mac of ["ee:ee:ee:ee:ee:g0", "eeeeeeeeeeee", "", "1:2:3:4:5:6"]) {
      assert.throws(() => encode({ mac }), /is not a link address/);
    }
  });

  test("what is read keeps nothing of the buffer, which is used again", () => {
    const bytes = fromHex("08000900 01020304");
    const { raw: value } = decodeAttributes(new ByteReader(bytes), TABLE);
    bytes.fill(0);
    assert.deepEqual(value, Uint8Array.of(1, 2, 3, 4));
  });

  test("any bytes are attributes or MalformedBytes", () => {
    const property = fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        decodeAttributes(new ByteReader(bytes), TABLE);
      } catch (error) {
        assert.ok(error instanceof MalformedBytes, String(error));
      }
    });
    fc.assert(property, { numRuns: 1000 });
  });
});
