import { setTimeout as sleep } from "node:timers/promises";
import { cpuOf } from "./node.ts";
import type { Kinds } from "../src/resources/registry.ts";
import { shapeNamed } from "./policy-objects.ts";
import { openNamespaces, startWorker, type Worker } from "./policy-processes.ts";
import { sharedClock, type Lags } from "./policy-worker.ts";
import { type BenchResult, quantile } from "./table.ts";

/**
 * A stream of changed pods from another process, as a watch brings them: each line is parsed, taken in and carried out. A
 * pod's lag is from the moment when it was to be sent, so that what waits is counted whole.
 */
const REMOTE = 50_000;
const A_SECOND = 1000;
const SHAPE = "namespaces";
/** The pods of the first hundred applications are this node's own, in part. */
const FIRST = 1000;

export async function benchRate(seconds = 60): Promise<BenchResult> {
  const namespaces = openNamespaces("rate");
  let worker: Worker | undefined;
  try {
    worker = await startWorker(namespaces.make("nft"), "nft", { of: "shape", id: SHAPE, remote: REMOTE });
    await stream(worker, 5); // the compilers of Node itself
    await worker.ask({ do: "lags" });
    const before = cpuOf(worker.pid);
    await stream(worker, seconds);
    const answer = (await worker.ask({ do: "lags" })) as Lags;
    return result(answer, cpuOf(worker.pid) - before, seconds);
  } finally {
    await worker?.close();
    namespaces.close();
  }
}

/**
 * One tenant in five has pods that are let in here where their tier is the first (`SHAPES`): these leave their tier, and
 * come back to it.
 */
const MOVING = REMOTE / 5;
function changedPod(number: number): Kinds["Pod"] {
  const shape = shapeNamed(SHAPE);
  const [app, replica] = [Math.floor((number % MOVING) / 10), number % 10];
  const pod = shape.pod((Math.floor(app / 20) * 100 + (app % 20)) * 10 + replica + FIRST);
  const tier = Math.floor(number / MOVING) % 2 === 0 ? "tier-0" : "tier-1";
  return { ...pod, metadata: { ...pod.metadata, labels: { ...pod.metadata.labels, tier } } };
}

let streamed = 0;
async function stream(worker: Worker, seconds: number): Promise<void> {
  const began = sharedClock();
  const total = seconds * A_SECOND;
  for (let sent = 0; sent < total;) {
    const due = Math.min(total, Math.floor(((sharedClock() - began) * A_SECOND) / 1000));
    for (; sent < due; sent += 1) {
      worker.tell({ do: "pod", pod: changedPod(streamed), sent: began + (sent * 1000) / A_SECOND });
      streamed += 1;
    }
    // oxlint-disable-next-line no-await-in-loop -- until more are due
    await sleep(1);
  }
}

function result({ lags, rounds, memory }: Lags, cpu: number, seconds: number): BenchResult {
  const at = (share: number): string => quantile(lags, share).toFixed(2);
  const p99 = quantile(lags, 0.99);
  return {
    tables: [
      {
        title: `${A_SECOND.toLocaleString("en")} changed pods a second for ${seconds} s`,
        how:
          `Of ${REMOTE.toLocaleString("en")} pods; each change moves one in or out of sets of this node. Lag from when ` +
          "the change was to be sent, by another process, to the kernel's acknowledgement, with the parsing of JSON.",
        rows: [
          {
            changes: String(lags.length),
            transactions: String(rounds),
            "lag median, ms": at(0.5),
            "p90, ms": at(0.9),
            "p99, ms": at(0.99),
            "most, ms": at(1),
            "CPU of one core": `${(cpu / seconds / 10).toFixed(0)} %`,
            "µs a change": ((cpu * 1000) / lags.length).toFixed(0),
            memory: `${memory.toFixed(0)} MB`,
          },
        ],
      },
    ],
    bars: [
      {
        what: "(d) lag at 1,000 changes a second, p99",
        bar: "20 ms; aim 5 ms",
        measured: `${p99.toFixed(1)} ms`,
        met: p99 <= 20,
      },
    ],
  };
}
