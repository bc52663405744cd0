import type { Family } from "../ip/address.ts";
import type { Prefix } from "../ip/prefix.ts";
import type { AttributeSet, AttributeTable } from "./attribute-table.ts";
import { decide, LOCAL_PEER, type Candidate, type RibPeer } from "./decision.ts";
import { prefixOfWords, wordsOfPrefix, type PrefixWords } from "./nlri.ts";
import { grown, nextCapacity, PrefixTable } from "./prefix-table.ts";

const NONE = -1;
// What there is to do about a prefix: one bit each.
const DIRTY = 1;
/** The routes out of the table must be told again even if the best path stays. */
const DIRTY_NEXT_HOP = 2;
/** It has lost its last path. */
const EMPTIED = 4;

/** Paths that are looked at in one go, some milliseconds, where something is to be done with all of a peer's. */
const STRIDE = 16_384;

/** A path as a view of the table. */
export interface PathView {
  readonly peer: number;
  readonly pathId: number;
  /** As received. */
  readonly received: AttributeSet;
  /** After the import filter; undefined where it was refused. */
  readonly used: AttributeSet | undefined;
  readonly stale: boolean;
}

/** `path` is its number in the table, which another path may have once this one is gone. */
export interface UsablePath {
  readonly path: number;
  readonly peer: number;
  readonly set: AttributeSet;
}

export interface PathCounts {
  received: number;
  accepted: number;
  stale: number;
}

/** Told of each prefix whose best path changed. Sets are 0 and peers -1 where there is or was no path. */
export type BestVisitor = (id: number, set: number, peer: number, oldPeer: number) => void;

/** Something to be done with all paths of a peer, which takes several turns where there are many. */
interface Walk {
  readonly peer: number;
  readonly does: "sweep" | "reimport";
  readonly visit: (path: number) => void;
  cursor: number;
  readonly end: number;
}

/**
 * Adj-RIB-In of all peers and Loc-RIB of one family: a chain of paths for each prefix, all in typed arrays that index
 * each other, with attribute sets by their numbers. Changes mark prefixes as dirty; `flush` decides them, however many
 * changes there were.
 */
export class Rib {
  readonly prefixes: PrefixTable;
  readonly #sets: AttributeTable;
  readonly #peerOf: (index: number) => RibPeer;
  readonly #maxPaths: number;

  // By number of prefix.
  #first: Int32Array;
  #bestSet: Uint32Array;
  #bestPeer: Int32Array;
  #state: Uint8Array;
  /** Attribute sets of all equal-cost paths, best first, for the few prefixes that have several. */
  readonly #multipath = new Map<number, readonly number[]>();

  // By number of path.
  #pathPrefix: Int32Array;
  #pathPeer: Uint16Array;
  #pathId: Uint32Array;
  #received: Uint32Array;
  /** 0 where the import filter refused it. */
  #used: Uint32Array;
  /** The peer's when it was last announced: an earlier one than the peer has now makes it stale. */
  #epoch: Uint32Array;
  #next: Int32Array;
  #pathHigh = 0;
  #freePath = NONE;

  #dirtyList: number[] = [];
  /** How much of it has been decided. */
  #decided = 0;
  #emptied: number[] = [];
  readonly #counts: (PathCounts | undefined)[] = [];
  readonly #epochs: number[] = [];
  #walks: Walk[] = [];

  constructor(family: Family, sets: AttributeTable, peerOf: (index: number) => RibPeer, maxPaths: number) {
    this.prefixes = new PrefixTable(family);
    this.#sets = sets;
    this.#peerOf = peerOf;
    this.#maxPaths = maxPaths;
    const capacity = this.prefixes.capacity;
    this.#first = new Int32Array(capacity).fill(NONE);
    this.#bestSet = new Uint32Array(capacity);
    this.#bestPeer = new Int32Array(capacity).fill(NONE);
    this.#state = new Uint8Array(capacity);
    // Not as many, so that the two do not become too small in the same turn.
    const paths = capacity * 1.5;
    this.#pathPrefix = new Int32Array(paths).fill(NONE);
    this.#pathPeer = new Uint16Array(paths);
    this.#pathId = new Uint32Array(paths);
    this.#received = new Uint32Array(paths);
    this.#used = new Uint32Array(paths);
    this.#epoch = new Uint32Array(paths);
    this.#next = new Int32Array(paths);
  }

