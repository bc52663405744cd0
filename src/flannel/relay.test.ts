import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { parseAddress } from "../ip/address.ts";
import { parsePrefix } from "../ip/prefix.ts";
import { type Arena, createArena, GSO_ECN, GSO_NONE, GSO_TCP4, GSO_UDP, VNET, VNET_NEEDS_CHECKSUM } from "./arena.ts";
import { checksumMemory, plainChecksum } from "./checksum.ts";
import { COALESCER_BYTES, createCoalescer } from "./coalesce.ts";
import type { Lease } from "./lease.ts";
import { MESSAGE_SIZE } from "./messages.ts";
import { faultOf, finish, leaveToDevice, packet, type PacketSpec, show } from "./packets.testing.ts";
import { peerLookup, publishPeers, sharedPeers } from "./peerTable.ts";
import { createSegmenter, mayAnswerUnreachable, nextSlot, SEGMENTER_BYTES, writeUnreachable } from "./segment.ts";

const PEER = 0x01020304;
/** Addresses in these arenas are offsets. */
const arenaOf = (bytes: number): Arena => createArena(bytes, () => 0);
const pattern = (length: number, from = 0): Uint8Array =>
  Uint8Array.from({ length }, (_, at) => (at * 7 + from) & 0xff);

describe("the checksum", () => {
  const { buffer, checksum } = checksumMemory(70_000);
  const bytes = new Uint8Array(buffer);
  test("is that of plain steps, wherever it begins and however long it is", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 0, maxLength: 300 }),
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 0, max: 0xffff }),
        (data, offset, initial) => {
          bytes.set(data, offset);
          assert.equal(checksum(offset, data.length, initial), plainChecksum(bytes, offset, data.length, initial));
        },
      ),
    );
  });
  test("holds for 64 KB of ones", () => {
    bytes.fill(0xff);
    assert.equal(checksum(0, 65_535, 0xffff), plainChecksum(bytes, 0, 65_535, 0xffff));
  });
});

interface Sent {
  readonly datagrams: Uint8Array[];
  /** For each message: datagrams, and their size as UDP_SEGMENT says it. */
  readonly messages: { count: number; size: number }[];
}

/** What the segmenter sends for packets from a TUN device. */
function segment(
  packets: readonly { readonly bytes: Uint8Array; readonly gso?: number; readonly size?: number }[],
  lookup: (destination: number) => number = () => PEER,
): Sent & { unreachable: number; dropped: number } {
  const arena = arenaOf(SEGMENTER_BYTES + 200_000);
  const sent: Sent = { datagrams: [], messages: [] };
  let unreachable = 0;
  const { view, u8, u32 } = arena;
  const segmenter = createSegmenter({
    arena,
    start: 0,
    port: 8285,
    lookup,
    send(count) {
      for (let number = 0; number < count; number += 1) {
        const at = segmenter.messages + number * MESSAGE_SIZE;
        const name = u32[at >> 2]!;
        assert.equal(view.getUint16(name, true), 2);
        assert.equal(view.getUint16(name + 2), 8285);
        const vectors = Array.from({ length: u32[(at + 24) >> 2]! }, (_, index) => u32[(at + 16) >> 2]! + index * 16);
        const whole = Buffer.concat(
          vectors.map((vector) => u8.slice(u32[vector >> 2]!, u32[vector >> 2]! + u32[(vector + 8) >> 2]!)),
        );
        const control = u32[(at + 32) >> 2]!;
        const size = u32[(at + 40) >> 2] === 0 ? 0 : view.getUint16(control + 16, true);
        const pieces = size === 0 ? 1 : Math.ceil(whole.length / size);
        assert.ok(pieces <= 64 && whole.length <= 65_000);
        sent.messages.push({ count: pieces, size });
        for (let from = 0; from < whole.length; from += size || whole.length) {
          sent.datagrams.push(Uint8Array.from(whole.subarray(from, from + (size || whole.length))));
        }
      }
    },
    unreachable: () => (unreachable += 1),
  });
  let at = nextSlot(SEGMENTER_BYTES);
  for (const { bytes, gso = GSO_NONE, size = 0 } of packets) {
    u8.fill(0, at, at + VNET.size);
    u8[at] = VNET_NEEDS_CHECKSUM;
    u8[at + VNET.gsoType] = gso;
    view.setUint16(at + VNET.gsoSize, size, true);
    view.setUint16(at + VNET.checksumStart, 20, true);
    view.setUint16(at + VNET.checksumOffset, bytes[9] === 6 ? 16 : 6, true);
    const given = Uint8Array.from(bytes);
    if (bytes[9] === 1 || bytes.length < 40) u8[at] = 0;
    else leaveToDevice(given);
    u8.set(given, at + VNET.size);
    segmenter.take(at, VNET.size + bytes.length);
    at = nextSlot(at + VNET.size + bytes.length);
  }
  segmenter.flush();
  return { ...sent, unreachable, dropped: segmenter.dropped() };
}

