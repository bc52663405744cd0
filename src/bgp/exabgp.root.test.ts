import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { formatPrefix, parsePrefix } from "../ip/prefix.ts";
import type { Speaker } from "./config.ts";
import { ALL, ASN, openSegment, type Segment } from "./daemons.testing.ts";
import { createSpeaker } from "./speaker.io.ts";
import { until } from "./speaker.testing.ts";

// Needs the Debian package exabgp.

describe("ExaBGP", () => {
  const ROUTE = [
    "route 10.15.0.0/16 next-hop 192.0.2.15 med 15 as-path [ 4200000015 65001 ] community [ 65001:7 no-export ]",
    "large-community [ 4200000015:1:2 ] extended-community [ target:65001:9 ] attribute [ 0x63 0xc0 0x0102 ]",
  ].join(" ");
  const config = `
    neighbor 192.0.2.1 {
      router-id 192.0.2.15;
      local-address 192.0.2.15;
      local-as 4200000015;
      peer-as ${ASN};
      family { ipv4 unicast; ipv6 unicast; }
      capability { add-path send; }
      add-path { ipv4 unicast; }
      static {
        ${ROUTE};
        ${[2, 3].map((hop) => `route 10.16.0.0/16 next-hop 192.0.2.${hop} path-information 0.0.0.${hop};`).join(" ")}
        route 2001:db8:15::/48 next-hop 2001:db8::f;
      }
    }`;
  let segment: Segment;
  let speaker: Speaker;
  before(async () => {
    segment = openSegment(["exabgp"]);
    await segment.start("exabgp", config);
    speaker = await createSpeaker({ asn: ASN, routerId: "192.0.2.1" });
    const filters = { importFilter: ALL, exportFilter: ALL };
    speaker.setPeers([
      {
        name: "exabgp",
        address: "192.0.2.15",
        asn: 4_200_000_015,
        families: [4, 6],
        passive: true,
        addPath: { receive: true },
        ...filters,
      },
    ]);
  });
  after(async () => {
    await speaker?.abandon();
    await segment?.close();
  });

  test("says all kinds of attributes, and all are understood or kept", async () => {
    await until("all routes", () => speaker.learned().length === 3, 12_000);
    const [route] = speaker.routes({ view: "in", prefix: parsePrefix("10.15.0.0/16") });
    assert.deepEqual(route?.attributes, {
      origin: "igp",
      asPath: [{ type: "sequence", asns: [4_200_000_015, 65001] }],
      nextHop: parseAddress("192.0.2.15"),
      med: 15,
      communities: [(65001 << 16) | 7, 0xffffff01].map((value) => value >>> 0),
      extendedCommunities: [0x0002_fde9_0000_0009n],
      largeCommunities: [{ global: 4_200_000_015, local1: 1, local2: 2 }],
      // Marked as partial, as we do not know it.
      unknown: [{ code: 0x63, flags: 0xe0, value: Uint8Array.of(1, 2) }],
    });
  });

  test("tells two paths to one prefix, which are two next hops (RFC 7911)", async () => {
    const hops = (): string[] => {
      const route = speaker.learned().find(({ prefix }) => formatPrefix(prefix) === "10.16.0.0/16");
      return (route?.nextHops ?? []).map(({ nextHop }) => formatAddress(nextHop)).toSorted();
    };
    await until("both paths", () => hops().length === 2);
    assert.deepEqual(hops(), ["192.0.2.2", "192.0.2.3"]);
    const paths = speaker.routes({ view: "in", prefix: parsePrefix("10.16.0.0/16") });
    assert.deepEqual(new Set(paths.map(({ pathId }) => pathId)), new Set([2, 3]));
  });
});
