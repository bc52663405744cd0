import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { messageOf } from "../lib/errors.ts";

/** The CNI plugin in TypeScript, for nodes without a compiler: it does what shim.c does, which explains it. */

const ADD_MS = 90_000;
const DEL_MS = 20_000;

type Environment = Readonly<Record<string, string | undefined>>;

/** Environment and configuration together, as shim.c has it. Bytes. */
const REQUEST_LIMIT = 1 << 20;

/** Returns the exit code. */
export async function runShim(environment: Environment): Promise<number> {
  const command = environment["CNI_COMMAND"] ?? "";
  const runDirectory = environment["CARACAL_RUN_DIR"] || "/var/run/calico";
  const variables = Object.entries(environment).filter(([name]) => name.startsWith("CNI_"));
  const parts: Buffer[] = [...variables.map(([name, value]) => Buffer.from(`${name}=${value}\0`)), Buffer.of(0)];
  let length = Buffer.concat(parts).length;
  try {
    // Not readFileSync: a pipe that another Node has made does not wait for its writer.
    for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
      parts.push(chunk);
      length += chunk.length;
      if (length >= REQUEST_LIMIT) return await fail(command, "the network configuration is larger than 1 MiB", "");
    }
  } catch (error) {
    return fail(command, "cannot read the network configuration", messageOf(error));
  }
  const request = Buffer.concat(parts);
  let answer: Buffer;
  try {
    answer = await ask(`${runDirectory}/cni.sock`, request, command === "DEL" ? DEL_MS : ADD_MS);
  } catch (error) {
    if (command === "DEL" && spool(runDirectory, environment, request)) return 0;
    return fail(command, "the Caracal agent on this node does not answer", messageOf(error));
  }
  const isPrinted = await print(answer.subarray(1));
  return isPrinted && answer[0] === "+".charCodeAt(0) ? 0 : 1;
}

async function fail(command: string, msg: string, details: string): Promise<1> {
  const code = command === "STATUS" ? 50 : 11;
  await print(Buffer.from(`${JSON.stringify({ cniVersion: "1.0.0", code, msg, details })}\n`));
  return 1;
}

/** Says whether it could be written, all of it. */
function print(bytes: Buffer): Promise<boolean> {
  return new Promise((resolve) => {
    process.stdout.once("error", () => resolve(false));
    process.stdout.write(bytes, (error) => resolve(error === undefined || error === null));
  });
}

function ask(path: string, request: Buffer, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const socket = connect(path, () => socket.end(request));
    const timer = setTimeout(() => socket.destroy(new Error(`no answer in ${timeoutMs / 1000} s`)), timeoutMs);
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("error", reject);
    socket.on("close", () => {
      clearTimeout(timer);
      const answer = Buffer.concat(chunks);
      // Whole answers are a mark alone, or end with a line end.
      if (answer.length === 1 || answer.at(-1) === "\n".charCodeAt(0)) resolve(answer);
      else reject(new Error("the agent went away"));
    });
  });
}

/** Leaves the request where the agent finds it when it starts. */
function spool(runDirectory: string, environment: Environment, request: Buffer): boolean {
  const container = environment["CNI_CONTAINERID"] ?? "";
  const name = environment["CNI_IFNAME"] ?? "";
  const isPlain = (text: string): boolean =>
    text !== "" && !text.startsWith(".") && text.length < 200 && !/[/\n]/.test(text);
  if (!isPlain(container) || !isPlain(name)) return false;
  const directory = `${runDirectory}/cni-deferred`;
  const temporary = `${directory}/.${container}:${name}.${process.pid}`;
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    writeFileSync(temporary, request, { mode: 0o600 });
    renameSync(temporary, `${directory}/${container}:${name}`);
    return true;
  } catch {
    return false;
  }
}
