import type { Address, Family } from "../ip/address.ts";
import type { Prefix } from "../ip/prefix.ts";
import type { BfdStateName } from "./bfd.ts";
import type { PathAttributes } from "./attributes.ts";
import type { FilterRules } from "./filters.ts";
import type { StateName } from "./session.ts";

/** What a speaker needs to know once, at its start. Times are seconds. */
export interface SpeakerConfig {
  /** Our autonomous system, 1 to 4294967295. */
  readonly asn: number;
  /** Our BGP identifier, written as an IPv4 address (RFC 6286: any number but zero, unique in the AS). */
  readonly routerId: string;
  /** Our cluster as a route reflector (RFC 4456), written as an IPv4 address; the router ID unless told. */
  readonly clusterId?: string;
  /** TCP port to listen on; 179 unless told, 0 for any free one. */
  readonly port?: number;
  /** Local addresses to listen on; every address of the host unless told. An empty list accepts nothing. */
  readonly listenAddresses?: readonly string[];
  readonly restart?: RestartConfig;
  /**
   * How packets would reach a next hop: the way into the kernel's table, and the IGP metric of RFC 4271 section 9.1.2.2
   * (e). Undefined says unreachable: paths through it are kept but not used. Asked once per next hop, and again after
   * `recheckNextHops()`. Unless given, every next hop counts as directly connected.
   */
  readonly resolve?: (nextHop: Address) => ResolvedNextHop | undefined;
  /** How many equal-cost next hops a route may have (16 unless told). 1 switches multipath off. */
  readonly maxPaths?: number;
  /** Without it, no peer can have a password or TTL security. */
  readonly sockets?: SocketCalls;
  /** One line per event an operator would want to read. */
  readonly log?: (level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>) => void;
}

/** System calls on sockets that Node has no function for. They throw what they throw, and that is shown to the operator. */
export interface SocketCalls {
  /** The descriptor of a TCP socket that does not block, is closed on exec, and is not connected. */
  open(family: Family): number;
  /**
   * RFC 2385, TCP_MD5SIG: segments to and from this address carry a digest made with the password, which "" ends. On a
   * socket that listens, or is not connected yet. The socket may be IPv6 where the address is IPv4.
   */
  setPassword(fd: number, address: Address, password: string): void;
  /** RFC 5082: the TTL of what is sent, and the least TTL of what is taken (0 to 255), for packets of the family. */
  setTtl(fd: number, family: Family, outgoing: number, least: number): void;
  /** Drops datagrams that arrive with a smaller TTL, for which UDP has no option: SO_ATTACH_FILTER. */
  requireTtl(fd: number, family: Family, least: number): void;
}

/** How we come back: RFC 4724 section 4.1, the restarting speaker. */
export interface RestartConfig {
  /** We may have run before: sets the Restart State bit in our first sessions, and defers pruning until `settled`. */
  readonly restarting: boolean;
  /** The kernel kept our routes while we were away: sets the Forwarding State bit. */
  readonly forwardingPreserved: boolean;
  /** How long to wait for the peers' End-of-RIB before settling without them (120 unless told). */
  readonly deferralTime?: number;
}

export interface ResolvedNextHop {
  /** The neighbour to send to, or undefined where the next hop is itself on the link. */
  readonly gateway?: Address;
  readonly interface?: string;
  readonly metric?: number;
}

/** A neighbour is gone when nothing was heard for `multiplier` times the slower side's interval. */
export interface BfdSettings {
  /** Milliseconds between packets, both ways (300 unless told). */
  readonly interval?: number;
  /** 3 unless told. */
  readonly multiplier?: number;
}