interface Written {
  readonly bytes: Uint8Array;
  readonly gso: number;
  readonly size: number;
}

/** What the coalescer writes for datagrams. */
function coalesce(datagrams: readonly Uint8Array[], udp = true): { written: Written[]; dropped: number } {
  const arena = arenaOf(COALESCER_BYTES + 250_000);
  const { view, u8, u32 } = arena;
  const written: Written[] = [];
  const coalescer = createCoalescer({
    arena,
    start: 0,
    udp,
    write(count) {
      const parts = Array.from({ length: count }, (_, index) => {
        const vector = coalescer.vectors + index * 16;
        return u8.slice(u32[vector >> 2]!, u32[vector >> 2]! + u32[(vector + 8) >> 2]!);
      });
      const [header, ...rest] = parts;
      assert.equal(header?.length, VNET.size);
      const fields = new DataView(header!.buffer);
      const bytes = Uint8Array.from(Buffer.concat(rest));
      const gso = header![VNET.gsoType]!;
      if (gso !== GSO_NONE) {
        assert.equal(header![0], VNET_NEEDS_CHECKSUM);
        const given = Uint8Array.from(bytes);
        leaveToDevice(given);
        assert.deepEqual(bytes, given, "the sum of the pseudo-header is there");
        finish(bytes);
      }
      written.push({ bytes, gso, size: fields.getUint16(VNET.gsoSize, true) });
    },
  });
  // Odd places: datagrams lie where the one before has ended.
  let at = COALESCER_BYTES + 1;
  for (const bytes of datagrams) {
    u8.set(bytes, at);
    coalescer.take(at, bytes.length);
    at += bytes.length;
  }
  coalescer.flush();
  assert.ok(at <= view.byteLength);
  return { written, dropped: coalescer.dropped() };
}

