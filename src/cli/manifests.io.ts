/** Reads the manifests that the command line names. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Failure, messageOf } from "../lib/errors.ts";
import type { Manifest } from "./manifests.ts";

export class UnreadableManifest extends Failure<"unreadable"> {}

/** @param paths files, directories (their `.yaml`, `.yml` and `.json` files, by name, not those below them), `-` for `input` */
export async function readManifests(paths: readonly string[], input: NodeJS.ReadableStream): Promise<Manifest[]> {
  const manifests: Manifest[] = [];
  for (const path of paths) {
    if (path === "-") manifests.push({ source: "standard input", text: await text(input) });
    else manifests.push(...readPath(path));
  }
  return manifests;
}

function readPath(path: string): Manifest[] {
  try {
    if (!statSync(path).isDirectory()) return [{ source: path, text: readFileSync(path, "utf8") }];
    const names = readdirSync(path).filter((name) => /\.(ya?ml|json)$/.test(name));
    if (names.length === 0) throw new Error("the directory has no .yaml, .yml or .json files");
    return names.toSorted().map((name) => ({ source: join(path, name), text: readFileSync(join(path, name), "utf8") }));
  } catch (thrown) {
    throw new UnreadableManifest("unreadable", `Cannot read ${path}: ${messageOf(thrown)}`, thrown);
  }
}
