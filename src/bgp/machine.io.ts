import type net from "node:net";
import type { Clock } from "./clock.ts";
import type { Contender } from "./collision.ts";
import { createConnection, dial, type Connection, type ConnectionEvents, type DialTarget } from "./connection.io.ts";
import { HEADER_LENGTH } from "./constants.ts";
import { encodeKeepalive, encodeNotificationMessage, encodeOpen, type Frame } from "./message.ts";
import type { Negotiated } from "./negotiation.ts";
import type { Notification, ProtocolError } from "./notification.ts";
import type { Turns } from "./turns.io.ts";
import { IDLE, step, type Action, type Event, type SessionConfig, type State, type Timer } from "./session.ts";

export const REAL_CLOCK: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  after(milliseconds, callback) {
    const timer = setTimeout(callback, milliseconds);
    return () => clearTimeout(timer);
  },
};

/** Where the actions of a session machine lead that are not about its own connection and timers. */
export interface MachineOwner {
  readonly clock: Clock;
  readonly turns: Turns;
  readonly target: DialTarget;
  config(machine: Machine): SessionConfig;
  message(machine: Machine, frame: Frame, bytes: Uint8Array): void;
  /** Whether anybody wants to hear of `wire`. */
  readonly traced: boolean;
  /** Whole messages, as they pass. */
  wire(machine: Machine, direction: "sent" | "received", bytes: Uint8Array): void;
  up(machine: Machine, session: Negotiated): void;
  down(machine: Machine, session: Negotiated, graceful: boolean): void;
  explain(machine: Machine, reason: string): void;
  sent(notification?: Notification): void;
  drained(): void;
  /** After every event, when all its actions were done. */
  stepped(machine: Machine): void;
}

/** One session machine with its connection and its timers. */
export interface Machine extends Contender {
  readonly state: State["name"];
  /** In Idle after an error, and about to start by itself. */
  readonly held: boolean;
  readonly session: Negotiated | undefined;
  readonly connection: Connection | undefined;
  handle(event: Event): void;
  /** Takes over a connection that the peer opened. */
  accept(socket: net.Socket): void;
  /** Lets go of connection and timers without a word. */
  abandon(): void;
}

const KEEPALIVE = encodeKeepalive();
/** When to look again, in milliseconds, whether a peer has become silent of which not all is read. */
const UNREAD_WAIT = 1000;

