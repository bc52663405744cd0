import type { ByteStore } from "./byte-store.ts";
import { Chains } from "./chains.ts";
import type { UpdateWriter } from "./update-writer.ts";

/** In place of a peer's number: none. */
export const NOBODY = -1;

/** One established session, as the group sees it. */
export interface Member {
  /** Its number in the table of peers. */
  readonly peer: number;
  /** Whether it takes bytes; where not, what changes meanwhile is remembered by prefix, not by message. */
  ready(): boolean;
  write(bytes: Uint8Array): void;
  /** It has been told all that there was when it joined. */
  synced(): void;
}

export interface Part {
  /** The peer that is left out. */
  readonly except: number;
  /** The only peer that it is for, or -1. */
  readonly only: number;
  readonly bytes: Uint8Array;
}

/** Changes sorted so that those with equal attributes from the same source share messages. */
export class Batch {
  readonly #announced = new Chains();
  readonly #withdrawn = new Chains();
  readonly #withdrawnFrom = new Chains();

  /** `attributes` is a number of the store that `encode` is given. */
  announce(source: number, attributes: number, id: number, pathId = 0): void {
    this.#announced.add(source, attributes, id, pathId);
  }

  withdraw(source: number, id: number, pathId = 0): void {
    this.#withdrawn.add(source, 0, id, pathId);
  }

  /** From that peer alone. */
  withdrawFrom(peer: number, id: number): void {
    this.#withdrawnFrom.add(peer, 0, id, 0);
  }

  /** The messages, after which the batch is empty. */
  encode(writer: UpdateWriter, store: ByteStore): Part[] {
    const ranges: { except: number; only: number; start: number; end: number }[] = [];
    const range = (except: number, only: number, start: number): void => {
      if (writer.length > start) ranges.push({ except, only, start, end: writer.length });
    };
    for (const [peer, chains] of this.#withdrawnFrom.byPeer) {
      const start = writer.length;
      for (const chain of chains) writer.withdraw(this.#withdrawnFrom, chain);
      range(NOBODY, peer, start);
    }
    for (const [source, chains] of this.#withdrawn.byPeer) {
      const start = writer.length;
      for (const chain of chains) writer.withdraw(this.#withdrawn, chain);
      range(source, NOBODY, start);
    }
    for (const [source, chains] of this.#announced.byPeer) {
      const start = writer.length;
      for (const chain of chains) writer.announce(this.#announced, chain, store);
      range(source, NOBODY, start);
    }
    for (const chains of [this.#announced, this.#withdrawn, this.#withdrawnFrom]) chains.clear();
    return ranges.map(({ except, only, start, end }) => ({ except, only, bytes: writer.slice(start, end) }));
  }
}

/** Parts that follow each other in memory go out as one write. */
export function send(parts: readonly Part[], member: Member): void {
  let run: Uint8Array | undefined;
  for (const { except, only, bytes } of parts) {
    if (except === member.peer || (only !== NOBODY && only !== member.peer)) continue;
    if (run !== undefined && run.byteOffset + run.length === bytes.byteOffset) {
      run = new Uint8Array(run.buffer, run.byteOffset, run.length + bytes.length);
    } else {
      if (run !== undefined) member.write(run);
      run = bytes;
    }
  }
  if (run !== undefined) member.write(run);
}