  /** Whether `flush` has something to do. */
  get dirty(): boolean {
    return this.#decided < this.#dirtyList.length || this.#walks.length > 0;
  }

  counts(peer: number): PathCounts {
    return (this.#counts[peer] ??= { received: 0, accepted: 0, stale: 0 });
  }

  /** The number of a prefix, which an announcement is to follow. */
  add(w0: number, w1: number, w2: number, w3: number, length: number): number {
    const id = this.prefixes.add(w0, w1, w2, w3, length);
    if (this.prefixes.capacity > this.#first.length) this.#growPrefixes();
    return id;
  }

  /** A peer's path to a prefix is this now. `used` is 0 where the import filter refused it. */
  announce(id: number, peer: number, pathId: number, received: number, used: number): void {
    const path = this.#find(id, peer, pathId);
    if (path === NONE) {
      this.#addPath(id, peer, pathId, received, used);
      this.#mark(id, DIRTY);
      return;
    }
    this.#refresh(path);
    const before = this.#used[path]!;
    const old = this.#received[path]!;
    if (old !== received) {
      this.#received[path] = this.#sets.retain(received);
      this.#sets.release(old);
    }
    this.#setUsed(path, used);
    if (before !== used) this.#mark(id, DIRTY);
  }

  withdraw(w0: number, w1: number, w2: number, w3: number, length: number, peer: number, pathId: number): void {
    const id = this.prefixes.find(w0, w1, w2, w3, length);
    if (id === NONE) return;
    let before = NONE;
    for (let path = this.#first[id]!; path !== NONE; path = this.#next[path]!) {
      if (this.#pathPeer[path] === peer && this.#pathId[path] === pathId) {
        this.#removePath(path, before);
        return;
      }
      before = path;
    }
  }

  /**
   * Removes the paths of a peer: all, or those that are still marked as stale. Of many, only some at once: `flush` goes on
   * with the others, but with none that the peer announces from now on.
   */
  drop(peer: number, only: "all" | "stale"): void {
    if (only === "all") this.markStale(peer);
    if (this.counts(peer).stale === 0) return;
    const before = this.#epochs[peer] ?? 0;
    this.#startWalk(peer, "sweep", (path) => {
      if (this.#epoch[path]! >= before) return;
      let ahead = NONE;
      for (let at = this.#first[this.#pathPrefix[path]!]!; at !== path; at = this.#next[at]!) ahead = at;
      this.#removePath(path, ahead);
    });
  }

  markStale(peer: number): void {
    const counts = this.counts(peer);
    counts.stale = counts.received;
    this.#epochs[peer] = (this.#epochs[peer] ?? 0) + 1;
  }

  /** Asks anew what to make of each path of a peer: its import filter changed. Of many, in several turns, as with `drop`. */
  reimport(peer: number, importOf: (words: PrefixWords, received: number) => number): void {
    if (this.counts(peer).received === 0) return;
    this.#walks = this.#walks.filter((walk) => walk.peer !== peer || walk.does !== "reimport");
    this.#startWalk(peer, "reimport", (path) => {
      const id = this.#pathPrefix[path]!;
      const before = this.#used[path]!;
      this.#setUsed(path, importOf(this.prefixes.words(id), this.#received[path]!));
      if (before !== this.#used[path]) this.#mark(id, DIRTY);
    });
  }

  /** The way to these next hops, by their numbers, changed: what uses them is decided again, and told again. */
  nextHopsChanged(changed: ReadonlySet<number>): void {
    for (let path = 0; path < this.#pathHigh; path += 1) {
      const used = this.#pathPrefix[path] === NONE ? 0 : this.#used[path]!;
      if (used !== 0 && changed.has(this.#sets.hop(used))) this.#mark(this.#pathPrefix[path]!, DIRTY_NEXT_HOP);
    }
  }

  /**
   * Decides dirty prefixes, at most `limit`. Tells `visit` of those whose best path or equal-cost set changed, and
   * `decided` of all of them, as some other path of theirs may have.
   */
  flush(limit: number, visit: BestVisitor, decided: ((id: number) => void) | undefined): void {
    if (this.#walks.length > 0) this.#walk();
    const list = this.#dirtyList;
    const end = Math.min(list.length, this.#decided + limit);
    for (let at = this.#decided; at < end; at += 1) {
      const id = list[at]!;
      const state = this.#state[id]!;
      this.#state[id] = state & EMPTIED;
      this.#decide(id, (state & DIRTY_NEXT_HOP) !== 0, visit);
      decided?.(id);
      if (this.#first[id] === NONE && (state & EMPTIED) === 0) {
        this.#state[id]! |= EMPTIED;
        this.#emptied.push(id);
      }
    }
    this.#decided = end;
    if (end < list.length) return;
    this.#dirtyList = [];
    this.#decided = 0;
  }

  /** Gives the numbers of prefixes without paths free for others. Not to be called while somebody remembers one. */
  reclaim(): void {
    if (this.#emptied.length === 0) return;
    for (const id of this.#emptied) {
      this.#state[id]! &= ~EMPTIED;
      if (this.#first[id] === NONE && this.#state[id] === 0) this.prefixes.remove(id);
    }
    this.#emptied = [];
  }

  /** The number of the set of the best path, or 0. */
  best(id: number): number {
    return this.#bestSet[id] ?? 0;
  }

  /** The set of the best path, or undefined. */
  bestSet(id: number): AttributeSet | undefined {
    const set = this.#bestSet[id] ?? 0;
    return set === 0 ? undefined : this.#sets.get(set);
  }

  /** The peer of the best path, or -1. */
  bestPeer(id: number): number {
    return this.#bestPeer[id] ?? NONE;
  }

  /** Whether other paths are as good as the best, with other next hops. */
  isMultipath(id: number): boolean {
    return this.#multipath.size > 0 && this.#multipath.has(id);
  }

  /** The sets of the best and its equal-cost paths, best first. */
  equalSets(id: number): readonly AttributeSet[] {
    const several = this.#multipath.get(id);
    if (several !== undefined) return several.map((set) => this.#sets.get(set));
    const best = this.bestSet(id);
    return best === undefined ? [] : [best];
  }

  prefixOf(id: number): Prefix {
    return prefixOfWords(this.prefixes.family, this.prefixes.words(id));
  }

  find(prefix: Prefix): number {
    const { w0, w1, w2, w3, length } = wordsOfPrefix(prefix);
    return this.prefixes.find(w0, w1, w2, w3, length);
  }

  paths(id: number): PathView[] {
    const views: PathView[] = [];
    for (let path = this.#first[id] ?? NONE; path >= 0; path = this.#next[path]!) {
      const used = this.#used[path]!;
      views.push({
        peer: this.#pathPeer[path]!,
        pathId: this.#pathId[path]!,
        received: this.#sets.get(this.#received[path]!),
        used: used === 0 ? undefined : this.#sets.get(used),
        stale: this.#isStale(path),
      });
    }
    return views;
  }

  /** All paths that may be used, the best or not, by their numbers. */
  usable(id: number): UsablePath[] {
    const paths: UsablePath[] = [];
    for (let path = this.#first[id] ?? NONE; path >= 0; path = this.#next[path]!) {
      if (!this.#isUsable(path)) continue;
      paths.push({ path, peer: this.#pathPeer[path]!, set: this.#sets.get(this.#used[path]!) });
    }
    return paths;
  }

  #decide(id: number, force: boolean, visit: BestVisitor): void {
    const first = this.#first[id]!;
    if (first !== NONE && this.#next[first] !== NONE) return this.#choose(id, force, visit);
    // Nothing to choose between, as mostly.
    const usable = first !== NONE && this.#isUsable(first);
    if (this.#multipath.size > 0 && this.#setMultipath(id, [])) this.#become(id, usable ? first : NONE, true, visit);
    else this.#become(id, usable ? first : NONE, force, visit);
  }

  #choose(id: number, force: boolean, visit: BestVisitor): void {
    const candidates: Candidate[] = [];
    const paths: number[] = [];
    for (let path = this.#first[id]!; path !== NONE; path = this.#next[path]!) {
      if (!this.#isUsable(path)) continue;
      const set = this.#sets.get(this.#used[path]!);
      candidates.push({ set, peer: this.#peerOf(this.#pathPeer[path]!), pathId: this.#pathId[path]! });
      paths.push(path);
    }
    if (candidates.length === 0) {
      const regrouped = this.#setMultipath(id, []);
      return this.#become(id, NONE, force || regrouped, visit);
    }
    const { best, equal } = decide(candidates);
    const regrouped = this.#setMultipath(id, equal.length > 1 ? this.#distinctHops(best, equal) : []);
    this.#become(id, paths[candidates.indexOf(best)]!, force || regrouped, visit);
  }

  /** Makes a path the best, or none. */
  #become(id: number, path: number, force: boolean, visit: BestVisitor): void {
    const oldSet = this.#bestSet[id]!;
    const oldPeer = this.#bestPeer[id]!;
    const set = path === NONE ? 0 : this.#used[path]!;
    const peer = path === NONE ? NONE : this.#pathPeer[path]!;
    if (set === oldSet && (set === 0 || (!force && peer === oldPeer))) return;
    this.#bestSet[id] = set === 0 ? 0 : this.#sets.retain(set);
    this.#bestPeer[id] = peer;
    visit(id, set, peer, oldPeer);
    if (oldSet !== 0) this.#sets.release(oldSet);
  }

  /** Whether a path may be the best: it was accepted, and its next hop can be reached. */
  #isUsable(path: number): boolean {
    const used = this.#used[path]!;
    return used !== 0 && this.#sets.reachable(used);
  }

  /** The sets of paths with different next hops, best first; none where that leaves one. */
  #distinctHops(best: Candidate, equal: readonly Candidate[]): AttributeSet[] {
    if (best.peer.index === LOCAL_PEER) return [];
    const hops = new Map([[best.set.hop, best.set]]);
    for (const { set } of equal) if (hops.size < this.#maxPaths && !hops.has(set.hop)) hops.set(set.hop, set);
    return hops.size > 1 ? [...hops.values()] : [];
  }

  /** Remembers the equal-cost sets of a prefix, and says whether they are others than before. */
  #setMultipath(id: number, sets: readonly AttributeSet[]): boolean {
    const before = this.#multipath.get(id);
    if (sets.length === 0 && before === undefined) return false;
    const ids = sets.map(({ id: set }) => this.#sets.retain(set));
    if (ids.length === 0) this.#multipath.delete(id);
    else this.#multipath.set(id, ids);
    const same = before?.length === ids.length && before.every((set, index) => set === ids[index]);
    for (const set of before ?? []) this.#sets.release(set);
    return !same;
  }

  #find(id: number, peer: number, pathId: number): number {
    let path = this.#first[id]!;
    while (path !== NONE && (this.#pathPeer[path] !== peer || this.#pathId[path] !== pathId)) path = this.#next[path]!;
    return path;
  }

  #addPath(id: number, peer: number, pathId: number, received: number, used: number): void {
    let path = this.#freePath;
    if (path !== NONE) this.#freePath = this.#next[path]!;
    else {
      if (this.#pathHigh === this.#next.length) this.#growPaths();
      path = this.#pathHigh;
      this.#pathHigh += 1;
    }
    this.#pathPrefix[path] = id;
    this.#pathPeer[path] = peer;
    this.#pathId[path] = pathId;
    this.#received[path] = this.#sets.retain(received);
    this.#epoch[path] = this.#epochs[peer] ?? 0;
    this.#next[path] = this.#first[id]!;
    this.#first[id] = path;
    this.counts(peer).received += 1;
    this.#used[path] = 0;
    this.#setUsed(path, used);
  }

  /** `before` is the path ahead of it in the chain, or -1. */
  #removePath(path: number, before: number): void {
    const id = this.#pathPrefix[path]!;
    if (before === NONE) this.#first[id] = this.#next[path]!;
    else this.#next[before] = this.#next[path]!;
    this.#refresh(path);
    if (this.#used[path] !== 0 || this.#first[id] === NONE) this.#mark(id, DIRTY);
    this.#setUsed(path, 0);
    this.#sets.release(this.#received[path]!);
    this.counts(this.#pathPeer[path]!).received -= 1;
    this.#pathPrefix[path] = NONE;
    this.#next[path] = this.#freePath;
    this.#freePath = path;
  }

  #setUsed(path: number, used: number): void {
    const before = this.#used[path]!;
    if (before === used) return;
    const counts = this.counts(this.#pathPeer[path]!);
    if (used !== 0) {
      this.#sets.retain(used);
      counts.accepted += 1;
    }
    this.#used[path] = used;
    if (before === 0) return;
    this.#sets.release(before);
    counts.accepted -= 1;
  }

  #isStale(path: number): boolean {
    return this.#epoch[path] !== (this.#epochs[this.#pathPeer[path]!] ?? 0);
  }

  /** A path is up to date, or gone: it is stale no longer. */
  #refresh(path: number): void {
    if (!this.#isStale(path)) return;
    const peer = this.#pathPeer[path]!;
    this.#epoch[path] = this.#epochs[peer]!;
    this.counts(peer).stale -= 1;
  }

  #startWalk(peer: number, does: Walk["does"], visit: (path: number) => void): void {
    this.#walks.push({ peer, does, visit, cursor: 0, end: this.#pathHigh });
    this.#walk();
  }

  /** Over all paths: a peer's own list would cost every path 8 bytes for what is rare. */
  #walk(): void {
    let left = STRIDE;
    while (left > 0) {
      const walk = this.#walks[0];
      if (walk === undefined) return;
      const { peer, visit } = walk;
      const end = Math.min(walk.end, walk.cursor + left);
      left -= end - walk.cursor;
      for (let path = walk.cursor; path < end; path += 1) {
        if (this.#pathPeer[path] === peer && this.#pathPrefix[path] !== NONE) visit(path);
      }
      walk.cursor = end;
      if (end === walk.end) this.#walks.shift();
    }
  }

  #mark(id: number, how: number): void {
    const before = this.#state[id]!;
    if ((before & (DIRTY | DIRTY_NEXT_HOP)) === 0) this.#dirtyList.push(id);
    this.#state[id] = before | how;
  }

  #growPrefixes(): void {
    const capacity = this.prefixes.capacity;
    this.#first = grown(this.#first, capacity, NONE);
    this.#bestSet = grown(this.#bestSet, capacity);
    this.#bestPeer = grown(this.#bestPeer, capacity, NONE);
    this.#state = grown(this.#state, capacity);
  }

  #growPaths(): void {
    const capacity = nextCapacity(this.#next.length);
    this.#pathPrefix = grown(this.#pathPrefix, capacity, NONE);
    this.#pathPeer = grown(this.#pathPeer, capacity);
    this.#pathId = grown(this.#pathId, capacity);
    this.#received = grown(this.#received, capacity);
    this.#used = grown(this.#used, capacity);
    this.#epoch = grown(this.#epoch, capacity);
    this.#next = grown(this.#next, capacity);
  }
}
