import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import net from "node:net";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { formatPrefix } from "../ip/prefix.ts";
import type { PeerConfig, PeerStatus, Speaker } from "./config.ts";
import { address4, ASN, HOSTS, openSegment, routeOf, type Segment } from "./daemons.testing.ts";
import { encodeKeepalive, encodeNotificationMessage, encodeOpen } from "./message.ts";
import { CEASE, notification } from "./notification.ts";
import type { ProcessConfig } from "./speaker-process.testing.ts";
import { createSpeaker } from "./speaker.io.ts";
import { until } from "./speaker.testing.ts";
import { announcements, connectClient, PROFILES, withdrawals, type Client, type Profile } from "./traffic.testing.ts";

// Peers that die, freeze, vanish and flap, on real sockets. We are 192.0.2.1 and .2 to .4; another speaker of our kind is
// a process of its own. Needs the Debian package bird2.

const US = address4(1);
const THEM = address4(HOSTS.caracal);
const ANY = { base: 0, length: 32, count: 0 };

function processConfig(peers: readonly PeerConfig[], originate: readonly string[] = []): string {
  const config: ProcessConfig = { speaker: { asn: ASN, routerId: THEM }, peers, originate, silent: true };
  return JSON.stringify(config);
}

const client = (number: number, change: Partial<PeerConfig> = {}): PeerConfig => ({
  name: `client${number}`,
  address: address4(number),
  asn: ASN,
  passive: true,
  routeReflectorClient: true,
  ...change,
});

const rawClient = (number: number, to: string, expects = ANY, holdTime = 240): Client =>
  connectClient({ address: address4(number), to, asn: ASN, routerId: 0xc0000200 + number, expects, holdTime });

let segment: Segment;
before(() => {
  segment = openSegment(["caracal", "bird"]);
});
after(() => segment?.close());

describe("a neighbour", () => {
  let speaker: Speaker;
  const status = (): PeerStatus => speaker.peers()[0]!;
  const isUp = (): boolean => status().state === "established";
  const learned = (): string[] => speaker.learned().map(({ prefix }) => formatPrefix(prefix));
  const ROUTES = ["10.16.1.0/24", "10.16.2.0/24"];
  /** From its side. Without graceful restart, nothing of it stays. */
  const theirs = processConfig([{ name: "us", address: US, asn: ASN, restartTime: 0, connectRetry: 1 }], ROUTES);

  before(async () => {
    speaker = await createSpeaker({ asn: ASN, routerId: US, listenAddresses: [US] });
    speaker.setPeers([{ name: "them", address: THEM, asn: ASN, holdTime: 3, connectRetry: 1 }]);
  });
  after(() => speaker?.abandon());

  test("is killed: its routes go at once, and come back with it", async () => {
    const first = await segment.start("caracal", theirs);
    await until("its routes", () => learned().length === 2, 8000);
    const start = performance.now();
    await first.kill();
    await until("the loss", () => !isUp() && learned().length === 0);
    assert.ok(performance.now() - start < 500, `took ${performance.now() - start} ms`);
    assert.match(status().reason, /connection lost: (by the peer|reset by the peer)|refused/);
  });

  test("is cut off without a word: the hold timer ends it, says so, and no earlier", async () => {
    await segment.start("caracal", theirs);
    await until("its routes", () => learned().length === 2, 8000);
    const start = performance.now();
    segment.link("caracal", "down");
    await until("the loss", () => !isUp() && learned().length === 0, 6000);
    const took = performance.now() - start;
    assert.ok(took > 1900 && took < 4500, `took ${took} ms`);
    assert.match(status().reason, /hold timer expired|timed out|no route/);
    assert.equal(status().lastNotification?.text, "Hold Timer Expired");
    segment.link("caracal", "up");
    await until("its routes again", () => learned().length === 2, 10_000);
  });

  test("dies while it is cut off, and is there again before we noticed: its new session takes the place of the old", async () => {
    const before = status().established;
    segment.link("caracal", "down");
    await segment.kill("caracal");
    segment.link("caracal", "up");
    await segment.start("caracal", theirs.replace("10.16.2.0", "10.16.3.0"));
    await until("the new session", () => isUp() && status().established > before, 8000);
    await until("its new routes", () => learned().toSorted().join() === "10.16.1.0/24,10.16.3.0/24", 8000);
    await segment.kill("caracal");
  });
});

