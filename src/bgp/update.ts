import { addressFromBytes, addressToBytes, type Address, type Family } from "../ip/address.ts";
import { ByteReader, ByteWriter, MalformedBytes } from "../lib/bytes.ts";
import {
  decodeAttributes,
  encodeAttributes,
  missingAttribute,
  scanAttributes,
  writeAttribute,
  type AttributeHeaders,
  type RawAttribute,
} from "./attribute-list.ts";
import {
  MP_REACH,
  MP_UNREACH,
  nextHopFault,
  OPTIONAL,
  type AttributeContext,
  type PathAttributes,
} from "./attributes.ts";
import { AFI, familyOf, HEADER_LENGTH, MESSAGE, SAFI_UNICAST } from "./constants.ts";
import { startMessage, finishMessage } from "./message.ts";
import { checkNlri, encodeNlri, type Nlri, type NlriRange } from "./nlri.ts";
import { notification, ProtocolError, UPDATE_ERROR } from "./notification.ts";

/** What two speakers agreed on that changes how an UPDATE reads. */
export interface UpdateContext extends AttributeContext {
  /** Families whose prefixes carry path identifiers, in the direction at hand (RFC 7911). */
  readonly addPath: ReadonlySet<Family>;
  /** IPv4 routes may have IPv6 next hops (RFC 8950). */
  readonly extendedNextHop?: boolean;
}

/** MP_REACH_NLRI (RFC 4760 section 3). */
export interface Reach {
  readonly nextHop: Address;
  readonly linkLocalNextHop?: Address;
  readonly nlri: NlriRange;
}

/** An UPDATE taken apart as far as it takes to find the prefixes. */
export interface UpdateSections {
  readonly bytes: Uint8Array;
  readonly withdrawn: NlriRange;
  readonly announced: NlriRange;
  readonly reach?: Reach;
  readonly unreach?: NlriRange;
  readonly attributes: AttributeHeaders;
  /** Set where the message says only that all of a family was told (RFC 4724 section 2). */
  readonly endOfRib?: Family;
}

/**
 * Takes apart the body of an UPDATE at `start` to `end`. All prefixes in it have been checked when this returns. Throws
 * `ProtocolError` where they cannot be found or read, which is all that RFC 7606 leaves to end a session for.
 */
export function splitUpdate(bytes: Uint8Array, start: number, end: number, context: UpdateContext): UpdateSections {
  const reader = new ByteReader(bytes, start, end);
  const withdrawn = section(reader, "withdrawn routes");
  const list = section(reader, "path attributes");
  const classic = (at: number, to: number): NlriRange => ({
    family: 4,
    bytes,
    start: at,
    end: to,
    addPath: context.addPath.has(4),
  });
  const attributes = scanAttributes(bytes, list.start, list.end);
  const sections = {
    bytes,
    withdrawn: classic(withdrawn.start, withdrawn.end),
    announced: classic(reader.offset, end),
    attributes,
  };
  checkNlri(sections.withdrawn);
  checkNlri(sections.announced);

  const multiprotocol = attributes.headers.filter(({ code }) => code === MP_REACH || code === MP_UNREACH);
  if (multiprotocol.length === 0) {
    return end - start === 4 ? { ...sections, endOfRib: 4 } : sections;
  }
  const reach = readOnce(multiprotocol, MP_REACH, (header) => decodeReach(bytes, header, context));
  const unreach = readOnce(multiprotocol, MP_UNREACH, (header) => decodeUnreach(bytes, header, context));
  const alone = attributes.headers.length === 1 && attributes.overrun === undefined && reader.remaining === 0;
  const endOfRib = alone && withdrawn.start === withdrawn.end && unreach?.start === unreach?.end;
  return {
    ...sections,
    ...(reach !== undefined && { reach }),
    ...(unreach !== undefined && { unreach }),
    ...(endOfRib && unreach !== undefined && { endOfRib: unreach.family }),
  };
}

/** The routes of an UPDATE that share attributes: one set for the classic fields, one for MP_REACH_NLRI. */
export interface Announcement {
  readonly nlri: NlriRange;
  readonly attributes: PathAttributes;
}

export interface Update {
  readonly withdrawn: readonly NlriRange[];
  readonly announced: readonly Announcement[];
  readonly endOfRib?: Family;
  /** Why announced routes were moved to the withdrawn ones (RFC 7606). */
  readonly treatedAsWithdraw?: string;
  readonly discarded: readonly string[];
}

