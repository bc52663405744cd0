import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { negotiated } from "./bgp.testing.ts";
import { resolveCollision, type Contender } from "./collision.ts";
import type { OpenMessage } from "./message.ts";
import { agreedOn, negotiate } from "./negotiation.ts";
import { CEASE, describeNotification, hardReset, notification, shutdown } from "./notification.ts";
import {
  administrativeStop,
  IDLE,
  step,
  type Action,
  type Event,
  type SessionConfig,
  type State,
  type Timer,
} from "./session.ts";

const CONFIG: SessionConfig = {
  localAsn: 64512,
  remoteAsn: 64512,
  routerId: 0x0a000001,
  holdTime: 90,
  passive: false,
  connectTimeout: 2000,
  connectRetry: 5000,
  sendHoldTime: 480_000,
  signed: false,
  families: [4],
  capabilities: {
    families: [4],
    asn: 64512,
    gracefulRestart: { restarting: false, notification: false, restartTime: 120, families: [] },
  },
};
const OPEN: OpenMessage = {
  asn: 64512,
  holdTime: 30,
  routerId: 0x0a000002,
  capabilities: { families: [4], asn: 64512 },
};
const SESSION = negotiated({
  gracefulRestart: { restarting: false, notification: false, restartTime: 120, families: [] },
});

const STATES = {
  idle: IDLE,
  held: { name: "idle", held: true, failures: 1 },
  connect: { name: "connect", failures: 0 },
  active: { name: "active", failures: 0 },
  openSent: { name: "openSent", failures: 0 },
  openConfirm: { name: "openConfirm", failures: 0, session: SESSION },
  established: { name: "established", session: SESSION },
} satisfies Record<string, State>;

const EVENTS = {
  start: { type: "start" },
  stop: administrativeStop(CEASE.administrativeShutdown, "bye"),
  connectRetry: { type: "connectRetryExpired" },
  hold: { type: "holdExpired" },
  bfdDown: { type: "bfdDown", reason: "nothing heard" },
  sendHold: { type: "sendHoldExpired" },
  keepaliveTimer: { type: "keepaliveExpired" },
  idleHold: { type: "idleHoldExpired" },
  connected: { type: "connected" },
  connectFailed: { type: "connectFailed", reason: "refused", refused: true },
  closed: { type: "closed", reason: "by the peer" },
  open: { type: "open", open: OPEN },
  malformed: { type: "malformed", notification: notification(1, 1), reason: "the marker is not all ones" },
  collision: { type: "collision" },
  cease: { type: "notification", notification: shutdown(2) },
  error: { type: "notification", notification: notification(2, 2) },
  keepalive: { type: "keepalive" },
  update: { type: "update" },
  routeRefresh: { type: "routeRefresh" },
  peerRestarted: { type: "peerRestarted" },
} satisfies Record<string, Event>;

/** RFC 4271 section 8.2.2, every event in every state; `held` is Idle with its timer running. */
const TRANSITIONS = `
              idle    held    connect  active   openSent    openConfirm established
start         connect connect connect  active   openSent    openConfirm established
stop          idle    idle    idle     idle     idle        idle        idle
connectRetry  idle    held    connect  connect  openSent    openConfirm established
hold          idle    held    connect  active   active      active      active
bfdDown       idle    held    connect  active   openSent    openConfirm active
sendHold      idle    held    connect  active   openSent    openConfirm active
keepaliveTimer idle   held    connect  active   openSent    openConfirm established
idleHold      idle    connect connect  active   openSent    openConfirm established
connected     idle    held    openSent openSent openSent    openConfirm established
connectFailed idle    held    active   active   openSent    openConfirm established
closed        idle    held    connect  active   active      active      active
open          idle    held    connect  active   openConfirm held        held
malformed     idle    held    connect  active   held        held        held
collision     idle    held    idle     idle     idle        idle        idle
cease         idle    held    connect  active   active      active      active
error         idle    held    connect  active   held        held        held
keepalive     idle    held    connect  active   held        established established
update        idle    held    connect  active   held        held        established
routeRefresh  idle    held    connect  active   held        held        established
peerRestarted idle    held    connect  active   openSent    openConfirm idle
`;

function nameOf(state: State): string {
  return state.name === "idle" && state.held ? "held" : state.name;
}

function has(actions: readonly Action[], wanted: string): boolean {
  return actions.some((action) =>
    action.type === "startTimer" || action.type === "stopTimer"
      ? `${action.type} ${action.timer}` === wanted
      : action.type === wanted,
  );
}

const [columns = [], ...rows] = TRANSITIONS.trim()
  .split("\n")
  .map((line) => line.trim().split(/\s+/));
