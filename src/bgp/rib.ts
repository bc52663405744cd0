import type { Family } from "../ip/address.ts";
import type { Prefix } from "../ip/prefix.ts";
import type { AttributeSet, AttributeTable, NextHop } from "./attribute-table.ts";
import { decide, LOCAL_PEER, type Candidate, type RibPeer } from "./decision.ts";
import { prefixOfWords, wordsOfPrefix, type PrefixWords } from "./nlri.ts";
import { grown, PrefixTable } from "./prefix-table.ts";

const NONE = -1;
const CLEAN = 0;
const DIRTY = 1;
/** The routes out of the table must be told again even if the best path stays. */
const DIRTY_NEXT_HOP = 2;

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

/** Told of each prefix whose best path changed. Peers are -1 where there is or was no path. */
export type BestVisitor = (id: number, set: AttributeSet | undefined, peer: number, oldPeer: number) => void;

/**
 * Adj-RIB-In of all peers and Loc-RIB of one family: a chain of paths for each prefix, all in typed arrays that index
 * each other. Changes mark prefixes as dirty; `flush` decides them, however many changes there were.
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
  #dirty: Uint8Array;
  /** Attribute sets of all equal-cost paths, best first, for the few prefixes that have several. */
  readonly #multipath = new Map<number, readonly number[]>();

  // By number of path.
  #pathPrefix: Int32Array;
  #pathPeer: Uint16Array;
  #pathId: Uint32Array;
  #received: Uint32Array;
  #used: Uint32Array;
  #stale: Uint8Array;
  #next: Int32Array;
  #pathHigh = 0;
  #freePath = NONE;

  #dirtyList: number[] = [];
  /** Prefixes that have lost their last path. */
  readonly #emptied = new Set<number>();
  readonly #counts: (PathCounts | undefined)[] = [];

  constructor(family: Family, sets: AttributeTable, peerOf: (index: number) => RibPeer, maxPaths: number) {
    this.prefixes = new PrefixTable(family);
    this.#sets = sets;
    this.#peerOf = peerOf;
    this.#maxPaths = maxPaths;
    const capacity = this.prefixes.capacity;
    this.#first = new Int32Array(capacity).fill(NONE);
    this.#bestSet = new Uint32Array(capacity);
    this.#bestPeer = new Int32Array(capacity).fill(NONE);
    this.#dirty = new Uint8Array(capacity);
    this.#pathPrefix = new Int32Array(capacity).fill(NONE);
    this.#pathPeer = new Uint16Array(capacity);
    this.#pathId = new Uint32Array(capacity);
    this.#received = new Uint32Array(capacity);
    this.#used = new Uint32Array(capacity);
    this.#stale = new Uint8Array(capacity);
    this.#next = new Int32Array(capacity);
  }

  /** Whether `flush` has something to do. */
  get dirty(): boolean {
    return this.#dirtyList.length > 0;
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

  /** A peer's path to a prefix is this now. `used` is undefined where the import filter refused it. */
  announce(id: number, peer: number, pathId: number, received: AttributeSet, used: AttributeSet | undefined): void {
    const path = this.#find(id, peer, pathId);
    if (path === NONE) {
      this.#addPath(id, peer, pathId, received, used);
      this.#mark(id, DIRTY);
      return;
    }
    this.#setStale(path, 0);
    const before = this.#used[path]!;
    if (this.#received[path] !== received.id) {
      const old = this.#received[path]!;
      this.#received[path] = this.#sets.retain(received);
      this.#sets.release(old);
    }
    this.#setUsed(path, used);
    if (before !== this.#used[path]) this.#mark(id, DIRTY);
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

  /** Removes the paths of a peer: all, or those that are still marked as stale. */
  drop(peer: number, only: "all" | "stale"): void {
    this.#forPaths(peer, (path) => {
      if (only === "stale" && this.#stale[path] === 0) return;
      const id = this.#pathPrefix[path]!;
      let before = NONE;
      for (let at = this.#first[id]!; at !== path; at = this.#next[at]!) before = at;
      this.#removePath(path, before);
    });
  }

  markStale(peer: number): void {
    this.#forPaths(peer, (path) => this.#setStale(path, 1));
  }

  /** Asks anew what to make of each path of a peer: its import filter changed. */
  reimport(peer: number, importOf: (words: PrefixWords, received: AttributeSet) => AttributeSet | undefined): void {
    this.#forPaths(peer, (path) => {
      const id = this.#pathPrefix[path]!;
      const before = this.#used[path]!;
      this.#setUsed(path, importOf(this.prefixes.words(id), this.#sets.get(this.#received[path]!)));
      if (before !== this.#used[path]) this.#mark(id, DIRTY);
    });
  }

  /** The way to these next hops changed: what uses them is decided again, and told again. */
  nextHopsChanged(changed: ReadonlySet<NextHop>): void {
    for (let path = 0; path < this.#pathHigh; path += 1) {
      const used = this.#pathPrefix[path] === NONE ? 0 : this.#used[path]!;
      if (used === 0) continue;
      const hop = this.#sets.get(used).nextHop;
      if (hop !== undefined && changed.has(hop)) this.#mark(this.#pathPrefix[path]!, DIRTY_NEXT_HOP);
    }
  }

  /**
   * Decides dirty prefixes, at most `limit`. Tells `visit` of those whose best path or equal-cost set changed, and
   * `decided` of all of them, as some other path of theirs may have.
   */
  flush(limit: number, visit: BestVisitor, decided: (id: number) => void): void {
    const batch = this.#dirtyList.length <= limit ? this.#dirtyList : this.#dirtyList.splice(0, limit);
    if (batch === this.#dirtyList) this.#dirtyList = [];
    for (const id of batch) {
      const force = this.#dirty[id] === DIRTY_NEXT_HOP;
      this.#dirty[id] = CLEAN;
      this.#decide(id, force, visit);
      decided(id);
      if (this.#first[id] === NONE) this.#emptied.add(id);
    }
  }

  /** Gives the numbers of prefixes without paths free for others. Not to be called while somebody remembers one. */
  reclaim(): void {
    for (const id of this.#emptied) {
      if (this.#first[id] === NONE && this.#dirty[id] === CLEAN) this.prefixes.remove(id);
    }
    this.#emptied.clear();
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
        stale: this.#stale[path] !== 0,
      });
    }
    return views;
  }

  /** All paths that may be used, the best or not, by their numbers. */
  usable(id: number): UsablePath[] {
    const paths: UsablePath[] = [];
    for (let path = this.#first[id] ?? NONE; path >= 0; path = this.#next[path]!) {
      const set = this.#usableSet(path);
      if (set !== undefined) paths.push({ path, peer: this.#pathPeer[path]!, set });
    }
    return paths;
  }

  #decide(id: number, force: boolean, visit: BestVisitor): void {
    const oldSet = this.#bestSet[id]!;
    const oldPeer = this.#bestPeer[id]!;
    const candidates = this.#candidates(id);
    if (candidates.length === 0) {
      if (oldSet === 0) return;
      this.#setMultipath(id, []);
      this.#bestSet[id] = 0;
      this.#bestPeer[id] = NONE;
      visit(id, undefined, NONE, oldPeer);
      this.#sets.release(oldSet);
      return;
    }
    const { best, equal } = decide(candidates);
    const regrouped = this.#setMultipath(id, equal.length > 1 ? this.#distinctHops(best, equal) : []);
    if (!force && !regrouped && oldSet === best.set.id && oldPeer === best.peer.index) return;
    this.#bestSet[id] = this.#sets.retain(best.set);
    this.#bestPeer[id] = best.peer.index;
    visit(id, best.set, best.peer.index, oldPeer);
    if (oldSet !== 0) this.#sets.release(oldSet);
  }

  #candidates(id: number): Candidate[] {
    const candidates: Candidate[] = [];
    for (let path = this.#first[id]!; path !== NONE; path = this.#next[path]!) {
      const set = this.#usableSet(path);
      if (set === undefined) continue;
      candidates.push({ set, peer: this.#peerOf(this.#pathPeer[path]!), pathId: this.#pathId[path]! });
    }
    return candidates;
  }

  /** What a path that may be used says: it was accepted, and its next hop can be reached. */
  #usableSet(path: number): AttributeSet | undefined {
    const used = this.#used[path]!;
    if (used === 0) return undefined;
    const set = this.#sets.get(used);
    return set.nextHop !== undefined && set.nextHop.resolved === undefined ? undefined : set;
  }

  /** The sets of paths with different next hops, best first; none where that leaves one. */
  #distinctHops(best: Candidate, equal: readonly Candidate[]): AttributeSet[] {
    if (best.peer.index === LOCAL_PEER) return [];
    const hops = new Map([[best.set.nextHop, best.set]]);
    for (const { set } of equal) if (hops.size < this.#maxPaths && !hops.has(set.nextHop)) hops.set(set.nextHop, set);
    return hops.size > 1 ? [...hops.values()] : [];
  }

  /** Remembers the equal-cost sets of a prefix, and says whether they are others than before. */
  #setMultipath(id: number, sets: readonly AttributeSet[]): boolean {
    const before = this.#multipath.get(id);
    if (sets.length === 0 && before === undefined) return false;
    const ids = sets.map((set) => this.#sets.retain(set));
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

  #addPath(id: number, peer: number, pathId: number, received: AttributeSet, used: AttributeSet | undefined): void {
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
    this.#stale[path] = 0;
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
    this.#setStale(path, 0);
    if (this.#used[path] !== 0 || this.#first[id] === NONE) this.#mark(id, DIRTY);
    this.#setUsed(path, undefined);
    this.#sets.release(this.#received[path]!);
    this.counts(this.#pathPeer[path]!).received -= 1;
    this.#pathPrefix[path] = NONE;
    this.#next[path] = this.#freePath;
    this.#freePath = path;
  }

  #setUsed(path: number, used: AttributeSet | undefined): void {
    const before = this.#used[path]!;
    if (before === (used?.id ?? 0)) return;
    this.#used[path] = used === undefined ? 0 : this.#sets.retain(used);
    if (before !== 0) this.#sets.release(before);
    this.counts(this.#pathPeer[path]!).accepted += Number(used !== undefined) - Number(before !== 0);
  }

  #setStale(path: number, stale: 0 | 1): void {
    this.counts(this.#pathPeer[path]!).stale += stale - this.#stale[path]!;
    this.#stale[path] = stale;
  }

  /** A walk over all paths: a peer's own list would cost every path 8 bytes for what is rare. */
  #forPaths(peer: number, visit: (path: number) => void): void {
    if (this.counts(peer).received === 0) return;
    for (let path = 0; path < this.#pathHigh; path += 1) {
      if (this.#pathPeer[path] === peer && this.#pathPrefix[path] !== NONE) visit(path);
    }
  }

  #mark(id: number, how: number): void {
    const before = this.#dirty[id]!;
    if (before === CLEAN) this.#dirtyList.push(id);
    if (how > before) this.#dirty[id] = how;
  }

  #growPrefixes(): void {
    const capacity = this.prefixes.capacity;
    this.#first = grown(this.#first, capacity, NONE);
    this.#bestSet = grown(this.#bestSet, capacity);
    this.#bestPeer = grown(this.#bestPeer, capacity, NONE);
    this.#dirty = grown(this.#dirty, capacity);
  }

  #growPaths(): void {
    const capacity = this.#next.length * 2;
    this.#pathPrefix = grown(this.#pathPrefix, capacity, NONE);
    this.#pathPeer = grown(this.#pathPeer, capacity);
    this.#pathId = grown(this.#pathId, capacity);
    this.#received = grown(this.#received, capacity);
    this.#used = grown(this.#used, capacity);
    this.#stale = grown(this.#stale, capacity);
    this.#next = grown(this.#next, capacity);
  }
}
