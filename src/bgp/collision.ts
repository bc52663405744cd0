/** One of several connections with a peer, as far as a collision is concerned. */
export interface Contender {
  /** Who opened the TCP connection. */
  readonly dialledBy: "us" | "them";
  readonly state: "idle" | "connect" | "active" | "openSent" | "openConfirm" | "established";
}

/** Who is who: identifiers and AS numbers decide which side is dominant. */
export interface Sides {
  readonly localRouterId: number;
  readonly remoteRouterId: number;
  readonly localAsn: number;
  readonly remoteAsn: number;
}

/**
 * RFC 4271 section 6.8, when an OPEN arrives on a connection while there is another. Says which to keep.
 *
 * The RFC has both sides decide when the OPEN arrives, each by what it has seen so far, which can differ: then both drop
 * what the other kept. Here only the dominant side (the higher identifier, RFC 6286: then the higher AS) decides, and
 * sends a KEEPALIVE on no connection but the one it chose: so the other can establish only that one, and needs to decide
 * nothing. It fits speakers that follow the RFC to the letter, as what the dominant side keeps is what they keep.
 */
export function resolveCollision(arriving: Contender, other: Contender, sides: Sides): "arriving" | "other" | "both" {
  if (other.state === "idle" || other.state === "active") return "both";
  // An established session stays (RFC 4271 section 6.8); a peer that restarted says so in its OPEN, which comes first.
  if (other.state === "established") return "other";
  if (!isDominant(sides)) return "both";
  // Our attempt may never be answered, and theirs is here.
  if (other.state === "connect") return "arriving";
  // A peer that opens a second connection has given up its first.
  if (arriving.dialledBy === other.dialledBy) return "arriving";
  return arriving.dialledBy === "us" ? "arriving" : "other";
}

function isDominant({ localRouterId, remoteRouterId, localAsn, remoteAsn }: Sides): boolean {
  return localRouterId === remoteRouterId ? localAsn > remoteAsn : localRouterId > remoteRouterId;
}
