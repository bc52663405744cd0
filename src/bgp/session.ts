import type { Family } from "../ip/address.ts";
import type { Capabilities } from "./capabilities.ts";
import type { OpenMessage } from "./message.ts";
import { negotiate, type Negotiated } from "./negotiation.ts";
import {
  CEASE,
  describeNotification,
  FSM_ERROR,
  hardReset,
  HOLD_TIMER_EXPIRED,
  isHardReset,
  notification,
  SEND_HOLD_TIMER_EXPIRED,
  shutdown,
  type Notification,
} from "./notification.ts";

/** RFC 4271 section 8.2.2. One machine per TCP connection, as section 8.2.1 has it; collisions are `collision.ts`. */
export type State =
  /** `held`: waits after an error before it tries again (DampPeerOscillations). */
  | { readonly name: "idle"; readonly held: boolean; readonly failures: number }
  | { readonly name: "connect"; readonly failures: number }
  | { readonly name: "active"; readonly failures: number }
  | { readonly name: "openSent"; readonly failures: number }
  | { readonly name: "openConfirm"; readonly failures: number; readonly session: Negotiated }
  | { readonly name: "established"; readonly session: Negotiated };

export type StateName = State["name"];

/** The numbers are those of RFC 4271 section 8.1. */
export type Event =
  /** 1, 3 to 7: ManualStart and its automatic and passive forms. */
  | { readonly type: "start" }
  /** 2, 8: ManualStop, AutomaticStop. Without a notification the connection ends as in a crash. */
  | { readonly type: "stop"; readonly notification?: Notification }
  /** 9 */
  | { readonly type: "connectRetryExpired" }
  /** 10 */
  | { readonly type: "holdExpired" }
  /** 11 */
  | { readonly type: "keepaliveExpired" }
  /** 13 */
  | { readonly type: "idleHoldExpired" }
  /** 16, 17: our attempt to connect succeeded, or theirs was accepted. */
  | { readonly type: "connected" }
  /** 18, for an attempt; `refused` says that the host answered, so that it is worth asking again soon. */
  | { readonly type: "connectFailed"; readonly reason: string; readonly refused: boolean }
  /** 18, for a connection that was up. */
  | { readonly type: "closed"; readonly reason: string }
  /** 19, 20: whether it is acceptable is decided here. */
  | { readonly type: "open"; readonly open: OpenMessage }
  /** 21, 22, 28: a message that could not be read. */
  | { readonly type: "malformed"; readonly notification: Notification; readonly reason: string }
  /** 23: another connection with this peer goes on instead (RFC 4271 section 6.8). */
  | { readonly type: "collision" }
  /** 24, 25 */
  | { readonly type: "notification"; readonly notification: Notification }
  /** 26 */
  | { readonly type: "keepalive" }
  /** 27 */
  | { readonly type: "update" }
  /** RFC 2918. */
  | { readonly type: "routeRefresh" }
  /** RFC 9687: the peer has taken nothing of what we have to say for that long. */
  | { readonly type: "sendHoldExpired" }
  /** RFC 5882 section 4.1: the peer cannot be reached any more. */
  | { readonly type: "bfdDown"; readonly reason: string }
  /** RFC 4724 section 4.2: the peer has restarted and opened a new connection before this one was seen to end. */
  | { readonly type: "peerRestarted" };

export type Timer = "connectRetry" | "hold" | "keepalive" | "idleHold" | "sendHold";

export type Action =
  | { readonly type: "dial" }
  /** Gives up the connection, or the attempt at one. */
  | { readonly type: "close" }
  | { readonly type: "sendOpen"; readonly open: OpenMessage }
  | { readonly type: "sendKeepalive" }
  | { readonly type: "sendNotification"; readonly notification: Notification }
  | { readonly type: "startTimer"; readonly timer: Timer; readonly milliseconds: number }
  | { readonly type: "stopTimer"; readonly timer: Timer }
  /** The session is established. */
  | { readonly type: "up"; readonly session: Negotiated }
  /** An established session ended; `graceful`: its routes may be kept (RFC 4724). */
  | { readonly type: "down"; readonly session: Negotiated; readonly graceful: boolean }
  /** Why there is no session, for people. */
  | { readonly type: "explain"; readonly reason: string };