/** One neighbour. Times are seconds. Two peers may not share an address. */
export interface PeerConfig {
  /** `Mesh_192_0_2_12`, `Global_…`, `Node_…`: the names that Calico gives BIRD's protocols. Unique. */
  readonly name: string;
  readonly address: string;
  /** TCP port the peer listens on; 179 unless told. */
  readonly port?: number;
  readonly asn: number;
  /** Our AS towards this peer, where it differs from the speaker's. */
  readonly localAsn?: number;
  /** Of the TCP connection (RFC 2385): at most 80 bytes. */
  readonly password?: string;
  /** RFC 5082: packets that came over more than this many hops (1: the peer is on the link) are dropped. */
  readonly ttlSecurity?: number;
  /** Watch the peer on the link (RFC 5880, 5881) while it is configured, and end the session when it is gone. */
  readonly bfd?: BfdSettings;
  /** Wait for the peer to connect, never dial. */
  readonly passive?: boolean;
  /** Local address to dial from; the kernel chooses unless told. Must be of the family of `address`. */
  readonly sourceAddress?: string;
  /** Proposed hold time (240 unless told, as BIRD). 0 switches it off, otherwise at least 3. */
  readonly holdTime?: number;
  /** A third of the negotiated hold time unless told. */
  readonly keepaliveTime?: number;
  /** How long the peer may take nothing of what we say (RFC 9687); 480, or twice the hold time, unless told. */
  readonly sendHoldTime?: number;
  /** How long one TCP connection attempt may take before it is given up (2 unless told). */
  readonly connectTimeout?: number;
  /** Longest pause between attempts to connect (5 unless told); the first attempts come faster. */
  readonly connectRetry?: number;
  /** How long the peer may keep our routes while we restart (120 unless told); 0 switches graceful restart off. */
  readonly restartTime?: number;
  /** Upper bound on how long we keep this peer's routes while it restarts; what it asks for unless told. */
  readonly maxRestartTime?: number;
  /** Address families to exchange; the family of `address` alone unless told. */
  readonly families?: readonly Family[];
  /** RFC 4456: what this iBGP peer says is told to all our iBGP peers, and it is told what any of them says. */
  readonly routeReflectorClient?: boolean;
  /** Our cluster towards this peer, where it differs from the speaker's. */
  readonly clusterId?: string;
  /** RFC 7911: tell all usable paths, take several for one prefix. Neither unless told, and only what the peer wants too. */
  readonly addPath?: { readonly send?: boolean; readonly receive?: boolean };
  /** How often our own AS may stand in the path of what the peer tells us (0 unless told). */
  readonly allowOwnAs?: number;
  /** More prefixes than this in a family end the session (RFC 4486: Maximum Number of Prefixes Reached). */
  readonly maximumPrefixes?: number;
  /** RFC 8326: we are about to go, so that what we tell this peer should be used only where there is nothing else. */
  readonly gracefulShutdown?: boolean;
  /** RFC 8950: IPv4 routes may have IPv6 next hops. So where an IPv6 session carries IPv4 routes, unless told. */
  readonly extendedNextHop?: boolean;
  /** Give ourselves as next hop also of routes learned in iBGP or eBGP. Always so for our own routes. */
  readonly nextHopSelf?: boolean;
  /** Leave the next hop of learned routes as it was also in eBGP. Not together with `nextHopSelf`. */
  readonly nextHopKeep?: boolean;
  /** The address that stands for us in a family; our end of the TCP connection unless told. */
  readonly nextHops?: { readonly 4?: string; readonly 6?: string };
  /** What to believe of what the peer says. Unless given: everything from iBGP, nothing from eBGP (RFC 8212). */
  readonly importFilter?: FilterRules;
  /** What to tell the peer. Unless given: everything to iBGP, nothing to eBGP (RFC 8212). */
  readonly exportFilter?: FilterRules;
}

/** A route that this node announces as its own. */
export interface OriginatedRoute {
  readonly prefix: Prefix;
  readonly attributes?: Pick<PathAttributes, "med" | "localPref" | "communities" | "largeCommunities">;
  /** Any route that a peer has told comes before it: what other programs wrote into the kernel, as BIRD's `learn`. */
  readonly lastResort?: boolean;
}

export interface RouteNextHop extends ResolvedNextHop {
  /** As the peer announced it. */
  readonly nextHop: Address;
}

/** The learned route to a prefix became this; without next hops, there is none any more (or the prefix is our own). */
export interface RouteChange {
  readonly prefix: Prefix;
  /** Best first; more than one where paths are equal up to RFC 4271 section 9.1.2.2 (e). */
  readonly nextHops: readonly RouteNextHop[];
  /** Of the best path. */
  readonly attributes?: PathAttributes;
  /** Name of the peer of the best path. */
  readonly peer?: string;
}

export interface SpeakerEvents {
  /** Learned routes that changed in one turn of the event loop; a prefix stands once. */
  readonly routes: (changes: readonly RouteChange[]) => void;
  /** A peer's state changed. */
  readonly peer: (status: PeerStatus) => void;
  /** After a restart: every peer has told all it knows, or had its time. What was not announced by now may go. */
  readonly settled: () => void;
}

