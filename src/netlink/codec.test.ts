import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { anyAddressOf, anyFamily, anyPrefixOf } from "../ip/address.testing.ts";
import { addressBits, parseAddress } from "../ip/address.ts";
import { MalformedBytes } from "../lib/bytes.ts";
import { addAddress, decodeAddress, type LinkAddress } from "./addr.ts";
import { present } from "./attributes.ts";
import { decodeMessages, readAnswer } from "./framing.ts";
import { messageOf, readGolden } from "./golden.testing.ts";
import { addLink, decodeLink, describeChanges, describeLink, setLink } from "./link.ts";
import { addNeighbour, appendForwarding, decodeNeighbour, describeForwarding, describeNeighbour } from "./neigh.ts";
import { decodeNotification } from "./notification.ts";
import { addRoute, decodeRoute, describeRoute, type NextHop, type Route } from "./route.ts";
import { addRule, decodeRule, describeRule, type Rule } from "./rule.ts";

/** Fields that may be absent, as types with optional fields want them. */
function optional<Fields extends object>(fields: {
  [Name in keyof Fields]: fc.Arbitrary<Fields[Name]>;
}): fc.Arbitrary<Partial<Fields>> {
  return fc.record(fields, { requiredKeys: [] }) as fc.Arbitrary<Partial<Fields>>;
}

const u32 = fc.integer({ min: 0, max: 0xffffffff });
const index = fc.integer({ min: 1, max: 0x7fffffff });
const yes = fc.constant(true as const);
const mac = fc
  .uint8Array({ minLength: 6, maxLength: 6 })
  .map((bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":"));
const interfaceName = fc.stringMatching(/^[a-z][a-z0-9.-]{0,14}$/);

const routes: fc.Arbitrary<Route> = anyFamily.chain((family) => {
  const hop = fc.record({
    // An IPv4 route may have an IPv6 gateway.
    gateway: (family === 4 ? anyFamily : fc.constant(6 as const)).chain(anyAddressOf),
    device: index,
  });
  const onlink = optional({ onlink: yes });
  const single = fc.tuple(hop, onlink).map(([one, flag]): NextHop[] => [{ ...one, ...flag }]);
  const weighted = fc.tuple(hop, onlink, fc.integer({ min: 1, max: 256 }));
  const several = fc
    .array(weighted, { minLength: 2, maxLength: 5 })
    .map((hops) => hops.map(([one, flag, weight]): NextHop => ({ ...one, ...flag, weight })));
  const base = {
    destination: anyPrefixOf(family),
    table: fc.oneof(fc.integer({ min: 1, max: 255 }), fc.integer({ min: 256, max: 0xffffffff })),
    protocol: fc.nat(255),
    scope: family === 6 ? fc.constant(0) : fc.constantFrom(0, 200, 253, 254),
    metric: u32,
  };
  const unicast = fc.record({
    ...base,
    type: fc.constantFrom("unicast" as const, "local" as const),
    nextHops: fc.oneof(
      single,
      several,
      hop.map(({ device }): NextHop[] => [{ device }]),
    ),
  });
  const nowhere = fc.record({
    ...base,
    type: fc.constantFrom("blackhole" as const, "unreachable" as const, "prohibit" as const, "throw" as const),
    nextHops: fc.constant([]),
  });
  const extras = optional({ source: anyAddressOf(family), mtu: u32 });
  return fc.tuple(fc.oneof(unicast, nowhere), extras).map(([route, extra]) => ({ ...route, ...extra }));
});

const addresses: fc.Arbitrary<LinkAddress> = anyFamily.chain((family) =>
  fc
    .tuple(
      fc.record({
        device: index,
        address: fc
          .tuple(anyAddressOf(family), fc.integer({ min: 0, max: addressBits(family) }))
          .map(([address, length]) => ({ address, length })),
        scope: fc.constantFrom(0, 253, 254),
      }),
      optional({
        peer: anyAddressOf(family),
        broadcast: anyAddressOf(family),
        label: interfaceName,
        noPrefixRoute: yes,
        noDuplicateDetection: yes,
      }),
    )
    .map(([base, extra]) => ({ ...base, ...extra }))
    // A peer that is the address itself is no peer.
    .filter(({ address, peer }) => peer?.value !== address.address.value),
);

const rules: fc.Arbitrary<Rule> = anyFamily.chain((family) => {
  const prefix = anyPrefixOf(family).filter(({ length }) => length > 0);
  return fc
    .tuple(
      fc.oneof(
        fc.record({ action: fc.constant("table" as const), table: fc.integer({ min: 1, max: 0xffffffff }) }),
        fc.record({ action: fc.constantFrom("blackhole" as const, "unreachable" as const, "prohibit" as const) }),
      ),
      u32,
      optional({
        from: prefix,
        to: prefix,
        mark: u32,
        mask: fc.integer({ min: 0, max: 0xfffffffe }),
        inputInterface: interfaceName,
        outputInterface: interfaceName,
        invert: yes,
        suppressPrefixLength: fc.integer({ min: 0, max: 128 }),
        protocol: fc.integer({ min: 1, max: 255 }),
      }),
    )
    .map(([action, priority, extra]) => ({ family, priority, ...action, ...extra }));
});

const neighbours = anyFamily.chain((family) =>
  fc
    .tuple(
      fc.record({ device: index, address: anyAddressOf(family), state: fc.constantFrom("permanent", "stale", "none") }),
      optional({ linkAddress: mac, proxy: yes }),
    )
    .map(([base, extra]) => ({ ...base, ...extra })),
);