describe("from the device to the socket", () => {
  test("a packet goes as it is, one hop older, with its checksum made", () => {
    const { datagrams, messages } = segment([{ bytes: packet({ protocol: "tcp", payload: pattern(100) }) }]);
    assert.deepEqual(datagrams.map(show), ["ttl 63 id 7 tcp seq 1000 flags 0x10 +100"]);
    assert.equal(faultOf(datagrams[0]!), undefined);
    assert.deepEqual(messages, [{ count: 1, size: 0 }]);
  });

  test("a large packet of TCP is cut, with what belongs to the first and the last", () => {
    const flags = 0x10 | 0x80 | 0x08 | 0x01; // ACK CWR PSH FIN
    const bytes = packet({ protocol: "tcp", payload: pattern(3500), flags, sequence: 0xffff_fff0, id: 0xffff });
    const { datagrams, messages } = segment([{ bytes, gso: GSO_TCP4 | GSO_ECN, size: 1400 }]);
    assert.deepEqual(datagrams.map(show), [
      "ttl 63 id 65535 tcp seq 4294967280 flags 0x90 +1400",
      "ttl 63 id 0 tcp seq 1384 flags 0x10 +1400",
      "ttl 63 id 1 tcp seq 2784 flags 0x19 +700",
    ]);
    assert.deepEqual(datagrams.map(faultOf), [undefined, undefined, undefined]);
    assert.deepEqual(messages, [{ count: 3, size: 1440 }]);
  });

  test("a large packet of UDP is cut", () => {
    const bytes = packet({ protocol: "udp", payload: pattern(2500) });
    const { datagrams } = segment([{ bytes, gso: GSO_UDP, size: 1200 }]);
    assert.deepEqual(datagrams.map(show), ["ttl 63 id 7 udp +1200", "ttl 63 id 8 udp +1200", "ttl 63 id 9 udp +100"]);
    assert.deepEqual(datagrams.map(faultOf), [undefined, undefined, undefined]);
  });

  test("packets of one size to one peer share a message, which a shorter one closes", () => {
    const udp = (length: number) => ({ bytes: packet({ protocol: "udp", payload: pattern(length) }) });
    const { messages } = segment([udp(500), udp(500), udp(200), udp(500), udp(900)]);
    assert.deepEqual(messages, [
      { count: 3, size: 528 },
      { count: 1, size: 0 },
      { count: 1, size: 0 },
    ]);
  });

  test("each peer has messages of its own", () => {
    const to = (destination: string) => ({ bytes: packet({ protocol: "udp", payload: pattern(500), destination }) });
    const { messages, unreachable } = segment(
      [to("10.5.2.2"), to("10.5.3.2"), to("10.5.2.2"), to("10.6.0.1")],
      (address) => (address === 0x0a060001 ? 0 : address),
    );
    assert.equal(messages.length, 3);
    assert.equal(unreachable, 1);
  });

  test("what is over, malformed or no IPv4 goes nowhere", () => {
    const bytes = packet({ protocol: "tcp", payload: pattern(100) });
    assert.equal(segment([{ bytes: packet({ protocol: "tcp", payload: pattern(9), ttl: 1 }) }]).dropped, 1);
    assert.equal(segment([{ bytes, gso: 3, size: 50 }]).dropped, 1, "a kind that was not asked for");
    assert.equal(segment([{ bytes, gso: GSO_TCP4, size: 0 }]).dropped, 1);
    const six = Uint8Array.from(bytes);
    six[0] = 0x65;
    const none = segment([{ bytes: six }, { bytes: bytes.subarray(0, 19) }]);
    assert.deepEqual([none.datagrams.length, none.dropped], [0, 0]);
  });

  test("thousands of tiny segments are sent in parts", () => {
    const bytes = packet({ protocol: "tcp", payload: pattern(60_000) });
    const { datagrams, messages } = segment([{ bytes, gso: GSO_TCP4, size: 48 }]);
    assert.equal(datagrams.length, 1250);
    assert.ok(messages.length >= 1250 / 64);
    assert.equal(
      datagrams.map(faultOf).find((fault) => fault !== undefined),
      undefined,
    );
  });

  test("nobody has the destination: the sender is told, unless it must not be", () => {
    const arena = arenaOf(4096);
    const lost = packet({ protocol: "udp", payload: pattern(100), source: "10.5.1.2", destination: "10.6.0.1" });
    arena.u8.set(lost, 64);
    assert.equal(mayAnswerUnreachable(arena, 64, lost.length), true);
    const length = writeUnreachable(arena, 64, 1030, 0x0a050100);
    const answer = arena.u8.slice(1030 + VNET.size, 1030 + length);
    const view = new DataView(answer.buffer);
    assert.equal(faultOf(answer), undefined);
    assert.deepEqual([...answer.subarray(8, 10)], [8, 1], "TTL 8, ICMP");
    assert.deepEqual([view.getUint32(12), view.getUint32(16)], [0x0a050100, 0x0a050102]);
    assert.deepEqual([...answer.subarray(20, 22)], [3, 0]);
    assert.deepEqual(answer.subarray(28), lost.subarray(0, 28));
    const never: PacketSpec[] = [
      { protocol: "icmp", payload: pattern(10) },
      { protocol: "udp", payload: pattern(10), fragment: 0x2001 },
    ];
    for (const spec of never) {
      arena.u8.set(packet(spec), 64);
      assert.equal(mayAnswerUnreachable(arena, 64, 38), false);
    }
  });
});

