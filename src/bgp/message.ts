import type { Family } from "../ip/address.ts";
import { ByteReader, ByteWriter, MalformedBytes } from "../lib/bytes.ts";
import { decodeCapabilities, encodeCapabilities, type Capabilities } from "./capabilities.ts";
import { AFI, AS_TRANS, familyOf, HEADER_LENGTH, MESSAGE, SAFI_UNICAST, VERSION } from "./constants.ts";
import {
  encodeNotification,
  HEADER_ERROR,
  notification,
  OPEN_ERROR,
  ProtocolError,
  type Notification,
} from "./notification.ts";

/** RFC 4271 section 4.2. */
export interface OpenMessage {
  /** The sender's AS; the four-octet one where the capability gives it. */
  readonly asn: number;
  /** Proposed, in seconds. */
  readonly holdTime: number;
  /** The sender's BGP identifier, as a number. */
  readonly routerId: number;
  readonly capabilities: Capabilities;
}

/** RFC 2918 section 3; the subtype is RFC 7313's: 0 asks for a refresh, 1 and 2 mark its beginning and end. */
export interface RouteRefresh {
  /** Undefined where it is a family that we do not speak. */
  readonly family: Family | undefined;
  readonly subtype: number;
}

/** RFC 7313 section 3.2: BoRR and EoRR go around the routes that answer a request. */
export const REFRESH = { request: 0, begin: 1, end: 2 } as const;

/** Where the body of a whole message lies. */
export interface Frame {
  readonly type: number;
  readonly start: number;
  readonly end: number;
}

/** Shortest and longest message of each type (RFC 4271 section 4, RFC 2918 section 3). */
const LENGTHS: Readonly<Record<number, { readonly least: number; readonly most: number }>> = {
  [MESSAGE.open]: { least: 29, most: 4096 },
  [MESSAGE.update]: { least: 23, most: 65535 },
  [MESSAGE.notification]: { least: 21, most: 65535 },
  [MESSAGE.keepalive]: { least: 19, most: 19 },
  [MESSAGE.routeRefresh]: { least: 23, most: 65535 },
};

/**
 * The message that begins at `at`, or undefined while it has not wholly arrived. `longest` is 4096, or 65535 where RFC 8654
 * was agreed on. Throws `ProtocolError` (Message Header Error) where this cannot be the beginning of a message.
 */
export function nextFrame(bytes: Uint8Array, at: number, longest: number): Frame | undefined {
  if (bytes.length - at < HEADER_LENGTH) return undefined;
  for (let i = at; i < at + 16; i += 1) {
    if (bytes[i] !== 255) throw headerError(HEADER_ERROR.notSynchronized, "the marker is not all ones");
  }
  const length = (bytes[at + 16]! << 8) | bytes[at + 17]!;
  const type = bytes[at + 18]!;
  const allowed = LENGTHS[type];
  if (allowed === undefined) {
    throw headerError(HEADER_ERROR.badType, `message type ${type} is unknown`, Uint8Array.of(type));
  }
  if (length < allowed.least || length > Math.min(allowed.most, longest)) {
    const data = bytes.slice(at + 16, at + 18);
    throw headerError(HEADER_ERROR.badLength, `a message of type ${type} cannot have ${length} bytes`, data);
  }
  if (bytes.length - at < length) return undefined;
  return { type, start: at + HEADER_LENGTH, end: at + length };
}

const CAPABILITIES_PARAMETER = 2;
/** RFC 9072: in place of a length, says that lengths have two bytes. */
const EXTENDED_PARAMETERS = 255;

/** Throws `ProtocolError` (OPEN Message Error). Says nothing yet on whether this peer is the one that was expected. */
export function decodeOpen(bytes: Uint8Array, start: number, end: number): OpenMessage {
  try {
    const reader = new ByteReader(bytes, start, end);
    const version = reader.u8("version");
    if (version !== VERSION) {
      const data = Uint8Array.of(0, VERSION);
      throw openError(OPEN_ERROR.unsupportedVersion, `version ${version} is not ${VERSION}`, data);
    }
    const asn = reader.u16("my autonomous system");
    const holdTime = reader.u16("hold time");
    const routerId = reader.u32("BGP identifier");
    const capabilities = decodeParameters(reader);
    return { asn: capabilities.asn ?? asn, holdTime, routerId, capabilities };
  } catch (thrown) {
    if (thrown instanceof MalformedBytes) throw openError(0, thrown.message);
    throw thrown;
  }
}

