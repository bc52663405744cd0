import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import { ByteReader } from "../lib/bytes.ts";
import type { PeerConfig, PeerStatus, Speaker } from "./config.ts";
import { exportBlocks, importPools } from "./filters.ts";
import { encodeOpen } from "./message.ts";
import { decodeNotification, describeNotification } from "./notification.ts";
import { encodeUpdate } from "./update.ts";
import {
  ASN,
  fastClock,
  originate,
  peerOf,
  rawPeer,
  rawSession,
  speakerAt,
  until,
  withSpeakers,
  type TestSpeaker,
} from "./speaker.testing.ts";

function stateOf(speaker: Speaker, index = 0): PeerStatus {
  const status = speaker.peers()[index];
  assert.ok(status);
  return status;
}

const isUp = (speaker: Speaker): boolean => speaker.peers().every(({ state }) => state === "established");

/** Of two nodes, the one with the lower address in text waits. */
function mesh(from: number, others: readonly number[], port: number, change: Partial<PeerConfig> = {}): PeerConfig[] {
  return others
    .filter((other) => other !== from)
    .map((other) => peerOf(from, other, port, { passive: String(from) < String(other), ...change }));
}

async function pair(
  keep: <One extends Speaker>(speaker: Promise<One>) => Promise<One>,
  change: Partial<PeerConfig> = {},
): Promise<[TestSpeaker, TestSpeaker]> {
  const one = await keep(speakerAt(1, 0));
  const two = await keep(speakerAt(2, one.port));
  originate(one, "10.244.1.0/26");
  originate(two, "10.244.2.0/26");
  one.setPeers([peerOf(1, 2, one.port, change)]);
  two.setPeers([peerOf(2, 1, one.port, change)]);
  await until("the session", () => isUp(one) && isUp(two));
  await until("routes both ways", () => one.table.size === 1 && two.table.size === 1);
  return [one, two];
}

describe("a mesh", () => {
  test("of three nodes knows every block in well under a second, and what is withdrawn is gone", () =>
    withSpeakers(async (keep) => {
      const first = await keep(speakerAt(1, 0));
      const rest = await Promise.all([2, 3].map((number) => keep(speakerAt(number, first.port))));
      const nodes = [first, ...rest];
      for (const [index, node] of nodes.entries()) originate(node, `10.244.${index + 1}.0/26`);
      const start = performance.now();
      for (const [index, node] of nodes.entries()) node.setPeers(mesh(index + 1, [1, 2, 3], first.port));
      await until("every block everywhere", () => nodes.every(({ table }) => table.size === 2));
      assert.ok(performance.now() - start < 1000, `took ${performance.now() - start} ms`);
      assert.deepEqual(
        first.table,
        new Map([
          ["10.244.2.0/26", "Mesh_127_0_0_2"],
          ["10.244.3.0/26", "Mesh_127_0_0_3"],
        ]),
      );
      originate(first);
      await until("the withdrawal", () => rest.every(({ table }) => !table.has("10.244.1.0/26")));
    }));

  test("whichever side comes up first, and however late the other, they find each other within a second", () =>
    withSpeakers(async (keep) => {
      for (const passiveFirst of [true, false]) {
        const early = await keep(speakerAt(passiveFirst ? 1 : 2, 0));
        early.setPeers([peerOf(passiveFirst ? 1 : 2, passiveFirst ? 2 : 1, early.port, { passive: passiveFirst })]);
        await new Promise((resolve) => setTimeout(resolve, 120));
        if (!passiveFirst) assert.match(stateOf(early).reason, /refused/);
        const late = await keep(speakerAt(passiveFirst ? 2 : 1, early.port));
        late.setPeers([peerOf(passiveFirst ? 2 : 1, passiveFirst ? 1 : 2, early.port, { passive: !passiveFirst })]);
        await until("the session", () => isUp(early) && isUp(late), 1000);
        await early.abandon();
        await late.abandon();
      }
    }));

  test("two sides that dial at once keep one connection, again and again", () =>
    withSpeakers(async (keep) => {
      for (let round = 0; round < 8; round += 1) {
        const [one, two] = await pair(keep);
        await new Promise((resolve) => setTimeout(resolve, 10));
        assert.deepEqual([stateOf(one).established, stateOf(two).established], [1, 1]);
        await one.abandon();
        await two.abandon();
      }
    }));

  test("IPv6 routes travel in an IPv4 session", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      const two = await keep(speakerAt(2, one.port));
      originate(one, "2001:db8:1::/122", "10.244.1.0/26");
      one.setPeers([peerOf(1, 2, one.port, { families: [4, 6] })]);
      two.setPeers([peerOf(2, 1, one.port, { families: [4, 6] })]);
      await until("both routes", () => two.table.size === 2);
      const learned = two.learned().map(({ prefix, nextHops }) => [formatPrefix(prefix), nextHops[0]?.nextHop]);
      assert.deepEqual(learned, [
        ["10.244.1.0/26", { family: 4, value: 0xc0000201n }],
        ["2001:db8:1::/122", { family: 6, value: 0x20010db8000000000000000000000001n }],
      ]);
    }));
});