/** The attributes of the routes in `nlri`, which is one of the two ranges that announce; or why they are withdrawn. */
export function decodeAnnouncement(
  sections: UpdateSections,
  nlri: NlriRange,
  context: UpdateContext,
): { attributes: PathAttributes; withdraw?: string; discarded: readonly string[] } {
  const { reach, attributes: headers } = sections;
  const classic = nlri === sections.announced;
  const decoded = decodeAttributes(sections.bytes, headers, context);
  // The prefixes could be found, so that RFC 7606 asks for no more.
  const hopless = classic || reach === undefined ? undefined : nextHopFault(reach.nextHop);
  const withdraw = decoded.withdraw ?? missingAttribute(headers.headers, classic, context) ?? hopless;
  const result = { discarded: decoded.discarded, ...(withdraw !== undefined && { withdraw }) };
  if (classic || reach === undefined) return { ...result, attributes: decoded.attributes };
  const { nextHop, linkLocalNextHop } = reach;
  return {
    ...result,
    attributes: { ...decoded.attributes, nextHop, ...(linkLocalNextHop !== undefined && { linkLocalNextHop }) },
  };
}

/** The clear form of reading an UPDATE, whole. */
export function decodeUpdate(bytes: Uint8Array, start: number, end: number, context: UpdateContext): Update {
  const sections = splitUpdate(bytes, start, end, context);
  const { reach, unreach, endOfRib } = sections;
  const withdrawn = [sections.withdrawn, ...(unreach ? [unreach] : [])].filter((range) => range.start < range.end);
  const announced: Announcement[] = [];
  let treatedAsWithdraw: string | undefined;
  let discarded: readonly string[] = [];
  for (const nlri of [sections.announced, ...(reach ? [reach.nlri] : [])]) {
    if (nlri.start === nlri.end) continue;
    const decoded = decodeAnnouncement(sections, nlri, context);
    discarded = decoded.discarded;
    treatedAsWithdraw ??= decoded.withdraw;
    if (decoded.withdraw === undefined) announced.push({ nlri, attributes: decoded.attributes });
    else withdrawn.push(nlri);
  }
  return {
    withdrawn,
    announced,
    discarded,
    ...(endOfRib !== undefined && { endOfRib }),
    ...(treatedAsWithdraw !== undefined && { treatedAsWithdraw }),
  };
}

/** Routes of one family to announce with the same attributes, or to withdraw. */
export interface UpdateToSend {
  readonly family: Family;
  readonly withdrawn?: readonly Nlri[];
  readonly announced?: { readonly nlri: readonly Nlri[]; readonly attributes: PathAttributes };
}

/** The clear form of writing an UPDATE: the caller sees to it that everything fits into one message. */
export function encodeUpdate({ family, withdrawn = [], announced }: UpdateToSend, context: UpdateContext): Uint8Array {
  const writer = new ByteWriter();
  const message = startMessage(writer, MESSAGE.update);
  const addPath = context.addPath.has(family);
  const inReach = family === 6 || announced?.attributes.nextHop?.family === 6;
  const nlriOf = (routes: readonly Nlri[]) => () => {
    for (const route of routes) encodeNlri(writer, route, addPath);
  };
  measured(writer, family === 4 ? nlriOf(withdrawn) : () => undefined);
  measured(writer, () => {
    if (family === 6 && withdrawn.length > 0) {
      const value = new ByteWriter();
      value.u16(AFI[6]);
      value.u8(SAFI_UNICAST);
      for (const route of withdrawn) encodeNlri(value, route, addPath);
      writeAttribute(writer, OPTIONAL, MP_UNREACH, value.finish());
    }
    if (announced === undefined) return;
    if (inReach) {
      const value = new ByteWriter();
      writeReachHead(value, family, announced.attributes);
      for (const route of announced.nlri) encodeNlri(value, route, addPath);
      writeAttribute(writer, OPTIONAL, MP_REACH, value.finish());
    }
    encodeAttributes(writer, announced.attributes, context, !inReach);
  });
  if (!inReach && announced !== undefined) nlriOf(announced.nlri)();
  finishMessage(writer, message);
  return writer.finish();
}

/** MP_REACH_NLRI up to its prefixes. */
export function writeReachHead(
  writer: ByteWriter,
  family: Family,
  { nextHop, linkLocalNextHop }: PathAttributes,
): void {
  if (nextHop === undefined) throw new MalformedBytes("a route needs a next hop to be announced in MP_REACH_NLRI");
  writer.u16(AFI[family]);
  writer.u8(SAFI_UNICAST);
  const hops = [nextHop, ...(linkLocalNextHop === undefined ? [] : [linkLocalNextHop])].map(addressToBytes);
  writer.u8(hops.reduce((length, hop) => length + hop.length, 0));
  for (const hop of hops) writer.raw(hop);
  writer.u8(0);
}

