import { formatAddress, sameAddress, type Address } from "../ip/address.ts";
import { type EchoRefusal, SHORTEST } from "../dataplane/pathProbe.ts";

/** One way to another node, tried out: does it carry packets, how large may they be, and if not, what stands in the way. */

/** How packets to the other node's pods travel. */
export type PathKind = "none" | "ipip" | "vxlan" | "flannel udp";

export interface Path {
  /** The other node's name. */
  readonly node: string;
  readonly kind: PathKind;
  /** UDP port of the encapsulation, where it has one. */
  readonly port?: number;
  readonly device: string;
  /** What is asked: an address of the other node behind the encapsulation, or of one of its pods. */
  readonly target: Address;
  /**
   * The target is behind the other node, which answers for it: packets are sent with so few hops that they end there, and
   * no pod sees any.
   */
  readonly isPod: boolean;
  /** The other node's own address. */
  readonly nodeAddress: Address;
  /** The largest packet that a pod sends there. Bytes. */
  readonly mtu: number;
}

/**
 * `reachable`: the largest packet passes. `too large`: smaller ones do. `blocked`: nothing passes, though the node can be
 * reached. `down`: the node itself does not answer. `unsure`: what was seen fits more than one of these.
 */
export type Verdict = "reachable" | "too large" | "blocked" | "down" | "unsure";

export interface Finding {
  readonly verdict: Verdict;
  /** The largest packet that passes, in bytes; null where none does, or none was seen. */
  readonly largest: number | null;
  /** For people; empty where all is well. */
  readonly text: string;
  /** Milliseconds; null where nothing came back. */
  readonly roundTrip: number | null;
}

/** What came back of one packet. Structurally that of `dataplane/pathProbe.io.ts`. */
export type Outcome =
  | { readonly kind: "reply"; readonly from: Address; readonly milliseconds: number }
  | { readonly kind: "error"; readonly from: Address; readonly reason: EchoRefusal; readonly milliseconds: number }
  | { readonly kind: "silence" }
  | { readonly kind: "not sent"; readonly code: string; readonly reason: string };

export interface Asked {
  readonly to: Address;
  readonly length: number;
  readonly hops?: number;
  readonly timeoutMs: number;
}

/** The world, as far as it is asked. */
export interface PathWorld {
  readonly self: string;
  echo(asked: Asked): Promise<Outcome>;
  /** Whether the host answers TCP, be it with a refusal: for nodes that do not answer echoes. */
  answersTcp(address: Address): Promise<boolean>;
}

/** Echoes may be lost, and the first one may wait for an address to be resolved. */
const TRIES = 3;
const SHORT_TIMEOUT_MS = 500;
/** How much longer than the round trip that was seen a larger packet may take. */
const PATIENCE = { factor: 8, least: 150, most: SHORT_TIMEOUT_MS } as const;
/** Routers between two nodes of a cluster. */
const MAX_HOPS = 8;
/** Routers in a row that say nothing, before they are taken for the end: some never do, most only so often a second. */
const MUTE_ROUTERS = 2;
const USUAL_HOPS = 64;

/** Packets of `Path.mtu` bytes first: where one comes back, that was all. */
export async function examine(world: PathWorld, path: Path): Promise<Finding> {
  const hops = path.isPod ? await countHops(world, path) : undefined;
  if (typeof hops === "object") return hops;
  const passes = (length: number, timeoutMs: number): Promise<Passage> =>
    tryPacket(world, path, hops, length, timeoutMs);

  const full = await severalTimes(2, () => passes(path.mtu, SHORT_TIMEOUT_MS));
  if (full.passed) return { verdict: "reachable", largest: path.mtu, text: "", roundTrip: full.milliseconds };
  const small = await severalTimes(TRIES, () => passes(SHORTEST[path.target.family], SHORT_TIMEOUT_MS));
  if (!small.passed) return explainSilence(world, path, small.told);
  const largest = await findLargest(path, full.told?.mtu ?? 0, small.milliseconds, passes);
  const [passing, mtu] = [formatBytes(largest), formatBytes(path.mtu)];
  return {
    verdict: "too large",
    largest,
    text: `packets over ${passing} bytes do not pass between ${world.self} and ${path.node} though the MTU is ${mtu}`,
    roundTrip: small.milliseconds,
  };
}

type Passage =
  | { readonly passed: true; readonly milliseconds: number }
  | { readonly passed: false; readonly told?: Told | undefined };

/** What was said of a packet that does not pass: who says what; and of one that is too large, what is not. */
interface Told {
  readonly sentence: string;
  readonly mtu?: number;
}

function toldBy(outcome: Outcome): Told | undefined {
  if (outcome.kind === "not sent") return { sentence: outcome.reason };
  if (outcome.kind !== "error") return undefined;
  const { from, reason } = outcome;
  if (typeof reason === "object")
    return { sentence: `${formatAddress(from)} says that it is too large`, mtu: reason.mtu };
  return { sentence: `${formatAddress(from)} says "${reason === "expired" ? "time exceeded" : reason}"` };
}

