import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { bgpSockets } from "../agent/bgpSockets.io.ts";
import { formatAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { PeerConfig, Speaker } from "./config.ts";
import {
  ALL,
  ASN,
  ROUTERS,
  address4,
  address6,
  HOSTS,
  openSegment,
  routeOf,
  type Daemon,
  type Host,
  type Router,
  type Segment,
} from "./daemons.testing.ts";
import { createSpeaker } from "./speaker.io.ts";
import { until } from "./speaker.testing.ts";

// Needs the Debian packages bird2, frr, gobgpd and openbgpd.

/** Every neighbour signs with a password of its own (RFC 2385), and takes only packets from the link (RFC 5082). */
const PASSWORD = (host: Host): string => `secret-of-${host}`;
const GUARDED: Record<Router, string> = {
  bird: `
    router id 192.0.2.11;
    protocol device {}
    protocol static { ipv4; route ${routeOf("bird")} blackhole; }
    protocol static { ipv6; route 2001:db8:11::/48 blackhole; }
    template bgp ours { connect delay time 1; connect retry time 1; error wait time 1, 2; password "${PASSWORD("bird")}"; ttl security on; }
    protocol bgp ours4 from ours {
      local 192.0.2.11 as 65011; neighbor 192.0.2.1 as ${ASN};
      ipv4 { import all; export where source = RTS_STATIC; };
    }
    protocol bgp ours6 from ours {
      local 2001:db8::b as 65011; neighbor 2001:db8::1 as ${ASN};
      ipv6 { import all; export where source = RTS_STATIC; };
      ipv4 { import all; export where source = RTS_STATIC; extended next hop on; };
    }`,
  frr: `
    router bgp 65012
      bgp router-id 192.0.2.12
      no bgp network import-check
      no bgp ebgp-requires-policy
      neighbor 192.0.2.1 remote-as ${ASN}
      neighbor 192.0.2.1 password ${PASSWORD("frr")}
      neighbor 192.0.2.1 ttl-security hops 1
      neighbor 192.0.2.1 timers connect 1
      neighbor 2001:db8::1 remote-as ${ASN}
      neighbor 2001:db8::1 password ${PASSWORD("frr")}
      neighbor 2001:db8::1 ttl-security hops 1
      neighbor 2001:db8::1 timers connect 1
      neighbor 2001:db8::1 capability extended-nexthop
      address-family ipv4 unicast
        network ${routeOf("frr")}
        neighbor 2001:db8::1 activate
      exit-address-family
      address-family ipv6 unicast
        network 2001:db8:12::/48
        neighbor 2001:db8::1 activate
      exit-address-family`,
  gobgp: `
    [global.config]
      as = 65013
      router-id = "192.0.2.13"
    [[neighbors]]
      [neighbors.config]
        neighbor-address = "192.0.2.1"
        peer-as = ${ASN}
        auth-password = "${PASSWORD("gobgp")}"
      [neighbors.timers.config]
        connect-retry = 1
      [neighbors.ttl-security.config]
        enabled = true
        ttl-min = 255`,
  openbgpd: `
    AS 65014
    router-id 192.0.2.14
    socket "@directory@/openbgpd.ctl"
    fib-update no
    network ${routeOf("openbgpd")}
    neighbor 192.0.2.1 {
      remote-as ${ASN}
      announce IPv4 unicast
      ttl-security yes
      tcp md5sig password "${PASSWORD("openbgpd")}"
    }
    allow from any
    allow to any
`,
};

describe("guarded sessions", () => {
  const daemons = new Map<Router, Daemon>();
  const peers = ROUTERS.flatMap((host): PeerConfig[] => {
    const { families, ...peer } = {
      asn: 65000 + HOSTS[host],
      password: PASSWORD(host),
      ttlSecurity: 1,
      exportFilter: ALL,
      importFilter: ALL,
      connectRetry: 1,
      families: [6, 4] as const,
    };
    const over4 = { ...peer, name: `${host}4`, address: address4(HOSTS[host]) };
    const over6 = { ...peer, name: `${host}6`, address: address6(HOSTS[host]), families };
    return host === "bird" || host === "frr" ? [over4, over6] : [over4];
  });
  let segment: Segment;
  let speaker: Speaker;
  before(async () => {
    segment = openSegment(ROUTERS);
    await Promise.all(ROUTERS.map(async (host) => daemons.set(host, await segment.start(host, GUARDED[host]))));
    speaker = await createSpeaker({ asn: ASN, routerId: "192.0.2.1", sockets: bgpSockets });
    speaker.setOrigination(["10.1.0.0/16", "2001:db8:1::/48"].map((text) => ({ prefix: parsePrefix(text) })));
    speaker.setPeers(peers);
  });
  after(async () => {
    await speaker?.abandon();
    await segment?.close();
  });
  const established = (): string[] =>
    speaker.peers().flatMap(({ name, state }) => (state === "established" ? [name] : []));
  const hopsTo = (prefix: string): string[] =>
    speaker
      .learned()
      .filter((route) => formatPrefix(route.prefix) === prefix)
      .flatMap(({ nextHops }) => nextHops.map(({ nextHop }) => formatAddress(nextHop)))
      .toSorted();

  test("come up with all four, in both families", async () => {
    await until("all sessions", () => established().length === peers.length, 12_000);
  });

  test("carry IPv4 routes over IPv6 next hops, both ways (RFC 8950)", async () => {
    for (const host of ["bird", "frr"] as const) {
      const own = [address4(HOSTS[host]), address6(HOSTS[host])].toSorted();
      await until(`both ways to ${host}`, () => hopsTo(routeOf(host)).length === 2, 8000);
      assert.deepEqual(hopsTo(routeOf(host)), own);
      const daemon = daemons.get(host)!;
      const words = host === "bird" ? ["show", "route", "10.1.0.0/16", "all"] : ["show bgp ipv4 unicast 10.1.0.0/16"];
      const text = (): string => daemon.ask(...words);
      await until(`ours in ${host}`, () => /192\.0\.2\.1\b/.test(text()) && /2001:db8::1\b/.test(text()), 8000);
    }
  });

  test("a speaker that is about to go is used last (RFC 8326), without a new session", async () => {
    const preference = (value: RegExp) => () =>
      value.test(daemons.get("frr")!.ask("show bgp ipv4 unicast 10.1.0.0/16"));
    speaker.setPeers(peers.map((peer) => ({ ...peer, gracefulShutdown: true })));
    await until("FRR to prefer others", preference(/graceful-shutdown[^]*|localpref 0,/), 8000);
    await until("a preference of 0", preference(/localpref 0,/), 8000);
    speaker.setPeers(peers);
    await until("things as before", () => !preference(/localpref 0,/)(), 8000);
    assert.ok(speaker.peers().every((peer) => peer.established === 1));
  });

  test("stay down with another password, and say so", async () => {
    const down = new Set(["bird4", "frr6"]);
    const wrong = { password: "wrong", connectTimeout: 0.3 };
    speaker.setPeers(peers.map((peer): PeerConfig => (down.has(peer.name) ? { ...peer, ...wrong } : peer)));
    const reasons = (): string[] => speaker.peers().flatMap(({ name, reason }) => (down.has(name) ? [reason] : []));
    await until("the two to give up", () => reasons().every((text) => /^timed out: .*password/.test(text)), 8000);
    const others = peers.map(({ name }) => name).filter((name) => !down.has(name));
    assert.deepEqual(established(), others, "nobody else is touched");
    speaker.setPeers(peers);
    await until("all sessions again", () => established().length === peers.length, 12_000);
  });
});
