import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

/** Compares with expected output that an engineer can read, kept in a file. `CARACAL_UPDATE_GOLDEN=1` writes it anew. */
export function assertGolden(path: string, text: string): void {
  if (process.env["CARACAL_UPDATE_GOLDEN"] !== undefined) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
  assert.equal(text, existsSync(path) ? readFileSync(path, "utf8") : `${path} is not there`);
}
