import { execFileSync } from "node:child_process";
import { clearLeftovers } from "../lib/leftovers.testing.ts";
import { createNamespace, deleteNamespace } from "./namespace.io.ts";

/** Namespaces of a test's own, where it may do what it likes: nothing leaves them. */

let made = 0;

/** A namespace with loopback up, and what ends it. */
export function temporaryNamespace(): { readonly name: string; readonly path: string; [Symbol.dispose](): void } {
  if (made === 0) clearLeftovers();
  made += 1;
  const name = `caracal-test-${process.pid}-${made}`;
  const path = `/run/netns/${name}`;
  createNamespace(path, { loopback: true });
  return { name, path, [Symbol.dispose]: () => deleteNamespace(path) };
}

/** What a command of iproute2 prints inside the namespace, as JSON where `-j` is among its arguments. */
export function inside(name: string, ...command: string[]): string {
  return execFileSync("ip", ["netns", "exec", name, ...command], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
  });
}
