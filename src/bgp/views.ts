import type { Family } from "../ip/address.ts";
import { comparePrefixes, formatPrefix, type Prefix } from "../ip/prefix.ts";
import type { RouteQuery, RouteView } from "./config.ts";
import { decide, explainLoss, LOCAL_PEER, type Candidate } from "./decision.ts";
import { importRoute } from "./import-policy.ts";
import type { PathView, Rib } from "./rib.ts";
import { nextHopsOf, type Group, type Tables } from "./tables.ts";

/** A peer that is being told routes, for the view `out`. */
export interface Listening {
  readonly index: number;
  readonly name: string;
  readonly groups: { readonly [F in Family]?: Group };
}

const FAMILIES: readonly Family[] = [4, 6];

/** The routes that a query asks for, in the order of their prefixes. */
export function routeViews(tables: Tables, listening: readonly Listening[], query: RouteQuery): RouteView[] {
  const found: { prefix: Prefix; view: RouteView }[] = [];
  for (const family of FAMILIES) {
    if ((query.family ?? family) !== family || (query.prefix?.address.family ?? family) !== family) continue;
    const rib = tables.ribs[family];
    for (const id of idsOf(rib, query)) {
      const prefix = rib.prefixOf(id);
      const views = query.view === "out" ? outOf(tables, rib, id, listening, query) : pathsOf(tables, rib, id, query);
      for (const view of views) found.push({ prefix, view });
    }
  }
  return found.toSorted((a, b) => comparePrefixes(a.prefix, b.prefix)).map(({ view }) => view);
}

function idsOf(rib: Rib, { prefix }: RouteQuery): number[] {
  if (prefix !== undefined) return [rib.find(prefix)].filter((id) => id >= 0);
  return Array.from({ length: rib.prefixes.high }, (_, id) => id);
}

function pathsOf(tables: Tables, rib: Rib, id: number, query: RouteQuery): RouteView[] {
  const paths = rib.paths(id);
  const usable = paths.flatMap((path) => candidateOf(tables, path) ?? []);
  const best = usable.length === 0 ? undefined : decide(usable).best;
  return paths
    .filter((path) => query.peer === undefined || tables.peer(path.peer).name === query.peer)
    .filter((path) => query.view === "best" || path.peer !== LOCAL_PEER)
    .map((path) => {
      const set = path.used ?? path.received;
      const judgement = query.view === "in" ? judgeIn(tables, rib, id, path) : judgeBest(tables, path, best);
      return {
        prefix: formatPrefix(rib.prefixOf(id)),
        from: tables.peer(path.peer).name,
        ...judgement,
        ...(path.pathId !== 0 && path.peer !== LOCAL_PEER && { pathId: path.pathId }),
        stale: path.stale,
        attributes: set.attributes,
        nextHops: nextHopsOf([set]),
      };
    });
}

function judgeIn(tables: Tables, rib: Rib, id: number, path: PathView): { chosen: boolean; reason: string } {
  const policy = tables.peer(path.peer).imports[rib.prefixes.family];
  if (policy === undefined) return { chosen: false, reason: "the family is not exchanged with this peer any more" };
  const result = importRoute(rib.prefixes.words(id), path.received.attributes, policy);
  if ("refused" in result) return { chosen: false, reason: result.refused };
  return { chosen: true, reason: `import filter: ${result.rule}` };
}

function judgeBest(tables: Tables, path: PathView, best: Candidate | undefined): { chosen: boolean; reason: string } {
  if (path.used === undefined) return { chosen: false, reason: "refused on import" };
  const candidate = candidateOf(tables, path);
  if (candidate === undefined || best === undefined) return { chosen: false, reason: "its next hop cannot be reached" };
  if (candidate.peer === best.peer && candidate.pathId === best.pathId) return { chosen: true, reason: "best" };
  return { chosen: false, reason: explainLoss(best, candidate) };
}

function candidateOf(tables: Tables, path: PathView): Candidate | undefined {
  if (path.used === undefined) return undefined;
  if (path.used.nextHop !== undefined && path.used.nextHop.resolved === undefined) return undefined;
  return { set: path.used, peer: tables.peer(path.peer), pathId: path.pathId };
}

function outOf(tables: Tables, rib: Rib, id: number, listening: readonly Listening[], query: RouteQuery): RouteView[] {
  return listening.flatMap(({ index, name, groups }) => {
    const group = groups[rib.prefixes.family];
    if (group === undefined || (query.peer !== undefined && query.peer !== name)) return [];
    return group.explain(id, index).map(({ set, source, told, reason, pathId }) => ({
      prefix: formatPrefix(rib.prefixOf(id)),
      from: tables.peer(source).name,
      to: name,
      chosen: told,
      reason,
      ...(pathId !== undefined && { pathId }),
      stale: false,
      attributes: set.attributes,
      nextHops: nextHopsOf(pathId === undefined ? rib.equalSets(id) : [set]),
    }));
  });
}
