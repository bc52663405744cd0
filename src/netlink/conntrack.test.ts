import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { anyAddressOf, anyFamily } from "../ip/address.testing.ts";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { MalformedBytes } from "../lib/bytes.ts";
import {
  addConnection,
  type Connection,
  decodeConnection,
  decodeConnectionEvent,
  describeTuple,
  type Tuple,
} from "./conntrack.ts";
import { decodeMessages, type Message, readAnswer } from "./framing.ts";
import { messageOf, readGolden, wireOf } from "./golden.testing.ts";
import { decodeLoggedPacket } from "./nflog.ts";

const a = parseAddress;
const goldens = readGolden("conntrack");
const messagesOf = (command: string): Message[] =>
  (goldens.find((one) => one.command === command)?.answers ?? [])
    .flatMap((bytes) => decodeMessages(bytes))
    .filter((message) => readAnswer(message).kind === "data");

const TRANSLATED: Omit<Connection, "id"> = {
  original: { source: a("10.0.0.1"), destination: a("192.0.2.10"), protocol: 6, sourcePort: 1000, destinationPort: 80 },
  reply: { source: a("10.0.0.2"), destination: a("10.0.0.1"), protocol: 6, sourcePort: 8080, destinationPort: 1000 },
  status: ["seenReply", "assured", "confirmed"],
  mark: 7,
  timeout: 600,
  tcpState: "established",
};

describe("connections", () => {
  test("what `conntrack -I` sends, we send", () => {
    const sent = goldens.find(({ command }) => command === "conntrack -I")?.sent[0]?.split(" ") ?? [];
    sent[2] = "00000000"; // its sequence number is the time
    // In its attributes of one byte it leaves what was in the memory behind the byte.
    const clean = sent.join(" ").replaceAll(/05000100 (..)....../g, "05000100 $1000000");
    assert.equal(wireOf(addConnection(TRANSLATED)), clean);
  });

  test("what `conntrack -L` lists, we list", () => {
    const connections = ["ipv4", "ipv6"].flatMap((family) =>
      messagesOf(`conntrack -L -f ${family}`).map((one) => decodeConnection(one)!),
    );
    const ping = connections.find(({ original }) => original.icmp !== undefined);
    assert.deepEqual(
      [ping?.sent, ping?.received, ping?.status],
      [{ packets: 1, bytes: 84 }, { packets: 1, bytes: 84 }, ["seenReply", "confirmed"]],
    );
    assert.deepEqual([ping?.original.icmp?.type, ping?.reply.icmp?.type], [8, 0]);
    assert.ok(ping?.started !== undefined && ping.started > 1e12);
    const tcp = connections.find(({ original }) => original.protocol === 6);
    // It was listed within its first second.
    assert.partialDeepStrictEqual(tcp, { ...TRANSLATED, timeout: 599 });
    const udp = connections.find(({ original }) => original.protocol === 17);
    assert.equal(udp && describeTuple(udp.original), "[2001:db8::1]:53 to [2001:db8::2]:5353, protocol 17");
    assert.equal(connections.length, 3);
  });

  const port = fc.nat(65535);
  const tuples: fc.Arbitrary<Tuple> = anyFamily.chain((family) => {
    const ends = { source: anyAddressOf(family), destination: anyAddressOf(family) };
    const plain = { noNullPrototype: true };
    return fc.oneof(
      fc.record({ ...ends, protocol: fc.constantFrom(6, 17, 132), sourcePort: port, destinationPort: port }, plain),
      fc.record(
        {
          ...ends,
          protocol: fc.constant(family === 4 ? 1 : 58),
          icmp: fc.record({ id: port, type: fc.nat(255), code: fc.nat(255) }, plain),
        },
        plain,
      ),
    );
  });
  test("what is written is read back", () => {
    const property = fc.property(
      tuples,
      fc.nat(0xffff),
      fc.constantFrom("established", "timeWait" as const),
      (one, mark, tcpState) => {
        const connection: Omit<Connection, "id"> = {
          original: one,
          reply: one,
          status: ["assured"],
          mark,
          timeout: 9,
          tcpState,
          zone: 3,
        };
        assert.deepEqual(decodeConnection(messageOf(addConnection(connection))), { ...connection, id: 0 });
      },
    );
    fc.assert(property);
  });
  test("a sentence names the connection", () => {
    assert.equal(describeTuple(TRANSLATED.original), "10.0.0.1:1000 to 192.0.2.10:80, protocol 6");
    const icmp = { source: a("::1"), destination: a("::2"), protocol: 58, icmp: { id: 1, type: 128, code: 0 } };
    assert.equal(describeTuple(icmp), "::1 to ::2, protocol 58");
  });
});

test("a logged packet, as the kernel sent it to tcpdump", () => {
  const [packet] = messagesOf("tcpdump -i nflog:7").map(decodeLoggedPacket);
  assert.ok(packet);
  const { payload, ...rest } = packet;
  assert.deepEqual(rest, { group: 7, family: "ip", hook: 3, prefix: "APE0|np.default/web", mark: 0x10000, output: 1 });
  assert.equal(payload.length, 84);
  assert.equal(formatAddress({ family: 4, value: BigInt(new DataView(payload.buffer).getUint32(12)) }), "127.0.0.1");
});

test("mutated answers about connections and packets are read, or refused with MalformedBytes", () => {
  const datagrams = goldens.flatMap(({ answers }) => answers);
  assert.ok(datagrams.length >= 3);
  const mutation = fc.record({
    datagram: fc.constantFrom(...datagrams),
    at: fc.array(fc.tuple(fc.double({ min: 0, max: 0.9999, noNaN: true }), fc.nat(255)), { maxLength: 4 }),
    cut: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
  });
  let refused = 0;
  const property = fc.property(mutation, ({ datagram, at, cut }) => {
    const bytes = datagram.slice(0, cut === null ? datagram.length : Math.floor(datagram.length * cut));
    for (const [place, value] of at) if (bytes.length > 0) bytes[Math.floor(place * bytes.length)] = value;
    try {
      for (const message of decodeMessages(bytes)) {
        if (readAnswer(message).kind !== "data") continue;
        const { body } = message;
        const start = body.offset;
        decodeConnectionEvent(message);
        body.offset = start;
        decodeLoggedPacket(message);
      }
    } catch (error) {
      assert.ok(error instanceof MalformedBytes, String(error));
      refused += 1;
    }
  });
  fc.assert(property, { numRuns: 1000 });
  assert.ok(refused > 0);
});
