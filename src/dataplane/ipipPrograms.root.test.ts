import assert from "node:assert/strict";
import { closeSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { createMap, loadProgram, runProgram, setEntry } from "../netlink/bpf.io.ts";
import { ipipEntries, openEnvelope } from "./ipip.ts";
import { IPIP_MAPS } from "./ipipMaps.ts";
import { DECAPSULATE, ENCAPSULATE } from "./ipipPrograms.ts";
import { checksum, echo, ipv4, parseIpv4, type Ipv4Fields } from "./tunnelPackets.testing.ts";

/** The decapsulation, packet by packet, in the kernel and (for what comes by the slow path) in its twin here. */

const ME = parseAddress("192.0.2.11");
const PEER = parseAddress("192.0.2.75");
const STRANGER = parseAddress("192.0.2.99");
const EXTERNAL = parseAddress("198.51.100.7");
const POD = parseAddress("10.65.0.2");
const REMOTE = parseAddress("10.65.1.2");
const DEVICE = 1; // lo, which every namespace has
/** enum tcx_action_base */
const VERDICTS: Readonly<Record<number, string>> = { [-1]: "to the stack", 2: "dropped", 7: "taken" };

const inner = (fields: Partial<Ipv4Fields> = {}): Uint8Array =>
  ipv4({ source: REMOTE, destination: POD, protocol: 1, payload: echo(1), ...fields });
const outer = (fields: Partial<Ipv4Fields> = {}): Uint8Array =>
  ipv4({ source: PEER, destination: ME, protocol: 4, payload: inner(), ...fields });
const frame = (packet: Uint8Array, type = 0x0800): Uint8Array => {
  const bytes = new Uint8Array(14 + packet.length);
  new DataView(bytes.buffer).setUint16(12, type);
  bytes.set(packet, 14);
  return bytes;
};
const spoiled = (packet: Uint8Array, at: number): Uint8Array =>
  packet.map((byte, index) => (index === at ? byte ^ 1 : byte));
const starting = (packet: Uint8Array, first: number): Uint8Array =>
  packet.map((byte, index) => (index === 0 ? first : byte));
const CE = 3;

const rows: { name: string; packet: Uint8Array; verdict: string; type?: number; tos?: number; slow?: string }[] = [
  { name: "from a peer", packet: outer(), verdict: "taken" },
  { name: "from a network of externalNodesList", packet: outer({ source: EXTERNAL }), verdict: "taken" },
  { name: "from a stranger", packet: outer({ source: STRANGER }), verdict: "dropped", slow: "unknown peer" },
  {
    name: "for another machine",
    packet: outer({ destination: STRANGER }),
    verdict: "to the stack",
    slow: "not for this node",
  },
  { name: "of another protocol", packet: outer({ protocol: 17 }), verdict: "to the stack" },
  { name: "IPv6", packet: outer(), type: 0x86dd, verdict: "to the stack" },
  { name: "a first fragment", packet: outer({ fragment: 0x2000 }), verdict: "to the stack" },
  { name: "a last fragment", packet: outer({ fragment: 0x0010 }), verdict: "to the stack" },
  { name: "with Don't Fragment", packet: outer({ fragment: 0x4000 }), verdict: "taken" },
  { name: "with options", packet: outer({ options: new Uint8Array(4) }), verdict: "to the stack" },
  { name: "with a wrong checksum", packet: spoiled(outer(), 10), verdict: "to the stack" },
  {
    name: "shorter inside than outside",
    packet: outer({ payload: inner({ length: 30 }) }),
    verdict: "dropped",
    slow: "malformed",
  },
  {
    name: "longer inside than outside",
    packet: outer({ payload: inner({ length: 99 }) }),
    verdict: "dropped",
    slow: "malformed",
  },
  {
    name: "length 0 that no segments stand for",
    packet: outer({ payload: inner({ length: 0 }) }),
    verdict: "dropped",
    slow: "malformed",
  },
  {
    name: "IPv6 inside",
    packet: outer({ payload: starting(inner(), 0x60) }),
    verdict: "dropped",
    slow: "malformed",
  },
  {
    name: "a header of four words inside",
    packet: outer({ payload: starting(inner(), 0x44) }),
    verdict: "dropped",
    slow: "malformed",
  },
  { name: "nothing inside", packet: outer({ payload: new Uint8Array(8) }), verdict: "dropped", slow: "malformed" },
  {
    name: "congestion that the inner packet can say",
    packet: outer({ tos: CE, payload: inner({ tos: 2 }) }),
    verdict: "taken",
    tos: 3,
  },
  {
    name: "congestion, and ECT(1) inside",
    packet: outer({ tos: CE, payload: inner({ tos: 0xb9 }) }),
    verdict: "taken",
    tos: 0xbb,
  },
  { name: "congestion on both", packet: outer({ tos: CE, payload: inner({ tos: 3 }) }), verdict: "taken", tos: 3 },
  {
    name: "congestion that the inner packet cannot say",
    packet: outer({ tos: CE }),
    verdict: "dropped",
    slow: "congestion",
  },
  { name: "ECT outside only", packet: outer({ tos: 2 }), verdict: "taken", tos: 0 },
];

describe("what becomes of a packet of protocol 4", () => {
  const descriptors: number[] = [];
  let decapsulate = -1;

  before(() => {
    const maps = Object.fromEntries(
      Object.entries(IPIP_MAPS).map(([name, shape]) => {
        const fd = createMap(name, shape);
        descriptors.push(fd);
        return [name, fd];
      }),
    );
    const wish = {
      local: ME,
      mtu: 1480,
      destinations: [],
      peers: [PEER],
      networks: [parsePrefix("198.51.100.0/24")],
      underlays: [],
    };
    for (const [name, entries] of Object.entries(ipipEntries(wish, DEVICE)))
      for (const { key, value } of entries.values()) setEntry(maps[name]!, key, value);
    decapsulate = loadProgram("ipip_ingress", DECAPSULATE, maps);
    descriptors.push(decapsulate, loadProgram("ipip_egress", ENCAPSULATE, maps));
  });
  after(() => {
    for (const fd of descriptors) closeSync(fd);
  });

  for (const { name, packet, verdict, type, tos } of rows) {
    test(`${name}: ${verdict}`, () => {
      const run = runProgram(decapsulate, frame(packet, type));
      assert.equal(VERDICTS[run.verdict], verdict);
      if (verdict !== "taken") return;
      const left = parseIpv4(run.packet.subarray(14));
      assert.deepEqual([left.source, left.destination, left.sound], ["10.65.1.2", "10.65.0.2", true]);
      assert.equal(left.tos, tos ?? 0);
      assert.equal(checksum(left.payload), 0, "the payload is whole");
    });
  }

  for (const { name, packet, tos, slow, verdict } of rows) {
    if (verdict === "to the stack" && slow === undefined) continue;
    test(`by the slow path, ${name}: ${slow ?? "taken"}`, () => {
      const isKnown = (source: Uint8Array, destination: Uint8Array) => {
        if (destination[3] !== 11) return "not for this node";
        return source[3] === 75 || source[0] === 198 ? undefined : "unknown peer";
      };
      const result = openEnvelope(packet.slice(), isKnown);
      if (typeof result === "string") return assert.equal(result, slow);
      assert.equal(slow, undefined);
      const left = parseIpv4(result);
      assert.deepEqual([left.tos, left.sound, checksum(left.payload)], [tos ?? 0, true, 0]);
    });
  }
});
