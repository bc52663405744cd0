import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { bgpSockets } from "../agent/bgpSockets.io.ts";
import type { Speaker } from "./config.ts";
import {
  ASN,
  address4,
  address6,
  HOSTS,
  openSegment,
  routeOf,
  type Daemon,
  type Host,
  type Segment,
} from "./daemons.testing.ts";
import { createSpeaker } from "./speaker.io.ts";
import { until } from "./speaker.testing.ts";

// Needs the Debian packages bird2 and frr.

describe("BFD with BIRD and FRR", () => {
  const WATCHED = ["bird", "frr"] as const;
  const configs: Record<(typeof WATCHED)[number], string> = {
    bird: `
      router id 192.0.2.11;
      protocol device {}
      protocol static { ipv4; route ${routeOf("bird")} blackhole; }
      protocol bfd { interface "*" { interval 100 ms; multiplier 3; }; }
      protocol bgp ours {
        local 192.0.2.11 as ${ASN}; neighbor 192.0.2.1 as ${ASN}; direct; bfd on; graceful restart;
        connect delay time 1; connect retry time 1; error wait time 1, 2;
        ipv4 { import all; export where source = RTS_STATIC; };
      }`,
    frr: `
      router bgp ${ASN}
        bgp router-id 192.0.2.12
        no bgp network import-check
        neighbor 2001:db8::1 remote-as ${ASN}
        neighbor 2001:db8::1 bfd 3 100 100
        neighbor 2001:db8::1 timers connect 1
        address-family ipv6 unicast
          network 2001:db8:12::/48
          neighbor 2001:db8::1 activate
        exit-address-family`,
  };
  let segment: Segment;
  let speaker: Speaker;
  const daemons = new Map<Host, Daemon>();
  before(async () => {
    segment = openSegment(WATCHED);
    await Promise.all(WATCHED.map(async (host) => daemons.set(host, await segment.start(host, configs[host]))));
    speaker = await createSpeaker({ asn: ASN, routerId: "192.0.2.1", sockets: bgpSockets });
    const bfd = { interval: 100, multiplier: 3 };
    speaker.setPeers([
      { name: "bird", address: address4(HOSTS.bird), asn: ASN, bfd, connectRetry: 1 },
      { name: "frr", address: address6(HOSTS.frr), asn: ASN, bfd, connectRetry: 1 },
    ]);
  });
  after(async () => {
    await speaker?.abandon();
    await segment?.close();
  });
  const bfdOf = (name: string) => speaker.peers().find((peer) => peer.name === name)?.bfd?.state;

  test("comes up with both, in both families", async () => {
    await until("our side", () => bfdOf("bird") === "up" && bfdOf("frr") === "up", 12_000);
    await until("BIRD's side", () =>
      /192\.0\.2\.1\s+eth0\s+Up/.test(daemons.get("bird")!.ask("show", "bfd", "sessions")),
    );
    await until("FRR's side", () => /Status: up/.test(daemons.get("frr")!.ask("show bfd peers")), 8000);
    await until("routes", () => speaker.learned().length === 2, 8000);
  });

  for (const host of WATCHED) {
    test(`${host} is cut off: its routes go in less than a second, and come back with it`, async () => {
      const start = performance.now();
      segment.link(host, "down");
      await until("the loss", () => speaker.learned().length === 1);
      assert.ok(performance.now() - start < 1000, `took ${performance.now() - start} ms`);
      const status = speaker.peers().find(({ name }) => name === host);
      assert.match(status?.lastNotification?.text ?? "", /BFD Down/);
      segment.link(host, "up");
      await until("the route again", () => speaker.learned().length === 2, 12_000);
    });
  }
});
