/** Lists in parts: `limit` and `continue` of the Kubernetes API. */
import type { Resource } from "../resources/kind.ts";
import type { KindId } from "../resources/registry.ts";
import { DatastoreError } from "./datastore.ts";
import { isFields } from "./patch.ts";
import { badRequest, gone } from "./refusal.ts";
import type { Entry, VersionedLog } from "./versionedLog.ts";

export interface ListPart {
  /** By their keys. */
  readonly entries: readonly Entry[];
  /** That a watch begins from which is to hear of everything after the list: of the first part. */
  readonly revision: number;
  /** `continue` for the next part; undefined where there is none. */
  readonly more: string | undefined;
}

/**
 * A part is of what is there at its time. A watch from the first part's revision tells what came between, so the list is
 * good for as long as that is not forgotten. Throws `DatastoreError` (`gone`, `timeout`) and refuses what is malformed.
 */
export function partOf(
  log: VersionedLog,
  kind: KindId,
  query: URLSearchParams,
  matches: (object: Resource) => boolean,
): ListPart {
  checkVersion(query, log.revision);
  const { revision, after } = placeOf(query, log);
  const limit = limitOf(query);
  const all = sortedEntries(log, kind);
  const entries: Entry[] = [];
  let at = firstAfter(all, after);
  for (; at < all.length && entries.length < limit; at += 1) {
    const entry = all[at]!;
    if (matches(entry.object)) entries.push(entry);
  }
  return { entries, revision, more: at < all.length ? tokenOf({ revision, after: all[at - 1]!.key }) : undefined };
}

/** What is listed is as new as any version asked for, and never an old one. */
function checkVersion(query: URLSearchParams, revision: number): void {
  const asked = query.get("resourceVersion") || "0";
  if (!/^\d{1,15}$/.test(asked)) throw badRequest(`invalid resource version ${JSON.stringify(asked)}`);
  if (query.get("resourceVersionMatch") === "Exact" && Number(asked) !== revision) throw gone(asked, revision);
  if (Number(asked) > revision)
    throw new DatastoreError("timeout", `Too large resource version: ${asked}, current: ${revision}`);
}

function limitOf(query: URLSearchParams): number {
  const limit = query.get("limit") ?? "";
  if (!/^\d{0,9}$/.test(limit)) throw badRequest(`invalid limit ${JSON.stringify(limit)}`);
  return Number(limit) || Infinity;
}

/** Where the next part begins, and the revision that the first one was of. */
interface Place {
  readonly revision: number;
  readonly after: string;
}

const tokenOf = (place: Place): string => Buffer.from(JSON.stringify(place)).toString("base64url");

function placeOf(query: URLSearchParams, { revision, compacted }: VersionedLog): Place {
  const token = query.get("continue") ?? "";
  if (token === "") return { revision, after: "" };
  try {
    const place = JSON.parse(Buffer.from(token, "base64url").toString("utf8")) as unknown;
    if (isFields(place) && typeof place["after"] === "string" && Number(place["revision"]) >= compacted)
      return { revision: Number(place["revision"]), after: place["after"] };
  } catch {
    // It is none of ours.
  }
  throw new DatastoreError("gone", "the continue token is too old: list again without it");
}

/** Of the last list of each log: parts follow each other. */
const lastSorted = new WeakMap<VersionedLog, { revision: number; kind: KindId; entries: Entry[] }>();

function sortedEntries(log: VersionedLog, kind: KindId): Entry[] {
  const last = lastSorted.get(log);
  if (last?.kind === kind && last.revision === log.revision) return last.entries;
  const entries = [...log.entries(kind).values()].sort((left, right) => (left.key < right.key ? -1 : 1));
  lastSorted.set(log, { revision: log.revision, kind, entries });
  return entries;
}

/** The position of the first entry behind the key. */
function firstAfter(entries: readonly Entry[], key: string): number {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (entries[middle]!.key > key) high = middle;
    else low = middle + 1;
  }
  return low;
}
