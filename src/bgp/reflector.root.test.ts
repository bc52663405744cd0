import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { bgpSockets } from "../agent/bgpSockets.io.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { PeerConfig, Speaker } from "./config.ts";
import {
  ASN,
  ROUTERS,
  address4,
  HOSTS,
  openSegment,
  routeOf,
  type Daemon,
  type Router,
  type Segment,
} from "./daemons.testing.ts";
import { createSpeaker } from "./speaker.io.ts";
import { until } from "./speaker.testing.ts";

// Needs the Debian packages bird2, frr, gobgpd and openbgpd.

const CONFIGS: Record<Router, string> = {
  bird: `
    router id 192.0.2.11;
    protocol device {}
    protocol static { ipv4; route ${routeOf("bird")} blackhole; }
    protocol bgp ours {
      local 192.0.2.11 as ${ASN}; neighbor 192.0.2.1 as ${ASN}; connect delay time 1; connect retry time 1; error wait time 1, 2;
      ipv4 { import all; export where source = RTS_STATIC; next hop self; add paths on; };
    }`,
  frr: `
    router bgp ${ASN}
      bgp router-id 192.0.2.12
      no bgp network import-check
      bgp graceful-restart
      bgp graceful-restart preserve-fw-state
      no bgp hard-administrative-reset
      neighbor 192.0.2.1 remote-as ${ASN}
      neighbor 192.0.2.1 timers connect 1
      address-family ipv4 unicast
        network ${routeOf("frr")}
      exit-address-family`,
  gobgp: `
    [global.config]
      as = ${ASN}
      router-id = "192.0.2.13"
    [[neighbors]]
      [neighbors.config]
        neighbor-address = "192.0.2.1"
        peer-as = ${ASN}
      [neighbors.timers.config]
        connect-retry = 1
      [[neighbors.afi-safis]]
        [neighbors.afi-safis.config]
          afi-safi-name = "ipv4-unicast"
        [neighbors.afi-safis.add-paths.config]
          receive = true`,
  openbgpd: `
    AS ${ASN}
    router-id 192.0.2.14
    socket "@directory@/openbgpd.ctl"
    fib-update no
    network ${routeOf("openbgpd")}
    neighbor 192.0.2.1 {
      remote-as ${ASN}
      announce IPv4 unicast
      announce add-path recv yes
      announce restart yes
    }
    allow from any
    allow to any
`,
};