function decodeParameters(reader: ByteReader): Capabilities {
  const capabilities: Capabilities = {};
  let length = reader.u8("optional parameters length");
  const extended = length === EXTENDED_PARAMETERS && reader.bytes[reader.offset] === EXTENDED_PARAMETERS;
  if (extended) {
    reader.skip(1, "extended optional parameters");
    length = reader.u16("extended optional parameters length");
  }
  const parameters = reader.sub(length, "optional parameters");
  if (reader.remaining > 0) throw new MalformedBytes(`${reader.remaining} bytes follow the optional parameters`);
  while (parameters.remaining > 0) {
    const type = parameters.u8("optional parameter type");
    const size = extended ? parameters.u16("optional parameter length") : parameters.u8("optional parameter length");
    const value = parameters.sub(size, `optional parameter ${type}`);
    if (type !== CAPABILITIES_PARAMETER) {
      throw openError(OPEN_ERROR.unsupportedParameter, `optional parameter ${type} is not known`);
    }
    decodeCapabilities(value, capabilities);
  }
  return capabilities;
}

export function encodeOpen(open: OpenMessage): Uint8Array {
  const writer = new ByteWriter(96);
  const message = startMessage(writer, MESSAGE.open);
  writer.u8(VERSION);
  writer.u16(open.asn > 65535 ? AS_TRANS : open.asn);
  writer.u16(open.holdTime);
  writer.u32(open.routerId);
  const parameters = writer.reserve(1);
  writer.u8(CAPABILITIES_PARAMETER);
  const size = writer.reserve(1);
  encodeCapabilities(writer, open.capabilities);
  writer.patchU8(size, writer.length - size - 1);
  writer.patchU8(parameters, writer.length - parameters - 1);
  // No capabilities: no parameter either, for speakers from before RFC 5492.
  if (writer.length === size + 1) {
    writer.patchU8(parameters, 0);
    writer.length = parameters + 1;
  }
  finishMessage(writer, message);
  return writer.finish();
}

export function decodeRouteRefresh(bytes: Uint8Array, start: number, end: number): RouteRefresh {
  const reader = new ByteReader(bytes, start, end);
  const afi = reader.u16("ROUTE-REFRESH AFI");
  const subtype = reader.u8("ROUTE-REFRESH subtype");
  return { family: familyOf(afi, reader.u8("ROUTE-REFRESH SAFI")), subtype };
}

/** `subtype` as in `REFRESH`. */
export function encodeRouteRefresh(family: Family, subtype: number = REFRESH.request): Uint8Array {
  return message(MESSAGE.routeRefresh, (writer) => {
    writer.u16(AFI[family]);
    writer.u8(subtype);
    writer.u8(SAFI_UNICAST);
  });
}

export function encodeNotificationMessage(notice: Notification): Uint8Array {
  return message(MESSAGE.notification, (writer) => encodeNotification(writer, notice));
}

export function encodeKeepalive(): Uint8Array {
  return message(MESSAGE.keepalive, () => undefined);
}

/** Writes the header of a message, and returns where it begins. */
export function startMessage(writer: ByteWriter, type: number): number {
  const start = writer.length;
  for (let i = 0; i < 4; i += 1) writer.u32(0xffffffff);
  writer.u16(0);
  writer.u8(type);
  return start;
}

/** Fills in the length of the message that began at `start`. */
export function finishMessage(writer: ByteWriter, start: number): void {
  writer.patchU16(start + 16, writer.length - start);
}

function message(type: number, body: (writer: ByteWriter) => void): Uint8Array {
  const writer = new ByteWriter(HEADER_LENGTH + 16);
  const start = startMessage(writer, type);
  body(writer);
  finishMessage(writer, start);
  return writer.finish();
}

function headerError(subcode: number, reason: string, data?: Uint8Array): ProtocolError {
  return new ProtocolError(notification(HEADER_ERROR.code, subcode, data), reason);
}

function openError(subcode: number, reason: string, data?: Uint8Array): ProtocolError {
  return new ProtocolError(notification(OPEN_ERROR.code, subcode, data), reason);
}
