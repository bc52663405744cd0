import { parseAddress, type Family } from "../ip/address.ts";
import type { Clock } from "./clock.ts";
import type { FamilyCounts } from "./config.ts";
import { hasToldAll, NOTHING_STALE, stepHelper, type HelperEvent } from "./graceful-restart.ts";
import type { Negotiated } from "./negotiation.ts";
import { exportPolicy, importPolicy, sameImport, type FilterCache, type PeerSettings } from "./peer-settings.ts";
import { readingOf, type Reading, type TablePeer, type Tables } from "./tables.ts";
import type { Member } from "./update-batch.ts";
import type { UpdateGroup } from "./update-group.ts";
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
  readonly groups: { readonly [F in Family]?: UpdateGroup };
  /** Milliseconds since 1970 when stale routes are given up; undefined while there are none. */
  readonly staleUntil: number | undefined;
  /** Whether the peer has told all it knows since its session came up. */
  readonly hasToldAll: boolean;
  up(session: Negotiated, link: Link): void;
  down(session: Negotiated, graceful: boolean): void;
  /** The body of an UPDATE; returns what was wrong with it and forgiven. Throws `ProtocolError`. */
  update(bytes: Uint8Array, start: number, end: number): readonly string[];
  /** The peer asks to be told all of a family again (RFC 2918). */
  refresh(family: Family | undefined): void;
  configure(settings: PeerSettings): void;
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
  const groups: { [F in Family]?: UpdateGroup } = {};
  const members: { [F in Family]?: Member } = {};
  /** Families that were told whole, but not yet that they were. */
  const dueEndOfRib = new Set<Family>();
  const sentEndOfRib = new Set<Family>();
  const heardEndOfRib = new Set<Family>();
  const entry: TablePeer = tables.addPeer({
    name: initial.config.name,
    address: initial.address,
    internal: initial.internal,
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
      const establishedFor = current === undefined ? undefined : clock.now() - current.since;
      return hasToldAll({ establishedFor, session: current?.session, endOfRib: heardEndOfRib });
    },
    up(session, link) {
      current = { session, link, reading: readingOf(session), since: clock.now() };
      entry.routerId = session.remoteRouterId;
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
      help({ type: "lost", session, graceful, longest, now: clock.now() });
    },
    update(bytes, start, end) {
      if (current === undefined) return [];
      const { endOfRib, problems } = tables.receive(entry.index, current.reading, bytes, start, end);
      if (endOfRib !== undefined && current.reading.families.includes(endOfRib)) {
        heardEndOfRib.add(endOfRib);
        help({ type: "endOfRib", family: endOfRib });
      }
      host.schedule();
      return problems;
    },
    refresh(family) {
      const member = family === undefined ? undefined : members[family];
      if (family === undefined || member === undefined) return;
      groups[family]?.join(member);
      host.schedule();
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
    endRibs() {
      if (current === undefined || !current.link.ready()) return;
      for (const family of dueEndOfRib) {
        current.link.write(encodeEndOfRib(family));
        sentEndOfRib.add(family);
      }
      dueEndOfRib.clear();
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