describe("a neighbour that stops reading", () => {
  const COUNT = 10_000;
  const [WARM, ROUNDS] = [6, 30];
  const numbering = { base: 0x10000000, length: 26, count: COUNT };
  /** Each route with attributes of its own, and many: some 4 MB a round. */
  const wordy: Profile = {
    ...PROFILES[0],
    sharing: 1,
    attributes(set, round) {
      const plain = PROFILES[0].attributes(set, 0);
      const communities = Buffer.alloc(3 + 84 * 3);
      communities.set([0xc0, 8, 252]);
      communities.writeUInt32BE(round, 3);
      return Buffer.concat([plain, communities]);
    },
  };
  const residentMegabytes = (pid: number): number =>
    Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1000;

  test("costs little memory and no time of others; what it finds in the end is right", async () => {
    const { process: child } = await segment.start("caracal", processConfig([2, 3, 4].map((number) => client(number))));
    const [from, slow, good] = [2, 3, 4].map((number) => rawClient(number, THEM, numbering)) as [
      Client,
      Client,
      Client,
    ];
    try {
      await until("all sessions", () => [from, slow, good].every(({ established }) => established), 8000);
      const say = async (round: number): Promise<void> => {
        const target = good.heard + COUNT;
        from.send(announcements(wordy, 0, COUNT, round));
        await until(`round ${round} at the one that reads`, () => good.heard >= target, 8000);
      };
      for (let round = 0; round < WARM; round += 1) await say(round);
      await until("the first round at the other", () => slow.held === COUNT);
      const before = residentMegabytes(child.pid!);
      slow.pause();
      for (let round = 0; round < ROUNDS; round += 1) await say(WARM + round);
      const grown = residentMegabytes(child.pid!) - before;
      assert.ok(grown < 45, `${grown.toFixed(0)} MB more, of ${(ROUNDS * COUNT * 300) / 1e6} MB that it did not read`);
      from.send(withdrawals(numbering, 0, COUNT / 2));
      await until("the withdrawal at the one that reads", () => good.held === COUNT / 2);
      assert.equal(slow.held, COUNT);
      const heard = slow.heard;
      slow.resume();
      await until("the withdrawal at the other", () => slow.held === COUNT / 2, 8000);
      assert.ok(slow.heard - heard < ROUNDS * COUNT * 0.5, "it was told what has long been said again");
      assert.ok([from, slow, good].every(({ sessions }) => sessions === 1));
    } finally {
      for (const one of [from, slow, good]) one.end();
      await segment.kill("caracal");
    }
  });
});

describe("a session that flaps", () => {
  /** `CARACAL_FLAPS=10000` for the whole of it. */
  const FLAPS = Number(process.env["CARACAL_FLAPS"] ?? 500);
  const ROUTES = 200;
  const numbering = { base: 0x10000000, length: 26, count: ROUTES };
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;

  /** Up, with routes, and down: by a reset, an end, a farewell, or nonsense. */
  function flap(round: number, table: Buffer): Promise<void> {
    const socket = net.connect({ host: US, port: 179, localAddress: address4(2), noDelay: true });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`flap ${round} got stuck`)), 10_000);
      socket.on("error", () => undefined);
      socket.on("connect", () => {
        const capabilities = { families: [4] as const, asn: ASN };
        socket.write(encodeOpen({ asn: ASN, holdTime: 90, routerId: 0xc0000202, capabilities }));
      });
      let heard = 0;
      socket.on("data", (bytes: Buffer) => {
        heard += bytes.length;
        // Its OPEN and KEEPALIVE.
        if (heard < 29 + 19 || heard === Infinity) return;
        heard = Infinity;
        socket.write(encodeKeepalive());
        socket.write(table, () => {
          if (round % 4 === 0) socket.resetAndDestroy();
          else if (round % 4 === 1) socket.destroy();
          else if (round % 4 === 2)
            socket.end(encodeNotificationMessage(notification(CEASE.code, CEASE.peerDeconfigured)));
          else socket.end(Buffer.from("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"));
        });
      });
      socket.on("close", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  test(`${FLAPS} times leaves nothing behind, and others hear of it in order`, async () => {
    const speaker = await createSpeaker({ asn: ASN, routerId: US, listenAddresses: [US] });
    speaker.setPeers([client(2), client(3)]);
    const observer = rawClient(3, US, numbering);
    try {
      await until("the observer", () => observer.established);
      const table = announcements({ ...PROFILES[0], ...numbering }, 0, ROUTES, 0);
      const measure = async (): Promise<number> => {
        // What has just been closed is let go of a little later.
        for (let time = 0; time < 3; time += 1) {
          await sleep(50);
          collect();
        }
        const { heapUsed, external, arrayBuffers } = process.memoryUsage();
        return (heapUsed + external + arrayBuffers) / 1e6;
      };
      const warm = Math.min(200, FLAPS / 2);
      let before = 0;
      for (let round = 0; round < FLAPS; round += 1) {
        if (round === warm) before = await measure();
        await flap(round, table);
      }
      await until("all to be forgotten", () => observer.held === 0 && speaker.learned().length === 0);
      const grown = (await measure()) - before;
      assert.ok(grown < 3, `${grown.toFixed(1)} MB more after ${FLAPS - warm} flaps`);
      const [flapping, other] = speaker.peers();
      assert.ok(flapping!.established > FLAPS / 2, `${flapping!.established} sessions came up`);
      assert.equal(other!.established, 1);
      assert.deepEqual(flapping!.routes[4], { received: 0, accepted: 0, stale: 0, advertised: 0 });
      assert.ok(observer.heard > FLAPS, "the observer heard of routes");
    } finally {
      observer.end();
      await speaker.abandon();
    }
  });
});

