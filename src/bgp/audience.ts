import { send, type Member, type Part } from "./update-batch.ts";

/** Members that joined together and are being told the table, up to the prefix numbered `cursor`. */
interface Sync {
  readonly members: Set<Member>;
  readonly cursor: number;
}

/** What a member has missed: prefixes, not messages, so that it is bounded. */
export interface Missed {
  readonly size: number;
}

/** Prefixes of one slice of what is told late: some milliseconds, so that nobody's keepalives are late for it. */
export const SLICE = 4096;

/** How members that joined late or take nothing at the moment are told what they still have to be told. */
export interface CatchUp<Lost extends Missed> {
  /** Numbers of prefixes are below this. */
  readonly high: number;
  /** Tells one member the present state of some of what changed while it took nothing, and takes that out. */
  missed(member: Member, missed: Lost): void;
  /** Tells members all there is of the prefixes from `start` to `end`. */
  slice(start: number, end: number, members: ReadonlySet<Member>): void;
}

/** The members of an update group, and how far each of them has been told. */
export class Audience<Lost extends Missed> {
  readonly members = new Set<Member>();
  readonly behind = new Map<Member, Lost>();
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
  deliver(parts: readonly Part[], miss: (before: Lost | undefined) => Lost): void {
    for (const member of this.members) {
      const missed = this.behind.get(member);
      if (missed !== undefined || !member.ready()) this.behind.set(member, miss(missed));
      else send(parts, member);
    }
  }

  /** Goes on with what members still have to be told; says whether there is more. */
  pump(tell: CatchUp<Lost>): boolean {
    let more = false;
    for (const [member, missed] of this.behind) {
      if (!member.ready()) continue;
      tell.missed(member, missed);
      if (missed.size === 0) this.behind.delete(member);
      else if (member.ready()) more = true;
    }
    const syncs = this.#syncs;
    this.#syncs = [];
    for (const sync of syncs) this.#advance(sync, tell);
    return more || this.#syncs.some(({ members }) => [...members].some((member) => member.ready()));
  }

  #advance({ members, cursor }: Sync, tell: CatchUp<Lost>): void {
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