describe("graceful restart", () => {
  test("a peer that is killed and comes back costs no route; what it no longer has goes at its End-of-RIB", () =>
    withSpeakers(async (keep) => {
      const [one, two] = await pair(keep);
      originate(one, "10.244.1.0/26", "10.244.9.0/26");
      await until("both routes", () => two.table.size === 2);
      two.history.length = 0;
      await one.abandon();
      await until("the loss", () => stateOf(two).state !== "established");
      const { routes, gracefulRestart, reason } = stateOf(two);
      assert.equal(routes[4]?.stale, 2);
      assert.ok(gracefulRestart.staleUntil !== undefined && gracefulRestart.staleUntil > Date.now() + 100_000);
      assert.match(reason, /connection lost|refused/);
      assert.equal(two.table.size, 2, "routes stay while it is away");

      const restart = { restarting: true, forwardingPreserved: true };
      const again = await keep(speakerAt(1, one.port, { restart }));
      assert.equal(again.settled, false);
      originate(again, "10.244.1.0/26");
      again.setPeers([peerOf(1, 2, one.port)]);
      await until("the sweep", () => two.table.size === 1);
      assert.deepEqual(two.history, ["-10.244.9.0/26"], "the route that it still has was never touched");
      await until("the end of the restart", () => again.settled);
      assert.deepEqual(again.settledAt?.table, ["10.244.2.0/26"], "it knew all before it settled");
      assert.equal(stateOf(two).gracefulRestart.staleUntil, undefined);
    }));

  test("a peer that does not come back loses its routes when its time is over", () =>
    withSpeakers(async (keep) => {
      const clock = fastClock(20);
      const one = await keep(speakerAt(1, 0));
      const two = await keep(speakerAt(2, one.port, { clock }));
      originate(one, "10.244.1.0/26");
      one.setPeers([peerOf(1, 2, one.port)]);
      two.setPeers([peerOf(2, 1, one.port, { maxRestartTime: 2 })]);
      await until("the route", () => two.table.size === 1);
      await one.abandon();
      await until("the loss", () => stateOf(two).routes[4]?.stale === 1);
      assert.equal(two.table.size, 1);
      await until("the end of patience", () => two.table.size === 0, 500);
    }));

  test("a restart seen only in a new connection takes the place of the old one", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      one.setPeers([peerOf(1, 7, one.port, { passive: true })]);
      const gracefulRestart = (restarting: boolean) => ({
        capabilities: {
          families: [4] as const,
          asn: ASN,
          gracefulRestart: {
            restarting,
            notification: false,
            restartTime: 60,
            families: [{ family: 4 as const, forwardingPreserved: true }],
          },
        },
      });
      const old = await rawSession("127.0.0.7", one, gracefulRestart(false));
      await until("the session", () => isUp(one));
      const nlri = [{ prefix: parsePrefix("10.244.7.0/26"), pathId: 0 }];
      const attributes = {
        origin: "igp" as const,
        asPath: [],
        localPref: 100,
        nextHop: { family: 4 as const, value: 0xc0000207n },
      };
      old.send(
        encodeUpdate(
          { family: 4, announced: { nlri, attributes } },
          { asOctets: 4, internal: true, addPath: new Set() },
        ),
      );
      await until("the route", () => one.table.size === 1);

      const second = await rawPeer("127.0.0.7", one);
      second.send(encodeOpen({ asn: ASN, holdTime: 90, routerId: 0x0a0000fe, ...gracefulRestart(false) }));
      await until("the refusal of a connection that claims no restart", () => second.types.includes(3));
      assert.equal(old.closed, false);
      await rawSession("127.0.0.7", one, gracefulRestart(true));
      await until("the old connection to end", () => old.closed);
      await until("the new session", () => stateOf(one).established === 2);
      assert.deepEqual([...one.table.keys()], ["10.244.7.0/26"]);
      assert.equal(stateOf(one).routes[4]?.stale, 1);
    }));

  test("two nodes that restart at once do not wait for each other, and lose nothing", () =>
    withSpeakers(async (keep) => {
      const [one, two] = await pair(keep);
      await one.abandon();
      await two.abandon();
      const restart = { restarting: true, forwardingPreserved: true };
      const again = [
        await keep(speakerAt(1, one.port, { restart })),
        await keep(speakerAt(2, one.port, { restart })),
      ] as const;
      for (const [index, node] of again.entries()) {
        originate(node, `10.244.${index + 1}.0/26`);
        node.setPeers(mesh(index + 1, [1, 2], one.port));
      }
      await until("both to settle", () => again.every(({ settled }) => settled), 1000);
      assert.deepEqual(
        again.map(({ settledAt }) => settledAt?.table),
        [["10.244.2.0/26"], ["10.244.1.0/26"]],
      );
    }));

  test("a speaker that shuts down says so, and its routes go at once", () =>
    withSpeakers(async (keep) => {
      const [one, two] = await pair(keep);
      await one.close("kernel upgrade");
      await until("the end", () => two.table.size === 0);
      assert.equal(stateOf(two).lastNotification?.text, 'Cease: Administrative Shutdown "kernel upgrade" (hard reset)');
    }));
});

