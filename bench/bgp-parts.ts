import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { address4, ASN, HOSTS, openSegment, type Daemon } from "../src/bgp/daemons.testing.ts";
import { until } from "../src/bgp/speaker.testing.ts";
import { costOf, type Cost } from "./bgp-cost.ts";
import { CARACAL_OPTIONS, configOf, OPTIONS, type Candidate, type Role } from "./bgp-daemons.ts";
import {
  announcements,
  asnOf,
  connectClient,
  internalAttributes,
  NEXT_HOPS,
  PROFILES,
  receiver,
  sender,
  withdrawals,
  type Client,
  type Numbering,
  type Profile,
} from "../src/bgp/traffic.testing.ts";

/** What a phase took, in seconds; not finished where the limit was reached. */
export interface Phase {
  readonly wall: number;
  readonly cpu: number;
  readonly finished: boolean;
}

const FIRST_CLIENT = sender.number;
/** Seconds for sessions to come up, or for a phase, before it is given up. */
const LIMIT = 60;
/** Milliseconds for measuring single routes. */
const LATENCY_LIMIT = 10_000;
/** For a daemon that was just started, before anybody connects. */
const SETTLE = 700;
const OF_CLIENTS: Omit<Numbering, "count"> = { base: 0x0b000000, length: 26 };
/** What a client of a reflector has to say: one next hop, its own. */
const BLOCK: Profile = {
  ...PROFILES[0],
  ...OF_CLIENTS,
  sharing: 1000,
  attributes: (_, nextHop) => internalAttributes(nextHop),
};
/** Prefixes that are none of the numbered ones. */
const SINGLE = { base: 0x0afe0000, length: 24, sharing: 1 };
const ANY: Numbering = { ...OF_CLIENTS, count: 0 };

/** 192.0.2.N. */
const nextHopOf = (number: number): number => 0xc0000200 + number;
const seconds = (since: number): number => (performance.now() - since) / 1000;

interface Running {
  readonly clients: Client[];
  cost(): Cost;
  /** Connects all clients, each of which has so many of the prefixes itself, and waits for their sessions. */
  connect(expects: Numbering, own?: number, holdTime?: number): Promise<void>;
  phase(holds: () => boolean): Promise<Phase>;
}

let warmed = false;

/** As the launcher has it: what was compiled once is read back. It is written when a process ends in peace. */
function warmCompileCache(): void {
  if (warmed) return;
  warmed = true;
  process.env["NODE_COMPILE_CACHE"] ??= join(import.meta.dirname, "../.cache/compile");
  const script = join(import.meta.dirname, "../src/bgp/speaker-process.testing.ts");
  const nobody = { speaker: { asn: ASN, routerId: "192.0.2.1", listenAddresses: [] }, peers: [], originate: [] };
  execFileSync(process.execPath, [...CARACAL_OPTIONS, script, JSON.stringify(nobody)], { input: "", stdio: "pipe" });
}

/** Runs with one daemon that was just started; whatever happens, it and its namespaces are gone afterwards. */
async function withDaemon<Result>(host: Candidate, role: Role, run: (daemon: Running) => Promise<Result>) {
  warmCompileCache();
  const segment = openSegment([host]);
  const clients: Client[] = [];
  /** Synchronous, for a run that is interrupted. */
  const emergency = (): void => segment.abandon();
  process.once("exit", emergency);
  try {
    const numbers = role.neighbours.map(({ number }) => number);
    segment.addAddresses(numbers);
    segment.addRoute(host, NEXT_HOPS.network, address4(sender.number));
    const options = [...(host === "caracal" ? CARACAL_OPTIONS : []), ...OPTIONS[host]];
    const daemon: Daemon = await segment.start(host, configOf(host, role), ...options);
    await sleep(SETTLE);
    const cost = (): Cost => costOf(daemon.pids);
    return await run({
      clients,
      cost,
      async connect(expects, count = 0, holdTime = 240) {
        for (const [index, { number, asn = ASN }] of role.neighbours.entries()) {
          const [address, to] = [address4(number), address4(HOSTS[host])];
          const own = { first: index * count, count };
          clients.push(connectClient({ address, to, asn, routerId: 0xc0000200 + number, expects, own, holdTime }));
        }
        await until("all sessions", () => clients.every(({ established }) => established), LIMIT * 1000);
      },
      async phase(holds) {
        const before = cost().cpu;
        const start = performance.now();
        let finished = true;
        try {
          await until("the end of a phase", holds, LIMIT * 1000);
        } catch {
          finished = false;
        }
        const wall = seconds(start);
        return { wall, cpu: cost().cpu - before, finished };
      },
    });
  } finally {
    for (const client of clients) client.end();
    await segment.close();
    process.off("exit", emergency);
  }
}

/** FRR holds its first announcements back: nobody is measured before a first route has come through. */
async function warmUp({ clients }: Running, profile: Profile = BLOCK): Promise<void> {
  const [first, ...others] = clients;
  first?.send(announcements({ ...profile, ...SINGLE }, 1, 1, nextHopOf(sender.number)));
  await until("a first route", () => others.every(({ heard }) => heard > 0), LIMIT * 1000);
  await sleep(1000);
}

export interface TableResult {
  readonly in: Phase;
  readonly out: Phase;
  /** MB before, at most, and with the whole table when all is quiet. */
  readonly before: number;
  readonly peak: number;
  readonly rest: number;
}

