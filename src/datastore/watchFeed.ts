/** One watch of the API server: the lines that it sends, first for what has been, then as changes are published. */
import type { KindId } from "../resources/registry.ts";
import { KIND } from "../resources/registry.ts";
import { tableOf, type IncludeObject } from "./apiTable.ts";
import { apiVersionOf } from "./discovery.ts";
import { badRequest, gone } from "./refusal.ts";
import { changeSeen, type Matcher } from "./selection.ts";
import { statusOf } from "./status.ts";
import type { Change, Entry, VersionedLog } from "./versionedLog.ts";

export interface WatchRequest {
  readonly kind: KindId;
  readonly matches: Matcher;
  /** Absent, or "0": begin with every object there is, as if it had just been added. */
  readonly resourceVersion: string | undefined;
  readonly bookmarks: boolean;
  /** Begin with every object even though a version is given, and mark the end of them with a bookmark. */
  readonly initialEvents: boolean;
  readonly timeoutSeconds: number | undefined;
  /** Rows of a table instead of objects. */
  readonly table: IncludeObject | undefined;
}

export interface WatchFeed {
  /** Sends a bookmark, if they were asked for and the watch has not said yet how far it is. */
  bookmark(): void;
  close(): void;
}

/**
 * Sends with `send`, whole lines, until closed. Undefined: the version is too old, which has been sent as well, and
 * nothing will follow. Throws when the version is malformed.
 * @param now milliseconds since 1970, for the ages in tables
 */
export function startWatch(
  log: VersionedLog,
  request: WatchRequest,
  send: (line: string) => void,
  now: () => number,
): WatchFeed | undefined {
  const { kind, matches, resourceVersion, table } = request;
  const fromNothing = resourceVersion === undefined || resourceVersion === "0" || request.initialEvents;
  if (!/^\d{0,15}$/.test(resourceVersion ?? ""))
    throw badRequest(`invalid resource version ${JSON.stringify(resourceVersion)}`);
  let sent = -1;
  let headings = true;

  function sendEntry(type: string, entry: Entry): void {
    sent = entry.revision;
    if (table === undefined) return send(`{"type":"${type}","object":${entry.json}}\n`);
    const object = tableOf(kind, [entry], { resourceVersion: String(sent), include: table, now: now(), headings });
    headings = false;
    send(`${JSON.stringify({ type, object })}\n`);
  }
  function sendChange(change: Change): void {
    const type = changeSeen(change, matches);
    if (type === undefined) return;
    // An object that leaves the selection is sent as it was seen last, at the version at which it left.
    const entry = type === "deleted" && change.type !== "deleted" ? lastSeen(change) : change.entry;
    sendEntry(type.toUpperCase(), entry);
  }
  function sendBookmark(annotations?: Record<string, string>): void {
    sent = log.published;
    const metadata = {
      resourceVersion: String(sent),
      creationTimestamp: null,
      ...(annotations === undefined ? {} : { annotations }),
    };
    const object = { kind: KIND[kind].kind, apiVersion: apiVersionOf(KIND[kind]), metadata };
    send(`${JSON.stringify({ type: "BOOKMARK", object })}\n`);
  }

  if (fromNothing) {
    for (const entry of log.entries(kind).values()) if (matches(entry.object)) sendEntry("ADDED", entry);
    if (request.initialEvents && request.bookmarks) sendBookmark({ "k8s.io/initial-events-end": "true" });
  } else {
    const after = Number(resourceVersion);
    // A version from the future is one of another history: the data were restored, or begun anew.
    const past = after > log.published ? undefined : log.changesAfter(kind, after);
    if (past === undefined) {
      send(`${JSON.stringify({ type: "ERROR", object: statusOf(gone(resourceVersion, log.compacted)) })}\n`);
      return undefined;
    }
    sent = after;
    past.forEach(sendChange);
  }
  return {
    bookmark: () => {
      if (request.bookmarks && sent !== log.published) sendBookmark();
    },
    close: log.subscribe(kind, sendChange),
  };
}

function lastSeen({ entry, previous }: Change): Entry {
  const { object } = previous ?? entry;
  const moved = { ...object, metadata: { ...object.metadata, resourceVersion: String(entry.revision) } };
  return { ...entry, object: moved, json: JSON.stringify(moved) };
}
