import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { CniError } from "../cni/error.ts";
import type { CniCommand, CniRequest } from "../cni/request.ts";

const DELEGATE_MS = 30_000;

/** Runs the IPAM plugin that the configuration names (CNI specification, "Delegated plugins") and returns what it prints. */
export function callDelegate(request: CniRequest, command: CniCommand, config: object): Promise<string> {
  const file = findPlugin(request.config.ipamType, request.path);
  return new Promise((resolve, reject) => {
    const fail = (reason: string): void =>
      reject(
        new CniError("address-unavailable", `the IPAM plugin ${request.config.ipamType} failed at ${command}`, reason),
      );
    const child = spawn(file, [], {
      env: { ...request.environment, CNI_COMMAND: command },
      stdio: ["pipe", "pipe", "pipe"],
      timeout: DELEGATE_MS,
      killSignal: "SIGKILL",
    });
    let output = "";
    let errors = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (output += chunk));
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (errors += chunk));
    child.on("error", (error) => fail(error.message));
    child.on("close", (code, signal) => {
      if (code === 0) resolve(output);
      else fail(`${signal === null ? "" : `it was ended by ${signal}. `}${output.trim()}${errors.trim()}`);
    });
    child.stdin.on("error", () => undefined); // it ended without reading: its exit says why
    child.stdin.end(JSON.stringify(config));
  });
}

function findPlugin(name: string, path: readonly string[]): string {
  for (const directory of path) {
    try {
      accessSync(`${directory}/${name}`, constants.X_OK);
      return `${directory}/${name}`;
    } catch {
      // Not in this one.
    }
  }
  throw new CniError("io-failure", `the IPAM plugin ${name} is not in CNI_PATH`, path.join(":"));
}
