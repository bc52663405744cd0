import { mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { codeOf, messageOf } from "../lib/errors.ts";
import { parseDefinition, type LabDefinition } from "./definition.ts";
import { LabError } from "./labError.ts";
import { checkLabName, labFiles, labsDirectory } from "./files.ts";

/** What a running lab has written about itself. */
export interface LabState {
  readonly name: string;
  readonly definition: LabDefinition;
}

/** Keeps the definition as it was given, so that it is read back by the same rules. */
export function writeLab(name: string, input: unknown): void {
  const files = labFiles(name);
  for (const directory of [files.directory, files.dataDirectory, files.logDirectory, files.pluginDirectory]) {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
  }
  writeFileSync(`${files.definition}~`, JSON.stringify(input), { mode: 0o600 });
  renameSync(`${files.definition}~`, files.definition);
}

/** Throws `LabError` "not-found" where there is no such lab. */
export function readLab(name: string): LabState {
  const { definition } = labFiles(checkLabName(name));
  try {
    return { name, definition: parseDefinition(JSON.parse(readFileSync(definition, "utf8"))) };
  } catch (error) {
    if (codeOf(error) === "ENOENT") {
      const known = listLabs();
      throw new LabError(
        "not-found",
        `there is no lab "${name}"${known.length === 0 ? ': "caracal lab up" makes one' : `; there are: ${known.join(", ")}`}`,
      );
    }
    throw new LabError("failed", `cannot read ${definition}: ${messageOf(error)}`, error);
  }
}

export function listLabs(): string[] {
  try {
    return readdirSync(labsDirectory()).toSorted();
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw error;
  }
}

export function forgetLab(name: string): void {
  // A process that is just ending may still write its last file.
  rmSync(labFiles(name).directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  for (const directory of [labsDirectory(), dirname(labsDirectory())]) removeIfEmpty(directory);
}

function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    if (!["ENOTEMPTY", "ENOENT"].includes(codeOf(error) ?? "")) throw error;
  }
}
