import { addressBits, type Family } from "../ip/address.ts";
import { ATTRIBUTES, EXTENDED_LENGTH, MP_REACH, MP_UNREACH, OPTIONAL, TRANSITIVE } from "./attributes.ts";
import { AFI, SAFI_UNICAST } from "./constants.ts";
import type { NlriRange } from "./nlri.ts";
import type { UpdateContext } from "./update.ts";

// The fast form of `splitUpdate` and `decodeAnnouncement`, for the messages that a table of a million prefixes is made
// of: it checks what they check, and gives the attributes in their canonical form (`attribute-bytes.ts`) without making
// an object of any. It gives up on all that is rare or wrong, for the clear form to say what that is.

const CODES = Object.values(ATTRIBUTES)
  .map(({ code }) => code)
  .filter((code) => code !== ATTRIBUTES.as4Path.code && code !== ATTRIBUTES.as4Aggregator.code)
  .toSorted((a, b) => a - b);
const LARGEST_CODE = 32;
const CLASS_BITS = OPTIONAL | TRANSITIVE;
const NEVER = 255;
/** The bits that the flags of an attribute must have, by its code; `NEVER` for those that the clear form reads. */
const FLAGS = new Uint8Array(256).fill(NEVER);
const INTERNAL_ONLY = new Uint8Array(256);
for (const { code, flags, internalOnly } of Object.values(ATTRIBUTES)) {
  if (!CODES.includes(code)) continue;
  FLAGS[code] = flags & CLASS_BITS;
  INTERNAL_ONLY[code] = Number(internalOnly === true);
}
FLAGS[MP_REACH] = OPTIONAL;
FLAGS[MP_UNREACH] = OPTIONAL;

const [ORIGIN, AS_PATH, NEXT_HOP, LOCAL_PREF] = [1, 2, 3, 5];
/** More than the attributes of the longest message, and a next hop. */
const LONGEST = 65_536 + 64;

export class UpdateScanner {
  /** Prefixes of the last message: all are checked, and only what the message has is there. */
  withdrawn: NlriRange | undefined;
  announced: NlriRange | undefined;
  /** The attributes of `announced`. */
  readonly canonical = new Uint8Array(LONGEST);
  canonicalLength = 0;
  // By code: where its header begins, its value, and its end.
  readonly #start = new Int32Array(LARGEST_CODE + 1);
  readonly #value = new Int32Array(LARGEST_CODE + 1);
  readonly #end = new Int32Array(LARGEST_CODE + 1);