const speaks = (name: string): boolean => ["openSent", "openConfirm", "established"].includes(name);

describe("every event in every state", () => {
  assert.deepEqual(columns, Object.keys(STATES));
  assert.deepEqual(
    rows.map(([name]) => name),
    Object.keys(EVENTS),
  );
  for (const [eventName = "", ...expected] of rows) {
    for (const [index, from] of columns.entries()) {
      const before = STATES[from as keyof typeof STATES];
      const event = EVENTS[eventName as keyof typeof EVENTS];
      test(`${eventName} in ${from} leads to ${expected[index]}`, () => {
        const { state, actions } = step(before, event, CONFIG);
        assert.equal(nameOf(state), expected[index]);
        assert.equal(has(actions, "up"), from !== "established" && state.name === "established");
        assert.equal(has(actions, "down"), from === "established" && state.name !== "established");
        if (speaks(from) && !speaks(nameOf(state))) {
          for (const action of ["close", "stopTimer hold", "stopTimer keepalive"])
            assert.ok(has(actions, action), action);
        }
        const farewell = actions.findIndex(({ type }) => type === "sendNotification");
        assert.ok(
          farewell < 0 || farewell < actions.findIndex(({ type }) => type === "close"),
          "closed before the farewell",
        );
        if (state.name === "connect" && from !== "connect") assert.ok(has(actions, "dial"));
        if (nameOf(state) === "held" && from !== "held") assert.ok(has(actions, "startTimer idleHold"));
      });
    }
  }
});