describe("from the socket to the device", () => {
  const tcp = (spec: Partial<PacketSpec> & { length?: number } = {}): Uint8Array =>
    packet({ protocol: "tcp", payload: pattern(spec.length ?? 1000), ...spec });

  test("packets of a connection that follow each other become one", () => {
    const run = [0, 1000, 2000].map((at) => tcp({ sequence: 1000 + at, flags: at === 2000 ? 0x18 : 0x10 }));
    const { written } = coalesce(run);
    assert.deepEqual(
      written.map(({ bytes, gso, size }) => [show(bytes), gso, size]),
      [["ttl 63 id 7 tcp seq 1000 flags 0x18 +3000", GSO_TCP4, 1000]],
    );
    assert.equal(faultOf(written[0]!.bytes), undefined);
  });

  const apart: { name: string; second: Partial<PacketSpec> & { length?: number } }[] = [
    { name: "with a gap", second: { sequence: 2001 } },
    { name: "of another connection", second: { sequence: 2000, sourcePort: 4001 } },
    { name: "from elsewhere", second: { sequence: 2000, source: "10.5.1.3" } },
    { name: "that acknowledge something else", second: { sequence: 2000, acknowledgement: 6 } },
    { name: "that are longer", second: { sequence: 2000, length: 1001 } },
    { name: "with other options", second: { sequence: 2000, options: pattern(12), length: 900 } },
    { name: "of another age", second: { sequence: 2000, ttl: 60 } },
    { name: "that end the connection", second: { sequence: 2000, flags: 0x11 } },
    { name: "that met congestion", second: { sequence: 2000, flags: 0x50 } },
    { name: "without data", second: { sequence: 2000, length: 0 } },
  ];
  for (const { name, second } of apart) {
    test(`packets ${name} stay apart, in their order`, () => {
      const given = [tcp(), tcp(second)];
      const { written } = coalesce(given);
      assert.deepEqual(
        written.map(({ bytes, gso }) => [show(bytes), gso, faultOf(bytes)]),
        given.map((bytes) => [
          show(bytes).replace(/^ttl (\d+)/, (_, ttl) => `ttl ${Number(ttl) - 1}`),
          GSO_NONE,
          undefined,
        ]),
      );
    });
  }

  test("a spoilt packet stays as it is, and alone", () => {
    const spoilt = tcp({ sequence: 2000 });
    spoilt[500] = spoilt[500]! ^ 1;
    const { written } = coalesce([tcp(), spoilt, tcp({ sequence: 3000 })]);
    assert.deepEqual(
      written.map(({ gso }) => gso),
      [GSO_NONE, GSO_NONE, GSO_NONE],
    );
    assert.notEqual(faultOf(written[1]!.bytes), undefined);
  });

  test("UDP is put together where the kernel takes it so", () => {
    const udp = (length: number) => packet({ protocol: "udp", payload: pattern(length) });
    const run = [udp(600), udp(600), udp(300), udp(300)];
    assert.deepEqual(
      coalesce(run).written.map(({ bytes, gso, size }) => [show(bytes), gso, size]),
      [
        ["ttl 63 id 7 udp +1500", GSO_UDP, 600],
        ["ttl 63 id 7 udp +300", GSO_NONE, 0],
      ],
    );
    assert.equal(coalesce(run, false).written.length, 4);
  });

  test("what is over or malformed is dropped", () => {
    const long = tcp();
    new DataView(long.buffer).setUint16(2, long.length + 1);
    const six = tcp();
    six[0] = 0x65;
    assert.equal(coalesce([tcp({ ttl: 1 }), long, six, long.subarray(0, 19), new Uint8Array(0)]).dropped, 5);
  });

  test("what a packet has behind its own end is left out", () => {
    const padded = new Uint8Array(1100);
    padded.set(tcp());
    assert.deepEqual(
      coalesce([padded]).written.map(({ bytes }) => bytes.length),
      [1040],
    );
  });
});

