import { execFileSync, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { inNamespace } from "../src/netlink/namespace.io.ts";

/** A process of C in a node's namespace that calls plugins as a runtime does, and times them (caller.c). */
export interface Caller {
  call(file: string, environment: Readonly<Record<string, string>>, input: string): Promise<Call>;
  close(): void;
}

export interface Call {
  readonly exit: number;
  readonly output: string;
  /** From process start to exit. */
  readonly milliseconds: number;
  /** Processor time of the plugin and its children; what an agent does for it is not in it. */
  readonly cpuMilliseconds: number;
}

const ROOT = new URL("..", import.meta.url).pathname;
const HEADER = 24;

export function openCaller(netns: string): Caller {
  const program = `${ROOT}build/bench-caller`;
  mkdirSync(`${ROOT}build`, { recursive: true });
  execFileSync("gcc", ["-O2", "-Wall", "-o", program, `${ROOT}bench/caller.c`]);
  const child = inNamespace(netns, () => spawn(program, [], { stdio: ["pipe", "pipe", "inherit"] }));
  let received = Buffer.alloc(0);
  let waiting: { resolve: (call: Call) => void; reject: (error: Error) => void } | undefined;
  child.stdin.on("error", () => undefined); // its exit says why
  child.on("close", (code) => waiting?.reject(new Error(`the caller ended with exit code ${code}`)));
  child.stdout.on("data", (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    if (received.length < HEADER) return;
    const end = HEADER + received.readUInt32LE(4);
    if (received.length < end) return;
    const call = {
      exit: received.readUInt32LE(0),
      output: received.toString("utf8", HEADER, end),
      milliseconds: Number(received.readBigUInt64LE(8)) / 1e6,
      cpuMilliseconds: Number(received.readBigUInt64LE(16)) / 1e3,
    };
    received = received.subarray(end);
    waiting?.resolve(call);
    waiting = undefined;
  });
  return {
    call(file, environment, input) {
      if (waiting !== undefined) throw new Error("the caller makes one call at a time");
      const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}\0`);
      const body = Buffer.from(`${file}\0${variables.join("")}\0${input}`);
      const length = Buffer.alloc(4);
      length.writeUInt32LE(body.length);
      return new Promise((resolve, reject) => {
        waiting = { resolve, reject };
        child.stdin.write(Buffer.concat([length, body]));
      });
    },
    close: () => child.stdin.end(),
  };
}