describe("what is written is read back", () => {
  test("routes", () => {
    fc.assert(fc.property(routes, (route) => assert.deepEqual(decodeRoute(messageOf(addRoute(route))), route)));
  });
  test("addresses", () => {
    fc.assert(fc.property(addresses, (one) => assert.deepEqual(decodeAddress(messageOf(addAddress(one))), one)));
  });
  test("rules", () => {
    fc.assert(fc.property(rules, (rule) => assert.deepEqual(decodeRule(messageOf(addRule(rule))), rule)));
  });
  test("neighbours", () => {
    fc.assert(fc.property(neighbours, (one) => assert.deepEqual(decodeNeighbour(messageOf(addNeighbour(one))), one)));
  });
  test("forwarding entries", () => {
    const entries = fc
      .tuple(
        fc.record({ device: index, linkAddress: mac }),
        optional({ destination: anyFamily.chain(anyAddressOf), port: fc.nat(65535), vlan: fc.nat(4095) }),
      )
      .map(([base, extra]) => ({ ...base, ...extra }));
    fc.assert(
      fc.property(entries, (entry) => {
        const read = decodeNeighbour(messageOf(appendForwarding({ ...entry, table: "self" })));
        assert.deepEqual(read, { ...entry, state: "permanent", self: true });
      }),
    );
  });
  test("links", () => {
    const ends = optional({ local: anyFamily.chain(anyAddressOf), remote: anyFamily.chain(anyAddressOf) });
    const options = optional({
      device: index,
      port: fc.nat(65535),
      learning: fc.boolean(),
      ttl: fc.nat(255),
      checksum: fc.boolean(),
    });
    const vxlans = fc.tuple(fc.nat(0xffffff), ends, options).map(([id, end, option]) => ({ id, ...end, ...option }));
    const device = fc.record({ name: interfaceName, address: mac, mtu: u32, txQueueLength: u32, up: fc.boolean() });
    fc.assert(
      fc.property(device, vxlans, (base, vxlan) => {
        const read = decodeLink(messageOf(addLink({ ...base, kind: "vxlan", vxlan }, () => 0)));
        assert.deepEqual(read, {
          ...base,
          index: 0,
          carrier: false,
          loopback: false,
          operState: "unknown",
          kind: "vxlan",
          vxlan,
        });
      }),
    );
  });
  test("an end of an IPIP tunnel that takes packets for one address", () => {
    const ipip = { local: parseAddress("192.0.2.11") };
    const read = decodeLink(messageOf(addLink({ kind: "ipip", name: "flannel.ipip", ipip }, () => 0)));
    assert.deepEqual([read.name, read.kind, read.ipip], ["flannel.ipip", "ipip", ipip]);
  });
  test("changes of a link", () => {
    const read = decodeLink(messageOf(setLink(7, { up: false, master: 3, namespace: "/run/netns/x" }, () => 9)));
    assert.deepEqual([read.index, read.up, read.master], [7, false, 3]);
  });
});

describe("mutated answers of the kernel", () => {
  const datagrams = ["link", "addr", "route", "neigh", "rule", "list"].flatMap((name) =>
    readGolden(name).flatMap(({ answers }) => answers),
  );
  test("there are some", () => assert.ok(datagrams.length >= 8));

  test("are read, or refused with MalformedBytes", () => {
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
          if (readAnswer(message).kind === "data") decodeNotification(message);
        }
      } catch (error) {
        assert.ok(error instanceof MalformedBytes, String(error));
        refused += 1;
      }
    });
    fc.assert(property, { numRuns: 2000 });
    assert.ok(refused > 0);
  });

  test("a prefix longer than its family is refused", () => {
    const message = messageOf(addRoute({ destination: { address: { family: 4, value: 0n }, length: 33 } }));
    assert.throws(() => decodeRoute(message), /0\.0\.0\.0\/33 is no IPv4 prefix/);
  });
});

describe("sentences name what was to be done", () => {
  const cali = (device: number): string => `cali${device}`;
  const sentences: [said: string, expected: string][] = [
    [
      describeRoute(
        {
          destination: { address: { family: 4, value: 0x0a010200n }, length: 26 },
          nextHops: [{ gateway: { family: 4, value: 0xc0000207n }, device: 4, onlink: true }],
          table: 100,
          metric: 7,
        },
        cali,
      ),
      "10.1.2.0/26 via 192.0.2.7 dev cali4 table 100 metric 7 onlink",
    ],
    [describeLink({ kind: "veth", name: "cali4", peer: { name: "eth0" } }), "veth cali4 with peer eth0"],
    [describeLink({ kind: "bridge", name: "br0" }), "bridge br0"],
    [describeChanges({ up: false, mtu: 1450 }), "down, mtu 1450"],
    [describeNeighbour({ device: 4, address: { family: 6, value: 1n }, proxy: true }, cali), "proxy ::1 dev cali4"],
    [
      describeForwarding({
        device: 4,
        linkAddress: "66:00:00:00:00:01",
        destination: { family: 4, value: 1n },
        table: "self",
      }),
      "66:00:00:00:00:01 dst 0.0.0.1 dev 4",
    ],
    [
      describeRule({
        family: 4,
        priority: 9,
        action: "table",
        table: 99,
        mark: 255,
        mask: 255,
        outputInterface: "eth0",
      }),
      "9: fwmark 0xff/0xff oif eth0 table 99",
    ],
  ];
  for (const [said, expected] of sentences) test(expected, () => assert.equal(said, expected));
});

test("present drops what is undefined, and nothing else", () => {
  assert.deepEqual(present({ a: 0, b: undefined, c: false, d: "" }), { a: 0, c: false, d: "" });
});
