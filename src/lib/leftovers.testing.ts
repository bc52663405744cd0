/** What tests make outside of their process, and a test that was killed left behind: namespaces and directories. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";

/** In names: `caracal-bgp-4711-frr` is of process 4711. */
const OF_PROCESS = /^caracal-[a-z]+-(\d+)(?:-|$)/;

/** Names in the directory that belong to processes that are not any more. */
function ofTheDead(directory: string): string[] {
  const names = existsSync(directory) ? readdirSync(directory) : [];
  return names.filter((name) => {
    const maker = OF_PROCESS.exec(name)?.[1];
    return maker !== undefined && !existsSync(`/proc/${maker}`);
  });
}

/** Ends and removes what killed tests left. For whoever makes such things, before it does. */
export function clearLeftovers(): void {
  const ip = (...words: string[]): string => execFileSync("ip", ["netns", ...words], { encoding: "utf8" });
  for (const name of ofTheDead("/run/netns")) {
    for (const pid of ip("pids", name).split("\n").filter(Boolean)) {
      try {
        process.kill(Number(pid), "SIGKILL");
      } catch {
        // it has ended by itself
      }
    }
    ip("delete", name);
  }
  for (const name of ofTheDead(tmpdir())) rmSync(`${tmpdir()}/${name}`, { recursive: true, force: true });
}
