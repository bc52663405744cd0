import type { AttributeSet, AttributeTable } from "./attribute-table.ts";
import { ByteStore } from "./byte-store.ts";
import { LOCAL_PEER, type RibPeer } from "./decision.ts";
import { exportBytesOf, NOT_PLAIN, REFUSED, type ExportBytes } from "./export-bytes.ts";
import { exportAttributes, exportRefusal, type ExportPolicy } from "./export-policy.ts";
import { NO_ATTRIBUTES, type FilterOperation, type Verdict } from "./filters.ts";
import type { Rib } from "./rib.ts";
import { encodeForPacking, fitsMessage } from "./update-writer.ts";

/** What an update group knows of the tables. */
export interface GroupHost {
  readonly rib: Rib;
  readonly sets: AttributeTable;
  peerOf(index: number): RibPeer;
  /** While true, only our own routes are told: we have just restarted (RFC 4724 section 4.1). */
  defersLearned(): boolean;
}

/** Whether a path is told to a peer, and why. */
export interface Explanation {
  readonly set: AttributeSet;
  readonly source: number;
  readonly told: boolean;
  readonly reason: string;
  /** Under which it is told (RFC 7911). */
  readonly pathId?: number;
}

/** In place of the number of what is told: nothing is. */
export const NOT_TOLD = 0;
/** Peers are Uint16 in the tables, and some kinds of sources come before them. */
const KINDS = 1 << 17;
/** More than the attributes of the longest message. */
const LONGEST = 65_536 + 512;
const DEFERRED = "we have just restarted and wait for our peers";
const TOO_LONG = "its attributes do not fit into a message";

/**
 * What the peers of one policy are told of a path: filtered for every prefix, worked out once for equal attributes. What
 * looks equal on the wire has one number, in `packed`, until the turn of the event loop ends: its prefixes share messages.
 */
export class Exporter {
  readonly policy: ExportPolicy;
  readonly packed = new ByteStore();
  readonly #host: GroupHost;
  readonly #exportBytes: ExportBytes;
  readonly #scratch = new Uint8Array(LONGEST);
  // Numbers of attribute sets are valid for one turn of the event loop only, and so is what is remembered by them.
  readonly #exports = new Map<readonly FilterOperation[], Map<number, number>>();
  // The last answer, as prefixes with equal attributes mostly come one after the other.
  #lastSet = 0;
  #lastPeer = LOCAL_PEER;
  #lastOperations: readonly FilterOperation[] | undefined;
  #lastOut = NOT_TOLD;

  constructor(policy: ExportPolicy, host: GroupHost) {
    this.policy = policy;
    this.#host = host;
    this.#exportBytes = exportBytesOf(policy);
  }

  /** The number in `packed` of what is told of a path by `peer` to the prefix numbered `id`; or `NOT_TOLD`. */
  export(id: number, set: number, peer: number): number {
    if (peer !== LOCAL_PEER && this.#host.defersLearned()) return NOT_TOLD;
    const { accept, operations } = this.policy.filter.constant ?? this.#verdict(id, set, peer);
    if (!accept) return NOT_TOLD;
    if (this.#lastSet === set && this.#lastPeer === peer && this.#lastOperations === operations) return this.#lastOut;
    const source = this.#host.peerOf(peer);
    let known = this.#exports.get(operations);
    if (known === undefined) this.#exports.set(operations, (known = new Map()));
    const key = set * KINDS + this.#kindOf(source);
    let out = known.get(key);
    if (out === undefined) known.set(key, (out = this.#pack(set, source, operations)));
    this.#lastSet = set;
    this.#lastPeer = peer;
    this.#lastOperations = operations;
    this.#lastOut = out;
    return out;
  }

  explain(id: number, set: AttributeSet, source: number, peer: number): Explanation {
    if (source === peer) return { set, source, told: false, reason: "it is the peer's own route" };
    const refusal = this.#refusal(id, set, source);
    if (refusal !== undefined) return { set, source, told: false, reason: refusal };
    return { set, source, told: true, reason: `export filter: ${this.#verdict(id, set.id, source).rule}` };
  }

  /** At the end of a turn. */
  forget(): void {
    if (this.packed.size > 0) this.packed.clear();
    this.#exports.clear();
    this.#lastSet = 0;
  }

  #refusal(id: number, set: AttributeSet, peer: number): string | undefined {
    if (peer !== LOCAL_PEER && this.#host.defersLearned()) return DEFERRED;
    const verdict = this.#verdict(id, set.id, peer);
    if (!verdict.accept) return `export filter: ${verdict.rule}`;
    const source = this.#host.peerOf(peer);
    const refusal = exportRefusal(set.attributes, source, this.policy);
    if (refusal !== undefined) return refusal;
    const attributes = exportAttributes(set.attributes, source, this.policy, verdict.operations);
    const packed = encodeForPacking(this.policy.family, attributes, this.policy);
    return fitsMessage(packed.length, this.policy.longestMessage) ? undefined : TOO_LONG;
  }

  #verdict(id: number, set: number, peer: number): Verdict {
    const { filter } = this.policy;
    const { rib, sets } = this.#host;
    const { w0, w1, w2, w3, length } = rib.prefixes.words(id);
    const attributes = filter.readsAttributes ? sets.get(set).attributes : NO_ATTRIBUTES;
    return filter.evaluate(w0, w1, w2, w3, length, attributes, peer === LOCAL_PEER ? "local" : "peers");
  }

  /** What of the source matters to what is told: its kind, and where it may become the ORIGINATOR_ID, who it is. */
  #kindOf(source: RibPeer): number {
    if (source.index === LOCAL_PEER) return 0;
    if (!source.internal) return 1;
    return this.policy.internal ? 3 + source.index : 2;
  }

  #pack(set: number, source: RibPeer, operations: readonly FilterOperation[]): number {
    const { policy } = this;
    const { store } = this.#host.sets;
    const length =
      operations.length > 0
        ? NOT_PLAIN
        : this.#exportBytes(store.slab(set), store.start(set), store.length(set), source, this.#scratch);
    if (length === REFUSED) return NOT_TOLD;
    if (length !== NOT_PLAIN) {
      return fitsMessage(length, policy.longestMessage) ? this.packed.intern(this.#scratch, 0, length) : NOT_TOLD;
    }
    const { attributes } = this.#host.sets.get(set);
    if (exportRefusal(attributes, source, policy) !== undefined) return NOT_TOLD;
    const packed = encodeForPacking(policy.family, exportAttributes(attributes, source, policy, operations), policy);
    return fitsMessage(packed.length, policy.longestMessage) ? this.packed.intern(packed, 0, packed.length) : NOT_TOLD;
  }
}
