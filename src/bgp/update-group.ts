import { Audience } from "./audience.ts";
import { LOCAL_PEER } from "./decision.ts";
import { Exporter, type Explanation, type GroupHost } from "./exporter.ts";
import type { ExportPolicy } from "./export-policy.ts";
import { grown } from "./prefix-table.ts";
import { Batch, NOBODY, send, type Member } from "./update-batch.ts";
import { UpdateWriter, type EncodedAttributes } from "./update-writer.ts";

/**
 * Adj-RIB-Out of all peers that are told the same. What changed in a turn of the event loop is filtered and encoded once,
 * and the same bytes go to every member. Only where a route came from a member itself does that one get less: parts of
 * the bytes are left out for it, as nobody is told its own routes.
 */
export class UpdateGroup {
  readonly policy: ExportPolicy;
  readonly #host: GroupHost;
  readonly #exporter: Exporter;
  readonly #audience = new Audience<Set<number>>();
  /** By number of prefix: 1 where the group is told its best path. */
  #told: Uint8Array = new Uint8Array(0);
  #toldCount = 0;
  readonly #toldBySource = new Map<number, number>();

  // Of this turn of the event loop.
  #batch = new Batch();
  readonly #changed: number[] = [];

  constructor(policy: ExportPolicy, host: GroupHost) {
    this.policy = policy;
    this.#host = host;
    this.#exporter = new Exporter(policy, host);
    const { rib } = host;
    for (let id = 0; id < rib.prefixes.high; id += 1) this.#note(id, rib.bestPeer(id), NOBODY);
    this.#exporter.forget();
  }

  get members(): ReadonlySet<Member> {
    return this.#audience.members;
  }

  /** A best path changed; called before the members are told of it by `flush`. */
  bestChanged(id: number, peer: number, oldPeer: number): void {
    const before = this.#toldAt(id);
    const out = this.#note(id, peer, oldPeer);
    this.#changed.push(id);
    if (out !== undefined) {
      this.#batch.announce(peer, out, id);
      // Who told us was not told it by us, but may have been told what was best before.
      if (before && oldPeer !== peer && peer !== LOCAL_PEER) this.#batch.withdrawFrom(peer, id);
    } else if (before) this.#batch.withdraw(oldPeer, id);
  }

  /** Of paths other than the best, the members know nothing. */
  pathsChanged(): void {
    // Nothing to tell.
  }

  /** Tells the members all that changed since the last time. */
  flush(): void {
    if (this.#changed.length > 0) {
      const parts = this.#batch.encode(this.#writer());
      this.#audience.deliver(parts, (missed = new Set()) => {
        for (const id of this.#changed) missed.add(id);
        return missed;
      });
      this.#batch = new Batch();
      this.#changed.length = 0;
    }
    this.#exporter.forget();
  }

  /** Goes on with what members that joined late or fell behind still have to be told; says whether there is more. */
  pump(): boolean {
    const more = this.#audience.pump({
      high: this.#host.rib.prefixes.high,
      missed: (member, ids) => this.#tell(ids, [member], member.peer),
      slice: (start, end, members) => {
        const ids: number[] = [];
        for (let id = start; id < end; id += 1) if (this.#toldAt(id)) ids.push(id);
        this.#tell(ids, members, NOBODY);
      },
    });
    this.#exporter.forget();
    return more;
  }

  /** Whether numbers of prefixes are remembered, which must not be given to others meanwhile. */
  get remembers(): boolean {
    return this.#audience.behind.size > 0;
  }

  /** A session came up, wants to be told all again, or comes over from another group (its export filter changed). */
  join(member: Member, from?: UpdateGroup): void {
    if (from !== undefined) this.#withdrawWhatWas(from, member);
    this.#audience.join(member);
  }

  leave(member: Member): void {
    this.#audience.leave(member);
  }

  /** Decides all anew: the deferral after a restart is over. */
  reconsider(): void {
    const { rib } = this.#host;
    for (let id = 0; id < rib.prefixes.high; id += 1) {
      const peer = rib.bestPeer(id);
      if (peer > LOCAL_PEER) this.bestChanged(id, peer, peer);
    }
    this.flush();
  }

  /** How many routes a peer is told. */
  advertised(peer: number): number {
    return this.#toldCount - (this.#toldBySource.get(peer) ?? 0);
  }

  /** Why the best path of a prefix is told to a peer, or why it is not. */
  explain(id: number, peer: number): Explanation[] {
    const { rib } = this.#host;
    const set = rib.bestSet(id);
    return set === undefined ? [] : [this.#exporter.explain(id, set, rib.bestPeer(id), peer)];
  }

  /** Works out and remembers whether the best path of a prefix, by `peer`, is told; what is told, where it is. */
  #note(id: number, peer: number, oldPeer: number): EncodedAttributes | undefined {
    const set = this.#host.rib.bestSet(id);
    const out = set === undefined || peer === NOBODY ? undefined : this.#exporter.export(id, set, peer);
    const told = out !== undefined && typeof out !== "string";
    if (this.#toldAt(id)) this.#count(oldPeer, -1);
    if (told) this.#count(peer, 1);
    if (id >= this.#told.length) this.#told = grown(this.#told, Math.max(this.#host.rib.prefixes.capacity, id + 1));
    this.#told[id] = Number(told);
    return told ? out : undefined;
  }

  #toldAt(id: number): boolean {
    return this.#told[id] === 1;
  }

  #count(source: number, by: number): void {
    this.#toldCount += by;
    this.#toldBySource.set(source, (this.#toldBySource.get(source) ?? 0) + by);
  }

  /** Tells members the present state of prefixes; `withdrawsFor` is told also what there is not. */
  #tell(ids: Iterable<number>, members: Iterable<Member>, withdrawsFor: number): void {
    const { rib } = this.#host;
    const batch = new Batch();
    for (const id of ids) {
      const set = rib.bestSet(id);
      const peer = rib.bestPeer(id);
      const out = set === undefined || peer === withdrawsFor ? undefined : this.#exporter.export(id, set, peer);
      if (out !== undefined && typeof out !== "string") batch.announce(peer, out, id);
      else if (withdrawsFor !== NOBODY) batch.withdraw(NOBODY, id);
    }
    const parts = batch.encode(this.#writer());
    for (const member of members) send(parts, member);
  }

  #withdrawWhatWas(from: UpdateGroup, member: Member): void {
    const { rib } = this.#host;
    const ids: number[] = [];
    for (let id = 0; id < rib.prefixes.high; id += 1) {
      if (from.#toldAt(id) && !this.#toldAt(id) && rib.bestPeer(id) !== member.peer) ids.push(id);
    }
    const missed = new Set([...ids, ...(from.#audience.behind.get(member) ?? [])]);
    // Told through the same way as a peer that fell behind: the withdrawals of the two are no different.
    if (missed.size > 0) this.#audience.behind.set(member, missed);
  }

  #writer(): UpdateWriter {
    return new UpdateWriter(this.#host.rib.prefixes, this.policy.longestMessage);
  }
}
