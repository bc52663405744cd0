import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { askAgent } from "../cli/agentClient.io.ts";
import { inNamespace } from "../netlink/namespace.io.ts";
import { memberNamespace, nodeFiles, podNamespace } from "./files.ts";
import { preparePlugin } from "./plugin.io.ts";
import { labDown, labUp } from "./up.io.ts";

/** Labs for tests: made, used, and taken down whatever happens. */

const ROOT = new URL("../..", import.meta.url).pathname;
const PROGRAM = [process.execPath, "--disable-warning=ExperimentalWarning", `${ROOT}src/cli/main.ts`];

/** Starts a lab, after clearing what an earlier run has left of it. */
export async function startLab(name: string, input: unknown): Promise<void> {
  await labDown(name, () => undefined);
  await labUp(name, input, { command: PROGRAM, plugin: preparePlugin(ROOT, process.execPath) }, () => undefined);
}

export interface Outcome {
  readonly code: number;
  readonly output: string;
  readonly errors: string;
}

/** Runs `caracal ARGS` against the lab, with `input` on its standard input. */
export function caracal(lab: string, args: readonly string[], input = ""): Promise<Outcome> {
  const [file = "", ...rest] = PROGRAM;
  return run(
    spawn(file, [...rest, ...args], {
      env: { ...process.env, CARACAL_LAB: lab },
      stdio: ["pipe", "pipe", "pipe"],
      timeout: 90_000,
    }),
    input,
  );
}

/** Runs a command on a member of the lab. */
export function onMember(lab: string, member: string, command: readonly string[]): Promise<Outcome> {
  return inPath(memberNamespace(lab, member), command);
}

/** Runs a command in a pod, `namespace/name`. */
export function inPod(lab: string, pod: string, command: readonly string[]): Promise<Outcome> {
  const [namespace = "", name = ""] = pod.split("/");
  return inPath(podNamespace(lab, namespace, name), command);
}

function inPath(path: string, [file = "", ...args]: readonly string[]): Promise<Outcome> {
  return run(
    inNamespace(path, () => spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], timeout: 60_000 })),
    "",
  );
}

function run(child: ChildProcess, input: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    let output = "";
    let errors = "";
    child.stdout?.setEncoding("utf8").on("data", (chunk: string) => (output += chunk));
    child.stderr?.setEncoding("utf8").on("data", (chunk: string) => (errors += chunk));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code: code ?? -1, output, errors }));
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(input);
  });
}

export interface RunningPing {
  /** Ends it. `lost` counts echoes that were sent and not answered. */
  stop(): Promise<{ sent: number; lost: number }>;
}

/** An echo every 20 ms from inside a pod. */
export function startPing(lab: string, pod: string, address: string): RunningPing {
  const [namespace = "", name = ""] = pod.split("/");
  const child = inNamespace(podNamespace(lab, namespace, name), () =>
    spawn("ping", ["-q", "-i", "0.02", "-w", "120", address], { stdio: ["ignore", "pipe", "inherit"] }),
  );
  const outcome = run(child, "");
  return {
    async stop() {
      child.kill("SIGINT");
      const { output } = await outcome;
      const counts = /(\d+) packets transmitted, (\d+) received/.exec(output);
      if (counts === null) throw new Error(`ping said nothing that is understood: ${output}`);
      const [sent, received] = [Number(counts[1]), Number(counts[2])];
      // The last echo may still have been on its way when ping was stopped.
      return { sent, lost: Math.max(0, sent - received - 1) };
    },
  };
}

export interface AgentReport {
  readonly pid: number;
  readonly ready: boolean;
  readonly endpoints: number;
  readonly bgp: { readonly settled: boolean; readonly peers: readonly { readonly state: string }[] };
}

export async function agentReport(lab: string, node: string): Promise<AgentReport> {
  // Long: the tests' machines may have other things to do.
  return (await askAgent(`${nodeFiles(lab, node).runDirectory}/agent.sock`, "/status", 10_000)) as AgentReport;
}

/** Polls until `check` no longer throws, and returns what it gave; throws its last failure after `milliseconds`. */
export async function eventually<Value>(check: () => Value | Promise<Value>, milliseconds = 20_000): Promise<Value> {
  const deadline = performance.now() + milliseconds;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() > deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Pids of processes whose command line holds all of the words. */
export function pidsOf(pids: readonly number[], words: readonly string[]): number[] {
  return pids.filter((pid) => {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, "utf8");
      return words.every((word) => line.split("\0").includes(word));
    } catch {
      return false;
    }
  });
}
