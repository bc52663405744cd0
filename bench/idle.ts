import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { askAgent } from "../src/cli/agentClient.io.ts";
import { nodeFiles } from "../src/lab/files.ts";
import { withLab } from "./lab.ts";
import { cpuOf } from "./node.ts";
import { applyAll, PODS } from "./pods.ts";
import { formatTable, type BenchResult } from "./table.ts";

/** For what goes on behind the start of pods to end, and for the agent to see that it is idle and give memory back. */
const SETTLE_SECONDS = 12;
const IDLE_SECONDS = 30;

/** What agents cost that have nothing to do, in a lab of three nodes with their BGP sessions. */
export async function benchIdle(): Promise<BenchResult> {
  return withLab("idle", async (lab) => {
    const [busy, empty] = [await agentPid(lab, "node1"), await agentPid(lab, "node2")];
    await sleep(SETTLE_SECONDS * 1000);
    const fresh = memoryOf(busy);
    await applyAll(lab, "node1");
    await sleep(SETTLE_SECONDS * 1000);
    const before = { busy: cpuOf(busy), empty: cpuOf(empty) };
    const began = performance.now();
    await sleep(IDLE_SECONDS * 1000);
    const elapsed = performance.now() - began;
    const share = (from: number, to: number): number => ((to - from) / elapsed) * 100;
    const cpu = { busy: share(before.busy, cpuOf(busy)), empty: share(before.empty, cpuOf(empty)) };
    const loaded = memoryOf(busy);
    const row = (agent: string, memory: Memory, percent?: number): Record<string, string> => ({
      agent,
      "resident MB": memory.resident.toFixed(0),
      "of which its own MB": memory.own.toFixed(0),
      "% of a core": percent === undefined ? "" : percent.toFixed(2),
    });
    const how =
      `In a lab of three nodes. Memory from /proc/PID/smaps_rollup (its own: private, not shared with other processes of ` +
      `the same program); processor time as the scheduler counted it, over ${IDLE_SECONDS} s in which nothing happens.`;
    return {
      tables: [
        {
          title: "An idle agent",
          how,
          rows: [
            row("ready, no pods yet", fresh),
            row(`with ${PODS} pods`, loaded, cpu.busy),
            row("of another node, with no pods", memoryOf(empty), cpu.empty),
          ],
        },
      ],
      bars: [
        {
          what: `agent with ${PODS} pods, idle: memory`,
          bar: "100 MB resident",
          measured: `${loaded.resident.toFixed(0)} MB`,
          met: loaded.resident <= 100,
        },
        {
          what: `agent with ${PODS} pods, idle: processor`,
          bar: "under 0.5 % of a core",
          measured: `${cpu.busy.toFixed(2)} %`,
          met: cpu.busy < 0.5,
        },
      ],
    };
  });
}

interface Memory {
  /** MB of 10^6 bytes. */
  readonly resident: number;
  readonly own: number;
}

function memoryOf(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
  const megabytes = (name: string): number =>
    (Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(text)?.[1]) * 1024) / 1e6;
  return { resident: megabytes("Rss"), own: megabytes("Private_Clean") + megabytes("Private_Dirty") };
}

async function agentPid(lab: string, node: string): Promise<number> {
  const { pid } = (await askAgent(`${nodeFiles(lab, node).runDirectory}/agent.sock`, "/status")) as { pid: number };
  return pid;
}

if (import.meta.main) for (const table of (await benchIdle()).tables) console.log(formatTable(table));
