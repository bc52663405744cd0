import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { openConntrack, watchConnections } from "./conntrack.io.ts";
import type { Connection, ConnectionEvent } from "./conntrack.ts";
import { inNamespace } from "./namespace.io.ts";
import { inside, temporaryNamespace } from "./namespace.testing.ts";
import { openPacketLog } from "./nflog.io.ts";
import type { LoggedPacket } from "./nflog.ts";
import { stateIs } from "./nftMatch.ts";
import { accept, logTo, setMark } from "./nftStatement.ts";
import { openNftables } from "./nftables.io.ts";
import { writeSysctl } from "./sysctl.io.ts";

const table = { family: "ip", name: "t" } as const;

/** A namespace where connections on the loopback are followed and counted. */
function following(): ReturnType<typeof temporaryNamespace> {
  const made = temporaryNamespace();
  const nftables = openNftables(made.path);
  try {
    inNamespace(made.path, () => writeSysctl("netfilter/nf_conntrack_acct", 1));
    nftables.apply([
      { kind: "addTable", table },
      { kind: "addChain", chain: { table, name: "out", base: { type: "filter", hook: "output", priority: 0 } } },
      {
        kind: "addRule",
        rule: {
          table,
          chain: "out",
          expressions: [...stateIs("new"), ...setMark(0x50000, 0xffff0000), ...logTo(7, "APE0|np.default/web", 40)],
        },
      },
      { kind: "addRule", rule: { table, chain: "out", expressions: [...stateIs("new"), ...logTo(8, "second")] } },
      { kind: "addRule", rule: { table, chain: "out", expressions: accept() } },
    ]);
  } finally {
    nftables.close();
  }
  return made;
}

const CONNECTION: Omit<Connection, "id"> = {
  original: {
    source: parseAddress("10.0.0.1"),
    destination: parseAddress("10.0.0.2"),
    protocol: 6,
    sourcePort: 1000,
    destinationPort: 80,
  },
  reply: {
    source: parseAddress("10.0.0.2"),
    destination: parseAddress("10.0.0.1"),
    protocol: 6,
    sourcePort: 80,
    destinationPort: 1000,
  },
  status: ["seenReply", "assured", "confirmed"],
  mark: 0x10000,
  timeout: 600,
  tcpState: "established",
};