export interface Step {
  readonly state: State;
  readonly actions: readonly Action[];
}

/** What one machine needs to know of its peer and of us. Times are milliseconds. */
export interface SessionConfig {
  readonly localAsn: number;
  readonly remoteAsn: number;
  readonly routerId: number;
  /** Seconds, as in the OPEN. */
  readonly holdTime: number;
  /** Seconds; a third of the negotiated hold time unless told. */
  readonly keepaliveTime?: number;
  readonly passive: boolean;
  readonly connectTimeout: number;
  readonly connectRetry: number;
  /** How long the peer may take nothing (RFC 9687). */
  readonly sendHoldTime: number;
  /** Segments are signed (RFC 2385): who signs otherwise gets no answer. */
  readonly signed: boolean;
  readonly families: readonly Family[];
  readonly capabilities: Capabilities;
}

export const IDLE: State = { name: "idle", held: false, failures: 0 };

/** RFC 4271 suggests four minutes to wait for an OPEN; a peer that took the connection and is alive needs less. */
const OPEN_HOLD = 60_000;
/** BIRD's error wait time. */
const ERROR_HOLD = { first: 5000, longest: 30_000 };
/** Pause before asking a host again that answered, if only with a refusal: it will be ready any moment. */
const ANSWERED_RETRY = { first: 100, longest: 1000 };

/** A peer that floods us will not stop at once. */
const MAXIMUM_PREFIXES_HOLD = 300_000;

const TIMERS: readonly Timer[] = ["connectRetry", "hold", "keepalive", "idleHold", "sendHold"];

export function step(state: State, event: Event, config: SessionConfig): Step {
  switch (state.name) {
    case "idle":
      return inIdle(state, event, config);
    case "connect":
      return inConnect(state, event, config);
    case "active":
      return inActive(state, event, config);
    case "openSent":
      return inOpenSent(state, event, config);
    case "openConfirm":
      return inOpenConfirm(state, event, config);
    case "established":
      return inEstablished(state, event, config);
  }
}

type In<Name extends StateName> = Extract<State, { name: Name }>;

function inIdle(state: In<"idle">, event: Event, config: SessionConfig): Step {
  switch (event.type) {
    case "start":
    case "idleHoldExpired":
      if (event.type === "idleHoldExpired" && !state.held) return stay(state);
      return config.passive ? listen(state.failures) : dial(state.failures, config);
    case "stop":
      return go(IDLE, stopTimer("idleHold"));
    case "connected":
      return stay(state, { type: "close" }); // RFC 4271: in Idle, connections are refused
    default:
      return stay(state);
  }
}

function inConnect(state: In<"connect">, event: Event, config: SessionConfig): Step {
  switch (event.type) {
    case "connected":
      return open(state.failures, config);
    case "connectFailed":
      return retry(state.failures, event.refused, config, event.reason);
    case "connectRetryExpired": {
      const again = dial(state.failures + 1, config);
      const seconds = config.connectTimeout / 1000;
      const hint = config.signed ? "; is the password the same on both sides?" : "";
      const reason = `timed out: no answer in ${seconds} s${hint}`;
      return go(again.state, { type: "close" }, explain(reason), ...again.actions);
    }
    case "stop":
    case "collision":
      return go(IDLE, { type: "close" }, stopTimer("connectRetry"));
    default:
      return stay(state);
  }
}

function inActive(state: In<"active">, event: Event, config: SessionConfig): Step {
  switch (event.type) {
    case "connected":
      return open(state.failures, config);
    case "connectRetryExpired":
      return config.passive ? stay(state) : dial(state.failures, config);
    case "stop":
    case "collision":
      return go(IDLE, stopTimer("connectRetry"));
    default:
      return stay(state);
  }
}

function inOpenSent(state: In<"openSent">, event: Event, config: SessionConfig): Step {
  if (event.type !== "open") return withoutSession(state, event, config, FSM_ERROR.inOpenSent);
  const result = negotiate(event.open, config);
  if ("refusal" in result) return fail(state.failures, result.refusal, result.reason);
  const { session } = result;
  return go(
    { name: "openConfirm", failures: state.failures, session },
    { type: "sendKeepalive" },
    ...liveness(session),
    session.holdTime === 0 ? stopTimer("keepalive") : startTimer("keepalive", session.keepaliveTime * 1000),
  );
}

