import assert from "node:assert/strict";
import { test } from "node:test";
import { Registry } from "prom-client";
import type { PeerStatus } from "../bgp/config.ts";
import { registerBgpMetrics } from "./bgpMetrics.ts";

const NOW = Date.parse("2026-03-01T12:01:00Z");

const peer = (name: string, address: string, fields: Partial<PeerStatus> = {}): PeerStatus => ({
  name,
  address,
  port: 179,
  asn: 64512,
  type: "iBGP",
  passive: false,
  state: "established",
  since: NOW - 60_000,
  reason: "",
  families: [4],
  agreed: [],
  routes: { 4: { received: 5, accepted: 3, stale: 1, advertised: 2 } },
  messages: { received: 7, sent: 8 },
  established: 2,
  gracefulRestart: { negotiated: true },
  ...fields,
});

test("BGP's numbers stand under the names of BIRD's exporter, and our own", async () => {
  const registry = new Registry();
  let peers = [
    peer("Mesh_192_0_2_12", "192.0.2.12", { bfd: { state: "up", since: 0 } }),
    peer("Global_2001_db8__1", "2001:db8::1", { state: "idle", families: [], routes: {} }),
  ];
  registerBgpMetrics(
    [registry],
    () => peers,
    () => NOW,
  );
  const lines = async (): Promise<string[]> =>
    (await registry.metrics()).split("\n").filter((line) => /^[a-z]/.test(line));
  const mesh = 'name="Mesh_192_0_2_12",proto="BGP",ip_version="4"';
  const own = 'peer="Mesh_192_0_2_12",address="192.0.2.12"';
  const down = 'peer="Global_2001_db8__1",address="2001:db8::1"';
  const idle = 'name="Global_2001_db8__1",proto="BGP",ip_version="6"';
  const expected = [
    `bird_protocol_up{${mesh}} 1`,
    `bird_protocol_up{${idle}} 0`,
    `bird_protocol_uptime{${mesh}} 60`,
    `bird_protocol_uptime{${idle}} 60`,
    `bird_protocol_prefix_import_count{${mesh}} 3`,
    `bird_protocol_prefix_export_count{${mesh}} 2`,
    `bird_protocol_prefix_filter_count{${mesh}} 2`,
    `caracal_bgp_stale_routes{${mesh}} 1`,
    `caracal_bgp_peer_state{${own}} 6`,
    `caracal_bgp_peer_state{${down}} 1`,
    `caracal_bgp_bfd_up{${own}} 1`,
    `caracal_bgp_established_total{${own}} 2`,
    `caracal_bgp_established_total{${down}} 2`,
    `caracal_bgp_messages_total{${own},direction="received"} 7`,
    `caracal_bgp_messages_total{${own},direction="sent"} 8`,
    `caracal_bgp_messages_total{${down},direction="received"} 7`,
    `caracal_bgp_messages_total{${down},direction="sent"} 8`,
  ];
  assert.deepEqual(await lines(), expected);
  assert.deepEqual(await lines(), expected, "counters are not added up from scrape to scrape");
  peers = [];
  assert.deepEqual(await lines(), [], "a peer that is gone is forgotten");
});