/** A table of so many prefixes is announced by one neighbour and heard by another, and then withdrawn. */
export function measureTable(host: Candidate, profile: Profile, count: number): Promise<TableResult> {
  const neighbours = [sender, receiver].map((side) => ({ number: side.number, asn: asnOf(profile, side) }));
  return withDaemon(host, { kind: profile.internal ? "reflector" : "transit", neighbours }, async (daemon) => {
    const announced = announcements(profile, 0, count, nextHopOf(sender.number));
    const withdrawn = withdrawals(profile, 0, count);
    await daemon.connect({ ...profile, count });
    const [from, to] = daemon.clients as [Client, Client];
    await warmUp(daemon, profile);
    const before = daemon.cost().resident;
    from.send(announced);
    const arrived = await daemon.phase(() => to.held === count);
    const { peak } = daemon.cost();
    await sleep(1000);
    const rest = daemon.cost().resident;
    from.send(withdrawn);
    const out = arrived.finished ? await daemon.phase(() => to.held === 0) : { ...arrived, cpu: 0, wall: 0 };
    return { in: arrived, out, before, peak: Math.max(peak, daemon.cost().peak), rest };
  });
}

/** So many clients of a reflector, each of which has so many routes of its own. */
function reflectorOf(clients: number): Role {
  return {
    kind: "reflector",
    neighbours: Array.from({ length: clients }, (_, index) => ({ number: FIRST_CLIENT + index })),
  };
}

const tableOf = (client: number, routes: number): Buffer =>
  announcements(BLOCK, client * routes, routes, nextHopOf(FIRST_CLIENT + client));

export interface ReflectorResult extends Phase {
  readonly rest: number;
}

/** Warm: the sessions are up, then every client announces its routes and hears all the others'. */
export function measureReflector(host: Candidate, clients: number, routes: number): Promise<ReflectorResult> {
  return withDaemon(host, reflectorOf(clients), async (daemon) => {
    await daemon.connect({ ...OF_CLIENTS, count: clients * routes }, routes);
    await warmUp(daemon);
    for (const [index, client] of daemon.clients.entries()) client.send(tableOf(index, routes));
    const phase = await daemon.phase(() => daemon.clients.every(({ held }) => held === (clients - 1) * routes));
    await sleep(1000);
    return { ...phase, rest: daemon.cost().resident };
  });
}

/** Cold: all clients connect at once, announce as soon as they may, and hear all the others' routes. */
export function measureAtOnce(host: Candidate, clients: number, routes: number): Promise<Phase> {
  return withDaemon(host, reflectorOf(clients), async (daemon) => {
    const { neighbours } = reflectorOf(clients);
    const told = new Map<Client, number>();
    const phase = daemon.phase(() => {
      for (const [index, client] of daemon.clients.entries()) {
        // Again after a session that the daemon ended.
        if (!client.established || told.get(client) === client.sessions) continue;
        told.set(client, client.sessions);
        client.send(tableOf(index, routes));
      }
      return (
        daemon.clients.length === neighbours.length &&
        daemon.clients.every(({ held }) => held === (clients - 1) * routes)
      );
    });
    const connected = daemon.connect({ ...OF_CLIENTS, count: clients * routes }, routes).catch(() => undefined);
    const result = await phase;
    await connected;
    return result;
  });
}

/**
 * One route after the other through the daemon, the next so many milliseconds after the last: how long each took from its
 * announcement or withdrawal to its arrival, in milliseconds, the shortest first.
 */
export function measureLatency(host: Candidate, rounds: number, pause: number): Promise<number[]> {
  return withDaemon(host, reflectorOf(2), async (daemon) => {
    await daemon.connect(ANY);
    await warmUp(daemon);
    const [from, to] = daemon.clients as [Client, Client];
    const announced = announcements({ ...BLOCK, ...SINGLE }, 0, 1, nextHopOf(sender.number));
    const withdrawn = withdrawals(SINGLE, 0, 1);
    const latencies: number[] = [];
    const end = performance.now() + LATENCY_LIMIT;
    for (let round = 0; round < rounds && performance.now() < end; round += 1) {
      if (pause > 0) await sleep(pause);
      const heard = new Promise<number>((resolve, reject) => {
        const timer = setTimeout(() => reject(new Error(`no route came through in ${LIMIT} s`)), LIMIT * 1000);
        to.onUpdate = () => {
          clearTimeout(timer);
          resolve(performance.now());
        };
      });
      const sent = performance.now();
      from.send(round % 2 === 0 ? announced : withdrawn);
      latencies.push((await heard) - sent);
    }
    return latencies.toSorted((a, b) => a - b);
  });
}

export interface IdleResult {
  /** Share of one core, in percent. */
  readonly share: number;
  readonly rest: number;
}

/** A mesh of so many peers with a few routes each, none of which change: keepalives every 30 s are all there is. */
export function measureIdle(host: Candidate, peers: number, duration: number): Promise<IdleResult> {
  return withDaemon(host, { ...reflectorOf(peers), kind: "mesh" }, async (daemon) => {
    await daemon.connect(ANY, 0, 90);
    for (const [index, client] of daemon.clients.entries()) client.send(tableOf(index, 3));
    await sleep(5000);
    const before = daemon.cost();
    const start = performance.now();
    await sleep(duration * 1000);
    const after = daemon.cost();
    return { share: ((after.cpu - before.cpu) / seconds(start)) * 100, rest: after.resident };
  });
}
