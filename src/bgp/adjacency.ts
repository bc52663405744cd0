import { parseAddress, type Family } from "../ip/address.ts";
import { ByteWriter } from "../lib/bytes.ts";
import type { Clock } from "./clock.ts";
import type { FamilyCounts } from "./config.ts";
import { hasToldAll, NOTHING_STALE, stepHelper, type HelperEvent } from "./graceful-restart.ts";
import { AFI, SAFI_UNICAST } from "./constants.ts";
import { encodeRouteRefresh, REFRESH, type RouteRefresh } from "./message.ts";
import type { Negotiated } from "./negotiation.ts";
import { CEASE, notification, ProtocolError } from "./notification.ts";
import { exportPolicy, importPolicy, sameImport, type FilterCache, type PeerSettings } from "./peer-settings.ts";
import { readingOf, type Reading, type Received, type Group, type TablePeer, type Tables } from "./tables.ts";
import type { Member } from "./update-batch.ts";
import { encodeEndOfRib } from "./update.ts";

export interface AdjacencyHost {
  readonly tables: Tables;
  readonly clock: Clock;
  readonly filters: FilterCache;
  readonly routerId: number;
  /** There are changes to decide and tell. */
  schedule(): void;
}

/** The way to the peer while its session is up. */
export interface Link {
  readonly localAddress: string;
  ready(): boolean;
  write(bytes: Uint8Array): void;
}

/** A peer's place in the tables: what it told us, what it is told, what of it is kept while it restarts. */
export interface Adjacency {
  readonly index: number;
  readonly groups: { readonly [F in Family]?: Group };
  /** Milliseconds since 1970 when stale routes are given up; undefined while there are none. */
  readonly staleUntil: number | undefined;
  /** Whether the peer has told all it knows since its session came up. */
  readonly hasToldAll: boolean;
  up(session: Negotiated, link: Link): void;
  down(session: Negotiated, graceful: boolean): void;
  /** The body of an UPDATE. Throws `ProtocolError`. */
  update(bytes: Uint8Array, start: number, end: number): Received;
  /** The peer asks to be told all of a family again (RFC 2918), or marks what answers our asking (RFC 7313). */
  refresh(message: RouteRefresh): void;
  /** Asks the peer to tell all again, where it can. */
  requestRefresh(): void;
  configure(settings: PeerSettings): void;
  /** Whether it has been told whole what it does not know yet to be whole: `endRibs` has something to send. */
  readonly owesEndOfRib: boolean;
  /** Sends the End-of-RIB markers that are due. */
  endRibs(): void;
  counts(family: Family): FamilyCounts;
  /** Leaves the tables for good. */
  remove(): void;
  /** Lets go of the timer. */
  abandon(): void;
}