describe("a peer that is down says why", () => {
  test("the wrong AS, on both sides", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      const two = await keep(speakerAt(2, one.port));
      one.setPeers([peerOf(1, 2, one.port, { asn: 64513 })]);
      two.setPeers([peerOf(2, 1, one.port, { passive: true })]);
      await until("the refusal", () => /wrong AS/.test(stateOf(one).reason) || /Bad Peer AS/.test(stateOf(one).reason));
      const reasons = [stateOf(one).reason, stateOf(two).reason].join("; ");
      assert.match(reasons, /wrong AS: expected 64513, got 64512/);
      assert.equal(stateOf(one).state, "idle");
    }));

  test("a hold timer that expired", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0, { clock: fastClock(20) }));
      one.setPeers([peerOf(1, 7, one.port, { passive: true, holdTime: 3 })]);
      const raw = await rawSession("127.0.0.7", one);
      await until("the session", () => isUp(one));
      await until("the farewell", () => raw.types.includes(3));
      assert.match(stateOf(one).reason, /hold timer expired: nothing heard for 3 s/);
      assert.ok(raw.types.filter((type) => type === 4).length > 1, "it sent keepalives meanwhile");
      const farewell = raw.bodies[raw.types.indexOf(3)]!;
      assert.equal(describeNotification(decodeNotification(new ByteReader(farewell))), "Hold Timer Expired");
    }));

  test("noise instead of BGP", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      one.setPeers([peerOf(1, 7, one.port, { passive: true })]);
      const raw = await rawPeer("127.0.0.7", one);
      raw.send(Buffer.from("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"));
      await until("the farewell", () => raw.closed);
      assert.deepEqual(raw.types, [1, 3]);
      assert.match(stateOf(one).reason, /the marker is not all ones/);
      assert.equal(stateOf(one).state, "active");
    }));

  test("an address that is no peer's is turned away without a word", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      const raw = await rawPeer("127.0.0.8", one);
      await until("the end", () => raw.closed);
      assert.deepEqual(raw.types, []);
    }));

  test("a port that cannot be had", () =>
    withSpeakers(async (keep) => {
      const one = await keep(speakerAt(1, 0));
      await assert.rejects(speakerAt(1, one.port), {
        code: "listen-failed",
        message: /127\.0\.0\.1, port \d+: .*EADDRINUSE/,
      });
    }));
});