describe("the session machine", () => {
  const farewellOf = (from: State, event: Event): string => {
    const notice = step(from, event, CONFIG).actions.find((action) => action.type === "sendNotification");
    return notice === undefined ? "" : describeNotification(notice.notification);
  };
  test("says goodbye with the code that the RFC asks for", () => {
    assert.equal(farewellOf(STATES.established, EVENTS.hold), "Hold Timer Expired");
    assert.equal(farewellOf(STATES.established, EVENTS.sendHold), "Send Hold Timer Expired");
    assert.equal(farewellOf(STATES.established, EVENTS.stop), 'Cease: Administrative Shutdown "bye"');
    assert.equal(farewellOf(STATES.established, EVENTS.bfdDown), "Cease: BFD Down");
    assert.match(farewellOf(STATES.openSent, EVENTS.update), /Unexpected Message in OpenSent/);
    assert.match(farewellOf(STATES.openConfirm, EVENTS.update), /Unexpected Message in OpenConfirm/);
    assert.match(farewellOf(STATES.established, EVENTS.open), /Unexpected Message in Established/);
    assert.match(farewellOf(STATES.openConfirm, EVENTS.collision), /Connection Collision/);
    assert.equal(farewellOf(STATES.established, EVENTS.cease), "");
    assert.equal(farewellOf(STATES.established, EVENTS.peerRestarted), "");
  });

  test("what is heard in an established session puts off its hold timer, and that is all", () => {
    // machine.io.ts takes a shorter way to the same.
    for (const event of [EVENTS.update, EVENTS.keepalive, EVENTS.routeRefresh]) {
      const milliseconds = SESSION.holdTime * 1000;
      assert.deepEqual(step(STATES.established, event, CONFIG), {
        state: STATES.established,
        actions: [{ type: "startTimer", timer: "hold", milliseconds }],
      });
    }
  });

  test("a lost connection leaves room for a restart, anything said does not", () => {
    const graceful = (event: Event): boolean | undefined => {
      const down = step(STATES.established, event, CONFIG).actions.find(({ type }) => type === "down");
      return down?.type === "down" ? down.graceful : undefined;
    };
    assert.equal(graceful(EVENTS.closed), true);
    assert.equal(graceful(EVENTS.peerRestarted), true);
    for (const event of [EVENTS.cease, EVENTS.hold, EVENTS.malformed, EVENTS.stop])
      assert.equal(graceful(event), false);
    const incapable: State = { name: "established", session: negotiated() };
    const { actions } = step(incapable, EVENTS.closed, CONFIG);
    assert.ok(actions.some((action) => action.type === "down" && !action.graceful));
  });

  test("with RFC 8538 so does a notification, but for a hard reset, which is how we stop for good", () => {
    const state: State = { name: "established", session: { ...SESSION, notificationRestart: true } };
    const graceful = (event: Event): boolean => {
      const down = step(state, event, CONFIG).actions.find(({ type }) => type === "down");
      return down?.type === "down" && down.graceful;
    };
    const hard: Event = { type: "notification", notification: hardReset(shutdown(2, "bye")) };
    const flood: Event = { type: "malformed", notification: notification(CEASE.code, 1), reason: "too many" };
    for (const event of [EVENTS.closed, EVENTS.cease, EVENTS.error, EVENTS.hold, EVENTS.sendHold, EVENTS.malformed]) {
      assert.ok(graceful(event), event.type);
    }
    for (const event of [hard, flood, EVENTS.stop, EVENTS.collision, EVENTS.bfdDown])
      assert.ok(!graceful(event), event.type);
    assert.equal(farewellOf(state, EVENTS.stop), 'Cease: Administrative Shutdown "bye" (hard reset)');
    assert.equal(farewellOf(state, flood), "Cease: Maximum Number of Prefixes Reached (hard reset)");
    assert.match(farewellOf(state, EVENTS.malformed), /^Message Header Error: /);
    const again = hardReset(hardReset(notification(4)));
    assert.equal(describeNotification(again), "Cease: Hard Reset", "what is nested is not unfolded for ever");
  });

  test("a peer that floods us is left alone for five minutes", () => {
    const flood: Event = { type: "malformed", notification: notification(CEASE.code, 1), reason: "too many" };
    const { state, actions } = step(STATES.established, flood, CONFIG);
    assert.equal(nameOf(state), "held");
    assert.ok(actions.some((action) => action.type === "startTimer" && action.milliseconds === 300_000));
  });

  test("who does not answer may have another password", () => {
    const reasons = [true, false].map((signed) => {
      const { actions } = step(STATES.connect, EVENTS.connectRetry, { ...CONFIG, signed });
      return actions.flatMap((action) => (action.type === "explain" ? action.reason : []));
    });
    assert.deepEqual(reasons, [
      ["timed out: no answer in 2 s; is the password the same on both sides?"],
      ["timed out: no answer in 2 s"],
    ]);
  });

  const waits = (event: Event, config = CONFIG): number[] => {
    let state: State = STATES.connect;
    return Array.from({ length: 7 }, () => {
      const failed = step(state, event, config);
      state = step(failed.state, EVENTS.connectRetry, config).state;
      const timer = failed.actions.find((action) => action.type === "startTimer");
      return timer?.type === "startTimer" ? timer.milliseconds : 0;
    });
  };
  test("asks a host that refuses again soon, then every second; one that does not answer as configured", () => {
    assert.deepEqual(waits(EVENTS.connectFailed), [100, 200, 400, 800, 1000, 1000, 1000]);
    assert.deepEqual(waits({ type: "connectFailed", reason: "no route to host", refused: false }), Array(7).fill(5000));
    assert.deepEqual(
      waits(EVENTS.connectFailed, { ...CONFIG, connectRetry: 300 }),
      [100, 200, 300, 300, 300, 300, 300],
    );
  });

  test("a hold time of zero means no keepalives", () => {
    const { state, actions } = step(STATES.openSent, { type: "open", open: { ...OPEN, holdTime: 0 } }, CONFIG);
    assert.equal(state.name, "openConfirm");
    assert.ok(has(actions, "stopTimer hold") && has(actions, "stopTimer keepalive"));
    const up = step(state, EVENTS.keepalive, CONFIG);
    assert.ok(!has(up.actions, "startTimer hold"));
  });

  test("a passive side never dials", () => {
    const config = { ...CONFIG, passive: true };
    for (const state of Object.values(STATES)) {
      for (const event of Object.values(EVENTS))
        assert.ok(!has(step(state, event, config).actions, "dial") || state.name === "connect");
    }
  });

  test("is never stuck: wherever events lead, a timer or a connection will go on", () => {
    const events = fc.array(
      fc.constantFrom(...Object.values(EVENTS).filter((event) => event.type !== "stop" && event.type !== "collision")),
    );
    fc.assert(
      fc.property(events, (list) => {
        let { state, actions } = step(IDLE, EVENTS.start, CONFIG);
        const timers = new Set<Timer>();
        const keep = (done: readonly Action[]): void => {
          for (const action of done) {
            if (action.type === "startTimer") timers.add(action.timer);
            if (action.type === "stopTimer") timers.delete(action.timer);
          }
        };
        keep(actions);
        for (const event of list) {
          // Timers that do not run do not expire, and nothing is heard where nothing is connected.
          if (event.type.endsWith("Expired") && !timers.delete(event.type.replace("Expired", "") as Timer)) continue;
          if (event.type === "start" && nameOf(state) === "held") continue;
          ({ state, actions } = step(state, event, CONFIG));
          keep(actions);
          if (state.name === "idle" && !state.held) return; // only as the peer restarted: a new connection is there
          const needed: Record<string, Timer[]> = {
            idle: ["idleHold"],
            connect: ["connectRetry"],
            active: ["connectRetry"],
            openSent: ["hold"],
            openConfirm: ["hold", "keepalive"],
            established: ["hold", "keepalive", "sendHold"],
          };
          const held = "session" in state && state.session.holdTime === 0 ? [] : (needed[state.name] ?? []);
          for (const timer of held) assert.ok(timers.has(timer), `${state.name} without ${timer} after ${event.type}`);
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("negotiation", () => {
  const result = (open: Partial<OpenMessage>, config: Partial<SessionConfig> = {}) =>
    negotiate({ ...OPEN, ...open }, { ...CONFIG, ...config });
  const refused: {
    name: string;
    open: Partial<OpenMessage>;
    config?: Partial<SessionConfig>;
    reason: RegExp;
    code: string;
  }[] = [
    { name: "another AS", open: { asn: 64513 }, reason: /wrong AS: expected 64512, got 64513/, code: "2/2" },
    { name: "router ID zero", open: { routerId: 0 }, reason: /0\.0\.0\.0/, code: "2/3" },
    {
      name: "our own router ID, in our AS",
      open: { routerId: CONFIG.routerId },
      reason: /our own router ID/,
      code: "2/3",
    },
    { name: "hold time of two seconds", open: { holdTime: 2 }, reason: /hold time of 2 s/, code: "2/6" },
    {
      name: "no family in common",
      open: { capabilities: { families: [6] } },
      reason: /we have IPv4, the peer IPv6/,
      code: "2/7",
    },
    {
      name: "no family named means IPv4",
      open: { capabilities: {} },
      config: { families: [6] },
      reason: /we have IPv6, the peer IPv4/,
      code: "2/7",
    },
  ];
  for (const { name, open, config, reason, code } of refused) {
    test(`refuses ${name}`, () => {
      const outcome = result(open, config);
      assert.ok("refusal" in outcome);
      assert.match(outcome.reason, reason);
      assert.equal(`${outcome.refusal.code}/${outcome.refusal.subcode}`, code);
    });
  }

  test("takes the smaller hold time, and a third of it between keepalives unless told", () => {
    const agreed = (open: Partial<OpenMessage>, config: Partial<SessionConfig>) => {
      const outcome = result(open, config);
      assert.ok("session" in outcome);
      return [outcome.session.holdTime, outcome.session.keepaliveTime];
    };
    assert.deepEqual(agreed({ holdTime: 30 }, {}), [30, 10]);
    assert.deepEqual(agreed({ holdTime: 240 }, {}), [90, 30]);
    assert.deepEqual(agreed({ holdTime: 240 }, { keepaliveTime: 5 }), [90, 5]);
    assert.deepEqual(agreed({ holdTime: 9 }, { keepaliveTime: 60 }), [9, 3]);
  });

  test("uses only what both have", () => {
    const capabilities = {
      families: [4, 6],
      asn: 64512,
      routeRefresh: true,
      extendedMessage: true,
      enhancedRouteRefresh: true,
      extendedNextHop: true,
      gracefulRestart: { restarting: false, notification: true, restartTime: 60, families: [] },
      addPath: [{ family: 4, send: true, receive: true }],
    } as const;
    const both = result({ capabilities }, { families: [4, 6], capabilities });
    assert.ok("session" in both);
    const {
      remoteRouterId: _id,
      internal: _internal,
      holdTime: _hold,
      keepaliveTime: _keepalive,
      ...agreed
    } = both.session;
    assert.deepEqual(agreed, {
      families: [4, 6],
      asOctets: 4,
      longestMessage: 65535,
      routeRefresh: true,
      enhancedRouteRefresh: true,
      extendedNextHop: true,
      gracefulRestart: capabilities.gracefulRestart,
      notificationRestart: true,
      addPathReceive: [4],
      addPathSend: [4],
    });
    assert.deepEqual(agreedOn(both.session), [
      "four-octet AS",
      "enhanced route refresh",
      "extended messages",
      "IPv6 next hops for IPv4",
      "graceful restart",
      "graceful restart after notifications",
      "add-path (receive IPv4, send IPv4)",
    ]);
    const old = result({ capabilities: {} });
    assert.ok("session" in old);
    assert.deepEqual([old.session.asOctets, old.session.longestMessage, old.session.routeRefresh], [2, 4096, false]);
    assert.deepEqual(agreedOn(old.session), []);
  });

  test("one router ID in two ASes is fine (RFC 6286)", () => {
    assert.ok("session" in result({ asn: 64513, routerId: CONFIG.routerId }, { remoteAsn: 64513 }));
  });
});

describe("collision", () => {
  const high = { localRouterId: 2, remoteRouterId: 1, localAsn: 1, remoteAsn: 1 };
  const low = { localRouterId: 1, remoteRouterId: 2, localAsn: 1, remoteAsn: 1 };
  const ours = (state: Contender["state"]): Contender => ({ dialledBy: "us", state });
  const theirs = (state: Contender["state"]): Contender => ({ dialledBy: "them", state });
  const cases: { name: string; arriving: Contender; other: Contender; sides: typeof high; keep: string }[] = [
    {
      name: "dominant, on theirs, ours is open",
      arriving: theirs("openSent"),
      other: ours("openConfirm"),
      sides: high,
      keep: "other",
    },
    {
      name: "dominant, on ours, theirs is open",
      arriving: ours("openSent"),
      other: theirs("openConfirm"),
      sides: high,
      keep: "arriving",
    },
    {
      name: "dominant, on theirs, ours is still dialling",
      arriving: theirs("openSent"),
      other: ours("connect"),
      sides: high,
      keep: "arriving",
    },
    {
      name: "dominant, their second",
      arriving: theirs("openSent"),
      other: theirs("openSent"),
      sides: high,
      keep: "arriving",
    },
    { name: "not dominant", arriving: theirs("openSent"), other: ours("openConfirm"), sides: low, keep: "both" },
    { name: "established stays", arriving: theirs("openSent"), other: ours("established"), sides: high, keep: "other" },
    {
      name: "established stays, not dominant",
      arriving: ours("openSent"),
      other: theirs("established"),
      sides: low,
      keep: "other",
    },
    { name: "nothing there", arriving: theirs("openSent"), other: ours("active"), sides: high, keep: "both" },
    {
      name: "same identifier, higher AS",
      arriving: ours("openSent"),
      other: theirs("openSent"),
      sides: { ...high, remoteRouterId: 2, localAsn: 2 },
      keep: "arriving",
    },
  ];
  for (const { name, arriving, other, sides, keep } of cases) {
    test(name, () => assert.equal(resolveCollision(arriving, other, sides), keep));
  }

  test("whatever the order in which two sides hear each other, one connection of two is left", () => {
    // Two connections, c1 by the higher identifier, c2 by the lower. Each direction of each delivers OPEN, KEEPALIVE and
    // the end of the connection in order; which direction comes next is random.
    fc.assert(
      fc.property(fc.array(fc.nat(3), { maxLength: 40 }), (schedule) => {
        type Side = "high" | "low";
        const state: Record<Side, Contender["state"][]> = {
          high: ["openSent", "openSent"],
          low: ["openSent", "openSent"],
        };
        const queues: string[][] = [["open"], ["open"], ["open"], ["open"]]; // c1 to low, c1 to high, c2 to low, c2 to high
        const queueTo = (side: Side, connection: number): string[] =>
          queues[connection * 2 + (side === "low" ? 0 : 1)]!;
        const peerOf = (side: Side): Side => (side === "high" ? "low" : "high");
        const end = (side: Side, connection: number): void => {
          if (state[side][connection] === "idle") return;
          state[side][connection] = "idle";
          queueTo(peerOf(side), connection).push("end");
        };
        const view = (side: Side, connection: number): Contender => ({
          dialledBy: (connection === 0) === (side === "high") ? "us" : "them",
          state: state[side][connection]!,
        });
        const deliver = (index: number): void => {
          const connection = index >> 1;
          const side: Side = index % 2 === 0 ? "low" : "high";
          const message = queues[index]!.shift();
          if (message === undefined || state[side][connection] === "idle") return;
          if (message === "end") state[side][connection] = "idle";
          else if (message === "open") {
            const keep = resolveCollision(
              view(side, connection),
              view(side, 1 - connection),
              side === "high" ? high : low,
            );
            if (keep === "arriving") end(side, 1 - connection);
            if (keep === "other") end(side, connection);
            else {
              state[side][connection] = "openConfirm";
              queueTo(peerOf(side), connection).push("keepalive");
            }
          } else if (state[side][connection] === "openConfirm") {
            state[side][connection] = "established";
            end(side, 1 - connection);
          }
        };
        for (const index of schedule) deliver(index);
        for (let round = 0; round < 10; round += 1) for (let index = 0; index < 4; index += 1) deliver(index);
        assert.deepEqual(state.high.toSorted(), ["established", "idle"]);
        assert.deepEqual(state.low, state.high);
      }),
      { numRuns: 1000 },
    );
  });
});
