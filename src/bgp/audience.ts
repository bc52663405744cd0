import { send, type Member, type Part } from "./update-batch.ts";

/** Members that joined together and are being told the table, up to the prefix numbered `cursor`. */
interface Sync {
  readonly members: Set<Member>;
  cursor: number;
}

/** Prefixes of one slice of a table dump: some milliseconds, so that keepalives are never late for it. */
const SLICE = 8192;

/** How members that joined late or take nothing at the moment are told what they still have to be told. */
export interface CatchUp<Missed> {
  /** Numbers of prefixes are below this. */
  readonly high: number;
  /** Tells one member the present state of what changed while it took nothing. */
  missed(member: Member, missed: Missed): void;
  /** Tells members all there is of the prefixes from `start` to `end`. */
  slice(start: number, end: number, members: ReadonlySet<Member>): void;
}

/** The members of an update group, and how far each of them has been told. */
export class Audience<Missed> {
  readonly members = new Set<Member>();
  /** What those that take nothing have missed: prefixes, not messages, so that it is bounded. */
  readonly behind = new Map<Member, Missed>();
  #syncs: Sync[] = [];

  /** All of the table is to be told, to a session that came up or asked for it again. */
  join(member: Member): void {
    this.members.add(member);
    const beginning = this.#syncs.find((sync) => sync.cursor === 0);
    if (beginning === undefined) this.#syncs.push({ members: new Set([member]), cursor: 0 });
    else beginning.members.add(member);
  }

  leave(member: Member): void {
    this.members.delete(member);
    this.behind.delete(member);
    for (const sync of this.#syncs) sync.members.delete(member);
  }

  /** Sends what changed to those that take it; for the others, `miss` adds it to what they have missed. */
  deliver(parts: readonly Part[], miss: (before: Missed | undefined) => Missed): void {
    for (const member of this.members) {
      const missed = this.behind.get(member);
      if (missed !== undefined || !member.ready()) this.behind.set(member, miss(missed));
      else send(parts, member);
    }
  }

  /** Goes on with what members still have to be told; says whether there is more. */
  pump(tell: CatchUp<Missed>): boolean {
    for (const [member, missed] of this.behind) {
      if (!member.ready()) continue;
      this.behind.delete(member);
      tell.missed(member, missed);
    }
    const syncs = this.#syncs;
    this.#syncs = [];
    for (const sync of syncs) this.#advance(sync, tell);
    return this.#syncs.some(({ members }) => [...members].some((member) => member.ready()));
  }

  #advance({ members, cursor }: Sync, tell: CatchUp<Missed>): void {
    // A slow member goes on by itself, so that the others need not wait for it.
    const ready = new Set<Member>();
    for (const member of members) {
      if (member.ready()) ready.add(member);
      else this.#syncs.push({ members: new Set([member]), cursor });
    }
    if (ready.size === 0) return;
    const end = Math.min(cursor + SLICE, tell.high);
    tell.slice(cursor, end, ready);
    if (end < tell.high) this.#syncs.push({ members: ready, cursor: end });
    else for (const member of ready) member.synced();
  }
}
