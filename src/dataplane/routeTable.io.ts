import { formatPrefix } from "../ip/prefix.ts";
import { openAlarm } from "../lib/alarm.io.ts";
import { type Failure, messageOf } from "../lib/errors.ts";
import { plan, type Change } from "../lib/reconcile.ts";
import type { Route } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { ownerOf, routeKey, sameRoute, type RouteOwner, type RouteOwnership } from "./routes.ts";

/** Keeps the kernel's routes as they are wanted, and touches only those that are ours. */
export interface RouteTable {
  /** Replaces what one source wants: an endpoint's routes, the local blocks, everything learned in BGP. */
  want(source: string, owner: RouteOwner, routes: readonly Route[]): void;
  /**
   * Changes single routes of a source and writes just these: what a full table of others' routes needs. `put` are
   * wanted from now on, `gone` no more. More than a few thousand are written in several turns of the event loop.
   */
  change(source: string, owner: RouteOwner, put: readonly Route[], gone: readonly Route[]): void;
  /** Whether the source wants any route. */
  has(source: string): boolean;
  /** From now on what this owner has in the kernel and nobody wants goes: its first sync is over. */
  allowPrune(owner: RouteOwner): void;
  /** Looks again soon: something else may have changed the kernel's routes. */
  kick(): void;
  /**
   * Takes in what the kernel says of a route. Our own writes are expected; a route of ours that somebody else changed is
   * put right soon; and of others' routes it says so, since next hops may depend on them.
   */
  observe(change: "new" | "deleted", route: Route): "ours" | "foreign";
  /** Lists, compares and writes now. Returns what could not be written. */
  reconcile(): RouteProblem[];
  problems(): readonly RouteProblem[];
  size(): number;
  close(): void;
}

export interface RouteProblem {
  readonly destination: string;
  readonly reason: string;
}

export interface RouteTableOptions {
  readonly rtnetlink: Rtnetlink;
  readonly ownership: () => RouteOwnership;
  readonly onChange: (added: number, removed: number) => void;
  readonly onProblem: (problem: RouteProblem) => void;
}

/** How long changes gather before the table is looked at. */
const SETTLE_MS = 20;
const RETRY_MS = { first: 200, longest: 10_000 };
/** How many routes are written before others have their turn: some 20 ms. */
const WRITES_PER_TURN = 2000;

