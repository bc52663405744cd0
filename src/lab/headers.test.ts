import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { echo, ipv4 } from "../dataplane/tunnelPackets.testing.ts";
import { readPcap } from "./capture.testing.ts";
import { describeFrame, innermost } from "./headers.testing.ts";

/** The reader of captures itself: what it says of packets that are made by hand, sound and spoilt. */

const [node1, node2] = [parseAddress("192.0.2.11"), parseAddress("192.0.2.12")];
const [pod1, pod2] = [parseAddress("10.244.0.2"), parseAddress("10.244.1.2")];

function framed(packet: Uint8Array): Uint8Array {
  const frame = new Uint8Array(14 + packet.length);
  frame.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
  frame.set(packet, 14);
  return frame;
}

function enveloped(): Uint8Array {
  const payload = ipv4({ source: pod1, destination: pod2, protocol: 1, payload: echo(3, 8), ttl: 63 });
  return ipv4({ source: node1, destination: node2, protocol: 4, payload, fragment: 0x4000 });
}

const names = (text: string): string => (text === "10.244.0.2" ? "client" : text);

describe("the headers of a frame", () => {
  test("are read from the outermost to the innermost", () => {
    assert.deepEqual(describeFrame(framed(enveloped()), names), [
      "ethernet  destination=02:00:00:00:00:02 source=02:00:00:00:00:01 type=0x0800",
      "ipv4      version=4 headerLength=20 tos=0x00 length=56 identification=any flags=DF offset=0 ttl=64 protocol=4 checksum=right source=192.0.2.11 destination=192.0.2.12",
      "ipv4      version=4 headerLength=20 tos=0x00 length=36 identification=0 flags=none offset=0 ttl=63 protocol=1 checksum=right source=client destination=10.244.1.2",
      "icmp      type=8 code=0 checksum=right identifier=some sequence=3 data=8",
    ]);
    assert.deepEqual(innermost(framed(enveloped())), { source: "10.244.0.2", destination: "10.244.1.2" });
  });

  for (const { what, at, line } of [
    { what: "the outer header", at: 14 + 8, line: 1 },
    { what: "the inner header", at: 14 + 20 + 8, line: 2 },
    { what: "the payload", at: 14 + 20 + 20 + 9, line: 3 },
  ]) {
    test(`spoilt in ${what} have a wrong checksum there, and nowhere else`, () => {
      const frame = framed(enveloped());
      frame[at] = frame[at]! ^ 1;
      const wrong = describeFrame(frame, names).map((text) => text.includes("WRONG"));
      assert.deepEqual(wrong, [false, line === 1, line === 2, line === 3]);
    });
  }
});

describe("a file of tcpdump", () => {
  const record = (frame: Uint8Array, captured = frame.length): number[] => [
    ...new Uint8Array(Uint32Array.of(0, 0, captured, frame.length).buffer),
    ...frame.subarray(0, captured),
  ];
  const header = [...new Uint8Array(Uint32Array.of(0xa1b2c3d4, 0, 0, 0, 65_535, 1).buffer)];

  test("holds frames whole", () => {
    const frame = framed(enveloped());
    assert.deepEqual(readPcap(Uint8Array.from([...header, ...record(frame), ...record(frame)])), [frame, frame]);
  });

  test("is refused where it is none, or has frames cut short", () => {
    assert.throws(() => readPcap(Uint8Array.from([1, 2, 3, 4])), /is no pcap file/);
    const cut = Uint8Array.from([...header, ...record(framed(enveloped()), 20)]);
    assert.throws(() => readPcap(cut), /20 of 70 bytes/);
  });
});
