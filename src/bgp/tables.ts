import { parseAddress, type Address, type Family } from "../ip/address.ts";
import { formatPrefix, type Prefix } from "../ip/prefix.ts";
import { AttributeTable, type AttributeSet } from "./attribute-table.ts";
import { toCanonical } from "./attribute-bytes.ts";
import type { OriginatedRoute, ResolvedNextHop, RouteChange, RouteNextHop } from "./config.ts";
import { FIRST_CHOICE, LAST_RESORT, LOCAL_PEER, type RibPeer } from "./decision.ts";
import type { GroupHost } from "./exporter.ts";
import { policyKey, type ExportPolicy } from "./export-policy.ts";
import { NO_ATTRIBUTES, type FilterOperation } from "./filters.ts";
import { plainCheckOf, type PlainCheck } from "./import-bytes.ts";
import { acceptedAttributes, importRefusal, importRoute, type ImportPolicy } from "./import-policy.ts";
import type { Negotiated } from "./negotiation.ts";
import { NO_HOP } from "./next-hops.ts";
import { walkNlri, wordsOfPrefix, type NlriRange } from "./nlri.ts";
import { Rib, type BestVisitor, type PathView } from "./rib.ts";
import { decodeAnnouncement, splitUpdate, type UpdateContext, type UpdateSections } from "./update.ts";
import { UpdateScanner } from "./update-scan.ts";
import type { Member } from "./update-batch.ts";
import { UpdateGroup } from "./update-group.ts";
import { AddPathGroup } from "./add-path-group.ts";

export interface TablesOptions {
  readonly routerId: number;
  readonly resolve: (address: Address) => ResolvedNextHop | undefined;
  readonly maxPaths: number;
}

/** A peer in the tables, and what to make of what it says. */
export interface TablePeer extends RibPeer {
  imports: { readonly [F in Family]?: ImportPolicy };
}

/** How the UPDATEs of a session are read. */
export interface Reading extends UpdateContext {
  readonly families: readonly Family[];
}

export interface Received {
  readonly endOfRib?: Family;
  /** What was wrong with the message and forgiven, for the log (RFC 7606). */
  readonly problems: readonly string[];
}

/** Peers that are told the same. */
export type Group = UpdateGroup | AddPathGroup;

const FAMILIES: readonly Family[] = [4, 6];
/** Prefixes decided in one turn of the event loop: some milliseconds. */
const TURN = 4096;

export function readingOf({ asOctets, internal, addPathReceive, extendedNextHop, families }: Negotiated): Reading {
  return { asOctets, internal, addPath: new Set(addPathReceive), extendedNextHop, families };
}

/** All that is known of routes, without sockets or clock: messages go in, messages and changes for the kernel come out. */
export class Tables {
  readonly sets: AttributeTable;
  readonly ribs: { readonly [F in Family]: Rib };
  readonly groups = new Map<string, Group>();
  /** While true, learned routes are told to nobody: see `release`. */
  #deferring = false;
  readonly #peers: (TablePeer | undefined)[] = [];
  readonly #gone: number[] = [];
  #lastHops: { hop: number; resolved: ResolvedNextHop; hops: readonly RouteNextHop[] } | undefined;
  readonly #scanner = new UpdateScanner();
  readonly #plainChecks = new WeakMap<ImportPolicy, PlainCheck>();
  #originated = new Map<string, OriginatedRoute>();

  constructor({ routerId, resolve, maxPaths }: TablesOptions) {
    this.sets = new AttributeTable(resolve);
    const peerOf = (index: number): RibPeer => this.peer(index);
    const rib = (family: Family): Rib => new Rib(family, this.sets, peerOf, maxPaths);
    this.ribs = { 4: rib(4), 6: rib(6) };
    const address = parseAddress("0.0.0.0");
    this.addPeer({ name: "local", address, internal: false, client: false, routerId, imports: {} });
  }

  peer(index: number): TablePeer {
    const peer = this.#peers[index];
    if (peer === undefined) throw new RangeError(`there is no peer ${index}`);
    return peer;
  }