  /** Whether the body of the UPDATE at `start` to `end` is one that can be read here. */
  scan(bytes: Uint8Array, start: number, end: number, context: UpdateContext): boolean {
    this.withdrawn = undefined;
    this.announced = undefined;
    if (context.asOctets !== 4 || end - start <= 4) return false;
    const withdrawn = start + 2;
    const lengths = withdrawn + u16(bytes, start);
    if (lengths + 2 > end) return false;
    const list = lengths + 2;
    const announced = list + u16(bytes, lengths);
    if (announced > end) return false;
    if (!this.#attributes(bytes, list, announced, context)) return false;
    const multiprotocol = this.#has(MP_REACH) || this.#has(MP_UNREACH);
    if (!multiprotocol) {
      if (lengths > withdrawn && !this.#take(bytes, 4, withdrawn, lengths, context, "withdrawn")) return false;
      if (announced === end) return true;
      if (!this.#take(bytes, 4, announced, end, context, "announced")) return false;
      return this.#finish(bytes, context, 0, 0);
    }
    if (lengths > withdrawn || announced < end) return false;
    return this.#multiprotocol(bytes, context);
  }

  #has(code: number): boolean {
    return this.#start[code] !== 0;
  }

  #multiprotocol(bytes: Uint8Array, context: UpdateContext): boolean {
    if (this.#has(MP_UNREACH)) {
      const at = this.#value[MP_UNREACH]!;
      const to = this.#end[MP_UNREACH]!;
      // Without prefixes, it may mark the end of a table.
      if (to - at <= 3) return false;
      const family = familyAt(bytes, at);
      if (family === undefined || !this.#take(bytes, family, at + 3, to, context, "withdrawn")) return false;
    }
    if (!this.#has(MP_REACH)) return true;
    const at = this.#value[MP_REACH]!;
    const to = this.#end[MP_REACH]!;
    if (to - at < 5) return false;
    const family = familyAt(bytes, at);
    const hops = bytes[at + 3]!;
    const nlri = at + 5 + hops;
    if (family === undefined || nlri >= to) return false;
    const classic = hops === 4 && family === 4;
    if (!classic && ((hops !== 16 && hops !== 32) || (family === 4 && context.extendedNextHop !== true))) return false;
    if (classic ? !isHost4(bytes, at + 4) : !isHost6(bytes, at + 4)) return false;
    if (!this.#take(bytes, family, nlri, to, context, "announced")) return false;
    return this.#finish(bytes, context, at + 4, hops);
  }

  /** Finds the attributes, and checks their values. */
  #attributes(bytes: Uint8Array, list: number, end: number, { internal }: UpdateContext): boolean {
    this.#start.fill(0);
    let at = list;
    while (at < end) {
      const flags = bytes[at]!;
      const extended = (flags & EXTENDED_LENGTH) !== 0;
      const value = at + (extended ? 4 : 3);
      if (value > end) return false;
      const code = bytes[at + 1]!;
      const next = value + (extended ? u16(bytes, at + 2) : bytes[at + 2]!);
      if (next > end || (flags & CLASS_BITS) !== FLAGS[code] || this.#start[code] !== 0) return false;
      if (!internal && INTERNAL_ONLY[code] === 1) return false;
      if (!isWellFormed(bytes, code, value, next)) return false;
      this.#start[code] = at;
      this.#value[code] = value;
      this.#end[code] = next;
      at = next;
    }
    return true;
  }

  /** Checks a run of prefixes, and keeps it. */
  #take(
    bytes: Uint8Array,
    family: Family,
    start: number,
    end: number,
    context: UpdateContext,
    as: "withdrawn" | "announced",
  ): boolean {
    const longest = addressBits(family);
    const addPath = context.addPath.has(family);
    const before = addPath ? 4 : 0;
    let at = start;
    while (at < end) {
      if (at + before >= end) return false;
      const length = bytes[at + before]!;
      if (length > longest) return false;
      at += before + 1 + ((length + 7) >> 3);
    }
    this[as] = { family, bytes, start, end, addPath };
    return at === end;
  }

  /** Puts the attributes in order; the next hop is one of IPv6 at `hop`, or one of IPv4, or the attribute's. */
  #finish(bytes: Uint8Array, { internal }: UpdateContext, hop: number, hopLength: number): boolean {
    if (!this.#has(ORIGIN) || !this.#has(AS_PATH) || (internal && !this.#has(LOCAL_PREF))) return false;
    if (hopLength === 0 && !this.#has(NEXT_HOP)) return false;
    const out = this.canonical;
    let to = 1;
    out[0] = 0;
    if (hopLength >= 16) {
      // A link-local next hop of all zeros is none.
      const length = hopLength === 32 && isZero(bytes, hop + 16, hop + 32) ? 16 : hopLength;
      out[0] = length;
      for (let index = 0; index < length; index += 1) out[to + index] = bytes[hop + index]!;
      to += length;
    }
    for (const code of CODES) {
      if (code === NEXT_HOP && hopLength > 0) {
        if (hopLength !== 4) continue;
        out[to] = TRANSITIVE;
        out[to + 1] = NEXT_HOP;
        out[to + 2] = 4;
        for (let index = 0; index < 4; index += 1) out[to + 3 + index] = bytes[hop + index]!;
        to += 7;
        continue;
      }
      if (this.#start[code] === 0) continue;
      const end = this.#end[code]!;
      let from = this.#value[code]!;
      const length = end - from;
      out[to] = FLAGS[code]! | (length > 255 ? EXTENDED_LENGTH : 0);
      out[to + 1] = code;
      if (length > 255) {
        out[to + 2] = length >> 8;
        out[to + 3] = length & 255;
        to += 4;
      } else {
        out[to + 2] = length;
        to += 3;
      }
      for (; from < end; from += 1, to += 1) out[to] = bytes[from]!;
    }
    this.canonicalLength = to;
    return true;
  }
}

function isWellFormed(bytes: Uint8Array, code: number, start: number, end: number): boolean {
  const length = end - start;
  switch (code) {
    case ORIGIN:
      return length === 1 && bytes[start]! <= 2;
    case AS_PATH:
      return isAsPath(bytes, start, end);
    case NEXT_HOP:
      return length === 4 && isHost4(bytes, start);
    case ATTRIBUTES.med.code:
    case LOCAL_PREF:
    case ATTRIBUTES.originatorId.code:
      return length === 4;
    case ATTRIBUTES.atomicAggregate.code:
      return length === 0;
    case ATTRIBUTES.aggregator.code:
      return length === 8;
    case ATTRIBUTES.communities.code:
    case ATTRIBUTES.clusterList.code:
      return length > 0 && length % 4 === 0;
    case ATTRIBUTES.extendedCommunities.code:
      return length > 0 && length % 8 === 0;
    case ATTRIBUTES.largeCommunities.code:
      return length > 0 && length % 12 === 0;
    default:
      return code === MP_REACH || code === MP_UNREACH;
  }
}

function isAsPath(bytes: Uint8Array, start: number, end: number): boolean {
  let at = start;
  while (at < end) {
    if (at + 2 > end) return false;
    const type = bytes[at]!;
    const next = at + 2 + 4 * bytes[at + 1]!;
    if ((type !== 1 && type !== 2) || next === at + 2 || next > end) return false;
    for (at += 2; at < next; at += 4) if (isZero(bytes, at, at + 4)) return false;
  }
  return true;
}

/** As `checkNextHop`. */
function isHost4(bytes: Uint8Array, at: number): boolean {
  const top = bytes[at]!;
  return top !== 0 && top !== 127 && top < 224;
}

function isHost6(bytes: Uint8Array, at: number): boolean {
  return bytes[at] !== 255 && !(isZero(bytes, at, at + 15) && bytes[at + 15]! <= 1);
}

function familyAt(bytes: Uint8Array, at: number): Family | undefined {
  if (bytes[at + 2] !== SAFI_UNICAST) return undefined;
  const afi = u16(bytes, at);
  return afi === AFI[4] ? 4 : afi === AFI[6] ? 6 : undefined;
}

function isZero(bytes: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) if (bytes[at] !== 0) return false;
  return true;
}

function u16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}
