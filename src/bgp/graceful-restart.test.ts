import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { Family } from "../ip/address.ts";
import { negotiated } from "./bgp.testing.ts";
import {
  hasToldAll,
  NOTHING_STALE,
  stepHelper,
  UNMARKED_WAIT,
  type HelperAction,
  type HelperEvent,
  type HelperState,
} from "./graceful-restart.ts";

const both: readonly Family[] = [4, 6];
const capable = (families: readonly Family[], forwardingPreserved = true, restarting = false) =>
  negotiated({
    families: both,
    gracefulRestart: {
      restarting,
      notification: false,
      restartTime: 120,
      families: families.map((family) => ({ family, forwardingPreserved })),
    },
  });
const lost = (session = capable(both), graceful = true, longest = Infinity, now = 1_000_000): HelperEvent => ({
  type: "lost",
  session,
  graceful,
  longest,
  now,
});
const stale = (...families: Family[]): HelperState => ({ stale: families, lostAt: 1_000_000 });

/** `markStale 4, timer 120`. */
function text(actions: readonly HelperAction[]): string {
  return actions
    .map((action) => {
      if (action.type === "startTimer") return `timer ${action.seconds}`;
      return action.type === "stopTimer" ? "no timer" : `${action.type} ${action.family}`;
    })
    .join(", ");
}

const cases: { name: string; state: HelperState; event: HelperEvent; after: Family[]; actions: string }[] = [
  {
    name: "a lost connection keeps what the peer keeps forwarding",
    state: NOTHING_STALE,
    event: lost(),
    after: [4, 6],
    actions: "markStale 4, markStale 6, timer 120",
  },
  {
    name: "a family without the capability goes",
    state: NOTHING_STALE,
    event: lost(capable([6])),
    after: [6],
    actions: "drop 4, markStale 6, timer 120",
  },
  {
    name: "anything but a lost connection drops all",
    state: NOTHING_STALE,
    event: lost(capable(both), false),
    after: [],
    actions: "drop 4, drop 6, no timer",
  },
  {
    name: "no capability, no restart",
    state: NOTHING_STALE,
    event: lost(negotiated({ families: [4] })),
    after: [],
    actions: "drop 4, no timer",
  },
  {
    name: "we set a limit to the peer's time",
    state: NOTHING_STALE,
    event: lost(capable([4]), true, 30),
    after: [4],
    actions: "markStale 4, drop 6, timer 30",
  },
  {
    name: "a limit of zero is none",
    state: NOTHING_STALE,
    event: lost(capable(both), true, 0),
    after: [],
    actions: "drop 4, drop 6, no timer",
  },
  {
    name: "a second restart, soon after the first, gets what is left of its time",
    state: stale(4),
    event: lost(capable(both), true, Infinity, 1_100_000),
    after: [4, 6],
    actions: "markStale 4, markStale 6, timer 20",
  },
  {
    name: "a second restart, late, sweeps what the first one left",
    state: stale(4),
    event: lost(capable(both), true, Infinity, 1_120_000),
    after: [4, 6],
    actions: "sweep 4, markStale 4, markStale 6, timer 120",
  },
  {
    name: "a second restart without a family that was kept",
    state: stale(4, 6),
    event: lost(capable([6])),
    after: [6],
    actions: "drop 4, markStale 6, timer 120",
  },
  {
    name: "back, with its forwarding kept",
    state: stale(4, 6),
    event: { type: "established", session: capable(both) },
    after: [4, 6],
    actions: "timer 360",
  },
  {
    name: "back, without",
    state: stale(4, 6),
    event: { type: "established", session: capable(both, false) },
    after: [],
    actions: "sweep 4, sweep 6, no timer",
  },
  {
    name: "back, for one family",
    state: stale(4, 6),
    event: { type: "established", session: capable([6]) },
    after: [6],
    actions: "sweep 4, timer 360",
  },
  {
    name: "up, with nothing kept",
    state: NOTHING_STALE,
    event: { type: "established", session: capable(both) },
    after: [],
    actions: "",
  },
  {
    name: "the end of one family",
    state: stale(4, 6),
    event: { type: "endOfRib", family: 4 },
    after: [6],
    actions: "sweep 4",
  },
  {
    name: "the end of the last",
    state: stale(6),
    event: { type: "endOfRib", family: 6 },
    after: [],
    actions: "sweep 6, no timer",
  },
  {
    name: "an end without a restart",
    state: NOTHING_STALE,
    event: { type: "endOfRib", family: 4 },
    after: [],
    actions: "",
  },
  { name: "not back in time", state: stale(4, 6), event: { type: "expired" }, after: [], actions: "sweep 4, sweep 6" },
];
describe("helping a peer to restart (RFC 4724 section 4.2)", () => {
  for (const { name, state, event, after, actions } of cases) {
    test(name, () => {
      const result = stepHelper(state, event);
      assert.deepEqual(result.state.stale, after);
      assert.equal(text(result.actions), actions);
    });
  }
});

test("a restart is over when peers have told all, or may never say so and had a moment", () => {
  const told = (endOfRib: Family[], establishedFor: number | undefined, session = capable(both)) =>
    hasToldAll({ establishedFor, session, endOfRib: new Set(endOfRib) });
  assert.equal(told([], undefined), false);
  assert.equal(told([4], 10), false);
  assert.equal(told([4, 6], 10), true);
  assert.equal(told([4], UNMARKED_WAIT), false, "it has the capability, so its marker will come");
  assert.equal(told([], UNMARKED_WAIT, negotiated()), true);
  assert.equal(told([], UNMARKED_WAIT - 1, negotiated()), false);
  assert.equal(told([], UNMARKED_WAIT, capable(both, true, true)), true, "two that restart do not wait for each other");
});
