import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { PeerConfig, RouteView, Speaker } from "./config.ts";
import {
  ALL,
  ROUTERS,
  address4,
  address6,
  HOSTS,
  openSegment,
  routeOf,
  type Daemon,
  type Router,
  type Segment,
} from "./daemons.testing.ts";
import { createSpeaker } from "./speaker.io.ts";
import { until } from "./speaker.testing.ts";

// Routes of both families with communities of all three kinds, in eBGP between AS numbers of four octets, told and
// withdrawn in both directions. Needs the Debian packages bird2, frr, gobgpd and openbgpd.

const OURS = 4_200_000_001;
const asnOf = (host: Router): number => 4_200_000_000 + HOSTS[host];
const route6Of = (host: Router): string => `2001:db8:${HOSTS[host]}::/48`;
/** Which of a daemon's routes it is says the last number of each. */
const COMMUNITY = (last: number): string => `64999:${last}`;
const LARGE = (last: number): string => `4200000000:1:${last}`;

const birdRoute = (prefix: string): string => `route ${prefix} blackhole {
  bgp_community.add((64999,11)); bgp_large_community.add((4200000000,1,11)); bgp_ext_community.add((rt,64999,11)); };`;
const CONFIGS: Record<Router, string> = {
  bird: `
    router id 192.0.2.11;
    protocol device {}
    protocol static own4 { ipv4; ${birdRoute(routeOf("bird"))} }
    protocol static own6 { ipv6; ${birdRoute(route6Of("bird"))} }
    filter told { if source != RTS_STATIC then reject; bgp_med = 11; accept; }
    template bgp ours { connect delay time 1; connect retry time 1; error wait time 1, 2; }
    protocol bgp ours4 from ours {
      local 192.0.2.11 as ${asnOf("bird")}; neighbor 192.0.2.1 as ${OURS};
      ipv4 { import all; export filter told; };
    }
    protocol bgp ours6 from ours {
      local 2001:db8::b as ${asnOf("bird")}; neighbor 2001:db8::1 as ${OURS};
      ipv6 { import all; export filter told; };
    }`,
  frr: `
    router bgp ${asnOf("frr")}
      bgp router-id 192.0.2.12
      no bgp network import-check
      no bgp ebgp-requires-policy
      neighbor 192.0.2.1 remote-as ${OURS}
      neighbor 192.0.2.1 timers connect 1
      neighbor 2001:db8::1 remote-as ${OURS}
      neighbor 2001:db8::1 timers connect 1
      address-family ipv4 unicast
        network ${routeOf("frr")} route-map mark
        no neighbor 2001:db8::1 activate
      exit-address-family
      address-family ipv6 unicast
        network ${route6Of("frr")} route-map mark
        neighbor 2001:db8::1 activate
      exit-address-family
    exit
    route-map mark permit 10
      set metric 12
      set community 64999:12
      set large-community 4200000000:1:12
      set extcommunity rt 64999:12`,
  gobgp: `
    [global.config]
      as = ${asnOf("gobgp")}
      router-id = "192.0.2.13"
    ${(["192.0.2.1", "2001:db8::1"] as const)
      .map(
        (address) => `[[neighbors]]
      [neighbors.config]
        neighbor-address = "${address}"
        peer-as = ${OURS}
      [neighbors.timers.config]
        connect-retry = 1
      [[neighbors.afi-safis]]
        [neighbors.afi-safis.config]
          afi-safi-name = "${address.includes(":") ? "ipv6" : "ipv4"}-unicast"`,
      )
      .join("\n")}`,
  openbgpd: `
    AS ${asnOf("openbgpd")}
    router-id 192.0.2.14
    socket "@directory@/openbgpd.ctl"
    fib-update no
    ${[routeOf("openbgpd"), route6Of("openbgpd")]
      .map(
        (prefix) => `network ${prefix} set {
      metric 14 community 64999:14 large-community 4200000000:1:14 ext-community rt 64999:14 }`,
      )
      .join("\n")}
    neighbor 192.0.2.1 {
      remote-as ${OURS}
      announce IPv4 unicast
    }
    neighbor 2001:db8::1 {
      remote-as ${OURS}
      announce IPv4 none
      announce IPv6 unicast
    }
    allow from any
    allow to any
`,
};