export function createRouteTable({ rtnetlink, ownership, onChange, onProblem }: RouteTableOptions): RouteTable {
  const sources = new Map<string, { owner: RouteOwner; routes: Map<string, Route> }>();
  const prunable = new Set<RouteOwner>();
  /** By owner, what all its sources want. */
  const merged = new Map<RouteOwner, Map<string, Route>>();
  const problems = new Map<string, RouteProblem>();
  /** Whether the kernel's routes have been looked at: before, nobody knows what an earlier agent has left. */
  let looked = false;
  /** Routes of ours in the kernel that nobody wants, and that may not go yet. */
  const leftOver = new Map<string, Route>();
  /** Changes that wait for their turn. */
  let queue: Change<Route>[] = [];
  let turn: NodeJS.Immediate | undefined;
  /** Of each route the writes of ours that the kernel will yet tell of, once somebody listens to it. */
  let echoes: Map<string, number> | undefined;
  let retryMs = RETRY_MS.first;
  let closed = false;

  function wantedBy(owner: RouteOwner): Map<string, Route> {
    let all = merged.get(owner);
    if (all !== undefined) return all;
    all = new Map();
    for (const source of sources.values()) {
      if (source.owner === owner) for (const [key, route] of source.routes) all.set(key, route);
    }
    merged.set(owner, all);
    return all;
  }

  /** What is wanted; where two want the same route, the agent's own comes before a learned one. */
  function desired(key: string): Route | undefined {
    return wantedBy("agent").get(key) ?? wantedBy("bgp").get(key);
  }

  function reconcile(): RouteProblem[] {
    alarm.clear();
    // What waits for its turn is part of the whole.
    queue = [];
    looked = true;
    echoes?.clear();
    const rules = ownership();
    const all = new Map([...wantedBy("bgp"), ...wantedBy("agent")]);
    const actual = new Map<string, Route>();
    const owners = new Map<string, RouteOwner>();
    for (const route of rtnetlink.routes()) {
      const key = routeKey(route);
      const owner = ownerOf(route, rules);
      const wanted = owner === undefined ? all.get(key) : undefined;
      if (owner !== undefined) owners.set(key, owner);
      // What is as it is wanted is there, also where we have not yet heard that its link is a pod's.
      else if (wanted === undefined || !sameRoute(wanted, route)) continue;
      actual.set(key, route);
    }
    leftOver.clear();
    const changes = plan(all, actual, sameRoute).filter(({ kind, key, item }) => {
      if (kind !== "remove" || prunable.has(owners.get(key)!)) return true;
      leftOver.set(key, item);
      return false;
    });
    const told = new Set([...problems.values()].map(({ reason }) => reason));
    problems.clear();
    write(changes, told);
    if (problems.size === 0) retryMs = RETRY_MS.first;
    return [...problems.values()];
  }

  /** Writes what waits, as much as one turn allows. */
  function writeQueue(): void {
    turn = undefined;
    if (closed) return;
    const part = queue.slice(0, WRITES_PER_TURN);
    queue = queue.slice(WRITES_PER_TURN);
    try {
      write(part, new Set([...problems.values()].map(({ reason }) => reason)));
    } catch (error) {
      onProblem({ destination: "every route", reason: messageOf(error) });
      alarm.within(RETRY_MS.longest);
    }
    if (queue.length > 0) turn = setImmediate(writeQueue);
  }

  /** `told` are reasons that need not be told again. */
  function write(changes: readonly Change<Route>[], told: Set<string>): void {
    const failures = rtnetlink
      .applyRoutes(changes.map(({ kind, item }) => ({ kind, route: item })))
      .map((failure, index) => failure && makeWay(changes[index]!, failure));
    let removed = 0;
    let failed = 0;
    for (const [index, { kind, key, item }] of changes.entries()) {
      const failure = failures[index];
      if (failure === undefined) {
        problems.delete(key);
        if (kind === "remove") removed += 1;
        echoes?.set(key, (echoes.get(key) ?? 0) + 1);
        continue;
      }
      failed += 1;
      const problem = { destination: formatPrefix(item.destination), reason: messageOf(failure) };
      problems.set(key, problem);
      if (!told.has(problem.reason)) onProblem(problem);
      told.add(problem.reason);
    }
    const written = changes.length - failed - removed;
    if (written + removed > 0) onChange(written, removed);
    if (failed > 0) {
      alarm.within(retryMs);
      retryMs = Math.min(retryMs * 2, RETRY_MS.longest);
    }
  }

  /**
   * IPv6 looks up a gateway that is to be taken as on the link, and refuses it where the very route that is to be replaced
   * leads to it by another link: that one goes first then.
   */
  function makeWay({ kind, item }: Change<Route>, failure: Failure): Failure | undefined {
    const { destination, table, metric, nextHops } = item;
    const isOnlink = destination.address.family === 6 && nextHops.some(({ onlink }) => onlink === true);
    if (kind !== "replace" || failure.code !== "EINVAL" || !isOnlink) return failure;
    const [, added] = rtnetlink.applyRoutes([
      { kind: "remove", route: { destination, table, metric } },
      { kind: "add", route: item },
    ]);
    return added;
  }

  /** What becomes of the kernel's route now that another is wanted than before. */
  function changeOf(key: string, before: Route | undefined, owner: RouteOwner): Change<Route> | undefined {
    const after = desired(key);
    if (after === undefined) {
      if (before === undefined) return undefined;
      if (prunable.has(owner)) return { kind: "remove", key, item: before };
      leftOver.set(key, before);
      return undefined;
    }
    const present = before ?? leftOver.get(key);
    leftOver.delete(key);
    // Another program may have a route of this name since we looked: an addition does not take its place.
    if (present === undefined) return { kind: "add", key, item: after };
    return sameRoute(present, after) ? undefined : { kind: "replace", key, item: after };
  }

  /** A kick does not wait for a retry that is far off. */
  const alarm = openAlarm(() => {
    try {
      reconcile();
    } catch (error) {
      onProblem({ destination: "every route", reason: messageOf(error) });
      alarm.within(RETRY_MS.longest);
    }
  });

  return {
    want(source, owner, routes) {
      merged.delete(owner);
      if (routes.length === 0) sources.delete(source);
      else sources.set(source, { owner, routes: new Map(routes.map((route) => [routeKey(route), route])) });
    },
    change(source, owner, put, gone) {
      const { routes } = sources.get(source) ?? { routes: new Map<string, Route>() };
      sources.set(source, { owner, routes });
      const all = wantedBy(owner);
      const alone = [...sources.values()].filter((each) => each.owner === owner).length === 1;
      const changes: Change<Route>[] = [];
      const turnTo = (key: string, route: Route | undefined): void => {
        const before = desired(key);
        if (route === undefined) routes.delete(key);
        else routes.set(key, route);
        if (route !== undefined) all.set(key, route);
        else all.delete(key);
        if (!alone) merged.delete(owner);
        const found = changeOf(key, before, owner);
        if (found !== undefined) changes.push(found);
      };
      // Additions first, so that traffic always has somewhere to go.
      for (const route of put) turnTo(routeKey(route), route);
      for (const route of gone) turnTo(routeKey(route), undefined);
      if (!looked) {
        reconcile();
        return;
      }
      queue = queue.length === 0 ? changes : [...queue, ...changes];
      if (turn === undefined && queue.length > 0) writeQueue();
    },
    has: (source) => sources.has(source),
    allowPrune(owner) {
      prunable.add(owner);
      alarm.within(SETTLE_MS);
    },
    kick: () => alarm.within(SETTLE_MS),
    observe(change, route) {
      if (ownerOf(route, ownership()) === undefined) return "foreign";
      const key = routeKey(route);
      const echo = (echoes ??= new Map()).get(key) ?? 0;
      if (echo > 0) {
        if (echo === 1) echoes.delete(key);
        else echoes.set(key, echo - 1);
        return "ours";
      }
      const wanted = desired(key);
      const expected = change === "new" ? wanted !== undefined && sameRoute(wanted, route) : wanted === undefined;
      if (!expected) alarm.within(SETTLE_MS);
      return "ours";
    },
    reconcile,
    problems: () => [...problems.values()],
    size: () => [...sources.values()].reduce((sum, { routes }) => sum + routes.size, 0),
    close() {
      closed = true;
      alarm.close();
      if (turn !== undefined) clearImmediate(turn);
    },
  };
}
