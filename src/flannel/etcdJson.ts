import { type KeyChange, type StoredKey, StoreError } from "./store.ts";

/**
 * The messages of etcd's v3 API as its own gateway has them in JSON (grpc-gateway, `/v3/…`): bytes in base64, 64-bit
 * numbers as text, names with underscores in what it sends, and zero values left out.
 */

type Fields = Readonly<Record<string, unknown>>;

export const base64 = (text: string): string => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

function fromBase64(text: string): string {
  return new TextDecoder().decode(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)));
}

/** The first key behind all that begin with the prefix (clientv3.GetPrefixRangeEnd). Prefixes here are ASCII. */
function endOfPrefix(prefix: string): string {
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}

export const rangeOf = (prefix: string): object => ({ key: base64(prefix), range_end: base64(endOfPrefix(prefix)) });

/** Puts the key where nothing was. `lease` is etcd's number of one, "0" for none. */
export function createRequest(key: string, value: string, lease: string): object {
  const unborn = { key: base64(key), target: "VERSION", result: "EQUAL", version: "0" };
  return { compare: [unborn], success: [put(key, value, lease)] };
}

/** Puts the key if it is still at the revision. */
export function replaceRequest(key: string, value: string, revision: string, lease: string): object {
  return { compare: [unchanged(key, revision)], success: [put(key, value, lease)] };
}

export function removeRequest(key: string, revision: string): object {
  return {
    compare: [unchanged(key, revision)],
    success: [{ request_delete_range: { key: base64(key) } }],
  };
}

const unchanged = (key: string, revision: string): object => ({
  key: base64(key),
  target: "MOD",
  result: "EQUAL",
  mod_revision: revision,
});

const put = (key: string, value: string, lease: string): object => ({
  request_put: { key: base64(key), value: base64(value), lease },
});

/** Events after the revision, with a sign of life now and then. */
export function watchRequest(prefix: string, revision: string): object {
  const start = String(BigInt(revision) + 1n);
  return { create_request: { ...rangeOf(prefix), start_revision: start, progress_notify: true } };
}

export function readRange(body: unknown): { items: StoredKey[]; revision: string } {
  const fields = fieldsOf(body, "range");
  return { items: listIn(fields, "kvs").map(readKey), revision: revisionOf(fields) };
}

/** The revision that a transaction made; undefined where its comparison failed. */
export function readTransaction(body: unknown): string | undefined {
  const fields = fieldsOf(body, "transaction");
  return fields["succeeded"] === true ? revisionOf(fields) : undefined;
}

export function readGrant(body: unknown): string {
  return textIn(fieldsOf(body, "lease"), "ID");
}

export function readToken(body: unknown): string {
  return textIn(fieldsOf(body, "authentication"), "token");
}

/** One line of a watch. Throws `StoreError`: `compacted`, or `unavailable` where etcd has ended the watch. */
export function readWatch(body: unknown): readonly KeyChange[] {
  const fields = fieldsOf(body, "watch");
  if (fields["error"] !== undefined) {
    throw new StoreError("unavailable", `etcd ended the watch: ${reasonIn(fieldsOf(fields["error"], "error"))}`);
  }
  const result = fieldsOf(fields["result"], "watch");
  const compacted = result["compact_revision"];
  if (compacted !== undefined && compacted !== "0") {
    throw new StoreError(
      "compacted",
      `etcd has forgotten what was before revision ${textIn(result, "compact_revision")}`,
    );
  }
  if (result["canceled"] === true) {
    const reason = result["cancel_reason"];
    const why = typeof reason === "string" ? reason : "no reason given";
    throw new StoreError("unavailable", `etcd ended the watch: ${why}`);
  }
  return listIn(result, "events").map(readEvent);
}

function readEvent(event: unknown): KeyChange {
  const fields = fieldsOf(event, "event");
  const item = readKey(fields["kv"]);
  return fields["type"] === "DELETE" ? { type: "deleted", key: item.key } : { type: "put", item };
}

function readKey(kv: unknown): StoredKey {
  const fields = fieldsOf(kv, "key");
  const lease = fields["lease"];
  return {
    key: fromBase64(textIn(fields, "key")),
    value: fromBase64(typeof fields["value"] === "string" ? fields["value"] : ""),
    revision: textIn(fields, "mod_revision"),
    leased: lease !== undefined && lease !== "0",
  };
}

/** What the gateway says of a refusal. */
export function reasonIn(body: unknown): string {
  if (typeof body !== "object" || body === null) return "no reason given";
  const fields: Fields = { ...body };
  const text = fields["message"] ?? fields["error"];
  return typeof text === "string" ? text : "no reason given";
}

function revisionOf(fields: Fields): string {
  return textIn(fieldsOf(fields["header"], "header"), "revision");
}

function fieldsOf(value: unknown, what: string): Fields {
  if (typeof value === "object" && value !== null) return { ...value };
  throw new StoreError("unavailable", `etcd's answer has no ${what}`);
}

function textIn(fields: Fields, name: string): string {
  const value = fields[name];
  if (typeof value === "string") return value;
  throw new StoreError("unavailable", `etcd's answer has no ${name}`);
}

function listIn(fields: Fields, name: string): readonly unknown[] {
  const value = fields[name];
  return Array.isArray(value) ? value : [];
}
