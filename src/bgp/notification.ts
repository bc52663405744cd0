import type { ByteReader, ByteWriter } from "../lib/bytes.ts";
import { Failure } from "../lib/errors.ts";

/** What a NOTIFICATION message says (RFC 4271 section 4.5). */
export interface Notification {
  readonly code: number;
  readonly subcode: number;
  readonly data: Uint8Array;
}

/** Something that ends the session, with the NOTIFICATION that the peer is told. */
export class ProtocolError extends Failure<"bgp-protocol"> {
  readonly notification: Notification;
  constructor(notification: Notification, message: string) {
    super("bgp-protocol", message);
    this.notification = notification;
  }
}

interface ErrorCode {
  readonly code: number;
  readonly text: string;
  readonly subcodes: Readonly<Record<number, string>>;
}

export const HEADER_ERROR = { code: 1, notSynchronized: 1, badLength: 2, badType: 3 } as const;
export const OPEN_ERROR = {
  code: 2,
  unsupportedVersion: 1,
  badPeerAs: 2,
  badIdentifier: 3,
  unsupportedParameter: 4,
  unacceptableHoldTime: 6,
  unsupportedCapability: 7,
} as const;
export const UPDATE_ERROR = {
  code: 3,
  malformedAttributes: 1,
  unrecognizedWellKnown: 2,
  optionalAttribute: 9,
  invalidNetwork: 10,
} as const;
export const HOLD_TIMER_EXPIRED = { code: 4 } as const;
export const SEND_HOLD_TIMER_EXPIRED = { code: 8 } as const;
export const FSM_ERROR = { code: 5, inOpenSent: 1, inOpenConfirm: 2, inEstablished: 3 } as const;
export const CEASE = {
  code: 6,
  maximumPrefixes: 1,
  administrativeShutdown: 2,
  peerDeconfigured: 3,
  administrativeReset: 4,
  connectionRejected: 5,
  otherConfigurationChange: 6,
  connectionCollision: 7,
  outOfResources: 8,
  hardReset: 9,
  bfdDown: 10,
} as const;

/** RFC 4271 section 4.5, RFC 4486, RFC 5492, RFC 6608, RFC 7313, RFC 8538, RFC 9384. */
const ERROR_CODES: readonly ErrorCode[] = [
  {
    code: 1,
    text: "Message Header Error",
    subcodes: { 1: "Connection Not Synchronized", 2: "Bad Message Length", 3: "Bad Message Type" },
  },
  {
    code: 2,
    text: "OPEN Message Error",
    subcodes: {
      1: "Unsupported Version Number",
      2: "Bad Peer AS",
      3: "Bad BGP Identifier",
      4: "Unsupported Optional Parameter",
      6: "Unacceptable Hold Time",
      7: "Unsupported Capability",
      11: "Role Mismatch",
    },
  },
  {
    code: 3,
    text: "UPDATE Message Error",
    subcodes: {
      1: "Malformed Attribute List",
      2: "Unrecognized Well-known Attribute",
      3: "Missing Well-known Attribute",
      4: "Attribute Flags Error",
      5: "Attribute Length Error",
      6: "Invalid ORIGIN Attribute",
      8: "Invalid NEXT_HOP Attribute",
      9: "Optional Attribute Error",
      10: "Invalid Network Field",
      11: "Malformed AS_PATH",
    },
  },
  { code: 4, text: "Hold Timer Expired", subcodes: {} },
  {
    code: 5,
    text: "Finite State Machine Error",
    subcodes: {
      1: "Unexpected Message in OpenSent State",
      2: "Unexpected Message in OpenConfirm State",
      3: "Unexpected Message in Established State",
    },
  },
  {
    code: 6,
    text: "Cease",
    subcodes: {
      1: "Maximum Number of Prefixes Reached",
      2: "Administrative Shutdown",
      3: "Peer De-configured",
      4: "Administrative Reset",
      5: "Connection Rejected",
      6: "Other Configuration Change",
      7: "Connection Collision Resolution",
      8: "Out of Resources",
      9: "Hard Reset",
      10: "BFD Down",
    },
  },
  { code: 7, text: "ROUTE-REFRESH Message Error", subcodes: { 1: "Invalid Message Length" } },
  { code: 8, text: "Send Hold Timer Expired", subcodes: {} },
];

const NOTHING = new Uint8Array(0);

export function notification(code: number, subcode = 0, data: Uint8Array = NOTHING): Notification {
  return { code, subcode, data };
}

/**
 * Cease with the operator's words (RFC 9003; RFC 8203 allowed 128 bytes where it now is 255). Longer text is cut between
 * characters.
 */
export function shutdown(subcode: number, communication = ""): Notification {
  if (communication === "") return notification(CEASE.code, subcode);
  let text = new TextEncoder().encode(communication);
  let end = communication.length;
  while (text.length > 255) text = new TextEncoder().encode(communication.slice(0, (end -= 1)).toWellFormed());
  const data = new Uint8Array(1 + text.length);
  data[0] = text.length;
  data.set(text, 1);
  return notification(CEASE.code, subcode, data);
}

/**
 * RFC 8538 section 3: what is to end the session for good goes into a Cease of its own, where a plain one would leave room
 * for a restart.
 */
export function hardReset({ code, subcode, data }: Notification): Notification {
  return notification(CEASE.code, CEASE.hardReset, Uint8Array.of(code, subcode, ...data));
}

export function isHardReset({ code, subcode }: Notification): boolean {
  return code === CEASE.code && subcode === CEASE.hardReset;
}

/** The operator's words in a Cease for shutdown or reset, or "" where there are none that can be read. */
function communicationOf({ code, subcode, data }: Notification): string {
  const speaks = subcode === CEASE.administrativeShutdown || subcode === CEASE.administrativeReset;
  if (code !== CEASE.code || !speaks || data.length === 0) return "";
  const length = data[0] ?? 0;
  if (length === 0 || length > data.length - 1) return "";
  // What a neighbour wrote goes to a terminal: control characters do not.
  return new TextDecoder().decode(data.subarray(1, 1 + length)).replaceAll(/\p{Cc}/gu, " ");
}

/** `Cease: Administrative Shutdown "kernel upgrade"`. */
export function describeNotification(message: Notification): string {
  const known = ERROR_CODES.find((row) => row.code === message.code);
  if (known === undefined) return `error code ${message.code}, subcode ${message.subcode}`;
  const subcode = known.subcodes[message.subcode] ?? (message.subcode === 0 ? "" : `subcode ${message.subcode}`);
  if (isHardReset(message) && message.data.length >= 2) {
    const [inner = 0, innerSubcode = 0] = message.data;
    const reason = { code: inner, subcode: innerSubcode, data: message.data.subarray(2) };
    // One within another would be nonsense, and might never end.
    if (!isHardReset(reason)) return `${describeNotification(reason)} (hard reset)`;
  }
  const words = communicationOf(message);
  return `${known.text}${subcode === "" ? "" : `: ${subcode}`}${words === "" ? "" : ` "${words}"`}`;
}

export function decodeNotification(reader: ByteReader): Notification {
  return { code: reader.u8("error code"), subcode: reader.u8("error subcode"), data: Uint8Array.from(reader.rest()) };
}

export function encodeNotification(writer: ByteWriter, { code, subcode, data }: Notification): void {
  writer.u8(code);
  writer.u8(subcode);
  writer.raw(data);
}
