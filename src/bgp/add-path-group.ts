import { Audience, SLICE } from "./audience.ts";
import { Exporter, NOT_TOLD, type Explanation, type GroupHost } from "./exporter.ts";
import type { ExportPolicy } from "./export-policy.ts";
import { Batch, NOBODY, send, type Member } from "./update-batch.ts";
import { UpdateWriter } from "./update-writer.ts";

/** A path as the members know it. */
interface Told {
  /** Its number in the table: free for another path when it is gone, of the same prefix even. */
  readonly path: number;
  readonly source: number;
  /** What they were told, packed. */
  readonly out: Uint8Array;
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
  readonly #batch = new Batch();
  #changed: Missed = new Map();
  /** By their numbers in what is packed. */
  readonly #copies = new Map<number, Uint8Array>();

  constructor(policy: ExportPolicy, host: GroupHost) {
    this.policy = policy;
    this.#host = host;
    this.#exporter = new Exporter(policy, host);
    for (let id = 0; id < host.rib.prefixes.high; id += 1) this.#set(id, this.#usable(id));
    this.#forget();
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
      this.#batch.withdraw(source, id, pathIdOf(path));
    }
    let news = gone.size > 0;
    for (const { path, source, out } of now) {
      const known = before.find((told) => told.path === path && told.source === source);
      if (known !== undefined && sameBytes(known.out, out)) continue;
      news = true;
      this.#announce(this.#batch, source, out, id, path);
    }
    if (!news) return;
    this.#set(id, now);
    merged(this.#changed, new Map([[id, gone]]));
  }

  flush(): void {
    if (this.#changed.size > 0) {
      const changed = this.#changed;
      const parts = this.#batch.encode(this.#writer(), this.#exporter.packed);
      this.#audience.deliver(parts, (missed = new Map()) => merged(missed, changed));
      this.#changed = new Map();
    }
    this.#forget();
  }

  pump(): boolean {
    const more = this.#audience.pump({
      high: this.#host.rib.prefixes.high,
      missed: (member, missed) => this.#catchUp(member, missed),
      slice: (start, end, members) => {
        const batch = new Batch();
        for (let id = start; id < end; id += 1) {
          for (const { path, source, out } of this.#told.get(id) ?? NOTHING) {
            this.#announce(batch, source, out, id, path);
          }
        }
        const parts = batch.encode(this.#writer(), this.#exporter.packed);
        for (const member of members) send(parts, member);
      },
    });
    this.#forget();
    return more;
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
      pathId: pathIdOf(path),
    }));
  }

  /** What the members are to know of a prefix. */
  #usable(id: number): readonly Told[] {
    const told: Told[] = [];
    for (const { path, peer, set } of this.#host.rib.usable(id)) {
      const out = this.#exporter.export(id, set.id, peer);
      if (out !== NOT_TOLD) told.push({ path, source: peer, out: this.#bytesOf(out) });
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
    let left = SLICE;
    for (const [id, gone] of missed) {
      if (left === 0) break;
      left -= 1;
      missed.delete(id);
      const told = (this.#told.get(id) ?? NOTHING).filter(({ source }) => source !== member.peer);
      for (const path of gone) {
        if (!told.some((other) => other.path === path)) batch.withdraw(NOBODY, id, pathIdOf(path));
      }
      for (const { path, out } of told) this.#announce(batch, NOBODY, out, id, path);
    }
    send(batch.encode(this.#writer(), this.#exporter.packed), member);
  }

  #announce(batch: Batch, source: number, out: Uint8Array, id: number, path: number): void {
    batch.announce(source, this.#exporter.packed.intern(out, 0, out.length), id, pathIdOf(path));
  }

  /** A copy: what is packed goes with the turn. Paths that look equal share it. */
  #bytesOf(out: number): Uint8Array {
    let bytes = this.#copies.get(out);
    if (bytes === undefined) {
      const { packed } = this.#exporter;
      const start = packed.start(out);
      bytes = packed.slab(out).slice(start, start + packed.length(out));
      this.#copies.set(out, bytes);
    }
    return bytes;
  }

  /** At the end of a turn. */
  #forget(): void {
    this.#exporter.forget();
    this.#copies.clear();
  }

  #writer(): UpdateWriter {
    return new UpdateWriter(this.#host.rib.prefixes, this.policy.longestMessage, true);
  }
}

/** A path identifier of 0 is what we give nobody: some take it for none. */
function pathIdOf(path: number): number {
  return path + 1;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a === b || (a.length === b.length && a.every((byte, index) => byte === b[index]));
}

function merged(into: Missed, more: Missed): Missed {
  for (const [id, paths] of more) into.set(id, new Set([...(into.get(id) ?? []), ...paths]));
  return into;
}
