/** Files for their owner alone, which others see whole or not at all. */
import { randomBytes } from "node:crypto";
import { linkSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { codeOf } from "../lib/errors.ts";

function writeDraft(path: string, text: string): string {
  const draft = `${path}.${randomBytes(6).toString("hex")}`;
  writeFileSync(draft, text, { mode: 0o600, flag: "wx" });
  return draft;
}

/** Writes the file, with rights 0600, in place of one that may be there. */
export function writePrivateFile(path: string, text: string): void {
  renameSync(writeDraft(path, text), path);
}

/** Makes the file, with rights 0600, unless there is one. Of several who try at once, one wins. */
export function makePrivateFile(path: string, text: string): void {
  const draft = writeDraft(path, text);
  try {
    linkSync(draft, path);
  } catch (thrown) {
    if (codeOf(thrown) !== "EEXIST") throw thrown;
  } finally {
    unlinkSync(draft);
  }
}