/** The marker of RFC 4724 section 2: an UPDATE that says nothing. */
export function encodeEndOfRib(family: Family): Uint8Array {
  const writer = new ByteWriter(HEADER_LENGTH + 10);
  const message = startMessage(writer, MESSAGE.update);
  writer.u16(0);
  measured(writer, () => {
    if (family === 4) return;
    writeAttribute(writer, OPTIONAL, MP_UNREACH, Uint8Array.of(0, AFI[6], SAFI_UNICAST));
  });
  finishMessage(writer, message);
  return writer.finish();
}

function section(reader: ByteReader, name: string): { start: number; end: number } {
  if (reader.remaining < 2) throw malformed(`the length of the ${name} is cut short`);
  const length = reader.u16(name);
  if (length > reader.remaining) throw malformed(`${name}: need ${length} bytes, have ${reader.remaining}`);
  const start = reader.offset;
  reader.skip(length, name);
  return { start, end: start + length };
}

function readOnce<Value>(
  headers: readonly RawAttribute[],
  code: number,
  decode: (header: RawAttribute) => Value | undefined,
): Value | undefined {
  const [first, second] = headers.filter((header) => header.code === code);
  if (second !== undefined) throw malformed(`attribute ${code} stands more than once`); // RFC 7606 section 3 (g)
  return first === undefined ? undefined : decode(first);
}

function decodeReach(bytes: Uint8Array, { value, end }: RawAttribute, context: UpdateContext): Reach | undefined {
  try {
    const reader = new ByteReader(bytes, value, end);
    const family = familyOf(reader.u16("MP_REACH_NLRI AFI"), reader.u8("MP_REACH_NLRI SAFI"));
    const hops = reader.sub(reader.u8("next hop length"), "MP_REACH_NLRI next hop");
    reader.skip(1, "MP_REACH_NLRI reserved");
    if (family === undefined) return undefined;
    // RFC 8950 section 3: the length says of which family the next hop of an IPv4 route is.
    const lengths = family === 6 ? [16, 32] : context.extendedNextHop ? [4, 16, 32] : [4];
    if (!lengths.includes(hops.remaining)) {
      throw new MalformedBytes(`the next hop of an IPv${family} route cannot have ${hops.remaining} bytes`);
    }
    const size = hops.remaining === 4 ? 4 : 16;
    const first = addressFromBytes(hops.take(size, "next hop"));
    const linkLocalNextHop = hops.remaining > 0 ? addressFromBytes(hops.take(16, "link-local next hop")) : undefined;
    const nlri = { family, bytes, start: reader.offset, end, addPath: context.addPath.has(family) };
    checkNlri(nlri);
    return {
      nextHop: first,
      nlri,
      ...(linkLocalNextHop !== undefined && linkLocalNextHop.value !== 0n && { linkLocalNextHop }),
    };
  } catch (thrown) {
    throw asProtocolError(thrown);
  }
}

function decodeUnreach(bytes: Uint8Array, { value, end }: RawAttribute, context: UpdateContext): NlriRange | undefined {
  try {
    const reader = new ByteReader(bytes, value, end);
    const family = familyOf(reader.u16("MP_UNREACH_NLRI AFI"), reader.u8("MP_UNREACH_NLRI SAFI"));
    if (family === undefined) return undefined;
    const nlri = { family, bytes, start: reader.offset, end, addPath: context.addPath.has(family) };
    checkNlri(nlri);
    return nlri;
  } catch (thrown) {
    throw asProtocolError(thrown);
  }
}

/** RFC 7606 sections 7.11 and 7.12: these two end the session, as the prefixes in them cannot be trusted. */
function asProtocolError(thrown: unknown): unknown {
  if (!(thrown instanceof MalformedBytes)) return thrown;
  return new ProtocolError(notification(UPDATE_ERROR.code, UPDATE_ERROR.optionalAttribute), thrown.message);
}

/** Writes two bytes of length, and what they measure. */
function measured(writer: ByteWriter, write: () => void): void {
  const length = writer.reserve(2);
  write();
  writer.patchU16(length, writer.length - length - 2);
}

function malformed(reason: string): ProtocolError {
  return new ProtocolError(
    notification(UPDATE_ERROR.code, UPDATE_ERROR.malformedAttributes),
    `malformed UPDATE: ${reason}`,
  );
}
