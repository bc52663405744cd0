import { codeOf, Failure } from "../lib/errors.ts";

/** Error codes of the CNI specification 1.1.0, section 5 "Error". */
export const CNI_CODES = {
  "incompatible-version": 1,
  "unsupported-field": 2,
  "unknown-container": 3,
  "invalid-environment": 4,
  "io-failure": 5,
  "decode-failure": 6,
  "invalid-config": 7,
  "try-again-later": 11,
  "plugin-not-available": 50,
  "limited-connectivity": 51,
  /** 100 and above are the plugin's own: what no code of the specification says. */
  "endpoint-mismatch": 101,
  "address-unavailable": 102,
  "interface-failed": 103,
} as const;

export type CniCode = keyof typeof CNI_CODES;

/** A refusal that the runtime is told in the form of the specification. */
export class CniError extends Failure<CniCode> {
  readonly details: string;
  constructor(code: CniCode, message: string, details = "", cause?: unknown) {
    super(code, message, cause);
    this.details = details;
  }
}

/** A datastore that is away comes back: the runtime is told to try again. */
export function codeFor(error: unknown): CniCode {
  const code = codeOf(error);
  return code === "unavailable" || code === "timeout" ? "try-again-later" : "io-failure";
}
