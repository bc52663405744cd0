import { ByteReader } from "../lib/bytes.ts";
import { MESSAGE } from "./constants.ts";

// What goes wrong with messages.

/** Numbers from 0 up to, not including, `below`. */
export type Dice = (below: number) => number;

/** Mulberry32: the same numbers for the same seed. */
export function diceOf(seed: number): Dice {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let word = Math.imul(state ^ (state >>> 15), state | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return Math.floor((((word ^ (word >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const TELLING = [0, 1, 2, 3, 4, 8, 16, 24, 32, 33, 64, 127, 128, 129, 192, 223, 224, 254, 255];

/** Some things wrong with a message, or with two put together. */
export function mutate(message: Uint8Array, other: Uint8Array, dice: Dice): Uint8Array {
  const [parts, others] = [takeApart(message), takeApart(other)];
  if (parts === undefined || others === undefined || dice(10) < 3) return mutateBytes(message, other, dice);
  return putTogether(mutateAttributes(parts, others, dice));
}

/** An UPDATE's withdrawn routes, its attributes each with its header, and its routes. */
export interface Parts {
  readonly withdrawn: readonly number[];
  readonly attributes: readonly { readonly flags: number; readonly code: number; readonly value: readonly number[] }[];
  readonly announced: readonly number[];
}

/** Undefined for what is no UPDATE with attributes. */
export function takeApart(message: Uint8Array): Parts | undefined {
  if (message[18] !== MESSAGE.update) return undefined;
  const reader = new ByteReader(message, 19);
  const withdrawn = [...reader.take(reader.u16("withdrawn"), "withdrawn")];
  const list = reader.sub(reader.u16("attributes"), "attributes");
  const attributes = [];
  while (list.remaining > 0) {
    const [flags, code] = [list.u8("flags"), list.u8("code")];
    const length = (flags & 16) !== 0 ? list.u16("length") : list.u8("length");
    attributes.push({ flags: flags & ~16, code, value: [...list.take(length, "value")] });
  }
  return attributes.length === 0 ? undefined : { withdrawn, attributes, announced: [...reader.rest()] };
}

function putTogether({ withdrawn, attributes, announced }: Parts): Uint8Array {
  const u16 = (value: number): number[] => [value >> 8, value & 255];
  const list = attributes.flatMap(({ flags, code, value }) =>
    value.length > 255
      ? [flags | 16, code, ...u16(value.length), ...value]
      : [flags & ~16, code, value.length, ...value],
  );
  const body = [...u16(withdrawn.length), ...withdrawn, ...u16(list.length), ...list, ...announced];
  return Uint8Array.from([...Array<number>(16).fill(255), ...u16(19 + body.length), MESSAGE.update, ...body]);
}

/** Its attributes are wrong, and all lengths around them right: what RFC 7606 is about. */
function mutateAttributes(parts: Parts, others: Parts, dice: Dice): Parts {
  let attributes = [...parts.attributes];
  for (let left = 1 + dice(3); left > 0; left -= 1) {
    const at = dice(attributes.length);
    const chosen = attributes[at]!;
    const value = [...chosen.value];
    switch (dice(8)) {
      case 0:
        attributes[at] = { ...chosen, flags: dice(256) };
        continue;
      case 1:
        attributes[at] = { ...chosen, code: dice(3) === 0 ? dice(256) : 1 + dice(18) };
        continue;
      case 2:
        attributes = attributes.length > 1 ? attributes.toSpliced(at, 1) : attributes;
        continue;
      case 3:
        attributes = attributes.toSpliced(dice(attributes.length + 1), 0, chosen);
        continue;
      case 4:
        attributes = attributes.toSpliced(at, 0, others.attributes[dice(others.attributes.length)]!);
        continue;
      case 5:
        value.splice(dice(value.length + 1), dice(6), ...Array.from({ length: dice(6) }, () => dice(256)));
        break;
      case 6:
        value.splice(dice(value.length + 1));
        break;
      default:
        if (value.length > 0) value[dice(value.length)] = dice(2) === 0 ? dice(256) : TELLING[dice(TELLING.length)]!;
    }
    attributes[at] = { ...chosen, value };
  }
  const from = dice(6) === 0 ? others : parts;
  return { attributes, withdrawn: from.withdrawn, announced: from.announced };
}

/** One to three bytes or runs of bytes are wrong; mostly with lengths that are right again. */
function mutateBytes(message: Uint8Array, other: Uint8Array, dice: Dice): Uint8Array {
  let bytes = [...message];
  const at = (): number => 16 + dice(Math.max(1, bytes.length - 16));
  for (let left = 1 + dice(3); left > 0; left -= 1) {
    switch (dice(8)) {
      case 0:
        bytes[at()]! ^= 1 << dice(8);
        break;
      case 1:
        bytes[at()] = TELLING[dice(TELLING.length)]!;
        break;
      case 2:
        bytes.splice(at(), 1 + dice(8));
        break;
      case 3:
        bytes.splice(at(), 0, ...Array.from({ length: 1 + dice(8) }, () => dice(256)));
        break;
      case 4: {
        const start = at();
        bytes.splice(at(), 0, ...bytes.slice(start, start + 1 + dice(40)));
        break;
      }
      case 5:
        bytes = bytes.slice(0, at() + 1);
        break;
      case 6: {
        const start = 19 + dice(Math.max(1, other.length - 19));
        bytes.splice(at(), dice(20), ...other.subarray(start, start + 1 + dice(60)));
        break;
      }
      default:
        bytes[dice(8) === 0 ? dice(16) : at()] = dice(256);
    }
  }
  while (bytes.length < 19) bytes.push(0);
  const mutant = Uint8Array.from(bytes);
  if (dice(8) > 0) mend(mutant, dice(4) > 0);
  return mutant;
}

/** Makes the length of the message right, and where it is an UPDATE perhaps also that of its attributes. */
function mend(bytes: Uint8Array, attributes: boolean): void {
  bytes.fill(255, 0, 16);
  bytes[16] = bytes.length >> 8;
  bytes[17] = bytes.length & 255;
  if (!attributes || bytes[18] !== MESSAGE.update || bytes.length < 23) return;
  const withdrawn = (bytes[19]! << 8) | bytes[20]!;
  const lengths = 21 + withdrawn;
  if (lengths + 2 > bytes.length) return;
  let end = lengths + 2;
  while (end + 3 <= bytes.length) {
    const extended = (bytes[end]! & 0x10) !== 0;
    const length = extended ? (bytes[end + 2]! << 8) | (bytes[end + 3] ?? 0) : bytes[end + 2]!;
    if (bytes[end]! < 0x40 || end + (extended ? 4 : 3) + length > bytes.length) break;
    end += (extended ? 4 : 3) + length;
  }
  bytes[lengths] = (end - lengths - 2) >> 8;
  bytes[lengths + 1] = (end - lengths - 2) & 255;
}
