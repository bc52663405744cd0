import type { Family } from "../ip/address.ts";
import type { Negotiated } from "./negotiation.ts";

/** The helping side of RFC 4724 section 4.2: which families' routes are kept from before the peer went away. */
export interface HelperState {
  readonly stale: readonly Family[];
  /** When the session was lost for the first time since all was well, in milliseconds; only with stale routes. */
  readonly lostAt: number;
}

export type HelperEvent =
  /** `longest` is our own limit on how long to keep routes, in seconds; `now` in milliseconds, as the clock has `elapsed`. */
  | {
      readonly type: "lost";
      readonly session: Negotiated;
      readonly graceful: boolean;
      readonly longest: number;
      readonly now: number;
    }
  | { readonly type: "established"; readonly session: Negotiated }
  | { readonly type: "endOfRib"; readonly family: Family }
  /** The time for coming back, or for telling all again, is over. */
  | { readonly type: "expired" };

export type HelperAction =
  /** Keep the family's routes, remembering that they may be out of date. */
  | { readonly type: "markStale"; readonly family: Family }
  /** Withdraw those that were not announced again since. */
  | { readonly type: "sweep"; readonly family: Family }
  /** Withdraw all. */
  | { readonly type: "drop"; readonly family: Family }
  | { readonly type: "startTimer"; readonly seconds: number }
  | { readonly type: "stopTimer" };

export const NOTHING_STALE: HelperState = { stale: [], lostAt: 0 };

/** How long a peer that came back may take to tell all it knows; FRR's default. */
const STALE_PATH_TIME = 360;

export function stepHelper(
  state: HelperState,
  event: HelperEvent,
): { state: HelperState; actions: readonly HelperAction[] } {
  switch (event.type) {
    case "lost":
      return lose(state, event);
    case "established": {
      if (state.stale.length === 0) return { state, actions: [] };
      const { gracefulRestart, families } = event.session;
      const kept = state.stale.filter(
        (family) =>
          families.includes(family) &&
          gracefulRestart?.families.some((entry) => entry.family === family && entry.forwardingPreserved) === true,
      );
      const actions: HelperAction[] = state.stale
        .filter((family) => !kept.includes(family))
        .map((family) => ({ type: "sweep", family }));
      actions.push(kept.length > 0 ? { type: "startTimer", seconds: STALE_PATH_TIME } : { type: "stopTimer" });
      return { state: { ...state, stale: kept }, actions };
    }
    case "endOfRib": {
      if (!state.stale.includes(event.family)) return { state, actions: [] };
      const stale = state.stale.filter((family) => family !== event.family);
      const actions: HelperAction[] = [{ type: "sweep", family: event.family }];
      if (stale.length === 0) actions.push({ type: "stopTimer" });
      return { state: { ...state, stale }, actions };
    }
    case "expired":
      return { state: NOTHING_STALE, actions: state.stale.map((family) => ({ type: "sweep", family })) };
  }
}

/**
 * The RFC has routes deleted that are still stale from an earlier restart, lest they be kept for ever. A peer that crashes
 * again before it has told all would so lose routes that it still forwards: here they live on, but no longer than the
 * first restart allowed.
 */
function lose(
  before: HelperState,
  { session, graceful, longest, now }: Extract<HelperEvent, { type: "lost" }>,
): { state: HelperState; actions: readonly HelperAction[] } {
  const restart = session.gracefulRestart;
  const allowed = Math.min(restart?.restartTime ?? 0, longest);
  const left = before.stale.length === 0 ? allowed : allowed - Math.max(0, now - before.lostAt) / 1000;
  const fresh = left <= 0;
  const seconds = fresh ? allowed : left;
  const keeps = (family: Family): boolean => restart?.families.some((entry) => entry.family === family) === true;
  const stale = graceful && allowed > 0 ? session.families.filter(keeps) : [];
  const actions: HelperAction[] = [];
  for (const family of new Set([...session.families, ...before.stale])) {
    if (!stale.includes(family)) {
      actions.push({ type: "drop", family });
      continue;
    }
    if (fresh && before.stale.includes(family)) actions.push({ type: "sweep", family });
    actions.push({ type: "markStale", family });
  }
  actions.push(stale.length > 0 ? { type: "startTimer", seconds } : { type: "stopTimer" });
  const lostAt = before.stale.length === 0 || fresh ? now : before.lostAt;
  return { state: stale.length > 0 ? { stale, lostAt } : NOTHING_STALE, actions };
}

/** One peer, as the restarting side sees it (RFC 4724 section 4.1). */
export interface RestartPeer {
  /** How long the session has been up, in milliseconds; undefined while it is not. */
  readonly establishedFor: number | undefined;
  readonly session: Negotiated | undefined;
  /** Families whose End-of-RIB has arrived. */
  readonly endOfRib: ReadonlySet<Family>;
}

/** How long to wait, in milliseconds, for a peer that may never send the marker. */
export const UNMARKED_WAIT = 5000;

/**
 * Whether the peer has told all it knows. The RFC does not wait for peers without the capability, nor for those that
 * restart as well, lest two wait for each other; here they get a moment, as pruning too early would lose packets when a
 * whole cluster's agents restart at once.
 */
export function hasToldAll({ establishedFor, session, endOfRib }: RestartPeer): boolean {
  if (establishedFor === undefined || session === undefined) return false;
  if (session.families.every((family) => endOfRib.has(family))) return true;
  const mayStaySilent = session.gracefulRestart === undefined || session.gracefulRestart.restarting;
  return mayStaySilent && establishedFor >= UNMARKED_WAIT;
}
