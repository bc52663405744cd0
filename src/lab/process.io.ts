import { spawn } from "node:child_process";
import { openSync, closeSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { inNamespace } from "../netlink/namespace.io.ts";
import { NETNS_DIRECTORY } from "./files.ts";

/** Node's flags for agents, as the launcher gives them: see there. */
export const SMALL_HEAP: readonly string[] = ["--max-semi-space-size=16"];

export interface ProcessSpec {
  /** Path of the network namespace that the process is born in. */
  readonly netns: string;
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  /** File that its output is appended to. */
  readonly log: string;
  /** Whether it outlives the process that starts it. */
  readonly detached: boolean;
}

export interface RunningProcess {
  readonly pid: number;
  /** Resolves with its exit code or signal. */
  readonly ended: Promise<string>;
}

/** Starts a process in a namespace. A child is born in the namespace of the thread that forks it. */
export function startProcess(spec: ProcessSpec): RunningProcess {
  const log = openSync(spec.log, "a", 0o600);
  try {
    const [file, ...args] = spec.command;
    if (file === undefined) throw new Error("a process needs a command");
    const child = inNamespace(spec.netns, () =>
      spawn(file, args, {
        env: { ...process.env, ...spec.environment },
        stdio: ["ignore", log, log],
        detached: spec.detached,
      }),
    );
    const ended = new Promise<string>((resolve) => {
      child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
      child.once("error", (error) => resolve(error.message));
    });
    if (child.pid === undefined) throw new Error(`cannot start ${file}`);
    if (spec.detached) child.unref();
    return { pid: child.pid, ended };
  } finally {
    closeSync(log);
  }
}

/** Pids of the processes whose namespace is one of these files: a lab's own processes, also those that it lost track of. */
export function processesIn(namespacePaths: readonly string[]): number[] {
  const inodes = new Set<string>();
  for (const path of namespacePaths) {
    try {
      inodes.add(`net:[${statSync(path).ino}]`);
    } catch {
      // The namespace went in the meantime, and its processes with it.
    }
  }
  if (inodes.size === 0) return [];
  return readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number)
    .filter((pid) => pid !== process.pid && inodes.has(linkOf(`/proc/${pid}/ns/net`)));
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

export function namespacesWithPrefix(prefix: string): string[] {
  try {
    return readdirSync(NETNS_DIRECTORY)
      .filter((name) => name.startsWith(prefix))
      .map((name) => `${NETNS_DIRECTORY}/${name}`);
  } catch {
    return [];
  }
}

export function isAlive(pid: number): boolean {
  try {
    // A zombie has ended: only its parent has yet to notice.
    return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
}

/** Ends processes: SIGTERM, and SIGKILL for those still there after `graceMs`. Resolves when all have gone. */
export async function endProcesses(pids: readonly number[], graceMs: number): Promise<void> {
  const signal = (pid: number, name: NodeJS.Signals): void => {
    try {
      process.kill(pid, name);
    } catch {
      // It has ended already.
    }
  };
  for (const pid of pids) signal(pid, "SIGTERM");
  const deadline = Date.now() + graceMs;
  let alive = pids.filter(isAlive);
  while (alive.length > 0 && Date.now() < deadline) {
    await sleep(10);
    alive = alive.filter(isAlive);
  }
  for (const pid of alive) signal(pid, "SIGKILL");
  const end = Date.now() + 5000;
  while (alive.some(isAlive) && Date.now() < end) await sleep(10);
}
