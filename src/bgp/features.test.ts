import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { parseAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { ByteReader } from "../lib/bytes.ts";
import { WELL_KNOWN, type PathAttributes } from "./attributes.ts";
import type { PeerConfig, PeerStatus, Speaker } from "./config.ts";
import { exportAttributes, exportRefusal, type ExportPolicy } from "./export-policy.ts";
import { importRoute, type ImportPolicy } from "./import-policy.ts";
import { decodeRouteRefresh, encodeRouteRefresh, REFRESH } from "./message.ts";
import { decodeNotification, describeNotification } from "./notification.ts";
import { ASN, fastClock, originate, peerOf, rawSession, speakerAt, until, withSpeakers } from "./speaker.testing.ts";
import { listenerOf, path, policyOf, tablesWith } from "./tables.testing.ts";
import { encodeUpdate } from "./update.ts";

const ACCEPT = { rules: [], otherwise: "accept" } as const;
const WORDS = { w0: 0x0a010000, w1: 0, w2: 0, w3: 0, length: 16 };
const BY_EBGP = { ...tablesWith().peer(0), index: 1, internal: false };
const BY_IBGP = { ...BY_EBGP, internal: true };

function status(speaker: Speaker, index = 0): PeerStatus {
  const found = speaker.peers()[index];
  assert.ok(found);
  return found;
}

describe("what is believed", () => {
  const policy: ImportPolicy = listenerOf(tablesWith(), 1, false).table.imports[4]!;
  const judge = (attributes: PathAttributes, change: Partial<ImportPolicy> = {}) =>
    importRoute(WORDS, attributes, { ...policy, ...change });
  const loops: { path: number[]; change?: Partial<ImportPolicy>; refused: boolean }[] = [
    { path: [65001], refused: false },
    { path: [65001, ASN], refused: true },
    { path: [65001, ASN], change: { allowOwnAs: 1 }, refused: false },
    { path: [ASN, 65001, ASN], change: { allowOwnAs: 1 }, refused: true },
    { path: [ASN, 65001, ASN], change: { allowOwnAs: 2 }, refused: false },
    { path: [65001, 64999], change: { ownAsns: [ASN, 64999] }, refused: true },
  ];
  for (const { path: asns, change, refused } of loops) {
    test(`${asns.join(" ")} with ${JSON.stringify(change ?? {})}: ${refused ? "a loop" : "no loop"}`, () => {
      assert.equal("refused" in judge(path("192.0.2.11", asns), change), refused);
    });
  }

  test("a neighbour about to go is used last (RFC 8326); within our AS, its preference says it", () => {
    const leaving = path("192.0.2.11", [65001], { communities: [WELL_KNOWN.gracefulShutdown] });
    const outside = judge(leaving);
    assert.ok("attributes" in outside);
    assert.equal(outside.attributes.localPref, 0);
    const inside = judge({ ...leaving, localPref: 100 }, { internal: true });
    assert.ok("attributes" in inside);
    assert.equal(inside.attributes.localPref, 100);
  });
});

describe("what is told", () => {
  const learned = path("192.0.2.11", [65001], { localPref: 300 });
  const own = parseAddress("192.0.2.1");
  const nextHops: { to: string; policy: Partial<ExportPolicy>; source: typeof BY_EBGP; nextHop: string }[] = [
    { to: "iBGP, auto", policy: {}, source: BY_EBGP, nextHop: "192.0.2.11" },
    { to: "iBGP, self", policy: { nextHopMode: "self" }, source: BY_EBGP, nextHop: "192.0.2.1" },
    { to: "eBGP, auto", policy: { internal: false }, source: BY_IBGP, nextHop: "192.0.2.1" },
    { to: "eBGP, keep", policy: { internal: false, nextHopMode: "keep" }, source: BY_IBGP, nextHop: "192.0.2.11" },
    { to: "a client, self", policy: { client: true, nextHopMode: "self" }, source: BY_IBGP, nextHop: "192.0.2.1" },
    { to: "a client, auto", policy: { client: true }, source: BY_IBGP, nextHop: "192.0.2.11" },
  ];
  for (const { to, policy, source, nextHop } of nextHops) {
    test(`next hop to ${to}: ${nextHop}`, () => {
      const told = exportAttributes(learned, source, policyOf(true, ACCEPT, policy), []);
      assert.deepEqual(told.nextHop, parseAddress(nextHop));
    });
  }

  test("our own routes have ourselves as next hop also where it is kept", () => {
    const local = { ...BY_EBGP, index: 0 };
    const told = exportAttributes(
      { origin: "igp", asPath: [] },
      local,
      policyOf(false, ACCEPT, { nextHopMode: "keep" }),
      [],
    );
    assert.deepEqual(told.nextHop, own);
  });

  test("while we are about to go, with the community, and no preference within the AS (RFC 8326)", () => {
    for (const internal of [true, false]) {
      const told = exportAttributes(learned, BY_EBGP, policyOf(internal, ACCEPT, { gracefulShutdown: true }), []);
      assert.deepEqual(told.communities, [WELL_KNOWN.gracefulShutdown]);
      assert.equal(told.localPref, internal ? 0 : undefined);
    }
  });

  const wellKnown: { name: keyof typeof WELL_KNOWN; kept: readonly boolean[] }[] = [
    { name: "noAdvertise", kept: [true, true] },
    { name: "noExport", kept: [false, true] },
    { name: "noExportSubconfed", kept: [false, true] },
    { name: "gracefulShutdown", kept: [false, false] },
  ];
  for (const { name, kept } of wellKnown) {
    test(`${name} keeps a route from iBGP: ${kept[0]}, from eBGP: ${kept[1]} (RFC 1997)`, () => {
      const marked = { ...learned, communities: [WELL_KNOWN[name]] };
      const refused = [true, false].map((internal) => exportRefusal(marked, BY_EBGP, policyOf(internal)) !== undefined);
      assert.deepEqual(refused, kept);
    });
  }

  test("an IPv6 next hop of an IPv4 route only where the peer takes it (RFC 8950)", () => {
    const over6 = { ...learned, nextHop: parseAddress("2001:db8::11") };
    assert.match(exportRefusal(over6, BY_EBGP, policyOf(true)) ?? "", /IPv6, which the peer does not take/);
    assert.equal(exportRefusal(over6, BY_EBGP, policyOf(true, ACCEPT, { extendedNextHop: true })), undefined);
  });
});

describe("a session", () => {
  const announce = (...texts: string[]): Uint8Array =>
    encodeUpdate(
      {
        family: 4,
        announced: {
          nlri: texts.map((text) => ({ prefix: parsePrefix(text), pathId: 0 })),
          attributes: path("192.0.2.7", [], { localPref: 100 }),
        },
      },
      { asOctets: 4, internal: true, addPath: new Set() },
    );
  const passive = (port: number, change: Partial<PeerConfig> = {}): PeerConfig =>
    peerOf(1, 7, port, { passive: true, ...change });

  test("ends when the peer announces more than it may, and says how much that is", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      one.setPeers([passive(one.port, { maximumPrefixes: 2 })]);
      const raw = await rawSession("127.0.0.7", one);
      raw.send(announce("10.1.0.0/16", "10.2.0.0/16"));
      await until("both routes", () => one.table.size === 2);
      raw.send(announce("10.3.0.0/16"));
      await until("the farewell", () => raw.types.includes(3));
      const farewell = decodeNotification(new ByteReader(raw.bodies[raw.types.indexOf(3)]!));
      assert.equal(describeNotification(farewell), "Cease: Maximum Number of Prefixes Reached");
      assert.deepEqual([...farewell.data], [0, 1, 1, 0, 0, 0, 2]);
      assert.match(status(one).reason, /announced 3 IPv4 routes, and may announce 2/);
      await until("the routes to go", () => one.table.size === 0);
    }));

  const enhanced = {
    capabilities: { families: [4], asn: ASN, routeRefresh: true, enhancedRouteRefresh: true },
  } as const;
  test("marks beginning and end of what it tells again (RFC 7313)", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      originate(one, "10.244.1.0/26");
      one.setPeers([passive(one.port)]);
      const raw = await rawSession("127.0.0.7", one, enhanced);
      await until("route and End-of-RIB", () => raw.types.filter((type) => type === 2).length === 2);
      const before = raw.types.length;
      raw.send(encodeRouteRefresh(4));
      await until("the end of the refresh", () => raw.types.filter((type) => type === 5).length === 2);
      assert.deepEqual(raw.types.slice(before), [5, 2, 5]);
      const subtypes = [before, before + 2].map((index) => {
        const body = raw.bodies[index]!;
        return decodeRouteRefresh(body, 0, body.length).subtype;
      });
      assert.deepEqual(subtypes, [REFRESH.begin, REFRESH.end]);
    }));

  test("drops what the peer does not tell again (RFC 7313), and only then", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      one.setPeers([passive(one.port)]);
      const raw = await rawSession("127.0.0.7", one, enhanced);
      raw.send(announce("10.1.0.0/16", "10.2.0.0/16"));
      await until("both routes", () => one.table.size === 2);
      one.refresh("Mesh_127_0_0_7");
      await until("our asking", () => raw.types.includes(5));
      raw.send(encodeRouteRefresh(4, REFRESH.begin));
      raw.send(announce("10.1.0.0/16"));
      await until("a stale route", () => status(one).routes[4]?.stale === 1);
      assert.equal(one.table.size, 2);
      raw.send(encodeRouteRefresh(4, REFRESH.end));
      await until("the sweep", () => one.table.size === 1);
      assert.deepEqual([...one.table.keys()], ["10.1.0.0/16"]);
    }));

  test("ends when the peer takes nothing for long (RFC 9687)", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0, { clock: fastClock(20) }));
      one.setPeers([passive(one.port, { sendHoldTime: 2, holdTime: 0 })]);
      const raw = await rawSession("127.0.0.7", one, { holdTime: 0 });
      await until("the session", () => status(one).state === "established");
      await new Promise((resolve) => setTimeout(resolve, 250));
      assert.equal(status(one).state, "established", "a peer that has nothing to take is not a slow one");
      raw.pause();
      // More than the kernel holds for a peer that does not read: 12 MB.
      const communities = Array.from({ length: 600 }, (_, i) => i);
      const routes = Array.from({ length: 5000 }, (_, i) => ({
        prefix: parsePrefix(`10.${i >> 8}.${i & 255}.0/24`),
        attributes: { med: i, communities },
      }));
      one.setOrigination(routes);
      await until("the end", () => /send hold timer expired/.test(status(one).reason), 5000);
    }));

  test("says what was agreed on", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      const two = await keep(speakerAt(2, one.port));
      one.setPeers([peerOf(1, 2, one.port, { addPath: { receive: true } })]);
      two.setPeers([peerOf(2, 1, one.port, { addPath: { send: true } })]);
      await until("the session", () => status(one).state === "established");
      assert.deepEqual(status(one).agreed, [
        "four-octet AS",
        "enhanced route refresh",
        "extended messages",
        "graceful restart",
        "graceful restart after notifications",
        "add-path (receive IPv4)",
      ]);
    }));

  test("IPv4 routes travel over IPv6 with IPv6 next hops (RFC 8950), in messages longer than 4096 bytes (RFC 8654)", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0, { listenAddresses: ["::1"] }));
      const two = await keep(speakerAt(2, 0, { asn: 64513, listenAddresses: [] }));
      const prefixes = Array.from({ length: 3000 }, (_, i) => `10.244.${i >> 4}.${(i & 15) << 4}/28`);
      originate(one, ...prefixes);
      const families = [4, 6] as const;
      // Both are on one address, which as a next hop each would take for itself.
      one.setPeers([
        {
          name: "two",
          address: "::1",
          asn: 64513,
          families,
          passive: true,
          exportFilter: ACCEPT,
          nextHops: { 4: "2001:db8::1" },
        },
      ]);
      two.setPeers([
        {
          name: "one",
          address: "::1",
          port: one.port,
          asn: ASN,
          families,
          importFilter: ACCEPT,
        },
      ]);
      await until("the routes", () => two.table.size === prefixes.length);
      const [first] = two.learned();
      assert.ok(first && formatPrefix(first.prefix).startsWith("10.244."));
      assert.deepEqual(first.nextHops[0]?.nextHop, parseAddress("2001:db8::1"));
      assert.ok(status(one).messages.sent < 8, "3000 prefixes in few messages");
    }));
});

describe("a configuration that cannot be", () => {
  const cases: { name: string; change: Partial<PeerConfig>; reason: RegExp }[] = [
    { name: "a client in eBGP", change: { asn: 64513, routeReflectorClient: true }, reason: /only an iBGP peer/ },
    { name: "a next hop both ways", change: { nextHopSelf: true, nextHopKeep: true }, reason: /both be ourselves/ },
    { name: "a password without system calls", change: { password: "x" }, reason: /system calls/ },
    { name: "TTL security without system calls", change: { ttlSecurity: 1 }, reason: /system calls/ },
    { name: "half a prefix", change: { maximumPrefixes: 0.5 }, reason: /0\.5 is not a whole number/ },
    { name: "cluster 0.0.0.0", change: { clusterId: "0.0.0.0" }, reason: /cluster ID "0\.0\.0\.0"/ },
  ];
  for (const { name, change, reason } of cases) {
    test(name, () =>
      withSpeakers(async (keep) => {
        const one = await keep(speakerAt(1, 0));
        assert.throws(() => one.setPeers([peerOf(1, 2, one.port, change)]), reason);
      }),
    );
  }
});
