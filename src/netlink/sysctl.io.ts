import { readFileSync, writeFileSync } from "node:fs";
import { codeOf, Failure, messageOf } from "../lib/errors.ts";

/**
 * Settings under /proc/sys/net. They are those of the calling thread's network namespace: use `inNamespace` for another.
 * `key` is the path below /proc/sys/net, with slashes since interface names hold dots: `ipv4/conf/eth0.7/proxy_arp`.
 */

/** The value without its line end. Throws `Failure` (ENOENT…) with the path. */
export function readSysctl(key: string): string {
  try {
    return readFileSync(`/proc/sys/net/${key}`, "latin1").trimEnd();
  } catch (error) {
    throw new Failure(codeOf(error) ?? "EIO", `Cannot read /proc/sys/net/${key}: ${messageOf(error)}`, error);
  }
}

/** Writes the value unless it is there already; says whether it had to. */
export function writeSysctl(key: string, value: string | number): boolean {
  // The kernel separates the numbers of a list with tabs.
  if (readSysctl(key).replaceAll("\t", " ") === String(value)) return false;
  setSysctl(key, value);
  return true;
}

/** Writes the value without a look at what is there. */
export function setSysctl(key: string, value: string | number): void {
  try {
    writeFileSync(`/proc/sys/net/${key}`, String(value));
  } catch (error) {
    throw new Failure(
      codeOf(error) ?? "EIO",
      `Cannot set /proc/sys/net/${key} to "${value}": ${messageOf(error)}`,
      error,
    );
  }
}
