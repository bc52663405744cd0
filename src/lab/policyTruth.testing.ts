/** Real connections of a lab beside what the evaluator says of them. */
import type { Datastore } from "../datastore/datastore.ts";
import { formatAddress } from "../ip/address.ts";
import { isPolicyKind, updateOf, type PolicyObject } from "../policy/convert.ts";
import { podEndpointId } from "../policy/convertEndpoint.ts";
import { evaluatorOf } from "../policy/evaluate.ts";
import { PROTOCOL } from "../policy/model.ts";
import { applyUpdate, emptyWorld, type World } from "../policy/world.ts";
import { felixSettings } from "../resources/config.ts";
import { KIND, type KindId } from "../resources/registry.ts";
import type { Pod } from "../resources/workload.ts";
import { podNamespace } from "./files.ts";
import { planProbe, podName, type Cell, type Protocol } from "./matrix.ts";
import { probe } from "./probe.io.ts";

const KINDS = (Object.keys(KIND) as KindId[]).filter((kind) => isPolicyKind(kind));

/** All that the datastore says about policy. */
export async function policyWorld(datastore: Pick<Datastore, "list">): Promise<World> {
  const world = emptyWorld(felixSettings({}));
  for (const kind of KINDS) {
    for (const item of (await datastore.list(kind)).items) {
      applyUpdate(world, updateOf({ id: kind, item } as unknown as PolicyObject, { interfacePrefix: "cali" }));
    }
  }
  return world;
}

/** One connection that was tried, and what should have come of it. */
export interface Tried {
  /** `shop/web to shop/db (10.1.0.1) TCP 80` */
  readonly name: string;
  readonly connected: boolean;
  readonly allowed: boolean;
}

/** Tries every pair of pods that have their own network, at all their ports, in every protocol, all at once. */
export function tryAll(
  lab: string,
  pods: readonly Pod[],
  world: World,
  { protocols = ["TCP", "UDP", "ICMP"], timeoutMs = 300 }: { protocols?: readonly Protocol[]; timeoutMs?: number } = {},
): Tried[] {
  const own = pods.filter(({ spec }) => spec.hostNetwork !== true);
  const cells = protocols.flatMap((protocol) =>
    planProbe(own, { protocol, port: undefined, from: undefined, to: undefined }),
  );
  const attempt = (of: readonly Cell[], withinMs: number): boolean[] =>
    probe(
      of.map(({ from, ...target }) => ({
        netns: podNamespace(lab, from.metadata.namespace ?? "default", from.metadata.name),
        ...target,
      })),
      withinMs,
    );
  const evaluate = evaluatorOf(world);
  const allowed = cells.map((cell) => evaluate(flowOf(cell)).allowed);
  const connected = attempt(cells, timeoutMs);
  // On a busy machine an answer may come late; what is held back is so the second time too.
  const missing = cells.filter((_, at) => allowed[at] === true && connected[at] !== true);
  const again = missing.length === 0 ? [] : attempt(missing, 3 * timeoutMs);
  const late = new Set(missing.filter((_, at) => again[at] === true));
  return cells.map((cell, at) => {
    const { from, to, address, protocol, port } = cell;
    return {
      name: `${podName(from)} to ${podName(to)} (${formatAddress(address)}) ${protocol} ${port}`,
      connected: connected[at] === true || late.has(cell),
      allowed: allowed[at] ?? false,
    };
  });
}

function flowOf({ from, to, address, protocol, port }: Cell): Parameters<ReturnType<typeof evaluatorOf>>[0] {
  const { family } = address;
  const endpoint = ({ metadata, spec }: Pod): { endpoint: string } => ({
    endpoint: podEndpointId(metadata.namespace, metadata.name, spec.nodeName ?? ""),
  });
  const sides = { source: endpoint(from), destination: endpoint(to), family };
  if (protocol !== "ICMP") {
    return { ...sides, protocol: PROTOCOL[protocol], sourcePort: 40_000, destinationPort: port };
  }
  return {
    ...sides,
    protocol: family === 4 ? PROTOCOL.ICMP : PROTOCOL.ICMPv6,
    icmp: { type: family === 4 ? 8 : 128, code: 0 },
  };
}

/** One line for each, to compare and to show. */
export const outcomes = (tried: readonly Tried[], of: "connected" | "allowed"): string[] =>
  tried.map((each) => `${each.name}: ${each[of] ? "connected" : "held back"}`);
