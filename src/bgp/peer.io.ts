import type net from "node:net";
import { formatAddress, parseAddress, type Family } from "../ip/address.ts";
import { ByteReader } from "../lib/bytes.ts";
import { messageOf } from "../lib/errors.ts";
import type { BfdService, BfdSession } from "./bfd.io.ts";
import { createAdjacency, type Adjacency, type AdjacencyHost } from "./adjacency.ts";
import { resolveCollision } from "./collision.ts";
import type { FamilyCounts, PeerStatus, SocketCalls } from "./config.ts";
import { descriptorOf, protect, type Protection } from "./connection.io.ts";
import { MESSAGE } from "./constants.ts";
import { createMachine, type Machine, type MachineOwner } from "./machine.io.ts";
import { decodeOpen, decodeRouteRefresh, type Frame, type OpenMessage } from "./message.ts";
import { mrtMessages, mrtStateChange, type MrtSession } from "./mrt.ts";
import { agreedOn, negotiate } from "./negotiation.ts";
import { CEASE, decodeNotification, describeNotification, ProtocolError, type Notification } from "./notification.ts";
import { sameBfd, sessionConfig, type PeerSettings, type Self } from "./peer-settings.ts";
import { administrativeStop, type Event } from "./session.ts";
import type { Turns } from "./turns.io.ts";

/** What a peer needs of the speaker that it belongs to. */
export interface PeerHost extends AdjacencyHost {
  self(): Self;
  readonly sockets: SocketCalls | undefined;
  readonly bfd: BfdService;
  readonly turns: Turns;
  /** Its state is another, or it has told all it knows. */
  changed(peer: Peer): void;
  log(level: "info" | "warn", message: string, fields: Readonly<Record<string, unknown>>): void;
}

/** One peer: its connections, its timers, its place in the tables. */
export interface Peer {
  readonly settings: PeerSettings;
  readonly adjacency: Adjacency;
  start(): void;
  /** Takes a connection that the peer opened. */
  accept(socket: net.Socket): void;
  /** Takes new settings, none of which needs a new session. */
  configure(settings: PeerSettings): void;
  status(): PeerStatus;
  /** Gives messages and changes of state as MRT records, until the function it returns is called. */
  trace(write: (record: Uint8Array) => void): () => void;
  /** Ends the session with Cease, and with it the peer: its routes go. */
  remove(subcode: number, communication?: string): void;
  /** Ends without a word. */
  abandon(): void;
}

const UPDATE: Event = { type: "update" };
const KEEPALIVE: Event = { type: "keepalive" };
/** Connections a peer may have opened at a time, beyond which the oldest goes. */
const MOST_ACCEPTED = 4;
/** From least to most advanced: which machine stands for the peer. */
const RANK = { idle: 0, active: 1, connect: 2, openSent: 3, openConfirm: 4, established: 5 } as const;

function protectionOf(
  { address, config: { password, ttlSecurity } }: PeerSettings,
  calls: SocketCalls | undefined,
): Protection | undefined {
  if (calls === undefined || (password === undefined && ttlSecurity === undefined)) return undefined;
  return {
    calls,
    address,
    ...(password !== undefined && { password }),
    ...(ttlSecurity !== undefined && { hops: ttlSecurity }),
  };
}

