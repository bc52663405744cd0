import type { AttributeSet } from "./attribute-table.ts";
import { LOCAL_PEER, type RibPeer } from "./decision.ts";
import { exportAttributes, exportRefusal, reflects, type ExportPolicy } from "./export-policy.ts";
import type { FilterOperation, Verdict } from "./filters.ts";
import type { Rib } from "./rib.ts";
import { encodeForPacking, fitsMessage, type EncodedAttributes } from "./update-writer.ts";

/** What an update group knows of the tables. */
export interface GroupHost {
  readonly rib: Rib;
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

/** Peers are Uint16 in the tables, and some kinds of sources come before them. */
const KINDS = 1 << 17;

/** What the peers of one policy are told of a path: filtered for every prefix, worked out once for equal attributes. */
export class Exporter {
  readonly policy: ExportPolicy;
  readonly #host: GroupHost;
  // Numbers of attribute sets are valid for one turn of the event loop only, and so is what is remembered by them.
  readonly #encoded = new Map<string, EncodedAttributes>();
  readonly #exports = new Map<readonly FilterOperation[], Map<number, EncodedAttributes | string>>();

  constructor(policy: ExportPolicy, host: GroupHost) {
    this.policy = policy;
    this.#host = host;
  }

  /** What is told of a path by `peer` to the prefix numbered `id`; or why nothing. */
  export(id: number, set: AttributeSet, peer: number): EncodedAttributes | string {
    if (peer !== LOCAL_PEER && this.#host.defersLearned()) return "we have just restarted and wait for our peers";
    const verdict = this.#verdict(id, set, peer);
    if (!verdict.accept) return `export filter: ${verdict.rule}`;
    const source = this.#host.peerOf(peer);
    let known = this.#exports.get(verdict.operations);
    if (known === undefined) this.#exports.set(verdict.operations, (known = new Map()));
    const key = set.id * KINDS + this.#kindOf(source, set);
    let out = known.get(key);
    if (out === undefined) known.set(key, (out = this.#encode(set, source, verdict.operations)));
    return out;
  }

  #verdict(id: number, set: AttributeSet, peer: number): Verdict {
    const { w0, w1, w2, w3, length } = this.#host.rib.prefixes.words(id);
    return this.policy.filter.evaluate(w0, w1, w2, w3, length, set.attributes, peer === LOCAL_PEER ? "local" : "peers");
  }

  explain(id: number, set: AttributeSet, source: number, peer: number): Explanation {
    if (source === peer) return { set, source, told: false, reason: "it is the peer's own route" };
    const out = this.export(id, set, source);
    this.forget();
    if (typeof out === "string") return { set, source, told: false, reason: out };
    return { set, source, told: true, reason: `export filter: ${this.#verdict(id, set, source).rule}` };
  }

  /** At the end of a turn. */
  forget(): void {
    this.#exports.clear();
    this.#encoded.clear();
  }

  /** What of the source matters to what is told: its kind, and where it becomes the ORIGINATOR_ID, who it is. */
  #kindOf(source: RibPeer, { attributes }: AttributeSet): number {
    if (source.index === LOCAL_PEER) return 0;
    if (!source.internal) return 1;
    if (!this.policy.internal) return 2;
    if (!reflects(source, this.policy)) return 3;
    return 4 + (attributes.originatorId === undefined ? source.index : 0);
  }

  #encode(set: AttributeSet, source: RibPeer, operations: readonly FilterOperation[]): EncodedAttributes | string {
    const { policy } = this;
    const refusal = exportRefusal(set.attributes, source, policy);
    if (refusal !== undefined) return refusal;
    const attributes = exportAttributes(set.attributes, source, policy, operations);
    const encoded = encodeForPacking(policy.family, attributes, policy);
    if (!fitsMessage(encoded, policy.longestMessage)) return "its attributes do not fit into a message";
    // Different sets may look the same from outside: then their prefixes share messages.
    const same = this.#encoded.get(encoded.key);
    if (same === undefined) this.#encoded.set(encoded.key, encoded);
    return same ?? encoded;
  }
}
