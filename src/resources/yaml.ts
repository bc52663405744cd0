/** Manifests: text of one or more YAML or JSON documents to objects, and back. */
import { LineCounter, parseAllDocuments, stringify } from "yaml";
import { Failure } from "../lib/errors.ts";
import { isObject } from "./schema.ts";

/** Text that is not YAML, or holds what is not an object. */
export class ManifestError extends Failure<"bad-manifest"> {
  constructor(message: string) {
    super("bad-manifest", message);
  }
}

/** An object as it stands in a manifest, before any check, and where it stands. */
export interface RawObject {
  readonly object: Record<string, unknown>;
  /** Of the document in the text, from 1. */
  readonly document: number;
  /** On which the document begins, from 1. */
  readonly line: number;
}

/**
 * The objects of a text, in order. Empty documents are left out, the items of a `List` stand for themselves. `source`
 * (a file name) begins the messages of `ManifestError`.
 */
export function parseManifest(text: string, source: string): RawObject[] {
  const lines = new LineCounter();
  const objects: RawObject[] = [];
  // YAML 1.2: `on` and `no` are text. Merge keys (`<<`) are of 1.1, and in use.
  const documents = parseAllDocuments(text, {
    lineCounter: lines,
    version: "1.2",
    merge: true,
    prettyErrors: false,
  });
  for (const [index, document] of ("empty" in documents ? [] : documents).entries()) {
    const start = document.contents?.range?.[0] ?? document.range[0];
    const line = lines.linePos(start).line;
    const [error] = document.errors;
    if (error !== undefined) {
      const { line: at, col } = lines.linePos(error.pos[0]);
      throw new ManifestError(`${source}, line ${at}, column ${col}: ${error.message}`);
    }
    const content: unknown = readDocument(document, `${source}, line ${line}`);
    if (content === null || content === undefined) continue;
    if (!isObject(content)) throw new ManifestError(`${source}, line ${line}: document ${index + 1} is not an object`);
    for (const object of flatten(content, `${source}, line ${line}`))
      objects.push({ object, document: index + 1, line });
  }
  return objects;
}

function readDocument(document: { toJS: () => unknown }, where: string): unknown {
  try {
    return document.toJS();
  } catch (thrown) {
    throw new ManifestError(`${where}: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
}

function flatten(content: Record<string, unknown>, where: string): Record<string, unknown>[] {
  const { kind, items } = content;
  if (typeof kind !== "string" || !kind.endsWith("List") || !Array.isArray(items)) return [content];
  return items.flatMap((item: unknown, index) => {
    if (!isObject(item)) throw new ManifestError(`${where}: items[${index}] is not an object`);
    // Lists of one kind, such as PodList, name it once.
    const named = kind === "List" ? {} : { apiVersion: content["apiVersion"], kind: kind.slice(0, -"List".length) };
    return flatten({ ...named, ...item }, where);
  });
}

/** YAML of the objects, each a document of its own. Text that YAML 1.1 would take for something else is in quotes. */
export function formatManifest(objects: readonly object[]): string {
  return objects
    .map((object) => stringify(object, { lineWidth: 0, aliasDuplicateObjects: false, compat: "yaml-1.1" }))
    .join("---\n");
}
