import type { EncodedAttributes, UpdateWriter } from "./update-writer.ts";

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
  readonly #announced = new Map<number, Map<EncodedAttributes, number[]>>();
  readonly #withdrawn = new Map<number, number[]>();
  readonly #withdrawnFrom = new Map<number, number[]>();

  announce(source: number, out: EncodedAttributes, id: number): void {
    let bySource = this.#announced.get(source);
    if (bySource === undefined) this.#announced.set(source, (bySource = new Map()));
    const ids = bySource.get(out);
    if (ids === undefined) bySource.set(out, [id]);
    else ids.push(id);
  }

  withdraw(source: number, id: number): void {
    push(this.#withdrawn, source, id);
  }

  withdrawFrom(peer: number, id: number): void {
    push(this.#withdrawnFrom, peer, id);
  }

  encode(writer: UpdateWriter): Part[] {
    const ranges: { except: number; only: number; start: number; end: number }[] = [];
    const range = (except: number, only: number, write: () => void): void => {
      const start = writer.length;
      write();
      if (writer.length > start) ranges.push({ except, only, start, end: writer.length });
    };
    for (const [peer, ids] of this.#withdrawnFrom) range(NOBODY, peer, () => writer.withdraw(ids));
    for (const [source, ids] of this.#withdrawn) range(source, NOBODY, () => writer.withdraw(ids));
    for (const [source, byAttributes] of this.#announced) {
      range(source, NOBODY, () => {
        for (const [out, ids] of byAttributes) writer.announce(ids, out);
      });
    }
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

function push(lists: Map<number, number[]>, key: number, id: number): void {
  const list = lists.get(key);
  if (list === undefined) lists.set(key, [id]);
  else list.push(id);
}
