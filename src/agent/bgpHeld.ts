import type { PeerStatus } from "../bgp/config.ts";
import { BGP_PORT } from "./bgpPeers.ts";
import type { HeldPeer } from "./bgpPlan.ts";

/** A session that is not begun, as others are shown. */
export function heldStatus({ name, address, asn, localAsn, reason }: HeldPeer, since: number): PeerStatus {
  return {
    name,
    address,
    port: BGP_PORT,
    asn,
    type: asn === localAsn ? "iBGP" : "eBGP",
    passive: false,
    state: "idle",
    since,
    reason,
    families: [],
    agreed: [],
    routes: {},
    messages: { received: 0, sent: 0 },
    established: 0,
    gracefulRestart: { negotiated: false },
  };
}