export function createMachine(dialledBy: "us" | "them", owner: MachineOwner): Machine {
  let state: State = IDLE;
  let connection: Connection | undefined;
  let giveUpDialling: (() => void) | undefined;
  const timers = new Map<Timer, Running>();

  const machine: Machine = {
    dialledBy,
    get state() {
      return state.name;
    },
    get held() {
      return state.name === "idle" && state.held;
    },
    get session() {
      return "session" in state ? state.session : undefined;
    },
    get connection() {
      return connection;
    },
    handle(event) {
      if (state.name === "established" && isSignOfLife(event)) return heard(state.session);
      const { state: next, actions } = step(state, event, owner.config(machine));
      state = next;
      for (const action of actions) perform(action);
      owner.stepped(machine);
    },
    accept(socket) {
      ({ state } = step(state, { type: "start" }, owner.config(machine)));
      take(socket);
    },
    abandon() {
      state = IDLE;
      giveUpDialling?.();
      connection?.destroy();
      connection = undefined;
      for (const { cancel } of timers.values()) cancel();
      timers.clear();
    },
  };

  function take(socket: net.Socket): void {
    const own: Connection = createConnection(
      socket,
      owner.turns,
      eventsOf(() => own),
    );
    connection = own;
    machine.handle({ type: "connected" });
  }

  /** The events of a connection, heard only as long as it is the machine's. */
  function eventsOf(own: () => Connection): ConnectionEvents {
    const mine = (): boolean => connection === own();
    return {
      message(frame: Frame, bytes: Uint8Array) {
        if (!mine()) return;
        if (owner.traced) owner.wire(machine, "received", bytes.subarray(frame.start - HEADER_LENGTH, frame.end));
        owner.message(machine, frame, bytes);
      },
      written(bytes: Uint8Array) {
        if (owner.traced) owner.wire(machine, "sent", bytes);
      },
      malformed(error: ProtocolError) {
        if (mine()) machine.handle({ type: "malformed", notification: error.notification, reason: error.message });
      },
      closed(reason: string) {
        if (!mine()) return;
        connection = undefined;
        machine.handle({ type: "closed", reason });
      },
      drained() {
        if (mine()) owner.drained();
      },
    };
  }

  function perform(action: Action): void {
    switch (action.type) {
      case "dial":
        giveUpDialling = dial(owner.target, {
          connected: take,
          failed: (reason, refused) => machine.handle({ type: "connectFailed", reason, refused }),
        });
        return;
      case "close":
        giveUpDialling?.();
        giveUpDialling = undefined;
        connection?.close();
        connection = undefined;
        return;
      case "sendOpen":
        connection?.write(encodeOpen(action.open));
        return owner.sent();
      case "sendKeepalive":
        connection?.write(KEEPALIVE);
        return owner.sent();
      case "sendNotification":
        connection?.write(encodeNotificationMessage(action.notification));
        return owner.sent(action.notification);
      case "startTimer":
        return start(action.timer, action.milliseconds);
      case "stopTimer":
        timers.get(action.timer)?.cancel();
        timers.delete(action.timer);
        return;
      case "up":
        if (connection !== undefined) connection.longestMessage = action.session.longestMessage;
        return owner.up(machine, action.session);
      case "down":
        return owner.down(machine, action.session, action.graceful);
      case "explain":
        return owner.explain(machine, action.reason);
    }
  }

  /** What `step` has done then, a million times for a table of as many prefixes. */
  function heard({ holdTime }: Negotiated): void {
    if (holdTime > 0) start("hold", holdTime * 1000);
  }

  /** A timer that is put off goes on running, and is looked at when it fires: most are put off again and again. */
  function start(timer: Timer, milliseconds: number): void {
    const due = owner.clock.elapsed() + milliseconds;
    const running = timers.get(timer);
    if (running !== undefined && running.fires <= due) running.due = due;
    else {
      running?.cancel();
      arm(timer, due, milliseconds);
    }
  }

  function arm(timer: Timer, due: number, milliseconds: number): void {
    const taken = connection?.taken;
    const running: Running = {
      due,
      fires: due,
      cancel: owner.clock.after(milliseconds, () => {
        const left = running.due - owner.clock.elapsed();
        if (left > 0) return arm(timer, running.due, left);
        // RFC 9687 has the timer begin anew with every message that is taken.
        if (timer === "sendHold" && (connection?.waiting === 0 || connection?.taken !== taken)) {
          return arm(timer, owner.clock.elapsed() + milliseconds, milliseconds);
        }
        if (timer !== "hold") return expire(timer, running);
        // Busy for long, we may not have read what has long arrived: look once more before we call the peer dead.
        setImmediate(() => setImmediate(() => expire(timer, running)));
      }),
    };
    timers.set(timer, running);
  }

  /** Only if it was not put off or stopped meanwhile. */
  function expire(timer: Timer, running: Running): void {
    if (timers.get(timer) !== running) return;
    const left = running.due - owner.clock.elapsed();
    if (left > 0) return arm(timer, running.due, left);
    // A peer that has said more than we had time to read is not dead.
    if (timer === "hold" && connection?.unread === true) return arm(timer, running.due, UNREAD_WAIT);
    timers.delete(timer);
    machine.handle({ type: `${timer}Expired` });
  }

  return machine;
}

interface Running {
  /** By the clock's `elapsed`. */
  due: number;
  readonly fires: number;
  readonly cancel: () => void;
}

/** Of a session that is up, these say no more than that the peer lives. */
function isSignOfLife({ type }: Event): boolean {
  return type === "update" || type === "keepalive" || type === "routeRefresh";
}