  /** The first one is ourselves. */
  addPeer(peer: Omit<TablePeer, "index">): TablePeer {
    const free = this.#peers.findIndex((other, index) => other === undefined && !this.#gone.includes(index));
    const index = free < 0 ? this.#peers.length : free;
    const added = { ...peer, index };
    this.#peers[index] = added;
    return added;
  }

  /** Its routes go, and with the next flush its number. */
  removePeer(index: number): void {
    for (const family of FAMILIES) this.ribs[family].drop(index, "all");
    this.#gone.push(index);
  }

  /** Reads an UPDATE's body into the tables. Throws `ProtocolError` where the session must end, and its routes with it. */
  receive(index: number, reading: Reading, bytes: Uint8Array, start: number, end: number): Received {
    const scanner = this.#scanner;
    if (!scanner.scan(bytes, start, end, reading)) return this.#receiveUnusual(index, reading, bytes, start, end);
    const { withdrawn, announced } = scanner;
    if (withdrawn !== undefined) this.#withdraw(index, reading, withdrawn);
    if (announced === undefined) return NO_PROBLEMS;
    if (!reading.families.includes(announced.family)) return { problems: [notAgreedOn(announced.family)] };
    this.#store(index, announced, this.sets.internBytes(scanner.canonical, 0, scanner.canonicalLength));
    return NO_PROBLEMS;
  }

