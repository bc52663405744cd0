import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Renderer } from "../src/agent/nodeFacts.ts";
import { SMALL_HEAP } from "../src/lab/process.io.ts";
import { createNamespace, deleteNamespace, inNamespace } from "../src/netlink/namespace.io.ts";
import type { Scene } from "./policy-scenes.ts";
import type { Command } from "./policy-worker.ts";

/** Namespaces that go with the benchmark: nothing in them leads out. */
export interface Namespaces {
  /** Makes one, with its loopback up, and returns its path. */
  make(name: string): string;
  close(): void;
}

export function openNamespaces(part: string): Namespaces {
  const paths: string[] = [];
  return {
    make(name) {
      const path = `/run/netns/caracal-bench-${part}-${process.pid}-${name}`;
      createNamespace(path, { loopback: true });
      paths.push(path);
      return path;
    },
    close() {
      for (const path of paths.splice(0)) deleteNamespace(path);
    },
  };
}

/** A process with policy-worker.ts. */
export interface Worker {
  readonly pid: number;
  ask(command: Command): Promise<unknown>;
  tell(command: Command): void;
  close(): Promise<void>;
}

// As the launcher does for every process.
process.env["NODE_COMPILE_CACHE"] ??= new URL("../.cache/compile", import.meta.url).pathname;

/** Node's own arguments, as agents have them. */
export function nodeArguments(program: string): string[] {
  return [...SMALL_HEAP, "--disable-warning=ExperimentalWarning", new URL(program, import.meta.url).pathname];
}

/** Resolves when the scene is in force. */
export async function startWorker(netns: string, renderer: Renderer, scene: Scene): Promise<Worker> {
  const args = [...nodeArguments("policy-worker.ts"), renderer, JSON.stringify(scene)];
  const child = inNamespace(netns, () => spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] }));
  const waiting: { resolve: (answer: unknown) => void; reject: (error: Error) => void }[] = [];
  const answer = (): Promise<unknown> => new Promise((resolve, reject) => waiting.push({ resolve, reject }));
  createInterface({ input: child.stdout }).on("line", (line) => waiting.shift()?.resolve(JSON.parse(line)));
  const ended = new Promise<void>((resolve) => {
    child.on("close", (code) => {
      for (const { reject } of waiting.splice(0)) reject(new Error(`a worker ended with exit code ${code}`));
      resolve();
    });
  });
  child.stdin.on("error", () => undefined); // its exit says why
  const worker: Worker = {
    pid: child.pid ?? 0,
    ask(command) {
      worker.tell(command);
      return answer();
    },
    tell: (command) => void child.stdin.write(`${JSON.stringify(command)}\n`),
    async close() {
      child.stdin.end();
      await ended;
    },
  };
  await answer();
  return worker;
}
