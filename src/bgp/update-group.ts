import { Audience, SLICE } from "./audience.ts";
import { LOCAL_PEER } from "./decision.ts";
import { Exporter, NOT_TOLD, type Explanation, type GroupHost } from "./exporter.ts";
import type { ExportPolicy } from "./export-policy.ts";
import { IdSet } from "./id-set.ts";
import { grown } from "./prefix-table.ts";
import { Batch, NOBODY, send, type Member } from "./update-batch.ts";
import { UpdateWriter } from "./update-writer.ts";

/**
 * Adj-RIB-Out of all peers that are told the same. What changed in a turn of the event loop is filtered and encoded once,
 * and the same bytes go to every member. Only where a route came from a member itself does that one get less: parts of
 * the bytes are left out for it, as nobody is told its own routes.
 */
export class UpdateGroup {
  readonly policy: ExportPolicy;
  readonly #host: GroupHost;
  readonly #exporter: Exporter;
  readonly #audience = new Audience<IdSet>();
  /** By number of prefix: 1 where the group is told its best path. */
  #told: Uint8Array = new Uint8Array(0);
  #toldCount = 0;
  /** By number of peer. */
  readonly #toldBySource: number[] = [];
  /** What the members are told of prefixes from this number on is not known yet: they are being told the rest. */
  #known = 0;

  readonly #late = new Batch();
  /** Members that came over from another group: 1 for each prefix of which that one may have told them. */
  readonly #toldElsewhere = new Map<Member, Uint8Array>();
  /** Up to where all is decided anew, while it is. */
  #reconsidered = Infinity;

  // Of this turn of the event loop.
  readonly #batch = new Batch();
  readonly #changed: number[] = [];

  constructor(policy: ExportPolicy, host: GroupHost) {
    this.policy = policy;
    this.#host = host;
    this.#exporter = new Exporter(policy, host);
    if (host.rib.prefixes.high === 0) this.#known = Infinity;
  }

  get members(): ReadonlySet<Member> {
    return this.#audience.members;
  }

