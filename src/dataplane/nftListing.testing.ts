/** What `nft` says of a namespace, in an order of its own. */
import { execFileSync } from "node:child_process";
import { inside } from "../netlink/namespace.testing.ts";

/** The kernel keeps members in an order that differs from one time to the next. */
export function listing(name: string): string {
  return inside(name, "nft", "list", "ruleset").replaceAll(/elements = \{([^}]*)\}/g, (_, list: string) => {
    const elements = list.split(",").map((element) => element.trim());
    return `elements = { ${elements.toSorted().join(",\n\t\t\t     ")} }`;
  });
}

/** The same without counts, without who owns it, and with all blocks of each table sorted: what was made first does not matter. */
export function content(name: string): string[] {
  const blocks: string[] = [];
  for (const [, table = "", body = ""] of listing(name).matchAll(
    /^table (\S+ \S+) \{.*\n(?:\tflags .*\n\n?)?([^]*?)^\}\n/gm,
  )) {
    for (const block of body.split("\n\n")) blocks.push(`${table}: ${block.trim()}`);
  }
  return blocks.map((block) => block.replaceAll(/counter packets \d+ bytes \d+/g, "counter")).toSorted();
}

export function nft(name: string, script: string): void {
  execFileSync("ip", ["netns", "exec", name, "nft", "-f", "-"], { input: script, stdio: ["pipe", "pipe", "pipe"] });
}
