import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, renameSync, statSync, writeFileSync } from "node:fs";

/** Compilers that make the shim, best first: musl's makes the one that starts fastest. */
const COMPILERS = ["musl-gcc", "gcc", "cc"];

/**
 * The CNI plugin's executable: the C shim, compiled once, or where there is no compiler a script that starts the
 * TypeScript one. Returns its path.
 */
export function preparePlugin(root: string, node: string): string {
  const source = `${root}src/cni/shim.c`;
  const path = `${root}build/calico`;
  if (existsSync(path) && statSync(path).mtimeMs >= statSync(source).mtimeMs) return path;
  mkdirSync(`${root}build`, { recursive: true });
  const temporary = `${path}.${process.pid}`;
  for (const compiler of COMPILERS) {
    const { status } = spawnSync(compiler, ["-static", "-Os", "-s", "-Wall", "-o", temporary, source], {
      stdio: "ignore",
      timeout: 60_000,
    });
    if (status !== 0) continue;
    renameSync(temporary, path);
    return path;
  }
  const script = `${root}build/calico-node`;
  writePluginScript(script, node, `${root}src/cli/main.ts`);
  return script;
}

/** The executable for runtimes without a compiler on the node: the same in TypeScript. */
function writePluginScript(path: string, node: string, main: string): void {
  writeFileSync(path, `#!/bin/sh\nexec "${node}" --disable-warning=ExperimentalWarning "${main}" cni\n`);
  chmodSync(path, 0o755);
}