  /** A best path changed; called before the members are told of it by `flush`. */
  bestChanged(id: number, peer: number, oldPeer: number): void {
    if (id >= this.#known) return;
    const before = this.#toldAt(id);
    const out = this.#note(id, peer, oldPeer);
    if (out === NOT_TOLD && !before) return;
    this.#changed.push(id);
    if (out !== NOT_TOLD) {
      this.#batch.announce(peer, out, id);
      // Who told us was not told it by us, but may have been told what was best before.
      if (before && oldPeer !== peer && peer !== LOCAL_PEER) this.#batch.withdrawFrom(peer, id);
    } else this.#batch.withdraw(oldPeer, id);
  }

  /** Of paths other than the best, the members know nothing. */
  pathsChanged(): void {
    // Nothing to tell.
  }

  /** Tells the members all that changed since the last time. */
  flush(): void {
    if (this.#changed.length > 0) {
      const parts = this.#batch.encode(this.#writer(), this.#exporter.packed);
      this.#audience.deliver(parts, (missed = new IdSet()) => missed.addAll(this.#changed));
      this.#changed.length = 0;
    }
    this.#exporter.forget();
  }

  /** Goes on with what members that joined late or fell behind still have to be told; says whether there is more. */
  pump(): boolean {
    const { high } = this.#host.rib.prefixes;
    if (this.#reconsidered < high) this.#reconsiderSome(high);
    const more = this.#audience.pump({
      high,
      missed: (member, ids) => this.#tell(ids.take(SLICE), [member], member.peer),
      slice: (start, end, members) => {
        this.#know(end);
        const ids: number[] = [];
        for (let id = start; id < end; id += 1) if (this.#toldAt(id)) ids.push(id);
        for (const member of members) this.#withdrawWhatWas(member, start, end);
        this.#tell(ids, members, NOBODY);
        if (end < high) return;
        this.#known = Infinity;
        for (const member of members) this.#toldElsewhere.delete(member);
      },
    });
    this.#exporter.forget();
    return more || this.#reconsidered < high;
  }

  /** Whether numbers of prefixes are remembered, which must not be given to others meanwhile. */
  get remembers(): boolean {
    return this.#audience.behind.size > 0 || this.#toldElsewhere.size > 0;
  }

  /** A session came up, wants to be told all again, or comes over from another group (its export filter changed). */
  join(member: Member, from?: UpdateGroup): void {
    if (from !== undefined) this.#toldElsewhere.set(member, from.#toldTo(member));
    this.#audience.join(member);
  }

  leave(member: Member): void {
    this.#audience.leave(member);
    this.#toldElsewhere.delete(member);
  }

  /** Decides all anew, some in each turn: the deferral after a restart is over. */
  reconsider(): void {
    this.#reconsidered = 0;
  }

  /** How many routes a peer is told. */
  advertised(peer: number): number {
    return this.#toldCount - (this.#toldBySource[peer] ?? 0);
  }

  /** Why the best path of a prefix is told to a peer, or why it is not. */
  explain(id: number, peer: number): Explanation[] {
    const { rib } = this.#host;
    const set = rib.bestSet(id);
    return set === undefined ? [] : [this.#exporter.explain(id, set, rib.bestPeer(id), peer)];
  }

  /** Works out what the members are told of prefixes up to this number. */
  #know(end: number): void {
    const { rib } = this.#host;
    for (let id = this.#known; id < end; id += 1) this.#note(id, rib.bestPeer(id), NOBODY);
    this.#known = Math.max(this.#known, end);
  }

  /** Works out and remembers whether the best path of a prefix, by `peer`, is told; what is told, where it is. */
  #note(id: number, peer: number, oldPeer: number): number {
    const out = peer === NOBODY ? NOT_TOLD : this.#exporter.export(id, this.#host.rib.best(id), peer);
    if (id >= this.#told.length) this.#told = grown(this.#told, Math.max(this.#host.rib.prefixes.capacity, id + 1));
    if (this.#told[id] === 1) this.#count(oldPeer, -1);
    if (out !== NOT_TOLD) this.#count(peer, 1);
    this.#told[id] = out === NOT_TOLD ? 0 : 1;
    return out;
  }

  #toldAt(id: number): boolean {
    return this.#told[id] === 1;
  }

  #count(source: number, by: number): void {
    this.#toldCount += by;
    this.#toldBySource[source] = (this.#toldBySource[source] ?? 0) + by;
  }

  /** Tells members the present state of prefixes; `withdrawsFor` is told also what there is not. */
  #tell(ids: readonly number[], members: Iterable<Member>, withdrawsFor: number): void {
    const { rib } = this.#host;
    const batch = this.#late;
    for (const id of ids) {
      const peer = rib.bestPeer(id);
      const out = peer === NOBODY || peer === withdrawsFor ? NOT_TOLD : this.#exporter.export(id, rib.best(id), peer);
      if (out !== NOT_TOLD) batch.announce(peer, out, id);
      else if (withdrawsFor !== NOBODY) batch.withdraw(NOBODY, id);
    }
    const parts = batch.encode(this.#writer(), this.#exporter.packed);
    for (const member of members) send(parts, member);
  }

  #reconsiderSome(high: number): void {
    const { rib } = this.#host;
    const end = Math.min(this.#reconsidered + SLICE, high);
    for (let id = this.#reconsidered; id < end; id += 1) {
      const peer = rib.bestPeer(id);
      if (peer > LOCAL_PEER && !this.#toldAt(id)) this.bestChanged(id, peer, peer);
    }
    this.#reconsidered = end < high ? end : Infinity;
    this.flush();
  }

  /** By number of prefix: 1 where a member may have been told of it. */
  #toldTo(member: Member): Uint8Array {
    const told = grown(this.#told, this.#host.rib.prefixes.capacity);
    for (const [id, was] of (this.#toldElsewhere.get(member) ?? []).entries()) if (was === 1) told[id] = 1;
    for (const id of this.#audience.behind.get(member)?.take(Infinity) ?? []) told[id] = 1;
    return told;
  }

  /** What another group told a member, and this one does not. */
  #withdrawWhatWas(member: Member, start: number, end: number): void {
    const before = this.#toldElsewhere.get(member);
    if (before === undefined) return;
    const ids: number[] = [];
    for (let id = start; id < end; id += 1) if (before[id] === 1 && !this.#toldAt(id)) ids.push(id);
    this.#tell(ids, [member], member.peer);
  }

  #writer(): UpdateWriter {
    return new UpdateWriter(this.#host.rib.prefixes, this.policy.longestMessage);
  }
}
