import type { AttributeSet } from "./attribute-table.ts";
import { LOCAL_PEER, type RibPeer } from "./decision.ts";
import { exportAttributes, exportRefusal, type ExportPolicy } from "./export-policy.ts";
import type { FilterOperation, Verdict } from "./filters.ts";
import { grown } from "./prefix-table.ts";
import type { Rib } from "./rib.ts";
import { Batch, NOBODY, send, type Member } from "./update-batch.ts";
import { encodeForPacking, fitsMessage, UpdateWriter, type EncodedAttributes } from "./update-writer.ts";

/** Members that joined together and are being told the table, up to the prefix numbered `cursor`. */
interface Sync {
  readonly members: Set<Member>;
  cursor: number;
}

/** Prefixes of one slice of a table dump: some milliseconds, so that keepalives are never late for it. */
const SLICE = 8192;

/**
 * Adj-RIB-Out of all peers that are told the same. What changed in a turn of the event loop is filtered and encoded once,
 * and the same bytes go to every member. Only where a route came from a member itself does that one get less: parts of
 * the bytes are left out for it, as nobody is told its own routes.
 */
export class UpdateGroup {
  readonly policy: ExportPolicy;
  readonly members = new Set<Member>();
  readonly #rib: Rib;
  readonly #peerOf: (index: number) => RibPeer;
  /** While true, only our own routes are told: we have just restarted (RFC 4724 section 4.1). */
  readonly #defersLearned: () => boolean;
  /** By number of prefix: 1 where the group is told its best path. */
  #told: Uint8Array = new Uint8Array(0);
  #toldCount = 0;
  readonly #toldBySource = new Map<number, number>();
  #syncs: Sync[] = [];
  readonly #behind = new Map<Member, Set<number>>();

  // Of this turn of the event loop.
  #batch = new Batch();
  readonly #changed: number[] = [];
  readonly #encoded = new Map<string, EncodedAttributes>();
  readonly #exports = new Map<readonly FilterOperation[], Map<number, EncodedAttributes | string>>();

  constructor(policy: ExportPolicy, rib: Rib, peerOf: (index: number) => RibPeer, defersLearned: () => boolean) {
    this.policy = policy;
    this.#rib = rib;
    this.#peerOf = peerOf;
    this.#defersLearned = defersLearned;
    for (let id = 0; id < rib.prefixes.high; id += 1) this.#note(id, rib.bestPeer(id), NOBODY);
    this.#forget();
  }

  /** A best path changed; called before the members are told of it by `flush`. */
  change(id: number, peer: number, oldPeer: number): void {
    const before = this.#toldAt(id);
    const out = this.#note(id, peer, oldPeer);
    this.#changed.push(id);
    if (out !== undefined) {
      this.#batch.announce(peer, out, id);
      // Who told us was not told it by us, but may have been told what was best before.
      if (before && oldPeer !== peer && peer !== LOCAL_PEER) this.#batch.withdrawFrom(peer, id);
    } else if (before) this.#batch.withdraw(oldPeer, id);
  }

