import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import type { Family } from "../ip/address.ts";
import { ByteReader, ByteWriter, fromHex, toHex } from "../lib/bytes.ts";
import { asnArbitrary, record } from "./bgp.testing.ts";
import type { Capabilities } from "./capabilities.ts";
import {
  decodeOpen,
  decodeRouteRefresh,
  encodeKeepalive,
  encodeNotificationMessage,
  encodeOpen,
  encodeRouteRefresh,
  nextFrame,
  type OpenMessage,
} from "./message.ts";
import { decodeNotification, describeNotification, notification, ProtocolError, shutdown } from "./notification.ts";

const MARKER = "ff".repeat(16);

function open(body: string): OpenMessage {
  const bytes = fromHex(body);
  return decodeOpen(bytes, 0, bytes.length);
}

/** The code and subcode of the NOTIFICATION that something is answered with. */
function refusal(run: () => unknown): string {
  try {
    run();
  } catch (thrown) {
    if (thrown instanceof ProtocolError) return `${thrown.notification.code}/${thrown.notification.subcode}`;
    throw thrown;
  }
  return "accepted";
}

describe("framing", () => {
  test("a message is found when it is whole, and not before", () => {
    const bytes = Buffer.concat([encodeKeepalive(), encodeRouteRefresh(6)]);
    assert.deepEqual(nextFrame(bytes, 0, 4096), { type: 4, start: 19, end: 19 });
    assert.deepEqual(nextFrame(bytes, 19, 4096), { type: 5, start: 38, end: 42 });
    for (let length = 0; length < 19; length += 1)
      assert.equal(nextFrame(bytes.subarray(0, length), 0, 4096), undefined);
  });

  const bad: { name: string; wire: string; answer: string }[] = [
    { name: "a marker with a zero in it", wire: `${"ff".repeat(15)}00 0013 04`, answer: "1/1" },
    { name: "shorter than its header", wire: `${MARKER} 0012 04`, answer: "1/2" },
    { name: "longer than 4096", wire: `${MARKER} 1001 02`, answer: "1/2" },
    { name: "a keepalive with a body", wire: `${MARKER} 0014 04 00`, answer: "1/2" },
    { name: "an OPEN that is too short", wire: `${MARKER} 001c 01`, answer: "1/2" },
    { name: "type 9", wire: `${MARKER} 0013 09`, answer: "1/3" },
  ];
  for (const { name, wire, answer } of bad) {
    test(`a header that cannot be: ${name}`, () => {
      assert.equal(
        refusal(() => nextFrame(fromHex(wire), 0, 4096)),
        answer,
      );
    });
  }

  test("RFC 8654 allows long UPDATEs, but no long OPEN", () => {
    assert.equal(nextFrame(fromHex(`${MARKER} 1001 02`), 0, 65535), undefined);
    assert.equal(
      refusal(() => nextFrame(fromHex(`${MARKER} 1001 01`), 0, 65535)),
      "1/2",
    );
  });
});

