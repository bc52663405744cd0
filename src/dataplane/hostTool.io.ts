/** Runs a tool of the host, fed by text, for as long as it may take. */
import { spawn } from "node:child_process";
import { Failure, messageOf } from "../lib/errors.ts";
import { currentNamespace, inNamespace } from "../netlink/namespace.io.ts";

export interface ToolCall {
  readonly command: readonly [file: string, ...args: readonly string[]];
  readonly input?: string;
  /** Milliseconds, after which it is killed. */
  readonly timeout: number;
  /** Path of a network namespace; absent: the caller's own. */
  readonly namespace?: string;
}

export interface ToolResult {
  readonly code: number;
  readonly output: string;
  /** What it complained about, on one line. */
  readonly errors: string;
}

export type ToolFailure = Failure<"tool-missing" | "tool-timeout" | "tool-killed">;

/** Resolves when it ended by itself, whatever its code. Rejects with `ToolFailure` else. */
export function runTool({ command, input = "", timeout, namespace }: ToolCall): Promise<ToolResult> {
  const [file, ...args] = command;
  return new Promise((resolve, reject) => {
    const attempt = `Cannot run ${command.join(" ")}`;
    const failed = (code: ToolFailure["code"], why: string, cause?: unknown): void =>
      reject(new Failure(code, `${attempt}: ${why}`, cause));
    // A child is born in the namespace of the thread that forks it.
    const child = inNamespace(namespace ?? currentNamespace(), () =>
      spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], timeout, killSignal: "SIGKILL" }),
    );
    const output: string[] = [];
    const errors: string[] = [];
    child.stdout.setEncoding("utf8").on("data", (text: string) => output.push(text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => errors.push(text));
    child.on("error", (error) => failed("tool-missing", messageOf(error), error));
    child.on("close", (code, signal) => {
      const said = errors.join("").replaceAll(/\s+/g, " ").trim();
      if (code !== null) return resolve({ code, output: output.join(""), errors: said });
      if (child.killed) failed("tool-timeout", `it did not end within ${timeout} ms${said && `, and said: ${said}`}`);
      else failed("tool-killed", `it was ended by ${signal}`);
    });
    child.stdin.on("error", () => undefined); // it ended without reading: its exit says why
    child.stdin.end(input);
  });
}