function inOpenConfirm(state: In<"openConfirm">, event: Event, config: SessionConfig): Step {
  const { session } = state;
  switch (event.type) {
    case "keepalive":
      return go({ name: "established", session }, ...liveness(session), startTimer("sendHold", config.sendHoldTime), {
        type: "up",
        session,
      });
    case "keepaliveExpired":
      return stay(state, ...keepalive(session));
    default:
      return withoutSession(state, event, config, FSM_ERROR.inOpenConfirm);
  }
}

/** What ends a connection before its session is established is the same in both states. */
function withoutSession(
  { failures, ...state }: In<"openSent"> | In<"openConfirm">,
  event: Event,
  config: SessionConfig,
  unexpected: number,
): Step {
  switch (event.type) {
    case "closed":
      return ended(retry(failures, true, config, `connection closed before the session was up: ${event.reason}`));
    case "notification":
      return ended(afterNotification(event.notification, failures, config));
    case "holdExpired":
      return ended(retry(failures, true, config, "hold timer expired before the session was up"), EXPIRED);
    case "malformed":
      return fail(failures, event.notification, event.reason);
    case "collision":
      return ended(go(IDLE), notification(CEASE.code, CEASE.connectionCollision));
    case "stop":
      return ended(go(IDLE), event.notification);
    case "open":
    case "update":
    case "routeRefresh":
    case "keepalive": {
      const refusal = notification(FSM_ERROR.code, unexpected);
      return fail(failures, refusal, `${event.type.toUpperCase()} received in ${state.name}`);
    }
    default:
      return stay({ failures, ...state } as State);
  }
}

function inEstablished(state: In<"established">, event: Event, config: SessionConfig): Step {
  const { session } = state;
  const down = (graceful: boolean): Action => ({ type: "down", session, graceful });
  // RFC 4724 section 4: only a lost connection leaves room for a restart, unless both sides have RFC 8538.
  const leavesRoom = session.notificationRestart;
  const forGood = (notice: Notification): Notification => (leavesRoom ? hardReset(notice) : notice);
  switch (event.type) {
    case "update":
    case "keepalive":
    case "routeRefresh":
      return stay(state, ...liveness(session));
    case "keepaliveExpired":
      return stay(state, ...keepalive(session));
    case "closed": {
      const after = retry(0, true, config, `connection lost: ${event.reason}`);
      return ended(withActions(after, down(session.gracefulRestart !== undefined)));
    }
    case "peerRestarted": {
      const after = go(IDLE, down(session.gracefulRestart !== undefined), explain("the peer restarted"));
      return ended(after);
    }
    case "notification": {
      const after = afterNotification(event.notification, 0, config);
      return ended(withActions(after, down(leavesRoom && !isHardReset(event.notification))));
    }
    case "holdExpired": {
      const reason = `hold timer expired: nothing heard for ${session.holdTime} s`;
      return ended(withActions(retry(0, true, config, reason), down(leavesRoom)), EXPIRED);
    }
    case "bfdDown": {
      // Its forwarding is gone with it: nothing is worth keeping.
      const after = retry(0, true, config, `BFD: ${event.reason}`);
      return ended(withActions(after, down(false)), forGood(notification(CEASE.code, CEASE.bfdDown)));
    }
    case "sendHoldExpired": {
      const reason = `send hold timer expired: the peer took nothing for ${config.sendHoldTime / 1000} s`;
      return ended(withActions(retry(0, true, config, reason), down(leavesRoom)), SEND_EXPIRED);
    }
    case "malformed": {
      const { code, subcode } = event.notification;
      if (code !== CEASE.code || subcode !== CEASE.maximumPrefixes) {
        return withActions(fail(0, event.notification, event.reason), down(leavesRoom));
      }
      const next: State = { name: "idle", held: true, failures: 0 };
      const after = go(next, startTimer("idleHold", MAXIMUM_PREFIXES_HOLD), explain(event.reason), down(false));
      return ended(after, forGood(event.notification));
    }
    case "open": {
      const refusal = notification(FSM_ERROR.code, FSM_ERROR.inEstablished);
      return withActions(fail(0, refusal, "OPEN received in established"), down(leavesRoom));
    }
    case "collision":
      return ended(go(IDLE, down(false)), notification(CEASE.code, CEASE.connectionCollision));
    case "stop": {
      const farewell = event.notification === undefined ? undefined : forGood(event.notification);
      return ended(go(IDLE, down(farewell === undefined)), farewell);
    }
    default:
      return stay(state);
  }
}

