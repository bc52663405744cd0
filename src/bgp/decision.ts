import { compareAddresses, formatAddress, type Address } from "../ip/address.ts";
import type { AttributeSet } from "./attribute-table.ts";

/** Whom a path came from. */
export interface RibPeer {
  /** Small number, 0 for ourselves. */
  readonly index: number;
  readonly name: string;
  readonly address: Address;
  readonly internal: boolean;
  /** RFC 4456: what it says is passed on to all our iBGP peers. */
  readonly client: boolean;
  /** Of its last OPEN. */
  routerId: number;
}

export const LOCAL_PEER = 0;
/** In place of path identifiers, of our own paths: those that we stand for, and those of `OriginatedRoute.lastResort`. */
export const FIRST_CHOICE = 0;
export const LAST_RESORT = 1;

export interface Candidate {
  readonly set: AttributeSet;
  readonly peer: RibPeer;
  /** As the peer gave it (RFC 7911), or 0. */
  readonly pathId: number;
}

export interface Decision {
  readonly best: Candidate;
  /** The best, and those that differ only by the tie-breakers: good for equal-cost multipath. */
  readonly equal: readonly Candidate[];
}

type Compare = (a: Candidate, b: Candidate) => number;

/**
 * RFC 4271 section 9.1.2.2 as amended by RFC 4456 section 9: of two paths, less than zero says that the first is better.
 * MED stands apart, as it compares only paths by the same neighbouring AS, which is no order on all of them.
 */
const BEFORE_MED: readonly { readonly by: string; readonly compare: Compare }[] = [
  { by: "our own route comes first", compare: (a, b) => Number(isOwn(b)) - Number(isOwn(a)) },
  { by: "what others wrote into the kernel comes last", compare: (a, b) => Number(isLast(a)) - Number(isLast(b)) },
  { by: "higher local preference", compare: (a, b) => b.set.localPref - a.set.localPref },
  { by: "shorter AS path", compare: (a, b) => a.set.pathLength - b.set.pathLength },
  { by: "better origin", compare: (a, b) => a.set.origin - b.set.origin },
];
const AFTER_MED: typeof BEFORE_MED = [
  { by: "eBGP before iBGP", compare: (a, b) => Number(a.peer.internal) - Number(b.peer.internal) },
  { by: "nearer next hop", compare: (a, b) => metric(a) - metric(b) },
];
const TIE_BREAKERS: typeof BEFORE_MED = [
  { by: "lower router ID", compare: (a, b) => originator(a) - originator(b) },
  { by: "shorter cluster list", compare: (a, b) => a.set.clusterLength - b.set.clusterLength },
  { by: "lower peer address", compare: (a, b) => compareAddresses(a.peer.address, b.peer.address) },
  { by: "lower path identifier", compare: (a, b) => a.pathId - b.pathId },
];

/** Chooses among paths that may be used, at least one. Of paths equal in everything, the first. */
export function decide(candidates: readonly Candidate[]): Decision {
  const [only] = candidates;
  if (only === undefined) throw new RangeError("there is nothing to decide between");
  if (candidates.length === 1) return { best: only, equal: candidates };
  let left = leastBy(candidates, BEFORE_MED);
  if (left.length > 1) left = withoutWorseMed(left);
  if (left.length > 1) left = leastBy(left, AFTER_MED);
  return { best: leastBy(left, TIE_BREAKERS)[0] ?? only, equal: left };
}

/** In words, why `loser` is not the best where `best` is. */
export function explainLoss(best: Candidate, loser: Candidate): string {
  const sameAs = best.set.neighborAsn === loser.set.neighborAsn;
  const steps = [
    ...BEFORE_MED,
    { by: "lower MED", compare: (a: Candidate, b: Candidate) => (sameAs ? a.set.med - b.set.med : 0) },
    ...AFTER_MED,
    ...TIE_BREAKERS,
  ];
  const step = steps.find(({ compare }) => compare(best, loser) < 0);
  const name = isLocal(best) ? "our own" : `the path from ${best.peer.name} (${formatAddress(best.peer.address)})`;
  return step === undefined ? `${name} was there first` : `${name} is better: ${step.by}`;
}

/** One pass: those that no other is better than, in the lexicographic order of the steps. */
function leastBy(candidates: readonly Candidate[], steps: typeof BEFORE_MED): Candidate[] {
  const least: Candidate[] = [];
  for (const candidate of candidates) {
    const champion = least[0];
    const order = champion === undefined ? 0 : compareBy(candidate, champion, steps);
    if (order < 0) least.length = 0;
    if (order <= 0) least.push(candidate);
  }
  return least;
}

function compareBy(a: Candidate, b: Candidate, steps: typeof BEFORE_MED): number {
  for (const { compare } of steps) {
    const order = compare(a, b);
    if (order !== 0) return order;
  }
  return 0;
}

/** RFC 4271 section 9.1.2.2 (c). A missing MED counts as 0. */
function withoutWorseMed(candidates: readonly Candidate[]): Candidate[] {
  const lowest = new Map<number, number>();
  for (const { set } of candidates) {
    lowest.set(set.neighborAsn, Math.min(set.med, lowest.get(set.neighborAsn) ?? Infinity));
  }
  return candidates.filter(({ set }) => set.med === lowest.get(set.neighborAsn));
}

function isLocal({ peer }: Candidate): boolean {
  return peer.index === LOCAL_PEER;
}

function isOwn(candidate: Candidate): boolean {
  return isLocal(candidate) && candidate.pathId !== LAST_RESORT;
}

function isLast(candidate: Candidate): boolean {
  return isLocal(candidate) && candidate.pathId === LAST_RESORT;
}

function metric({ set }: Candidate): number {
  return set.nextHop?.resolved?.metric ?? 0;
}

/** RFC 4456 section 9: a reflected route counts as from whoever brought it into the AS. */
function originator({ set, peer }: Candidate): number {
  return set.attributes.originatorId ?? peer.routerId;
}