describe("connections", () => {
  test("are added, listed and cut", () => {
    using made = following();
    const conntrack = openConntrack(made.path);
    try {
      conntrack.add(CONNECTION);
      assert.throws(
        () => conntrack.add(CONNECTION),
        /Cannot add connection 10\.0\.0\.1:1000 to 10\.0\.0\.2:80, protocol 6: .*EEXIST/,
      );
      const six = {
        source: parseAddress("2001:db8::1"),
        destination: parseAddress("2001:db8::2"),
        protocol: 17,
        sourcePort: 53,
        destinationPort: 99,
      };
      const back = {
        source: six.destination,
        destination: six.source,
        protocol: 17,
        sourcePort: 99,
        destinationPort: 53,
      };
      conntrack.add({ original: six, reply: back, status: ["confirmed"], mark: 0, timeout: 60 });
      const listed = conntrack.connections();
      assert.deepEqual(
        listed.map(({ original }) => original).toSorted((x, y) => x.protocol - y.protocol),
        [CONNECTION.original, six],
      );
      assert.partialDeepStrictEqual(listed[0], { ...CONNECTION, timeout: listed[0]?.timeout ?? 0 });
      assert.equal(conntrack.connections({ family: 4, mark: { value: 0x10000, mask: 0xf0000 } }).length, 1);
      assert.equal(conntrack.connections({ family: 4, mark: { value: 0x20000, mask: 0xf0000 } }).length, 0);
      // Another that came in its place is left alone.
      const [first] = conntrack.connections({ family: 4 });
      assert.ok(first);
      assert.equal(conntrack.delete({ ...first, id: first.id ^ 1 }), false);
      assert.equal(conntrack.delete(first), true);
      assert.equal(conntrack.delete(first), false);
      for (let port = 1; port <= 300; port += 1) {
        const original = { ...CONNECTION.original, destinationPort: port };
        conntrack.add({ ...CONNECTION, original, reply: { ...CONNECTION.reply, sourcePort: port } });
      }
      assert.equal(
        conntrack.deleteWhere(({ original }) => (original.destinationPort ?? 0) > 10, 4),
        290,
      );
      assert.equal(conntrack.connections({ family: 4 }).length, 10);
    } finally {
      conntrack.close();
    }
  });

  test("are cut by an address that began them, or that they arrived at", () => {
    using made = following();
    const conntrack = openConntrack(made.path);
    try {
      // Sent to 10.96.0.1, which became 10.0.0.2.
      const original = { ...CONNECTION.original, destination: parseAddress("10.96.0.1") };
      const elsewhere = { ...CONNECTION.original, destination: parseAddress("10.0.0.3"), sourcePort: 2000 };
      const back = { ...CONNECTION.reply, source: elsewhere.destination, destinationPort: 2000 };
      conntrack.add({ ...CONNECTION, original });
      conntrack.add({ ...CONNECTION, original: elsewhere, reply: back });
      const ports = (filter: Parameters<typeof conntrack.connections>[0]): number[] =>
        conntrack
          .connections(filter)
          .map((found) => found.original.sourcePort ?? 0)
          .sort((a, b) => a - b);
      assert.deepEqual(ports({ family: 4, to: parseAddress("10.0.0.2") }), [1000]);
      assert.deepEqual(ports({ family: 4, from: parseAddress("10.0.0.1") }), [1000, 2000]);
      assert.deepEqual(ports({ family: 4, from: parseAddress("10.0.0.1"), to: parseAddress("10.0.0.3") }), [2000]);
      assert.equal(conntrack.deleteOf(parseAddress("10.96.0.1")), 0);
      assert.equal(conntrack.deleteOf(parseAddress("2001:db8::1")), 0);
      assert.equal(conntrack.deleteOf(parseAddress("10.0.0.2")), 1);
      assert.equal(conntrack.deleteOf(parseAddress("10.0.0.1")), 1);
    } finally {
      conntrack.close();
    }
  });

  test("are told of as they begin, change and end, with their counts", async () => {
    using made = following();
    const conntrack = openConntrack(made.path);
    const events: ConnectionEvent[] = [];
    const ended = Promise.withResolvers<void>();
    const limit = setTimeout(
      () => ended.reject(new Error(`heard only ${events.map(({ change }) => change).join()}`)),
      5000,
    );
    const stop = watchConnections(
      { namespace: made.path, changes: ["new", "updated", "ended"] },
      {
        event(event) {
          events.push(event);
          if (event.change === "ended") ended.resolve();
        },
        overrun: (reason) => ended.reject(new Error(reason)),
        failed: ended.reject,
      },
    );
    try {
      inside(made.name, "ping", "-q", "-c", "2", "-i", "0.01", "127.0.0.1");
      assert.equal(
        conntrack.deleteWhere(({ original }) => original.icmp?.type === 8),
        1,
      );
      await ended.promise;
    } finally {
      clearTimeout(limit);
      stop();
      conntrack.close();
    }
    assert.equal(events[0]?.change, "new");
    assert.ok(events.some(({ change }) => change === "updated"));
    const last = events.at(-1)?.connection;
    assert.deepEqual(
      [last?.sent, last?.received],
      [
        { packets: 2, bytes: 168 },
        { packets: 2, bytes: 168 },
      ],
    );
    assert.equal(last && formatAddress(last.original.destination), "127.0.0.1");
  });
});

describe("the packet log", () => {
  test("hands over what rules log, to each group as much as it wants", async () => {
    using made = following();
    const heard: LoggedPacket[] = [];
    const enough = Promise.withResolvers<void>();
    const listener = {
      packet(packet: LoggedPacket): void {
        heard.push(packet);
        if (heard.length === 4) enough.resolve();
      },
      overrun: (reason: string) => enough.reject(new Error(reason)),
      failed: enough.reject,
    };
    const stop = openPacketLog(
      {
        namespace: made.path,
        groups: [
          { group: 7, connections: true },
          { group: 8, copyRange: 20 },
        ],
      },
      listener,
    );
    const limit = setTimeout(() => enough.reject(new Error(`heard only ${heard.length} packets`)), 5000);
    try {
      assert.throws(
        () => openPacketLog({ namespace: made.path, groups: [{ group: 7 }] }, listener),
        /Cannot listen to packet log group 7: .*\(EPERM\)/,
      );
      inside(made.name, "ping", "-q", "-c", "1", "127.0.0.1");
      inside(made.name, "ping", "-q", "-c", "1", "127.0.0.2");
      await enough.promise;
    } finally {
      clearTimeout(limit);
      stop();
      stop();
    }
    const [first, second] = heard.filter(({ group }) => group === 7);
    assert.partialDeepStrictEqual(first, {
      family: "ip",
      hook: 3,
      prefix: "APE0|np.default/web",
      mark: 0x50000,
      output: 1,
      user: 0,
      sequence: 0,
    });
    assert.equal(second?.sequence, 1);
    // The rule says forty bytes, the listener twenty.
    assert.deepEqual(heard.map(({ group, payload }) => `${group}: ${payload.length}`).toSorted(), [
      "7: 40",
      "7: 40",
      "8: 20",
      "8: 20",
    ]);
    // Not every kernel is built with what it needs for connections.
    assert.ok(first?.connection === undefined || first.connection.original.icmp?.type === 8);
    // Its place is free again.
    openPacketLog({ namespace: made.path, groups: [{ group: 7 }] }, listener)();
  });
});