describe("while a table of a million routes is read", () => {
  const COUNT = 1_000_000;
  const [profile] = PROFILES;
  const BIRD = `
    router id 192.0.2.11;
    protocol device {}
    protocol static { ipv4; route ${routeOf("bird")} blackhole; }
    protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; }
    protocol bgp ours {
      local 192.0.2.11 as ${ASN}; neighbor ${US} as ${ASN}; direct; bfd on;
      connect delay time 1; connect retry time 1; error wait time 1, 2;
      ipv4 { import none; export where source = RTS_STATIC; };
    }`;

  test("a neighbour that is cut off is noticed by BFD in less than a second, and keepalives are in time", async () => {
    const speaker = await createSpeaker({ asn: ASN, routerId: US, listenAddresses: [US] });
    const bfd = { interval: 100, multiplier: 3 };
    speaker.setPeers([
      client(2),
      client(3, { holdTime: 3 }),
      { name: "bird", address: address4(HOSTS.bird), asn: ASN, bfd, connectRetry: 1 },
    ]);
    const status = (name: string): PeerStatus => speaker.peers().find((peer) => peer.name === name)!;
    const from = rawClient(2, US);
    const quiet = rawClient(3, US, { ...profile, count: COUNT }, 3);
    const delay = monitorEventLoopDelay({ resolution: 1 });
    try {
      await segment.start("bird", BIRD);
      await until(
        "BFD and all sessions",
        () => status("bird").bfd?.state === "up" && from.established && quiet.established,
        12_000,
      );
      await until("BIRD's route", () => status("bird").routes[4]?.accepted === 1, 8000);
      const [there, gone] = [announcements(profile, 0, COUNT, 0), withdrawals(profile, 0, COUNT)];
      // Long enough for the second neighbour's hold time to run out twice.
      for (const messages of [there, gone, there, gone, there]) from.send(messages);
      const received = (): number => status("client2").routes[4]?.received ?? 0;
      await until("the table to be read", () => received() > COUNT / 10, 8000);
      delay.enable();
      const start = performance.now();
      segment.link("bird", "down");
      await until("the loss", () => status("bird").state !== "established");
      const took = performance.now() - start;
      assert.ok(took < 1000, `took ${took} ms`);
      assert.match(status("bird").lastNotification?.text ?? "", /BFD Down/);
      await until("the whole table at the other neighbour", () => quiet.held === COUNT && received() === COUNT, 60_000);
      delay.disable();
      assert.deepEqual([status("client2").established, status("client3").established], [1, 1]);
      const longest = delay.max / 1e6;
      assert.ok(longest < 300, `the event loop stood still for ${longest.toFixed(0)} ms`);
    } finally {
      from.end();
      quiet.end();
      await speaker.abandon();
    }
  });
});
