import { addressToBytes, type Address, type Family } from "../ip/address.ts";
import type { Prefix } from "../ip/prefix.ts";
import { ByteWriter } from "../lib/bytes.ts";
import { encodeAttributes, writeAttribute } from "./attribute-list.ts";
import { MP_REACH, OPTIONAL, type PathAttributes } from "./attributes.ts";
import { AFI, MAX_EXTENDED_MESSAGE } from "./constants.ts";
import { nextFrame } from "./message.ts";
import { encodeNlri } from "./nlri.ts";
import type { StateName } from "./session.ts";

/** Tables and sessions in the format that other people's tools read (RFC 6396, RFC 8050): one record after the other. */

const TABLE_DUMP_V2 = 13;
const BGP4MP_ET = 17;
const PEER_INDEX_TABLE = 1;
/** By family; the second is that with path identifiers. */
const RIB_UNICAST: Readonly<Record<Family, readonly [plain: number, addPath: number]>> = { 4: [2, 8], 6: [4, 10] };
const MESSAGE_AS4 = 4;
const STATE_CHANGE_AS4 = 5;
const MESSAGE_AS4_ADD_PATH = 9;
/** RFC 6396 section 4.4.1. */
const STATE_NUMBERS: Readonly<Record<StateName, number>> = {
  idle: 1,
  connect: 2,
  active: 3,
  openSent: 4,
  openConfirm: 5,
  established: 6,
};

export interface MrtPeer {
  readonly address: Address;
  readonly asn: number;
  /** A BGP identifier; 0 where it was never heard. */
  readonly routerId: number;
}

export interface MrtPath {
  /** Its place in the table of peers. */
  readonly peer: number;
  /** RFC 7911, or 0. */
  readonly pathId: number;
  readonly attributes: PathAttributes;
}

/** The record that a table's others refer to. `seconds` since 1970. */
export function mrtPeers(seconds: number, collector: number, peers: readonly MrtPeer[]): Uint8Array {
  return record(seconds, TABLE_DUMP_V2, PEER_INDEX_TABLE, (writer) => {
    writer.u32(collector);
    writer.u16(0); // the view has no name
    writer.u16(peers.length);
    for (const { address, asn, routerId } of peers) {
      const [ipv6, fourOctets] = [address.family === 6 ? 1 : 0, 2];
      writer.u8(ipv6 | fourOctets);
      writer.u32(routerId);
      writer.raw(addressToBytes(address));
      writer.u32(asn);
    }
  });
}

/** All paths to one prefix; when each was heard is not known, so that the time of the dump stands for it. */
export function mrtRoute(seconds: number, sequence: number, prefix: Prefix, paths: readonly MrtPath[]): Uint8Array {
  const { family } = prefix.address;
  const addPath = paths.some(({ pathId }) => pathId !== 0);
  return record(seconds, TABLE_DUMP_V2, RIB_UNICAST[family][addPath ? 1 : 0], (writer) => {
    writer.u32(sequence);
    encodeNlri(writer, { prefix, pathId: 0 }, false);
    writer.u16(paths.length);
    for (const { peer, pathId, attributes } of paths) {
      writer.u16(peer);
      writer.u32(seconds);
      if (addPath) writer.u32(pathId);
      const length = writer.reserve(2);
      // Our own routes have no next hop before they are told; readers want one.
      writePathAttributes(writer, family, { nextHop: { family, value: 0n }, ...attributes });
      writer.patchU16(length, writer.length - length - 2);
    }
  });
}

/** Section 4.3.4: always four-octet AS numbers, and of MP_REACH_NLRI only the next hop. */
function writePathAttributes(writer: ByteWriter, family: Family, attributes: PathAttributes): void {
  const { nextHop, linkLocalNextHop } = attributes;
  const classic = family === 4 && nextHop?.family !== 6;
  if (!classic && nextHop !== undefined) {
    const hops = [nextHop, ...(linkLocalNextHop === undefined ? [] : [linkLocalNextHop])].map(addressToBytes);
    const length = hops.reduce((sum, hop) => sum + hop.length, 0);
    writeAttribute(writer, OPTIONAL, MP_REACH, Uint8Array.of(length, ...hops.flatMap((hop) => [...hop])));
  }
  encodeAttributes(writer, attributes, { asOctets: 4, internal: true }, classic);
}

/** Both ends of a session. */
export interface MrtSession {
  readonly peerAsn: number;
  readonly localAsn: number;
  readonly peerAddress: Address;
  readonly localAddress: Address;
  /** Prefixes in the direction of the messages have path identifiers. */
  readonly addPath: boolean;
}

/** One record for each of the whole messages in `bytes`. `milliseconds` since 1970. */
export function mrtMessages(milliseconds: number, session: MrtSession, bytes: Uint8Array): Uint8Array[] {
  const records: Uint8Array[] = [];
  const subtype = session.addPath ? MESSAGE_AS4_ADD_PATH : MESSAGE_AS4;
  let at = 0;
  for (;;) {
    const start = at;
    const frame = nextFrame(bytes, start, MAX_EXTENDED_MESSAGE);
    if (frame === undefined) return records;
    at = frame.end;
    const write = (writer: ByteWriter): void => writer.raw(bytes.subarray(start, frame.end));
    records.push(sessionRecord(milliseconds, subtype, session, write));
  }
}

export function mrtStateChange(
  milliseconds: number,
  session: MrtSession,
  before: StateName,
  after: StateName,
): Uint8Array {
  return sessionRecord(milliseconds, STATE_CHANGE_AS4, session, (writer) => {
    writer.u16(STATE_NUMBERS[before]);
    writer.u16(STATE_NUMBERS[after]);
  });
}

function sessionRecord(
  milliseconds: number,
  subtype: number,
  { peerAsn, localAsn, peerAddress, localAddress }: MrtSession,
  write: (writer: ByteWriter) => void,
): Uint8Array {
  const seconds = Math.floor(milliseconds / 1000);
  return record(seconds, BGP4MP_ET, subtype, (writer) => {
    writer.u32((milliseconds - seconds * 1000) * 1000);
    writer.u32(peerAsn);
    writer.u32(localAsn);
    writer.u16(0); // interface
    writer.u16(AFI[peerAddress.family]);
    writer.raw(addressToBytes(peerAddress));
    writer.raw(addressToBytes(localAddress));
    write(writer);
  });
}

function record(seconds: number, type: number, subtype: number, write: (writer: ByteWriter) => void): Uint8Array {
  const body = new ByteWriter(64);
  write(body);
  const writer = new ByteWriter(12 + body.length);
  writer.u32(seconds);
  writer.u16(type);
  writer.u16(subtype);
  writer.u32(body.length);
  writer.raw(body.finish());
  return writer.finish();
}
