import { execFileSync } from "node:child_process";
import { inNamespace } from "../src/netlink/namespace.io.ts";
import { nodeArguments, openNamespaces } from "./policy-processes.ts";
import { LOCAL, POLICIES, REMOTE, SHAPES, type Shape } from "./policy-objects.ts";
import type { Start } from "./policy-start.ts";
import { type BenchResult, median } from "./table.ts";

/** Starts of an agent's policy, each in a process and a namespace of its own: see policy-start.ts. */
const ROUNDS = 3;
const BAR = { seconds: 4, megabytes: 400 };

export function benchStart(): Promise<BenchResult> {
  const took = new Map<Shape, Start[]>(SHAPES.map((shape) => [shape, []]));
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [shape, starts] of took) starts.push(startOnce(shape.id));
  }
  const of = (starts: readonly Start[], field: keyof Start): number => median(starts.map((start) => start[field]));
  const rows = [...took].map(([shape, starts]) => ({
    cluster: `${shape.name}: ${shape.what}`,
    "seconds until in force": `${of(starts, "total").toFixed(1)} (${spread(starts.map(({ total }) => total))})`,
    "of which after the last object": of(starts, "kernel").toFixed(1),
    "processor seconds": `${of(starts, "work").toFixed(1)} (${spread(starts.map(({ work }) => work))})`,
    "peak MB": of(starts, "peak").toFixed(0),
    "MB at rest": of(starts, "rest").toFixed(0),
    "heap MB": of(starts, "heap").toFixed(0),
    "policies that apply": String(of(starts, "active")),
    "address sets": String(of(starts, "sets")),
  }));
  const bars = [...took].slice(0, 1).flatMap(([shape, starts]) => {
    const [seconds, work, peak] = [of(starts, "total"), of(starts, "work"), of(starts, "peak")];
    return [
      {
        what: `(b) start, ${shape.name}: time`,
        bar: `${BAR.seconds} s; aim 2 s`,
        measured: `${seconds.toFixed(1)} s on the clock, ${work.toFixed(1)} s of processor`,
        met: seconds <= BAR.seconds,
      },
      {
        what: `(b) start, ${shape.name}: memory`,
        bar: `${BAR.megabytes} MB; aim 250 MB`,
        measured: `${peak.toFixed(0)} MB resident at most`,
        met: peak <= BAR.megabytes,
      },
    ];
  });
  return Promise.resolve({
    tables: [
      {
        title: `A start with ${POLICIES.toLocaleString("en")} policies, ${REMOTE.toLocaleString("en")} pods elsewhere and ${LOCAL} here`,
        how:
          "From the first object handed to an agent's policy to everything in force in the kernel, both address families, " +
          `without the making of the objects. Median (least to most) of ${ROUNDS} processes. Resident memory is that of the ` +
          "whole process, Node's own 97 MB with it.",
        rows,
      },
    ],
    bars,
  });
}

function startOnce(shape: string): Start {
  const namespaces = openNamespaces("start");
  try {
    const text = inNamespace(namespaces.make("node"), () =>
      execFileSync(process.execPath, [...nodeArguments("policy-start.ts"), shape], { encoding: "utf8" }),
    );
    return JSON.parse(text) as Start;
  } finally {
    namespaces.close();
  }
}

const spread = (values: readonly number[]): string =>
  `${Math.min(...values).toFixed(1)} to ${Math.max(...values).toFixed(1)}`;