async function tryPacket(
  world: PathWorld,
  { target, isPod, nodeAddress }: Path,
  hops: number | undefined,
  length: number,
  timeoutMs: number,
): Promise<Passage> {
  const outcome = await world.echo({ to: target, length, timeoutMs, ...(hops !== undefined && { hops }) });
  if (outcome.kind === "reply") return { passed: true, milliseconds: outcome.milliseconds };
  // Whatever the other node says of a packet for its pods: it has the packet.
  if (isPod && outcome.kind === "error" && sameAddress(outcome.from, nodeAddress))
    return { passed: true, milliseconds: outcome.milliseconds };
  return { passed: false, told: toldBy(outcome) };
}

/** Until one has passed, or is said to be too large, of which nobody changes his mind. */
async function severalTimes(times: number, work: () => Promise<Passage>): Promise<Passage> {
  let told: Told | undefined;
  for (let attempt = 0; attempt < times; attempt += 1) {
    const passage = await work();
    if (passage.passed || passage.told?.mtu !== undefined) return passage;
    told = passage.told ?? told;
  }
  return { passed: false, told };
}

/** How far away the other node is, by letting packets for its pod end one hop further each time. */
async function countHops(world: PathWorld, path: Path): Promise<number | Finding> {
  const { target, nodeAddress, node } = path;
  const length = SHORTEST[target.family];
  let silent = 0;
  for (let hops = 1; hops <= MAX_HOPS && silent < MUTE_ROUTERS; hops += 1) {
    let outcome: Outcome = { kind: "silence" };
    for (let attempt = 0; attempt < TRIES && outcome.kind === "silence"; attempt += 1) {
      outcome = await world.echo({ to: target, length, hops, timeoutMs: SHORT_TIMEOUT_MS });
    }
    if (outcome.kind === "reply" || (outcome.kind === "error" && sameAddress(outcome.from, nodeAddress))) return hops;
    silent = outcome.kind === "silence" ? silent + 1 : 0;
    if (outcome.kind === "silence") continue;
    if (outcome.kind === "not sent" || outcome.reason !== "expired")
      return explainSilence(world, path, toldBy(outcome));
  }
  // Routers need not say that a packet has ended with them: the pod itself may answer, if policy lets it.
  const direct = await world.echo({ to: target, length, timeoutMs: SHORT_TIMEOUT_MS });
  if (direct.kind === "reply") return USUAL_HOPS;
  const finding = await explainSilence(world, path, toldBy(direct));
  if (finding.verdict !== "blocked" || direct.kind !== "silence") return finding;
  const text = `no answer to packets for ${formatAddress(target)}, a pod's on ${node}, which answers itself: routers between may not know the way to it`;
  return { ...finding, verdict: "unsure", text };
}

/** Nothing passes: is the node there at all, and if so, what is it that does not get through? */
async function explainSilence(world: PathWorld, path: Path, told: Told | undefined): Promise<Finding> {
  const { node, nodeAddress, target } = path;
  const nothing = { largest: null, roundTrip: null };
  const at = formatAddress(nodeAddress);
  const length = SHORTEST[nodeAddress.family];
  const itself = await severalTimes(TRIES, async () => {
    const outcome = await world.echo({ to: nodeAddress, length, timeoutMs: SHORT_TIMEOUT_MS });
    return outcome.kind === "reply" ? { passed: true, milliseconds: outcome.milliseconds } : { passed: false };
  });
  if (!itself.passed) {
    if (!(await world.answersTcp(nodeAddress)))
      return { ...nothing, verdict: "down", text: `${node} does not answer at ${at}: it is down, or cut off` };
    const text = `${node} answers TCP at ${at} but no ICMP: whether ${nameOf(path)} passes cannot be told`;
    return { ...nothing, verdict: "unsure", text };
  }
  const between = `between ${world.self} and ${node}`;
  if (path.kind !== "none") return { ...nothing, verdict: "blocked", text: `${nameOf(path)} does not pass ${between}` };
  const packets = `packets for ${formatAddress(target)}${path.isPod ? ", a pod's," : ""}`;
  const reason = told === undefined ? "" : `: ${told.sentence}`;
  return { ...nothing, verdict: "blocked", text: `${packets} do not pass ${between}${reason}` };
}

/** Between the shortest packet, which passes, and the longest, which does not. `said` is what a router has named, or 0. */
async function findLargest(
  { mtu, target }: Path,
  said: number,
  roundTrip: number,
  passes: (length: number, timeoutMs: number) => Promise<Passage>,
): Promise<number> {
  const timeoutMs = Math.min(PATIENCE.most, Math.max(PATIENCE.least, roundTrip * PATIENCE.factor));
  const fits = async (length: number): Promise<boolean> =>
    (await severalTimes(2, () => passes(length, timeoutMs))).passed;
  let [low, high] = [SHORTEST[target.family], mtu];
  // A router is right nearly always: then the next larger does not pass, and that was all.
  if (said > low && said < high) {
    if (await fits(said)) low = said;
    else high = said;
    if (low === said && said + 1 < high && !(await fits(said + 1))) high = said + 1;
  }
  while (high - low > 1) {
    const length = Math.floor((low + high) / 2);
    if (await fits(length)) low = length;
    else high = length;
  }
  return low;
}

/** What does not get through, in the words of whoever sets up a firewall. */
function nameOf({ kind, port }: Path): string {
  switch (kind) {
    case "ipip":
      return "IP protocol 4";
    case "vxlan":
    case "flannel udp":
      return `UDP ${port}`;
    case "none":
      return "pods' traffic";
  }
}

/** `1,450` */
const formatBytes = (count: number): string => String(count).replaceAll(/\B(?=(\d{3})+$)/g, ",");
