import { Audience } from "./audience.ts";
import { Exporter, type Explanation, type GroupHost } from "./exporter.ts";
import type { ExportPolicy } from "./export-policy.ts";
import { Batch, NOBODY, send, type Member } from "./update-batch.ts";
import { routeNumber, UpdateWriter, type EncodedAttributes } from "./update-writer.ts";

/** A path as the members know it. */
interface Told {
  /** Its number in the table: free for another path when it is gone, of the same prefix even. */
  readonly path: number;
  readonly source: number;
  readonly out: EncodedAttributes;
}

/** For each prefix, the paths that a member may know and that are no more. */
type Missed = Map<number, Set<number>>;

const NOTHING: readonly Told[] = [];

/**
 * Adj-RIB-Out of peers that are told every usable path (RFC 7911), each under the number that it has in the table. As in
 * `UpdateGroup`, bytes are made once for all members, and nobody is told its own paths.
 */
export class AddPathGroup {
  readonly policy: ExportPolicy;
  readonly #host: GroupHost;
  readonly #exporter: Exporter;
  readonly #audience = new Audience<Missed>();
  readonly #told = new Map<number, readonly Told[]>();
  #toldCount = 0;
  readonly #toldBySource = new Map<number, number>();

  // Of this turn of the event loop.
  #batch = new Batch();
  #changed: Missed = new Map();

  constructor(policy: ExportPolicy, host: GroupHost) {
    this.policy = policy;
    this.#host = host;
    this.#exporter = new Exporter(policy, host);
    for (let id = 0; id < host.rib.prefixes.high; id += 1) this.#set(id, this.#usable(id));
    this.#exporter.forget();
  }

  get members(): ReadonlySet<Member> {
    return this.#audience.members;
  }

  /** Which of its paths is the best, the members find out for themselves. */
  bestChanged(): void {
    // Told by `pathsChanged`.
  }

  /** The usable paths of a prefix may be others now; called before the members are told of it by `flush`. */
  pathsChanged(id: number): void {
    const before = this.#told.get(id) ?? NOTHING;
    const now = this.#usable(id);
    const gone = new Set<number>();
    for (const { path, source } of before) {
      if (now.some((told) => told.path === path && told.source === source)) continue;
      gone.add(path);
      this.#batch.withdraw(source, numberOf(id, path));
    }
    let news = gone.size > 0;
    for (const { path, source, out } of now) {
      const known = before.find((told) => told.path === path && told.source === source);
      if (known?.out.key === out.key) continue;
      news = true;
      this.#batch.announce(source, out, numberOf(id, path));
    }
    if (!news) return;
    this.#set(id, now);
    merged(this.#changed, new Map([[id, gone]]));
  }

  flush(): void {
    if (this.#changed.size > 0) {
      const changed = this.#changed;
      this.#audience.deliver(this.#batch.encode(this.#writer()), (missed = new Map()) => merged(missed, changed));
      this.#batch = new Batch();
      this.#changed = new Map();
    }
    this.#exporter.forget();
  }

  pump(): boolean {
    return this.#audience.pump({
      high: this.#host.rib.prefixes.high,
      missed: (member, missed) => this.#catchUp(member, missed),
      slice: (start, end, members) => {
        const batch = new Batch();
        for (let id = start; id < end; id += 1) {
          for (const { path, source, out } of this.#told.get(id) ?? NOTHING) {
            batch.announce(source, out, numberOf(id, path));
          }
        }
        const parts = batch.encode(this.#writer());
        for (const member of members) send(parts, member);
      },
    });
  }

  get remembers(): boolean {
    return this.#audience.behind.size > 0;
  }

  join(member: Member, from?: AddPathGroup): void {
    if (from !== undefined) {
      const missed = merged(new Map<number, Set<number>>(), from.#audience.behind.get(member) ?? new Map());
      for (const [id, told] of from.#told) {
        const paths = told.filter(({ source }) => source !== member.peer).map(({ path }) => path);
        merged(missed, new Map([[id, new Set(paths)]]));
      }
      this.#audience.behind.set(member, missed);
    }
    this.#audience.join(member);
  }

  leave(member: Member): void {
    this.#audience.leave(member);
  }

  reconsider(): void {
    for (let id = 0; id < this.#host.rib.prefixes.high; id += 1) this.pathsChanged(id);
    this.flush();
  }

  advertised(peer: number): number {
    return this.#toldCount - (this.#toldBySource.get(peer) ?? 0);
  }

  explain(id: number, peer: number): Explanation[] {
    return this.#host.rib.usable(id).map(({ path, peer: source, set }) => ({
      ...this.#exporter.explain(id, set, source, peer),
      pathId: path + 1,
    }));
  }

  /** What the members are to know of a prefix. */
  #usable(id: number): readonly Told[] {
    const told: Told[] = [];
    for (const { path, peer, set } of this.#host.rib.usable(id)) {
      const out = this.#exporter.export(id, set, peer);
      if (typeof out !== "string") told.push({ path, source: peer, out });
    }
    return told;
  }

  #set(id: number, now: readonly Told[]): void {
    for (const { source } of this.#told.get(id) ?? NOTHING) this.#count(source, -1);
    for (const { source } of now) this.#count(source, 1);
    if (now.length === 0) this.#told.delete(id);
    else this.#told.set(id, now);
  }

  #count(source: number, by: number): void {
    this.#toldCount += by;
    this.#toldBySource.set(source, (this.#toldBySource.get(source) ?? 0) + by);
  }

  #catchUp(member: Member, missed: Missed): void {
    const batch = new Batch();
    for (const [id, gone] of missed) {
      const told = (this.#told.get(id) ?? NOTHING).filter(({ source }) => source !== member.peer);
      for (const path of gone) {
        if (!told.some((other) => other.path === path)) batch.withdraw(NOBODY, numberOf(id, path));
      }
      for (const { path, out } of told) batch.announce(NOBODY, out, numberOf(id, path));
    }
    send(batch.encode(this.#writer()), member);
  }

  #writer(): UpdateWriter {
    return new UpdateWriter(this.#host.rib.prefixes, this.policy.longestMessage, true);
  }
}

/** A path identifier of 0 is what we give nobody: some take it for none. */
function numberOf(id: number, path: number): number {
  return routeNumber(id, path + 1);
}

function merged(into: Missed, more: Missed): Missed {
  for (const [id, paths] of more) into.set(id, new Set([...(into.get(id) ?? []), ...paths]));
  return into;
}
