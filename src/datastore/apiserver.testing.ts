/** The embedded API server as a process that can be killed. */
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

const ENTRY = `const { runApiServer } = await import(${JSON.stringify(join(import.meta.dirname, "apiserver.io.ts"))});
await runApiServer(process.argv.slice(1));`;

export interface ServerProcess {
  readonly pid: number | undefined;
  /** The line that it printed when it was ready. */
  readonly ready: string;
  /** Ends it by the signal; resolves with its exit code, null where the signal ended it. */
  end(signal: "SIGKILL" | "SIGTERM"): Promise<number | null>;
}

/** @param argv of `caracal apiserver` */
export async function startServer(argv: readonly string[]): Promise<ServerProcess> {
  const flags = ["--disable-warning=ExperimentalWarning", "--input-type=module", "-e", ENTRY, "--"];
  const child: ChildProcess = spawn(process.execPath, [...flags, ...argv], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = once(child, "exit").then(([code]: (number | null)[]) => code ?? null);
  const ready = await Promise.race([
    once(child.stdout!, "data").then(([chunk]: Buffer[]) => String(chunk)),
    exited.then((code) => Promise.reject(new Error(`the API server exited with ${code}`))),
  ]);
  return {
    pid: child.pid,
    ready,
    async end(signal) {
      child.kill(signal);
      return await exited;
    },
  };
}