const EXPIRED = notification(HOLD_TIMER_EXPIRED.code);
const SEND_EXPIRED = notification(SEND_HOLD_TIMER_EXPIRED.code);

function stay(state: State, ...actions: Action[]): Step {
  return { state, actions };
}

function go(state: State, ...actions: Action[]): Step {
  return { state, actions };
}

function withActions({ state, actions }: Step, ...more: Action[]): Step {
  return { state, actions: [...actions, ...more] };
}

function dial(failures: number, { connectTimeout }: SessionConfig): Step {
  return go({ name: "connect", failures }, { type: "dial" }, startTimer("connectRetry", connectTimeout));
}

function listen(failures: number): Step {
  return go({ name: "active", failures });
}

function open(failures: number, config: SessionConfig): Step {
  const { localAsn, holdTime, routerId, capabilities } = config;
  return go(
    { name: "openSent", failures },
    stopTimer("connectRetry"),
    { type: "sendOpen", open: { asn: localAsn, holdTime, routerId, capabilities } },
    startTimer("hold", OPEN_HOLD),
  );
}

/** RFC 4271 goes to Idle and starts again by itself; so do we, in one step. */
function retry(failures: number, answered: boolean, config: SessionConfig, reason: string): Step {
  if (config.passive) return go({ name: "active", failures: 0 }, explain(reason));
  const pause = answered ? backoff(failures, ANSWERED_RETRY) : config.connectRetry;
  const next: State = { name: "active", failures: failures + 1 };
  return go(next, startTimer("connectRetry", Math.min(pause, config.connectRetry)), explain(reason));
}

/** The two sides disagree: asking again at once would not help. */
function fail(failures: number, refusal: Notification, reason: string): Step {
  return ended(hold(failures, `${reason} (sent ${describeNotification(refusal)})`), refusal);
}

function hold(failures: number, reason: string): Step {
  const next: State = { name: "idle", held: true, failures: failures + 1 };
  return go(next, startTimer("idleHold", backoff(failures, ERROR_HOLD)), explain(reason));
}

function afterNotification(notice: Notification, failures: number, config: SessionConfig): Step {
  const reason = `received ${describeNotification(notice)}`;
  // A peer that was shut down or lost a collision may be back any moment.
  return notice.code === CEASE.code ? retry(failures, true, config, reason) : hold(failures, reason);
}

/** Puts the end of a connection before what follows it. */
function ended({ state, actions }: Step, farewell?: Notification): Step {
  const started = new Set(actions.map((action) => (action.type === "startTimer" ? action.timer : undefined)));
  return go(
    state,
    ...(farewell === undefined ? [] : [{ type: "sendNotification", notification: farewell } as const]),
    { type: "close" },
    ...TIMERS.filter((timer) => !started.has(timer)).map(stopTimer),
    ...actions,
  );
}

function liveness({ holdTime }: Negotiated): Action[] {
  return [holdTime === 0 ? stopTimer("hold") : startTimer("hold", holdTime * 1000)];
}

function keepalive({ holdTime, keepaliveTime }: Negotiated): Action[] {
  if (holdTime === 0) return [];
  return [{ type: "sendKeepalive" }, startTimer("keepalive", keepaliveTime * 1000)];
}

function backoff(failures: number, { first, longest }: { first: number; longest: number }): number {
  return Math.min(longest, first * 2 ** Math.min(failures, 16));
}

function startTimer(timer: Timer, milliseconds: number): Action {
  return { type: "startTimer", timer, milliseconds };
}

function stopTimer(timer: Timer): Action {
  return { type: "stopTimer", timer };
}

function explain(reason: string): Action {
  return { type: "explain", reason };
}

/** How a session is ended by us, with the operator's words. */
export function administrativeStop(subcode: number, communication?: string): Event {
  return { type: "stop", notification: shutdown(subcode, communication) };
}
