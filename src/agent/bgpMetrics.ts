import { Counter, Gauge, type Registry } from "prom-client";
import type { PeerStatus } from "../bgp/config.ts";
import type { StateName } from "../bgp/session.ts";

/**
 * BGP's numbers. What the widely used exporter for BIRD has (`bird_protocol_…`) is here under the same names, so that
 * people's dashboards and alerts go on working.
 */

/** As RFC 4273 numbers them. */
const STATE_NUMBERS: Readonly<Record<StateName, number>> = {
  idle: 1,
  connect: 2,
  active: 3,
  openSent: 4,
  openConfirm: 5,
  established: 6,
};
const PROTOCOL = ["name", "proto", "ip_version"] as const;
const PEER = ["peer", "address"] as const;

/** @param now milliseconds since 1970 */
export function registerBgpMetrics(registers: Registry[], peers: () => readonly PeerStatus[], now: () => number): void {
  function byFamily(
    name: string,
    help: string,
    read: (peer: PeerStatus, version: "4" | "6") => number | undefined,
  ): void {
    new Gauge({
      name,
      help,
      registers,
      labelNames: PROTOCOL,
      collect() {
        this.reset();
        for (const peer of peers()) {
          for (const version of ["4", "6"] as const) {
            const value = read(peer, version);
            if (value !== undefined) this.set({ name: peer.name, proto: "BGP", ip_version: version }, value);
          }
        }
      },
    });
  }
  function byPeer(name: string, help: string, read: (peer: PeerStatus) => number | undefined): void {
    new Gauge({
      name,
      help,
      registers,
      labelNames: PEER,
      collect() {
        this.reset();
        for (const peer of peers()) {
          const value = read(peer);
          if (value !== undefined) this.set({ peer: peer.name, address: peer.address }, value);
        }
      },
    });
  }
  const counts = (peer: PeerStatus, version: "4" | "6") => peer.routes[version === "4" ? 4 : 6];
  const usual = ({ address }: PeerStatus): "4" | "6" => (address.includes(":") ? "6" : "4");
  const ofSession = (peer: PeerStatus, version: string, value: number): number | undefined =>
    version === usual(peer) || peer.families.includes(version === "4" ? 4 : 6) ? value : undefined;

  byFamily("bird_protocol_up", "Whether the session is established.", (peer, version) =>
    ofSession(peer, version, Number(peer.state === "established")),
  );
  byFamily("bird_protocol_uptime", "Seconds since the session entered its state.", (peer, version) =>
    ofSession(peer, version, Math.max(0, Math.round((now() - peer.since) / 1000))),
  );
  byFamily(
    "bird_protocol_prefix_import_count",
    "Routes taken from the peer.",
    (peer, version) => counts(peer, version)?.accepted,
  );
  byFamily(
    "bird_protocol_prefix_export_count",
    "Routes told to the peer.",
    (peer, version) => counts(peer, version)?.advertised,
  );
  byFamily("bird_protocol_prefix_filter_count", "Routes of the peer that were refused.", (peer, version) => {
    const of = counts(peer, version);
    return of === undefined ? undefined : of.received - of.accepted;
  });
  byFamily(
    "caracal_bgp_stale_routes",
    "Routes kept from before the peer went away.",
    (peer, version) => counts(peer, version)?.stale,
  );
  byPeer(
    "caracal_bgp_peer_state",
    "1 idle, 2 connect, 3 active, 4 open sent, 5 open confirm, 6 established.",
    ({ state }) => STATE_NUMBERS[state],
  );
  byPeer("caracal_bgp_bfd_up", "Whether BFD hears the peer, where it is watched.", ({ bfd }) =>
    bfd === undefined ? undefined : Number(bfd.state === "up"),
  );

  function total(
    name: string,
    help: string,
    labelNames: readonly string[],
    read: (peer: PeerStatus) => [object, number][],
  ): void {
    new Counter({
      name,
      help,
      registers,
      labelNames,
      collect() {
        this.reset();
        for (const peer of peers()) {
          for (const [labels, value] of read(peer))
            this.inc({ peer: peer.name, address: peer.address, ...labels }, value);
        }
      },
    });
  }
  total("caracal_bgp_established_total", "Times that the session was established.", PEER, ({ established }) => [
    [{}, established],
  ]);
  total("caracal_bgp_messages_total", "BGP messages.", [...PEER, "direction"], ({ messages }) => [
    [{ direction: "received" }, messages.received],
    [{ direction: "sent" }, messages.sent],
  ]);
}