  /** Tells the members all that changed since the last time. */
  flush(): void {
    if (this.#changed.length > 0) {
      const parts = this.#batch.encode(new UpdateWriter(this.#rib.prefixes, this.policy.longestMessage));
      for (const member of this.members) {
        const missed = this.#behind.get(member);
        if (missed !== undefined || !member.ready()) {
          const set = missed ?? new Set();
          for (const id of this.#changed) set.add(id);
          this.#behind.set(member, set);
        } else send(parts, member);
      }
      this.#batch = new Batch();
      this.#changed.length = 0;
    }
    this.#forget();
  }

  /** Goes on with what members that joined late or fell behind still have to be told; says whether there is more. */
  pump(): boolean {
    for (const [member, ids] of this.#behind) {
      if (!member.ready()) continue;
      this.#behind.delete(member);
      this.#tell(ids, [member], member.peer);
    }
    const syncs = this.#syncs;
    this.#syncs = [];
    for (const sync of syncs) this.#advance(sync);
    this.#forget();
    return this.#syncs.some(({ members }) => [...members].some((member) => member.ready()));
  }

  /** Whether numbers of prefixes are remembered, which must not be given to others meanwhile. */
  get remembers(): boolean {
    return this.#behind.size > 0;
  }

  /** A session came up, or comes over from another group (its export filter changed). */
  join(member: Member, from?: UpdateGroup): void {
    this.members.add(member);
    if (from !== undefined) this.#withdrawWhatWas(from, member);
    const beginning = this.#syncs.find((sync) => sync.cursor === 0);
    if (beginning === undefined) this.#syncs.push({ members: new Set([member]), cursor: 0 });
    else beginning.members.add(member);
  }

  leave(member: Member): void {
    this.members.delete(member);
    this.#behind.delete(member);
    for (const sync of this.#syncs) sync.members.delete(member);
  }

  /** Decides all anew: the deferral after a restart is over. */
  reconsider(): void {
    for (let id = 0; id < this.#rib.prefixes.high; id += 1) {
      const peer = this.#rib.bestPeer(id);
      if (peer > LOCAL_PEER) this.change(id, peer, peer);
    }
  }

  /** How many prefixes a peer is told. */
  advertised(peer: number): number {
    return this.#toldCount - (this.#toldBySource.get(peer) ?? 0);
  }

  /** Why the best path of a prefix is told to a peer, or why it is not. */
  explain(id: number, peer: number): { told: boolean; reason: string } {
    const set = this.#rib.bestSet(id);
    const source = this.#rib.bestPeer(id);
    if (set === undefined) return { told: false, reason: "there is no usable path" };
    if (source === peer) return { told: false, reason: "it is the peer's own route" };
    const out = this.#exportOf(id, set, source);
    this.#forget();
    if (typeof out === "string") return { told: false, reason: out };
    return { told: true, reason: `export filter: ${this.#verdict(id, set, source).rule}` };
  }

  /** Works out and remembers whether the best path of a prefix, by `peer`, is told; what is told, where it is. */
  #note(id: number, peer: number, oldPeer: number): EncodedAttributes | undefined {
    const set = this.#rib.bestSet(id);
    const out = set === undefined || peer === NOBODY ? undefined : this.#exportOf(id, set, peer);
    const told = out !== undefined && typeof out !== "string";
    if (this.#toldAt(id)) this.#count(oldPeer, -1);
    if (told) this.#count(peer, 1);
    if (id >= this.#told.length) this.#told = grown(this.#told, Math.max(this.#rib.prefixes.capacity, id + 1));
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

  #verdict(id: number, set: AttributeSet, source: number): Verdict {
    const { w0, w1, w2, w3, length } = this.#rib.prefixes.words(id);
    const from = source === LOCAL_PEER ? "local" : "peers";
    return this.policy.filter.evaluate(w0, w1, w2, w3, length, set.attributes, from);
  }

  /** What the members are told of a path; or why nothing. */
  #exportOf(id: number, set: AttributeSet, peer: number): EncodedAttributes | string {
    if (peer !== LOCAL_PEER && this.#defersLearned()) return "we have just restarted and wait for our peers";
    const verdict = this.#verdict(id, set, peer);
    if (!verdict.accept) return `export filter: ${verdict.rule}`;
    const source = this.#peerOf(peer);
    let known = this.#exports.get(verdict.operations);
    if (known === undefined) this.#exports.set(verdict.operations, (known = new Map()));
    // Of the source, only its kind matters to what is told.
    const key = set.id * 3 + (peer === LOCAL_PEER ? 0 : source.internal ? 1 : 2);
    let out = known.get(key);
    if (out === undefined) known.set(key, (out = this.#encode(set, source, verdict.operations)));
    return out;
  }

  #encode(set: AttributeSet, source: RibPeer, operations: readonly FilterOperation[]): EncodedAttributes | string {
    const { policy } = this;
    const refusal = exportRefusal(set.attributes, source, policy);
    if (refusal !== undefined) return refusal;
    const attributes = exportAttributes(set.attributes, source, policy, operations);
    const encoded = encodeForPacking(policy.family, attributes, policy);
    if (!fitsMessage(encoded, policy.longestMessage)) return "its attributes do not fit into a message";
    // Different sets may look the same from outside: then their prefixes share messages.
    const key = Buffer.concat([encoded.reach, encoded.list]).toString("latin1");
    const same = this.#encoded.get(key);
    if (same === undefined) this.#encoded.set(key, encoded);
    return same ?? encoded;
  }

  /** Numbers of attribute sets are valid for one turn only. */
  #forget(): void {
    this.#exports.clear();
    this.#encoded.clear();
  }

  #advance({ members, cursor }: Sync): void {
    // A slow member goes on by itself, so that the others need not wait for it.
    const ready = new Set<Member>();
    for (const member of members) {
      if (member.ready()) ready.add(member);
      else this.#syncs.push({ members: new Set([member]), cursor });
    }
    if (ready.size === 0) return;
    const end = Math.min(cursor + SLICE, this.#rib.prefixes.high);
    const ids: number[] = [];
    for (let id = cursor; id < end; id += 1) if (this.#toldAt(id)) ids.push(id);
    this.#tell(ids, ready, NOBODY);
    if (end < this.#rib.prefixes.high) this.#syncs.push({ members: ready, cursor: end });
    else for (const member of ready) member.synced();
  }

  /** Tells members the present state of prefixes; `withdrawsFor` is told also what there is not. */
  #tell(ids: Iterable<number>, members: Iterable<Member>, withdrawsFor: number): void {
    const batch = new Batch();
    for (const id of ids) {
      const set = this.#rib.bestSet(id);
      const peer = this.#rib.bestPeer(id);
      const out = set === undefined || peer === withdrawsFor ? undefined : this.#exportOf(id, set, peer);
      if (out !== undefined && typeof out !== "string") batch.announce(peer, out, id);
      else if (withdrawsFor !== NOBODY) batch.withdraw(NOBODY, id);
    }
    const parts = batch.encode(new UpdateWriter(this.#rib.prefixes, this.policy.longestMessage));
    for (const member of members) send(parts, member);
  }

  #withdrawWhatWas(from: UpdateGroup, member: Member): void {
    const ids: number[] = [];
    for (let id = 0; id < this.#rib.prefixes.high; id += 1) {
      if (from.#toldAt(id) && !this.#toldAt(id) && this.#rib.bestPeer(id) !== member.peer) ids.push(id);
    }
    // Told through the same way as a peer that fell behind: the withdrawals of the two are no different.
    if (ids.length > 0) this.#behind.set(member, new Set(ids));
    const missed = from.#behind.get(member);
    if (missed !== undefined) this.#behind.set(member, new Set([...ids, ...missed]));
  }
}