describe("BIRD, FRR, GoBGP and OpenBGPD, each an AS of four octets", () => {
  const daemons = new Map<Router, Daemon>();
  const ask = (host: Router, ...words: string[]): string => daemons.get(host)!.ask(...words);
  /** What each says of a route that it has. */
  const shown: Record<Router, (prefix: string) => string> = {
    bird: (prefix) => ask("bird", "show", "route", prefix, "all"),
    frr: (prefix) => ask("frr", `show bgp ${prefix.includes(":") ? "ipv6" : "ipv4"} unicast ${prefix}`),
    gobgp: (prefix) => ask("gobgp", "global", "rib", prefix, "-a", prefix.includes(":") ? "ipv6" : "ipv4"),
    openbgpd: (prefix) => ask("openbgpd", "show", "rib", "detail", prefix),
  };
  /** How each is made to forget its own routes. */
  const withdraw: Record<Router, () => void> = {
    bird: () => ["own4", "own6"].forEach((name) => ask("bird", "disable", name)),
    frr() {
      const lines = (family: 4 | 6, prefix: string): string[] => [
        `address-family ipv${family} unicast`,
        `no network ${prefix}`,
        "exit-address-family",
      ];
      const all = [`router bgp ${asnOf("frr")}`, ...lines(4, routeOf("frr")), ...lines(6, route6Of("frr"))];
      ask("frr", "configure terminal", ...all.flatMap((line) => ["-c", line]));
    },
    gobgp: () => [routeOf("gobgp"), route6Of("gobgp")].forEach((prefix) => changeGobgp("del", prefix)),
    openbgpd: () =>
      [routeOf("openbgpd"), route6Of("openbgpd")].forEach((prefix) => ask("openbgpd", "network", "delete", prefix)),
  };
  function changeGobgp(how: "add" | "del", prefix: string): void {
    const family = prefix.includes(":") ? "ipv6" : "ipv4";
    const marks = ["med", "13", "community", COMMUNITY(13), "large-community", LARGE(13), "rt", "64999:13"];
    ask("gobgp", "global", "rib", how, "-a", family, prefix, ...(how === "add" ? marks : []));
  }

  const peers = ROUTERS.flatMap((host): PeerConfig[] => {
    const peer = { asn: asnOf(host), exportFilter: ALL, importFilter: ALL, connectRetry: 1 };
    return [
      { ...peer, name: `${host}4`, address: address4(HOSTS[host]) },
      { ...peer, name: `${host}6`, address: address6(HOSTS[host]), sourceAddress: address6(1), families: [6] },
    ];
  });
  const OWN = ["10.1.0.0/16", "2001:db8:1::/48"];
  const attributes = {
    med: 1,
    communities: [64999 * 65536 + 1],
    largeCommunities: [{ global: 4_200_000_000, local1: 1, local2: 1 }],
  };

  let segment: Segment;
  let speaker: Speaker;
  before(async () => {
    segment = openSegment(ROUTERS);
    await Promise.all(ROUTERS.map(async (host) => daemons.set(host, await segment.start(host, CONFIGS[host]))));
    for (const prefix of [routeOf("gobgp"), route6Of("gobgp")]) changeGobgp("add", prefix);
    speaker = await createSpeaker({ asn: OURS, routerId: "192.0.2.1" });
    speaker.setOrigination(OWN.map((text) => ({ prefix: parsePrefix(text), attributes })));
    speaker.setPeers(peers);
  });
  after(async () => {
    await speaker?.abandon();
    await segment?.close();
  });

  /** What a peer said of one of its own routes. */
  const said = (peer: string, prefix: string): RouteView | undefined =>
    speaker.routes({ view: "in", peer, prefix: parsePrefix(prefix) })[0];

  for (const host of ROUTERS) {
    test(`${host}'s routes come with their communities and its AS, in both families`, async () => {
      const last = HOSTS[host];
      for (const [name, prefix] of [
        [`${host}4`, routeOf(host)],
        [`${host}6`, route6Of(host)],
      ] as const) {
        await until(`${prefix} from ${name}`, () => said(name, prefix)?.chosen === true, 15_000);
        const { attributes: has } = said(name, prefix)!;
        assert.deepEqual(has.asPath, [{ type: "sequence", asns: [asnOf(host)] }]);
        assert.equal(has.med, last);
        assert.deepEqual(has.communities, [64999 * 65536 + last]);
        assert.deepEqual(has.largeCommunities, [{ global: 4_200_000_000, local1: 1, local2: last }]);
        // Type 0, subtype 2: a route target of an AS of two octets (RFC 4360 section 4).
        assert.deepEqual(has.extendedCommunities, [(2n << 48n) | (64999n << 32n) | BigInt(last)]);
      }
    });

    test(`${host} is told ours with theirs, in both families`, async () => {
      for (const prefix of OWN) {
        await until(`${prefix} in ${host}`, () => /64999[,:] ?1\b/.test(shown[host](prefix)), 15_000);
        const text = shown[host](prefix);
        assert.match(text, /4200000000[,:] ?1[,:] ?1\b/);
        assert.match(text, /\b4200000001\b/);
      }
    });
  }

  test("what each withdraws is gone here", async () => {
    for (const host of ROUTERS) {
      withdraw[host]();
      for (const [name, prefix] of [
        [`${host}4`, routeOf(host)],
        [`${host}6`, route6Of(host)],
      ] as const) {
        await until(`the withdrawal of ${prefix}`, () => said(name, prefix) === undefined);
      }
    }
    assert.deepEqual(
      speaker.learned().map(({ prefix }) => formatPrefix(prefix)),
      [],
    );
  });

  test("what we withdraw is gone there, one family after the other", async () => {
    const [v4 = "", v6 = ""] = OWN;
    const has = (host: Router, prefix: string): boolean => /64999[,:] ?1\b/.test(shown[host](prefix));
    speaker.setOrigination([{ prefix: parsePrefix(v6), attributes }]);
    for (const host of ROUTERS) await until(`the withdrawal in ${host}`, () => !has(host, v4));
    for (const host of ROUTERS) assert.ok(has(host, v6), `${host} has lost ${v6}`);
    speaker.setOrigination([]);
    for (const host of ROUTERS) await until(`the other withdrawal in ${host}`, () => !has(host, v6));
  });
});