describe("a change of configuration", () => {
  test("touches only the sessions that it concerns; filters end none", () =>
    withSpeakers(async (keep) => {
      const [one, two] = await pair(keep);
      const three = await keep(speakerAt(3, one.port));
      three.setPeers([peerOf(3, 1, one.port)]);
      const toTwo = peerOf(1, 2, one.port);
      const toThree = peerOf(1, 3, one.port);
      one.setPeers([toTwo, toThree]);
      await until("the third", () => three.table.size === 1);

      const pool = [parsePrefix("10.244.0.0/16")];
      one.setPeers([
        { ...toTwo, exportFilter: exportBlocks([parsePrefix("10.244.5.0/26")]) },
        { ...toThree, importFilter: importPools(pool) },
      ]);
      await until("the withdrawal", () => two.table.size === 0);
      assert.equal(three.table.size, 1);
      assert.match(one.routes({ view: "out", peer: toTwo.name })[0]?.reason ?? "", /no rule accepts it/);
      one.setPeers([toTwo, toThree]);
      await until("the route again", () => two.table.size === 1);
      assert.deepEqual(
        one.peers().map(({ established }) => established),
        [1, 1],
      );

      one.setPeers([toTwo, { ...toThree, holdTime: 30 }]);
      await until("the third's new session", () => stateOf(one, 1).holdTime === 30);
      await until("its route again", () => three.table.size === 1);
      assert.equal(stateOf(one, 0).established, 1);
      one.setPeers([toTwo]);
      await until("the third's loss", () => three.table.size === 0);
      assert.match(stateOf(three).lastNotification?.text ?? "", /De-configured/);
    }));

  test("of the port ends no session: on either side it counts from the next connection on", () =>
    withSpeakers(async (keep) => {
      const [one, two] = await pair(keep);
      const old = one.port;
      await one.listenOn(0, ["127.0.0.1"]);
      assert.notEqual(one.port, old);
      two.setPeers([peerOf(2, 1, one.port)]);
      one.setPeers([peerOf(1, 2, old, { passive: true })]);
      await until("the session of a passive side", () => isUp(one) && stateOf(two).established === 2);
      assert.equal(stateOf(two).port, one.port);
      two.setPeers([peerOf(2, 1, old)]);
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.deepEqual([stateOf(two).established, isUp(one), stateOf(two).port], [2, true, old]);
      await assert.rejects(one.listenOn(old, ["192.0.2.1"]), /Cannot listen for BGP on 192\.0\.2\.1/);
      assert.deepEqual([one.port, isUp(one)], [0, true], "it hears nobody new, and keeps whom it has");
    }));

  test("that cannot be is refused with its reason, and changes nothing", () =>
    withSpeakers(async (keep) => {
      const [one] = await pair(keep);
      const [peer] = [peerOf(1, 2, one.port)];
      assert.throws(() => one.setPeers([{ ...peer, holdTime: 2 }]), /BGP peer Mesh_127_0_0_2: hold time 2 s/);
      assert.throws(() => one.setPeers([{ ...peer, asn: 0 }]), /0 is not an AS number/);
      assert.throws(() => one.setPeers([{ ...peer, sourceAddress: "::1" }]), /not of one family/);
      assert.throws(() => one.setPeers([peer, { ...peer, name: "twin" }]), /have the same address 127\.0\.0\.2/);
      assert.ok(isUp(one));
    }));
});
