/** Bearer tokens: 256 random bits, in a file that only its owner can read. They are never logged. */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { existsSync, readFileSync, statSync } from "node:fs";
import { Failure, messageOf } from "../lib/errors.ts";
import { makePrivateFile } from "./privateFile.io.ts";

/** `exposed`: others can read it. `unusable`: it cannot be read or made, or holds no token. */
export class TokenError extends Failure<"exposed" | "unusable"> {}

/** The shortest that we accept from a file: 128 bits in hex. */
const TOKEN_MIN = 32;

/** The token in the file, which is made, with a new token and rights 0600, where it is missing. */
export function tokenFromFile(path: string): string {
  try {
    if (!existsSync(path)) makePrivateFile(path, `${randomBytes(32).toString("hex")}\n`);
    if ((statSync(path).mode & 0o077) !== 0) {
      throw new TokenError(
        "exposed",
        `Cannot use the token in ${path}: others than its owner can read it (chmod 600 it)`,
      );
    }
    const token = readFileSync(path, "utf8").trim();
    if (token.length >= TOKEN_MIN && /^[\x21-\x7e]+$/.test(token)) return token;
  } catch (thrown) {
    if (thrown instanceof TokenError) throw thrown;
    throw new TokenError("unusable", `Cannot use the token in ${path}: ${messageOf(thrown)}`, thrown);
  }
  throw new TokenError(
    "unusable",
    `Cannot use the token in ${path}: it is not ${TOKEN_MIN} or more visible characters`,
  );
}

/** Tells whether an `Authorization` header carries the token, in a time that says nothing about how much of it is right. */
export function tokenCheck(token: string): (authorization: string | undefined) => boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  const expected = digest(token);
  return (authorization) => {
    const given = /^Bearer +(\S+)$/i.exec(authorization ?? "")?.[1] ?? "";
    return timingSafeEqual(digest(given), expected);
  };
}
