import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { PeerConfig, PeerStatus, Speaker } from "./config.ts";
import {
  address4,
  ALL,
  ASN,
  HOSTS,
  openSegment,
  routeOf,
  type Daemon,
  type Router,
  type Segment,
} from "./daemons.testing.ts";
import { createSpeaker } from "./speaker.io.ts";
import { until } from "./speaker.testing.ts";

// Graceful restart (RFC 4724) with FRR, GoBGP and OpenBGPD, each side as the one that restarts; bird.root.test.ts has
// BIRD. Needs the Debian packages frr, gobgpd and openbgpd.

type Other = Exclude<Router, "bird">;
const OTHERS: readonly Other[] = ["frr", "gobgp", "openbgpd"];
const OURS = ["10.1.0.0/16", "10.2.0.0/16"];

const CONFIGS: Record<Other, string> = {
  frr: `
    router bgp 65012
      bgp router-id 192.0.2.12
      no bgp network import-check
      no bgp ebgp-requires-policy
      bgp graceful-restart
      bgp graceful-restart preserve-fw-state
      neighbor 192.0.2.1 remote-as ${ASN}
      neighbor 192.0.2.1 timers connect 1
      address-family ipv4 unicast
        network ${routeOf("frr")}
        neighbor 192.0.2.1 activate
      exit-address-family`,
  gobgp: `
    [global.config]
      as = 65013
      router-id = "192.0.2.13"
    [[neighbors]]
      [neighbors.config]
        neighbor-address = "192.0.2.1"
        peer-as = ${ASN}
      [neighbors.timers.config]
        connect-retry = 1
        idle-hold-time-after-reset = 1
      [neighbors.graceful-restart.config]
        enabled = true
        restart-time = 60
        deferral-time = 2
      [[neighbors.afi-safis]]
        [neighbors.afi-safis.config]
          afi-safi-name = "ipv4-unicast"
        [neighbors.afi-safis.mp-graceful-restart.config]
          enabled = true`,
  openbgpd: `
    AS 65014
    router-id 192.0.2.14
    socket "@directory@/openbgpd.ctl"
    fib-update no
    network ${routeOf("openbgpd")}
    neighbor 192.0.2.1 {
      remote-as ${ASN}
      announce IPv4 unicast
      announce restart yes
    }
    allow from any
    allow to any
`,
};
/**
 * Who claims to forward on while it is away. OpenBGPD's capability names no family, it has only the End-of-RIB; and when
 * it is killed, the process that holds its sessions still says goodbye.
 */
const KEEPS: Record<Other, boolean> = { frr: true, gobgp: true, openbgpd: false };
const OPTIONS: Partial<Record<Other, readonly string[]>> = { gobgp: ["-r"] };

describe("graceful restart with FRR, GoBGP and OpenBGPD", () => {
  const daemons = new Map<Other, Daemon>();
  const peers = OTHERS.map((host): PeerConfig => ({
    name: host,
    address: address4(HOSTS[host]),
    asn: 65000 + HOSTS[host],
    connectRetry: 1,
    importFilter: ALL,
    exportFilter: ALL,
  }));
  let segment: Segment;
  let speaker: Speaker;
  let changes: string[] = [];

  async function speak(restarting: boolean, routes: readonly string[]): Promise<void> {
    speaker = await createSpeaker({
      asn: ASN,
      routerId: "192.0.2.1",
      restart: { restarting, forwardingPreserved: true },
    });
    changes = [];
    speaker.on("routes", (list) => {
      for (const { prefix, nextHops } of list)
        changes.push(`${nextHops.length > 0 ? "+" : "-"}${formatPrefix(prefix)}`);
    });
    speaker.setOrigination(routes.map((text) => ({ prefix: parsePrefix(text) })));
    speaker.setPeers(peers);
  }

  async function start(host: Other, ...options: readonly string[]): Promise<void> {
    const daemon = await segment.start(host, CONFIGS[host], ...options);
    daemons.set(host, daemon);
    if (host === "gobgp") daemon.ask("global", "rib", "add", routeOf("gobgp"), "nexthop", "192.0.2.13");
  }

  before(async () => {
    segment = openSegment(OTHERS);
    await Promise.all(OTHERS.map((host) => start(host)));
    await speak(false, OURS);
  });
  after(async () => {
    await speaker?.abandon();
    await segment?.close();
  });

  const status = (host: Other): PeerStatus => speaker.peers().find(({ name }) => name === host)!;
  const learned = (): string[] =>
    speaker
      .learned()
      .map(({ prefix }) => formatPrefix(prefix))
      .toSorted();
  const shown: Record<Other, (prefix: string) => string> = {
    frr: (prefix) => daemons.get("frr")!.ask(`show bgp ipv4 unicast ${prefix}`),
    gobgp: (prefix) => daemons.get("gobgp")!.ask("global", "rib", prefix),
    openbgpd: (prefix) => daemons.get("openbgpd")!.ask("show", "rib", prefix),
  };
  const has = (host: Other, prefix: string): boolean => shown[host](prefix).includes("192.0.2.1");

  test("all routes both ways", async () => {
    await until("theirs", () => learned().length === OTHERS.length, 15_000);
    for (const host of OTHERS) await until(`ours in ${host}`, () => OURS.every((prefix) => has(host, prefix)), 15_000);
    for (const host of OTHERS) assert.equal(status(host).gracefulRestart.negotiated, true, host);
  });

  for (const host of OTHERS) {
    const outcome = KEEPS[host] ? "its route stays all the while" : "it claims to keep nothing, so its route goes";
    test(`${host} is killed and comes back: ${outcome}`, async () => {
      changes = [];
      await daemons.get(host)!.kill();
      await until("the loss", () => status(host).state !== "established");
      assert.equal(status(host).gracefulRestart.staleUntil !== undefined, KEEPS[host]);
      if (!KEEPS[host]) await until("the route to go", () => !learned().includes(routeOf(host)));
      await start(host, ...(OPTIONS[host] ?? []));
      await until("the new session", () => status(host).state === "established", 15_000);
      await until("the end of the restart", () => status(host).routes[4]?.stale === 0, 15_000);
      await until("its route", () => learned().includes(routeOf(host)), 8000);
      assert.deepEqual(changes, KEEPS[host] ? [] : [`-${routeOf(host)}`, `+${routeOf(host)}`]);
      await until("ours in it again", () => OURS.every((prefix) => has(host, prefix)), 8000);
    });
  }

  test("we are killed and come back: they keep our routes, but for the one that we no longer have", async () => {
    await speaker.abandon();
    const missed: string[] = [];
    const look = (): void => {
      for (const host of OTHERS) if (!has(host, OURS[1]!)) missed.push(host);
    };
    look();
    await speak(true, OURS.slice(1));
    for (const host of OTHERS) {
      await until(
        `the new session with ${host}, and the sweep`,
        () => {
          look();
          return status(host).state === "established" && !has(host, OURS[0]!);
        },
        15_000,
      );
    }
    assert.deepEqual([...new Set(missed)], [], "a route was gone for a moment");
    await until("the end of our restart", () => speaker.settled, 15_000);
    await until("their routes", () => learned().length === OTHERS.length, 8000);
  });
});
