import { spawn } from "node:child_process";
import { labDown } from "../src/lab/up.io.ts";
import { benchLabName, clearLabs, PROGRAM } from "./node.ts";
import { formatTable, median, type BenchResult } from "./table.ts";

const ROUNDS = 5;

/** Runs `caracal ARGS` and returns how long that took, in milliseconds from start to exit. */
export function caracal(args: readonly string[], input = ""): Promise<number> {
  const [file = "", ...rest] = PROGRAM;
  return new Promise((resolve, reject) => {
    const began = performance.now();
    const child = spawn(file, [...rest, ...args], { stdio: ["pipe", "ignore", "pipe"] });
    let errors = "";
    child.stderr.setEncoding("utf8").on("data", (chunk: string) => (errors += chunk));
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(performance.now() - began);
      else reject(new Error(`caracal ${args.join(" ")} ended with exit code ${code}: ${errors}`));
    });
    child.stdin.end(input);
  });
}

/** A lab with three nodes while `work` runs. */
export async function withLab<Result>(part: string, work: (lab: string) => Promise<Result>): Promise<Result> {
  const lab = benchLabName(part);
  await clearLabs();
  try {
    await caracal(["lab", "up", "--name", lab]);
    return await work(lab);
  } finally {
    await labDown(lab, () => undefined);
  }
}

/** How long a person waits for a cluster of three nodes, and for its end. */
export async function benchLab(): Promise<BenchResult> {
  const ups: number[] = [];
  const downs: number[] = [];
  const lab = benchLabName("lab");
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      ups.push(await caracal(["lab", "up", "--name", lab]));
      downs.push(await caracal(["lab", "down", "--name", lab]));
    }
  } finally {
    await labDown(lab, () => undefined);
  }
  const row = (command: string, times: readonly number[]): Record<string, string> => ({
    command,
    "median s": (median(times) / 1000).toFixed(2),
    "least s": (Math.min(...times) / 1000).toFixed(2),
    "most s": (Math.max(...times) / 1000).toFixed(2),
  });
  const how =
    `${ROUNDS} times, from the start of the command to its exit. Up: the namespaces are made, the API server and three ` +
    "agents run, every node is ready for pods and every BGP session is established.";
  const seconds = median(ups) / 1000;
  return {
    tables: [
      { title: "A lab of three nodes", how, rows: [row("`caracal lab up`", ups), row("`caracal lab down`", downs)] },
    ],
    bars: [
      {
        what: "three-node lab from nothing to ready",
        bar: "10 s",
        measured: `${seconds.toFixed(2)} s`,
        met: seconds <= 10,
      },
    ],
  };
}

if (import.meta.main) for (const table of (await benchLab()).tables) console.log(formatTable(table));