describe("both ways", () => {
  test("nothing is lost, changed or reordered, whatever the sizes are", () => {
    const large = fc.record({
      protocol: fc.constantFrom("tcp" as const, "udp" as const),
      length: fc.integer({ min: 1, max: 40_000 }),
      size: fc.integer({ min: 300, max: 1432 }),
      options: fc.constantFrom(0, 12),
    });
    fc.assert(
      fc.property(fc.array(large, { minLength: 1, maxLength: 4 }), (list) => {
        let sequence = 1;
        const given = list.map(({ protocol, length, size, options }, number) => {
          const payload = pattern(length, number);
          const bytes = packet({ protocol, payload, sequence, options: pattern(options) });
          if (protocol === "tcp") sequence += length;
          const gso = length <= size ? GSO_NONE : protocol === "tcp" ? GSO_TCP4 : GSO_UDP;
          return { bytes, gso, size, payload, protocol, headers: protocol === "tcp" ? 40 + options : 28 };
        });
        const { datagrams } = segment(given);
        assert.equal(
          datagrams.map(faultOf).find((fault) => fault !== undefined),
          undefined,
        );
        const { written } = coalesce(datagrams);
        assert.equal(
          written.map(({ bytes }) => faultOf(bytes)).find((fault) => fault !== undefined),
          undefined,
        );
        const payloadOf = (bytes: Uint8Array) => bytes.subarray(bytes[9] === 6 ? 20 + (bytes[32]! >> 4) * 4 : 28);
        for (const protocol of ["tcp", "udp"] as const) {
          const number = protocol === "tcp" ? 6 : 17;
          const arrived = written.filter(({ bytes }) => bytes[9] === number).map(({ bytes }) => payloadOf(bytes));
          const expected = given.filter((each) => each.protocol === protocol).map(({ payload }) => payload);
          assert.deepEqual(Buffer.concat(arrived), Buffer.concat(expected));
        }
      }),
      { numRuns: 40 },
    );
  });
});

describe("who has which subnet", () => {
  const lease = (subnet: string, publicIp: string): Lease => ({
    subnets: { ipv4: parsePrefix(subnet) },
    attributes: { publicIp: parseAddress(publicIp), backendType: "udp" },
  });
  const number = (text: string): number => Number(parseAddress(text).value) | 0;

  test("the longest prefix has the say, and a new list counts at once", () => {
    const table = sharedPeers();
    const lookup = peerLookup(table);
    assert.equal(lookup(number("10.5.1.2")), 0);
    publishPeers(table, [
      lease("10.5.0.0/16", "192.0.2.1"),
      lease("10.5.1.0/24", "192.0.2.2"),
      lease("200.0.0.0/8", "192.0.2.3"),
    ]);
    assert.equal(lookup(number("10.5.1.2")), number("192.0.2.2"));
    assert.equal(lookup(number("10.5.1.2")), number("192.0.2.2"), "from memory");
    assert.equal(lookup(number("10.5.2.2")), number("192.0.2.1"));
    assert.equal(lookup(number("200.5.1.2")), number("192.0.2.3"));
    assert.equal(lookup(number("0.0.0.0")), 0);
    publishPeers(table, [lease("10.5.1.0/24", "192.0.2.4")]);
    assert.equal(lookup(number("10.5.1.2")), number("192.0.2.4"));
    assert.equal(lookup(number("10.5.2.2")), 0);
  });
  test("what does not fit is counted", () => {
    const many = Array.from({ length: 16_390 }, (_, at) => lease(`10.${at >> 8}.${at & 255}.0/24`, "192.0.2.1"));
    assert.equal(publishPeers(sharedPeers(), many), 6);
  });
});
