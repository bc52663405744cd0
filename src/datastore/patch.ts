/**
 * The patches that the Kubernetes API takes: merge patch (RFC 7386), JSON patch (RFC 6902), and strategic merge patch,
 * which knows by which field the elements of a list are matched. None of them changes its argument.
 */
import { DatastoreError } from "./datastore.ts";

type Fields = Record<string, unknown>;

export const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** RFC 7386 section 2: `null` removes, objects merge, everything else replaces. */
export function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isFields(patch)) return patch;
  const merged: Fields = isFields(target) ? { ...target } : {};
  for (const [field, value] of Object.entries(patch)) {
    if (value === null) delete merged[field];
    else put(merged, field, mergePatch(merged[field], value));
  }
  return merged;
}

/** Sets an own field whatever its name is: plain assignment to `__proto__` would change the prototype. */
function put(fields: Fields, field: string, value: unknown): void {
  if (field === "__proto__")
    Object.defineProperty(fields, field, { value, enumerable: true, writable: true, configurable: true });
  else fields[field] = value;
}

const malformed = (reason: string): DatastoreError =>
  new DatastoreError("invalid", `the patch is malformed: ${reason}`);

/** The patch is sound, but does not fit the object: a test that fails, a path that is not there. */
function misfit(path: string, reason: string): DatastoreError {
  return new DatastoreError("invalid", `the patch does not apply: ${path}: ${reason}`, {
    causes: [{ field: path, message: reason }],
  });
}

/** RFC 6902, with the pointers of RFC 6901. */
export function jsonPatch(target: unknown, operations: unknown): unknown {
  if (!Array.isArray(operations)) throw malformed("a JSON patch is a list of operations");
  let document = structuredClone(target);
  for (const operation of operations as unknown[]) {
    if (!isFields(operation) || typeof operation["path"] !== "string") throw malformed("an operation needs a path");
    document = applyOperation(document, operation, operation["path"]);
  }
  return document;
}

function applyOperation(document: unknown, operation: Fields, path: string): unknown {
  const from = operation["from"];
  switch (operation["op"]) {
    case "test":
      if (!sameJson(at(document, path), operation["value"])) throw misfit(path, "the value is not the one tested for");
      return document;
    case "add":
      return place(document, path, structuredClone(required(operation, path)), "add");
    case "replace":
      at(document, path);
      return place(document, path, structuredClone(required(operation, path)), "replace");
    case "remove":
      return take(document, path);
    case "move": {
      if (typeof from !== "string") throw malformed(`move to ${path} needs a from`);
      if (path.startsWith(`${from}/`)) throw malformed(`cannot move ${from} into itself`);
      const moved = at(document, from);
      return place(take(document, from), path, moved, "add");
    }
    case "copy":
      if (typeof from !== "string") throw malformed(`copy to ${path} needs a from`);
      return place(document, path, structuredClone(at(document, from)), "add");
    default:
      throw malformed(`unknown operation ${JSON.stringify(operation["op"])}`);
  }
}

function required(operation: Fields, path: string): unknown {
  if (!Object.hasOwn(operation, "value")) throw malformed(`${String(operation["op"])} ${path} needs a value`);
  return operation["value"];
}

function tokens(pointer: string): string[] {
  if (pointer === "") return [];
  if (!pointer.startsWith("/")) throw malformed(`${JSON.stringify(pointer)} is not a JSON pointer`);
  return pointer
    .slice(1)
    .split("/")
    .map((token) => token.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** The index that a token names in a list; `-` is the place after the last (RFC 6901 section 4). */
function index(list: readonly unknown[], token: string, path: string, limit: number): number {
  const position = token === "-" ? list.length : /^(0|[1-9]\d*)$/.test(token) ? Number(token) : Number.NaN;
  if (!(position < limit)) throw misfit(path, `there is no element ${token} in a list of ${list.length}`);
  return position;
}

function child(parent: unknown, token: string, path: string): unknown {
  if (Array.isArray(parent)) return (parent as unknown[])[index(parent, token, path, parent.length)];
  if (isFields(parent) && Object.hasOwn(parent, token)) return parent[token];
  throw misfit(path, "there is nothing at this path");
}

function at(document: unknown, path: string): unknown {
  return tokens(path).reduce<unknown>((parent, token) => child(parent, token, path), document);
}

/** Splits a path in the object that holds the last token, and that token. */
function parentOf(document: unknown, path: string): { parent: unknown; last: string } {
  const way = tokens(path);
  const last = way.pop() ?? "";
  return { parent: way.reduce<unknown>((parent, token) => child(parent, token, path), document), last };
}

function place(document: unknown, path: string, value: unknown, how: "add" | "replace"): unknown {
  if (path === "") return value;
  const { parent, last } = parentOf(document, path);
  if (Array.isArray(parent)) {
    const position = index(parent, last, path, parent.length + (how === "add" ? 1 : 0));
    parent.splice(position, how === "add" ? 0 : 1, value);
  } else if (isFields(parent)) put(parent, last, value);
  else throw misfit(path, "its parent is neither an object nor a list");
  return document;
}

function take(document: unknown, path: string): unknown {
  at(document, path);
  if (path === "") return undefined;
  const { parent, last } = parentOf(document, path);
  if (Array.isArray(parent)) parent.splice(Number(last), 1);
  else delete (parent as Fields)[last];
  return document;
}

/** A field that is text; empty where it is anything else. */
export function textIn(fields: Record<string, unknown>, field: string): string {
  const value = fields[field];
  return typeof value === "string" ? value : "";
}

/** Equality of JSON values; the order of an object's fields does not matter. */
export function sameJson(left: unknown, right: unknown): boolean {
  if (left === right) return true;
  if (Array.isArray(left)) {
    if (!Array.isArray(right) || left.length !== right.length) return false;
    return left.every((value, position) => sameJson(value, right[position]));
  }
  if (!isFields(left) || !isFields(right)) return false;
  const fields = definedFields(left);
  if (fields.length !== definedFields(right).length) return false;
  return fields.every((field) => Object.hasOwn(right, field) && sameJson(left[field], right[field]));
}

/** `undefined` is what JSON leaves out. */
const definedFields = (value: Fields): string[] => Object.keys(value).filter((field) => value[field] !== undefined);
