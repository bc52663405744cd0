import type net from "node:net";
import { formatAddress, parseAddress } from "../ip/address.ts";
import { messageOf, codeOf, Failure } from "../lib/errors.ts";
import { createBfdService } from "./bfd.io.ts";
import type { Clock } from "./clock.ts";
import type { RouteChange, Speaker, SpeakerConfig, SpeakerEvents } from "./config.ts";
import { listen, plainAddress, type Listener } from "./connection.io.ts";
import { REAL_CLOCK } from "./machine.io.ts";
import { LOCAL_PEER } from "./decision.ts";
import { mrtPeers, mrtRoute } from "./mrt.ts";
import { CEASE } from "./notification.ts";
import { needsNewSession, routerIdOf, settingsOf, type PeerSettings } from "./peer-settings.ts";
import { createPeer, type Peer, type PeerHost } from "./peer.io.ts";
import { Tables } from "./tables.ts";
import { createTurns } from "./turns.io.ts";
import { routeViews } from "./views.ts";

const BGP_PORT = 179;
const DEFAULT_DEFERRAL = 120;
const DEFAULT_MAX_PATHS = 16;
/** How often, in milliseconds, a restart that is not over is looked at again. */
const SETTLE_CHECK = 250;
/** How long farewells may take when we close, milliseconds. */
const FAREWELL = 50;

/**
 * Starts a BGP speaker: it listens at once, and knows no peers and no routes until it is told. After a restart, give it
 * its own routes (`setOrigination`) before its peers, or at least soon: it tells nobody that it has told all before.
 * Rejects with `Failure` (`bad-config`, or `listen-failed` where the port cannot be had).
 */
