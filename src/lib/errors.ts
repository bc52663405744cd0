/**
 * Errors that say what was attempted, on what, and why it failed: a code for programs, a sentence for people, the cause
 * kept. Each area declares its own closed union of codes.
 */
export class Failure<Code extends string = string> extends Error {
  readonly code: Code;
  constructor(code: Code, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "Failure";
    this.code = code;
  }
}

/** The sentence of anything that was thrown: its message, or its text. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The code of anything that was thrown (`ENOENT`, `conflict`…), or undefined where it carries none. */
export function codeOf(thrown: unknown): string | undefined {
  if (typeof thrown !== "object" || thrown === null || !("code" in thrown)) return undefined;
  return typeof thrown.code === "string" ? thrown.code : undefined;
}
