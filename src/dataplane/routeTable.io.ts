import { formatPrefix } from "../ip/prefix.ts";
import { messageOf } from "../lib/errors.ts";
import { plan, type Change } from "../lib/reconcile.ts";
import type { Route } from "../netlink/route.ts";
import type { Rtnetlink } from "../netlink/rtnetlink.io.ts";
import { ownerOf, routeKey, sameRoute, type RouteOwner, type RouteOwnership } from "./routes.ts";

/** Keeps the kernel's routes as they are wanted, and touches only those that are ours. */
export interface RouteTable {
  /** Replaces what one source wants: an endpoint's routes, the local blocks, everything learned in BGP. */
  want(source: string, owner: RouteOwner, routes: readonly Route[]): void;
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

export function createRouteTable({ rtnetlink, ownership, onChange, onProblem }: RouteTableOptions): RouteTable {
  const sources = new Map<string, { owner: RouteOwner; routes: ReadonlyMap<string, Route> }>();
  const prunable = new Set<RouteOwner>();
  let merged: Map<string, Route> | undefined;
  let problems: RouteProblem[] = [];
  let timer: NodeJS.Timeout | undefined;
  /** When it is due. */
  let due = 0;
  let retryMs = RETRY_MS.first;
  let closed = false;

  /** What is wanted; where two sources want the same route, the agent's own comes before a learned one. */
  function desired(): Map<string, Route> {
    merged ??= merge();
    return merged;
  }

  function merge(): Map<string, Route> {
    const all = new Map<string, Route>();
    for (const owner of ["bgp", "agent"] as const) {
      for (const source of sources.values()) {
        if (source.owner === owner) for (const [key, route] of source.routes) all.set(key, route);
      }
    }
    return all;
  }

  function reconcile(): RouteProblem[] {
    clearTimeout(timer);
    timer = undefined;
    const rules = ownership();
    const actual = new Map<string, Route>();
    const owners = new Map<string, RouteOwner>();
    for (const route of rtnetlink.routes()) {
      const key = routeKey(route);
      const owner = ownerOf(route, rules);
      const wanted = owner === undefined ? desired().get(key) : undefined;
      if (owner !== undefined) owners.set(key, owner);
      // What is as it is wanted is there, also where we have not yet heard that its link is a pod's.
      else if (wanted === undefined || !sameRoute(wanted, route)) continue;
      actual.set(key, route);
    }
    const changes = plan(desired(), actual, sameRoute).filter(
      ({ kind, key }) => kind !== "remove" || prunable.has(owners.get(key)!),
    );
    write(changes);
    return problems;
  }

  function write(changes: readonly Change<Route>[]): void {
    const failures = rtnetlink.applyRoutes(changes.map(({ kind, item }) => ({ kind, route: item })));
    const found = changes.flatMap(({ item }, index) => {
      const failure = failures[index];
      return failure === undefined ? [] : [{ destination: formatPrefix(item.destination), reason: messageOf(failure) }];
    });
    const known = new Set(problems.map(({ reason }) => reason));
    for (const problem of found) if (!known.has(problem.reason)) onProblem(problem);
    problems = found;
    const done = changes.filter((_, index) => failures[index] === undefined);
    const removed = done.filter(({ kind }) => kind === "remove").length;
    if (done.length > 0) onChange(done.length - removed, removed);
    if (found.length === 0) {
      retryMs = RETRY_MS.first;
    } else {
      schedule(retryMs);
      retryMs = Math.min(retryMs * 2, RETRY_MS.longest);
    }
  }

  /** The sooner of what is asked for counts: a kick does not wait for a retry that is far off. */
  function schedule(milliseconds: number): void {
    const wanted = performance.now() + milliseconds;
    if (closed || (timer !== undefined && due <= wanted)) return;
    clearTimeout(timer);
    due = wanted;
    timer = setTimeout(() => {
      timer = undefined;
      try {
        reconcile();
      } catch (error) {
        onProblem({ destination: "every route", reason: messageOf(error) });
        schedule(RETRY_MS.longest);
      }
    }, milliseconds);
    timer.unref();
  }

  return {
    want(source, owner, routes) {
      merged = undefined;
      if (routes.length === 0) sources.delete(source);
      else sources.set(source, { owner, routes: new Map(routes.map((route) => [routeKey(route), route])) });
    },
    has: (source) => sources.has(source),
    allowPrune(owner) {
      prunable.add(owner);
      schedule(SETTLE_MS);
    },
    kick: () => schedule(SETTLE_MS),
    observe(change, route) {
      if (ownerOf(route, ownership()) === undefined) return "foreign";
      const wanted = desired().get(routeKey(route));
      const expected = change === "new" ? wanted !== undefined && sameRoute(wanted, route) : wanted === undefined;
      if (!expected) schedule(SETTLE_MS);
      return "ours";
    },
    reconcile,
    problems: () => problems,
    size: () => [...sources.values()].reduce((sum, { routes }) => sum + routes.size, 0),
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}
