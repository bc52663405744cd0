import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ByteReader, ByteWriter, fromHex, MalformedBytes, toHex } from "./bytes.ts";

/** What each kind of number is written and read by, and what DataView says of it. */
const NUMBERS = [
  { name: "u8", size: 1, view: (view: DataView) => view.getUint8(0) },
  { name: "u16", size: 2, view: (view: DataView) => view.getUint16(0) },
  { name: "u32", size: 4, view: (view: DataView) => view.getUint32(0) },
  { name: "u64", size: 8, view: (view: DataView) => view.getBigUint64(0) },
  { name: "u16le", size: 2, view: (view: DataView) => view.getUint16(0, true) },
  { name: "u32le", size: 4, view: (view: DataView) => view.getUint32(0, true) },
  { name: "i32le", size: 4, view: (view: DataView) => view.getInt32(0, true) },
  { name: "u64le", size: 8, view: (view: DataView) => view.getBigUint64(0, true) },
] as const;

for (const { name, size, view } of NUMBERS) {
  test(`${name} reads what DataView reads, and writes it back`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: size, maxLength: size }), (bytes) => {
        const expected = view(new DataView(bytes.buffer, bytes.byteOffset, size));
        const value = new ByteReader(bytes)[name]("field");
        assert.equal(value, expected);
        const writer = new ByteWriter(1);
        (writer[name] as (value: number | bigint) => void).call(writer, value);
        assert.deepEqual(writer.finish(), bytes);
      }),
    );
  });

  test(`${name} says what is missing`, () => {
    const reader = new ByteReader(new Uint8Array(size + 2), 3);
    assert.throws(
      () => reader[name]("hold time"),
      (error) => error instanceof MalformedBytes && /^hold time: need \d bytes, have \d$/.test(error.message),
    );
  });
}

test("a reader of a part stays within it, and leaves the rest to the whole", () => {
  const whole = new ByteReader(fromHex("01 02 03 04 05"));
  const part = whole.sub(2, "part");
  assert.equal(part.u16("both"), 0x0102);
  assert.throws(() => part.u8("third"), /third: need 1 bytes, have 0/);
  assert.equal(whole.u8("third"), 3);
  assert.equal(toHex(whole.rest()), "0405");
  assert.throws(() => whole.sub(1, "more"), MalformedBytes);
});

test("a writer that begins anew has room without what was there before", () => {
  const writer = new ByteWriter(4);
  writer.raw(fromHex("0102030405060708"));
  assert.deepEqual(writer.written(), fromHex("0102030405060708"));
  writer.clear();
  assert.equal(writer.length, 0);
  writer.u8(9);
  writer.reserve(3);
  assert.deepEqual(writer.written(), fromHex("09000000"));
});