export async function createSpeaker(config: SpeakerConfig, clock: Clock = REAL_CLOCK): Promise<Speaker> {
  const routerId = routerIdOf(config);
  const tables = new Tables({
    routerId,
    resolve: config.resolve ?? (() => ({})),
    maxPaths: config.maxPaths ?? DEFAULT_MAX_PATHS,
  });
  const peers = new Map<string, Peer>();
  const listeners = new Map<keyof SpeakerEvents, Set<SpeakerEvents[keyof SpeakerEvents]>>();
  const restarting = config.restart?.restarting ?? false;
  let settled = !restarting;
  /** Our waiting is over, and what was learned meanwhile is being told. */
  let settling = false;
  let peersKnown = false;
  let routesKnown = false;
  let flushing: NodeJS.Immediate | undefined;
  let over = false;
  let stopDeferral: (() => void) | undefined;
  let stopCheck: (() => void) | undefined;

  const host: PeerHost = {
    tables,
    clock,
    filters: new Map(),
    routerId,
    self: () => ({
      asn: config.asn,
      routerId,
      restarting: !settled,
      forwardingPreserved: config.restart?.forwardingPreserved ?? false,
    }),
    sockets: config.sockets,
    turns: createTurns(),
    bfd: createBfdService({ clock, sockets: config.sockets, log: (...line) => config.log?.(...line) }),
    schedule,
    changed(peer) {
      emit("peer", (listener) => listener(peer.status()));
      checkSettled();
    },
    log: (level, message, fields) => config.log?.(level, message, fields),
  };

  /** Changes are told when the event loop has read what there is: at once when idle, packed when busy. */
  function schedule(): void {
    if (over) return;
    flushing ??= setImmediate(flush);
  }

  function flush(): void {
    flushing = undefined;
    const { changes, more } = tables.flush(isHeard("routes"));
    if (changes.length > 0) emit("routes", (listener) => listener(changes));
    if (more) return schedule();
    // What was learned so far was told first, so that whoever prunes now knows it.
    if (settling && !settled) {
      settled = true;
      emit("settled", (listener) => listener());
    }
    if (!routesKnown) return;
    for (const peer of peers.values()) {
      if (peer.adjacency.owesEndOfRib && mayEndRib(peer)) peer.adjacency.endRibs();
    }
  }

  /**
   * After a restart, a speaker that passes routes on has told all only once it has heard all (RFC 4724 section 4.1). One
   * that has only iBGP peers passes nothing on, and keeps nobody waiting.
   */
  function mayEndRib({ settings }: Peer): boolean {
    return settled || (settings.internal && [...peers.values()].every((peer) => peer.settings.internal));
  }

  function checkSettled(): void {
    if (settling || settled || over || !peersKnown) return;
    if ([...peers.values()].every((peer) => peer.adjacency.hasToldAll)) settle();
  }

  function settle(): void {
    if (settling) return;
    settling = true;
    stopDeferral?.();
    stopCheck?.();
    tables.release();
    schedule();
  }

  function watchRestart(): void {
    stopCheck = clock.after(SETTLE_CHECK, () => {
      checkSettled();
      if (!settling) watchRestart();
    });
  }

  function isHeard(name: keyof SpeakerEvents): boolean {
    return (listeners.get(name)?.size ?? 0) > 0;
  }

  function emit<Name extends keyof SpeakerEvents>(name: Name, call: (listener: SpeakerEvents[Name]) => void): void {
    // Each set holds only listeners of its own event.
    for (const listener of listeners.get(name) ?? []) call(listener as SpeakerEvents[Name]);
  }

  function accept(socket: net.Socket): void {
    const address = plainAddress(socket.remoteAddress ?? "");
    const peer = peers.get(address);
    socket.on("error", () => undefined);
    if (peer === undefined || over) {
      host.log("info", "refused a BGP connection from an address that is no peer's", { address });
      socket.destroy();
      return;
    }
    peer.accept(socket);
  }

  function setPeers(wanted: ReadonlyMap<string, PeerSettings>): void {
    // Filters of the past are forgotten: those in use live on in their groups.
    host.filters.clear();
    guardListeners(wanted);
    for (const [address, peer] of peers) {
      const next = wanted.get(address);
      if (next !== undefined && !needsNewSession(peer.settings, next)) continue;
      peer.remove(next === undefined ? CEASE.peerDeconfigured : CEASE.otherConfigurationChange);
      peers.delete(address);
    }
    for (const [address, settings] of wanted) {
      const known = peers.get(address);
      if (known !== undefined) {
        known.configure(settings);
        continue;
      }
      const peer = createPeer(settings, host);
      peers.set(address, peer);
      peer.start();
    }
  }

  /** Keys belong to the sockets that listen, from which accepted ones inherit them. */
  function guardListeners(wanted: ReadonlyMap<string, PeerSettings>): void {
    const { sockets } = config;
    if (sockets === undefined) return;
    const now = new Map([...wanted.values()].map(({ address, config: peer }) => [address, peer]));
    const before = [...peers.values()].map(({ settings }) => settings);
    for (const { fd } of open) {
      try {
        for (const { address, config: peer } of before) {
          if (peer.password !== undefined) sockets.setPassword(fd, address, "");
        }
        for (const [address, { password, ttlSecurity }] of now) {
          if (password !== undefined) sockets.setPassword(fd, address, password);
          // Who wants to see a TTL of 255 wants it from the first answer on.
          if (ttlSecurity !== undefined) sockets.setTtl(fd, address.family, 255, 0);
        }
      } catch (thrown) {
        host.log("warn", `peers with a password or TTL security cannot connect to us: ${messageOf(thrown)}`, {});
      }
    }
  }

  let open = await listenAll(config, accept);
  if (restarting) {
    tables.defer();
    stopDeferral = clock.after(1000 * (config.restart?.deferralTime ?? DEFAULT_DEFERRAL), settle);
    watchRestart();
  }

  return {
    get port() {
      return open[0]?.port ?? 0;
    },
    get settled() {
      return settled;
    },
    setPeers(configs) {
      const wanted = new Map<string, PeerSettings>();
      for (const peer of configs) {
        const settings = settingsOf(peer, config);
        const address = formatAddress(settings.address);
        const other = wanted.get(address);
        if (other !== undefined) {
          const both = `${other.config.name} and ${peer.name}`;
          throw new Failure("bad-config", `BGP peers ${both} have the same address ${address}`);
        }
        wanted.set(address, settings);
      }
      setPeers(wanted);
      peersKnown = true;
      checkSettled();
    },
    async listenOn(port, addresses) {
      for (const listener of open) listener.close();
      open = [];
      const found = await listenAll({ port, ...(addresses !== undefined && { listenAddresses: addresses }) }, accept);
      if (over) return found.forEach((listener) => listener.close());
      open = found;
      guardListeners(new Map([...peers].map(([address, { settings }]) => [address, settings])));
    },
    setOrigination(routes) {
      tables.setOrigination(routes);
      routesKnown = true;
      schedule();
    },
    refresh(name) {
      for (const { settings, adjacency } of peers.values())
        if (settings.config.name === name) adjacency.requestRefresh();
    },
    recheckNextHops() {
      tables.recheckNextHops();
      schedule();
    },
    on(name, listener) {
      const set = listeners.get(name) ?? new Set();
      listeners.set(name, set);
      set.add(listener);
      return () => void set.delete(listener);
    },
    peers: () => [...peers.values()].map((peer) => peer.status()),
    routes(query) {
      const listening = [...peers.values()].map(({ settings, adjacency: { index, groups } }) => ({
        name: settings.config.name,
        index,
        groups,
      }));
      return routeViews(tables, listening, query);
    },
    learned: (): RouteChange[] => tables.learned(),
    *dump() {
      const seconds = Math.floor(clock.now() / 1000);
      const local = { address: parseAddress("0.0.0.0"), asn: config.asn, routerId };
      const known = [...peers.values()];
      const places = new Map([
        [LOCAL_PEER, 0],
        ...known.map(({ adjacency }, at) => [adjacency.index, at + 1] as const),
      ]);
      const entries = known.map(({ settings: { address, config: peer }, adjacency }) => ({
        address,
        asn: peer.asn,
        routerId: tables.peer(adjacency.index).routerId,
      }));
      yield mrtPeers(seconds, routerId, [local, ...entries]);
      let sequence = 0;
      for (const { prefix, paths } of tables.paths()) {
        const told = paths.flatMap(({ peer, pathId, received }) => {
          const place = places.get(peer);
          const told = peer === LOCAL_PEER ? 0 : pathId;
          return place === undefined ? [] : [{ peer: place, pathId: told, attributes: received.attributes }];
        });
        yield mrtRoute(seconds, sequence, prefix, told);
        sequence += 1;
      }
    },
    trace(name, write) {
      const stops = [...peers.values()].flatMap((peer) =>
        peer.settings.config.name === name ? [peer.trace(write)] : [],
      );
      return () => stops.forEach((stopTrace) => stopTrace());
    },
    async close(communication) {
      if (over) return;
      stop();
      for (const peer of peers.values()) peer.remove(CEASE.administrativeShutdown, communication);
      // The farewells leave as fast as the peers read; whoever does not read is not waited for.
      await new Promise((resolve) => setTimeout(resolve, FAREWELL));
      peers.clear();
    },
    async abandon() {
      if (over) return;
      stop();
      for (const peer of peers.values()) peer.abandon();
      peers.clear();
      await new Promise((resolve) => setImmediate(resolve));
    },
  };

  function stop(): void {
    over = true;
    stopDeferral?.();
    stopCheck?.();
    if (flushing !== undefined) clearImmediate(flushing);
    for (const listener of open) listener.close();
    host.bfd.close();
  }
}

async function listenAll(
  { port = BGP_PORT, listenAddresses }: Pick<SpeakerConfig, "port" | "listenAddresses">,
  accept: (socket: net.Socket) => void,
): Promise<Listener[]> {
  const open: Listener[] = [];
  for (const address of listenAddresses ?? [undefined]) {
    try {
      open.push(await listen(address, open[0]?.port ?? port, accept));
    } catch (thrown) {
      for (const listener of open) listener.close();
      const where = `${address ?? "any address"}, port ${port}`;
      const why = `${messageOf(thrown)} (${codeOf(thrown) ?? "unknown"})`;
      throw new Failure("listen-failed", `Cannot listen for BGP on ${where}: ${why}`, thrown);
    }
  }
  return open;
}