export function createPeer(initial: PeerSettings, host: PeerHost): Peer {
  const adjacency = createAdjacency(initial, host);
  let settings = initial;
  let running = false;
  /** Opens connections; a passive peer has none. */
  let dialler: Machine | undefined;
  const accepted: Machine[] = [];
  let established: Machine | undefined;
  let establishedCount = 0;
  let remoteRouterId: number | undefined;
  let reason = "not started";
  let shown: Pick<PeerStatus, "state" | "since"> = { state: "idle", since: host.clock.now() };
  let watched: { readonly localAddress: string; readonly session: BfdSession } | undefined;
  let lastNotification: PeerStatus["lastNotification"];
  const traces = new Set<(record: Uint8Array) => void>();
  const messages = { received: 0, sent: 0 };

  /** Where our end is not known, all zeros stand for it (RFC 6396 section 4.4.1). */
  function mrtSession(local: string | undefined, addPath: boolean): MrtSession {
    const { address, localAsn, config } = settings;
    const localAddress = local === undefined ? { family: address.family, value: 0n } : parseAddress(local);
    return { peerAsn: config.asn, localAsn, peerAddress: address, localAddress, addPath };
  }

  const owner: MachineOwner = {
    clock: host.clock,
    turns: host.turns,
    get target() {
      const { config, port } = settings;
      const protection = protectionOf(settings, host.sockets);
      return {
        host: config.address,
        port,
        localAddress: config.sourceAddress,
        ...(protection !== undefined && { protection }),
      };
    },
    config(machine) {
      const self = host.self();
      // Once a session was up, losing it says nothing of our forwarding, which goes on.
      const forwardingPreserved = self.forwardingPreserved || establishedCount > 0;
      return sessionConfig(settings, { ...self, forwardingPreserved }, machine !== dialler);
    },
    message(machine, frame, bytes) {
      messages.received += 1;
      machine.handle(read(machine, frame, bytes));
    },
    get traced() {
      return traces.size > 0;
    },
    wire(machine, direction, bytes) {
      const { connection, session } = machine;
      if (connection === undefined) return;
      const families = (direction === "sent" ? session?.addPathSend : session?.addPathReceive) ?? [];
      const mrt = mrtSession(connection.localAddress, families.length > 0);
      for (const record of mrtMessages(host.clock.now(), mrt, bytes)) for (const write of traces) write(record);
    },
    up(machine, session) {
      const { connection } = machine;
      if (connection === undefined) return;
      established = machine;
      establishedCount += 1;
      remoteRouterId = session.remoteRouterId;
      reason = "";
      for (const other of machines()) {
        if (other !== machine) other.handle({ type: other.state === "idle" ? "stop" : "collision" });
      }
      adjacency.up(session, {
        localAddress: connection.localAddress,
        ready: () => connection.ready(),
        write(bytes) {
          messages.sent += 1;
          connection.write(bytes);
        },
      });
      watch(connection.localAddress);
      log("info", "BGP session established");
    },
    down(machine, session, graceful) {
      if (established !== machine) return;
      established = undefined;
      adjacency.down(session, graceful && running);
    },
    explain(machine, why) {
      // What becomes of a second connection is of no interest while the first one is up.
      if (established !== undefined && established !== machine) return;
      if (why !== reason) log("warn", `BGP session is down: ${why}`);
      reason = why;
    },
    sent(notification) {
      messages.sent += 1;
      if (notification !== undefined) note("sent", notification);
    },
    drained: () => host.schedule(),
    stepped(machine) {
      // A connection that the peer opened is not opened again by us: its machine ends with it.
      if (machine !== dialler && (machine.state === "active" || machine.state === "idle")) {
        const at = accepted.indexOf(machine);
        if (at >= 0) accepted.splice(at, 1);
        machine.abandon();
      }
      const alone = running && established === undefined && accepted.length === 0;
      if (alone && dialler?.state === "idle" && !dialler.held) dialler.handle({ type: "start" });
      show();
    },
  };

  /** From when the session first comes up, as only then there is somebody to watch. */
  function watch(localAddress: string): void {
    if (settings.bfd === undefined || watched?.localAddress === localAddress) return;
    unwatch();
    const session = host.bfd.watch(parseAddress(localAddress), settings.address, settings.bfd, {
      up: () => log("info", "BFD session is up"),
      down(failed, why) {
        log("warn", `BFD session is down: ${why}`);
        if (failed) established?.handle({ type: "bfdDown", reason: why });
      },
    });
    watched = { localAddress, session };
  }

  function unwatch(): void {
    watched?.session.stop();
    watched = undefined;
  }

  function machines(): Machine[] {
    return dialler === undefined ? [...accepted] : [dialler, ...accepted];
  }

  function show(): void {
    const passive = settings.config.passive === true;
    let state: PeerStatus["state"] = running && passive ? "active" : "idle";
    for (const machine of machines()) if (RANK[machine.state] > RANK[state]) ({ state } = machine);
    if (state === shown.state) return;
    for (const write of traces) {
      const local = established?.connection?.localAddress ?? settings.config.sourceAddress;
      write(mrtStateChange(host.clock.now(), mrtSession(local, false), shown.state, state));
    }
    shown = { state, since: host.clock.now() };
    host.changed(peer);
  }

  /** A message as the event that it is to the machine. */
  function read(machine: Machine, { type, start, end }: Frame, bytes: Uint8Array): Event {
    try {
      switch (type) {
        case MESSAGE.open: {
          const open = decodeOpen(bytes, start, end);
          return survivesCollision(machine, open) ? { type: "open", open } : { type: "collision" };
        }
        case MESSAGE.update:
          if (machine === established) update(bytes, start, end);
          return UPDATE;
        case MESSAGE.notification: {
          const notification = decodeNotification(new ByteReader(bytes, start, end));
          note("received", notification);
          return { type: "notification", notification };
        }
        case MESSAGE.routeRefresh:
          if (machine === established) adjacency.refresh(decodeRouteRefresh(bytes, start, end));
          return { type: "routeRefresh" };
        default:
          return KEEPALIVE;
      }
    } catch (thrown) {
      if (!(thrown instanceof ProtocolError)) throw thrown;
      return { type: "malformed", notification: thrown.notification, reason: thrown.message };
    }
  }

  function update(bytes: Uint8Array, start: number, end: number): void {
    const { problems, endOfRib } = adjacency.update(bytes, start, end);
    for (const problem of problems) log("warn", problem);
    if (endOfRib !== undefined && adjacency.hasToldAll) host.changed(peer);
  }

  /** Settles which of several connections goes on, now that an OPEN has arrived on one; whether that one may. */
  function survivesCollision(machine: Machine, open: OpenMessage): boolean {
    const config = owner.config(machine);
    // An OPEN that will be refused ends nobody else's connection.
    if (machine.state !== "openSent" || "refusal" in negotiate(open, config)) return true;
    const restarted = open.capabilities.gracefulRestart?.restarting === true;
    const { localAsn, remoteAsn, routerId } = config;
    const sides = { localAsn, remoteAsn, localRouterId: routerId, remoteRouterId: open.routerId };
    for (const other of machines()) {
      if (other === machine) continue;
      if (other.state === "established" && restarted) {
        other.handle({ type: "peerRestarted" });
        continue;
      }
      const keep = resolveCollision(machine, other, sides);
      if (keep === "other") return false;
      if (keep === "arriving") other.handle({ type: "collision" });
    }
    return true;
  }

  function note(direction: "sent" | "received", notification: Notification): void {
    // That one of two connections was ended in favour of the other tells an operator nothing.
    if (notification.code === CEASE.code && notification.subcode === CEASE.connectionCollision) return;
    lastNotification = { direction, text: describeNotification(notification), at: host.clock.now() };
  }

  function log(level: "info" | "warn", message: string): void {
    host.log(level, message, { peer: settings.config.name, address: settings.config.address });
  }

  const peer: Peer = {
    get settings() {
      return settings;
    },
    adjacency,
    start() {
      running = true;
      const passive = settings.config.passive === true;
      reason = passive ? "waiting for the peer to connect" : "connecting";
      if (!passive) {
        dialler = createMachine("us", owner);
        dialler.handle({ type: "start" });
      }
      show();
    },
    accept(socket) {
      if (!running) {
        socket.destroy();
        return;
      }
      const { address, config } = settings;
      try {
        // The password came with the socket that listens.
        const { ttlSecurity } = config;
        const calls = host.sockets;
        if (ttlSecurity !== undefined && calls !== undefined) {
          protect(descriptorOf(socket), { calls, address, hops: ttlSecurity });
        }
      } catch (thrown) {
        log("warn", `refused the peer's connection: ${messageOf(thrown)}`);
        socket.destroy();
        return;
      }
      const oldest = accepted.find((machine) => machine !== established);
      if (accepted.length >= MOST_ACCEPTED && oldest !== undefined) oldest.handle({ type: "collision" });
      const machine = createMachine("them", owner);
      accepted.push(machine);
      machine.accept(socket);
    },
    configure(next) {
      const watchesAnew = !sameBfd(settings, next);
      settings = next;
      if (watchesAnew) {
        unwatch();
        if (established?.connection !== undefined) watch(established.connection.localAddress);
      }
      adjacency.configure(next);
    },
    trace(write) {
      traces.add(write);
      return () => void traces.delete(write);
    },
    status() {
      const { config, port, internal } = settings;
      const session = established?.session;
      const routes: { [F in Family]?: FamilyCounts } = {};
      for (const family of settings.families) routes[family] = adjacency.counts(family);
      const localAddress = established?.connection?.localAddress;
      return {
        name: config.name,
        address: config.address,
        port,
        asn: config.asn,
        type: internal ? "iBGP" : "eBGP",
        passive: config.passive ?? false,
        ...shown,
        reason,
        ...(localAddress !== undefined && { localAddress }),
        ...(remoteRouterId !== undefined && {
          remoteRouterId: formatAddress({ family: 4, value: BigInt(remoteRouterId) }),
        }),
        ...(session !== undefined && { holdTime: session.holdTime }),
        families: session?.families ?? [],
        agreed: session === undefined ? [] : agreedOn(session),
        routes,
        messages: { ...messages },
        ...(lastNotification !== undefined && { lastNotification }),
        ...(watched !== undefined && { bfd: { state: watched.session.state, since: watched.session.since } }),
        established: establishedCount,
        gracefulRestart: {
          negotiated: session?.gracefulRestart !== undefined,
          ...(adjacency.staleUntil !== undefined && { staleUntil: adjacency.staleUntil }),
        },
      };
    },
    remove(subcode, communication) {
      running = false;
      unwatch();
      for (const machine of machines()) machine.handle(administrativeStop(subcode, communication));
      adjacency.remove();
    },
    abandon() {
      running = false;
      unwatch();
      adjacency.abandon();
      for (const machine of machines()) machine.abandon();
    },
  };
  return peer;
}