describe("a reflector for BIRD, FRR, GoBGP and OpenBGPD", () => {
  let segment: Segment;
  const daemons: Partial<Record<Router, Daemon>> = {};
  const peers = ROUTERS.map((host): PeerConfig => ({
    name: host,
    address: address4(HOSTS[host]),
    asn: ASN,
    sourceAddress: "192.0.2.1",
    routeReflectorClient: true,
    addPath: { send: true, receive: true },
  }));
  let speaker: Speaker;
  before(async () => {
    segment = openSegment(ROUTERS);
    await Promise.all(
      ROUTERS.map(async (host) => {
        daemons[host] = await segment.start(host, CONFIGS[host]);
      }),
    );
    daemons.gobgp?.ask("global", "rib", "add", routeOf("gobgp"), "nexthop", "192.0.2.13");
    speaker = await createSpeaker({
      asn: ASN,
      routerId: "192.0.2.1",
      listenAddresses: ["192.0.2.1"],
      sockets: bgpSockets,
    });
    speaker.setOrigination([{ prefix: parsePrefix("10.1.0.0/16") }]);
    speaker.setPeers(peers);
  });
  after(async () => {
    await speaker?.abandon();
    await segment?.close();
  });

  /** What a daemon says of one prefix, in its own words. */
  const shown: Record<Router, (prefix: string) => string> = {
    bird: (prefix) => daemons.bird?.ask("show", "route", prefix, "all") ?? "",
    frr: (prefix) => daemons.frr?.ask(`show bgp ipv4 unicast ${prefix}`) ?? "",
    gobgp: (prefix) => daemons.gobgp?.ask("global", "rib", prefix) ?? "",
    openbgpd: (prefix) => daemons.openbgpd?.ask("show", "rib", "detail", prefix) ?? "",
  };
  const CLUSTER: Record<Router, RegExp> = {
    bird: /cluster_list: 192\.0\.2\.1\n/,
    frr: /Cluster list: 192\.0\.2\.1 /,
    gobgp: /ClusterList: \[192\.0\.2\.1\]/,
    openbgpd: /Cluster Id List: +192\.0\.2\.1\n/,
  };

  test("takes the routes of all, and tells each the others', with their originator and its cluster", async () => {
    await until("all routes", () => speaker.learned().length === ROUTERS.length, 12_000);
    const learned = speaker.learned().map(({ prefix, peer }) => [formatPrefix(prefix), peer]);
    assert.deepEqual(new Map(learned as [string, string][]), new Map(ROUTERS.map((host) => [routeOf(host), host])));
    for (const host of ROUTERS) {
      await until(`our own route in ${host}`, () => /192\.0\.2\.1\b/.test(shown[host]("10.1.0.0/16")), 12_000);
      for (const other of ROUTERS) {
        if (other === host) continue;
        await until(`${other}'s route in ${host}`, () => CLUSTER[host].test(shown[host](routeOf(other))), 12_000);
        const text = shown[host](routeOf(other));
        const originator = new RegExp(`originator(_id| id)?: *${address4(HOSTS[other]).replaceAll(".", "\\.")}`, "i");
        assert.match(text, originator);
      }
    }
  });

  test("what one withdraws is gone at the others", async () => {
    daemons.bird?.ask("disable", "static1");
    for (const host of ROUTERS) {
      if (host === "bird") continue;
      await until(`the withdrawal in ${host}`, () => !CLUSTER[host].test(shown[host](routeOf("bird"))));
    }
    daemons.bird?.ask("enable", "static1");
    await until("the route again", () => speaker.learned().length === ROUTERS.length);
  });

  test("tells each of them all paths, and takes them away one by one (RFC 7911)", async () => {
    const others = await Promise.all(
      [2, 3].map(async (number) => {
        const address = address4(number);
        const other = await createSpeaker({ asn: ASN, routerId: address, listenAddresses: [] });
        other.setOrigination([{ prefix: parsePrefix("10.99.0.0/16") }]);
        other.setPeers([{ name: "reflector", address: "192.0.2.1", asn: ASN, sourceAddress: address }]);
        return other;
      }),
    );
    const client = (number: number): PeerConfig => ({
      name: `client${number}`,
      address: address4(number),
      asn: ASN,
      sourceAddress: "192.0.2.1",
      passive: true,
      routeReflectorClient: true,
    });
    try {
      speaker.setPeers([...peers, client(2), client(3)]);
      const hops = (host: Router): string[] => {
        const text = shown[host]("10.99.0.0/16");
        return [2, 3].map(address4).filter((hop) => text.includes(hop));
      };
      for (const host of ROUTERS) await until(`both paths in ${host}`, () => hops(host).length === 2, 8000);
      others[0]?.setOrigination([]);
      for (const host of ROUTERS) await until(`one path in ${host}`, () => hops(host).join() === address4(3), 8000);
      others[1]?.setOrigination([]);
      for (const host of ROUTERS) await until(`no path in ${host}`, () => hops(host).length === 0, 8000);
    } finally {
      for (const other of others) await other.abandon();
      speaker.setPeers(peers);
    }
  });

  test("route refresh, asked for by either side, loses nothing (RFC 2918, RFC 7313)", async () => {
    const changes: string[] = [];
    const stop = speaker.on("routes", (list) => changes.push(...list.map(({ prefix }) => formatPrefix(prefix))));
    // OpenBGPD sends again only what is new to it.
    const answering = () => speaker.peers().filter(({ name }) => name !== "openbgpd");
    const received = (): number[] => answering().map(({ messages }) => messages.received);
    // GoBGP keeps all that it was told, and asks nobody.
    const asking = () => speaker.peers().filter(({ name }) => name !== "gobgp");
    const sent = (): number[] => asking().map(({ messages }) => messages.sent);
    const before = received();
    for (const host of ROUTERS) speaker.refresh(host);
    await until("answers", () => received().every((count, index) => count > (before[index] ?? 0)), 8000);
    await until("the end of the refresh", () => speaker.peers().every(({ routes }) => routes[4]?.stale === 0), 8000);
    const told = sent();
    daemons.bird?.ask("reload", "in", "ours");
    daemons.frr?.ask("clear bgp ipv4 unicast 192.0.2.1 soft in");
    daemons.openbgpd?.ask("neighbor", "192.0.2.1", "refresh");
    await until("our answers", () => sent().every((count, index) => count > (told[index] ?? 0)), 8000);
    stop();
    assert.deepEqual(changes, []);
    assert.equal(speaker.learned().length, ROUTERS.length);
  });

  test("FRR resets the session with a notification: its routes stay (RFC 8538)", async () => {
    const frr = () => speaker.peers().find(({ name }) => name === "frr");
    assert.ok(frr()?.agreed.includes("graceful restart after notifications"));
    const changes: string[] = [];
    const stop = speaker.on("routes", (list) => changes.push(...list.map(({ prefix }) => formatPrefix(prefix))));
    daemons.frr?.ask("clear bgp 192.0.2.1");
    await until("the new session", () => frr()?.established === 2 && frr()?.state === "established", 8000);
    await until("its routes told again", () => frr()?.routes[4]?.stale === 0, 8000);
    stop();
    assert.deepEqual(changes, []);
    assert.equal(frr()?.lastNotification?.text, "Cease: Administrative Reset");
  });

  test("what an operator says on shutting down is shown (RFC 9003), and the routes go", async () => {
    const text = (name: string): string =>
      speaker.peers().find((peer) => peer.name === name)?.lastNotification?.text ?? "";
    daemons.frr?.ask(
      "configure terminal",
      "-c",
      `router bgp ${ASN}`,
      "-c",
      "neighbor 192.0.2.1 shutdown message rack 12",
    );
    daemons.gobgp?.ask("neighbor", "192.0.2.1", "shutdown", "--reason", "rack 13");
    daemons.openbgpd?.ask("neighbor", "192.0.2.1", "down", "rack 14");
    for (const [host, words] of [
      ["frr", "rack 12"],
      ["gobgp", "rack 13"],
      ["openbgpd", "rack 14"],
    ] as const) {
      await until(`the words of ${host}`, () => text(host).includes(`Cease: Administrative Shutdown "${words}"`), 8000);
    }
    await until("their routes to go", () => speaker.learned().length === 1);
  });

  test("takes packets only from as near as TTL security wants (RFC 5082)", async () => {
    // In iBGP all of them send with a TTL of 64: so near as to have come over 192 hops at most.
    const isUp = (): boolean => speaker.peers().some(({ name, state }) => name === "bird" && state === "established");
    const within = (ttlSecurity: number): PeerConfig[] =>
      peers.map((peer) => (peer.name === "bird" ? { ...peer, ttlSecurity } : peer));
    speaker.setPeers(within(192));
    await until("the session to end", () => !isUp());
    await until("the new session", isUp, 8000);
    speaker.setPeers(within(191));
    await until("the session to end", () => !isUp());
    await assert.rejects(until("a session that must not be", isUp, 2500));
  });
});
