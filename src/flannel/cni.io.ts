import { spawn } from "node:child_process";
import { accessSync, constants, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { codeOf, messageOf } from "../lib/errors.ts";
import { CNI_VERSIONS, containerFile, delegateConfig, parsePluginConfig, PluginError } from "./cniPlugin.ts";
import { parseSubnetEnv, type SubnetEnv } from "./subnetEnv.ts";

/** `caracal flannel cni`: what a container runtime calls as the plugin `flannel`. */

type Environment = Readonly<Record<string, string | undefined>>;

/** Of a delegate. */
const DELEGATE_MS = 60_000;

/** Returns the exit code. Results, and errors as the specification has them, go to standard output. */
export async function runCniPlugin(environment: Environment): Promise<number> {
  let cniVersion = "1.0.0";
  try {
    const text = await readInput();
    const said = /"cniVersion"\s*:\s*"([^"]+)"/.exec(text)?.[1];
    if (said !== undefined) cniVersion = said;
    const { output, code } = await carryOut(environment, text, cniVersion);
    process.stdout.write(output);
    return code;
  } catch (error) {
    const failure = error instanceof PluginError ? error : new PluginError("io-failure", messageOf(error), error);
    process.stdout.write(`${JSON.stringify(failure.toResult(cniVersion))}\n`);
    return 1;
  }
}

interface Outcome {
  readonly output: string;
  readonly code: number;
}
const NOTHING: Outcome = { output: "", code: 0 };

async function carryOut(environment: Environment, text: string, cniVersion: string): Promise<Outcome> {
  switch (environment["CNI_COMMAND"]) {
    case "VERSION":
      return { output: `${JSON.stringify({ cniVersion, supportedVersions: CNI_VERSIONS })}\n`, code: 0 };
    case "ADD":
      return add(environment, text);
    case "DEL":
      return remove(environment, text);
    case "STATUS":
      readEnv(parsePluginConfig(text).subnetFile, "not-ready");
      return NOTHING;
    case "CHECK":
    case "GC":
      return NOTHING;
    default:
      throw new PluginError("bad-environment", `CNI_COMMAND is "${environment["CNI_COMMAND"] ?? ""}"`);
  }
}

async function add(environment: Environment, text: string): Promise<Outcome> {
  const config = parsePluginConfig(text);
  const { type, config: delegate } = delegateConfig(config, readEnv(config.subnetFile, "io-failure"));
  const input = JSON.stringify(delegate);
  // Before the delegate runs: a DEL after a crash must find it.
  const file = containerFile(config.dataDir, environment["CNI_CONTAINERID"] ?? "");
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
  writeFileSync(file, input, { mode: 0o600 });
  return callDelegate(type, environment, input);
}

/** With the configuration of the ADD, whatever subnet.env says by now. It is kept where the delegate fails. */
async function remove(environment: Environment, text: string): Promise<Outcome> {
  const file = containerFile(parsePluginConfig(text).dataDir, environment["CNI_CONTAINERID"] ?? "");
  let input: string;
  try {
    input = readFileSync(file, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return NOTHING; // it was removed before, as runtimes do twice
    throw error;
  }
  const { type } = JSON.parse(input) as { type: string };
  const outcome = await callDelegate(type, environment, input);
  if (outcome.code === 0) rmSync(file, { force: true });
  return outcome;
}

function readEnv(file: string, code: "not-ready" | "io-failure"): SubnetEnv {
  try {
    return parseSubnetEnv(readFileSync(file, "utf8"));
  } catch (error) {
    throw new PluginError(code, `flannel has not set this node up: ${messageOf(error)}`, error);
  }
}

/** The delegate's answer is ours, be it a result or an error. */
function callDelegate(type: string, environment: Environment, input: string): Promise<Outcome> {
  const file = findPlugin(type, environment["CNI_PATH"] ?? "");
  return new Promise((resolve, reject) => {
    const child = spawn(file, [], {
      env: environment,
      stdio: ["pipe", "pipe", "inherit"],
      timeout: DELEGATE_MS,
      killSignal: "SIGKILL",
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (output += chunk));
    child.on("error", (error) => reject(new PluginError("delegate-failed", `${file}: ${error.message}`)));
    child.on("close", (code, signal) => {
      if (code === null) reject(new PluginError("delegate-failed", `${file} was ended by ${signal}`));
      else resolve({ output, code });
    });
    child.stdin.on("error", () => undefined); // it ended without reading: its answer says why
    child.stdin.end(input);
  });
}

function findPlugin(type: string, path: string): string {
  if (type.includes("/")) throw new PluginError("bad-config", `delegate.type "${type}" is a path`);
  for (const directory of path.split(":").filter((each) => each !== "")) {
    try {
      accessSync(`${directory}/${type}`, constants.X_OK);
      return `${directory}/${type}`;
    } catch {
      // Not in this one.
    }
  }
  throw new PluginError("bad-environment", `the plugin ${type} is in none of CNI_PATH ${path}`);
}

async function readInput(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}