  /** The clear form, for what is malformed or rare. */
  #receiveUnusual(index: number, reading: Reading, bytes: Uint8Array, start: number, end: number): Received {
    const sections = splitUpdate(bytes, start, end, reading);
    const { withdrawn, announced, unreach, reach, endOfRib } = sections;
    this.#withdraw(index, reading, withdrawn);
    if (unreach !== undefined) this.#withdraw(index, reading, unreach);
    const problems: string[] = [];
    if (announced.start < announced.end) this.#announce(index, reading, sections, announced, problems);
    if (reach !== undefined && reach.nlri.start < reach.nlri.end) {
      this.#announce(index, reading, sections, reach.nlri, problems);
    }
    return { problems, ...(endOfRib !== undefined && { endOfRib }) };
  }

  /** The import filter of a peer changed. */
  reimport(peer: TablePeer, family: Family): void {
    const policy = peer.imports[family];
    if (policy === undefined) return;
    this.ribs[family].reimport(peer.index, (words, received) => {
      const { attributes } = this.sets.get(received);
      const result = importRoute(words, attributes, policy);
      if ("refused" in result) return 0;
      return result.attributes === attributes ? received : this.sets.intern(result.attributes);
    });
  }

  setOrigination(routes: readonly OriginatedRoute[]): void {
    const wanted = new Map(routes.map((route) => [`${formatPrefix(route.prefix)} ${rankOf(route)}`, route]));
    for (const [key, route] of this.#originated) {
      if (wanted.has(key)) continue;
      const { w0, w1, w2, w3, length } = wordsOfPrefix(route.prefix);
      this.ribs[route.prefix.address.family].withdraw(w0, w1, w2, w3, length, LOCAL_PEER, rankOf(route));
    }
    for (const route of wanted.values()) {
      const { prefix, attributes } = route;
      const set = this.sets.intern({ origin: "igp", asPath: [], ...attributes });
      const rib = this.ribs[prefix.address.family];
      const { w0, w1, w2, w3, length } = wordsOfPrefix(prefix);
      rib.announce(rib.add(w0, w1, w2, w3, length), LOCAL_PEER, rankOf(route), set, set);
    }
    this.#originated = wanted;
  }

  recheckNextHops(): void {
    const changed = this.sets.hops.recheck();
    if (changed.size === 0) return;
    for (const family of FAMILIES) this.ribs[family].nextHopsChanged(changed);
  }

  /** Puts a session into the group of those that are told the same; `from` is the group it was in so far. */
  join(policy: ExportPolicy, member: Member, from?: Group): Group {
    const key = policyKey(policy);
    let group = this.groups.get(key);
    if (group === undefined) {
      const host: GroupHost = {
        rib: this.ribs[policy.family],
        sets: this.sets,
        peerOf: (index) => this.peer(index),
        defersLearned: () => this.#deferring,
      };
      group = policy.addPath ? new AddPathGroup(policy, host) : new UpdateGroup(policy, host);
      this.groups.set(key, group);
    }
    if (group === from) return group;
    // Path identifiers are settled when a session begins, so that both groups are of one kind.
    if (group instanceof AddPathGroup) group.join(member, from instanceof AddPathGroup ? from : undefined);
    else group.join(member, from instanceof UpdateGroup ? from : undefined);
    if (from !== undefined) this.leave(from, member);
    return group;
  }

  leave(group: Group, member: Member): void {
    group.leave(member);
    if (group.members.size === 0) this.groups.delete(policyKey(group.policy));
  }

  /** From now until `release`, only our own routes are told (RFC 4724 section 4.1). */
  defer(): void {
    this.#deferring = true;
  }

  release(): void {
    if (!this.#deferring) return;
    this.#deferring = false;
    for (const group of this.groups.values()) group.reconsider();
  }

  /**
   * Decides what changed and tells the peers, up to a bound that keeps the event loop turning. The changes of learned
   * routes are worked out where `collect` asks for them. Says whether there is more to do at once.
   */
  flush(collect: boolean): { changes: RouteChange[]; more: boolean } {
    const changes: RouteChange[] = [];
    let more = false;
    for (const family of FAMILIES) {
      const rib = this.ribs[family];
      const groups = [...this.groups.values()].filter(({ policy }) => policy.family === family);
      const bestChanged: BestVisitor = (id, _set, peer, oldPeer) => {
        for (const group of groups) group.bestChanged(id, peer, oldPeer);
        if (collect && (peer > LOCAL_PEER || oldPeer > LOCAL_PEER)) changes.push(this.#routeChange(rib, id, peer));
      };
      const severalPaths = groups.filter(({ policy }) => policy.addPath);
      const decided = (id: number): void => severalPaths.forEach((group) => group.pathsChanged(id));
      rib.flush(TURN, bestChanged, severalPaths.length === 0 ? undefined : decided);
      for (const group of groups) {
        group.flush();
        if (group.pump()) more = true;
      }
      if (!groups.some(({ remembers }) => remembers)) rib.reclaim();
      if (rib.dirty) more = true;
    }
    if (!more) for (const index of this.#gone.splice(0)) this.#peers[index] = undefined;
    return { changes, more };
  }

  /** Every learned route in use, as a change from nothing. */
  learned(): RouteChange[] {
    const changes: RouteChange[] = [];
    for (const family of FAMILIES) {
      const rib = this.ribs[family];
      for (let id = 0; id < rib.prefixes.high; id += 1) {
        const peer = rib.bestPeer(id);
        if (peer > LOCAL_PEER) changes.push(this.#routeChange(rib, id, peer));
      }
    }
    return changes;
  }

  /** Every path of every peer as it was received, prefix by prefix, with the number of its peer. */
  *paths(): Generator<{ readonly prefix: Prefix; readonly paths: readonly PathView[] }> {
    for (const family of FAMILIES) {
      const rib = this.ribs[family];
      for (let id = 0; id < rib.prefixes.high; id += 1) {
        const paths = rib.paths(id);
        if (paths.length > 0) yield { prefix: rib.prefixOf(id), paths };
      }
    }
  }

  #routeChange(rib: Rib, id: number, peer: number): RouteChange {
    const prefix: Prefix = rib.prefixOf(id);
    const set = rib.bestSet(id);
    if (set === undefined || peer === LOCAL_PEER) return { prefix, nextHops: [] };
    const { attributes } = set;
    return { prefix, nextHops: this.#nextHops(rib, id, set), attributes, peer: this.peer(peer).name };
  }

  /** Routes with one next hop, one after the other, share it. */
  #nextHops(rib: Rib, id: number, set: AttributeSet): readonly RouteNextHop[] {
    if (rib.isMultipath(id)) return nextHopsOf(rib.equalSets(id));
    const resolved = set.hop === NO_HOP ? undefined : this.sets.hops.resolved(set.hop);
    if (resolved === undefined) return [];
    const last = this.#lastHops;
    if (last?.hop === set.hop && last.resolved === resolved) return last.hops;
    const hops = nextHopsOf([set]);
    this.#lastHops = { hop: set.hop, resolved, hops };
    return hops;
  }

  #withdraw(index: number, reading: Reading, nlri: NlriRange): void {
    if (!reading.families.includes(nlri.family)) return;
    const rib = this.ribs[nlri.family];
    walkNlri(nlri, (w0, w1, w2, w3, length, pathId) => rib.withdraw(w0, w1, w2, w3, length, index, pathId));
  }

  #announce(index: number, reading: Reading, sections: UpdateSections, nlri: NlriRange, problems: string[]): void {
    if (!reading.families.includes(nlri.family)) {
      problems.push(notAgreedOn(nlri.family));
      return;
    }
    const { attributes, withdraw, discarded } = decodeAnnouncement(sections, nlri, reading);
    problems.push(...discarded);
    if (withdraw !== undefined) {
      problems.push(`routes treated as withdrawn: ${withdraw}`);
      this.#withdraw(index, reading, nlri);
      return;
    }
    const canonical = toCanonical(attributes);
    this.#store(index, nlri, this.sets.internBytes(canonical, 0, canonical.length));
  }

  /** Puts routes with these attributes into the table, as far as they are believed. */
  #store(index: number, nlri: NlriRange, set: number): void {
    const rib = this.ribs[nlri.family];
    const policy = this.peer(index).imports[nlri.family];
    if (policy === undefined) {
      walkNlri(nlri, (w0, w1, w2, w3, length, pathId) => rib.withdraw(w0, w1, w2, w3, length, index, pathId));
      this.sets.discard(set);
      return;
    }
    const { filter } = policy;
    const plain = this.#isPlain(set, policy);
    const refused = !plain && importRefusal(this.sets.get(set).attributes, policy) !== undefined;
    if (refused || filter.constant !== undefined) {
      const accepted = !refused && filter.constant?.accept === true;
      const used = accepted ? this.#accepted(set, filter.constant.operations, policy, plain) : 0;
      walkNlri(nlri, (w0, w1, w2, w3, length, pathId) => {
        rib.announce(rib.add(w0, w1, w2, w3, length), index, pathId, set, used);
      });
    } else {
      const attributes = filter.readsAttributes ? this.sets.get(set).attributes : NO_ATTRIBUTES;
      let last: readonly FilterOperation[] | undefined;
      let accepted = 0;
      walkNlri(nlri, (w0, w1, w2, w3, length, pathId) => {
        const verdict = filter.evaluate(w0, w1, w2, w3, length, attributes, "peers");
        if (verdict.accept && verdict.operations !== last) {
          last = verdict.operations;
          accepted = this.#accepted(set, last, policy, plain);
        }
        rib.announce(rib.add(w0, w1, w2, w3, length), index, pathId, set, verdict.accept ? accepted : 0);
      });
    }
  }

  /** Whether the protocol has surely nothing against these attributes, and does not change them. */
  #isPlain(set: number, policy: ImportPolicy): boolean {
    let check = this.#plainChecks.get(policy);
    if (check === undefined) this.#plainChecks.set(policy, (check = plainCheckOf(policy)));
    const { store } = this.sets;
    return check(store.slab(set), store.start(set), store.length(set));
  }

  #accepted(set: number, operations: readonly FilterOperation[], policy: ImportPolicy, plain: boolean): number {
    if (plain && operations.length === 0) return set;
    const { attributes } = this.sets.get(set);
    const accepted = acceptedAttributes(attributes, operations, policy);
    return accepted === attributes ? set : this.sets.intern(accepted);
  }
}

const rankOf = ({ lastResort }: OriginatedRoute): number => (lastResort === true ? LAST_RESORT : FIRST_CHOICE);

const NO_PROBLEMS: Received = { problems: [] };

function notAgreedOn(family: Family): string {
  return `routes of IPv${family}, which was not agreed on, are ignored`;
}

/** The next hops of equal-cost paths that can be reached, best first. */
export function nextHopsOf(sets: readonly AttributeSet[]): RouteNextHop[] {
  return sets.flatMap(({ nextHop }) =>
    nextHop?.resolved === undefined ? [] : [{ nextHop: nextHop.address, ...nextHop.resolved }],
  );
}
