import { Failure } from "./errors.ts";

/** Input that ends before what it announces, or holds what cannot be. */
export class MalformedBytes extends Failure<"malformed"> {
  constructor(message: string) {
    super("malformed", message);
  }
}

/**
 * Reads a message front to back and owns every bounds check: what is cut short throws `MalformedBytes` with the name of
 * the field that could not be read. Plain names are network order (big endian); `…le` is the byte order of the hosts
 * that Caracal runs on, which is what netlink speaks (x86-64 and arm64 are both little endian).
 */
export class ByteReader {
  readonly bytes: Uint8Array;
  readonly end: number;
  offset: number;

  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    if (start < 0 || end > bytes.length || start > end) {
      throw new MalformedBytes(`range ${start}..${end} lies outside ${bytes.length} bytes`);
    }
    this.bytes = bytes;
    this.offset = start;
    this.end = end;
  }

  get remaining(): number {
    return this.end - this.offset;
  }

  /** Moves past `length` bytes and returns where they began. */
  #take(length: number, field: string): number {
    if (length < 0 || length > this.end - this.offset) {
      throw new MalformedBytes(`${field}: need ${length} bytes, have ${this.end - this.offset}`);
    }
    const start = this.offset;
    this.offset += length;
    return start;
  }

  // Plain reads of the array: a DataView for each of the many short readers of a message costs more than what it reads.
  u8(field: string): number {
    return this.bytes[this.#take(1, field)]!;
  }
  u16(field: string): number {
    const at = this.#take(2, field);
    return (this.bytes[at]! << 8) | this.bytes[at + 1]!;
  }
  u32(field: string): number {
    const at = this.#take(4, field);
    const { bytes } = this;
    return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
  }
  u64(field: string): bigint {
    const high = this.u32(field);
    return (BigInt(high) << 32n) | BigInt(this.u32(field));
  }
  u16le(field: string): number {
    const at = this.#take(2, field);
    return this.bytes[at]! | (this.bytes[at + 1]! << 8);
  }
  u32le(field: string): number {
    return this.i32le(field) >>> 0;
  }
  i32le(field: string): number {
    const at = this.#take(4, field);
    const { bytes } = this;
    return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
  }
  u64le(field: string): bigint {
    const low = this.u32le(field);
    return (BigInt(this.u32le(field)) << 32n) | BigInt(low);
  }
  /** A view of the next bytes; copy it to keep it beyond the life of the buffer. */
  take(length: number, field: string): Uint8Array {
    const start = this.#take(length, field);
    return this.bytes.subarray(start, start + length);
  }
  /** A reader of just the next bytes, which this reader skips. */
  sub(length: number, field: string): ByteReader {
    const start = this.#take(length, field);
    return new ByteReader(this.bytes, start, start + length);
  }
  skip(length: number, field: string): void {
    this.#take(length, field);
  }
  /** All that is left. */
  rest(): Uint8Array {
    return this.take(this.remaining, "rest");
  }
}

/** Writes a message front to back into a buffer that grows; lengths that are known late are patched in afterwards. */
export class ByteWriter {
  #bytes: Uint8Array;
  #view: DataView;
  length = 0;

  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** Makes room for `length` bytes and returns where they begin. The room is zero. */
  reserve(length: number): number {
    const start = this.length;
    const needed = start + length;
    if (needed > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
      grown.set(this.#bytes.subarray(0, start));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.length = needed;
    return start;
  }

  u8(value: number): void {
    const at = this.reserve(1);
    this.#view.setUint8(at, value);
  }
  u16(value: number): void {
    const at = this.reserve(2);
    this.#view.setUint16(at, value);
  }
  u32(value: number): void {
    const at = this.reserve(4);
    this.#view.setUint32(at, value);
  }
  u64(value: bigint): void {
    const at = this.reserve(8);
    this.#view.setBigUint64(at, value);
  }
  u16le(value: number): void {
    const at = this.reserve(2);
    this.#view.setUint16(at, value, true);
  }
  u32le(value: number): void {
    const at = this.reserve(4);
    this.#view.setUint32(at, value, true);
  }
  i32le(value: number): void {
    const at = this.reserve(4);
    this.#view.setInt32(at, value, true);
  }
  u64le(value: bigint): void {
    const at = this.reserve(8);
    this.#view.setBigUint64(at, value, true);
  }
  raw(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }
  patchU8(at: number, value: number): void {
    this.#view.setUint8(at, value);
  }
  patchU16(at: number, value: number): void {
    this.#view.setUint16(at, value);
  }
  patchU16le(at: number, value: number): void {
    this.#view.setUint16(at, value, true);
  }
  patchU32le(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }
  /** What was written, without a copy: valid until more is written or `clear` is called. */
  written(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
  /** Begins anew in the same buffer. */
  clear(): void {
    this.#bytes.fill(0, 0, this.length);
    this.length = 0;
  }
  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.length);
  }
}

/** `"40 01 01"` to bytes: for tests and goldens. */
export function fromHex(text: string): Uint8Array {
  const digits = text.replaceAll(/\s/g, "");
  if (digits.length % 2 !== 0 || /[^0-9a-fA-F]/.test(digits)) throw new MalformedBytes(`"${text}" is not hex`);
  return Uint8Array.from({ length: digits.length / 2 }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

/** Lower-case hex, without spaces. */
export function toHex(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}
