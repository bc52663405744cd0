import assert from "node:assert/strict";
import { test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { fromHex } from "../lib/bytes.ts";
import { encodeKeepalive } from "./message.ts";
import { mrtMessages, mrtPeers, mrtRoute, mrtStateChange, type MrtSession } from "./mrt.ts";

const SESSION: MrtSession = {
  peerAsn: 64513,
  localAsn: 64512,
  peerAddress: parseAddress("192.0.2.2"),
  localAddress: parseAddress("192.0.2.1"),
  addPath: false,
};
const ENDS = "0000fc01 0000fc00 0000 0001 c0000202 c0000201";

// RFC 6396 section 4: each byte by hand.
const records: { name: string; record: Uint8Array | undefined; wire: string }[] = [
  {
    name: "peers of both families",
    record: mrtPeers(16, 0x0a000001, [
      { address: parseAddress("192.0.2.2"), asn: 64513, routerId: 2 },
      { address: parseAddress("2001:db8::2"), asn: 64513, routerId: 3 },
    ]),
    wire: `00000010 000d 0001 0000002e 0a000001 0000 0002
      02 00000002 c0000202 0000fc01 03 00000003 20010db8000000000000000000000002 0000fc01`,
  },
  {
    name: "a route",
    record: mrtRoute(16, 5, parsePrefix("10.1.0.0/16"), [
      { peer: 1, pathId: 0, attributes: { origin: "igp", asPath: [], nextHop: parseAddress("192.0.2.2") } },
    ]),
    wire: `00000010 000d 0002 0000001f 00000005 10 0a01 0001 0001 00000010 000e
      400101 00 400200 400304 c0000202`,
  },
  {
    name: "an IPv6 route with a path identifier",
    record: mrtRoute(16, 5, parsePrefix("2001:db8::/32"), [
      { peer: 1, pathId: 9, attributes: { origin: "igp", asPath: [], nextHop: parseAddress("2001:db8::2") } },
    ]),
    wire: `00000010 000d 000a 00000032 00000005 20 20010db8 0001 0001 00000010 00000009 001b
      800e11 10 20010db8000000000000000000000002 400101 00 400200`,
  },
  {
    name: "a message",
    record: mrtMessages(16_250, SESSION, encodeKeepalive())[0],
    wire: `00000010 0011 0004 0000002b 0003d090 ${ENDS} ffffffffffffffffffffffffffffffff 0013 04`,
  },
  {
    name: "a change of state",
    record: mrtStateChange(16_250, SESSION, "openConfirm", "established"),
    wire: `00000010 0011 0005 0000001c 0003d090 ${ENDS} 0005 0006`,
  },
];
for (const { name, record, wire } of records) {
  test(`an MRT record is what RFC 6396 draws: ${name}`, () => assert.deepEqual(record, fromHex(wire)));
}

test("messages that came in one piece are records of their own", () => {
  const two = new Uint8Array([...encodeKeepalive(), ...encodeKeepalive()]);
  assert.equal(mrtMessages(0, SESSION, two).length, 2);
});