export function createAdjacency(initial: PeerSettings, host: AdjacencyHost): Adjacency {
  const { tables, clock } = host;
  let settings = initial;
  let current: { session: Negotiated; link: Link; reading: Reading; since: number } | undefined;
  let helper = NOTHING_STALE;
  let stopTimer: (() => void) | undefined;
  let staleUntil: number | undefined;
  const groups: { [F in Family]?: Group } = {};
  const members: { [F in Family]?: Member } = {};
  /** Families that were told whole, but not yet that they were. */
  const dueEndOfRib = new Set<Family>();
  const sentEndOfRib = new Set<Family>();
  const heardEndOfRib = new Set<Family>();
  /** Families that the peer asked for again, and that it is to be told the end of. */
  const refreshing = new Set<Family>();
  const dueEndOfRefresh = new Set<Family>();
  const entry: TablePeer = tables.addPeer({
    name: initial.config.name,
    address: initial.address,
    internal: initial.internal,
    client: initial.client,
    routerId: 0,
    imports: {},
  });

  function applyImports(): void {
    const own = current === undefined ? undefined : parseAddress(current.link.localAddress);
    for (const family of settings.families) {
      const policy = importPolicy(settings, family, host.routerId, own, host.filters);
      entry.imports = { ...entry.imports, [family]: policy };
    }
  }

  /** Joins, or moves between, the groups that the settings ask for. */
  function applyExports(): void {
    if (current === undefined) return;
    const { session, link } = current;
    for (const family of session.families) {
      const policy = exportPolicy(settings, family, session, parseAddress(link.localAddress), host.filters);
      const member = (members[family] ??= {
        peer: entry.index,
        ready: () => link.ready(),
        write: (bytes) => link.write(bytes),
        synced() {
          if (!sentEndOfRib.has(family)) dueEndOfRib.add(family);
          if (refreshing.delete(family)) dueEndOfRefresh.add(family);
        },
      });
      groups[family] = tables.join(policy, member, groups[family]);
    }
  }

  function leave(family: Family): void {
    const group = groups[family];
    const member = members[family];
    if (group !== undefined && member !== undefined) tables.leave(group, member);
    delete groups[family];
    delete members[family];
  }

  function dropAll(): void {
    for (const family of settings.families) tables.ribs[family].drop(entry.index, "all");
  }

  /** RFC 4486 section 4, with which family and how many. */
  function checkMaximum(families: readonly Family[]): void {
    const { maximumPrefixes } = settings.config;
    if (maximumPrefixes === undefined) return;
    for (const family of families) {
      const { received } = tables.ribs[family].counts(entry.index);
      if (received <= maximumPrefixes) continue;
      const data = new ByteWriter(7);
      data.u16(AFI[family]);
      data.u8(SAFI_UNICAST);
      data.u32(maximumPrefixes);
      const reason = `the peer announced ${received} IPv${family} routes, and may announce ${maximumPrefixes}`;
      throw new ProtocolError(notification(CEASE.code, CEASE.maximumPrefixes, data.finish()), reason);
    }
  }

  function help(event: HelperEvent): void {
    const { state, actions } = stepHelper(helper, event);
    helper = state;
    for (const action of actions) {
      switch (action.type) {
        case "markStale":
          tables.ribs[action.family].markStale(entry.index);
          break;
        case "sweep":
          tables.ribs[action.family].drop(entry.index, "stale");
          break;
        case "drop":
          tables.ribs[action.family].drop(entry.index, "all");
          break;
        case "startTimer":
          stopTimer?.();
          staleUntil = clock.now() + action.seconds * 1000;
          stopTimer = clock.after(action.seconds * 1000, () => help({ type: "expired" }));
          break;
        case "stopTimer":
          stopTimer?.();
          break;
      }
    }
    if (helper.stale.length === 0) staleUntil = undefined;
    host.schedule();
  }

  return {
    index: entry.index,
    groups,
    get staleUntil() {
      return staleUntil;
    },
    get hasToldAll() {
      const establishedFor = current === undefined ? undefined : clock.elapsed() - current.since;
      return hasToldAll({ establishedFor, session: current?.session, endOfRib: heardEndOfRib });
    },
    up(session, link) {
      current = { session, link, reading: readingOf(session), since: clock.elapsed() };
      // Another router than before: what that one said is nothing that this one could confirm.
      if (entry.routerId !== 0 && entry.routerId !== session.remoteRouterId) dropAll();
      entry.routerId = session.remoteRouterId;
      refreshing.clear();
      dueEndOfRefresh.clear();
      heardEndOfRib.clear();
      dueEndOfRib.clear();
      sentEndOfRib.clear();
      applyImports();
      help({ type: "established", session });
      applyExports();
    },
    down(session, graceful) {
      current = undefined;
      for (const family of session.families) leave(family);
      const longest = settings.config.maxRestartTime ?? Infinity;
      help({ type: "lost", session, graceful, longest, now: clock.elapsed() });
    },
    update(bytes, start, end) {
      if (current === undefined) return { problems: [] };
      const received = tables.receive(entry.index, current.reading, bytes, start, end);
      const { endOfRib } = received;
      checkMaximum(current.reading.families);
      if (endOfRib !== undefined && current.reading.families.includes(endOfRib)) {
        heardEndOfRib.add(endOfRib);
        help({ type: "endOfRib", family: endOfRib });
      }
      host.schedule();
      return received;
    },
    refresh({ family, subtype }) {
      if (current === undefined || family === undefined || !current.session.families.includes(family)) return;
      const { session, link } = current;
      const member = members[family];
      if (subtype === REFRESH.request && member !== undefined) {
        if (session.enhancedRouteRefresh) {
          link.write(encodeRouteRefresh(family, REFRESH.begin));
          refreshing.add(family);
        }
        groups[family]?.join(member);
      }
      if (!session.enhancedRouteRefresh) return;
      // RFC 7313 section 4: what is not told again between the two is gone.
      if (subtype === REFRESH.begin) tables.ribs[family].markStale(entry.index);
      if (subtype === REFRESH.end) tables.ribs[family].drop(entry.index, "stale");
      host.schedule();
    },
    requestRefresh() {
      if (current === undefined || !current.session.routeRefresh) return;
      for (const family of current.session.families) current.link.write(encodeRouteRefresh(family));
    },
    configure(next) {
      const before = settings;
      settings = next;
      if (!sameImport(before, next)) {
        applyImports();
        for (const family of next.families) tables.reimport(entry, family);
      }
      applyExports();
      host.schedule();
    },
    get owesEndOfRib() {
      return dueEndOfRib.size > 0 || dueEndOfRefresh.size > 0;
    },
    endRibs() {
      if (current === undefined || !current.link.ready()) return;
      for (const family of dueEndOfRib) {
        current.link.write(encodeEndOfRib(family));
        sentEndOfRib.add(family);
      }
      dueEndOfRib.clear();
      for (const family of dueEndOfRefresh) current.link.write(encodeRouteRefresh(family, REFRESH.end));
      dueEndOfRefresh.clear();
    },
    counts(family) {
      const counts = tables.ribs[family].counts(entry.index);
      return { ...counts, advertised: groups[family]?.advertised(entry.index) ?? 0 };
    },
    remove() {
      stopTimer?.();
      tables.removePeer(entry.index);
      host.schedule();
    },
    abandon() {
      stopTimer?.();
    },
  };
}