export interface FamilyCounts {
  /** Paths the peer announced, whether believed or not. */
  readonly received: number;
  readonly accepted: number;
  /** Kept from before the peer went away, not announced again yet. */
  readonly stale: number;
  readonly advertised: number;
}

export interface PeerStatus {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly asn: number;
  readonly type: "iBGP" | "eBGP";
  readonly passive: boolean;
  readonly state: StateName;
  /** When it entered the state: milliseconds since 1970. */
  readonly since: number;
  /** Why it is not established, in words; empty when it is. */
  readonly reason: string;
  readonly localAddress?: string;
  readonly remoteRouterId?: string;
  /** Negotiated, seconds. */
  readonly holdTime?: number;
  readonly families: readonly Family[];
  /** What both sides can beyond RFC 4271, in words: `route refresh`, `add-path (receive IPv4)`. */
  readonly agreed: readonly string[];
  readonly routes: { readonly [F in Family]?: FamilyCounts };
  readonly messages: { readonly received: number; readonly sent: number };
  readonly lastNotification?: { readonly direction: "sent" | "received"; readonly text: string; readonly at: number };
  /** Where the peer is watched. `since`: milliseconds since 1970. */
  readonly bfd?: { readonly state: BfdStateName; readonly since: number };
  /** Times it reached `established`. */
  readonly established: number;
  readonly gracefulRestart: {
    /** The peer keeps our routes while we restart, and we its. */
    readonly negotiated: boolean;
    /** Milliseconds since 1970 when routes kept from before are given up, while there are any. */
    readonly staleUntil?: number;
  };
}

/** A route as one of the tables has it, with the reason it is there or is not used. */
export interface RouteView {
  readonly prefix: string;
  /** Whom it came from; `local` for our own. */
  readonly from: string;
  /** Whom it goes to: only in the view `out`. */
  readonly to?: string;
  /** `in`: it was accepted; `best`: it is the chosen one; `out`: it is advertised. */
  readonly chosen: boolean;
  readonly reason: string;
  /** Under which the peer told it, or is told it (RFC 7911). */
  readonly pathId?: number;
  readonly stale: boolean;
  readonly attributes: PathAttributes;
  readonly nextHops: readonly RouteNextHop[];
}

export interface RouteQuery {
  /** `in`: all that peers said; `best`: the candidates for each prefix; `out`: what each peer is told, or why not. */
  readonly view: "in" | "best" | "out";
  readonly family?: Family;
  /** Name of a peer. */
  readonly peer?: string;
  readonly prefix?: Prefix;
}

/** A running speaker. */
export interface Speaker {
  /** The port that it listens on (useful where any was asked for), or 0 where it does not listen. */
  readonly port: number;
  /** Whether a restart is over: see `SpeakerEvents.settled`. */
  readonly settled: boolean;
  /** Makes these the peers. A change touches only the sessions that it concerns; a changed filter resets none. */
  setPeers(peers: readonly PeerConfig[]): void;
  /**
   * Listens there from now on (see `SpeakerConfig`), and ends no session. Rejects with `Failure` (`listen-failed`) where the
   * port cannot be had, and then listens nowhere.
   */
  listenOn(port: number, addresses?: readonly string[]): Promise<void>;
  /** Makes these the routes of this node: what is new is announced, what is gone is withdrawn. */
  setOrigination(routes: readonly OriginatedRoute[]): void;
  /** Asks a peer, by its name, to tell all again (RFC 2918); nothing where it is not established or cannot. */
  refresh(name: string): void;
  /** Asks `resolve` again for every next hop: after a link or kernel route changed. */
  recheckNextHops(): void;
  on<Name extends keyof SpeakerEvents>(name: Name, listener: SpeakerEvents[Name]): () => void;
  peers(): PeerStatus[];
  routes(query: RouteQuery): RouteView[];
  /** All learned routes now in use, as one batch: for a consumer that joins late, or reconciles. */
  learned(): RouteChange[];
  /** All that peers said and what is our own, as MRT records (RFC 6396), to be written one after the other. */
  dump(): Generator<Uint8Array>;
  /** Gives each message and change of state of a peer, by its name, as an MRT record, until the function it returns is called. */
  trace(name: string, write: (record: Uint8Array) => void): () => void;
  /** Ends every session with Cease, Administrative Shutdown: peers drop our routes at once. */
  close(communication?: string): Promise<void>;
  /** Ends without a word, as a crash would: peers that negotiated graceful restart keep our routes. */
  abandon(): Promise<void>;
}