describe("OPEN", () => {
  test("as BIRD 2 sends it", () => {
    const body =
      "04 fc00 00f0 c0000202 28 02 26 01 04 00010001 02 00 40 06 0078 000101 80 41 04 0000fc00 45 08 00010103 00020103 46 00 47 00 06 00";
    const message = open(body);
    assert.equal(message.asn, 64512);
    assert.equal(message.holdTime, 240);
    assert.equal(message.routerId, 0xc0000202);
    assert.deepEqual(message.capabilities, {
      families: [4],
      routeRefresh: true,
      gracefulRestart: {
        restarting: false,
        notification: false,
        restartTime: 120,
        families: [{ family: 4, forwardingPreserved: true }],
      },
      asn: 64512,
      addPath: [
        { family: 4, receive: true, send: true },
        { family: 6, receive: true, send: true },
      ],
      enhancedRouteRefresh: true,
      extendedMessage: true,
    });
  });

  const family = fc.constantFrom<Family>(4, 6);
  const families = fc.uniqueArray(family, { minLength: 1 });
  const capabilities: fc.Arbitrary<Capabilities> = fc.record(
    {
      families,
      routeRefresh: fc.constant(true),
      extendedMessage: fc.constant(true),
      gracefulRestart: record({
        restarting: fc.boolean(),
        notification: fc.boolean(),
        restartTime: fc.nat(4095),
        families: fc.uniqueArray(record({ family, forwardingPreserved: fc.boolean() }), {
          selector: (f) => f.family,
        }),
      }),
      addPath: fc.uniqueArray(
        record({ family, receive: fc.boolean(), send: fc.boolean() }).filter(({ receive, send }) => receive || send),
        { minLength: 1, selector: (entry) => entry.family },
      ),
      enhancedRouteRefresh: fc.constant(true),
    },
    { noNullPrototype: true, requiredKeys: [] },
  );
  test("what is written is read back", () => {
    const message = record({
      asn: asnArbitrary,
      holdTime: fc.nat(65535),
      routerId: fc.nat(0xffffffff),
      capabilities,
    });
    fc.assert(
      fc.property(message, (sent) => {
        const whole = { ...sent, capabilities: { ...sent.capabilities, asn: sent.asn } };
        const bytes = encodeOpen(whole);
        const frame = nextFrame(bytes, 0, 4096);
        assert.ok(frame);
        assert.deepEqual(decodeOpen(bytes, frame.start, frame.end), whole);
      }),
      { numRuns: 200 },
    );
  });

  test("a speaker from before capabilities", () => {
    const plain = { asn: 100, holdTime: 90, routerId: 1, capabilities: {} };
    const bytes = encodeOpen(plain);
    assert.equal(bytes.length, 29);
    assert.deepEqual(decodeOpen(bytes, 19, 29), plain);
  });

  test("parameters of extended length (RFC 9072), and capabilities that we do not know", () => {
    assert.equal(open("04 fc00 005a 01020304 ff ff 000d 02 000a 41 04 00011170 49 02 abcd").asn, 70000);
  });

  const bad: { name: string; body: string; answer: string }[] = [
    { name: "version 3", body: "03 fc00 005a 01020304 00", answer: "2/1" },
    { name: "parameter of type 1", body: "04 fc00 005a 01020304 02 01 00", answer: "2/4" },
    { name: "parameters longer than the message", body: "04 fc00 005a 01020304 05 02 00", answer: "2/0" },
    { name: "bytes after the parameters", body: "04 fc00 005a 01020304 00 00", answer: "2/0" },
    { name: "a capability longer than its parameter", body: "04 fc00 005a 01020304 04 02 02 41 04", answer: "2/0" },
    {
      name: "a multiprotocol capability of two bytes",
      body: "04 fc00 005a 01020304 06 02 04 01 02 0001",
      answer: "2/0",
    },
  ];
  for (const { name, body, answer } of bad) {
    test(`that cannot be: ${name}`, () =>
      assert.equal(
        refusal(() => open(body)),
        answer,
      ));
  }
});

describe("NOTIFICATION", () => {
  test("codes in words, and the operator's own", () => {
    assert.equal(describeNotification(notification(2, 2)), "OPEN Message Error: Bad Peer AS");
    assert.equal(describeNotification(notification(4)), "Hold Timer Expired");
    assert.equal(describeNotification(notification(6, 77)), "Cease: subcode 77");
    assert.equal(describeNotification(notification(99, 1)), "error code 99, subcode 1");
    assert.equal(
      describeNotification(shutdown(2, "kernel upgrade")),
      'Cease: Administrative Shutdown "kernel upgrade"',
    );
    // A length that lies, and text where there should be none, are passed over (RFC 9003 section 4).
    assert.equal(describeNotification(notification(6, 2, fromHex("ff 41"))), "Cease: Administrative Shutdown");
    assert.equal(describeNotification(notification(6, 5, fromHex("01 41"))), "Cease: Connection Rejected");
    assert.equal(
      describeNotification(notification(6, 2, fromHex("03 411b42"))),
      'Cease: Administrative Shutdown "A B"',
    );
  });

  test("a shutdown communication is at most 255 bytes of whole characters", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 300 }), (text) => {
        const { data } = shutdown(2, text.toWellFormed());
        assert.ok(data.length <= 256);
        if (data.length > 0) assert.equal(data[0], data.length - 1);
        assert.doesNotThrow(() => new TextDecoder("utf-8", { fatal: true }).decode(data.subarray(1)));
      }),
    );
  });

  test("what is written is read back", () => {
    const sent = notification(3, 1, fromHex("0102"));
    const bytes = encodeNotificationMessage(sent);
    assert.equal(toHex(bytes), `${MARKER}0017030301${"0102"}`);
    assert.deepEqual(decodeNotification(new ByteReader(bytes, 19)), sent);
  });
});

test("ROUTE-REFRESH says which family, and a family we do not speak is told apart", () => {
  const bytes = encodeRouteRefresh(6);
  assert.deepEqual(decodeRouteRefresh(bytes, 19, 23), { family: 6, subtype: 0 });
  const writer = new ByteWriter();
  writer.u32(0x00190041);
  assert.deepEqual(decodeRouteRefresh(writer.finish(), 0, 4), { family: undefined, subtype: 0 });
});
